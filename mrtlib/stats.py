"""Estimators over samples, and intervals over training seeds and problems in closed form.

S seeds, P problems. A result must generalise over both, and every seed answers the same problems,
so the two are crossed. Intervals have t quantiles: five seeds say little about the variance between
seeds, and an interval that takes it as known is too short (`experiments.coverage` shows by how
much). Nothing is resampled, so no result depends on a random generator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv, ndtri, stdtrit

Array = NDArray[np.float64]

# Chosen by simulation (`experiments.coverage.of_few_seeds`).
CAUTION = 0.8  # with 1, an interval of 95 % over five seeds may cover 94.2 %
ENOUGH = 5  # seeds whose agreement counts; taken from three, an interval of 95 % may cover 92.8 %
BISECTIONS = 40
SLACK = 1e-4  # rounding of probabilities that were added up


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its confidence interval, NaN without one; arrays for many."""

    estimate: float | Array
    low: float | Array
    high: float | Array

    def row(self) -> dict[str, float | Array]:
        """Return the columns estimate, low and high of a table."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


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
    trials = np.maximum(n, 1.0)
    low, high = _score(right / trials, trials, float(ndtri((1 + level) / 2)))
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def _score(p: Array, n: Array, quantile: ArrayLike) -> tuple[Array, Array]:
    """Return the ends of the score interval of a proportion p of n trials."""
    q2 = np.square(quantile)
    middle, half = p + q2 / (2 * n), np.sqrt(q2 * (p * (1 - p) / n + q2 / (4 * n**2)))
    # The ends are 0 at p = 0 and 1 at p = 1, but for rounding.
    low, high = ((middle + side * half) / (1 + q2 / n) for side in (-1, 1))
    return np.where(p == 0, 0.0, low.clip(0, 1)), np.where(p == 1, 1.0, high.clip(0, 1))


def mean_and_variance(
    values: ArrayLike, strata: ArrayLike | None = None
) -> tuple[Array, Array, Array]:
    """Return the mean over crossed seeds and problems, its variance, and the variance's df.

    With the mean squares of seeds MS_s, of problems MS_p and of the residuals MS_r, the variance is
    (MS_r + max(MS_s - MS_r, 0) + max(MS_p - MS_r, 0)) / (S P): no variance component counts as
    negative. Degrees of freedom are Satterthwaite's for the mean squares in it, times CAUTION:
    where a few seeds happen to agree, the variance comes out too small and its degrees of freedom
    too many. With fewer seeds than ENOUGH they are those of the seeds, S - 1. With one seed it is
    the variance over problems, with one problem that over seeds, with both it is NaN. Two seeds are
    too few for an interval that covers.

    Args:
        values: (..., S, P) one value for each seed and problem, the mean over its samples: what
            varies within a problem is then part of what varies between them.
        strata: (P,) the level of each problem, where the number of problems of every level is
            fixed: levels do not vary by chance, so a problem counts by its distance from the mean
            of its level. Seeds may differ from level to level.

    Source: Satterthwaite (1946), Biometrics 2; the crossed design without interaction as in Searle,
    Casella and McCulloch (1992), Variance Components, chapter 4.
    """
    values = np.asarray(values, dtype=float)
    total, df = combined(*mean_squares(values, strata))
    return values.mean((-2, -1)), total / np.prod(values.shape[-2:]), df


def combined(
    squares: tuple[Array, Array, Array], free: tuple[int, int]
) -> tuple[Array, Array]:  # fmt: skip
    """Return S P times the variance of a mean, and its degrees of freedom: `mean_and_variance`.

    Args:
        squares, free: from `mean_squares`.
    """
    of_seeds, of_problems, rest = squares
    if not all(free):
        df = np.full_like(rest, sum(free))
        return np.where(df > 0, of_seeds if free[0] else of_problems, np.nan), df
    one, other = of_seeds > rest, of_problems > rest
    total = rest + np.maximum(of_seeds - rest, 0) + np.maximum(of_problems - rest, 0)
    if free[0] + 1 < ENOUGH:
        return total, np.full_like(total, min(free))
    terms = (of_seeds * one, of_problems * other, rest * (one == other))  # of total
    dfs = (*free, free[0] * free[1])
    below = sum(term**2 / df for term, df in zip(terms, dfs, strict=True))
    df = np.divide(total**2, below, out=np.full_like(total, dfs[-1]), where=below > 0)
    return total, np.maximum(CAUTION * df, min(free))


def quantile(df: Array, seeds: int, level: float) -> Array:
    """Return the two-sided t quantile; NaN for no degrees of freedom.

    Beyond 95 % no more of them are taken than twice those of the seeds (several): there a variance
    that came out too small weighs more (without it 98.3 % over five seeds may cover 97.5 %).
    """
    if level > 0.95 and seeds > 1:
        df = np.minimum(df, 2 * (seeds - 1))
    return _t(df, level)


def mean_squares(
    values: ArrayLike, strata: ArrayLike | None = None
) -> tuple[tuple[Array, Array, Array], tuple[int, int]]:
    """Return the mean squares of seeds, problems and residuals, and the df of the first two.

    A variance component is (MS_s - MS_r) / P of seeds, (MS_p - MS_r) / S of problems. With one
    seed, or one problem, their mean square is 0 and so is that of the residuals.

    Args:
        values, strata: as in `mean_and_variance`.
    """
    values = _measured(values)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise ValueError(f"values are (..., S, P), a seed and a problem at least; {values.shape}")
    seeds, problems = values.shape[-2:]
    parts = [values[..., at] for at in _groups(strata, problems)]
    free = seeds - 1, problems - len(parts)
    by_seed = values.mean(-1)
    of_seeds = ((by_seed - by_seed.mean(-1, keepdims=True)) ** 2).sum(-1)
    of_problems, rest = (sum(sums) for sums in zip(*map(_sums_of_squares, parts), strict=True))
    return (
        problems * of_seeds / max(free[0], 1),
        seeds * of_problems / max(free[1], 1),
        rest / max(free[0] * free[1], 1),
    ), free


def _measured(values: ArrayLike) -> Array:
    values = np.asarray(values, dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("values must be finite; leave out what was not measured")
    return values


def _groups(strata: ArrayLike | None, problems: int) -> list[NDArray[np.int64]]:
    """Return the indices of each level's problems; of all problems, where levels have one each."""
    if strata is not None:
        names, level = np.unique(np.asarray(strata), return_inverse=True)
        if len(level) != problems:
            raise ValueError(f"strata must name the level of each of {problems} problems")
        if len(names) < problems:
            return [np.flatnonzero(level == i) for i in range(len(names))]
    return [np.arange(problems)]


def _sums_of_squares(part: Array) -> tuple[Array, Array]:
    """Return Σ_p (problem's mean - mean)² of one level, and the sum of its squared residuals."""
    seeds, problems = part.mean(-1, keepdims=True), part.mean(-2, keepdims=True)
    distances = problems - problems.mean(-1, keepdims=True)
    residuals = part - seeds
    residuals -= distances
    return (distances**2).sum((-2, -1)), np.einsum("...sp,...sp->...", residuals, residuals)


def two_way(values: ArrayLike, strata: ArrayLike | None = None, level: float = 0.95) -> Interval:
    """Return the mean over seeds and problems with its t interval.

    How much more often a method is right than another one, 5 seeds on the same 4 problems:

    >>> from mrtlib import two_way
    >>> gain = [[0.50, 0.25, 0.00, 0.25], [0.25, 0.25, 0.25, 0.25], [0.50, 0.00, 0.25, 0.25],
    ...         [0.25, 0.25, 0.25, 0.50], [0.50, 0.25, 0.00, 0.25]]
    >>> found = two_way(gain)
    >>> [round(number, 2) for number in (found.estimate, found.low, found.high)]
    [0.26, 0.09, 0.44]

    Args:
        values: (..., S, P) as in `mean_and_variance`; for a paired difference, the differences.
        strata: as in `mean_and_variance`.

    Returns:
        Floats, or arrays over the leading axes; low and high are NaN for one single value.
    """
    mean, variance, df = mean_and_variance(values, strata)
    half = quantile(df, np.shape(values)[-2], level) * np.sqrt(variance)
    return _interval(mean, mean - half, mean + half)


def over_seeds(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of (..., S) values, one a seed, with its t interval of S - 1 df."""
    return two_way(np.asarray(values, dtype=float)[..., None], None, level)


def cut(interval: Interval, low: float, high: float) -> Interval:
    """Return an interval with ends inside [low, high], the values that are possible."""
    ends = (np.clip(end, low, high) for end in (interval.low, interval.high))
    return _interval(interval.estimate, *ends)


def proportion(values: ArrayLike, strata: ArrayLike | None = None, level: float = 0.95) -> Interval:
    """Return the mean of shares over seeds and problems, with an interval inside [0, 1].

    Wilson's interval for p (1 - p) / variance trials, as many independent trials as have this
    variance, with the t quantile of the variance's degrees of freedom. Where nothing varies (all
    are right, say) there are as many trials as problems. Where the mean rests on one to three
    failures or successes, Wilson's end beside 1 or 0 is too near to it, and a one-sided Poisson
    bound replaces it.

    Args:
        values, strata: as in `mean_and_variance`, values in [0, 1].

    Source: Korn and Graubard (1998), Survey Methodology 24, for the number of trials; Brown, Cai
    and DasGupta (2001), Statistical Science 16, section 4.1.1, for few failures.
    """
    values = np.asarray(values, dtype=float)
    if (values < -SLACK).any() or (values > 1 + SLACK).any():
        raise ValueError(f"shares lie in [0, 1], not {values.min():g} to {values.max():g}")
    mean, variance, df = mean_and_variance(values.clip(0, 1), strata)
    vary = variance > 1e-16  # less is rounding
    trials = np.full_like(mean, values.shape[-1])
    trials = np.divide(mean * (1 - mean), variance, out=trials, where=vary)
    few = quantile(df, values.shape[-2], level)
    low, high = _score(mean, trials, np.where(vary, few, ndtri((1 + level) / 2)))
    bottom, top = (_poisson_bound(p, trials, level) for p in (mean, 1 - mean))
    return _interval(mean, np.minimum(low, bottom), np.maximum(high, 1 - top))


def _poisson_bound(p: Array, trials: Array, level: float) -> Array:
    """Return a one-sided lower bound of p < 1/2 from up to three successes; 1 (none) elsewhere."""
    count = p * trials
    rare = (count > 1e-9) & (count <= 3) & (p < 0.5)
    return np.where(rare, gammaincinv(np.where(rare, count, 1.0), 1 - level) / trials, 1.0)


def root_mean_square(
    squares: ArrayLike, strata: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """Return the root of the mean of squared errors, with its interval.

    The root of the two-way interval of the mean square on the logarithm's scale (delta method):
    squares are skewed, and their mean can only be positive.

    Args:
        squares, strata: as in `mean_and_variance`, squared errors (or means of them).
    """
    mean, variance, df = mean_and_variance(squares, strata)
    positive = np.where(mean > 0, mean, 1.0)
    few = quantile(df, np.shape(squares)[-2], level)
    times = np.exp(few * np.sqrt(variance) / positive)
    return _interval(np.sqrt(mean), np.sqrt(mean / times), np.sqrt(mean * times))


def ratio(
    ours: ArrayLike, other: ArrayLike, strata: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """Return mean(ours) / mean(other), paired over seeds and problems, with its t interval.

    The two-way interval of the linearised values (ours - ratio · other) / mean(other).

    Args:
        ours, other: (..., S, P) aligned in seeds and problems; strata as in `mean_and_variance`.

    Source: Cochran (1977), Sampling Techniques, section 6.4 (the delta method).
    """
    return two_way(linearised(ours, other), strata, level)


def linearised(ours: ArrayLike, other: ArrayLike) -> Array:
    """Return values (..., S, P) whose mean is mean(ours) / mean(other), and varies as that does.

    r + (ours - r · other) / mean(other) for the ratio r. Those of two ratios may be subtracted.

    Args:
        ours, other: as in `ratio`, whose source this has.
    """
    ours, other = _measured(ours), _measured(other)
    if ours.shape != other.shape:
        raise ValueError(f"pairs need one shape (S, P), not {ours.shape} and {other.shape}")
    below = other.mean((-2, -1), keepdims=True)
    times = ours.mean((-2, -1), keepdims=True) / below
    return times + (ours - times * other) / below


def fieller(
    ours: ArrayLike, other: ArrayLike, strata: ArrayLike | None = None, level: float = 0.95
) -> Interval:  # fmt: skip
    """Return mean(ours) / mean(other), with the ratios r at which mean(ours - r other) may be 0.

    Those that the two-way test does not refuse: where mean(other) is hardly above 0 the interval of
    `ratio` is too short, and this one is not. All nan where mean(other) may be 0 or less, as the
    ratios then have no end.

    Args:
        ours, other: (S, P) aligned in seeds and problems; strata as in `mean_and_variance`.

    Source: Fieller (1954), J. R. Stat. Soc. B 16.
    """
    ours, other = _measured(ours), _measured(other)
    if not two_way(other, strata, level).low > 0:
        return Interval(np.nan, np.nan, np.nan)
    middle = ours.mean() / other.mean()

    def at(ratio: float) -> Interval:
        return two_way(ours - ratio * other, strata, level)

    below = _nearest(lambda distance: at(middle - distance).low > 0)
    above = _nearest(lambda distance: at(middle + distance).high < 0)
    return _interval(middle, middle - below, middle + above)


def _nearest(refused: Callable[[float], bool]) -> float:
    """Return the least distance that is refused, where all beyond it are, and some are."""
    inside, outside = 0.0, 1.0
    while not refused(outside):
        inside, outside = outside, 2 * outside
    for _ in range(BISECTIONS):
        half = (inside + outside) / 2
        inside, outside = (inside, half) if refused(half) else (half, outside)
    return outside


def _t(df: Array, level: float) -> Array:
    """Return the two-sided t quantile; NaN for no degrees of freedom."""
    return stdtrit(np.where(df > 0, df, np.nan), (1 + level) / 2)


def _interval(*numbers: ArrayLike) -> Interval:
    return Interval(*(float(n) if np.ndim(n) == 0 else n for n in map(np.asarray, numbers)))


def by_problem(table: pd.DataFrame, column: str) -> tuple[Array, NDArray]:
    """Return a column as `two_way` and `proportion` take it: one model, over problems.

    Args:
        table: rows with level, problem and the column, any number for a problem.

    Returns:
        (1, P) the mean of each problem's rows, and (P,) its level.
    """
    means = table.groupby(["level", "problem"], sort=False)[column].mean()
    return means.to_numpy(float)[None], means.index.get_level_values("level").to_numpy()
