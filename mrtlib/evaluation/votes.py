"""Accuracy of several samples: pass@k, and majority votes (maj@k), exact over all subsets."""

import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrtlib.stats import Array


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
    (no answer) votes for nothing, and a vote without candidates is wrong. Ties are fair: a right
    answer tied with m - 1 others counts 1/m. Exact over all C(n, k) subsets when there are at most
    `enumerate_up_to`, otherwise the mean over `draws` random subsets.

    Args:
        answers: (n,) normalised answers; None, or the NaN that a table makes of it, where there is
            none.
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
        if answer is not None and answer == answer:  # NaN is not equal to itself
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
