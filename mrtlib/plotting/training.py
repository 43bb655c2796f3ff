"""Learning curves: reward, regret and trace length over steps, or over the tokens spent."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from mrtlib.evaluation.tables import need
from mrtlib.plotting.style import Given, around, curves, few_ticks, looks_of, panels, paper

QUANTITIES = {
    "reward": "mean reward", "regret": "normalised regret", "length": "trace length (tokens)",
}  # fmt: skip


@paper
def learning_curves(steps_table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw reward, regret and trace length over training steps, a panel each.

    Args:
        steps_table: method, step, quantity (of QUANTITIES), estimate, low, high.
    """
    need(steps_table, "method step quantity estimate low high", "learning_curves")
    return curves(_named(steps_table), "quantity", "method", "step", "step", axes=axes)


@paper
def seed_curves(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw the seeds that `learning_curves` are means of: a row a quantity, a column a method.

    Args:
        table: method, seed, step, quantity (of QUANTITIES), estimate.
    """
    need(table, "method seed step quantity estimate", "seed_curves")
    rows, looks = _named(table), looks_of(table["method"])
    quantities = list(rows["quantity"].unique())
    axes = panels(axes, len(looks) * len(quantities), height=1.35, columns=len(looks))
    for i, ax in enumerate(axes):
        quantity, method = quantities[i // len(looks)], list(looks)[i % len(looks)]
        own = rows[(rows["quantity"] == quantity) & (rows["method"] == method)]
        sns.lineplot(own, x="step", y="estimate", units="seed", estimator=None, linewidth=0.6,
                     color=looks[method].colour, ax=ax)  # fmt: skip
        of_row = rows.loc[rows["quantity"] == quantity, "estimate"]
        ax.set(ylim=around(of_row), xlim=(1, rows["step"].max()))
        few_ticks(ax)
        ax.set(title=looks[method].label if i < len(looks) else "",
               ylabel=quantity if i % len(looks) == 0 else "",
               xlabel="step" if i >= len(axes) - len(looks) else "")  # fmt: skip
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


@paper
def forms_curves(table: pd.DataFrame, axes: Given = None) -> list[Axes]:
    """Draw validation while each form trains: a column a family, accuracy above and regret below.

    Args:
        table: family, method, tokens (generated, in thousands), quantity, estimate, low, high
            (shaded for outcome RL alone, where they are known).
    """
    need(table, "family method tokens quantity estimate low high", "forms_curves")
    families, quantities = table["family"].unique(), table["quantity"].unique()
    axes = panels(axes, len(families) * len(quantities), height=1.8)
    looks = looks_of(table["method"])
    for i, ax in enumerate(axes):
        family, quantity = families[i % len(families)], quantities[i // len(families)]
        rows = table[(table["family"] == family) & (table["quantity"] == quantity)]
        for method, run in rows.groupby("method", sort=False):
            look = looks[method]
            ax.plot(run["tokens"], run["estimate"], color=look.colour, marker=look.marker,
                    linestyle=(0, look.dashes) if look.dashes else "-", mew=0.4,
                    label=look.label)  # fmt: skip
            if method == "outcome":
                ax.fill_between(run["tokens"], run["low"], run["high"], linewidth=0,
                                facecolor=(look.colour, 0.12))  # fmt: skip
        ends = table.loc[table["quantity"] == quantity, ["estimate", "low", "high"]]
        ax.set(ylim=around(ends), xlim=(0, None))
        few_ticks(ax)
        if i < len(families):
            ax.set(title=family)
        if i % len(families) == 0:
            ax.set(ylabel=quantity)
        if i >= len(axes) - len(families):
            ax.set(xlabel="generated tokens (thousands)")
    _legends_below(axes[-len(families) :])
    return axes


def _legends_below(axes: list[Axes]) -> None:
    """Put a legend of its own below each panel, for panels that hold different curves."""
    for ax in axes:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.42), frameon=False, ncols=1)
