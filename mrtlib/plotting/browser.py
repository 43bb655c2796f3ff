"""A browser of traces: search problems, read a rollout episode by episode, or two side by side.

And a place to paste a trace from elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets
import pandas as pd

from mrtlib.episodes import Decode
from mrtlib.evaluation import tables
from mrtlib.experiments.episode_analysis import TraceView, trace_view
from mrtlib.plotting.trace import trace_html
from mrtlib.tasks.problems import Problem

NOTHING = "This method has no rollout of this problem."
NO_MATCH = "No problem has all these words; a search looks at questions, ids, levels and outcomes."
WHOLE = {"description_width": "initial"}  # labels are not cut off
WIDE = "98%"


@dataclass(frozen=True)
class Records:
    """What can be looked at."""

    rollouts: pd.DataFrame
    progress: pd.DataFrame
    problems: Sequence[Problem]  # those with a rollout
    decode: Decode
    page_of: Callable[[TraceView], str] = trace_html

    def matching(self, words: str) -> list[tuple[str, str]]:
        """Return (question with id, id) of the problems that have all the words of a search.

        A problem has the words of its question, its id, its level, and "right" or "wrong" where a
        rollout of it was.
        """
        outcomes = self.rollouts.groupby("problem")["correct"].agg(lambda c: set(map(bool, c)))
        names = {True: "right", False: "wrong"}
        wanted, found = words.lower().split(), []
        for p in self.problems:
            ended = " ".join(names[outcome] for outcome in outcomes[p.id])
            text = f"{p.question} {p.id} {p.level} {ended}".lower()
            if all(word in text for word in wanted):
                found.append((f"{p.question}  ({p.id})", p.id))
        return found

    def page(self, method: str, problem: str, seed: int, sample: int) -> str:
        """Return one rollout as HTML."""
        return self.page_of(trace_view(self.rollouts, self.progress, self.problems, method,
                                       problem, sample, self.decode, seed))  # fmt: skip


class Picker:
    """Controls that choose one rollout, and its page below them."""

    def __init__(self, records: Records) -> None:
        """Show the first rollout of the first problem."""
        wide = widgets.Layout(width=WIDE)
        self.records = records
        self.problem = widgets.Dropdown(description="problem", layout=wide, style=WHOLE)
        self.method = widgets.Dropdown(
            options=tables.in_order(records.rollouts["method"]), description="method", style=WHOLE
        )
        self.rollout = widgets.Dropdown(description="rollout", style=WHOLE)
        self.page = widgets.HTML(layout=wide)
        self.box = widgets.VBox([self.problem, self.method, self.rollout, self.page],
                                layout=widgets.Layout(width="100%"))  # fmt: skip
        self.offer(records.matching(""))
        self.problem.observe(self.rollouts, "value")
        self.method.observe(self.rollouts, "value")
        self.rollout.observe(self.show, "value")

    def offer(self, problems: list[tuple[str, str]]) -> None:
        """Let these problems be chosen; stay with the present one where it is among them."""
        before = self.problem.value
        self.problem.options = problems
        known = [name for _, name in problems]
        self.problem.index = known.index(before) if before in known else 0 if known else None
        self.rollouts()

    def rollouts(self, _: object = None) -> None:
        """Let the rollouts of the chosen problem and method be chosen."""
        table = self.records.rollouts
        fits = (table["method"] == self.method.value) & (table["problem"] == self.problem.value)
        pairs = sorted(set(zip(table["seed"][fits], table["sample"][fits], strict=True)))
        self.rollout.options = [(f"seed {s}, sample {n}", (int(s), int(n))) for s, n in pairs]
        self.rollout.index = 0 if pairs else None  # it selects nothing after an empty list
        self.show()

    def show(self, _: object = None) -> None:
        """Show the chosen rollout."""
        if self.rollout.value is None:
            self.page.value = NO_MATCH if self.problem.value is None else NOTHING
            return
        self.page.value = self.records.page(self.method.value, self.problem.value,
                                            *self.rollout.value)  # fmt: skip


def explore_traces(
    rollouts: pd.DataFrame, progress: pd.DataFrame, problems: Sequence[Problem], decode: Decode,
    page_of: Callable[[TraceView], str] = trace_html,
) -> widgets.VBox:  # fmt: skip
    """Return a browser of traces: search problems, choose one, a method and a rollout, read it.

    A second rollout can be put beside it: of another method, say. Only problems with a rollout are
    offered.

    Args:
        page_of: returns what is shown of a trace, as HTML; its episodes by default.

    Raises:
        ValueError: there is none.
    """
    there = set(tables.need(rollouts, "method seed problem sample", "explore_traces")["problem"])
    known = [p for p in problems if p.id in there]
    if not known:
        raise ValueError("no rollout belongs to the problems given; load those that were sampled")
    records = Records(rollouts, progress, known, decode, page_of)
    search = widgets.Text(
        description="search", placeholder="words of the question, an id, a level, right, wrong",
        continuous_update=False, layout=widgets.Layout(width=WIDE), style=WHOLE,
    )  # fmt: skip
    beside = widgets.Checkbox(description="another rollout beside it", indent=False)
    pickers = [Picker(records)]
    pages = widgets.HBox([pickers[0].box])

    def find(_: object = None) -> None:
        for picker in pickers:
            picker.offer(records.matching(search.value))

    def put_beside(_: object = None) -> None:
        if beside.value and len(pickers) == 1:
            pickers.append(Picker(records))
            pickers[1].offer(records.matching(search.value))
            pickers[1].problem.value = pickers[0].problem.value
        pages.children = [p.box for p in pickers[: 1 + beside.value]]

    search.observe(find, "value")
    beside.observe(put_beside, "value")
    return widgets.VBox([search, beside, pages])


def pasted_page(read: Callable[..., TraceView], *given: object) -> str:
    """Return the trace that a function reads, as HTML; what is wrong with it in its place."""
    try:
        return trace_html(read(*given))
    except ValueError as error:
        return f"<p><b>{escape(str(error))}</b></p>"


def explore_pasted(read: Callable[[str, str, str, bool], TraceView]) -> widgets.VBox:
    """Return a place to paste a trace from elsewhere, which is cut into episodes and measured.

    Args:
        read: takes question, text, right answers, and whether J is to be measured; an
            `experiments.pasted.PastedReader`.
    """
    wide = widgets.Layout(width=WIDE)
    question = widgets.Text(description="question", layout=wide, style=WHOLE)
    text = widgets.Textarea(description="trace", layout=wide, style=WHOLE, rows=8,
                            placeholder="the thinking, with its tags or without")  # fmt: skip
    answers = widgets.Textarea(
        description="right answers", layout=wide, style=WHOLE, rows=2,
        placeholder="one a line; not needed for a question from the problems, or of Countdown",
    )  # fmt: skip
    measure = widgets.Checkbox(description="measure J with the model", indent=False)
    button, page = widgets.Button(description="cut into episodes"), widgets.HTML(layout=wide)

    def show(_: object = None) -> None:
        page.value = pasted_page(read, question.value, text.value, answers.value, measure.value)

    button.on_click(show)
    return widgets.VBox([question, text, answers, measure, button, page])
