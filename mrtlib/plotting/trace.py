"""One trace to look at: its episodes in words, what each was worth, and where it could stop.

As a figure, and as a piece of HTML with an inline SVG for a notebook or a widget.
"""

import textwrap
from functools import cache
from html import escape

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mrtlib.experiments.episode_analysis import TraceView
from mrtlib.plotting.style import METHODS, WIDE, few_ticks, panels, paper

# Tints that black text is readable on; neighbours differ in lightness as well as in hue.
TINTS = ("#cfe3f1", "#fbe6c2", "#c6e8dc", "#f3d9e7", "#e4e4e4", "#fbd9c4")
MONO, MONO_SIZE = "DejaVu Sans Mono", 6.3
LINE, GAP = 0.115, 0.09  # inches of one line of words, and around a block of them
LEFT, WORDS = 0.034, 0.79  # where words begin and end, as shares of the width
COLUMNS = int((WORDS - LEFT) * (WIDE - 0.1) * 72 / (MONO_SIZE * 0.602)) - 1  # characters
BAR = (0.805, 0.07)  # left end and length of the bar for J = 1, as shares of the width
STOP = "#D55E00"
MAX_BLOCKS, MAX_LINES = 10, 4  # of words; a longer trace is abridged, its curve never


def signed(value: float) -> str:
    """Format progress: a sign, two digits, a true minus and no minus before 0.00."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "\u2212")


def headline_of(view: TraceView) -> str:
    """Say in one line whose trace this is, how it ended and where it could have stopped."""
    label = METHODS[view.method].label if view.method in METHODS else view.method
    end = "correct" if view.correct else "wrong"
    text = f"{label}, {view.problem}, sample {view.sample}: {end} after {view.tokens[-1]} tokens"
    if view.stop_at < len(view.episodes):
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
    blocks, heads = _blocks(view), _wrapped(view.question, COLUMNS, 3)
    titles = textwrap.wrap(_drawable(headline_of(view)), 104)
    head = 0.05 + 0.13 * len(titles)
    top = head + LINE * len(heads) + 0.2
    stopped = any(j == view.stop_at for j, _ in blocks[:-1])
    words = top + sum(LINE * len(lines) + GAP for _, lines in blocks) + 0.14 * stopped
    height = words + 0.1 + 0.78 + 0.36  # a gap, the curve, its axis
    (ax,) = panels(ax, height=height, width=WIDE)
    ax.set(xlim=(0, 1), ylim=(height, 0))  # y is in inches from the top
    ax.set_axis_off()
    for i, title in enumerate(titles):
        ax.text(0, 0.06 + 0.13 * i, title, va="center", fontweight="bold", parse_math=False)
    _write(ax, head, heads)
    for x, name in ((BAR[0], "$J$"), (0.93, "progress")):
        ax.text(x, top - 0.07, name, va="center", fontsize=6.5)
    y = top
    for j, lines in blocks:
        y = _block(ax, view, j, lines, y)
        if stopped and j == view.stop_at:
            y = _stop(ax, y)
    _curve(ax.inset_axes((0.05, 0.36 / height, 0.94, 0.78 / height)), view)
    return ax


def _tint(j: int) -> str:
    return TINTS[(j - 1) % len(TINTS)] if j else "#ffffff"


def _write(ax: Axes, y: float, lines: list[str]) -> None:
    """Write lines of a model's words from y down, never as mathematics."""
    for i, line in enumerate(lines):
        ax.text(LEFT, y + (i + 0.5) * LINE, line, family=MONO, fontsize=MONO_SIZE,
                va="center_baseline", parse_math=False)  # fmt: skip


def _block(ax: Axes, view: TraceView, j: int | None, lines: list[str], y: float) -> float:
    """Draw one episode: its words on its tint, J as a bar, progress; return where it ends."""
    height = LINE * len(lines) + GAP
    if j is None:
        _write(ax, y + GAP / 2, lines)
        return y + height
    box = {"linewidth": 0, "zorder": 0.5}
    ax.add_patch(Rectangle((0, y + 0.01), WORDS, height - 0.02, color=_tint(j), **box))
    _write(ax, y + GAP / 2, lines)
    if j:
        ax.text(0.008, y + (GAP + LINE) / 2, str(j), va="center_baseline", fontsize=6.3)
    middle, (left, wide) = y + height / 2, BAR
    ax.add_patch(Rectangle((left, middle - 0.035), wide, 0.07, color="#e4e4e4", **box))
    ax.add_patch(Rectangle((left, middle - 0.035), wide * view.J[j], 0.07, color="#333333"))
    ax.text(0.915, middle, f"{view.J[j]:.2f}", ha="right", va="center_baseline", fontsize=6.5)
    if j:
        ax.text(0.995, middle, signed(view.progress[j - 1]), ha="right", va="center_baseline",
                fontsize=6.5)  # fmt: skip
    return y + height


def _stop(ax: Axes, y: float) -> float:
    """Mark the place where the trace could have stopped; return where the mark ends."""
    ax.plot((0, 1), (y + 0.07, y + 0.07), color=STOP, linestyle="--", linewidth=0.8)
    ax.text(0.5 * WORDS, y + 0.07, " could have stopped here ", ha="center",
            va="center_baseline", fontsize=6.5, color=STOP,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    return y + 0.14


def _curve(ax: Axes, view: TraceView) -> None:
    """Draw J(t), a step at each boundary, over the tints of the episodes."""
    ends = [*view.tokens, max(view.tokens[-1], 1)]
    for j in range(1, len(view.J)):
        ax.axvspan(ends[j - 1], ends[j], color=_tint(j), linewidth=0, zorder=0)
    ax.step(ends, [*view.J, view.J[-1]], where="post", color="#333333")
    ax.plot(view.tokens, view.J, "o", color="#333333", clip_on=False, zorder=3)
    ax.axvline(view.tokens[view.stop_at], color=STOP, linestyle="--", linewidth=0.8)
    ax.set(xlim=(0, ends[-1]), ylim=(0, 1), xlabel="thinking tokens", ylabel="$J$")
    few_ticks(ax)
    ax.set_yticks((0, 0.5, 1))


def trace_html(view: TraceView) -> str:
    """Return the trace as HTML: episodes coloured, J and progress beside them, J(t) under them.

    Everything that a model or a data set wrote is escaped.
    """
    rows = [_html_row("", "(no thinking)", "#ffffff", view.J[0], "")]
    for j, words in enumerate(view.episodes, 1):
        tint, gained = TINTS[(j - 1) % len(TINTS)], signed(view.progress[j - 1])
        if view.stop_at == j - 1:
            rows.append('<tr style="background:#fff">'
                        f'<td colspan="4" style="color:{STOP};text-align:center;'
                        f'border-top:2px dashed {STOP}">could have stopped here</td></tr>')
        rows.append(_html_row(str(j), escape(words.strip()), tint, view.J[j], gained))
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
        f'</th><th style="width:11%">progress</th></tr>{"".join(rows)}</table>{_svg(view)}</div>'
    )  # fmt: skip


def _html_row(number: str, words: str, tint: str, J: float, gained: str) -> str:
    """Return a table row; `words` are escaped already."""
    bar = f"linear-gradient(90deg,#bbb {100 * J:.0f}%,#eee {100 * J:.0f}%)"
    return (
        f'<tr style="background:#fff"><td style="text-align:right;padding:2px 6px">{number}</td>'
        f'<td style="background:{tint};padding:3px 8px;white-space:pre-wrap;text-align:left;'
        f'font-family:monospace">{words}</td>'
        f'<td style="background:{bar};min-width:60px;text-align:center">{J:.2f}</td>'
        f'<td style="text-align:right;padding:2px 6px">{gained}</td></tr>'
    )


def _svg(view: TraceView) -> str:
    """Return J(t) as an inline SVG: a step at each boundary over the tints of the episodes."""
    wide, high, last = 900, 110, max(view.tokens[-1], 1)
    x = [30 + (wide - 40) * t / last for t in view.tokens]
    y = [5 + high * (1 - J) for J in view.J]
    spans = "".join(
        f'<rect x="{x[j]:.1f}" y="5" width="{x[j + 1] - x[j]:.1f}" height="{high}" '
        f'fill="{TINTS[j % len(TINTS)]}"/>'
        for j in range(len(view.episodes))
    )
    steps = "".join(f"H{a:.1f}V{b:.1f}" for a, b in zip(x[1:], y[1:], strict=True))
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
                   for a, b in zip(x, y, strict=True))  # fmt: skip
    stop, base = x[view.stop_at], high + 5
    return (
        f'<svg viewBox="0 0 {wide} {high + 25}" style="width:100%;margin-top:8px" '
        'font-size="11" font-family="sans-serif" role="img"><title>J after each episode</title>'
        f'{spans}<path d="M{x[0]:.1f} {y[0]:.1f}{steps}" fill="none" stroke="#333" '
        f'stroke-width="2"/>{dots}<line x1="{stop:.1f}" x2="{stop:.1f}" y1="5" y2="{base}" '
        f'stroke="{STOP}" stroke-dasharray="4 3"/><text x="4" y="14">J=1</text>'
        f'<text x="4" y="{base}">0</text><text x="{wide - 10}" y="{base + 16}" '
        f'text-anchor="end">{view.tokens[-1]} thinking tokens</text></svg>'
    )
