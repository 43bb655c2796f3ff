"""The evaluated models side by side: what MRT removes of regret, what tokens it saves, the claims.

Everything here works on `results.measures` and on results.csv; no model is loaded.
"""

import math

import numpy as np
import pandas as pd

from mrtlib.regret import efficiency_at_equal_accuracy, tokens_to_reach
from mrtlib.results import Measures, relative_regret
from mrtlib.scaling import overall

Models = dict[tuple[str, int], Measures]


def regret_removed(
    models: Models, budgets: tuple[int, ...], rng: np.random.Generator, draws: int
) -> pd.DataFrame:
    """Return 1 - regret(method) / regret(outcome) by method, level and budget, with intervals.

    Positive: less regret than `outcome`. `decided` says whether the interval leaves out 0. Level
    "all" comes first; each level follows where there are several.
    """
    methods = [m for m in dict.fromkeys(m for m, _ in models) if m not in ("base", "outcome")]
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


def tokens_at_equal_accuracy(results: pd.DataFrame, c0: int) -> pd.DataFrame:
    """Return the budget at which each method reaches the best accuracy `outcome` has up to C0.

    `times_fewer` is outcome's budget over the method's; 0 where the method never gets there
    (tokens inf).
    """
    rows = overall(results)
    rows = rows[(rows["metric"] == "accuracy") & (rows["budget"] <= c0)]
    rival = rows[rows["method"] == "outcome"]
    out = []
    for method, own in rows.groupby("method", sort=False):
        target = float(rival["estimate"].max())
        tokens = tokens_to_reach(own["budget"], own["estimate"], target)
        times = efficiency_at_equal_accuracy(
            own["budget"], own["estimate"], rival["budget"], rival["estimate"]
        )
        out.append((method, target, tokens, times))
    return pd.DataFrame(out, columns=["method", "accuracy", "tokens", "times_fewer"])


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
