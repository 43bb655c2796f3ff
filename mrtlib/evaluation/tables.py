"""The results table as rows and Markdown, and how numbers are written for readers.

`results` has the columns method, seed, level, metric, budget, estimate, low, high, problems,
samples. Shown are the rows of all levels and seeds together (level "all", seed "all").
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from mrtlib.config import LABELS

AXIS = {"accuracy": "accuracy", "regret": "normalised regret"}
DIFFERENCE = "diff_to_outcome_"
LESS = f"\u2212 {LABELS['outcome']}"


def overall(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows over all levels and seeds.

    Raises:
        ValueError: no table, or a column is missing.
    """
    columns = "method seed level metric budget estimate low high"
    rows = need(results, columns, "results")
    return rows[(rows["level"].astype(str) == "all") & (rows["seed"].astype(str) == "all")]


def budget_rows(results: pd.DataFrame, metrics: Sequence[str] = tuple(AXIS)) -> pd.DataFrame:
    """Return the rows that the figures over the budget draw, sorted: what their CSV should hold.

    Raises:
        ValueError: no rows of one of the metrics.
    """
    rows = overall(results)
    for metric in metrics:
        if not (rows["metric"] == metric).any():
            raise ValueError(f"results hold no rows of metric {metric!r}, level all, seed all")
    return rows[rows["metric"].isin(metrics)].sort_values(["metric", "method", "budget"])


class Column(NamedTuple):
    """A column of the results table; shares are shown in per cent."""

    metric: str
    budget: int
    heading: str
    scale: int = 100
    digits: int = 1


def _columns(rows: pd.DataFrame, c0: int) -> list[Column]:
    """Return the columns that the results can fill."""
    columns = [
        Column("natural_accuracy", c0, "natural acc. (%)"),
        Column("accuracy", c0, "forced acc. (%)"),
        Column("regret", c0 // 2, f"regret (%) at {c0 // 2}"),
        Column("regret", c0, f"regret (%) at {c0}"),
        Column("tokens", c0, "thinking tokens", 1),
        Column("episodes", c0, "episodes", 1, 2),
        Column("truncated", c0, "truncated (%)"),
        Column("pass@4", c0, "pass@4 (%)"),
        Column("maj@4", c0, "maj@4 (%)"),
    ]
    measured = set(zip(rows["metric"], rows["budget"], strict=True))
    if ("accuracy", c0) not in measured:
        raise ValueError(f"results hold no accuracy at C0 = {c0}; evaluate that budget")
    return [column for column in columns if (column.metric, column.budget) in measured]


def results_rows(results: pd.DataFrame, c0: int) -> pd.DataFrame:
    """Return the numbers of the results table and how they are written.

    Columns block, method, heading, estimate, low, high, text, interval. Block "method" holds the
    measures; "difference" holds them less the outcome method's (metrics `diff_to_outcome_*`).

    Raises:
        ValueError: results lack accuracy at C0.
    """
    rows, lines = overall(results), []
    for column in _columns(rows, c0):
        for block, prefix in (("method", ""), ("difference", DIFFERENCE)):
            fits = (rows["metric"] == prefix + column.metric) & (rows["budget"] == column.budget)
            for row in rows[fits].itertuples():
                numbers = row.estimate, row.low, row.high
                sign = "+" if block == "difference" else ""
                texts = written(*numbers, column.digits, column.scale, sign)
                lines.append((block, row.method, column.heading, *numbers, *texts))
    names = ["block", "method", "heading", "estimate", "low", "high", "text", "interval"]
    return pd.DataFrame(lines, columns=names)


def number(value: float, digits: int, scale: float = 1, sign: str = "") -> str:
    """Return a number as text: a true minus sign, none on what rounds to 0, a dash for none."""
    if not math.isfinite(value):
        return "\u2013"
    return f"{value * scale:{sign}z.{digits}f}".replace("-", "\u2212")


def written(
    estimate: float, low: float, high: float, digits: int, scale: float = 1, sign: str = ""
) -> tuple[str, str]:
    """Return an estimate and its interval as texts; "" where there is no interval.

    An end that is not 0 is not written as 0, if two more digits can tell: whether an interval
    leaves out 0 is what it is read for.
    """
    digits = _telling(low, high, digits, scale)
    interval = f"[{number(low, digits, scale)}, {number(high, digits, scale)}]"
    return number(estimate, digits, scale, sign), "" if math.isnan(low) else interval


def _telling(low: float, high: float, digits: int, scale: float = 1) -> int:
    """Return the digits, two more at most, with which no end is written as 0 that is not 0."""
    few = range(digits, digits + 2)
    ends = [end * scale for end in (low, high) if end and math.isfinite(end)]
    return next((n for n in few if all(abs(end) >= 0.5 * 10**-n for end in ends)), digits + 2)


def table_lines(numbers: pd.DataFrame) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return (block, label, cells) of each row; a cell is (number, interval)."""
    headings, lines = numbers["heading"].unique(), []
    for block in ("method", "difference"):
        part = numbers[numbers["block"] == block]
        for method in in_order(part["method"]):
            rows = part[part["method"] == method].set_index("heading")
            cells = [(rows.at[h, "text"], rows.at[h, "interval"]) if h in rows.index
                     else ("\u2013", "") for h in headings]  # fmt: skip
            lines.append((block, LABELS[method], cells))
    return lines


def by_level(results: pd.DataFrame, metrics: Sequence[str], budget: int) -> pd.DataFrame:
    """Return measures at a budget, and their differences to outcome RL, by level and method.

    Returns:
        Indexed by metric and method, a column a level, cells such as `0.41 [0.35, 0.47]`.
    """
    wanted = [prefix + metric for metric in metrics for prefix in ("", DIFFERENCE)]
    rows = results[(results["seed"].astype(str) == "all") & (results["budget"] == budget)
                   & results["metric"].isin(wanted)]  # fmt: skip
    cells = [said(row) for row in rows.to_dict("records")]
    table = rows.assign(cell=cells).set_index(["metric", "method", "level"])["cell"].unstack()
    order = [place for place in itertools.product(wanted, in_order(rows["method"]))
             if place in table.index]  # fmt: skip
    return table.loc[order, list(dict.fromkeys(rows["level"]))]


def in_points(table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return shares and their intervals as readers see them, where a row each would be too many.

    Args:
        rows, columns: names whose values are the labels of the rows, and of the columns.

    Returns:
        Labels in the order in which they come, cells such as `+3.3 [−5.5, 12.1]`, in points.
    """
    cells = [" ".join(written(row.estimate, row.low, row.high, 1, 100, "+"))
             for row in table.itertuples()]  # fmt: skip
    wide = table.assign(cell=cells).pivot(index=list(rows), columns=list(columns), values="cell")
    return wide.loc[_as_they_come(table, rows), _as_they_come(table, columns)].fillna("")


def _as_they_come(table: pd.DataFrame, names: Sequence[str]) -> pd.Index:
    """Return the distinct labels of some columns in the order in which they come."""
    found = table[list(names)].drop_duplicates()
    return pd.MultiIndex.from_frame(found) if len(names) > 1 else pd.Index(found[names[0]])


def results_markdown(results: pd.DataFrame, c0: int) -> str:
    """Return the results table as Markdown: number [interval], differences in the last rows."""
    numbers = results_rows(results, c0)
    headings = list(numbers["heading"].unique())
    text = ["| method | " + " | ".join(headings) + " |", "|:--" + "|--:" * len(headings) + "|"]
    for block, label, cells in table_lines(numbers):
        label = label if block == "method" else f"{label} {LESS}"
        text.append("| " + " | ".join([label, *(" ".join(c).strip() for c in cells)]) + " |")
    return "\n".join(text) + "\n"


def need(table: pd.DataFrame | None, columns: str, figure: str) -> pd.DataFrame:
    """Return the table if it has rows and the columns (words of a string).

    Raises:
        ValueError: no table, no rows or no such column; the message names it.
    """
    if table is None or len(table) == 0:
        raise ValueError(f"{figure}: the table is empty; run the step that measures it first")
    missing = [name for name in columns.split() if name not in table.columns]
    if missing:
        raise ValueError(
            f"{figure}: column {', '.join(missing)} is missing; has {', '.join(table.columns)}"
        )
    return table


def in_order(names: pd.Series) -> list[str]:
    """Return the distinct names: known methods in the order of LABELS, others as they come."""
    known = list(LABELS)
    return sorted(
        names.unique(), key=lambda name: known.index(name) if name in LABELS else len(known)
    )


def said(row: Mapping[str, float]) -> str:
    """Return an estimate with its interval, digits as in `written`: "0.41 [0.35, 0.47]"."""
    digits = _telling(row["low"], row["high"], 2)
    return " [".join((f"{row['estimate']:z.{digits}f}",
                      f"{row['low']:z.{digits}f}, {row['high']:z.{digits}f}]"))  # fmt: skip


def against(row: Mapping[str, float]) -> str:
    """Say how one thing stands to another, given the interval of its difference."""
    if row["low"] > 0:
        return "is better than"
    return "is worse than" if row["high"] < 0 else "shows no significant difference from"


def small(value: float, bound: float) -> str:
    """Say what rounding leaves of 0: that it is below the bound, or the number where it is not."""
    return f"below {bound:.0e}" if value < bound else f"{value:.1e}"


def rounded(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """Return a table to be shown: rounded, and without a sign on what rounds to 0."""
    table = table.infer_objects().round(digits)
    return table.map(lambda cell: cell + 0.0 if isinstance(cell, float) else cell)


def decided(table: pd.DataFrame) -> pd.DataFrame:
    """Return differences with a column that says whether the interval leaves out 0."""
    return table.assign(decided=(table["low"] > 0) | (table["high"] < 0))
