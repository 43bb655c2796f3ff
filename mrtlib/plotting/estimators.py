"""Is J measured right, at what cost, what does it teach, and do the intervals cover?"""

from collections.abc import Sequence
from math import comb

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.markers import CARETLEFT
from matplotlib.ticker import LogLocator, NullLocator

from mrtlib.evaluation.tables import need
from mrtlib.plotting.style import (
    FAINT,
    SHADE,
    curve,
    few_ticks,
    name_curves,
    panels,
    paper,
    series_look,
)

LEAST = 0.7  # coverage at the left edge of the figure
WAYS = {"bootstrap": ("#D55E00", "s", False), "closed form": ("#0072B2", "o", True)}
LEARNED = {"reward": "mean reward", "regret": "normalised regret"}


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
    low, high = binomial_band(p, k)
    ax.fill_between(p, low, high, color=SHADE, linewidth=0, label=f"95% of samples, $K$ = {k}")
    ax.plot((0, 1), (0, 1), color=FAINT, linewidth=0.7)
    ax.plot(table["exact"], table["sampled"], "o", color="#0072B2", alpha=0.35, markersize=2.4,
            markeredgewidth=0, clip_on=False)  # fmt: skip
    r = table["exact"].corr(table["sampled"])
    note = f"n = {len(table)}" + ("" if pd.isna(r) else f", r = {r:.3f}")
    ax.text(0.02, 0.99, note, transform=ax.transAxes, va="top", fontsize=6.5)
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
def cost_by_boundaries(
    table: pd.DataFrame, axes: Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw what measuring J costs by the number of boundaries, in tokens and in seconds.

    Args:
        table: way, boundaries, tokens, seconds, low, high (of the seconds).
    """
    need(table, "way boundaries tokens seconds low high", "cost_by_boundaries")
    axes = panels(axes, 2)
    for i, way in enumerate(table["way"].unique()):
        rows, look = table[table["way"] == way], series_look(str(way), i)
        exact = rows.assign(low=rows["tokens"], high=rows["tokens"])
        curve(axes[0], exact, "boundaries", look, y="tokens")
        curve(axes[1], rows, "boundaries", look, y="seconds")
    for ax, name in zip(axes, ("tokens through the model", "seconds"), strict=True):
        ax.set_yscale("log")
        few_ticks(ax)
        ax.set(xlabel="boundaries of a trace", ylabel=name)
    name_curves(axes)
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
    (ax,) = panels(ax, height=2.2)
    sampled, exact = (table[table["answers"] > 0].sort_values("answers"),
                      table[table["answers"] == 0])  # fmt: skip
    floor = float(table["floor"].max())
    ax.axhline(floor, color=FAINT, linewidth=0.7)
    ax.text(1, floor, "noise of the gold standard ", color=FAINT, fontsize=6.5, va="bottom",
            ha="right", transform=ax.get_yaxis_transform())  # fmt: skip
    looks = series_look("sampled", 0), series_look("exact", 1)
    for rows, look in zip((sampled, exact), looks, strict=True):
        ax.vlines(rows["tokens"], rows["low"], rows["high"], color=look.colour, linewidth=0.8)
        ax.plot(rows["tokens"], rows["error"], color=look.colour, linestyle="",
                marker=look.marker, label=look.label)  # fmt: skip
    ax.plot(sampled["tokens"], sampled["predicted"], color=looks[0].colour, linewidth=0.6)
    for row in sampled.itertuples():
        ax.annotate(f"$K$ = {row.answers}", (row.tokens, row.error), (4, 3), fontsize=6.5,
                    textcoords="offset points", color=looks[0].colour)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="tokens through the model, a trace",
           ylabel="error of a progress")  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.set_minor_locator(NullLocator())
    ax.legend(loc="best")
    return ax


@paper
def estimator_curves(table: pd.DataFrame, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Draw learning by tokens through the model, a curve an estimator of the reward.

    Args:
        table: estimator, total, quantity ("reward" or "regret"), estimate, low, high.
    """
    need(table, "estimator total quantity estimate low high", "estimator_curves")
    axes = panels(axes, 2)
    for ax, (quantity, name) in zip(axes, LEARNED.items(), strict=True):
        for i, way in enumerate(table["estimator"].unique()):
            rows = table[(table["estimator"] == way) & (table["quantity"] == quantity)]
            rows = rows.assign(total=rows["total"] / 1e6)
            curve(ax, rows, "total", series_look(str(way), i))
        ax.set(xlabel="tokens through the model (millions)", ylabel=name)
    name_curves(axes)
    return axes


@paper
def coverage(
    table: pd.DataFrame, ax: Axes | None = None, band: tuple[float, float] = (0.93, 0.97)
) -> Axes:
    """Draw how often intervals held the truth: a row a kind, in it a point a number of problems.

    The points of a row are in ascending numbers of problems from above. Left of LEAST a point is
    drawn as an arrow at the edge.

    Args:
        table: kind, way (of WAYS), problems, coverage, low, high (of the simulation).
        band: shaded; where the coverage should lie.
    """
    need(table, "kind way problems coverage low high", "coverage")
    kinds, sizes = list(table["kind"].unique()), sorted(table["problems"].unique())
    (ax,) = panels(ax, height=0.26 * len(kinds) + 0.65)
    ax.axvspan(*band, color=SHADE, linewidth=0)
    shift = {n: 0.27 * (i - (len(sizes) - 1) / 2) for i, n in enumerate(sizes)}
    for way, (colour, marker, fill) in WAYS.items():
        rows = table[table["way"] == way]
        y = rows["kind"].map(kinds.index) + rows["problems"].map(shift)
        out = (rows["coverage"] < LEAST).to_numpy()
        ax.hlines(y, rows["low"].clip(LEAST), rows["high"].clip(LEAST), color=colour,
                  linewidth=0.7)  # fmt: skip
        ax.plot(rows["coverage"][~out], y[~out], linestyle="", marker=marker, color=colour,
                markerfacecolor=colour if fill else "white", label=way)  # fmt: skip
        ax.plot(np.full(out.sum(), LEAST), y[out], linestyle="", marker=CARETLEFT, color=colour,
                clip_on=False)  # fmt: skip
    for edge in np.arange(1, len(kinds)) - 0.5:
        ax.axhline(edge, color=SHADE, linewidth=0.5, zorder=0)
    ax.set(xlim=(LEAST, 1), ylim=(len(kinds) - 0.5, -0.5), xticks=(0.7, 0.8, 0.9, 1))
    ax.set_xlabel("share of intervals that hold the truth\n(from above: "
                  f"{', '.join(map(str, sizes))} problems)", loc="right")  # fmt: skip
    ax.set_yticks(range(len(kinds)), kinds)
    ax.tick_params(axis="y", length=0)
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=2,
                     handlelength=1)  # fmt: skip
    return ax
