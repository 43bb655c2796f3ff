"""What every figure shares: the style, the looks of methods, panels, curves, names and saving.

Importing this module changes no setting: a figure is drawn inside `paper`, which puts the style
sheet on for one call and takes it off again.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from mrtlib.config import LABELS, Profile, load_profile
from mrtlib.evaluation.tables import need
from mrtlib.store import write_csv

STYLE = Path(__file__).with_name("paper.mplstyle")
COLUMN, WIDE = 3.25, 6.75  # inches: one column of a two-column page, and both
FAINT = "#8a8a8a"  # reference lines
SHADE = "#ececec"  # regions

# Decorator and context manager: matplotlib's defaults and the style sheet, whatever the user set.
paper = mpl.rc_context(fname=str(STYLE))


class Look(NamedTuple):
    """How a curve is named and drawn."""

    label: str
    colour: str
    linestyle: str
    marker: str


# Colours of Okabe and Ito (2008); no two methods share colour, line style and marker, so the
# curves stay apart in greyscale too.
_STYLES = {
    "base": ("#000000", ":", "o"),
    "outcome": ("#0072B2", "--", "s"),
    "length_penalty": ("#E69F00", "-.", "v"),
    "mixed_group": ("#CC79A7", "-", "P"),
    "termination_baseline": ("#56B4E9", "-.", "<"),
    "episode_progress": ("#009E73", "-.", "^"),
    "episode_progress_centred": ("#56B4E9", "--", "v"),
    "regret_to_go": ("#D55E00", "-", "D"),
    "budget_relative": ("#999999", "--", "X"),
    "star": ("#E69F00", "--", "h"),
    "mrt_star": ("#CC79A7", ":", "*"),
}
METHODS = {name: Look(LABELS[name], *style) for name, style in _STYLES.items()}
# For series that are not methods, in order.
SERIES = (
    ("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D"),
    ("#E69F00", "-", "v"), ("#000000", "--", "P"),
)  # fmt: skip


def look_of(method: str) -> Look:
    """Return the look of a method; ValueError names the choices."""
    if method not in METHODS:
        raise ValueError(
            f"no look for method {method!r}; add it to drawing.METHODS beside {', '.join(METHODS)}"
        )
    return METHODS[method]


def series_look(label: str, index: int) -> Look:
    """Return the look of the index-th series that is not a method."""
    return Look(label, *SERIES[index % len(SERIES)])


def panels(
    given: Axes | Sequence[Axes] | None,
    count: int = 1,
    height: float = 2.0,
    width: float | None = None,
    sharey: bool = False,
) -> list[Axes]:
    """Return `count` axes: those given, or those of a new figure, at most four in a row.

    Args:
        height: inches of one row.
        width: inches of the figure; one column for one panel and both for more by default.
    """
    if given is not None:
        axes = list(np.ravel(np.asarray(given, dtype=object)))
        if len(axes) != count:
            raise ValueError(f"the figure needs {count} axes, got {len(axes)}")
        return axes
    columns = min(count, 4)
    rows = -(-count // columns)
    size = (width or (COLUMN if count == 1 else WIDE), rows * height)
    fig, grid = plt.subplots(rows, columns, figsize=size, sharey=sharey, squeeze=False)
    axes = list(grid.ravel())
    for extra in axes[count:]:
        extra.remove()
    return axes[:count]


def curve(ax: Axes, rows: pd.DataFrame, x: str, look: Look, y: str = "estimate") -> None:
    """Draw a curve with its interval (columns low and high) shaded; one point gets a bar."""
    rows = rows.sort_values(x)
    at, mean = rows[x].to_numpy(float), rows[y].to_numpy(float)
    low, high = rows["low"].to_numpy(float), rows["high"].to_numpy(float)
    # Markers tell curves apart; on a long curve every one of them would be a smear.
    ax.plot(at, mean, color=look.colour, linestyle=look.linestyle, marker=look.marker,
            markevery=max(1, len(at) // 8), label=look.label)  # fmt: skip
    if len(at) == 1:
        ax.vlines(at, low, high, color=look.colour, linewidth=0.8)
    else:
        ax.fill_between(at, low, high, color=look.colour, alpha=0.16, linewidth=0)


def few_ticks(ax: Axes) -> None:
    """Put three or four ticks on each axis, written out in full on a logarithmic one."""
    ax.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=3))
    if ax.get_yscale() == "linear":
        ax.yaxis.set_major_locator(MaxNLocator(3, min_n_ticks=3))
        return
    low, high = ax.get_ylim()
    steps = (1, 3) if high / low < 300 else (1,)
    ax.yaxis.set_major_locator(LogLocator(subs=steps, numticks=5))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.yaxis.set_minor_locator(NullLocator())


def name_curves(axes: Sequence[Axes]) -> None:
    """Name the curves beside their ends where the names do not collide, else in a legend above."""
    named = {line.get_label(): line for ax in axes for line in ax.get_lines()}
    lines = {label: line for label, line in named.items() if not label.startswith("_")}
    if len(lines) > 1 and not _name_ends(axes[-1], set(lines)):
        fig = axes[0].figure
        inches = 0.5 + 0.048 * max(map(len, lines))  # of one entry at the legend's size
        columns = max(1, min(len(lines), int(fig.get_figwidth() / inches)))
        # The panels keep their height when the legend takes more than one row.
        fig.set_figheight(fig.get_figheight() + 0.13 * (-(-len(lines) // columns) - 1))
        fig.legend(lines.values(), lines, loc="outside upper center", ncols=columns)


def _name_ends(ax: Axes, labels: set[str]) -> bool:
    """Write each curve's name to the right of its last point; say whether all had room."""
    lines = {line.get_label(): line for line in ax.get_lines()}
    if not labels <= lines.keys():
        return False
    ax.figure.draw_without_rendering()  # fixes the layout, so that distances can be measured
    points = 72 / ax.figure.dpi
    size, box = mpl.rcParams["legend.fontsize"], ax.get_window_extent()
    ends = sorted((_end(lines[label]), label) for label in labels)  # ((y, x) in pixels, label)
    room = max(map(len, labels)) * size * 0.56 <= 0.2 * box.width * points
    reach = all(x >= box.x0 + 0.9 * box.width for (_, x), _ in ends)
    places, floor = [], -np.inf
    for (y, _), _ in ends:
        floor = max(y * points, floor + 1.2 * size)
        places.append(floor - y * points)
    if not (room and reach) or max(places) > 0.9 * size:
        return False
    for ((_, _), label), shift in zip(ends, places, strict=True):
        line = lines[label]
        ax.annotate(
            label, (line.get_xdata()[-1], line.get_ydata()[-1]), (5, shift), va="center",
            textcoords="offset points", color=line.get_color(), fontsize=size,
            annotation_clip=False,
        )  # fmt: skip
    return True


def _end(line: Line2D) -> tuple[float, float]:
    x, y = line.axes.transData.transform((line.get_xdata()[-1], line.get_ydata()[-1]))
    return float(y), float(x)


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


def start(name: str) -> Profile:
    """Set a notebook up, and return its profile: figures below their cells, no progress bars.

    Raises:
        ProfileError: no such profile, or its values contradict each other.
    """
    profile = load_profile(name)
    from transformers.utils import logging  # heavy, and no figure needs it

    logging.disable_progress_bar()
    plt.ion()
    return profile
