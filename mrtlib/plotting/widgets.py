"""Views to explore with: the methods at a budget, and any function of a few choices.

Each view is a pure function first that a notebook can call once without widgets; the widgets only
pass the choices on. They show their result in an HTML or Image widget and not in an Output widget:
the picture is then part of the widget's state, so it is there in a saved notebook and under
papermill, and no callback prints into a wrong cell.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mrtlib.config import LABELS
from mrtlib.evaluation import tables
from mrtlib.plotting import style
from mrtlib.plotting.budget import headline


def budgets_of(results: pd.DataFrame) -> list[int]:
    """Return the budgets at which both accuracy and regret are known, ascending."""
    rows = tables.budget_rows(results)
    known = rows.groupby("metric")["budget"].agg(set)
    return sorted(int(b) for b in set.intersection(*known))


@style.paper
def budget_view(
    results: pd.DataFrame, methods: Sequence[str], budget: int, c0: int | None = None
) -> Figure:
    """Draw accuracy and regret of the methods over the budget, and their values at one budget.

    Args:
        budget: one of `budgets_of(results)`, in tokens.
        c0: if given, what lies beyond it is shaded as extrapolated.

    Raises:
        ValueError: no method chosen, none of them in the results, or a budget not evaluated.
    """
    if budget not in (known := budgets_of(results)):
        raise ValueError(f"budget {budget} was not evaluated; choose one of {known}")
    chosen = tables.need(results[results["method"].isin(methods)], "", "the chosen methods")
    rows = tables.budget_rows(chosen)
    axes = headline(chosen, c0)
    fig = axes[0].figure
    fig.set_figheight(2.2 + 0.13 * len(methods))
    for legend in fig.legends:
        legend.remove()
    for ax, metric in zip(axes, tables.AXIS, strict=True):
        ax.axvline(budget, color="#333333", linewidth=0.8)
        here = rows[(rows["metric"] == metric) & (rows["budget"] == budget)]
        values = {LABELS[row.method]: f" {row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]"
                  for row in here.itertuples()}  # fmt: skip
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles, [label + values.get(label, "") for label in labels],
                  loc="lower left", bbox_to_anchor=(0, 1.07), alignment="left",
                  title=f"at {budget} tokens")  # fmt: skip
    return fig


def choose(show: Callable[..., object], **choices: Sequence | tuple[int, int]) -> widgets.VBox:
    """Return controls for the arguments of a function, and below them what it returns.

    Args:
        show: returns a Figure, a table, or a text, which is shown as it is.
        choices: of each argument: a list of values, or the least and the largest whole number.
    """
    controls = {
        name: widgets.IntSlider(known[0], *known, description=name, continuous_update=False)
        if isinstance(known, tuple) else widgets.Dropdown(options=known, description=name)
        for name, known in choices.items()
    }  # fmt: skip
    page = widgets.HTML()

    def redraw(_: object = None) -> None:
        page.value = as_html(show(**{name: c.value for name, c in controls.items()}))

    redraw()
    for control in controls.values():
        control.observe(redraw, "value")
    return widgets.VBox([*controls.values(), page])


def as_html(shown: object) -> str:
    """Return a Figure, a table or a text as HTML; texts and cells are escaped."""
    if isinstance(shown, Figure):
        picture = b64encode(style.render(shown, "png", dpi=150)).decode()
        plt.close(shown)  # or the notebook would show it a second time
        return f'<img alt="figure" style="max-width:960px" src="data:image/png;base64,{picture}">'
    if isinstance(shown, pd.DataFrame):
        return shown.to_html(escape=True)
    return f'<pre style="white-space:pre-wrap">{escape(str(shown))}</pre>'


def explore_budgets(results: pd.DataFrame, c0: int) -> widgets.VBox:
    """Return a browser of budgets: choose the methods, slide the budget, see `budget_view`.

    Raises:
        ValueError: results lack accuracy or regret over the budget.
    """
    names = tables.in_order(tables.budget_rows(results)["method"])
    known = budgets_of(results)
    budget = widgets.SelectionSlider(
        options=known, value=min(known, key=lambda b: abs(b - c0)), description="budget",
        continuous_update=False,
    )  # fmt: skip
    labels = [(LABELS[name], name) for name in names]
    methods = widgets.SelectMultiple(options=labels, value=names, description="methods")
    note = widgets.HTML()
    image = widgets.Image(format="png", layout=widgets.Layout(max_width="960px"))

    def show(_: object = None) -> None:
        note.value = "" if methods.value else "Choose one method or more."
        if methods.value:
            fig = budget_view(results, methods.value, budget.value, c0)
            image.value = style.render(fig, "png", dpi=150)
            plt.close(fig)  # or the notebook would show it a second time

    show()
    budget.observe(show, "value")
    methods.observe(show, "value")
    return widgets.VBox([budget, methods, note, image])
