"""Models side by side: shares of regret removed, tokens at equal accuracy, and the claims."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrtlib import comparison
from mrtlib.config import Evaluation, load_profile
from mrtlib.results import measures, results

C0, PROBLEMS, SAMPLES = 40, 6, 4


@pytest.fixture
def profile():
    base = load_profile("smoke")
    return replace(base, thinking=replace(base.thinking, budget=C0),
                   evaluation=Evaluation(budgets=(20, 40), bootstrap=100))  # fmt: skip


def made_up(method: str, gain: float) -> dict[str, pd.DataFrame]:
    """Tables of a model whose traces end at 20 tokens with J = gain, and go on to 60 by force."""
    rollouts, progress, budgets = [], [], []
    for p in range(PROBLEMS):
        J = gain * (0.5 + p / PROBLEMS / 2)
        for s in range(SAMPLES):
            key = {"method": method, "seed": 0, "level": "three", "problem": f"p{p}", "sample": s}
            rollouts.append(key | {"correct": s == 0, "answer": str(s), "trace_tokens": 20,
                                   "episodes": 1, "truncated": False})  # fmt: skip
            progress += [key | {"j": j, "tokens": 20 * j, "J": J * j} for j in (0, 1)]
            budgets += [key | {"budget": b, "accuracy": J, "tokens": 20, "extrapolated": False}
                        for b in (20, 40)]  # fmt: skip
        budgets.append(budgets[-1] | {"sample": 0, "budget": 60, "tokens": 50,
                                      "extrapolated": True})  # fmt: skip
    return {"rollouts": pd.DataFrame(rollouts), "progress": pd.DataFrame(progress),
            "budgets": pd.DataFrame(budgets)}  # fmt: skip


@pytest.fixture
def tables():
    gains = {"base": 0.2, "outcome": 0.5, "regret_to_go": 0.9, "episode_progress": 0.1}
    return {(method, 0): made_up(method, gain) for method, gain in gains.items()}


@pytest.fixture
def models(tables, profile):
    return {run: measures(found, profile) for run, found in tables.items()}


def test_regret_removed_is_signed_and_said(models):
    table = comparison.regret_removed(models, (C0,), np.random.default_rng(0), 200)
    assert list(table["method"]) == ["regret_to_go", "episode_progress"]
    ours, worse = table.itertuples()
    mean_J = 0.5 + 5 / 24  # of gain 1: the mean of 0.5 + p/12 over p = 0 ... 5
    regrets = [1 - gain * mean_J / 2 for gain in (0.9, 0.5)]
    assert ours.estimate == pytest.approx(1 - regrets[0] / regrets[1])
    assert ours.decided and worse.decided and worse.estimate < 0
    assert "`regret_to_go` removes" in comparison.verdict(ours)
    said = comparison.verdict(worse)
    assert "`episode_progress` adds" in said and "-" not in said
    unclear = ours._replace(low=-0.1, decided=False)
    assert "not told apart" in comparison.verdict(unclear)


def test_regret_is_removed_on_each_level_where_there_are_several(models):
    for found in models.values():
        for key, values in found.items():
            moved = [("four" if p in ("p4", "p5") else "three", p) for _, p in values.index]
            found[key] = values.set_axis(pd.MultiIndex.from_tuples(moved, names=values.index.names))
    table = comparison.regret_removed(models, (C0,), np.random.default_rng(0), 50)
    assert list(table["level"]) == ["all"] * 2 + ["three"] * 2 + ["four"] * 2
    hard = table[(table["level"] == "four") & (table["method"] == "regret_to_go")].iloc[0]
    mean_J = 0.5 + 4.5 / 12
    regrets = [1 - gain * mean_J / 2 for gain in (0.9, 0.5)]
    assert hard.estimate == pytest.approx(1 - regrets[0] / regrets[1])
    assert "level `four`" in comparison.verdict(hard)


def test_tokens_at_equal_accuracy(models):
    table = comparison.tokens_at_equal_accuracy(models, C0, np.random.default_rng(0), 50)
    found = table.set_index("method")
    assert list(found.index) == ["regret_to_go", "episode_progress"]
    ours, never = found.loc["regret_to_go"], found.loc["episode_progress"]
    assert (ours["tokens"], ours["times_fewer"], ours["low"], ours["high"]) == (20, 1, 1, 1)
    assert never["times_fewer"] == 0 and np.isinf(never["tokens"])
    even, short = table.itertuples()
    assert "1.00 [1.00, 1.00] times fewer" in comparison.thrift(even)
    assert "does not reach" in comparison.thrift(short)


def test_claims_hold_and_can_fail(models, tables, profile):
    table = results(models, profile, np.random.default_rng(0))
    assert comparison.claims(table, tables, C0)["holds"].all()
    tables["base", 0]["budgets"].loc[0, "tokens"] = 21
    tables["outcome", 0]["progress"]["J"] += 0.01
    table.loc[0, "low"] = 2.0
    bad = comparison.claims(table, tables, C0)
    assert list(bad.loc[~bad["holds"], "claim"]) == [
        "each interval holds its estimate",
        "no rollout thinks past its budget",
        "accuracy at C0 is J at the end of the trace",
    ]
