"""The reasoner on one page: its measured shares, how its training went, and traces in words."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFTBASE, CARETRIGHTBASE

from mrtlib.evaluation.tables import need
from mrtlib.experiments.episode_analysis import Example
from mrtlib.plotting.style import BLUE, FAINT, ORANGE, SMALL, WIDE, few_ticks, panels, paper

LINE, SIZE = 0.112, 6  # inches of a line of words, and its font size


@paper
def reasoner_page(
    table: pd.DataFrame, losses: pd.DataFrame, examples: Sequence[Example]
) -> Figure:
    """Draw the card's bars, the training loss over tokens, and example traces under them.

    Args:
        table: as `reasoner_card` takes it; rows that are no share are left out.
        losses: tokens, loss; without a row, the bars stand alone.
        examples: up to three; their wasted episodes are grey.
    """
    shares = need(table, "name", "reasoner_page").query("name != 'episodes'")
    columns = max(1, len(examples))
    # Letters are wider on a screen than in print: four of them are left between columns.
    width = int(WIDE / columns * 72 / (SIZE * 0.602)) - 4
    blocks = [_example_lines(example, width) for example in examples]
    top, bottom = 0.19 * len(shares) + 0.6, LINE * (max(map(len, blocks), default=0) + 1)
    fig = plt.figure(figsize=(WIDE, top + bottom))
    upper, lower = fig.subfigures(2, 1, height_ratios=(top, bottom))
    if losses.empty:
        reasoner_card(shares, upper.subplots())
    else:
        left, right = upper.subplots(1, 2, width_ratios=(1.4, 1))
        reasoner_card(shares, left)
        _loss(right, losses)
    for i, lines in enumerate(blocks):
        for at, (words, colour, weight) in enumerate(lines):
            lower.text((i + 0.02) / columns, 1 - LINE * (at + 0.8) / bottom, words, fontsize=SIZE,
                       family="DejaVu Sans Mono", color=colour, weight=weight,
                       parse_math=False)  # fmt: skip
    return fig


def page_rows(
    table: pd.DataFrame, losses: pd.DataFrame, examples: Sequence[Example]
) -> pd.DataFrame:
    """Return everything that `reasoner_page` draws: `part` says which of the three a row is of."""
    rows = [(example.title, words, waste) for example in examples
            for words, waste in zip([*example.episodes, example.ending], [*example.wasted, None],
                                    strict=True)]  # fmt: skip
    words = pd.DataFrame(rows, columns=["name", "text", "wasted"]).astype({"wasted": "boolean"})
    parts = {"measured": table, "loss": losses[["tokens", "loss"]], "rollout": words}
    return pd.concat([own.assign(part=part) for part, own in parts.items()], ignore_index=True)


def _loss(ax: Axes, losses: pd.DataFrame) -> None:
    sns.lineplot(losses, x=losses["tokens"] / 1e6, y="loss", color=BLUE, estimator=None, ax=ax)
    ax.set(xlabel="training tokens (millions)", ylabel="training loss (nats)", ylim=(0, None))
    few_ticks(ax)


def _example_lines(example: Example, width: int) -> list[tuple[str, str, str]]:
    """Return the lines of a rollout as (words, colour, weight), an episode to a paragraph."""
    lines = [(words, "#111111", "bold") for words in textwrap.wrap(example.title, width)]
    for words, wasted in zip(example.episodes, example.wasted, strict=True):
        wrapped = textwrap.wrap(" ".join(words.split()), width, subsequent_indent="  ")
        lines += [(line, FAINT if wasted else "#111111", "normal") for line in wrapped]
    return [*lines, (textwrap.shorten(example.ending, width), "#111111", "bold")]


@paper
def reasoner_card(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw measured shares as bars with their intervals, and the thresholds they had to meet.

    Args:
        table: name, estimate, low, high, at_least, at_most (NaN where there is no threshold).
    """
    need(table, "name estimate low high at_least at_most", "reasoner_card")
    (ax,) = panels(ax, height=0.17 * len(table) + 0.62)
    y = np.arange(len(table))
    named = table.assign(name=table["name"].str.replace("C0, ", "C0, level "))
    sns.barplot(named, x="estimate", y="name", color="#9ecae1", saturation=1, width=0.62, ax=ax)
    ax.hlines(y, table["low"], table["high"], color="#333333", linewidth=0.8)
    marks = (("at_least", CARETRIGHTBASE, "at least"), ("at_most", CARETLEFTBASE, "at most"))
    for column, marker, words in marks:
        at = table[column]
        if at.notna().any():
            ax.vlines(at, y - 0.36, y + 0.36, color=ORANGE, linewidth=1.0)
            ax.plot(at, y, linestyle="", marker=marker, color=ORANGE, markersize=4.5,
                    label=words, clip_on=False)  # fmt: skip
    for i, value in enumerate(table["estimate"]):
        ax.text(1.03, i, f"{value:.3f}", va="center_baseline", fontsize=SMALL)
    ax.set(xlim=(0, 1), ylim=(y[-1] + 0.5, -0.5), xticks=(0, 0.5, 1), xlabel="share", ylabel="")
    ax.tick_params(axis="y", length=0)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, handlelength=1)
    return ax
