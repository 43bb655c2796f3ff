"""Findings as tables and as words: what is claimed, whether it holds, and its interval."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mrtlib.stats import Interval

TRACE = ["method", "seed", "level", "problem", "sample"]  # the columns that name one trace


def by_problem(table: pd.DataFrame, column: str) -> tuple[NDArray[np.float64], NDArray]:
    """Return a column as `stats.two_way` and `stats.share` take it: one model, over problems.

    Args:
        table: rows with level, problem and the column, any number for a problem.

    Returns:
        (1, P) the mean of each problem's rows, and (P,) its level.
    """
    means = table.groupby(["level", "problem"], sort=False)[column].mean()
    return means.to_numpy(float)[None], means.index.get_level_values("level").to_numpy()


def checked(rows: Sequence[tuple[str, float, float, float]]) -> pd.DataFrame:
    """Return claims as a table: claim, value, at_least, at_most, holds.

    Args:
        rows: (claim, value, at_least, at_most); an open side is ±inf.
    """
    table = pd.DataFrame(rows, columns=["claim", "value", "at_least", "at_most"])
    return table.assign(holds=table["value"].between(table["at_least"], table["at_most"]))


def row_of(interval: Interval) -> dict[str, float]:
    """Return an interval as the columns estimate, low and high."""
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def said(row: Mapping[str, float]) -> str:
    """Return an estimate with its interval: "0.41 [0.35, 0.47]"."""
    # Adding 0.0 turns the -0.0 that rounding can leave into 0.0.
    middle, low, high = (round(row[name], 2) + 0.0 for name in ("estimate", "low", "high"))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def against(row: Mapping[str, float]) -> str:
    """Say how one thing stands to another, given the interval of its difference."""
    if row["low"] > 0:
        return "better than"
    return "worse than" if row["high"] < 0 else "not told apart from"
