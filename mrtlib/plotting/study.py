"""The figures of the long study: learning, length, differences to outcome RL, votes, ablations."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mrtlib.config import LABELS
from mrtlib.evaluation.tables import in_order, need
from mrtlib.plotting.style import (
    FAINT,
    SERIES,
    WIDE,
    Given,
    around,
    curves,
    legend_above,
    panels,
    paper,
)

CROWD = 6  # methods in a panel


@paper
def study_curves(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw validation over tokens through the model: a row a length, accuracy left, regret right.

    A panel is as high as its curves: of a wide band what lies beyond them is cut. A part of more
    than `CROWD` methods has no bands: they would hide each other.

    Args:
        table: part, method, through (millions), quantity, estimate, low, high; as from
            `study_logs.validated`.
    """
    need(table, "part method through quantity estimate low high", "study_curves")
    shown = table[table["quantity"].isin(("natural accuracy", "normalised regret"))]
    names = [f"{quantity}, {part}" for part in shown["part"].unique()
             for quantity in ("natural accuracy", "normalised regret")]  # fmt: skip
    rows = shown.assign(panel=shown["quantity"] + ", " + shown["part"])
    rows = rows.sort_values("panel", key=lambda p: p.map(names.index), kind="stable")
    if axes is None:
        axes = panels(None, len(names), columns=2)
    axes = curves(_bare_in_a_crowd(rows), "panel", "method", "through",
                  "tokens through the model (millions)", axes=axes)  # fmt: skip
    for ax, name in zip(axes, names, strict=True):
        ax.set_ylim(around(rows.loc[rows["panel"] == name, "estimate"], 0.15))
    return axes


def _bare_in_a_crowd(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what is drawn without the bands of parts that have more than `CROWD` methods."""
    crowded = rows.groupby("part")["method"].transform("nunique") > CROWD
    return rows.assign(low=rows["low"].mask(crowded), high=rows["high"].mask(crowded))


@paper
def study_lengths(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw the thinking tokens of the rollouts while each method trains: a panel a length of run.

    As in `study_curves`, a part of many methods has no bands.

    Args:
        table: part, method, through (millions), estimate, low, high; as from
            `study_logs.lengths`.
    """
    need(table, "part method through estimate low high", "study_lengths")
    rows = _bare_in_a_crowd(table.assign(panel=table["part"] + " runs"))
    if axes is None:
        axes = panels(None, rows["panel"].nunique(), width=WIDE)
    return curves(rows, "panel", "method", "through", "tokens through the model (millions)",
                  "thinking tokens", axes=axes)  # fmt: skip


@paper
def study_removed(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw the share of outcome RL's regret that each method removes, by budget: a panel a length.

    Args:
        table: part, method, budget, estimate, low, high (shares); as from
            `study_results.removed`, of one set.
    """
    need(table, "part method budget estimate low high", "study_removed")
    numbers = {name: 100 * table[name] for name in ("estimate", "low", "high")}
    rows = table.assign(panel=table["part"] + " runs", **numbers)
    if axes is None:
        axes = panels(None, rows["panel"].nunique(), width=WIDE, sharey=True)
    axes = curves(rows, "panel", "method", "budget", "budget (thinking tokens)",
                  "regret removed (%)", axes=axes)  # fmt: skip
    for ax in axes:
        ax.axhline(0, color=FAINT, linewidth=0.7, zorder=0.5)
    return axes


@paper
def study_differences(
    table: pd.DataFrame, axes: Given = None, series: str = "set"
) -> list[Axes]:  # fmt: skip
    """Draw each method's differences to outcome RL with their intervals, a panel a measure.

    Args:
        table: method, measure, estimate, low, high, and the column of the series.
        series: the column whose values share a row and have a marker each: set, or part.
    """
    need(table, f"{series} method measure estimate low high", "study_differences")
    rows = table.assign(row=table["method"].map(LABELS), series=table[series])
    axes = _forest(rows, [LABELS[m] for m in in_order(table["method"])], axes)
    legend_above(axes)
    return axes


@paper
def study_rivals(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw each method's differences to the paper's form of MRT, a panel a measure.

    The axes are as wide as the intervals of the others than outcome RL, whose own may be cut.

    Args:
        table: method, measure, estimate, low, high; as from `study_results.rivals`.
    """
    need(table, "method measure estimate low high", "study_rivals")
    rows = table.assign(row=table["method"].map(LABELS), series="")
    axes = _forest(rows, [LABELS[m] for m in in_order(table["method"])], axes)
    others = table[table["method"] != "outcome"] if table["method"].nunique() > 1 else table
    for ax, measure in zip(axes, table["measure"].unique(), strict=True):
        ax.set_xlim(around(100 * others.loc[others["measure"] == measure, ["low", "high"]]))
    return axes


@paper
def study_regret(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw the regret of every method over the budget, a panel a method beside outcome RL.

    Panels are as high as their curves: of a wide band what lies beyond them is cut.

    Args:
        table: part, method, series, metric, budget, used, estimate, low, high; as from
            `study_results.by_budget`.
    """
    return _beside_outcome(table, "regret", "budget", "budget (thinking tokens)",
                           "normalised regret", axes)  # fmt: skip


@paper
def study_tokens(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw the accuracy of every method over the tokens that it used, a panel a method.

    Args:
        table: as for `study_regret`.
    """
    return _beside_outcome(table, "accuracy", "used", "thinking tokens used", "accuracy", axes)


def _beside_outcome(
    table: pd.DataFrame, metric: str, x: str, xlabel: str, ylabel: str, axes: Given
) -> list[Axes]:
    name = "study_tokens" if x == "used" else "study_regret"
    need(table, "part method series metric budget used estimate low high", name)
    rows = table[table["metric"] == metric]
    rows = rows.assign(panel=rows["method"].map(LABELS) + ", " + rows["part"])
    count = rows["panel"].nunique()
    if axes is None:
        axes = panels(None, count, height=1.5, width=WIDE, sharey=True, columns=3)
    axes = curves(rows, "panel", "series", x, xlabel, ylabel, axes=axes)
    axes[0].set_ylim(around(rows["estimate"], 0.15))  # of all, which share it
    for i, ax in enumerate(axes):  # labels where nothing stands below, or to the left
        place = ax.get_subplotspec()
        last = i + place.get_gridspec().ncols >= count
        ax.set(xlabel=xlabel if last else "", ylabel=ylabel if place.is_first_col() else "")
    return axes


@paper
def study_ablations(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw what each variant gains over the form as it is, a panel a measure.

    Args:
        table: variant, measure, estimate, low, high; as from `ablations.results`.
    """
    need(table, "variant measure estimate low high", "study_ablations")
    rows = table.assign(row=table["variant"], series="")
    return _forest(rows, list(table["variant"].unique()), axes)


def _forest(table: pd.DataFrame, names: list[str], axes: Given) -> list[Axes]:
    """Draw differences in points with their intervals: a panel a measure, a line a name.

    Args:
        table: row (one of the names), series (of a marker each), measure, estimate, low, high.
    """
    measures, series = list(table["measure"].unique()), list(table["series"].unique())
    axes = panels(axes, len(measures), height=0.55 + 0.32 * len(names), sharey=True)
    for ax, measure in zip(axes, measures, strict=True):
        ax.axvline(0, color=FAINT, linewidth=0.7)
        for i, name in enumerate(series):
            rows = table[(table["measure"] == measure) & (table["series"] == name)]
            places = rows["row"].map(names.index) + 0.22 * (i - (len(series) - 1) / 2)
            colour, _, marker = SERIES[i]
            ax.errorbar(100 * rows["estimate"], places, fmt=marker, color=colour, markersize=3.5,
                        xerr=100 * np.abs(rows[["low", "high"]].T - rows["estimate"]),
                        elinewidth=0.9, label=name)  # fmt: skip
        ax.set(xlabel=f"{measure}, points")
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))
    axes[0].set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    return axes


@paper
def study_votes(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of a vote over all tokens of its rollouts, a curve a method.

    Args:
        table: method, votes, tokens, estimate, low, high; as from `study_votes.curves`.
    """
    need(table, "method votes tokens estimate low high", "study_votes")
    rows = table.assign(panel="")
    (ax,) = curves(rows, "panel", "method", "tokens", "tokens of all votes", "accuracy of the vote",
                   axes=panels(ax))  # fmt: skip
    ax.set_title("")
    return ax


@paper
def study_reach(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the share of what could be reached by voting that each method misses, by episodes.

    Args:
        table: method, budget (episodes), estimate, low, high; as from `study_reach.regrets`.
    """
    need(table, "method budget estimate low high", "study_reach")
    rows = table.assign(panel="")
    (ax,) = curves(rows, "panel", "method", "budget", "budget (episodes)",
                   "share of the reachable missed", axes=panels(ax))  # fmt: skip
    ax.set_title("")
    return ax
