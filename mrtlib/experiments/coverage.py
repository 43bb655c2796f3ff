"""How often the intervals cover the truth: a simulation of every kind that is printed.

Models whose true accuracy is known are simulated. Each kind of interval is made by the function
that makes the printed one, and once more by the percentile bootstrap, which is printed nowhere: it
takes the variance of five seeds for that of all seeds, so its intervals are too short. A nominal
95 % interval should cover the truth in 93 to 97 % of the repetitions, and exclude "no difference"
in at most 5 % of them where there is none. What rests on other numbers of seeds, and intervals of
98.3 %, are looked at in their worst case (`of_few_seeds`). R repetitions, D bootstrap draws, B
budgets, S seeds, P problems, L levels.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from mrtlib import stats
from mrtlib.evaluation.comparison import times_fewer
from mrtlib.experiments import population
from mrtlib.experiments.population import Population
from mrtlib.regret import efficiency_at_equal_accuracy
from mrtlib.stats import Array, Interval, wilson
from mrtlib.store import read_csv, write_csv

SEEDS, PROBLEMS = 5, (50, 250, 500)
# The variance of seeds, as a multiple of the one on record; and the name for kinds of one model.
VARIANCES = {"none": 0.0, "on record": 1.0, "four times": 4.0}
ONE = "one seed"
BAND = (0.93, 0.97)  # where the coverage of a nominal 95 % interval should lie
VERDICTS = 0.05  # at most, where there is no difference
LEVEL = 0.999  # of the test for a faulty row: there are a hundred rows
CELLS = 250_000  # seeds x problems x repetitions in memory at once
DRAWS = 300  # of a bootstrap
SAMPLES = 4  # of a problem
STEPS, RIGHT = 13, 0.998  # of a trace's arithmetic, as the embedded reasoner's
READ = 0.997  # answers that can be read, one a problem
MANY_SEEDS = (3, 4, 5, 10)  # as many as a result here may rest on
RATIOS = (1, 1.3, 2, 3, 5, 10, 30)  # of an expected mean square to that of the residuals
ANSWERS, GOLD = 4, 256  # of sampled J, and of the gold standard
WITHIN = 0.12  # share of J's variance within a problem, on the scale of liabilities


# --- the bootstrap ---------------------------------------------------------------------------


def crossed_means(values: Array, rng: np.random.Generator, draws: int) -> Array:
    """Return the means (..., D) of (..., S, P) values, seeds and problems drawn independently.

    The draws are the same for all leading axes, so that methods stay paired.
    """
    seeds, problems = values.shape[-2:]
    by_problem = values @ _draw_weights(problems, rng, draws).T.astype(values.dtype)  # (..., S, D)
    return np.einsum("ds,...sd->...d", _draw_weights(seeds, rng, draws), by_problem)


def _draw_weights(n: int, rng: np.random.Generator, draws: int) -> Array:
    """Return (D, n): how often each of n is drawn in n draws with replacement, over n."""
    drawn = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n) / n


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
    """Return what `nested_means` does for samples that are right or wrong, given (R, P) shares."""
    repetitions, problems = shares.shape
    p = rng.integers(problems, size=(repetitions, draws, problems))
    chance = np.take_along_axis(shares[:, None], p, -1)
    return rng.binomial(samples, chance).mean(-1) / samples


def percentile_interval(draws: Array, level: float = 0.95) -> Interval:
    """Return the percentiles of draws (..., D), and the median as the estimate."""
    low, middle, high = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=-1)
    return Interval(middle, low, high)


# --- kinds of intervals ----------------------------------------------------------------------


class Trial(NamedTuple):
    """One kind of interval, made R times."""

    kind: str
    truth: float
    no_difference: float  # the value that a verdict excludes; NaN for a kind without verdicts
    made: Interval
    drawn: Array | None  # (R, D) the same quantity in each draw of the bootstrap, where it is made

    def ways(self) -> Iterator[tuple[str, Interval]]:
        """Yield each way to make the interval, and the intervals."""
        yield "closed form", self.made
        if self.drawn is not None:
            yield "bootstrap", percentile_interval(self.drawn)


class Curves(NamedTuple):
    """Accuracy of two methods over the budgets."""

    truth: Array  # (2, B) expected accuracy
    values: Array  # (2, R, B, S, P)
    strata: Array | None  # (P,)
    means: Array | None  # (2, R, D, B) of the bootstrap, where it is made

    def trial(
        self, kind: str, quantity: Callable[[Array, Array], Array], no_difference: float,
        made: Interval,
    ) -> Trial:  # fmt: skip
        """Return the trial of a quantity of two accuracy curves, (..., B) to (...)."""
        drawn = None if self.means is None else quantity(*self.means)
        return Trial(kind, float(quantity(*self.truth)), no_difference, made, drawn)

    def difference(self, kind: str) -> Trial:
        """Return the trial of the difference in accuracy at C0, the last of the budgets."""
        made = stats.two_way(self.values[0, :, -1] - self.values[1, :, -1], self.strata)
        return self.trial(kind, lambda ours, other: ours[..., -1] - other[..., -1], 0.0, made)

    def relative_regret(self, kind: str) -> Trial:
        """Return the trial of our regret over the other's: 1 - mean accuracy over the budgets."""
        made = stats.ratio(*(1 - self.values.mean(2)), self.strata)
        return self.trial(kind, lambda *both: np.divide(*(1 - c.mean(-1) for c in both)), 1.0, made)


class Simulation(NamedTuple):
    """Studies of one size, repeated; each method yields the trials of one sort of intervals."""

    models: Population
    rng: np.random.Generator
    repetitions: int
    problems: int
    draws: int  # of the bootstrap, 0 for none

    def shares(self, seeds: int, samples: int = SAMPLES) -> Array:
        """Return the share of right samples, (2, R, B, S, P)."""
        return self.models.draw(self.rng, self.repetitions, seeds, self.problems, samples)

    def crossed(self, values: Array) -> Array | None:
        """Return the bootstrap means (..., D) of (..., S, P) values, where they are wanted."""
        return crossed_means(values, self.rng, self.draws) if self.draws else None

    def curves(self, truth: Array, values: Array, strata: Array | None) -> Curves:
        """Return curves with their bootstrap."""
        means = self.crossed(values)
        return Curves(truth, values, strata, None if means is None else np.moveaxis(means, 2, -1))

    def of_all_seeds(self) -> Iterator[Trial]:
        """Yield the trials of what is printed over seeds and problems."""
        models, levels, values = self.models, self.models.levels(self.problems), self.shares(SEEDS)
        whole = self.curves(models.curves, values, levels)
        hard = self.curves(models.accuracy[:, -1], values[..., levels == levels.max()], None)
        made = stats.proportion(values[0, :, -1], levels)
        yield whole.trial("mean", lambda ours, _: ours[..., -1], np.nan, made)
        for place, curves in (("", whole), (", one level", hard)):
            yield curves.difference(f"difference{place}")
            yield curves.relative_regret(f"relative regret{place}")
        x = models.budgets
        found = [times_fewer(x, *pair, levels) for pair in zip(*values, strict=True)]
        made = Interval(*np.transpose([list(vars(f).values()) for f in found]))
        yield whole.trial("tokens at equal accuracy",
                          lambda ours, other: efficiency_at_equal_accuracy(x, ours, x, other),
                          1.0, made)  # fmt: skip

    def over_seeds_alone(self) -> Iterator[Trial]:
        """Yield the trials of training curves: each seed has rollouts of its own, one a problem."""
        runs = self._replace(repetitions=self.repetitions * SEEDS).shares(1, 1)
        ours, other = runs[:, :, -1].mean((-2, -1)).reshape(2, self.repetitions, SEEDS)
        truth, gap = self.models.curves[:, -1], ours - other
        for kind, value, no_difference, values, made in (
            ("mean", truth[0], np.nan, ours, stats.cut(stats.over_seeds(ours), 0, 1)),
            ("difference", truth[0] - truth[1], 0.0, gap, stats.over_seeds(gap)),
        ):
            drawn = self.crossed(values[..., None])
            yield Trial(f"{kind} over seeds alone", value, no_difference, made, drawn)

    def of_one_model(self) -> Iterator[Trial]:
        """Yield the trials of what is printed of one model, over problems alone."""
        rng, draws, shape = self.rng, self.draws, (self.repetitions, self.problems)
        ours, levels = self.shares(1)[0, :, -1, 0], self.models.levels(self.problems)
        squares, error = self.squared_errors(levels)
        for kind, truth, shares, samples, strata in (
            ("one model", self.models.curves[0, -1], ours, SAMPLES, levels),
            ("share of 99.8 %", RIGHT, rng.binomial(STEPS, RIGHT, shape) / STEPS, STEPS, None),
            ("share of 99.7 %", READ, rng.binomial(1, READ, shape) / 1, 1, None),
        ):
            drawn = nested_share_means(shares, samples, rng, draws) if draws else None
            yield Trial(kind, truth, np.nan, stats.proportion(shares[:, None], strata), drawn)
        drawn = np.sqrt(nested_means(squares, rng, draws)) if draws else None
        made = stats.root_mean_square(squares.mean(-1)[:, None], levels)
        yield Trial("root mean square", error, np.nan, made, drawn)

    def difference_of_one_model(self) -> Iterator[Trial]:
        """Yield the difference between two things measured of one model on the same problems."""
        curves = self.curves(self.models.curves, self.shares(1), self.models.levels(self.problems))
        yield curves.difference("difference, one model")

    def squared_errors(self, levels: Array) -> tuple[Array, float]:
        """Return squared errors of sampled progress (R, P, B - 1), and their true root mean.

        Progress is from K answers at each budget, against a gold standard of more of them.
        """
        bounds = ndtri(self.models.accuracy[1])  # (L, B)

        def chance(liability: Array, bound: Array) -> Array:
            return ndtr((bound - liability[..., None] * (1 - WITHIN) ** 0.5) / WITHIN**0.5)

        J = chance(self.rng.standard_normal((self.repetitions, len(levels))), bounds[levels])
        seen, gold = (self.rng.binomial(n, J) / n for n in (ANSWERS, GOLD))
        points, weights = np.polynomial.hermite_e.hermegauss(100)
        variances = np.stack([weights @ (p * (1 - p)) for p in (chance(points, b) for b in bounds)])
        variances = variances / weights.sum()  # (L, B) mean J (1 - J)
        square = (variances[:, 1:] + variances[:, :-1]).mean() * (1 / ANSWERS + 1 / GOLD)
        return (np.diff(seen) - np.diff(gold)) ** 2, float(square**0.5)


# --- the study -------------------------------------------------------------------------------


def study(
    models: Population, repetitions: int, seed: int = 0, resampled: int = 400,
    problems: tuple[int, ...] = PROBLEMS,
) -> pd.DataFrame:  # fmt: skip
    """Simulate every kind; return kind, way, seeds, problems, coverage, decided, ...

    `way` is "closed form" or "bootstrap", `seeds` names the variance of seeds. Coverage, and
    `decided` (the share of verdicts where both methods are alike; NaN for a kind without verdicts),
    have the ends of their 95 % intervals beside them (low, high; decided_low, decided_high).

    Args:
        repetitions: of what is over seeds and problems; the rest is cheap and gets twice as many.
        resampled: repetitions that the bootstrap gets, about.
    """
    parts = []
    for p in problems:
        worlds = {name: replace(models, seed=times * models.seed)
                  for name, times in VARIANCES.items()}  # fmt: skip
        sorts = [(trials, name) for name in worlds
                 for trials in (Simulation.of_all_seeds, Simulation.over_seeds_alone)]  # fmt: skip
        worlds[ONE] = worlds["none"]
        sorts += [(Simulation.of_one_model, ONE), (Simulation.difference_of_one_model, ONE)]
        for trials, name in sorts:
            count = repetitions if trials is Simulation.of_all_seeds else 2 * repetitions
            parts.append(simulate(trials, worlds[name], name, p, count, resampled, seed))
    return pd.concat(parts, ignore_index=True)


def simulate(
    trials: Callable[[Simulation], Iterator[Trial]], models: Population, seeds: str, problems: int,
    repetitions: int, resampled: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Return the rows of `study` for one method of `Simulation`, with random numbers of its own.

    Args:
        seeds: name of the variance of seeds.
    """
    rng = np.random.default_rng([seed, problems, *seeds.encode(), *trials.__name__.encode()])
    size = min(repetitions, max(1, CELLS // (SEEDS * problems)), 500)
    # Coverage is of the models as they are, verdicts of models that are alike.
    worlds = [models] if trials is Simulation.of_one_model else [models, models.alike()]
    rows = []
    for start in range(0, repetitions, size):
        count, draws = min(size, repetitions - start), DRAWS if start < resampled else 0
        for alike, world in enumerate(worlds):
            for trial in trials(Simulation(world, rng, count, problems, draws)):
                for way, made in trial.ways():
                    covered = ((made.low <= trial.truth) & (trial.truth <= made.high)).sum()
                    outside = (made.low > trial.no_difference) | (made.high < trial.no_difference)
                    decided = np.nan if np.isnan(trial.no_difference) else outside.sum()
                    numbers = (0, decided, 0) if alike else (covered, 0 * decided, count)
                    rows.append((trial.kind, way, seeds, problems, *numbers))
    keys, numbers = ["kind", "way", "seeds", "problems"], ["coverage", "decided", "repetitions"]
    counts = pd.DataFrame(rows, columns=keys + numbers).groupby(keys, sort=False).sum(min_count=1)
    n, table = counts["repetitions"], {}
    for name, ends in (("coverage", ""), ("decided", "decided_")):
        low, high = wilson(counts[name], n)
        table |= {name: counts[name] / n, f"{ends}low": low, f"{ends}high": high}
    return pd.DataFrame(table | {"repetitions": n}).reset_index()


def faults(table: pd.DataFrame, way: str = "closed form") -> pd.DataFrame:
    """Return the rows of a way whose coverage is outside BAND, or whose verdicts are too many.

    By more than the error of the simulation: their interval of LEVEL lies outside. Where the truth
    is 99.7 % and answers are single, hardly any sample shows a failure, so that no interval can be
    inside the band; coverage above the band is no fault there.
    """
    rows = table[table["way"] == way]
    low, high = wilson(rows["coverage"] * rows["repetitions"], rows["repetitions"], LEVEL)
    decided, _ = wilson(rows["decided"] * rows["repetitions"], rows["repetitions"], LEVEL)
    above = (low > BAND[1]) & (rows["kind"] != "share of 99.7 %")
    return rows[above | (high < BAND[0]) | (decided > VERDICTS)]


def of_looks(looks: Sequence[int], level: float, repetitions: int = 100_000) -> float:
    """Return how often a t interval over seeds leaves out 0 at some look, where there is nothing.

    Seeds are added one by one, and the interval is read whenever there are so many of them: with
    several looks some of them errs more often than one does.

    Args:
        looks: numbers of seeds, two or more each.
        level: of each interval.
    """
    values = np.random.default_rng(0).standard_normal((repetitions, max(looks)))
    erred = np.zeros(repetitions, dtype=bool)
    for seeds in looks:
        found = stats.over_seeds(values[:, :seeds], level)
        erred |= (found.low > 0) | (found.high < 0)
    return float(erred.mean())


def of_looks_at_the_best(
    looks: Sequence[int], level: float, forms: int = 3, repetitions: int = 100_000
) -> float:  # fmt: skip
    """Return how often one of several forms differs at some look, where none does.

    All are paired with one rival. At the first look all are read; the one that looks best goes on,
    and is read at the others.

    Args:
        looks, level: as in `of_looks`.
        forms: compared with the rival.
    """
    values = np.random.default_rng(0).standard_normal((repetitions, forms + 1, max(looks)))
    gaps = values[:, 1:] - values[:, :1]
    first = stats.over_seeds(gaps[..., : looks[0]], level)
    erred = ((first.low > 0) | (first.high < 0)).any(1)
    best = gaps[np.arange(repetitions), gaps[..., : looks[0]].mean(-1).argmin(1)]
    for seeds in looks[1:]:
        found = stats.over_seeds(best[:, :seeds], level)
        erred |= (found.low > 0) | (found.high < 0)
    return float(erred.mean())


def of_few_seeds(draws: int = 100_000, problems: int = 500, seed: int = 0) -> pd.DataFrame:
    """Return the least coverage of two-way intervals by the number of seeds: the worst case.

    Over all ratios of the expected mean squares in RATIOS, for normal values, whose mean squares
    are chi-squared: nothing is taken from records.

    Returns:
        seeds, level, coverage (least), of_seeds, of_problems (its ratios to the residual).
    """
    rows = []
    for seeds in MANY_SEEDS:
        free, rng = (seeds - 1, problems - 2), np.random.default_rng(seed)  # two levels
        dfs = (*free, free[0] * free[1])
        squares = [rng.chisquare(df, draws) / df for df in dfs]
        error = np.abs(rng.standard_normal(draws))
        for level in (0.95, 1 - 0.05 / 3):
            found = []
            for a, b in itertools.product(RATIOS, RATIOS):
                total, df = stats.combined((a * squares[0], b * squares[1], squares[2]), free)
                half = stats.quantile(df, seeds, level) * np.sqrt(total)
                found.append(((error * np.sqrt(a + b - 1) <= half).mean(), a, b))
            rows.append((seeds, level, *min(found)))
    return pd.DataFrame(rows, columns=["seeds", "level", "coverage", "of_seeds", "of_problems"])


def on_record(path: Path, repetitions: int) -> pd.DataFrame:
    """Return the study of the models on record: read it from `path`, or make it and write it."""
    if not path.is_file():
        write_csv(path, study(population.read(), repetitions))
    return read_csv(path)
