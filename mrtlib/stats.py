"""Estimators over samples and their intervals; every random draw comes from an `rng` argument.

P problems, S samples of a problem (or training seeds, where said), D bootstrap draws. Intervals
are percentile intervals: the problems are what a result must generalise over, so they are
resampled first, and samples only inside a resampled problem.
"""

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CHUNK = 2_000_000  # resampled values held in memory at once


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> Array:
    """Return the unbiased estimate of P(at least one of k samples is right).

    1 - C(n-c, k) / C(n, k), computed as 1 - Π_{i<k} (n - c - i) / (n - i).

    Args:
        n, c: samples and right samples of each problem, broadcast together; c <= n.
        k: samples allowed, 1 <= k <= n.

    Source: arXiv 2107.03374.
    """
    n, c = np.broadcast_arrays(np.asarray(n, dtype=float), np.asarray(c, dtype=float))
    if k < 1 or (n < k).any() or (c > n).any() or (c < 0).any():
        raise ValueError(f"pass@{k} needs 1 <= k <= n and 0 <= c <= n; draw more samples")
    i = np.arange(k)
    # Below k wrong samples some factor is 0 or negative; clipping makes the product 0.
    wrong = np.maximum(n[..., None] - c[..., None] - i, 0.0)
    return 1.0 - np.prod(wrong / (n[..., None] - i), axis=-1)


def maj_at_k(
    answers: Sequence[Hashable | None],
    correct: Sequence[bool],
    k: int,
    rng: np.random.Generator | None = None,
    weights: ArrayLike | None = None,
    draws: int = 10_000,
    enumerate_up_to: int = 20_000,
) -> float:
    """Return P(the vote of k of the n samples, drawn without replacement, is right).

    Each sample votes for its answer with its weight; all right answers are one candidate, None
    (no answer found) votes for nothing, and a vote without candidates is wrong. Tie rule: fair,
    so a right answer tied with m - 1 others counts 1/m. Exact over all C(n, k) subsets when
    there are at most `enumerate_up_to`, otherwise the mean over `draws` random subsets.

    Args:
        answers: (n,) normalised answers, None where there is none.
        correct: (n,) which of them are right.
        k: votes, 1 <= k <= n.
        rng: needed only when the subsets are drawn.
        weights: (n,) non-negative, e.g. exp(mean token log-probability); 1 by default.
    """
    n = len(answers)
    if not 1 <= k <= n or len(correct) != n:
        raise ValueError(f"maj@{k} needs 1 <= k <= n = {n} answers, each marked right or wrong")
    ballots = _ballots(answers, correct, weights)  # (n, C), column 0 the right answer
    if math.comb(n, k) <= enumerate_up_to:
        subsets = np.array(list(itertools.combinations(range(n), k)))
    elif rng is None:
        raise ValueError(f"C({n}, {k}) subsets are too many to enumerate; give an rng to draw")
    else:
        subsets = rng.random((draws, n)).argpartition(k - 1, axis=1)[:, :k]
    return float(_wins(ballots, subsets).mean())


def _ballots(
    answers: Sequence[Hashable | None], correct: Sequence[bool], weights: ArrayLike | None
) -> Array:
    """Return each sample's weight in the column of its candidate, (n, C)."""
    votes = np.ones(len(answers)) if weights is None else np.asarray(weights, dtype=float)
    if votes.shape != (len(answers),) or (votes < 0).any():
        raise ValueError("weights must be one non-negative number an answer")
    columns: dict[Hashable, int] = {}
    ballots = np.zeros((len(answers), len(answers) + 1))
    for i, (answer, right) in enumerate(zip(answers, correct, strict=True)):
        if answer is not None:
            column = 0 if right else columns.setdefault(answer, len(columns) + 1)
            ballots[i, column] = votes[i]
    return ballots[:, : len(columns) + 1]


def _wins(ballots: Array, subsets: NDArray[np.int64]) -> Array:
    """Return the chance that the right answer wins the vote of each subset."""
    counts = ballots[subsets].sum(1)  # (D, C)
    best = counts.max(1, keepdims=True)
    # Sums of weights in another order differ in the last bits; that is still a tie.
    tied = np.isclose(counts, best, rtol=1e-9, atol=0.0) & (best > 0)
    return tied[:, 0] / np.maximum(tied.sum(1), 1)


def maj_at_p_j(
    answers: Sequence[Sequence[Hashable | None]],
    correct: Sequence[Sequence[bool]],
    p: int,
    rng: np.random.Generator | None = None,
    weights: Sequence[ArrayLike] | None = None,
) -> Array:
    """Return [maj@p]_j for j = 0 ... k: voting over p forced answers at each boundary.

    The comparison with going on thinking: episodes j+1 ... against p answers after episode j.
    With p = 1 it is J_j as measured. Votes count 1; the paper's own curves weight each vote by
    its likelihood, which `weights` does.

    Args:
        answers, correct: (k + 1) lists of the forced answers drawn at each boundary.
        p: votes.
        rng: needed only where the subsets of an n are too many to enumerate.
        weights: (k + 1) arrays, one weight an answer, or None.

    Source: arXiv 2503.07572, figure 3 and appendix D.
    """
    weights = [None] * len(answers) if weights is None else weights
    rows = zip(answers, correct, weights, strict=True)
    return np.array([maj_at_k(a, c, p, rng, w) for a, c, w in rows])


def wilson(right: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Array, Array]:
    """Return the Wilson score interval (low, high) of a proportion; (0, 1) for n = 0.

    (p̂ + z²/2n ± z √(p̂(1-p̂)/n + z²/4n²)) / (1 + z²/n).

    Args:
        right, n: successes and trials, broadcast together.

    Source: Wilson (1927), J. Am. Stat. Assoc. 22.
    """
    right, n = np.broadcast_arrays(np.asarray(right, dtype=float), np.asarray(n, dtype=float))
    if (right > n).any() or (right < 0).any():
        raise ValueError("a proportion needs 0 <= right <= n")
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    trials = np.maximum(n, 1.0)
    p = right / trials
    half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2)))
    low = (p + z2 / (2 * trials) - half) / (1 + z2 / trials)
    high = (p + z2 / (2 * trials) + half) / (1 + z2 / trials)
    # The ends are 0 at right = 0 and 1 at right = n; rounding may pass them by 1e-17.
    return np.where(n > 0, low.clip(0, 1), 0.0), np.where(n > 0, high.clip(0, 1), 1.0)


def bootstrap(
    values: Sequence[ArrayLike],
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean over problems of the mean over samples, with its interval.

    Each draw resamples problems with replacement, and then the samples of every problem drawn.

    Args:
        values: P problems, each with its own (S_p,) sample values; a (P, S) array will do.
    """
    rows = [np.atleast_1d(np.asarray(v, dtype=float)) for v in values]
    if not rows or min(map(len, rows)) == 0:
        raise ValueError("bootstrap needs at least one problem, each with at least one sample")
    sizes = np.array([len(row) for row in rows])
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    flat = np.concatenate(rows)
    width = int(sizes.max())
    step = max(1, CHUNK // (len(rows) * width))
    means = []
    for start in range(0, draws, step):
        d = min(step, draws - start)
        p = rng.integers(len(rows), size=(d, len(rows)))  # (d, P)
        u = rng.random((d, len(rows), width), dtype=np.float32)
        drawn = flat[offsets[p][..., None] + (u * sizes[p][..., None]).astype(np.int32)]
        if sizes.min() < width:  # a problem with fewer samples draws fewer
            drawn = np.where(np.arange(width) < sizes[p][..., None], drawn, 0.0)
        means.append((drawn.sum(-1) / sizes[p]).mean(-1))
    return _interval(np.mean([row.mean() for row in rows]), np.concatenate(means), level)


def paired_bootstrap(
    ours: ArrayLike,
    other: ArrayLike,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean difference ours - other over the same problems, with its interval.

    Args:
        ours, other: (P,) one value a problem (mean over its samples), aligned by problem.
    """
    ours, other = np.asarray(ours, dtype=float), np.asarray(other, dtype=float)
    if ours.ndim != 1:
        raise ValueError("one value a problem; for several seeds use paired_bootstrap_over_seeds")
    return paired_bootstrap_over_seeds(ours[None], other[None], rng, draws, level)


def paired_bootstrap_over_seeds(
    ours: ArrayLike,
    other: ArrayLike,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean difference ours - other over seeds and problems, with its interval.

    Each draw resamples training seeds and, independently, problems (crossed: every seed is
    tested on the same problems). One seed is the bootstrap over problems alone.

    Args:
        ours, other: (S, P) one value for each training seed and problem, aligned in both.
    """
    ours, other = np.asarray(ours, dtype=float), np.asarray(other, dtype=float)
    if ours.shape != other.shape or ours.ndim != 2 or ours.size == 0:
        raise ValueError(f"pairs need one shape (S, P), not {ours.shape} and {other.shape}")
    difference = ours - other
    seeds = _resampled_weights(difference.shape[0], rng, draws)  # (D, S)
    problems = _resampled_weights(difference.shape[1], rng, draws)  # (D, P)
    means = ((seeds @ difference) * problems).sum(1)
    return _interval(difference.mean(), means, level)


def _resampled_weights(n: int, rng: np.random.Generator, draws: int) -> Array:
    """Return (D, n): how often each of n is drawn in n draws with replacement, over n."""
    drawn = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n) / n


def _interval(estimate: float, draws: Array, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high))
