"""Learning at equal tokens on steps made by hand, and the runs themselves on a toy model."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import TRAINED_METHODS, Lora, load_profile
from mrtlib.experiments import claims, estimators
from mrtlib.experiments.estimators import (
    EXACT,
    by_tokens,
    common_total,
    gaps_at_equal_steps,
    gaps_at_equal_tokens,
    with_totals,
)


def some_steps(rewards, read=(100, 300), seeds=2):
    """Two estimators that generate 100 tokens a step; what the prover reads differs."""
    rows = []
    for name, per_step, reward in zip((EXACT, "sampled, K = 4"), read, rewards, strict=True):
        rows += [
            {"estimator": name, "seed": seed, "step": i + 1, "generated_tokens": 100 * (i + 1),
             "prover_tokens": per_step, "reward": reward(i) + seed / 10, "regret": 1 - reward(i)}
            for seed in range(seeds) for i in range(20)
        ]  # fmt: skip
    return with_totals(pd.DataFrame(rows))


def test_totals_hold_every_token():
    steps = some_steps((lambda i: 0.5,) * 2)
    ends = steps.groupby("estimator")["total"].max()
    assert ends[EXACT] == 20 * 200 and ends["sampled, K = 4"] == 20 * 400
    assert common_total(steps) == 4000


def test_a_dearer_estimator_is_read_at_fewer_steps():
    steps = some_steps((lambda i: i / 20,) * 2)
    points = by_tokens(steps)
    assert points["total"].max() == 4000 and points["total"].min() == 400
    table = gaps_at_equal_tokens(steps, points).set_index("estimator")
    assert table["step"].to_dict() == {EXACT: 20, "sampled, K = 4": 10}
    # The last five steps: 15 ... 19 and 5 ... 9, in twentieths; seeds add 0.05 in the mean.
    assert table.loc[EXACT, "reward"] == pytest.approx(17 / 20 + 0.05)
    assert table.loc[EXACT, "reward_least"] == pytest.approx(17 / 20)
    assert table.loc["sampled, K = 4", "reward_gap"] == pytest.approx(-0.5)
    assert table.loc["sampled, K = 4", "regret_gap"] == pytest.approx(0.5)
    assert table.loc[EXACT, "reward_gap"] == 0 and np.isnan(table.loc[EXACT, "reward_low"])


def test_a_run_without_a_step_by_then_has_no_value():
    steps = some_steps((lambda i: i / 20,) * 2, read=(100, 9000))
    points = by_tokens(steps)
    table = gaps_at_equal_tokens(steps, points).set_index("estimator")
    assert table["step"].to_dict() == {EXACT: 20, "sampled, K = 4": 0}
    assert table["reward"].notna().to_dict() == {EXACT: True, "sampled, K = 4": False}
    curves = estimators.mean_curves(points)
    assert set(curves["estimator"]) == {EXACT} and curves["estimate"].notna().all()
    assert not points.duplicated(["estimator", "seed", "total"]).any()


def test_curves_have_an_interval_over_seeds():
    points = by_tokens(some_steps((lambda i: i / 50 + 0.1,) * 2, seeds=5))
    curves = estimators.mean_curves(points)
    assert len(curves) == 2 * 2 * estimators.POINTS
    rows = curves[curves["quantity"] == "reward"]
    width = 2 * 2.776445 * np.std([0, 0.1, 0.2, 0.3, 0.4], ddof=1) / 5**0.5  # t of 4
    middle = rows[rows["estimate"].between(0.25, 0.75)]  # where no end is cut off at 0 or 1
    assert len(middle) > 10
    assert (middle["high"] - middle["low"]).to_numpy() == pytest.approx(width, rel=1e-6)
    rows = curves[curves["quantity"] == "regret"]
    assert (rows["high"] - rows["low"]).max() < 1e-9


@pytest.mark.parametrize(("better", "holds"), [(0.0, True), (0.015, True), (0.2, False)])
def test_the_claim_fails_where_exact_learns_worse(better, holds):
    steps = some_steps((lambda i: 0.4, lambda i: 0.4 + better), seeds=5)
    table = gaps_at_equal_tokens(steps, by_tokens(steps))
    [(_, value, low, high)] = claims.of_learning(table)
    assert (low <= value <= high) == holds


def test_few_seeds_give_no_interval_and_no_claim():
    steps = some_steps((lambda i: 0.4, lambda i: 0.5), seeds=1)
    table = gaps_at_equal_tokens(steps, by_tokens(steps))
    assert claims.of_learning(table) == []
    text = estimators.learning_in_words(table, gaps_at_equal_steps(steps), 4000)
    assert "sampled, K = 4 0.500, +0.100;" in text and "[" not in text and "20 steps each" in text


def test_at_equal_steps_the_price_does_not_count():
    steps = some_steps((lambda i: i / 20,) * 2, seeds=5)
    table = gaps_at_equal_steps(steps).set_index("estimator")
    assert (table["step"] == 20).all() and table["reward_gap"].abs().max() < 1e-12
    assert table.loc[EXACT, "regret"] == pytest.approx(1 - 17 / 20)


def test_a_sampled_profile_gets_an_exact_run_of_its_own():
    base = load_profile("smoke")
    assert estimators.with_exact(base) is base
    other = replace(base, prover=replace(base.prover, estimator="sampled"))
    made = estimators.with_exact(other)
    assert made.prover.estimator == EXACT and made.runs != other.runs


def test_runs_train_each_estimator_once(toy_profile, tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    base = toy_profile("none")
    profile = replace(
        base, lora=Lora(rank=4, alpha=8),
        thinking=replace(base.thinking, budget=40, answer_tokens=8, segmenter="tokens",
                         episode_tokens=10),
        training=replace(base.training, tokens=10**6, most_steps=2, problems_per_step=2,
                         group_size=4, learning_rate=dict.fromkeys(TRAINED_METHODS, 1e-2)),
    )  # fmt: skip
    steps = estimators.runs(profile, range(2))
    counts = steps.groupby(["estimator", "seed"])["step"].max()
    assert len(counts) == 2 * (1 + len(estimators.SAMPLED)) and (counts == 2).all()
    first = steps[steps["step"] == 1].groupby("seed")["reward"].nunique()
    assert (first == 1).all()  # one first batch for all
    drawn = steps[steps["step"] == 1].set_index(["estimator", "seed"])["generated_tokens"]
    dearest = drawn[f"sampled, K = {estimators.SAMPLED[-1]}"]
    assert (dearest > drawn[EXACT]).all()
    monkeypatch.setattr("mrtlib.training.trainer.MRTTrainer", None)  # a second call only reads
    pd.testing.assert_frame_equal(estimators.runs(profile, range(2)), steps)
