"""The evaluated models side by side: what MRT removes of the regret, and what tokens it saves.

Everything here works on what `results.metrics_of` returns; no model is loaded.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from mrtlib.evaluation.results import (
    Metrics,
    by_seed_and_problem,
    level_names,
    level_of_each,
    paired_seeds,
    relative_regret,
)
from mrtlib.evaluation.tables import decided
from mrtlib.regret import efficiency_at_equal_accuracy, tokens_to_reach
from mrtlib.stats import Interval, two_way

Models = dict[tuple[str, int], Metrics]
FINER = 2  # steps between two budgets in which an interval of budgets is sought


def regret_removed(models: Models, budgets: tuple[int, ...]) -> pd.DataFrame:
    """Return 1 - regret(method) / regret(outcome) by method, level and budget, with intervals.

    Positive: less regret than `outcome`. `decided` says whether the interval leaves out 0. Level
    "all" comes first; each level follows where there are several.
    """
    known = level_names(next(iter(next(iter(models.values())).values())))
    rows = [
        (method, level, budget, *vars(relative_regret(models, method, budget, level)).values())
        for level in ["all", *(known if len(known) > 1 else [])]
        for method in _rivals_of_outcome(models)
        for budget in budgets
    ]
    names = ["method", "level", "budget", "estimate", "low", "high"]
    return decided(pd.DataFrame(rows, columns=names))


def tokens_at_equal_accuracy(models: Models, c0: int) -> pd.DataFrame:
    """Return at which budget each method reaches the best accuracy of `outcome` up to C0.

    `times_fewer` is outcome's budget over the method's, with low and high as in `times_fewer`; 0
    where the method never gets there (tokens inf).
    """
    budgets = _budgets(models, c0)
    return _equal(models, budgets, lambda *_: budgets)


def used_at_equal_accuracy(models: Models, c0: int) -> pd.DataFrame:
    """Return the same of the tokens that are used where thinking is cut at a budget.

    Each accuracy stands at the mean of the tokens used: traces end before the budget, too. These
    means, of the seeds that both methods have, are taken as given; they vary much less than
    accuracies do.
    """
    budgets = _budgets(models, c0)

    def used(method: str, beside: str) -> list[float]:
        return [float(_values(models, method, ("tokens", b), beside).mean()) for b in budgets]

    return _equal(models, budgets, used)


def _equal(
    models: Models, budgets: list[int], tokens_of: Callable[[str, str], Sequence[float]]
) -> pd.DataFrame:
    out, places = [], [("accuracy", b) for b in budgets]
    levels = level_of_each(next(iter(models.values()))[places[0]])
    for method in _rivals_of_outcome(models):
        ours = np.array([_values(models, method, place) for place in places])
        other = np.array([_values(models, "outcome", place, method) for place in places])
        mine, theirs = tokens_of(method, "outcome"), tokens_of("outcome", method)
        times = times_fewer(mine, ours, other, levels, theirs)
        best = other.mean((1, 2)).max()
        tokens = tokens_to_reach(mine, ours.mean((1, 2)), best)
        out.append((method, best, tokens, *vars(times).values()))
    names = ["method", "accuracy", "tokens", "times_fewer", "low", "high"]
    return pd.DataFrame(out, columns=names)


def times_fewer(
    budgets: Sequence[float], ours: np.ndarray, other: np.ndarray,
    levels: np.ndarray | None = None, other_budgets: Sequence[float] | None = None,
) -> Interval:  # fmt: skip
    """Return how many times fewer tokens we need for the best accuracy of the other.

    The other's budget at its best is taken as given. The interval holds the budgets at which we
    may have that accuracy: those where the two-way interval of the difference in accuracy, ours at
    a budget less the other's best, holds 0 (the inversion of a test, as Fieller does for a ratio).
    Between budgets accuracies are interpolated, as in the curve. An accuracy that we may not reach
    makes the low end 0, and one that we certainly do not reach makes both 0.

    Args:
        budgets: (B,) tokens.
        ours, other: (B, S, P) accuracy at each, aligned in seeds and problems.
        levels: (P,) as the strata of `stats.two_way`.
        other_budgets: (B',) of the other, where they are not the same.

    Source: arXiv 2503.07572, figures 7 and 8, for the quantity; Fieller (1954), J. R. Stat. Soc. B
    16, for the inversion.
    """
    curve = other.mean((1, 2))
    best = int(np.argmax(curve))
    theirs = budgets if other_budgets is None else other_budgets
    times = efficiency_at_equal_accuracy(budgets, ours.mean((1, 2)), theirs, curve)
    points, ours = _between(np.asarray(budgets, dtype=float), ours)
    gap = two_way(ours - other[best], levels)
    if np.isnan(gap.low).any():
        return Interval(times, math.nan, math.nan)
    # Where even the low end has come up to the other's best, we are there for certain.
    most, fewest = (tokens_to_reach(points, end, 0.0) for end in (gap.low, gap.high))
    return Interval(times, theirs[best] / most, theirs[best] / fewest)


def _between(budgets: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return budgets (N,) with FINER - 1 more between each two, and values (N, ...) there."""
    at = np.arange(FINER * (len(budgets) - 1) + 1) / FINER
    i = np.minimum(at.astype(int), max(len(budgets) - 2, 0))
    share = (at - i).reshape(-1, *[1] * (values.ndim - 1))
    points = np.interp(at, np.arange(len(budgets)), budgets)
    after = np.minimum(i + 1, len(budgets) - 1)
    return points, (1 - share) * values[i] + share * values[after]


def between(models: Models, method: str, other: str, c0: int) -> pd.DataFrame:
    """Return the paired differences of two methods: metric, budget, both means, and the gap.

    Columns: metric, budget, the two methods' names, difference, low, high, decided.
    """
    seeds = paired_seeds(models, method, other)
    places = [("accuracy", c0), ("natural_accuracy", c0), ("regret", c0 // 2), ("regret", c0),
              ("tokens", c0), ("truncated", c0)]  # fmt: skip
    rows = []
    for place in places:
        index = models[method, seeds[0]][place]
        ours, theirs = (
            by_seed_and_problem([models[m, s][place] for s in seeds], index, "all")
            for m in (method, other)
        )
        gap = two_way(ours - theirs, level_of_each(index))
        rows.append((*place, ours.mean(), theirs.mean(), gap.estimate, gap.low, gap.high))
    names = ["metric", "budget", method, other, "difference", "low", "high"]
    return decided(pd.DataFrame(rows, columns=names))


def _rivals_of_outcome(models: Models) -> list[str]:
    return [m for m in dict.fromkeys(m for m, _ in models) if m not in ("base", "outcome")]


def _budgets(models: Models, c0: int) -> list[int]:
    """Return the budgets up to C0 at which accuracy was measured, ascending."""
    first = next(iter(models.values()))
    return sorted(budget for metric, budget in first if metric == "accuracy" and budget <= c0)


def _values(
    models: Models, method: str, place: tuple[str, int], rival: str | None = None
) -> np.ndarray:
    """Return a measure of a method, (S, P), of the seeds that `outcome` (or a rival) has too."""
    seeds = paired_seeds(models, method, rival or "outcome")
    series = [models[method, seed][place] for seed in seeds]
    index = next(iter(models.values()))[place]  # the same one for all, so that they are aligned
    return by_seed_and_problem(series, index, "all")


def estimators_in_words(records: Mapping[tuple[str, int], Mapping[str, pd.DataFrame]]) -> str:
    """Say of which models J was sampled where that of others is exact; "" where all are alike.

    Exact J adds up the answers that are listed, sampled J those that are graded right: where a run
    falls back to the second, it is not to be compared with runs that did not.

    Args:
        records: the tables of each (method, training seed).
    """
    sampled = [f"`{method}` seed {seed}" for (method, seed), tables in records.items()
               if set(tables["progress"]["estimator"]) != {"exact"}]  # fmt: skip
    if len(sampled) in (0, len(records)):
        return ""
    return (f"**Not alike:** J of {', '.join(sampled)} is sampled, and that of the others exact: "
            "differences between them are biased; `prover.estimator = \"sampled\"` measures all "
            "of them in one way.")  # fmt: skip


def regret_in_words(row: pd.Series) -> str:
    """Say in words what one row of `regret_removed` shows, whichever way it came out."""
    numbers = (row.estimate, row.low, row.high)
    if row.decided and row.estimate < 0:
        numbers = (-row.estimate, -row.high, -row.low)
    much = "{:z.1%} [{:z.1%}, {:z.1%}]".format(*numbers)
    place = f"at {row.budget} tokens" + ("" if row.level == "all" else f", level `{row.level}`")
    if not row.decided:
        return (f"`{row.method}` shows no significant difference from `outcome` in regret {place} "
                f"({much} removed)")  # fmt: skip
    way = "removes" if row.estimate > 0 else "adds"
    return f"`{row.method}` {way} {much} of the regret of `outcome` {place}"


def times_in_words(row: pd.Series) -> str:
    """Return how many times fewer tokens a row names, with its interval where it has one."""
    if math.isnan(row.low):
        return f"{row.times_fewer:.2f} times fewer tokens, without an interval"
    return f"{row.times_fewer:.2f} [{row.low:.2f}, {row.high:.2f}] times fewer tokens"


def tokens_in_words(row: pd.Series) -> str:
    """Say in words what one row of `used_at_equal_accuracy` shows, or of the one by budgets."""
    much = times_in_words(row)
    if math.isnan(row.low):
        return f"`{row.method}`: {much}"
    if row.times_fewer == 0:
        return (f"`{row.method}` does not reach the best accuracy of `outcome` within C0 "
                f"({much})")  # fmt: skip
    if row.low <= 1 <= row.high:
        return (f"`{row.method}` shows no significant difference in the tokens that reach the best "
                f"accuracy of `outcome` up to C0 ({much})")  # fmt: skip
    few = "fewer" if row.low > 1 else "more"
    return (f"`{row.method}` needs {few} tokens to the best accuracy of `outcome` up to C0 "
            f"({much})")  # fmt: skip
