"""Episodes: how many there are, what answering after each is worth, and what each gained."""

import pandas as pd
from matplotlib.axes import Axes

from mrtlib.evaluation.tables import in_order, need
from mrtlib.plotting.style import FAINT, WIDE, Given, curves, panels, paper


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
    """Draw accuracy of answering after j episodes, alone and by vote (paper's figure 3).

    Args:
        table: curve ("direct", "maj@1", "maj@2", ...), x (episodes), estimate, low, high,
            bucket (of trace length; a column of panels each), rule (of the votes; a row each).
    """
    return _accuracy(table, axes, "episodes (a further vote counts as one)", "accuracy_by_episode")


@paper
def accuracy_by_token(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw what `accuracy_by_episode` draws, over tokens: x holds those of thinking and answers."""
    return _accuracy(table, axes, "tokens (thinking and answers)", "accuracy_by_token")


def _accuracy(table: pd.DataFrame, axes: Given, xlabel: str, figure: str) -> list[Axes]:
    need(table, "curve x estimate low high bucket rule", figure)
    # "direct" first, so that it keeps its look when there are more or fewer maj@k
    table = table.sort_values("curve", key=lambda name: name != "direct", kind="stable")
    table = table.replace({"curve": {"direct": "direct (pass@k)"}})
    names, rules = in_order(table["bucket"]), in_order(table["rule"])
    axes = panels(axes, len(names) * len(rules), 1.9, WIDE, sharey=True, columns=len(names))
    cells = {f"{rule} {name}": (rule, name) for rule in rules for name in names}
    table = table.assign(cell=table["rule"].astype(str) + " " + table["bucket"].astype(str))
    order = table["cell"].map(list(cells).index).sort_values(kind="stable").index
    curves(table.loc[order], "cell", "curve", "x", xlabel, "accuracy", axes)
    for i, (ax, (rule, name)) in enumerate(zip(axes, cells.values(), strict=True)):
        first, bottom = i % len(names) == 0, i >= len(axes) - len(names)
        ax.set(title=name if i < len(names) else "", xlabel=xlabel if bottom else "",
               ylabel=f"accuracy, {rule} vote" if first else "")  # fmt: skip
    return axes


@paper
def vote_or_think(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw how far a vote at boundary j is ahead of thinking on to the end, a panel a bucket.

    Args:
        table: bucket, votes, j, estimate, low, high (of the difference in accuracy).
    """
    need(table, "bucket votes j estimate low high", "vote_or_think")
    table = table.assign(curve="maj@" + table["votes"].astype(str))
    axes = curves(table, "bucket", "curve", "j", "boundary $j$ of the vote",
                  "accuracy less that of\nthinking on to the end", axes)  # fmt: skip
    for ax in axes:
        ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    return axes
