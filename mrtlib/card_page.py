"""The reasoner on one page: its measured shares, how its training went, and traces in words."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mrtlib.drawing import FAINT, WIDE, few_ticks, need, paper
from mrtlib.instruments import reasoner_card

LINE, SIZE = 0.105, 5.6  # inches of a line of words, and its font size


@dataclass(frozen=True)
class Example:
    """One rollout in words."""

    title: str
    episodes: list[str]
    wasted: list[bool]  # (k,) drawn faintly
    ending: str


@paper
def reasoner_page(
    table: pd.DataFrame, losses: pd.DataFrame, examples: Sequence[Example]
) -> Figure:
    """Draw the card's bars, the training loss over tokens, and example traces under them.

    Args:
        table: as `reasoner_card` takes it; rows that are no share are left out.
        losses: tokens, loss.
        examples: up to three; their wasted episodes are grey.
    """
    need(losses, "tokens loss", "reasoner_page")
    shares = table[table["name"] != "episodes"]
    columns = max(1, len(examples))
    width = int(WIDE / columns * 72 / (SIZE * 0.602)) - 3
    blocks = [_lines(example, width) for example in examples]
    top, bottom = 0.19 * len(shares) + 0.6, LINE * (max(map(len, blocks), default=0) + 1)
    fig = plt.figure(figsize=(WIDE, top + bottom))
    upper, lower = fig.subfigures(2, 1, height_ratios=(top, bottom))
    left, right = upper.subplots(1, 2, width_ratios=(1.4, 1))
    reasoner_card(shares, left)
    _loss(right, losses)
    for i, lines in enumerate(blocks):
        for at, (words, colour, weight) in enumerate(lines):
            lower.text((i + 0.02) / columns, 1 - LINE * (at + 0.8) / bottom, words, fontsize=SIZE,
                       family="DejaVu Sans Mono", color=colour, weight=weight,
                       parse_math=False)  # fmt: skip
    return fig


def _loss(ax: Axes, losses: pd.DataFrame) -> None:
    ax.plot(losses["tokens"] / 1e6, losses["loss"], color="#0072B2")
    ax.set(xlabel="training tokens (millions)", ylabel="training loss (nats)", ylim=(0, None))
    few_ticks(ax)


def _lines(example: Example, width: int) -> list[tuple[str, str, str]]:
    """Return the lines of a rollout as (words, colour, weight), an episode to a paragraph."""
    lines = [(words, "#111111", "bold") for words in textwrap.wrap(example.title, width)]
    for words, wasted in zip(example.episodes, example.wasted, strict=True):
        wrapped = textwrap.wrap(" ".join(words.split()), width, subsequent_indent="  ")
        lines += [(line, FAINT if wasted else "#111111", "normal") for line in wrapped]
    return [*lines, (textwrap.shorten(example.ending, width), "#111111", "bold")]
