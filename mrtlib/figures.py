"""One function a figure: takes tidy tables (intervals computed elsewhere) and axes, returns them.

Without axes a function makes its own figure, 3.25 or 6.75 inches wide. `save` writes it under
the function's name as PDF, PNG and the CSV of the numbers drawn.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from mrtlib.drawing import (
    FAINT,
    curve,
    few_ticks,
    in_order,
    look_of,
    name_curves,
    need,
    panels,
    paper,
    series_look,
)
from mrtlib.drawing import METHODS as METHODS  # this is the one module to import for figures
from mrtlib.drawing import render as render
from mrtlib.drawing import save as save
from mrtlib.instruments import cost_by_boundaries as cost_by_boundaries
from mrtlib.instruments import coverage as coverage
from mrtlib.instruments import error_by_tokens as error_by_tokens
from mrtlib.instruments import estimator_curves as estimator_curves
from mrtlib.instruments import exact_against_sampled as exact_against_sampled
from mrtlib.instruments import reasoner_card as reasoner_card
from mrtlib.scaling import accuracy_by_budget as accuracy_by_budget
from mrtlib.scaling import budget_rows as budget_rows
from mrtlib.scaling import headline as headline
from mrtlib.scaling import official_regret_by_budget as official_regret_by_budget
from mrtlib.scaling import regret_by_budget as regret_by_budget
from mrtlib.scaling import results_markdown as results_markdown
from mrtlib.scaling import results_rows as results_rows
from mrtlib.scaling import results_table as results_table
from mrtlib.traces import TraceView as TraceView
from mrtlib.traces import annotated_trace as annotated_trace
from mrtlib.traces import stop_point as stop_point
from mrtlib.traces import trace_rows as trace_rows

QUANTITIES = {
    "reward": "mean reward", "regret": "normalised regret", "length": "trace length (tokens)",
}  # fmt: skip


@paper
def episode_counts(table: pd.DataFrame, axes: Axes | Sequence[Axes] | None = None) -> list[Axes]:
    """Draw how many episodes traces have, a panel a level.

    Args:
        table: method, level, episodes, estimate, low, high (shares of the traces of that method
            and level).
    """
    need(table, "method level episodes estimate low high", "episode_counts")
    levels = list(table["level"].unique())
    axes = panels(axes, len(levels), sharey=True)
    for ax, level in zip(axes, levels, strict=True):
        for method, rows in _by_method(table[table["level"] == level]):
            curve(ax, rows, "episodes", look_of(method))
        few_ticks(ax)
        ax.set(xlabel="episodes of a trace", ylim=(0, None))
        if len(levels) > 1:
            ax.set_title(str(level))
    axes[0].set_ylabel("share of traces")
    name_curves(axes)
    return axes


@paper
def accuracy_by_episode(
    table: pd.DataFrame, axes: Axes | Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw accuracy of answering after j episodes, alone and by majority (paper's figure 3).

    Args:
        table: curve ("direct", "maj@1", "maj@2", ...), x (episodes), estimate, low, high,
            bucket (of trace length; a panel each).
    """
    return _accuracy(table, axes, "episodes before answering", "accuracy_by_episode")


@paper
def accuracy_by_token(
    table: pd.DataFrame, axes: Axes | Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw what `accuracy_by_episode` draws, over tokens: x holds thinking tokens."""
    return _accuracy(table, axes, "thinking tokens", "accuracy_by_token")


def _accuracy(
    table: pd.DataFrame, axes: Axes | Sequence[Axes] | None, xlabel: str, figure: str
) -> list[Axes]:
    need(table, "curve x estimate low high bucket", figure)
    # "direct" first, so that it keeps its look when there are more or fewer maj@k
    names = sorted(table["curve"].unique(), key=lambda name: (name != "direct", len(name), name))
    buckets = list(table["bucket"].unique())
    axes = panels(axes, len(buckets), height=2.1, sharey=True)
    for ax, bucket in zip(axes, buckets, strict=True):
        rows = table[table["bucket"] == bucket]
        for i, name in enumerate(names):
            if (rows["curve"] == name).any():
                curve(ax, rows[rows["curve"] == name], "x", series_look(name, i))
        few_ticks(ax)
        ax.set(xlabel=xlabel)
        if len(buckets) > 1:
            ax.set_title(str(bucket))
    axes[0].set_ylabel("accuracy")
    name_curves(axes)
    return axes


@paper
def progress_by_episode(
    table: pd.DataFrame, axes: Axes | Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw mean progress J_j - J_{j-1} by episode index, a panel a level if there are several.

    Args:
        table: method, j, estimate, low, high; level is optional.
    """
    need(table, "method j estimate low high", "progress_by_episode")
    table = table if "level" in table else table.assign(level="all")
    levels = list(table["level"].unique())
    axes = panels(axes, len(levels), sharey=True)
    for ax, level in zip(axes, levels, strict=True):
        ax.axhline(0, color=FAINT, linewidth=0.6)
        for method, rows in _by_method(table[table["level"] == level]):
            curve(ax, rows, "j", look_of(method))
        few_ticks(ax)
        ax.set(xlabel="episode $j$")
        if len(levels) > 1:
            ax.set_title(str(level))
    axes[0].set_ylabel("mean progress $J_j - J_{j-1}$")
    name_curves(axes)
    return axes


def _by_method(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(name, table[table["method"] == name]) for name in in_order(table["method"])]


@paper
def learning_curves(
    steps_table: pd.DataFrame,
    axes: Axes | Sequence[Axes] | None = None,
    seeds: pd.DataFrame | None = None,
) -> list[Axes]:
    """Draw reward, regret and trace length over training steps, a panel each.

    Args:
        steps_table: method, step, quantity (of QUANTITIES), estimate, low, high.
        seeds: method, seed, step, quantity, estimate; drawn as thin lines if there are at most
            five seeds, where the mean alone would hide how few they are.
    """
    need(steps_table, "method step quantity estimate low high", "learning_curves")
    shown = [name for name in QUANTITIES if (steps_table["quantity"] == name).any()]
    if not shown:
        raise ValueError(f"learning_curves: quantity must be one of {', '.join(QUANTITIES)}")
    axes = panels(axes, len(shown), height=2.1)
    for ax, name in zip(axes, shown, strict=True):
        for method, rows in _by_method(steps_table[steps_table["quantity"] == name]):
            curve(ax, rows, "step", look_of(method))
        if seeds is not None:
            _raw_lines(ax, need(seeds, "method seed step quantity estimate", "seeds"), name)
        few_ticks(ax)
        ax.set(xlabel="step", ylabel=QUANTITIES[name])
    name_curves(axes)
    return axes


def _raw_lines(ax: Axes, seeds: pd.DataFrame, quantity: str) -> None:
    """Draw one thin line a seed, if there are at most five."""
    seeds = seeds[seeds["quantity"] == quantity]
    if seeds["seed"].nunique() > 5:
        return
    for (method, _), rows in seeds.groupby(["method", "seed"]):
        rows = rows.sort_values("step")
        ax.plot(rows["step"], rows["estimate"], color=look_of(method).colour, alpha=0.4,
                linewidth=0.5, zorder=1.5)  # fmt: skip
