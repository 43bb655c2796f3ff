"""Learning curves: reward, regret and trace length over training steps."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from mrtlib.evaluation.tables import need
from mrtlib.plotting.episodes import _by_method
from mrtlib.plotting.style import curve, few_ticks, look_of, name_curves, panels, paper

QUANTITIES = {
    "reward": "mean reward", "regret": "normalised regret", "length": "trace length (tokens)",
}  # fmt: skip


@paper
def learning_curves(
    steps_table: pd.DataFrame,
    axes: Axes | Sequence[Axes] | None = None,
    seeds: pd.DataFrame | None = None,
) -> list[Axes]:
    """Draw reward, regret and trace length over training steps, a panel each.

    Args:
        steps_table: method, step, quantity (of QUANTITIES), estimate, low, high.
        seeds: method, seed, step, quantity, estimate; drawn as thin lines if there are at most
            five seeds, where the mean alone would hide how few they are.
    """
    need(steps_table, "method step quantity estimate low high", "learning_curves")
    shown = [name for name in QUANTITIES if (steps_table["quantity"] == name).any()]
    if not shown:
        raise ValueError(f"learning_curves: quantity must be one of {', '.join(QUANTITIES)}")
    axes = panels(axes, len(shown), height=2.1)
    for ax, name in zip(axes, shown, strict=True):
        for method, rows in _by_method(steps_table[steps_table["quantity"] == name]):
            curve(ax, rows, "step", look_of(method))
        if seeds is not None:
            _raw_lines(ax, need(seeds, "method seed step quantity estimate", "seeds"), name)
        few_ticks(ax)
        ax.set(xlabel="step", ylabel=QUANTITIES[name])
    name_curves(axes)
    return axes


def _raw_lines(ax: Axes, seeds: pd.DataFrame, quantity: str) -> None:
    """Draw one thin line a seed, if there are at most five."""
    seeds = seeds[seeds["quantity"] == quantity]
    if seeds["seed"].nunique() > 5:
        return
    for (method, _), rows in seeds.groupby(["method", "seed"]):
        rows = rows.sort_values("step")
        ax.plot(rows["step"], rows["estimate"], color=look_of(method).colour, alpha=0.4,
                linewidth=0.5, zorder=1.5)  # fmt: skip
