"""The evaluated models side by side: what MRT removes of regret, what tokens it saves, the claims.

Everything here works on `results.measures` and on results.csv; no model is loaded.
"""

import math

import numpy as np
import pandas as pd

from mrtlib.regret import efficiency_at_equal_accuracy, tokens_to_reach
from mrtlib.results import Measures, by_seed_and_problem, paired_seeds, relative_regret
from mrtlib.scaling import overall

Models = dict[tuple[str, int], Measures]


def regret_removed(
    models: Models, budgets: tuple[int, ...], rng: np.random.Generator, draws: int
) -> pd.DataFrame:
    """Return 1 - regret(method) / regret(outcome) by method, level and budget, with intervals.

    Positive: less regret than `outcome`. `decided` says whether the interval leaves out 0. Level
    "all" comes first; each level follows where there are several.
    """
    methods = _rivals_of_outcome(models)
    known = next(iter(next(iter(models.values())).values())).index.get_level_values("level")
    levels = list(dict.fromkeys(known))
    rows = [
        (method, level, budget, *relative_regret(models, method, budget, rng, draws, level))
        for level in ["all", *(levels if len(levels) > 1 else [])]
        for method in methods
        for budget in budgets
    ]
    names = ["method", "level", "budget", "estimate", "low", "high"]
    table = pd.DataFrame(rows, columns=names)
    table["decided"] = (table["low"] > 0) | (table["high"] < 0)
    return table


def tokens_at_equal_accuracy(
    models: Models, c0: int, rng: np.random.Generator, draws: int
) -> pd.DataFrame:
    """Return at which budget each method reaches the best accuracy of `outcome` up to C0.

    `times_fewer` is outcome's budget over the method's, with low and high from resampling seeds
    and problems together; 0 where the method never gets there (tokens inf).
    """
    out = []
    for method in _rivals_of_outcome(models):
        budgets, ours, other = _accuracy_curves(models, method, c0)
        means = ours.mean((1, 2)), other.mean((1, 2))
        s = rng.integers(ours.shape[1], size=(draws, ours.shape[1]))
        p = rng.integers(ours.shape[2], size=(draws, ours.shape[2]))
        drawn = [
            efficiency_at_equal_accuracy(
                budgets, ours[:, i][:, :, k].mean((1, 2)),
                budgets, other[:, i][:, :, k].mean((1, 2)),
            )
            for i, k in zip(s, p, strict=True)
        ]  # fmt: skip
        times = efficiency_at_equal_accuracy(budgets, means[0], budgets, means[1])
        tokens = tokens_to_reach(budgets, means[0], means[1].max())
        out.append((method, means[1].max(), tokens, times, *np.quantile(drawn, [0.025, 0.975])))
    names = ["method", "accuracy", "tokens", "times_fewer", "low", "high"]
    return pd.DataFrame(out, columns=names)


def _rivals_of_outcome(models: Models) -> list[str]:
    return [m for m in dict.fromkeys(m for m, _ in models) if m not in ("base", "outcome")]


def _accuracy_curves(
    models: Models, method: str, c0: int
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return the budgets up to C0 and the accuracies (B, S, P) of a method and of `outcome`."""
    seeds = paired_seeds(models, method, "outcome")
    first = models[method, seeds[0]]
    budgets = sorted(b for metric, b in first if metric == "accuracy" and b <= c0)
    ours, other = (
        np.array([
            by_seed_and_problem(
                [models[m, s]["accuracy", b] for s in seeds], first["accuracy", b], "all"
            )
            for b in budgets
        ])
        for m in (method, "outcome")
    )  # fmt: skip
    return budgets, ours, other


def verdict(row: pd.Series) -> str:
    """Say in words what one row of `regret_removed` shows, whichever way it came out."""
    numbers = (row.estimate, row.low, row.high)
    if row.decided and row.estimate < 0:
        numbers = (-row.estimate, -row.high, -row.low)
    much = "{:.1%} [{:.1%}, {:.1%}]".format(*numbers)
    place = f"at {row.budget} tokens" + ("" if row.level == "all" else f", level `{row.level}`")
    if not row.decided:
        return (f"`{row.method}` is not told apart from `outcome` by its regret {place} "
                f"({much} removed)")  # fmt: skip
    way = "removes" if row.estimate > 0 else "adds"
    return f"`{row.method}` {way} {much} of the regret of `outcome` {place}"


def thrift(row: pd.Series) -> str:
    """Say in words what one row of `tokens_at_equal_accuracy` shows."""
    if row.times_fewer == 0:
        return f"`{row.method}` does not reach the best accuracy of `outcome` within C0"
    return (f"`{row.method}` reaches the accuracy of `outcome` at C0 with {row.times_fewer:.2f} "
            f"[{row.low:.2f}, {row.high:.2f}] times fewer tokens")  # fmt: skip


def claims(
    results: pd.DataFrame, tables: dict[tuple[str, int], dict[str, pd.DataFrame]], c0: int
) -> pd.DataFrame:
    """Return what must hold of any evaluation as (claim, value, holds); none says who wins."""
    budgets = pd.concat(t["budgets"] for t in tables.values())
    inner, beyond = (budgets[budgets["extrapolated"] == way] for way in (False, True))
    shares = results[results["metric"].isin(["accuracy", "regret", "truncated", "pass@4"])]
    slack = 1e-9  # of rounding, where all problems have one value
    inside = results["estimate"].between(results["low"] - slack, results["high"] + slack)
    own = overall(results).set_index(["method", "metric", "budget"])["estimate"].sort_index()
    methods = sorted({m for m, _ in tables})
    apart = max(_ends_apart(t) for t in tables.values())
    floor = min(own[m, "pass@4", c0] - own[m, "natural_accuracy", c0] for m in methods)
    summed = _smallest_rise(own, methods, c0)
    sets = {frozenset(t["rollouts"]["problem"]) for t in tables.values()}
    rows = [
        ("shares lie in [0, 1]", shares["estimate"].max(),
         shares["estimate"].between(-slack, 1 + slack).all()),
        ("each interval holds its estimate", inside.mean(), inside.all()),
        ("no rollout thinks past its budget", (inner["tokens"] / inner["budget"]).max(),
         (inner["tokens"] <= inner["budget"]).all()),
        ("accuracy at C0 is J at the end of the trace", apart, apart < 1e-6),
        ("pass@4 is at least the accuracy of one sample", floor, floor >= -slack),
        ("all models answered the same problems", len(sets), len(sets) == 1),
        ("regret times budget never falls up to C0", summed, summed >= -slack),
        ("forced extensions go beyond C0", beyond["budget"].min(), (beyond["budget"] > c0).all()),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "value", "holds"])


def _smallest_rise(own: pd.Series, methods: list[str], c0: int) -> float:
    """Return the least rise of regret(b) * b, the area above the curve, between budgets b."""
    rises = []
    for method in methods:
        curve = own[method, "regret"].loc[:c0]
        rises += list(np.diff(curve.to_numpy() * curve.index.to_numpy(dtype=float)))
    return float(min(rises))


def _ends_apart(tables: dict[str, pd.DataFrame]) -> float:
    """Return how far accuracy at C0 is from J at the last boundary, at most."""
    place = ["problem", "sample"]
    inside = tables["budgets"][~tables["budgets"]["extrapolated"]]
    at_end = inside.sort_values("budget").groupby(place)["accuracy"].last()
    last = tables["progress"].sort_values("j").groupby(place)["J"].last()
    gap = (at_end - last.reindex(at_end.index)).abs().max()
    return math.inf if np.isnan(gap) else float(gap)
