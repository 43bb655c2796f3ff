"""One trace to look at: its episodes in words, what each was worth, and where it could stop.

As a figure, and as a piece of HTML for a notebook or a widget.
"""

import textwrap
from base64 import b64encode
from functools import cache
from html import escape
from itertools import pairwise

import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mrtlib.experiments.episode_analysis import TraceView
from mrtlib.plotting.style import METHODS, ORANGE, SMALL, WIDE, few_ticks, panels, paper, render

# Tints that black text is readable on; neighbours differ in lightness as well as in hue.
TINTS = ("#cfe3f1", "#fbe6c2", "#c6e8dc", "#f3d9e7", "#e4e4e4", "#fbd9c4")
MONO, MONO_SIZE = "DejaVu Sans Mono", 6.3
LINE, GAP = 0.115, 0.09  # inches of one line of words, and around a block of them
LEFT, WORDS = 0.034, 0.79  # where words begin and end, as shares of the width
COLUMNS = int((WORDS - LEFT) * (WIDE - 0.1) * 72 / (MONO_SIZE * 0.602)) - 1  # characters
BAR = (0.805, 0.07)  # left end and length of the bar for J = 1, as shares of the width
DARK = "#333333"  # bars and curve
MAX_BLOCKS, MAX_LINES = 10, 4  # of words; a longer trace is abridged, its curve never


def signed(value: float) -> str:
    """Format progress: a sign, two digits, a true minus, and no sign before 0.00."""
    return f"{value:+.2f}".replace("-", "\u2212") if round(value, 2) else "0.00"


def could_have_stopped(view: TraceView) -> bool:
    """Say whether a right trace had its best J before its end; a wrong one was right nowhere."""
    return view.correct and view.measured and view.stop_at < len(view.episodes)


def headline_of(view: TraceView) -> str:
    """Say in one line whose trace this is, how it ended and where it could have stopped."""
    label = METHODS[view.method].label if view.method in METHODS else view.method
    end = "correct" if view.correct else "wrong"
    which = f"{label}, {view.problem}" + ("" if view.sample is None else f", sample {view.sample}")
    text = f"{which}: {end} after {view.tokens[-1]} tokens"
    if could_have_stopped(view):
        where = f"after episode {view.stop_at}" if view.stop_at else "before thinking"
        text += f"; could have stopped {where} ({view.tokens[view.stop_at]} tokens)"
    return text


@cache
def _glyphs() -> frozenset[int]:
    """Return the characters that the font of the words has."""
    path = font_manager.findfont(MONO, fallback_to_default=False)
    return frozenset(font_manager.get_font(path).get_charmap())


def _drawable(text: str) -> str:
    """Replace what the font cannot draw: a model may write any character at all."""
    return "".join(c if ord(c) in _glyphs() or c.isspace() else "\u25a1" for c in text)


def _wrapped(text: str, columns: int, most: int = MAX_LINES) -> list[str]:
    """Break words into lines of at most `columns` characters; the middle of many is left out."""
    lines = textwrap.wrap(_drawable(" ".join(text.split())), columns) or [""]
    if len(lines) > most:
        lines = [*lines[: most - 1], "\u2026 " + lines[-1][-(columns - 2) :]]
    return lines


def _blocks(view: TraceView) -> list[tuple[int | None, list[str]]]:
    """Return (j, lines) of what is shown; in the middle of a very long trace j is None."""
    k = len(view.episodes)
    shown = [(j, _wrapped(view.episodes[j - 1], COLUMNS)) for j in range(1, k + 1)]
    if k > MAX_BLOCKS:
        gap = f"\u2026 {k - MAX_BLOCKS + 1} more episodes \u2026"
        shown[MAX_BLOCKS - 2 : k - 1] = [(None, [gap])]
    return [(0, ["(no thinking)"]), *shown]


@paper
def annotated_trace(view: TraceView, ax: Axes | None = None) -> Axes:
    """Draw the words of each episode with J after it, over the anytime curve J(t).

    Returns:
        The axes of the words; the curve is in an inset under them.
    """
    own, (ax,) = ax is None, panels(ax, width=WIDE)
    ax.set_axis_off()
    y = 0.0  # inches from the top
    for title in textwrap.wrap(_drawable(headline_of(view)), 118):
        # Not in the layout, which would make room for it beside the narrow axes it begins with.
        ax.text(0, y + 0.06, title, va="center", fontweight="bold", parse_math=False,
                in_layout=False)  # fmt: skip
        y += 0.13
    y = _write(ax, y + 0.04, _wrapped(view.question, COLUMNS, 3)) + 0.18
    for x, name in ((BAR[0], "$J$"), (0.93, "progress")):
        ax.text(x, y - 0.06, name, va="center", fontsize=SMALL)
    for j, lines in _blocks(view):
        y = _block(ax, view, j, lines, y)
        if j == view.stop_at and could_have_stopped(view):
            y = _stop(ax, y)
    y += 0.1 + 0.78 + 0.36  # a gap, the curve, its axis
    ax.set(xlim=(0, 1), ylim=(y, 0))
    if own:
        ax.figure.set_figheight(y)
    _curve(ax.inset_axes((0.05, 0.36 / y, 0.94, 0.78 / y)), view)
    return ax


def _tint(j: int) -> str:
    return TINTS[(j - 1) % len(TINTS)] if j else "#ffffff"


def _write(ax: Axes, y: float, lines: list[str]) -> float:
    """Write lines of a model's words from y down, never as mathematics; return where they end."""
    for line in lines:
        ax.text(LEFT, y + LINE / 2, line, family=MONO, fontsize=MONO_SIZE, va="center_baseline",
                parse_math=False)  # fmt: skip
        y += LINE
    return y


def _block(ax: Axes, view: TraceView, j: int | None, lines: list[str], y: float) -> float:
    """Draw one episode: its words on its tint, J as a bar, progress; return where it ends."""
    end = _write(ax, y + GAP / 2, lines) + GAP / 2
    if j is None:
        return end
    middle, (left, wide) = (y + end) / 2, BAR
    for x, width, height, colour in (
        (0, WORDS, end - y - 0.02, _tint(j)), (left, wide, 0.07, "#e4e4e4"),
        (left, wide * view.J[j], 0.07, DARK),
    ):  # fmt: skip
        box = Rectangle((x, middle - height / 2), width, height, color=colour, linewidth=0)
        ax.add_patch(box)
    written = {"va": "center_baseline", "fontsize": SMALL}
    ax.text(0.915, middle, f"{view.J[j]:.2f}", ha="right", **written)
    if j:
        ax.text(0.995, middle, signed(view.progress[j - 1]), ha="right", **written)
        ax.text(0.008, y + (GAP + LINE) / 2, str(j), **written)
    return end


def _stop(ax: Axes, y: float) -> float:
    """Mark the place where the trace could have stopped; return where the mark ends."""
    ax.plot((0, 1), (y + 0.07, y + 0.07), color=ORANGE, linestyle="--", linewidth=0.8)
    ax.text(0.5 * WORDS, y + 0.07, " could have stopped here ", ha="center", color=ORANGE,
            va="center_baseline", fontsize=SMALL,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    return y + 0.14


def _curve(ax: Axes, view: TraceView) -> None:
    """Draw J(t), a step at each boundary, over the tints of the episodes."""
    for j, (start, end) in enumerate(pairwise(view.tokens), 1):
        ax.axvspan(start, end, color=_tint(j), linewidth=0, zorder=0)
    ax.step(view.tokens, view.J, "o-", where="post", color=DARK, clip_on=False, zorder=3)
    if could_have_stopped(view):
        ax.axvline(view.tokens[view.stop_at], color=ORANGE, linestyle="--", linewidth=0.8, zorder=4)
    ax.set(xlim=(0, max(view.tokens[-1], 1)), xlabel="thinking tokens", ylabel="$J$")
    few_ticks(ax)
    ax.set(ylim=(0, 1), yticks=(0, 0.5, 1))


def _dense(words: str) -> str:
    """Return a text without its empty lines."""
    return "\n".join(line for line in words.splitlines() if line.strip())


def _ending(view: TraceView) -> str:
    """Say what the rollout answered, and whether that was right."""
    if not isinstance(view.answer, str):  # None, or the NaN that a joined table makes of it
        return "No answer behind the thinking: wrong."
    return f"Answer: {view.answer} ({'right' if view.correct else 'wrong'})"


@paper
def trace_html(view: TraceView) -> str:
    """Return the trace as HTML: episodes coloured, J and progress beside them, J(t) under them.

    Everything that a model or a data set wrote is escaped. Where J was not measured, its cells are
    empty and there is no curve.
    """
    rows = []
    for j, words in enumerate(["(no thinking)", *view.episodes]):
        rows.append(
            f'<tr style="background:#fff"><td style="text-align:right;padding:6px">{j or ""}</td>'
            f'<td style="background:{_tint(j)};padding:3px 8px;white-space:pre-wrap;'
            f'text-align:left;font-family:monospace">{escape(_dense(words))}</td>'
            f"{_worth(view, j)}</tr>"
        )
        if could_have_stopped(view) and j == view.stop_at:
            rows.append(f'<tr style="background:#fff"><td colspan="4" style="color:{ORANGE};'
                        f'text-align:center;border-top:2px dashed {ORANGE}">could have stopped '
                        "here</td></tr>")  # fmt: skip
    return (
        # The class keeps MathJax off the model's dollar signs; colours are set on every row,
        # for JupyterLab's dark theme would else put its own behind black text.
        '<div class="tex2jax_ignore" style="background:#fff;color:#111;padding:8px;'
        'max-width:960px;line-height:1.35">'
        f"<p><b>{escape(headline_of(view))}</b></p>"
        f'<p style="white-space:pre-wrap">{escape(view.question)}</p>'
        # Widths are set, for JupyterLab would make the columns of an output equally wide.
        '<table style="border-collapse:collapse;width:100%;color:#111;table-layout:fixed">'
        '<tr style="background:#fff"><th style="width:4%"></th><th></th><th style="width:12%">J'
        f'</th><th style="width:11%">progress</th></tr>{"".join(rows)}</table>'
        f"<p>{escape(_ending(view))}</p>{_picture(view) if view.measured else ''}</div>"
    )  # fmt: skip


def _worth(view: TraceView, j: int) -> str:
    """Return the cells of J behind episode j, and of its progress."""
    if not view.measured:
        return "<td></td><td></td>"
    J, gained = view.J[j], signed(view.progress[j - 1]) if j else ""
    bar = f"linear-gradient(90deg,#bbb {100 * J:.0f}%,#eee {100 * J:.0f}%)"
    return (f'<td style="background:{bar};text-align:center">{J:.2f}</td>'
            f'<td style="text-align:right">{gained}</td>')  # fmt: skip


def _picture(view: TraceView) -> str:
    """Return the curve as a picture, as a notebook that is not trusted shows no inline SVG."""
    (ax,) = panels(None, height=1.1, width=WIDE)
    _curve(ax, view)
    curve = b64encode(render(ax.figure, "png", dpi=150)).decode()
    plt.close(ax.figure)
    return ('<img alt="J after each episode" style="width:100%" '
            f'src="data:image/png;base64,{curve}">')  # fmt: skip
