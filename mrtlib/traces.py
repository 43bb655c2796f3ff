"""One trace to look at: its episodes in words, what each was worth, and where it could stop."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mrtlib.drawing import METHODS, WIDE, few_ticks, panels, paper

# Tints that black text is readable on; neighbours differ in lightness as well as in hue.
TINTS = ("#cfe3f1", "#fbe6c2", "#c6e8dc", "#f3d9e7", "#e4e4e4", "#fbd9c4")
MONO, MONO_SIZE = "DejaVu Sans Mono", 6.3
LINE, GAP = 0.115, 0.09  # inches of one line of words, and around a block of them
LEFT, WORDS = 0.034, 0.79  # where words begin and end, as shares of the width
COLUMNS = int((WORDS - LEFT) * (WIDE - 0.1) * 72 / (MONO_SIZE * 0.602)) - 1  # characters
BAR = (0.805, 0.07)  # left end and length of the bar for J = 1, as shares of the width
STOP = "#D55E00"
MAX_BLOCKS, MAX_LINES = 10, 4  # of words; a longer trace is abridged, its curve never


@dataclass(frozen=True)
class TraceView:
    """A trace with k episodes. J_0 is the worth of answering without any thinking."""

    question: str
    method: str
    problem: str
    sample: int
    episodes: list[str]  # (k,) joined they are the trace
    tokens: list[int]  # (k + 1,) boundaries t_0 = 0 .. t_k
    J: list[float]  # (k + 1,)
    progress: list[float]  # (k,)
    stop_at: int  # index of the boundary where it could have stopped
    correct: bool

    def __post_init__(self) -> None:
        k = len(self.episodes)
        if not k or (len(self.tokens), len(self.J), len(self.progress)) != (k + 1, k + 1, k):
            raise ValueError(
                f"a trace of {k} episodes needs k >= 1, k + 1 tokens and J, and k progress; got "
                f"{len(self.tokens)}, {len(self.J)} and {len(self.progress)}"
            )
        if not 0 <= self.stop_at <= k:
            raise ValueError(f"stop_at must be a boundary from 0 to {k}, not {self.stop_at}")


def stop_point(J: Sequence[float], rise: float = 0.05) -> int:
    """Return the first boundary from which J never rises by more than `rise`.

    min{j : max_{i >= j} J_i - J_j <= rise}. Always defined, since k itself qualifies.
    """
    later = np.maximum.accumulate(np.asarray(J, dtype=float)[::-1])[::-1]
    return int(np.argmax(later - np.asarray(J, dtype=float) <= rise))


def trace_rows(view: TraceView) -> pd.DataFrame:
    """Return what `annotated_trace` draws: j, tokens, J, progress, text, could_stop."""
    return pd.DataFrame({
        "j": range(len(view.J)), "tokens": view.tokens, "J": view.J,
        "progress": [np.nan, *view.progress], "text": ["", *view.episodes],
        "could_stop": [j == view.stop_at for j in range(len(view.J))],
    })  # fmt: skip


def signed(value: float) -> str:
    """Format progress: a sign, two digits, a true minus and no minus before 0.00."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "\u2212")


def verdict(view: TraceView) -> str:
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
    titles = textwrap.wrap(_drawable(verdict(view)), 104)
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
