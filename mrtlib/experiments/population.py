"""Simulated models whose true accuracy is known, and which vary as those on record do.

A rollout has a liability, normal with variance 1: the sum of terms of its seed, its problem, its
method and problem together, its seed and problem together, and its sample. It is right at a budget
if the liability is below Φ⁻¹ of the expected accuracy there. So the expected accuracy is exactly
the given one, however the variance is divided, and a rollout that is right at one budget is right
at the next. R repetitions, B budgets, S seeds, P problems, L levels.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mrtlib.config import ROOT
from mrtlib.stats import mean_squares
from mrtlib.store import read_csv

PARTS = ("seed", "problem", "method_problem", "cell")  # of the variance; the rest is of samples
ON_RECORD = ROOT / "data" / "runs" / "tiny" / "components.csv"
OURS, OTHER = "episode_progress", "outcome"
QUARTERS = 4  # of C0: the budgets that are simulated


@dataclass(frozen=True)
class Population:
    """Two methods: expected accuracy of each by level and budget, and shares of the variance."""

    budgets: tuple[int, ...]
    accuracy: NDArray[np.float64]  # (2, L, B), ours and the other's
    seed: float
    problem: float
    method_problem: float
    cell: float  # seed and problem together

    @property
    def curves(self) -> NDArray[np.float64]:
        """Return expected accuracy over all levels, (2, B)."""
        return self.accuracy.mean(1)

    def levels(self, problems: int) -> NDArray[np.int64]:
        """Return the level of each problem, (P,): problem p is of level p modulo L."""
        return np.arange(problems) % self.accuracy.shape[1]

    def alike(self) -> "Population":
        """Return the same with both methods as good as the other one."""
        return replace(self, accuracy=self.accuracy[[1, 1]])

    def draw(
        self, rng: np.random.Generator, repetitions: int, seeds: int, problems: int,
        samples: int = 4,
    ) -> NDArray[np.float32]:  # fmt: skip
        """Return the share of right samples, (2, R, B, S, P)."""
        parts = [
            (self.seed, (2, repetitions, seeds, 1)),
            (self.problem, (1, repetitions, 1, problems)),
            (self.method_problem, (2, repetitions, 1, problems)),
            (self.cell, (2, repetitions, seeds, problems)),
        ]
        own = 1 - sum(part for part, _ in parts)
        common = sum(_normal(rng, *part) for part in parts)
        bounds = ndtri(self.accuracy[:, self.levels(problems)]).astype(np.float32)
        bounds = bounds.transpose(2, 0, 1)  # (B, 2, P)
        right = np.zeros((2, repetitions, len(bounds), seeds, problems), dtype=np.float32)
        for _ in range(samples):
            liability = common + _normal(rng, own, common.shape)
            for b, bound in enumerate(bounds):
                right[:, :, b] += liability < bound[:, None, None]
        return right / np.float32(samples)


def _normal(
    rng: np.random.Generator, variance: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    return np.float32(variance**0.5) * rng.standard_normal(shape, dtype=np.float32)


def components(budgets: pd.DataFrame, c0: int) -> pd.DataFrame:
    """Return the table of a population by the records: name, level, budget, value.

    Rows with the name of a method have its mean accuracy at the quarters of C0, those with a name
    of PARTS its share of the liability's variance. A variance of shares is one of liabilities times
    the squared normal density at the bound.

    Args:
        budgets: records of the `budgets` schema, several seeds of OURS, OTHER and perhaps more.

    Source: Dempster and Lerner (1950), Genetics 35, for the change of scale.
    """
    inner = budgets[~budgets["extrapolated"] & (budgets["method"] != "base")]
    means = inner.groupby(["method", "level", "budget"])["accuracy"].mean()
    bound = ndtri(means.xs(c0, level="budget").to_numpy())
    density = np.mean(np.exp(-(bound**2)) / (2 * np.pi))
    at_end = dict(iter(inner[inner["budget"] == c0].groupby("method")))
    found = {name: value / density for name, value in _variances(at_end).items()}
    at = [c0 * (i + 1) // QUARTERS for i in range(QUARTERS)]
    rows = [(*key, value) for key, value in means.items()
            if key[0] in (OURS, OTHER) and key[2] in at]  # fmt: skip
    rows += [(name, "all", c0, found[name]) for name in PARTS]
    return pd.DataFrame(rows, columns=["name", "level", "budget", "value"])


def _variances(methods: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Return the components of the variance of accuracy, each the mean over the methods."""
    grids = {name: _grid(table) for name, table in methods.items()}
    found = []
    for name, (values, levels, own) in grids.items():
        (of_seeds, of_problems, rest), _ = mean_squares(values, levels)
        seeds, problems = values.shape
        row = {"seed": (of_seeds - rest) / problems, "both": (of_problems - rest) / seeds,
               "cell": rest - own}  # fmt: skip
        if name != OTHER:
            (_, of_problems, rest), _ = mean_squares(values - grids[OTHER][0], levels)
            row["method_problem"] = (of_problems - rest) / seeds / 2
        found.append(row)
    mean = pd.DataFrame(found).mean().clip(lower=0)
    problem = max(mean["both"] - mean["method_problem"], 0.0)
    return {**mean.drop("both").to_dict(), "problem": problem}


def _grid(table: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.str_], float]:
    """Return (S, P) mean accuracy, (P,) levels, and the mean variance of it by samples."""
    cells = table.groupby(["seed", "level", "problem"])["accuracy"].agg(["mean", "var", "size"])
    grid = cells["mean"].unstack(["level", "problem"]).sort_index(axis=1)
    levels = grid.columns.get_level_values("level").to_numpy()
    return grid.to_numpy(), levels, float((cells["var"] / cells["size"]).mean())


def read(path: Path = ON_RECORD) -> Population:
    """Return the population of a table that `components` made; by default of the one on record."""
    table = read_csv(path)
    curves = table[table["name"].isin((OURS, OTHER))]
    grid = curves.pivot(index=["name", "level"], columns="budget", values="value")
    accuracy = np.stack([grid.loc[name].to_numpy() for name in (OURS, OTHER)])
    parts = table.set_index("name")["value"][list(PARTS)]
    return Population(tuple(int(b) for b in grid.columns), accuracy, **parts)
