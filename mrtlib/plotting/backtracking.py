"""Backtracking search: the warm start's loss, what a return gains, and votes over tokens."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from mrtlib.evaluation.tables import need
from mrtlib.plotting.style import (
    FAINT,
    SMALL,
    WIDE,
    Given,
    curves,
    few_ticks,
    legend_above,
    log_ticks,
    looks_of,
    panels,
    paper,
)
from mrtlib.plotting.training import learning_curves

# What is drawn together: a form of MRT, the same training without information gain, the base.
FAMILIES = {"STaR": ("base", "star", "mrt_star_cut"), "RL": ("base", "outcome", "mixed_group")}
KINDS = {
    "joined": "shared steps", "random": "random (RISE)", "rejection": "right alone (STaR)",
}  # fmt: skip
WAYS = {
    "parallel": {"linestyle": "-"},
    "linearised": {"linestyle": (0, (3.5, 1.5)), "markerfacecolor": "white"},
}


@paper
def warm_start_loss(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the held-out loss while the base learns to backtrack, a curve a kind of data.

    Args:
        table: kind, step, estimate, low, high (over seeds; NaN with one).

    Source: arXiv 2503.07572, figure 15.
    """
    need(table, "kind step estimate low high", "warm_start_loss")
    label = "held-out loss (nats per token)"
    table = table.assign(all="", kind=table["kind"].replace(KINDS))
    ax = curves(table, "all", "kind", "step", "step", label, ax)[0]
    ax.set(yscale="log")
    log_ticks(ax.yaxis)
    return ax


@paper
def search_curves(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw how the methods learn to search: reward, regret and length of the trace over steps.

    Args:
        table: as `learning_curves` takes it.
    """
    return learning_curves(table, axes)


@paper
def backtrack_progress(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw histograms of what a backtrack gains: a panel a part and family, methods side by side.

    Args:
        table: method, part, left, right (of a bin), share (of the method's backtracks), mean
            (progress of the method and part; a line).

    Raises:
        ValueError: no family has two methods.

    Source: arXiv 2503.07572, figure 16.
    """
    need(table, "method part left right share mean", "backtrack_progress")
    names = families_of(table)
    places = [(part, name) for part in table["part"].unique() for name in names]
    axes = panels(axes, len(places), height=1.9, width=WIDE, sharey=True)
    for ax, (part, name) in zip(axes, places, strict=True):
        rows = table[(table["part"] == part) & table["method"].isin(FAMILIES[name])]
        _histograms(ax, rows)
        ax.set_title(f"{name}:\n{part}")
    axes[0].set_ylabel("share of backtracks")
    keys = [{"color": look.colour, "linewidth": 4, "label": look.label}
            for look in looks_of(table["method"]).values()]  # fmt: skip
    _legend(axes, keys)
    return axes


def _histograms(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw a histogram of each method in one panel, bars side by side, and lines at the means."""
    looks = looks_of(rows["method"])
    bar = 0.9 * float((rows["right"] - rows["left"]).iloc[0]) / len(looks)
    for i, (method, look) in enumerate(looks.items()):
        own = rows[rows["method"] == method]
        x = (own["left"] + own["right"]) / 2 + (i - (len(looks) - 1) / 2) * bar
        ax.bar(x, own["share"], bar, color=look.colour, linewidth=0)
        ax.axvline(float(own["mean"].iloc[0]), color=look.colour, linewidth=0.9, zorder=3,
                   dashes=look.dashes or (None, None))  # fmt: skip
    ax.set(xlabel="progress", xlim=(rows["left"].min(), rows["right"].max()))
    # Most backtracks change little: on a straight axis those that do could not be seen.
    ax.set(yscale="log", ylim=(0.005, 1.3), xticks=(-1, 0, 1))
    log_ticks(ax.yaxis)


def families_of(table: pd.DataFrame) -> list[str]:
    """Return the families of which two methods or more are in a table; ValueError for none."""
    there = set(table["method"])
    found = [name for name, methods in FAMILIES.items() if len(there & set(methods)) > 1]
    if not found:
        raise ValueError(f"no two of {', '.join(sum(FAMILIES.values(), ()))} to compare")
    return found


@paper
def votes_by_tokens(
    table: pd.DataFrame, context: int | None = None, axes: Given = None
) -> list[Axes]:
    """Draw maj@K over the tokens generated: samples as solid lines, a stream as dashed ones.

    Bands are intervals of the samples; a stream has that of its last point alone.

    Args:
        table: method, way ("parallel", "linearised"), tokens, estimate, low, high.
        context: tokens that the model can see, where they are to be marked.

    Source: arXiv 2503.07572, figure 8.
    """
    need(table, "method way tokens estimate low high", "votes_by_tokens")
    names = families_of(table)
    axes = panels(axes, len(names), width=WIDE, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        rows = table[table["method"].isin(FAMILIES[name])]
        for method, look in looks_of(rows["method"]).items():
            for way, line in WAYS.items():
                own = rows[(rows["method"] == method) & (rows["way"] == way)].sort_values("tokens")
                ax.plot(own["tokens"], own["estimate"], **line, color=look.colour,
                        marker=look.marker, mew=0.6)  # fmt: skip
                ends = own["tokens"], own["low"], own["high"]
                if way == "parallel":
                    ax.fill_between(*ends, linewidth=0, facecolor=(look.colour, 0.1))
                else:  # bands of both would hide each other
                    ax.vlines(*(end.tail(1) for end in ends), color=look.colour, linewidth=0.8)
        few_ticks(ax)
        ax.set(xlabel="tokens generated for a problem", title=name if len(names) > 1 else "")
        if context is not None:
            ax.axvline(context, color=FAINT, linewidth=0.7, zorder=0.5)
            ax.text(context, 1.01, "context", transform=ax.get_xaxis_transform(), ha="center",
                    va="bottom", color=FAINT, fontsize=SMALL)  # fmt: skip
    axes[0].set_ylabel("accuracy of the vote")
    looks = looks_of(table["method"]).values()
    keys = [{"color": look.colour, "marker": look.marker, "label": look.label} for look in looks]
    _legend(axes, keys + [{"color": FAINT, "label": way, **line} for way, line in WAYS.items()])
    return axes


def _legend(axes: Sequence[Axes], keys: Sequence[dict]) -> None:
    """Put one legend above the panels; each key holds the properties of a line."""
    for ax in axes:
        for key in keys:
            ax.plot([], [], **key)
        ax.legend()
    legend_above(axes)
