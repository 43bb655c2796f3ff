"""The figures and the table of results.csv: accuracy and regret over the budget, by method.

`results` has the columns method, seed, level, metric, budget, estimate, low, high, problems,
samples. Drawn are the rows of all levels and seeds together (level "all", seed "all").
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from mrtlib import drawing
from mrtlib.drawing import METHODS, look_of, panels, paper

AXIS = {"accuracy": "accuracy", "regret": "normalised regret"}
OFFICIAL = {"official_regret": "regret, authors' ramp"}
DIFFERENCE = "diff_to_outcome_"
LESS = f"\u2212 {METHODS['outcome'].label}"
GREY = "#555555"


def overall(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows over all levels and seeds.

    Raises:
        ValueError: no table, or a column is missing.
    """
    columns = "method seed level metric budget estimate low high"
    rows = drawing.need(results, columns, "results")
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


@paper
def accuracy_by_budget(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw accuracy when thinking is cut at each budget, a curve a method.

    Args:
        c0: tokens; what lies beyond it is shaded as extrapolated.
    """
    (ax,) = panels(ax)
    budget_panel(ax, results, "accuracy", c0)
    drawing.name_curves([ax])
    return ax


@paper
def regret_by_budget(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw normalised regret at each budget, a curve a method; lower is better.

    Args:
        c0: tokens; what lies beyond it is shaded as extrapolated.
    """
    (ax,) = panels(ax)
    budget_panel(ax, results, "regret", c0)
    drawing.name_curves([ax])
    return ax


@paper
def official_regret_by_budget(
    results: pd.DataFrame, c0: int, ax: Axes | None = None
) -> Axes:
    """Draw regret as the authors' notebook takes it: along a ramp, over all tokens (figure 9)."""
    (ax,) = panels(ax)
    budget_panel(ax, results, "official_regret", c0)
    ax.set_xlabel("budget (tokens, prompt and answer counted)")
    drawing.name_curves([ax])
    return ax


@paper
def headline(results: pd.DataFrame, c0: int, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw accuracy and regret over the budget side by side."""
    axes = panels(axes, 2, height=2.3)
    for ax, metric in zip(axes, AXIS, strict=True):
        budget_panel(ax, results, metric, c0)
    drawing.name_curves(axes)
    return axes


def budget_panel(ax: Axes, results: pd.DataFrame, metric: str, c0: int | None) -> None:
    """Draw the curves of one metric over the budget, the part beyond C0 shaded and labelled."""
    rows = budget_rows(results, [metric])
    for method in drawing.in_order(rows["method"]):
        drawing.curve(ax, rows[rows["method"] == method], "budget", look_of(method))
    last = 1.02 * rows["budget"].max()  # room for the marker of the last budget
    ax.set_xlim(0, last)
    drawing.few_ticks(ax)
    ax.set(xlabel="budget (thinking tokens)", ylabel=(AXIS | OFFICIAL)[metric])
    if c0 is not None and rows["budget"].max() > c0:
        above = {"transform": ax.get_xaxis_transform(), "color": GREY, "fontsize": 6.5,
                 "ha": "center", "va": "bottom"}  # fmt: skip
        ax.axvspan(c0, last, color=drawing.SHADE, zorder=0, linewidth=0)
        ax.axvline(c0, color=drawing.FAINT, linewidth=0.7, zorder=0.5)
        ax.text(c0, 1.01, "$C_0$", **above)
        ax.text((c0 + last) / 2, 1.01, "extrapolated", **above)


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
        Column("accuracy", c0, f"accuracy (%) at {c0}"),
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
                text = _written(row.estimate, column, block == "difference")
                interval = f"[{_written(row.low, column)}, {_written(row.high, column)}]"
                lines.append((block, row.method, column.heading, row.estimate, row.low, row.high,
                              text, "" if pd.isna(row.low) else interval))  # fmt: skip
    names = ["block", "method", "heading", "estimate", "low", "high", "text", "interval"]
    return pd.DataFrame(lines, columns=names)


def _written(value: float, column: Column, signed: bool = False) -> str:
    """Format a number of a column, with a true minus sign."""
    sign = "+" if signed else ""
    return f"{value * column.scale:{sign}.{column.digits}f}".replace("-", "\u2212")


def _lines(numbers: pd.DataFrame) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return (block, label, cells) of each row; a cell is (number, interval)."""
    headings, lines = numbers["heading"].unique(), []
    for block in ("method", "difference"):
        part = numbers[numbers["block"] == block]
        for method in drawing.in_order(part["method"]):
            rows = part[part["method"] == method].set_index("heading")
            cells = [(rows.at[h, "text"], rows.at[h, "interval"]) if h in rows.index
                     else ("\u2013", "") for h in headings]  # fmt: skip
            lines.append((block, look_of(method).label, cells))
    return lines


def results_markdown(results: pd.DataFrame, c0: int) -> str:
    """Return the results table as Markdown: number [interval], differences in the last rows."""
    numbers = results_rows(results, c0)
    headings = list(numbers["heading"].unique())
    text = ["| method | " + " | ".join(headings) + " |", "|:--" + "|--:" * len(headings) + "|"]
    for block, label, cells in _lines(numbers):
        label = label if block == "method" else f"{label} {LESS}"
        text.append("| " + " | ".join([label, *(" ".join(c).strip() for c in cells)]) + " |")
    return "\n".join(text) + "\n"


@paper
def results_table(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw the results table: one row a method, intervals under the numbers, differences last."""
    numbers = results_rows(results, c0)
    headings, lines = numbers["heading"].unique(), _lines(numbers)
    own = sum(block == "method" for block, _, _ in lines)  # rows before the differences
    head, part, left = 1.25, 0.65, 0.17  # heights in rows; the names' share of the width
    depth = head + len(lines) + part * (len(lines) > own)
    (ax,) = panels(ax, height=0.28 * depth + 0.06, width=drawing.WIDE)
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(depth, 0))
    middles = [left + (i + 0.5) * (1 - left) / len(headings) for i in range(len(headings))]
    for x, heading in zip(middles, headings, strict=True):
        name, _, rest = heading.partition(" ")
        ax.text(x, head / 2, f"{name}\n{rest}".strip(), ha="center", va="center")
    for i, (block, label, cells) in enumerate(lines):
        _table_row(ax, head + i + part * (block == "difference"), label, middles, cells)
    rules = [(0, 0.9), (head, 0.5), (depth, 0.9)]
    if len(lines) > own:
        rules.append((head + own, 0.5))
        ax.text(0, head + own + 0.42, f"difference to {METHODS['outcome'].label}, paired",
                va="center", style="italic")  # fmt: skip
    for y, width in rules:
        ax.axhline(y, color="black", linewidth=width, clip_on=False)
    return ax


def _table_row(
    ax: Axes, y: float, label: str, middles: list[float], cells: list[tuple[str, str]]
) -> None:
    """Write one row of the table from y down, each interval under its number."""
    ax.text(0, y + 0.5, label, va="center")
    for x, (number, interval) in zip(middles, cells, strict=True):
        ax.text(x, y + (0.32 if interval else 0.5), number, ha="center", va="center")
        ax.text(x, y + 0.74, interval, ha="center", va="center", fontsize=6, color=GREY)
