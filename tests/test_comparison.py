"""Models side by side: shares of regret removed, tokens at equal accuracy, and the claims."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import Evaluation, load_profile
from mrtlib.evaluation import comparison
from mrtlib.evaluation.results import by_seed_and_problem, metrics_of, results
from mrtlib.experiments import claims

C0, PROBLEMS, SAMPLES = 40, 6, 4


@pytest.fixture
def profile():
    base = load_profile("smoke")
    return replace(base, thinking=replace(base.thinking, budget=C0),
                   evaluation=Evaluation(budgets=(20, 40)))  # fmt: skip


def made_up(method: str, gain: float) -> dict[str, pd.DataFrame]:
    """Tables of a model whose traces end at 20 tokens with J = gain, and go on to 60 by force."""
    rollouts, progress, budgets = [], [], []
    for p in range(PROBLEMS):
        J = gain * (0.5 + p / PROBLEMS / 2)
        for s in range(SAMPLES):
            key = {"method": method, "seed": 0, "level": "three", "problem": f"p{p}", "sample": s}
            rollouts.append(key | {"correct": s == 0, "answer": str(s), "trace_tokens": 20,
                                   "episodes": 1, "truncated": False, "closed": True,
                                   "prompt_ids": [1, 2], "token_ids": [3] * 25})  # fmt: skip
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
    return {run: metrics_of(found, profile) for run, found in tables.items()}


def test_means_are_of_each_problem_whatever_its_samples_and_its_place():
    index = pd.MultiIndex.from_tuples([("three", "a"), ("three", "b"), ("four", "c")],
                                      names=["level", "problem"])  # fmt: skip
    ragged = pd.Series([np.array([1.0]), np.array([0.0, 1.0]), np.array([0.0, 0.0, 1.0])], index)
    means, fewer = pd.Series([0.5, 0.25, 1.0], index[::-1]), ragged[:2]
    got = by_seed_and_problem([ragged, means], ragged, "all")
    assert np.allclose(got, [[1.0, 0.5, 1 / 3], [1.0, 0.25, 0.5]])
    with pytest.raises(ValueError, match=r"1 of 3 problems .* \('four', 'c'\) first"):
        by_seed_and_problem([ragged, fewer], ragged, "all")
    assert by_seed_and_problem([ragged, means], ragged["four"], "four").tolist() == [[1 / 3], [0.5]]


def test_models_whose_J_is_measured_in_two_ways_are_named(tables):
    for found in tables.values():
        found["progress"]["estimator"] = "exact"
    assert comparison.estimators_in_words(tables) == ""
    tables["outcome", 0]["progress"]["estimator"] = "sampled"
    said = comparison.estimators_in_words(tables)
    assert "J of `outcome` seed 0 is sampled" in said and "`base`" not in said
    for found in tables.values():
        found["progress"]["estimator"] = "sampled"
    assert comparison.estimators_in_words(tables) == ""


def test_regret_removed_is_signed_and_said(models):
    table = comparison.regret_removed(models, (C0,))
    assert list(table["method"]) == ["regret_to_go", "episode_progress"]
    ours, worse = table.itertuples()
    mean_J = 0.5 + 5 / 24  # of gain 1: the mean of 0.5 + p/12 over p = 0 ... 5
    regrets = [1 - gain * mean_J / 2 for gain in (0.9, 0.5)]
    assert ours.estimate == pytest.approx(1 - regrets[0] / regrets[1])
    assert ours.decided and worse.decided and worse.estimate < 0
    assert "`regret_to_go` removes" in comparison.regret_in_words(ours)
    said = comparison.regret_in_words(worse)
    assert "`episode_progress` adds" in said and "-" not in said
    unclear = ours._replace(low=-0.1, decided=False)
    assert "no significant difference from `outcome`" in comparison.regret_in_words(unclear)
    nothing = unclear._replace(estimate=0.0004, low=-0.0004)
    assert "(0.0% [0.0%," in comparison.regret_in_words(nothing)


def test_regret_is_removed_on_each_level_where_there_are_several(models):
    for found in models.values():
        for key, values in found.items():
            moved = [("four" if p in ("p4", "p5") else "three", p) for _, p in values.index]
            found[key] = values.set_axis(pd.MultiIndex.from_tuples(moved, names=values.index.names))
    table = comparison.regret_removed(models, (C0,))
    assert list(table["level"]) == ["all"] * 2 + ["three"] * 2 + ["four"] * 2
    hard = table[(table["level"] == "four") & (table["method"] == "regret_to_go")].iloc[0]
    mean_J = 0.5 + 4.5 / 12
    regrets = [1 - gain * mean_J / 2 for gain in (0.9, 0.5)]
    assert hard.estimate == pytest.approx(1 - regrets[0] / regrets[1])
    assert "level `four`" in comparison.regret_in_words(hard)


def test_two_methods_are_compared_in_pairs(models):
    table = comparison.between(models, "regret_to_go", "outcome", C0).set_index(
        ["metric", "budget"]
    )
    gap = table.loc[("accuracy", C0)]
    assert gap["difference"] == pytest.approx(gap["regret_to_go"] - gap["outcome"])
    assert gap["decided"]
    assert gap["low"] < gap["difference"] < gap["high"]
    assert table.loc[("regret", C0), "difference"] < 0
    assert not table.loc[("tokens", C0), "decided"]  # all traces have 20


def test_tokens_at_equal_accuracy(models):
    table = comparison.tokens_at_equal_accuracy(models, C0)
    found = table.set_index("method")
    assert list(found.index) == ["regret_to_go", "episode_progress"]
    ours, never = found.loc["regret_to_go"], found.loc["episode_progress"]
    assert (ours["tokens"], ours["times_fewer"], ours["low"], ours["high"]) == (20, 1, 1, 1)
    assert never["times_fewer"] == 0 and np.isinf(never["tokens"])
    even, short = table.itertuples()
    assert "1.00 [1.00, 1.00] times fewer" in comparison.tokens_in_words(even)
    assert "no significant difference" in comparison.tokens_in_words(even)
    assert "does not reach" in comparison.tokens_in_words(short)
    sure = even._replace(times_fewer=1.5, low=1.1, high=2.0)
    assert "needs fewer tokens" in comparison.tokens_in_words(sure)
    assert "(1.50 [1.10, 2.00] times fewer" in comparison.tokens_in_words(sure)
    worse = even._replace(times_fewer=0.8, low=0.7, high=0.9)
    assert "needs more tokens" in comparison.tokens_in_words(worse)
    alone = even._replace(low=np.nan, high=np.nan)
    assert "without an interval" in comparison.tokens_in_words(alone)


def test_tokens_used_at_equal_accuracy_count_what_was_thought_and_not_the_cap(tables, profile):
    for (method, _), found in tables.items():
        budgets = found["budgets"]
        inside = ~budgets["extrapolated"]
        # Ours uses half of each budget, outcome RL all of it but at the last one.
        share = budgets["budget"] / 2 if method == "regret_to_go" else budgets["budget"]
        budgets.loc[inside, "tokens"] = share[inside].clip(upper=30)
        climb = budgets["budget"].map({20: 0.5, 40: 1.0, 60: 1.0})
        budgets["accuracy"] = budgets["accuracy"] * climb
    models = {run: metrics_of(found, profile) for run, found in tables.items()}
    caps = comparison.tokens_at_equal_accuracy(models, C0).set_index("method")
    used = comparison.used_at_equal_accuracy(models, C0).set_index("method")
    accuracy = [float(models["regret_to_go", 0]["accuracy", b].map(np.mean).mean())
                for b in (20, 40)]  # fmt: skip
    best = float(models["outcome", 0]["accuracy", 40].map(np.mean).mean())
    share = (best - accuracy[0]) / (accuracy[1] - accuracy[0])
    ours = used.loc["regret_to_go"]
    assert ours["tokens"] == pytest.approx(10 + share * 10)  # of 10 and 20 used
    assert ours["times_fewer"] == pytest.approx(30 / ours["tokens"])
    assert caps.loc["regret_to_go", "times_fewer"] == pytest.approx(40 / (20 + share * 20))


def curves(gain: float, spread: float, seeds: int = 5):
    """Return accuracy (B, S, P) of ours, `gain` above the other's at each budget, and the other's.

    Seeds lie up to `spread` from their mean.
    """
    other = np.tile(np.array([0.1, 0.3, 0.4])[:, None, None], (1, seeds, 20))
    apart = np.linspace(-spread, spread, seeds)[:, None]
    return other + gain + apart, other


def test_an_accuracy_that_may_not_be_reached_makes_the_low_end_zero():
    budgets = [10, 20, 30]
    sure = comparison.times_fewer(budgets, *curves(0.1, 0.0))
    assert vars(sure) == pytest.approx({"estimate": 1.5, "low": 1.5, "high": 1.5})  # 30 / 20
    # Seeds of +-0.05 around 0.1: the mean is known to +- 2.776 * 0.0395 / sqrt(5) = 0.049.
    half = 2.776445 * np.linspace(-0.05, 0.05, 5).std(ddof=1) / 5**0.5
    found = comparison.times_fewer(budgets, *curves(0.1, 0.05))
    assert found.estimate == pytest.approx(1.5)
    assert found.low == pytest.approx(30 / (20 + 10 * half / 0.1))
    assert found.high == pytest.approx(30 / (20 - 10 * half / 0.2))
    unsure = comparison.times_fewer(budgets, *curves(0.03, 0.05))
    assert unsure.low == 0 < 1 < unsure.estimate < unsure.high
    never = comparison.times_fewer(budgets, *curves(-0.2, 0.05))
    assert vars(never) == {"estimate": 0, "low": 0, "high": 0}
    alone = comparison.times_fewer(budgets, *(c[:, :1, :1] for c in curves(0.1, 0.05)))
    assert np.isnan(alone.low) and np.isnan(alone.high)


def test_votes_count_equal_answers_together_and_no_answer_not_at_all(profile):
    tables = made_up("base", 0.5)
    # One right, two wrong ones of one value, and none: by text, or with a vote for "none", a tie.
    tables["rollouts"]["answer"] = ["22", "2 + 3", "3 + 2", None] * PROBLEMS
    found = metrics_of(tables, profile)["maj@4", C0]
    assert [float(v[0]) for v in found] == [0.0] * PROBLEMS
    tables["rollouts"]["answer"] = ["22", None, None, np.nan] * PROBLEMS
    assert [float(v[0]) for v in metrics_of(tables, profile)["maj@4", C0]] == [1.0] * PROBLEMS


def test_claims_hold_and_can_fail(models, tables, profile):
    table = results(models)
    assert claims.of_evaluation(table, tables, C0)["holds"].all()
    tables["base", 0]["budgets"].loc[0, "tokens"] = 21
    tables["outcome", 0]["progress"]["J"] += 0.01
    table.loc[0, "low"] = 2.0
    bad = claims.of_evaluation(table, tables, C0)
    assert list(bad.loc[~bad["holds"], "claim"]) == [
        "intervals without their estimate",
        "rollouts that think past their budget",
        "largest gap of accuracy at C0 to the last J",
    ]
