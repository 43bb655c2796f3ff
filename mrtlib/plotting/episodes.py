"""Episodes: how many there are, what answering after each is worth, and what each gained."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from mrtlib.evaluation.tables import in_order, need
from mrtlib.plotting.style import (
    FAINT,
    curve,
    few_ticks,
    look_of,
    name_curves,
    panels,
    paper,
    series_look,
)


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
