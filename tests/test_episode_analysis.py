"""Tables of the analysis against hand-made records, and answers drawn from a toy model."""

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import Profile
from mrtlib.evaluation import sweep, tables
from mrtlib.evaluation.votes import maj_at_k
from mrtlib.experiments import answers, claims, episode_analysis, information_gain
from mrtlib.tasks.countdown import countdown
from mrtlib.tasks.grading import candidates

LABELS = {"method": "base", "seed": 0, "level": "three", "sample": 0}


def answer_rows(problem: str, right: list[list[bool]]) -> list[dict]:
    """Two answers and more a boundary; right ones say 1, wrong ones each something else."""
    return [
        LABELS | {"problem": problem, "j": j, "tokens": 20 * j, "k": k, "correct": ok,
                  "answer": "1" if ok else str(2 + k), "logprob": 0.0, "kind": "forced",
                  "answer_tokens": 10}
        for j, row in enumerate(right) for k, ok in enumerate(row)
    ]  # fmt: skip


def curve(problem: str, J: list[float], level: str = "three") -> list[dict]:
    return [
        LABELS | {"problem": problem, "level": level, "j": j, "tokens": 20 * j, "J": value,
                  "progress": value - J[j - 1] if j else None}
        for j, value in enumerate(J)
    ]  # fmt: skip


def test_equal_values_vote_together():
    written = ["3 * 5 + 7", "7 + 5 * 3", "3 * ", None, np.nan]
    assert candidates(written, "countdown") == ["22", "22", "3 * ", None, None]
    half = candidates(["0.5", None, "\\frac{1}{2}", float("nan"), "1/3"], "math")
    assert half[0] == half[2] != half[4] and half[1] is half[3] is None
    assert maj_at_k(half[:3] + [half[4]], [True, False, True, False], 4) == 1.0


def test_waste_is_what_comes_after_the_stop_point():
    found = episode_analysis.waste(pd.DataFrame(curve("a", [0.1, 0.9, 0.9, 0.5])))
    value = found.set_index("name")["estimate"]
    assert value["share of tokens after the stop point"] == pytest.approx(2 / 3)
    assert value["share of traces that end below their best J"] == 1
    assert "0.50 [0.05, 0.95]" in tables.said(found.iloc[1])  # one problem says little


def test_waste_of_traces_that_end_right_leaves_out_those_that_never_get_there():
    rows = curve("a", [0.1, 0.9, 0.9, 0.9, 0.9]) + curve("b", [0.1, 0.1, 0.1, 0.1, 0.1])
    value = episode_analysis.waste(pd.DataFrame(rows)).set_index("name")["estimate"]
    assert value[episode_analysis.AFTER] == pytest.approx((3 / 4 + 1) / 2)
    assert value[episode_analysis.AFTER_RIGHT] == pytest.approx(3 / 4)
    wrong = episode_analysis.waste(pd.DataFrame(rows[5:]))
    assert episode_analysis.AFTER_RIGHT not in set(wrong["name"])
    assert "end right" not in episode_analysis.episodes_in_words(wrong)


def test_the_telling_trace_gains_in_the_middle():
    rows = curve("flat", [0.5, 0.5, 0.5]) + curve("late", [0.1, 0.1, 0.9])
    rows += curve("middle", [0.1, 0.9, 0.9])
    assert episode_analysis.telling_trace(pd.DataFrame(rows)) == ("middle", 0)


def test_claims_hold_between_their_bounds():
    table = claims.checked([("a", 1.0, 0.0, 1.0), ("b", 2.0, 0.0, 1.0), ("c", np.nan, 0, 1)])
    assert table["holds"].tolist() == [True, False, False]


def test_sampled_and_exact_are_paired_by_boundary():
    rows = pd.DataFrame(answer_rows("a", [[True, False], [True, True]]))
    pairs = information_gain.paired(rows, pd.DataFrame(curve("a", [0.4, 1.0])))
    assert (pairs["sampled"] - pairs["exact"]).tolist() == pytest.approx([0.1, 0.0])
    assert pairs["inside"].all()
    found = information_gain.agreement(pairs)
    assert found.bias.estimate == pytest.approx(0.05)
    assert found.expected_noise == pytest.approx(np.sqrt(0.24 / 2 / 2))
    with pytest.raises(ValueError, match="exact J"):
        information_gain.paired(rows, pd.DataFrame(curve("b", [0.4, 1.0])))


def test_credit_adds_up_to_regret_and_the_constant_form_is_grpo():
    progress = pd.DataFrame(curve("a", [0.2, 0.6, 0.4]) + curve("b", [0.0, 1.0]))
    assert information_gain.identity_gaps(progress, 50).max() < 1e-12
    rollouts = pd.DataFrame({"problem": ["a"] * 4 + ["b"] * 4,
                             "correct": [True, False, False, True] + [False] * 4})  # fmt: skip
    shaped = information_gain.shaped_gaps(rollouts, progress, [0.5, 5.0])
    assert shaped["gap"].max() < 1e-3
    by_j = information_gain.by_episode(progress)
    assert by_j["estimate"].tolist() == pytest.approx([0.7, -0.2])
    table = information_gain.credit_table([0.2, 0.6, 0.4], [0, 20, 40], 50)
    assert table["regret_to_go"].iloc[0] == pytest.approx(table["discounted"].sum())


def test_mass_outside_the_references_is_seen():
    problem = countdown((3, 5, 7), 22, "three")
    rows = pd.DataFrame(answer_rows(problem.id, [[True, True]]))
    rows["answer"] = ["3 * 5 + 7", "22"]
    mass = information_gain.probability_mass(
        rows, pd.DataFrame(curve(problem.id, [0.5])), {problem.id: problem}
    )
    assert mass.set_index("quantity")["value"]["of these, share listed as a reference"] == 0.5


def test_answers_are_drawn_once_at_every_boundary(toy_profile, tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(Profile, "runs", property(lambda self: tmp_path / "runs"))
    profile = toy_profile()
    profile = replace(
        profile, data=replace(profile.data, test=1), prover=replace(profile.prover, samples=3),
        thinking=replace(profile.thinking, budget=24, answer_tokens=12),
        evaluation=replace(profile.evaluation, budgets=(24,), extensions=0, samples=2),
    )  # fmt: skip
    tables = sweep.load_tables(sweep.evaluate(profile, "base", 0))
    some = answers.first_rollouts(profile, tables["rollouts"], 5)
    assert len(some) == 2 and (some["sample"] == 0).all()
    drawn = answers.at_every_boundary(profile, some, 0)
    assert len(drawn) == 3 * (some["episodes"] + 1).sum()
    monkeypatch.setattr(sweep.Evaluator, "load", lambda *_: pytest.fail("loaded again"))
    assert answers.at_every_boundary(profile, some, 0).equals(drawn)
    with pytest.raises(ValueError, match="no rollout"):
        answers.first_rollouts(profile, tables["rollouts"].iloc[:0], 5)
