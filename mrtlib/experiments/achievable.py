"""Regret against what a trace could have reached by voting: the paper's appendix E.

Instead of an oracle that is right from the first token, the comparator does at each boundary the
better of two things: think on for one more episode, or stop and let one more answer vote. Which is
better it tells from some of the drawn answers, and what it reaches is measured on the others.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mrtlib.evaluation.votes import maj_at_k
from mrtlib.experiments.backtracking import crossed
from mrtlib.experiments.voting import likelihood
from mrtlib.stats import ratio
from mrtlib.store import TRACE
from mrtlib.tasks.grading import candidates

AREAS = ("reachable", "missed", "at_most")
FEWEST = 4  # answers at a boundary: a vote of two, and as many that it is judged by


class Gain(NamedTuple):
    """What a vote of two is worth over thinking on, where the better of the two is taken."""

    missed: float  # chosen by half of the answers and measured on the rest
    at_most: float  # chosen and measured by all of them


def gain(wins: ArrayLike, on: float) -> Gain:
    """Return what the better of a vote of two and thinking on gains over thinking on.

    A maximum of estimates is too large on average, by the noise of what it is taken of. So one
    half of the K answers chooses, and the other says what that brings: without bias the gain of a
    comparator that knows K/2 graded answers, and at most that of one which knows the chances.
    `at_most` lets all answers choose and is measured on them: on average at least the latter.

    Args:
        wins: (K, K) symmetric, the outcome of a vote of answers a and b; the diagonal is not read.
        on: the chance of a right answer after the next episode.
    """
    wins, k = np.asarray(wins, dtype=float), len(wins)
    off = wins * (1 - np.eye(k))
    halves = np.array([[a in half for a in range(k)] for half in combinations(range(k), k // 2)])
    chosen, other = (_mean_of_pairs(off, some) for some in (halves, ~halves))
    both = np.concatenate([(chosen > on) * (other - on), (other > on) * (chosen - on)])
    whole = float(_mean_of_pairs(off, np.ones((1, k), dtype=bool))[0])
    return Gain(float(both.mean()), max(whole - on, 0.0))


def _mean_of_pairs(off: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return the mean of a matrix over the pairs of distinct answers in each subset, (N,)."""
    count = some.sum(1)
    return np.einsum("na,ab,nb->n", some, off, some) / (count * (count - 1))


def votes_of_two(spot: pd.DataFrame, family: str) -> np.ndarray:
    """Return the outcomes of all votes of two of a boundary's K answers, (K, K) symmetric.

    The likelier of two different answers wins, as in the authors' code.

    Args:
        spot: records of the `answers` schema.
        family: of the problem.
    """
    texts, right, weights = candidates(spot["answer"], family), spot["correct"], likelihood(spot)
    right, wins = right.tolist(), np.zeros((len(spot), len(spot)))
    for a, b in combinations(range(len(spot)), 2):
        wins[a, b] = wins[b, a] = maj_at_k(
            [texts[a], texts[b]], [right[a], right[b]], 2, weights=weights[[a, b]]
        )
    return wins


def by_trace(
    answers: pd.DataFrame, progress: pd.DataFrame, family: str, budgets: Sequence[int]
) -> pd.DataFrame:  # fmt: skip
    """Return what each trace could reach over its first b episodes, and what it missed of that.

    From boundary j thinking on goes straight from J_j to J_{j+1}, one episode later, and a vote of
    two from J_j to [maj@2]_j. Areas are in episodes of accuracy; a trace that has ended adds
    nothing. J is exact, so chance is in the votes alone.

    Args:
        answers: records of the `answers` schema, K >= FEWEST at each boundary.
        progress: records of the `progress` schema, of these traces.
        family: of their problems.

    Returns:
        TRACE, budget, reachable (area under the comparator), missed (less that under the trace;
        below 0 where the comparator chose wrongly), at_most (in place of `missed`; see `gain`).

    Raises:
        ValueError: too few answers at a boundary, or a trace whose J is not known.
    """
    known = {key: own.sort_values("j")["J"].to_numpy() for key, own in progress.groupby(TRACE)}
    rows = []
    for key, trace in answers.sort_values(["j", "k"]).groupby(TRACE):
        if key not in known or len(known[key]) != trace["j"].nunique():
            raise ValueError(f"J of {dict(zip(TRACE, key, strict=True))} is not known at each of "
                             "its boundaries; take answers and J of one evaluation")  # fmt: skip
        J = known[key]
        found = [_at(spot, family, J[j + 1]) for j, spot in trace.groupby("j") if j + 1 < len(J)]
        missed, at_most = np.array(found).reshape(-1, 2).T / 2
        own = (J[:-1] + J[1:]) / 2
        rows += [(*key, b, (own + missed)[:b].sum(), missed[:b].sum(), at_most[:b].sum())
                 for b in budgets]  # fmt: skip
    return pd.DataFrame(rows, columns=[*TRACE, "budget", *AREAS])


def _at(spot: pd.DataFrame, family: str, on: float) -> Gain:
    if len(spot) < FEWEST:
        raise ValueError(f"a boundary has {len(spot)} answers, {FEWEST} are needed; draw more")
    return gain(votes_of_two(spot, family), on)


def regret_by_episodes(areas: pd.DataFrame) -> pd.DataFrame:
    """Return regret against the achievable comparator at budgets in episodes.

    The share of the area under the comparators that traces miss, all of them together. (The
    authors average the shares of single traces, which leaves out those that reach nothing.)

    Args:
        areas: from `by_trace`.

    Returns:
        budget, estimate, low, high (over problems), at_most (see `gain`), problems.

    Source: arXiv 2503.07572, appendix E. The authors' code takes five episodes for one point, here
    each is one; and it takes the larger of two estimates, here see `gain`.
    """
    rows = []
    for budget, part in areas.groupby("budget"):
        (missed, levels), (reachable, _) = (crossed(part, n) for n in ("missed", "reachable"))
        above, _ = crossed(part, "at_most")
        rows.append({"budget": budget, **ratio(missed, reachable, levels).row(),
                     "at_most": share_at_most(reachable, missed, above),
                     "problems": part["problem"].nunique()})  # fmt: skip
    return pd.DataFrame(rows)


def share_at_most(reachable: np.ndarray, missed: np.ndarray, at_most: np.ndarray) -> float:
    """Return the share that is missed if it is `at_most`, of areas of traces (AREAS)."""
    own, above = (reachable - missed).sum(), at_most.sum()
    return float(above / (own + above))
