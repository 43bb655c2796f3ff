"""Accuracy and regret over the budget, a curve a method; and the results table as a picture."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from mrtlib.evaluation import tables
from mrtlib.evaluation.tables import AXIS, _lines, budget_rows, results_rows
from mrtlib.plotting import style
from mrtlib.plotting.style import METHODS, look_of, panels, paper

OFFICIAL = {"official_regret": "regret, authors' ramp"}
GREY = "#555555"


@paper
def accuracy_by_budget(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw accuracy when thinking is cut at each budget, a curve a method.

    Args:
        c0: tokens; what lies beyond it is shaded as extrapolated.
    """
    (ax,) = panels(ax)
    budget_panel(ax, results, "accuracy", c0)
    style.name_curves([ax])
    return ax


@paper
def regret_by_budget(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw normalised regret at each budget, a curve a method; lower is better.

    Args:
        c0: tokens; what lies beyond it is shaded as extrapolated.
    """
    (ax,) = panels(ax)
    budget_panel(ax, results, "regret", c0)
    style.name_curves([ax])
    return ax


@paper
def official_regret_by_budget(
    results: pd.DataFrame, c0: int, ax: Axes | None = None
) -> Axes:
    """Draw regret as the authors' notebook takes it: along a ramp, over all tokens (figure 9)."""
    (ax,) = panels(ax)
    budget_panel(ax, results, "official_regret", c0)
    ax.set_xlabel("budget (tokens, prompt and answer counted)")
    style.name_curves([ax])
    return ax


@paper
def headline(results: pd.DataFrame, c0: int, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw accuracy and regret over the budget side by side."""
    axes = panels(axes, 2, height=2.3)
    for ax, metric in zip(axes, AXIS, strict=True):
        budget_panel(ax, results, metric, c0)
    style.name_curves(axes)
    return axes


def budget_panel(ax: Axes, results: pd.DataFrame, metric: str, c0: int | None) -> None:
    """Draw the curves of one metric over the budget, the part beyond C0 shaded and labelled."""
    rows = budget_rows(results, [metric])
    for method in tables.in_order(rows["method"]):
        style.curve(ax, rows[rows["method"] == method], "budget", look_of(method))
    last = 1.02 * rows["budget"].max()  # room for the marker of the last budget
    ax.set_xlim(0, last)
    style.few_ticks(ax)
    ax.set(xlabel="budget (thinking tokens)", ylabel=(AXIS | OFFICIAL)[metric])
    if c0 is not None and rows["budget"].max() > c0:
        above = {"transform": ax.get_xaxis_transform(), "color": GREY, "fontsize": 6.5,
                 "ha": "center", "va": "bottom"}  # fmt: skip
        ax.axvspan(c0, last, color=style.SHADE, zorder=0, linewidth=0)
        ax.axvline(c0, color=style.FAINT, linewidth=0.7, zorder=0.5)
        ax.text(c0, 1.01, "$C_0$", **above)
        ax.text((c0 + last) / 2, 1.01, "extrapolated", **above)


@paper
def results_table(results: pd.DataFrame, c0: int, ax: Axes | None = None) -> Axes:
    """Draw the results table: one row a method, intervals under the numbers, differences last."""
    numbers = results_rows(results, c0)
    headings, lines = numbers["heading"].unique(), _lines(numbers)
    own = sum(block == "method" for block, _, _ in lines)  # rows before the differences
    head, part, left = 1.25, 0.65, 0.17  # heights in rows; the names' share of the width
    depth = head + len(lines) + part * (len(lines) > own)
    (ax,) = panels(ax, height=0.28 * depth + 0.06, width=style.WIDE)
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
