"""Regret against what a trace could have reached by voting: the paper's appendix E.

Instead of an oracle that is right from the first token, the comparator is the better of two things
that can be done from where the trace is: think on, or stop and vote. The budget is counted in
episodes, and a further vote counts as one.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mrtlib.experiments.backtracking import crossed
from mrtlib.stats import proportion
from mrtlib.store import TRACE

RULE = "likelihood"  # of the votes, as in the authors' code


def area_of_larger(x: ArrayLike, a: ArrayLike, b: ArrayLike) -> float:
    """Return the area under the larger of two lines of pieces.

    Args:
        x: (n,) places where either may bend, ascending.
        a, b: (n,) the values of both there.
    """
    x, a, b = (np.asarray(v, dtype=float) for v in (x, a, b))
    total = 0.0
    for (x0, x1), (d0, d1), (b0, b1) in zip(
        pairwise(x), pairwise(a - b), pairwise(b), strict=True
    ):
        width, total = x1 - x0, total + (x1 - x0) * (b0 + b1) / 2
        if d0 * d1 >= 0:  # one of them is above all along
            total += width * max(d0 + d1, 0.0) / 2
        else:  # a triangle above the line b
            top = max(d0, d1)
            total += width * top**2 / abs(d0 - d1) / 2
    return float(total)


def areas(votes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return for each episode of one trace the area under the comparator, and under the trace.

    From boundary j the trace goes straight from [maj@1]_j to [maj@1]_{j+1}, one episode later.
    Votes go from [maj@1]_j to [maj@2]_j, one episode later.

    Args:
        votes: from `voting.vote_table`, one trace and one rule.

    Returns:
        (k,) and (k,).
    """
    table = votes.pivot(index="j", columns="votes", values="accuracy").sort_index()
    places, one = [p - 1 for p in table.columns], table[1].to_numpy()
    best, own = [], []
    for j, (here, there) in enumerate(pairwise(one)):
        at = sorted({0.0, 1.0, *(x for x in places if x < 1)})
        on = np.interp(at, [0, 1], [here, there])
        voted = np.interp(at, places, table.iloc[j].to_numpy())
        best.append(area_of_larger(at, on, voted))
        own.append((here + there) / 2)
    return np.array(best), np.array(own)


def by_trace(votes: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """Return what each trace could reach over its first b episodes, and what it missed of that.

    Areas in episodes of accuracy: a trace that has ended adds nothing.

    Args:
        votes: from `voting.vote_table`.

    Returns:
        TRACE, budget, reachable (area under the comparator), missed (less that under the trace).
    """
    mine, rows = votes[votes["rule"] == RULE], []
    for key, trace in mine.groupby(TRACE):
        best, own = areas(trace)
        rows += [(*key, b, best[:b].sum(), (best[:b] - own[:b]).sum()) for b in budgets]
    return pd.DataFrame(rows, columns=[*TRACE, "budget", "reachable", "missed"])


def regret_by_episodes(votes: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """Return regret against the achievable comparator at budgets in episodes.

    The share of the comparator's area that the trace misses, over its first b episodes; traces
    whose comparator has no area are left out, as nothing can be reached there.

    Args:
        votes: from `voting.vote_table`.

    Returns:
        budget, estimate, low, high (over problems), problems.

    Source: arXiv 2503.07572, appendix E; the authors' code takes five episodes for one point, and
    here each is one.
    """
    table = by_trace(votes, budgets)
    table = table[table["reachable"] > 0]
    table = table.assign(regret=table["missed"] / table["reachable"])
    return pd.DataFrame([
        {"budget": budget, **proportion(*crossed(part, "regret")).row(),
         "problems": part["problem"].nunique()}
        for budget, part in table.groupby("budget")
    ])  # fmt: skip
