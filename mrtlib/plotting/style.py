"""What every figure shares: the style, the looks of methods, panels of curves, legends and saving.

Importing this module changes no setting: a figure is drawn inside `paper`, which puts the style on
for one call and takes it off again.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from mrtlib.config import LABELS
from mrtlib.evaluation.tables import in_order, need
from mrtlib.store import write_csv

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, WIDE = 3.25, 6.75  # inches: one column of a two-column page, and both
SMALL = 6.4  # points, of words beside the data; labels have 7
FAINT = "#767676"  # reference lines
SHADE = "#eeeeee"  # regions
MARKERS_A_CURVE = 8

# Decorator: seaborn's style and sizes with our sheet on top, whatever the user set.
_SEABORN = sns.axes_style("ticks") | sns.plotting_context("paper", font_scale=7 / 9.6)
paper = mpl.style.context([_SEABORN, STYLE], after_reset=True)
Given = Axes | Sequence[Axes] | None  # axes to draw on; a figure without any makes its own
_NARROW = ContextVar("narrow", default=False)
# Labels of a logarithmic axis, times powers of ten: the first of these that give three.
LOG_STEPS = (1,), (1, 3), (1, 2, 5), (1, 2, 3, 5)


class Look(NamedTuple):
    """How a curve is named and drawn."""

    label: str
    colour: str
    dashes: str | tuple[float, ...]  # "" is a solid line
    marker: str


# Colours of Okabe and Ito (2008) and one of Tol's. No two methods share both colour and dashes, and
# those that are often drawn together share neither, nor a marker: they stay apart in greyscale too.
BLACK, BLUE, ORANGE, GREEN, PURPLE = "#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, WINE = "#56B4E9", "#E69F00", "#882255"
DOTTED, DASHED, MIXED, TWICE = (1, 1.2), (4, 1.5), (5, 1.2, 1, 1.2), (5, 1.2, 1, 1.2, 1, 1.2)
SHORT, LONG = (2, 1.2), (7, 1.5)
METHODS = {
    "base": Look(LABELS["base"], BLACK, DOTTED, "o"),
    "outcome": Look(LABELS["outcome"], BLUE, DASHED, "s"),
    "episode_progress": Look(LABELS["episode_progress"], GREEN, MIXED, "^"),
    "episode_progress_centred": Look(LABELS["episode_progress_centred"], PURPLE, TWICE, "v"),
    "regret_to_go": Look(LABELS["regret_to_go"], ORANGE, "", "D"),
    "final_progress": Look(LABELS["final_progress"], SKY, LONG, "P"),
    "budget_relative": Look(LABELS["budget_relative"], AMBER, SHORT, "X"),
    "length_penalty": Look(LABELS["length_penalty"], ORANGE, TWICE, "<"),
    "budget_curriculum": Look(LABELS["budget_curriculum"], PURPLE, SHORT, ">"),
    "outcome_wide": Look(LABELS["outcome_wide"], GREEN, "", "h"),
    "mixed_group": Look(LABELS["mixed_group"], WINE, (3, 1), "v"),
    "termination_baseline": Look(LABELS["termination_baseline"], GREEN, LONG, "d"),
    "stale_outcome": Look(LABELS["stale_outcome"], SKY, "", "*"),
    "star": Look(LABELS["star"], SKY, SHORT, "X"),
    "mrt_star_keep": Look(LABELS["mrt_star_keep"], PURPLE, "", "H"),
    "mrt_star_cut": Look(LABELS["mrt_star_cut"], AMBER, LONG, "p"),
}
# For series that are not methods, in order.
SERIES = ((BLUE, "", "o"), (ORANGE, DASHED, "s"), (GREEN, MIXED, "^"), (PURPLE, DOTTED, "D"),
          (AMBER, TWICE, "v"), (BLACK, (2, 1), "P"))  # fmt: skip


def looks_of(names: pd.Series) -> dict[str, Look]:
    """Return the look of each distinct name, in the order in which they are drawn.

    Raises:
        ValueError: in a column `method`, one that has no look.
    """
    order = in_order(names)
    if names.name != "method":
        return {name: Look(str(name), *SERIES[i % len(SERIES)]) for i, name in enumerate(order)}
    if unknown := [name for name in order if name not in METHODS]:
        raise ValueError(f"no look for method {unknown[0]!r}; add it to METHODS of plotting.style, "
                         f"beside {', '.join(METHODS)}")  # fmt: skip
    return {name: METHODS[name] for name in order}


@contextmanager
def one_column() -> Iterator[None]:
    """Make the figures that are drawn inside one column wide, their panels below each other."""
    token = _NARROW.set(True)
    try:
        yield
    finally:
        _NARROW.reset(token)


def panels(
    given: Given, count: int = 1, height: float = 2.2, width: float | None = None,
    sharey: bool = False, columns: int = 4,
) -> list[Axes]:  # fmt: skip
    """Return `count` axes: those given, or those of a new figure, at most `columns` in a row.

    Args:
        height: inches of one row.
        width: inches of the figure; one column for one panel and both for more by default.
    """
    if given is not None:
        axes = list(np.ravel(np.asarray(given, dtype=object)))
        if len(axes) != count:
            raise ValueError(f"the figure needs {count} axes, got {len(axes)}")
        return axes
    if _NARROW.get():
        columns, width = 1, COLUMN
    columns = min(count, columns)
    rows = -(-count // columns)
    size = (width or (COLUMN if count == 1 else WIDE), rows * height)
    fig, grid = plt.subplots(rows, columns, figsize=size, sharey=sharey, squeeze=False)
    for extra in grid.flat[count:]:
        extra.remove()
    return list(grid.flat[:count])


def curves(
    table: pd.DataFrame, panel: str, by: str, x: str, xlabel: str, ylabel: str | None = None,
    axes: Given = None,
) -> list[Axes]:  # fmt: skip
    """Draw a panel for each value of one column, and in it a curve for each value of another.

    Args:
        table: panel, by, x, estimate, low, high (shaded).
        ylabel: of the axis that all panels share, which then have their values as titles. Without
            it each has an axis of its own, and its value is the label.
    """
    looks = looks_of(table[by])
    table = table.assign(**{by: table[by].map({name: look.label for name, look in looks.items()})})
    labels, colours, dashes, markers = map(list, zip(*looks.values(), strict=True))
    names = table[panel].unique()
    axes = panels(axes, len(names), sharey=ylabel is not None)
    for ax, name in zip(axes, names, strict=True):
        rows = table[table[panel] == name].sort_values(x)
        sns.lineplot(rows, x=x, y="estimate", hue=by, hue_order=labels, palette=colours, style=by,
                     style_order=labels, dashes=dashes, markers=markers, estimator=None, mew=0.4,
                     ax=ax)  # fmt: skip
        # Markers tell curves apart. On a long curve every one of them would be a smear, and those
        # of curves that nearly agree would hide each other, so each begins with another point.
        for i, line in enumerate(ax.get_lines()):
            every = max(1, len(line.get_xdata()) // MARKERS_A_CURVE)
            line.set_markevery((i % every, every))
        for label, part in rows.groupby(by):
            colour = colours[labels.index(label)]
            ax.fill_between(part[x], part["low"], part["high"], linewidth=0.4,
                            facecolor=(colour, 0.12), edgecolor=(colour, 0.4))  # fmt: skip
        few_ticks(ax)
        ax.set(xlabel=xlabel, ylabel=name)
        if ylabel is not None:
            ax.set(ylabel=ylabel if ax is axes[0] else "", title=name if len(names) > 1 else "")
    legend_above(axes)
    return axes


def around(values: pd.Series | pd.DataFrame, margin: float = 0.05) -> tuple[float, float]:
    """Return the limits of an axis that holds all values, with a margin as a share of them."""
    low, high = np.nanmin(values), np.nanmax(values)
    return low - margin * (high - low), high + margin * (high - low)


def few_ticks(ax: Axes) -> None:
    """Put three to five ticks on each axis, at whole numbers from left to right."""
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True, min_n_ticks=3))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10), min_n_ticks=3))


def log_ticks(axis: Axis) -> None:
    """Put minor ticks on a logarithmic axis, and three labels or more, written out in full."""
    low, high = sorted(axis.get_view_interval())
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    inside = [[t for t in np.outer(powers, steps).ravel() if low <= t <= high]
              for steps in (*LOG_STEPS, range(1, 10))]  # fmt: skip
    major = next((ticks for ticks in inside if len(ticks) >= 3), inside[-1])
    axis.set_ticks([t for t in inside[-1] if t not in major], minor=True)
    axis.set_ticks(major)
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def legend_above(axes: Sequence[Axes]) -> None:
    """Put one legend for all panels above them, in as few rows as fit; one curve needs none."""
    handles, labels = axes[0].get_legend_handles_labels()
    for legend in filter(None, [ax.get_legend() for ax in axes]):
        legend.remove()
    if len(labels) < 2:
        return
    fig = axes[0].figure
    for columns in range(len(labels), 0, -1):
        legend = fig.legend(handles, labels, loc="outside upper center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= fig.bbox.width:
            break
        legend.remove()
    # The panels keep their height when the legend takes more than one row.
    fig.set_figheight(fig.get_figheight() + 0.13 * (-(-len(labels) // columns) - 1))


def save(
    fig: Figure, stem: str, table: pd.DataFrame, folder: str | Path
) -> tuple[Path, Path, Path]:
    """Write STEM.pdf, STEM.png (300 dpi) and STEM.csv (the numbers drawn); return the paths.

    The same figure and table give the same bytes: no dates are written, and fonts go in as
    outlines that venues accept (type 42).

    Raises:
        ValueError: the table is empty.
    """
    need(table, "", stem)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{stem}.{kind}" for kind in ("pdf", "png", "csv"))
    paths[0].write_bytes(render(fig, "pdf"))
    paths[1].write_bytes(render(fig, "png"))
    write_csv(paths[2], table)
    return paths


@paper
def render(fig: Figure, kind: str, dpi: int = 300) -> bytes:
    """Return the figure as the bytes of a `pdf`, or of a `png`."""
    sink = io.BytesIO()
    metadata = {"CreationDate": None} if kind == "pdf" else None
    fig.savefig(sink, format=kind, dpi=dpi, metadata=metadata)
    return sink.getvalue()
