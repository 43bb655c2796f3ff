"""Learning curves: reward, regret and trace length over steps, or over the tokens spent."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from mrtlib.evaluation.tables import need
from mrtlib.plotting.style import Given, curves, looks_of, paper

QUANTITIES = {
    "reward": "mean reward", "regret": "normalised regret", "length": "trace length (tokens)",
}  # fmt: skip


@paper
def learning_curves(
    steps_table: pd.DataFrame, axes: Given = None, seeds: pd.DataFrame | None = None
) -> list[Axes]:
    """Draw reward, regret and trace length over training steps, a panel each.

    Args:
        steps_table: method, step, quantity (of QUANTITIES), estimate, low, high.
        seeds: method, seed, step, quantity, estimate; drawn as thin lines where they can be told
            apart, which is for one or two methods and at most five seeds.
    """
    need(steps_table, "method step quantity estimate low high", "learning_curves")
    axes = curves(_named(steps_table), "quantity", "method", "step", "step", axes=axes)
    looks = looks_of(steps_table["method"])
    if seeds is not None and len(looks) <= 2 and seeds["seed"].nunique() <= 5:
        colours = {name: look.colour for name, look in looks.items()}
        for ax, (_, rows) in zip(axes, _named(seeds).groupby("quantity", sort=False), strict=True):
            sns.lineplot(rows, x="step", y="estimate", hue="method", palette=colours, units="seed",
                         estimator=None, alpha=0.4, linewidth=0.5, legend=False, ax=ax)
    return axes


@paper
def estimator_curves(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw learning by tokens through the model, a curve an estimator of the reward.

    Args:
        table: estimator, total, quantity (of QUANTITIES), estimate, low, high.
    """
    need(table, "estimator total quantity estimate low high", "estimator_curves")
    table = _named(table.assign(total=table["total"] / 1e6))
    spent = "tokens through the model (millions)"
    return curves(table, "quantity", "estimator", "total", spent, axes=axes)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of QUANTITIES, in that order and by the names that stand on the axes."""
    rows = table[table["quantity"].isin(QUANTITIES)]
    if rows.empty:
        raise ValueError(f"learning curves: quantity must be one of {', '.join(QUANTITIES)}")
    rows = rows.sort_values("quantity", key=lambda q: q.map(list(QUANTITIES).index), kind="stable")
    return rows.assign(quantity=rows["quantity"].map(QUANTITIES))
