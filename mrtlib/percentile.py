"""Percentile bootstraps: what the intervals of `stats` are measured against in `coverage`.

They take the spread of five seeds for the spread of all, and so come out short. Nothing that is
printed uses them. R repetitions, D draws, S seeds, P problems.
"""

import numpy as np
from numpy.typing import NDArray

from mrtlib.stats import Interval

Array = NDArray[np.float64]


def crossed(values: Array, rng: np.random.Generator, draws: int) -> Array:
    """Return the means (..., D) of (..., S, P) values, seeds and problems drawn independently.

    The draws are the same for all leading places: arrays drawn with one state are drawn together.
    """
    seeds, problems = values.shape[-2:]
    by_problem = values @ _weights(problems, rng, draws).T.astype(values.dtype)  # (..., S, D)
    return np.einsum("ds,...sd->...d", _weights(seeds, rng, draws), by_problem)


def nested(values: Array, rng: np.random.Generator, draws: int) -> Array:
    """Return the means (R, D) of (R, P, n) values: problems drawn, then samples inside each."""
    repetitions, problems, samples = values.shape
    means = np.empty((repetitions, draws))
    for out, table in zip(means, values, strict=True):
        p = rng.integers(problems, size=(draws, problems, 1))
        s = rng.integers(samples, size=(draws, problems, samples))
        out[:] = table[p, s].mean((1, 2))
    return means


def nested_shares(shares: Array, samples: int, rng: np.random.Generator, draws: int) -> Array:
    """Return what `nested` does for samples that are right or wrong, of which (R, P) shares are."""
    repetitions, problems = shares.shape
    p = rng.integers(problems, size=(repetitions, draws, problems))
    chance = np.take_along_axis(shares[:, None], p, -1)
    return rng.binomial(samples, chance).mean(-1) / samples


def ends(draws: Array, level: float = 0.95) -> Interval:
    """Return the percentiles of draws (..., D), and their middle for an estimate."""
    low, middle, high = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=-1)
    return Interval(middle, low, high)


def _weights(n: int, rng: np.random.Generator, draws: int) -> Array:
    """Return (D, n): how often each of n is drawn in n draws with replacement, over n."""
    drawn = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n) / n
