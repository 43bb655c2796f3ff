"""How often the intervals hold the truth: a simulation of every kind that is printed.

Each kind is made by the function that makes the printed one, from simulated models whose truth is
known, and once more by the percentile bootstrap, which takes the spread of five seeds for the
spread of all, and so comes out short. Nothing that is printed uses it. A nominal 95 % interval
should hold the truth in 93 to 97 % of the repetitions, and a verdict should come out in at most 5 %
of them where there is nothing to find. R repetitions, D draws, B budgets, S seeds, P problems.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mrtlib.evaluation.comparison import times_fewer
from mrtlib.experiments import population
from mrtlib.experiments.population import Population
from mrtlib.regret import efficiency_at_equal_accuracy
from mrtlib.stats import Interval, cut, over_seeds, ratio, root_mean_square, share, two_way, wilson
from mrtlib.store import read_csv, write_csv

Array = NDArray[np.float64]


def crossed_means(values: Array, rng: np.random.Generator, draws: int) -> Array:
    """Return the means (..., D) of (..., S, P) values, seeds and problems drawn independently.

    The draws are the same for all leading places: arrays drawn with one state are drawn together.
    """
    seeds, problems = values.shape[-2:]
    by_problem = values @ _draw_weights(problems, rng, draws).T.astype(values.dtype)  # (..., S, D)
    return np.einsum("ds,...sd->...d", _draw_weights(seeds, rng, draws), by_problem)


def nested_means(values: Array, rng: np.random.Generator, draws: int) -> Array:
    """Return the means (R, D) of (R, P, n) values: problems drawn, then samples inside each."""
    repetitions, problems, samples = values.shape
    means = np.empty((repetitions, draws))
    for out, table in zip(means, values, strict=True):
        p = rng.integers(problems, size=(draws, problems, 1))
        s = rng.integers(samples, size=(draws, problems, samples))
        out[:] = table[p, s].mean((1, 2))
    return means


def nested_share_means(shares: Array, samples: int, rng: np.random.Generator, draws: int) -> Array:
    """Return what `nested` does for samples that are right or wrong, of which (R, P) shares are."""
    repetitions, problems = shares.shape
    p = rng.integers(problems, size=(repetitions, draws, problems))
    chance = np.take_along_axis(shares[:, None], p, -1)
    return rng.binomial(samples, chance).mean(-1) / samples


def percentile_interval(draws: Array, level: float = 0.95) -> Interval:
    """Return the percentiles of draws (..., D), and their middle for an estimate."""
    low, middle, high = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=-1)
    return Interval(middle, low, high)


def _draw_weights(n: int, rng: np.random.Generator, draws: int) -> Array:
    """Return (D, n): how often each of n is drawn in n draws with replacement, over n."""
    drawn = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n) / n

Array = NDArray[np.float64]
SEEDS, PROBLEMS = 5, (50, 250, 500)
# What seeds vary by, times what they do on record; and kinds that are of one model.
VARIANCES = {"none": 0.0, "on record": 1.0, "four times": 4.0}
ONE = "one seed"
BAND = (0.93, 0.97)  # where the coverage of a nominal 95 % interval should lie
VERDICTS = 0.05  # at most, where there is nothing to find
LEVEL = 0.999  # at which a row is at fault: there are a hundred of them
CELLS = 250_000  # seeds x problems x repetitions in memory at once
DRAWS = 300  # of a bootstrap
SAMPLES = 4  # of a problem
STEPS, RIGHT = 13, 0.998  # of a trace's arithmetic, as the embedded reasoner's
READ = 0.997  # answers that can be read, one a problem
ANSWERS, GOLD = 4, 256  # of sampled J, and of the gold standard
WITHIN = 0.12  # of the variance of J's liability within a problem: errors as skewed as on record


class Trial(NamedTuple):
    """One kind of interval made R times, and how the bootstrap makes it (None: not this time)."""

    kind: str
    truth: float
    nothing: float  # what a verdict leaves out; NaN for a kind that gives none
    made: Interval
    bootstrap: Interval | None


Trials = Callable[[Population, np.random.Generator, int, int, int], Iterator[Trial]]


def of_all_seeds(
    models: Population, rng: np.random.Generator, repetitions: int, problems: int, draws: int
) -> Iterator[Trial]:
    """Yield the trials of what is printed over seeds and problems.

    Args:
        draws: of the bootstrap; 0 leaves it out.
    """
    accuracy = models.draw(rng, repetitions, SEEDS, problems, SAMPLES)  # (2, R, B, S, P)
    resampled = crossed_means(accuracy, rng, draws) if draws else None  # (2, R, B, D)
    levels = np.arange(problems) % models.accuracy.shape[1]
    hard = levels == levels.max()
    one = crossed_means(accuracy[..., hard], rng, draws) if draws else None
    whole = (models.curves, accuracy, levels, resampled)
    part = (models.accuracy[:, -1], accuracy[..., hard], None, one)
    yield _mean(*whole)
    for place, data in (("", whole), (", one level", part)):
        yield _difference(f"difference{place}", *data)
        yield _relative_regret(f"relative regret{place}", *data)
    yield _tokens(models.budgets, *whole)


def _mean(curves: Array, values: Array, levels: Array, resampled: Array | None) -> Trial:
    old = None if resampled is None else percentile_interval(resampled[0, :, -1])
    return Trial("mean", curves[0, -1], np.nan, share(values[0, :, -1], levels), old)


def _difference(
    kind: str, curves: Array, values: Array, levels: Array | None, resampled: Array | None
) -> Trial:
    """Return the difference in accuracy at C0, the last budget."""
    old = None
    if resampled is not None:
        old = percentile_interval(resampled[0, :, -1] - resampled[1, :, -1])
    gap = values[0, :, -1] - values[1, :, -1]
    return Trial(kind, curves[0, -1] - curves[1, -1], 0.0, two_way(gap, levels), old)


def _relative_regret(
    kind: str, curves: Array, values: Array, levels: Array | None, resampled: Array | None
) -> Trial:
    """Return regret over the other's; regret is 1 - the mean accuracy over the budgets."""
    old = None
    if resampled is not None:
        ours, other = 1 - resampled.mean(2)
        old = percentile_interval(ours / other)
    ours, other = 1 - curves.mean(1)
    return Trial(kind, ours / other, 1.0, ratio(*(1 - values.mean(2)), levels), old)


def _tokens(
    budgets: tuple[int, ...], curves: Array, values: Array, levels: Array, resampled: Array | None
) -> Trial:
    truth = efficiency_at_equal_accuracy(budgets, curves[0], budgets, curves[1])
    found = [times_fewer(budgets, *pair, levels) for pair in zip(*values, strict=True)]
    made = Interval(*(np.array([vars(f)[end] for f in found]) for end in vars(found[0])))
    old = None
    if resampled is not None:
        old = percentile_interval(all_times(budgets, *np.moveaxis(resampled, 2, -1)))
    return Trial("tokens at equal accuracy", truth, 1.0, made, old)


def all_times(budgets: tuple[int, ...], ours: Array, other: Array) -> Array:
    """Return `regret.efficiency_at_equal_accuracy` of many curves (..., B) at once."""
    best = other.max(-1)
    return _reached(budgets, other, best) / _reached(budgets, ours, best)


def _reached(budgets: tuple[int, ...], curve: Array, target: Array) -> Array:
    """Return `regret.tokens_to_reach` of many curves (..., B) and targets (...) at once."""
    x, top = np.array(budgets, dtype=float), np.maximum.accumulate(curve, -1)
    first = (top < target[..., None]).sum(-1)
    i = first.clip(1, len(x) - 1)
    below, above = (np.take_along_axis(top, at[..., None], -1)[..., 0] for at in (i - 1, i))
    rise = np.where(above > below, above - below, 1.0)
    between = x[i - 1] + (x[i] - x[i - 1]) * (target - below) / rise
    return np.select([first == 0, first == len(x)], [x[0], np.inf], between)


def over_seeds_alone(
    models: Population, rng: np.random.Generator, repetitions: int, problems: int, draws: int
) -> Iterator[Trial]:
    """Yield the trials of training curves: each seed has rollouts of its own, one a problem."""
    runs = models.draw(rng, repetitions * SEEDS, 1, problems, 1)[:, :, -1].mean((-2, -1))
    runs = runs.reshape(2, repetitions, SEEDS)
    ends = models.curves[:, -1]
    gap = runs[0] - runs[1]
    for kind, truth, nothing, values, made in (
        ("mean over seeds alone", ends[0], np.nan, runs[0], cut(over_seeds(runs[0]), 0, 1)),
        ("difference over seeds alone", ends[0] - ends[1], 0.0, gap, over_seeds(gap)),
    ):
        old = crossed_means(values[..., None], rng, draws) if draws else None
        yield Trial(kind, truth, nothing, made, None if old is None else percentile_interval(old))


def of_one_model(
    models: Population, rng: np.random.Generator, repetitions: int, problems: int, draws: int
) -> Iterator[Trial]:
    """Yield the trials of what is printed of one model, over problems alone."""
    ours, _ = models.draw(rng, repetitions, 1, problems, SAMPLES)[:, :, -1]  # (R, 1, P)
    levels = np.arange(problems) % models.accuracy.shape[1]
    squares, error = _squares(models, rng, repetitions, levels)
    shape = repetitions, problems
    for kind, truth, shares, samples, strata in (
        ("one model", models.curves[0, -1], ours[:, 0], SAMPLES, levels),
        ("share of 99.8 %", RIGHT, rng.binomial(STEPS, RIGHT, shape) / STEPS, STEPS, None),
        ("share of 99.7 %", READ, rng.binomial(1, READ, shape) / 1, 1, None),
    ):
        again = nested_share_means(shares, samples, rng, draws) if draws else None
        old = None if again is None else percentile_interval(again)
        yield Trial(kind, truth, np.nan, share(shares[:, None], strata), old)
    old = percentile_interval(np.sqrt(nested_means(squares, rng, draws))) if draws else None
    made = root_mean_square(squares.mean(-1)[:, None], levels)
    yield Trial("root mean square", error, np.nan, made, old)


def difference_of_one_model(
    models: Population, rng: np.random.Generator, repetitions: int, problems: int, draws: int
) -> Iterator[Trial]:
    """Yield the difference between two things measured of one model on the same problems."""
    accuracy = models.draw(rng, repetitions, 1, problems, SAMPLES)
    resampled = crossed_means(accuracy, rng, draws) if draws else None
    levels = np.arange(problems) % models.accuracy.shape[1]
    yield _difference("difference, one model", models.curves, accuracy, levels, resampled)


def _squares(
    models: Population, rng: np.random.Generator, repetitions: int, levels: Array
) -> tuple[Array, float]:
    """Return squared errors of sampled progress (R, P, B - 1), and their true root mean.

    Progress is from K answers at each budget against a gold standard of more of them.
    """
    bounds = ndtri(models.accuracy[1])  # (L, B)

    def chance(liability: Array, bound: Array) -> Array:
        return ndtr((bound - liability[..., None] * (1 - WITHIN) ** 0.5) / WITHIN**0.5)

    J = chance(rng.standard_normal((repetitions, len(levels))), bounds[levels])
    seen, gold = (rng.binomial(n, J) / n for n in (ANSWERS, GOLD))
    points, weights = np.polynomial.hermite_e.hermegauss(100)
    spots = np.stack([weights @ (p * (1 - p)) for p in (chance(points, b) for b in bounds)])
    spots = spots / weights.sum()  # (L, B) mean J (1 - J)
    square = (spots[:, 1:] + spots[:, :-1]).mean() * (1 / ANSWERS + 1 / GOLD)
    return (np.diff(seen) - np.diff(gold)) ** 2, float(square**0.5)


def study(
    models: Population, repetitions: int, seed: int = 0, resampled: int = 400,
    problems: tuple[int, ...] = PROBLEMS,
) -> pd.DataFrame:
    """Simulate every kind; return kind, way, seeds, problems, coverage, decided, ...

    `way` is "closed form" or "bootstrap", `seeds` what seeds vary by. Coverage and decided (the
    share of verdicts where both methods are alike; NaN for a kind without verdicts) have the ends
    of their 95 % intervals beside them (low, high; decided_low, decided_high).

    Args:
        repetitions: of what is over seeds and problems; the rest is cheap and gets twice as many.
        resampled: repetitions that the bootstrap gets, about.
    """
    rows = []
    for p in problems:
        for name, times in VARIANCES.items():
            varied = replace(models, seed=times * models.seed)
            rows += tally(of_all_seeds, varied, name, p, repetitions, resampled, seed)
            rows += tally(over_seeds_alone, varied, name, p, 2 * repetitions, resampled, seed)
        one = replace(models, seed=0.0)
        for trials in (of_one_model, difference_of_one_model):
            rows += tally(trials, one, ONE, p, 2 * repetitions, resampled, seed)
    return pd.DataFrame(rows)


def tally(
    trials: Trials, models: Population, seeds: str, problems: int, repetitions: int,
    resampled: int, seed: int,
) -> list[dict[str, object]]:
    """Return the rows of one sort of trials; they do not depend on which others are made.

    Args:
        trials: `of_all_seeds` or one of its like.
        seeds: name of what seeds vary by.
    """
    rng = np.random.default_rng([seed, problems, *seeds.encode(), *trials.__name__.encode()])
    size = min(repetitions, max(1, CELLS // (SEEDS * problems)), 500)
    counts: dict[tuple[str, str], list] = {}
    worlds = [models] if trials is of_one_model else [models, models.alike()]
    for start in range(0, repetitions, size):
        count = min(size, repetitions - start)
        draws = DRAWS if start < resampled else 0
        for world in worlds:
            for trial in trials(world, rng, count, problems, draws):
                for way, made in (("closed form", trial.made), ("bootstrap", trial.bootstrap)):
                    if made is not None:
                        row = counts.setdefault((trial.kind, way), [0, 0, 0, trial.nothing])
                        _count(row, trial, made, count, world is not models)
    return [
        {"kind": kind, "way": way, "seeds": seeds, "problems": problems}
        | _shares("coverage", "", row[0], row[2])
        | _shares("decided", "decided_", np.nan if np.isnan(row[3]) else row[1], row[2])
        | {"repetitions": row[2]}
        for (kind, way), row in counts.items()
    ]


def _count(row: list, trial: Trial, made: Interval, count: int, nothing: bool) -> None:
    """Add a trial to [covered, decided, repetitions]; verdicts count where nothing is to find."""
    if nothing:
        row[1] += int(((made.low > trial.nothing) | (made.high < trial.nothing)).sum())
    else:
        row[0] += int(((made.low <= trial.truth) & (trial.truth <= made.high)).sum())
        row[2] += count


def _shares(name: str, ends: str, count: float, of: int) -> dict[str, float]:
    if np.isnan(count):
        return {name: np.nan, f"{ends}low": np.nan, f"{ends}high": np.nan}
    low, high = wilson(count, of)
    return {name: count / of, f"{ends}low": float(low), f"{ends}high": float(high)}


def faults(table: pd.DataFrame, way: str = "closed form") -> pd.DataFrame:
    """Return the rows of a way whose coverage is outside BAND, or whose verdicts are too many.

    Both beyond what the simulation may be off by: their interval of LEVEL lies outside. Where the
    truth is 99.7 % and answers are single, hardly any sample shows a failure, and no interval is
    inside the band; more than it is no fault there.
    """
    rows = table[table["way"] == way]
    low, high = wilson(rows["coverage"] * rows["repetitions"], rows["repetitions"], LEVEL)
    made = (rows["decided"] * rows["repetitions"]).fillna(0)
    decided, _ = wilson(made, rows["repetitions"], LEVEL)
    above = (low > BAND[1]) & (rows["kind"] != "share of 99.7 %")
    return rows[above | (high < BAND[0]) | (decided > VERDICTS)]


def on_record(path: Path, repetitions: int) -> pd.DataFrame:
    """Return the study of the models on record: read it from `path`, or make it and write it."""
    if not path.is_file():
        write_csv(path, study(population.read(), repetitions))
    return read_csv(path)
