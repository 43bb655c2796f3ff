"""Accuracy and regret over the budget, a curve a method; and the results table as a picture."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from mrtlib.config import LABELS
from mrtlib.evaluation.tables import (
    AXIS,
    budget_rows,
    results_rows,
    table_lines,
)
from mrtlib.plotting.style import (
    FAINT,
    SHADE,
    SMALL,
    WIDE,
    Given,
    curves,
    panels,
    paper,
)

NAMES = AXIS | {"official_regret": "regret (authors' ramp)"}
GREY = "#555555"


@paper
def accuracy_by_budget(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw accuracy when thinking is cut at each budget, a curve a method.

    Args:
        c0: tokens; what lies beyond it is shaded as extrapolated.
    """
    return _over_budget(results, ["accuracy"], c0, ax)[0]


@paper
def regret_by_budget(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw normalised regret at each budget, a curve a method; lower is better.

    Args:
        c0: tokens; what lies beyond it is shaded as extrapolated.
    """
    return _over_budget(results, ["regret"], c0, ax)[0]


@paper
def official_regret_by_budget(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw regret as the authors' notebook takes it: along a ramp, over all tokens (figure 9)."""
    (ax,) = _over_budget(results, ["official_regret"], c0, ax)
    ax.set_xlabel("budget (tokens, prompt and answer counted)")
    return ax


@paper
def headline(results: pd.DataFrame, c0: int | None, axes: Given = None) -> list[Axes]:
    """Draw accuracy and regret over the budget side by side."""
    return _over_budget(results, list(AXIS), c0, axes)


@paper
def study_budgets(results: pd.DataFrame, c0: int, axes: Given = None) -> list[Axes]:
    """Draw the accuracy and the regret of one part of a study over the budget, to 4 C0."""
    return _over_budget(results, list(AXIS), c0, axes)


def _over_budget(
    results: pd.DataFrame, metrics: Sequence[str], c0: int | None, axes: Given
) -> list[Axes]:
    """Draw a panel a metric, the part beyond C0 shaded and labelled."""
    rows = budget_rows(results, metrics)
    rows = rows.assign(metric=rows["metric"].map(NAMES))
    axes = curves(rows, "metric", "method", "budget", "budget (thinking tokens)", axes=axes)
    last = 1.02 * rows["budget"].max()  # room for the marker of the last budget
    for ax in axes:
        ax.set_xlim(0, last)
        if c0 is not None and c0 < rows["budget"].max():
            above = {"transform": ax.get_xaxis_transform(), "color": GREY, "fontsize": SMALL,
                     "ha": "center", "va": "bottom"}  # fmt: skip
            ax.axvspan(c0, last, color=SHADE, zorder=0, linewidth=0)
            ax.axvline(c0, color=FAINT, linewidth=0.7, zorder=0.5)
            ax.text(c0, 1.01, "$C_0$", **above)
            ax.text((c0 + last) / 2, 1.01, "extrapolated", **above)
    return axes


@paper
def results_table(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw the results table: one row a method, intervals under the numbers, differences last."""
    numbers = results_rows(results, c0)
    headings, lines = numbers["heading"].unique(), table_lines(numbers)
    own = sum(block == "method" for block, _, _ in lines)  # rows before the differences
    head, part, left = 1.25, 0.65, 0.17  # heights in rows; the names' share of the width
    depth = head + len(lines) + part * (len(lines) > own)
    (ax,) = panels(ax, height=0.28 * depth + 0.06, width=WIDE)
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
        ax.text(0, head + own + 0.42, f"difference to {LABELS['outcome']}, paired",
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
