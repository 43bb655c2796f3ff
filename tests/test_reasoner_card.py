"""The reasoner's card: what is read from traces, and the records of a tiny run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import Profile, load_profile
from mrtlib.evaluation import sweep
from mrtlib.experiments import claims, reasoner_card
from mrtlib.reasoner import making
from mrtlib.reasoner.lessons import Recipe
from mrtlib.tasks.countdown import countdown

PROBLEM = countdown((3, 5, 7), 22, "three")


def test_arithmetic_is_checked_step_by_step():
    text = "First, 7 + 5 = 12.\n\n12 * 3 = 36.\n\nWait, 7 - 5 = 3.\n\n5 - 7 = 2."
    assert reasoner_card.arithmetic(text) == [True, True, False, False]
    assert reasoner_card.arithmetic("no step, 7 + = 5") == []


def test_wasted_is_a_repeat_or_what_follows_the_answer():
    first, repeat = "First, 7 - 5 = 2.\n\n3 - 2 = 1.", "But wait, 7 - 5 = 2.\n\n3 - 2 = 1."
    wrong = "Wait, 7 + 3 = 10.\n\nSo 7 + 3 + 5 works."  # says so, but is not right
    right = "Wait, 3 * 5 = 15.\n\n15 + 7 = 22.\n\nSo 3 * 5 + 7 works."
    other = "Alternatively, 7 * 3 = 21."
    assert reasoner_card.wasted([first, repeat, wrong, other, right, "Hm."], PROBLEM) == [
        False, True, False, False, False, True,
    ]  # fmt: skip
    assert reasoner_card.wasted(["Hm.", "Hm."], PROBLEM) == [False, False]  # no steps, no repeat


@pytest.mark.parametrize(
    ("answer", "readable"),
    [(None, False), ("", False), ("3 * 5 +", False), ("3 * 5 + 7", True), ("1 + 1", True)],
)
def test_an_answer_is_readable_or_not(answer, readable):
    assert reasoner_card.parses(PROBLEM, answer) is readable


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(Profile, "runs", property(lambda self: tmp_path / "runs"))
    monkeypatch.setattr(reasoner_card, "ROOT", tmp_path)


def small(profile: Profile) -> Profile:
    return replace(
        profile, data=replace(profile.data, test=2),
        thinking=replace(profile.thinking, budget=24, answer_tokens=12),
        evaluation=replace(profile.evaluation, budgets=(24,), extensions=0),
    )  # fmt: skip


def test_a_card_is_measured_once_and_then_read(toy_profile, toy_tokenizer, elsewhere, monkeypatch):
    profile = small(toy_profile())
    first = reasoner_card.card_records(profile, 0)
    monkeypatch.setattr(sweep.Evaluator, "load", lambda *_: pytest.fail("loaded again"))
    again = reasoner_card.card_records(profile, 0)
    assert all(first[name].equals(again[name]) for name in first)
    assert [len(first[n]) for n in ("rollouts", "direct", "cut", "progress")] == [8, 8, 8, 8]
    assert (first["direct"]["j"] == 0).all() and first["progress"]["J"].between(0, 1).all()
    samples = reasoner_card.per_problem(first, profile, toy_tokenizer.decode)
    card = reasoner_card.card(samples, profile)
    assert "exact J without thinking" in set(card["name"])
    assert claims.of_reasoner(card)["holds"].all()


def test_thresholds_of_the_card_are_claims():
    table = pd.DataFrame({
        "name": ["a", "b", "episodes"], "estimate": [0.5, 0.9, 9.0], "low": 0.4, "high": 0.95,
        "at_least": [0.4, np.nan, 4.0], "at_most": [np.nan, 0.8, 8.0],
    })  # fmt: skip
    found = claims.of_reasoner(table).set_index("claim")["holds"]
    assert found["a"] and not found["b"] and not found["episodes"]


def test_the_reasoner_can_be_made_anew(toy_profile, elsewhere, monkeypatch, tmp_path):
    problems = [PROBLEM, countdown((2, 5, 9), 19, "three")]
    monkeypatch.setattr(making, "make_splits", lambda seed: {"warmup": problems})
    recipe = Recipe(width=64, layers=1, heads=2, feed_forward=64, tokens=2000, batch_tokens=512)
    made = reasoner_card.retrain(toy_profile(), recipe)
    assert made.model.name == "runs/reasoner/model"
    assert (tmp_path / made.model.name / "model.safetensors").is_file()


def test_a_reasoner_made_elsewhere_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    monkeypatch.setattr(reasoner_card, "make", lambda *where: where[-1].mkdir(parents=True))
    made = reasoner_card.retrain(load_profile("smoke"), Recipe())
    assert made.model_path == str(tmp_path / "smoke" / "reasoner" / "model")
