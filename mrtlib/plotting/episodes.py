"""Episodes: how many there are, what answering after each is worth, and what each gained."""

import pandas as pd
from matplotlib.axes import Axes

from mrtlib.evaluation.tables import need
from mrtlib.plotting.style import FAINT, Given, curves, paper


@paper
def episode_counts(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw how many episodes traces have, a panel a level.

    Args:
        table: method, level, episodes, estimate, low, high (shares of the traces of that method
            and level).
    """
    need(table, "method level episodes estimate low high", "episode_counts")
    return _from_zero(table, "episodes", "episodes of a trace", "share of traces", axes)


@paper
def progress_by_episode(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw mean progress J_j - J_{j-1} by episode index, a panel a level if there are several.

    Args:
        table: method, j, estimate, low, high; level is optional.
    """
    need(table, "method j estimate low high", "progress_by_episode")
    level = "level " + table["level"].astype(str) if "level" in table else "all"
    table = table.assign(level=level)
    return _from_zero(table, "j", "episode $j$", "mean progress $J_j - J_{j-1}$", axes)


def _from_zero(table: pd.DataFrame, x: str, xlabel: str, ylabel: str, axes: Given) -> list[Axes]:
    """Draw the curves of the methods, a panel a level, and a line at 0."""
    axes = curves(table, "level", "method", x, xlabel, ylabel, axes)
    for ax in axes:
        ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    return axes


@paper
def accuracy_by_episode(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw accuracy of answering after j episodes, alone and by majority (paper's figure 3).

    Args:
        table: curve ("direct", "maj@1", "maj@2", ...), x (episodes), estimate, low, high,
            bucket (of trace length; a panel each).
    """
    return _accuracy(table, axes, "episodes (a further vote counts as one)", "accuracy_by_episode")


@paper
def accuracy_by_token(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw what `accuracy_by_episode` draws, over tokens: x holds those of thinking and answers."""
    return _accuracy(table, axes, "tokens (thinking and answers)", "accuracy_by_token")


def _accuracy(table: pd.DataFrame, axes: Given, xlabel: str, figure: str) -> list[Axes]:
    need(table, "curve x estimate low high bucket", figure)
    # "direct" first, so that it keeps its look when there are more or fewer maj@k
    table = table.sort_values("curve", key=lambda name: name != "direct", kind="stable")
    table = table.replace({"curve": {"direct": "direct (pass@k)"}})
    return curves(table, "bucket", "curve", "x", xlabel, "accuracy", axes)
