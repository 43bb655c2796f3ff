"""Is J measured right, at what cost, and do the intervals cover?"""

from math import comb

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.markers import CARETLEFT
from matplotlib.ticker import NullLocator

from mrtlib.evaluation.tables import need
from mrtlib.plotting import style
from mrtlib.plotting.style import BLUE, FAINT, ORANGE, SHADE, SMALL, Given, curves, panels, paper

LEAST = 0.7  # coverage at the left edge of the figure
COLOURS = {"exact": BLUE, "sampled": ORANGE, "closed form": BLUE, "bootstrap": ORANGE}
MARKERS = {"exact": "o", "sampled": "s", "closed form": "o", "bootstrap": "s"}


@paper
def exact_against_sampled(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw sampled J over exact J; shaded is where 95% of honest samples of K answers fall.

    Args:
        table: exact, sampled, answers (K, the same in every row).

    Raises:
        ValueError: several K; their bands differ, so each needs its own figure.
    """
    need(table, "exact sampled answers", "exact_against_sampled")
    if table["answers"].nunique() > 1:
        raise ValueError("exact_against_sampled: rows of several K; give those of one")
    k = int(table["answers"].iloc[0])
    (ax,) = panels(ax, height=2.6)
    p = np.linspace(0, 1, 501)
    ax.fill_between(p, *binomial_band(p, k), color=SHADE, linewidth=0,
                    label=f"95% of samples, $K$ = {k}")  # fmt: skip
    ax.plot((0, 1), (0, 1), color=FAINT, linewidth=0.7)
    sns.scatterplot(table, x="exact", y="sampled", color=BLUE, alpha=0.35, s=8, linewidth=0,
                    clip_on=False, ax=ax)  # fmt: skip
    r = table["exact"].corr(table["sampled"])
    note = f"n = {len(table)}" + ("" if pd.isna(r) else f", r = {r:.3f}")
    ax.text(0.02, 0.99, note, transform=ax.transAxes, va="top", fontsize=SMALL)
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1),
           xlabel="exact $J$", ylabel="sampled $J$")  # fmt: skip
    ax.legend(loc="lower right")
    return ax


def binomial_band(p: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5% and 97.5% quantiles of Binomial(K, p) / K, each with the shape of p."""
    p = np.asarray(p, dtype=float)[:, None]
    n = np.arange(k + 1)
    ways = np.array([comb(k, int(i)) for i in n], dtype=float)
    reached = np.cumsum(ways * p**n * (1 - p) ** (k - n), axis=1)  # P(X <= n)
    # Rounding must not push a certain outcome (p = 0 or 1) past the last column.
    low, high = (np.argmax(reached >= q - 1e-12, axis=1) / k for q in (0.025, 0.975))
    return low, high


@paper
def cost_by_boundaries(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw what measuring J costs by the number of boundaries, in tokens and in seconds.

    Args:
        table: way, boundaries, tokens, seconds, low, high (of the seconds).
    """
    need(table, "way boundaries tokens seconds low high", "cost_by_boundaries")
    tokens = table["tokens"]
    costs = [
        table.assign(cost="tokens through the model", estimate=tokens, low=tokens, high=tokens),
        table.assign(cost="seconds", estimate=table["seconds"]),
    ]
    axes = curves(pd.concat(costs), "cost", "way", "boundaries", "boundaries of a trace", axes=axes)
    for ax in axes:
        ax.set(xscale="log", yscale="log")
        ax.set_xticks(table["boundaries"].unique(), table["boundaries"].unique())
        ax.xaxis.set_minor_locator(NullLocator())  # each number of boundaries has its label
        style.log_ticks(ax.yaxis)
    return axes


@paper
def error_by_tokens(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the error of a progress over what measuring it costs, each estimator a point.

    Args:
        table: way, answers (K, 0 for exact), tokens (of a trace), error, low, high, floor (the
            error that the gold standard's own noise makes), predicted (the error that K draws
            make by the exact J; the thin line).
    """
    need(table, "way answers tokens error low high floor predicted", "error_by_tokens")
    (ax,) = panels(ax)
    kind = np.where(table["answers"] > 0, "sampled", "exact")
    sampled, floor = table[table["answers"] > 0], float(table["floor"].max())
    ax.axhline(floor, color=FAINT, linewidth=0.7)
    ax.text(1, floor, "noise of the gold standard", color=FAINT, fontsize=SMALL, va="bottom",
            ha="right", transform=ax.get_yaxis_transform())  # fmt: skip
    sns.lineplot(sampled, x="tokens", y="predicted", color=ORANGE, linewidth=0.6, estimator=None,
                 label="sampled, predicted", ax=ax)  # fmt: skip
    ax.vlines(table["tokens"], table["low"], table["high"], linewidth=0.8,
              colors=[COLOURS[name] for name in kind])  # fmt: skip
    sns.scatterplot(table, x="tokens", y="error", hue=kind, style=kind, palette=COLOURS,
                    markers=MARKERS, s=16, ax=ax)  # fmt: skip
    for row in sampled.itertuples():
        ax.annotate(f"$K$ = {row.answers}", (row.tokens, row.error), (4, 2), fontsize=SMALL,
                    textcoords="offset points", color=ORANGE)
    ax.margins(x=0.12)  # for the words of the last one
    style.few_ticks(ax)
    ax.set(yscale="log", xlabel="tokens through the model per trace",
           ylabel="root mean square error of progress")  # fmt: skip
    style.log_ticks(ax.yaxis)
    ax.legend()
    return ax


@paper
def coverage(
    table: pd.DataFrame, ax: Axes | None = None, band: tuple[float, float] = (0.93, 0.97)
) -> Axes:
    """Draw how often intervals held the truth: a row a kind, in it a point a number of problems.

    The points of a row are in ascending numbers of problems from above. Left of LEAST a point is
    drawn as an arrow at the edge.

    Args:
        table: kind, way ("closed form", "bootstrap"), problems, coverage, low, high (of the
            simulation).
        band: shaded; where the coverage should lie.
    """
    need(table, "kind way problems coverage low high", "coverage")
    kinds, sizes = list(table["kind"].unique()), sorted(table["problems"].unique())
    table = table.sort_values("way", kind="stable")  # the bootstrap's lie behind
    (ax,) = panels(ax, height=0.26 * len(kinds) + 0.65)
    ax.axvspan(*band, color=SHADE, linewidth=0)
    shift = {n: 0.27 * (i - (len(sizes) - 1) / 2) for i, n in enumerate(sizes)}
    y = table["kind"].map(kinds.index) + table["problems"].map(shift)
    colours, out = table["way"].map(COLOURS), table["coverage"] < LEAST
    ax.hlines(y, table["low"].clip(LEAST), table["high"].clip(LEAST), colours, linewidth=0.7)
    sns.scatterplot(table[~out], x="coverage", y=y[~out], hue="way", style="way", palette=COLOURS,
                    markers=MARKERS, s=16, clip_on=False, ax=ax)  # fmt: skip
    ax.scatter([LEAST] * out.sum(), y[out], 16, colours[out], marker=CARETLEFT, clip_on=False)
    ax.hlines(np.arange(1, len(kinds)) - 0.5, LEAST, 1, SHADE, linewidth=0.5, zorder=0)
    ax.set(xlim=(LEAST, 1), ylim=(len(kinds) - 0.5, -0.5), xticks=(0.7, 0.8, 0.9, 1), ylabel="")
    ax.set_xlabel("share of intervals that hold the truth\n(from above: "
                  f"{', '.join(map(str, sizes))} problems)", loc="right")  # fmt: skip
    ax.set_yticks(range(len(kinds)), kinds)
    ax.tick_params(axis="y", length=0)
    style.legend_above([ax])
    return ax
