"""Views to explore with: a trace in words, and the methods at a budget.

Each view is a pure function first (`trace_view`, `trace_html`, `budget_view`) that a notebook
can call once without widgets; the widgets only pass the choices on. They show their result in an
HTML or Image widget and not in an Output widget: the picture is then part of the widget's state,
so it is there in a saved notebook and under papermill, and no callback prints into a wrong cell.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mrtlib import drawing, scaling
from mrtlib.problems import Problem
from mrtlib.trace_page import trace_html as trace_html
from mrtlib.traces import TraceView, stop_point

Decode = Callable[[list[int]], str]


def trace_view(
    rollouts: pd.DataFrame,
    progress: pd.DataFrame,
    problems: Sequence[Problem],
    method: str,
    problem: str,
    sample: int,
    decode: Decode,
    seed: int | None = None,
) -> TraceView:
    """Gather one trace: its episodes in words, J at every boundary, and where it could stop.

    Args:
        rollouts, progress: records of those schemas; exact J is taken where both kinds are there.
        problem: its id.
        decode: ids to text, special tokens kept.
        seed: training seed; the lowest recorded if not given.

    Raises:
        ValueError: no such problem or rollout, or J is not recorded at each of its boundaries.
    """
    questions = {p.id: p.question for p in problems}
    if problem not in questions:
        raise ValueError(f"problem {problem!r} is not among the {len(questions)} problems given")
    rollout = _find(rollouts, method, problem, sample, seed).sort_values("seed").iloc[0]
    measured = _find(progress, method, problem, sample, int(rollout["seed"]))
    tokens = [0, *(int(t) for t in rollout["boundaries"])]
    J = _worth(measured, tokens)
    ids = [int(i) for i in rollout["token_ids"]]
    prefixes = [decode(ids[:t]) if t else "" for t in tokens]
    return TraceView(
        question=questions[problem], method=method, problem=problem, sample=sample,
        episodes=[b[len(a):] for a, b in pairwise(prefixes)],
        tokens=tokens, J=J, progress=[b - a for a, b in pairwise(J)],
        stop_at=stop_point(J), correct=bool(rollout["correct"]),
    )  # fmt: skip


def _find(
    table: pd.DataFrame, method: str, problem: str, sample: int, seed: int | None
) -> pd.DataFrame:
    """Return the records of one rollout; ValueError when there are none."""
    drawing.need(table, "method seed problem sample", "trace_view")
    rows = table[
        (table["method"] == method) & (table["problem"] == problem) & (table["sample"] == sample)
    ]
    rows = rows if seed is None else rows[rows["seed"] == seed]
    if rows.empty:
        where = f"method {method!r}, problem {problem!r}, sample {sample}"
        raise ValueError(f"no record of {where}" + ("" if seed is None else f", seed {seed}"))
    return rows


def _worth(measured: pd.DataFrame, tokens: list[int]) -> list[float]:
    """Return J at each boundary; ValueError when one is missing or measured twice."""
    # "exact" sorts before "sampled": the same rollout may have been measured both ways.
    rows = measured[measured["estimator"] == measured["estimator"].min()].sort_values("j")
    if list(rows["tokens"]) != tokens:
        found = [int(t) for t in rows["tokens"]]
        raise ValueError(
            f"J is recorded at tokens {found}, the boundaries are {tokens}; measure progress again"
        )
    return [float(value) for value in rows["J"]]


def budgets_of(results: pd.DataFrame) -> list[int]:
    """Return the budgets at which both accuracy and regret are known, ascending."""
    rows = scaling.budget_rows(results)
    known = rows.groupby("metric")["budget"].agg(set)
    return sorted(int(b) for b in set.intersection(*known))


@drawing.paper
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
    chosen = drawing.need(results[results["method"].isin(methods)], "", "the chosen methods")
    rows = scaling.budget_rows(chosen)
    axes = drawing.panels(None, 2, height=2.2 + 0.13 * len(methods))
    for ax, metric in zip(axes, scaling.AXIS, strict=True):
        scaling.budget_panel(ax, chosen, metric, c0)
        ax.axvline(budget, color="#333333", linewidth=0.8)
        here = rows[(rows["metric"] == metric) & (rows["budget"] == budget)]
        values = {drawing.look_of(row.method).label: f" {row.estimate:.3f} [{row.low:.3f}, "
                  f"{row.high:.3f}]" for row in here.itertuples()}  # fmt: skip
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles, [label + values.get(label, "") for label in labels],
                  loc="lower left", bbox_to_anchor=(0, 1.07), alignment="left",
                  title=f"at {budget} tokens", title_fontsize=7)  # fmt: skip
    return axes[0].figure


def explore_traces(
    rollouts: pd.DataFrame, progress: pd.DataFrame, problems: Sequence[Problem], decode: Decode
) -> widgets.VBox:
    """Return a browser of traces: choose problem, method and rollout, read `trace_html`.

    Only problems with a rollout are offered.

    Raises:
        ValueError: there is none.
    """
    there = set(drawing.need(rollouts, "method seed problem sample", "explore_traces")["problem"])
    questions = [(f"{p.question}  ({p.id})", p.id) for p in problems if p.id in there]
    if not questions:
        raise ValueError("no rollout belongs to the problems given; load those that were sampled")
    problem = widgets.Dropdown(options=questions, description="problem")
    method = widgets.Dropdown(options=drawing.in_order(rollouts["method"]), description="method")
    rollout = widgets.Dropdown(description="rollout")
    page = widgets.HTML()

    def offer(_: object = None) -> None:
        fits = (rollouts["method"] == method.value) & (rollouts["problem"] == problem.value)
        pairs = sorted(set(zip(rollouts["seed"][fits], rollouts["sample"][fits], strict=True)))
        rollout.options = [(f"seed {s}, sample {n}", (int(s), int(n))) for s, n in pairs]
        rollout.index = 0 if pairs else None  # the widget selects nothing after an empty list
        show()

    def show(_: object = None) -> None:
        if rollout.value is None:
            page.value = "This method has no rollout of this problem."
            return
        seed, sample = rollout.value
        page.value = trace_html(trace_view(
            rollouts, progress, problems, method.value, problem.value, sample, decode, seed
        ))  # fmt: skip

    offer()
    problem.observe(offer, "value")
    method.observe(offer, "value")
    rollout.observe(show, "value")
    return widgets.VBox([problem, method, rollout, page])


def explore_budgets(results: pd.DataFrame, c0: int) -> widgets.VBox:
    """Return a browser of budgets: choose the methods, slide the budget, see `budget_view`.

    Raises:
        ValueError: results lack accuracy or regret over the budget.
    """
    names = drawing.in_order(scaling.budget_rows(results)["method"])
    known = budgets_of(results)
    budget = widgets.SelectionSlider(
        options=known, value=min(known, key=lambda b: abs(b - c0)), description="budget",
        continuous_update=False,
    )  # fmt: skip
    labels = [(drawing.look_of(name).label, name) for name in names]
    methods = widgets.SelectMultiple(options=labels, value=names, description="methods")
    image = widgets.Image(format="png", layout=widgets.Layout(max_width="960px"))

    def show(_: object = None) -> None:
        if methods.value:
            fig = budget_view(results, methods.value, budget.value, c0)
            image.value = drawing.render(fig, "png", dpi=150)
            plt.close(fig)  # or the notebook would show it a second time

    show()
    budget.observe(show, "value")
    methods.observe(show, "value")
    return widgets.VBox([budget, methods, image])
