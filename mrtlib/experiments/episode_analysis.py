"""What the base does while it thinks: how many episodes there are, and what they bring.

Input are the records of an evaluation (`rollouts`, `progress`); output are tables with intervals
over problems, as the figures take them. k episodes of a trace.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from mrtlib.config import Thinking
from mrtlib.episodes import Decode, segment
from mrtlib.evaluation import tables
from mrtlib.evaluation.tables import said
from mrtlib.regret import stop_point
from mrtlib.stats import by_problem, proportion, two_way
from mrtlib.store import TRACE
from mrtlib.tasks.problems import Problem

START, END, BELOW, EPISODES = (
    "J without thinking", "J at the end", "share of traces that end below their best J", "episodes",
)  # fmt: skip
AFTER = "share of tokens after the stop point"
AFTER_RIGHT = f"{AFTER}, traces that end right"  # a row of `waste` where there are any
SEGMENTERS = {"official": "official rule", "markers": "every marker", "tokens": "equal tokens"}


@dataclass(frozen=True)
class TraceView:
    """A trace with k episodes. J_0 is the worth of answering without any thinking."""

    question: str
    method: str
    problem: str
    sample: int | None  # None: it is no rollout of ours
    episodes: list[str]  # (k,) joined they are the trace
    tokens: list[int]  # (k + 1,) boundaries t_0 = 0 .. t_k
    J: list[float]  # (k + 1,); NaN where nothing was measured
    correct: bool
    answer: str | None = None  # behind the thinking, as it was read

    def __post_init__(self) -> None:
        k = len(self.episodes)
        if not k or (len(self.tokens), len(self.J)) != (k + 1, k + 1):
            raise ValueError(
                f"a trace of {k} episodes needs k >= 1 and k + 1 tokens and J; got "
                f"{len(self.tokens)} and {len(self.J)}"
            )

    @property
    def measured(self) -> bool:
        """Whether J is known."""
        return not np.isnan(self.J).any()

    @property
    def progress(self) -> list[float]:
        """J_j - J_{j-1} of each episode, (k,)."""
        return [b - a for a, b in pairwise(self.J)]

    @property
    def stop_at(self) -> int:
        """The boundary at which it could have stopped, `stop_point`."""
        return stop_point(self.J)


def trace_rows(view: TraceView) -> pd.DataFrame:
    """Return what `annotated_trace` draws: j, tokens, J, progress, text, could_stop."""
    return pd.DataFrame({
        "j": range(len(view.J)), "tokens": view.tokens, "J": view.J,
        "progress": [np.nan, *view.progress], "text": ["", *view.episodes],
        "could_stop": [j == view.stop_at for j in range(len(view.J))],
    })  # fmt: skip


def trace_view(
    rollouts: pd.DataFrame, progress: pd.DataFrame, problems: Sequence[Problem], method: str,
    problem: str, sample: int, decode: Decode, seed: int | None = None,
) -> TraceView:  # fmt: skip
    """Return one trace with its episodes as texts and J at every boundary.

    Args:
        rollouts, progress: records of those schemas; of exact and sampled J the exact one is taken.
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
    ids = [int(i) for i in rollout["token_ids"]]
    prefixes = [decode(ids[:t]) if t else "" for t in tokens]
    return TraceView(
        question=questions[problem], method=method, problem=problem, sample=sample,
        episodes=[b[len(a):] for a, b in pairwise(prefixes)],
        tokens=tokens, J=_J_at(measured, tokens), correct=bool(rollout["correct"]),
        answer=rollout.get("answer"),
    )  # fmt: skip


def _find(
    table: pd.DataFrame, method: str, problem: str, sample: int, seed: int | None
) -> pd.DataFrame:
    """Return the records of one rollout; ValueError when there are none."""
    tables.need(table, "method seed problem sample", "trace_view")
    rows = table[
        (table["method"] == method) & (table["problem"] == problem) & (table["sample"] == sample)
    ]
    rows = rows if seed is None else rows[rows["seed"] == seed]
    if rows.empty:
        where = f"method {method!r}, problem {problem!r}, sample {sample}"
        raise ValueError(f"no record of {where}" + ("" if seed is None else f", seed {seed}"))
    return rows


def _J_at(measured: pd.DataFrame, tokens: list[int]) -> list[float]:
    """Return J at each boundary; ValueError when one is missing or measured twice."""
    # "exact" sorts before "sampled": the same rollout may have been measured both ways.
    rows = measured[measured["estimator"] == measured["estimator"].min()].sort_values("j")
    if list(rows["tokens"]) != tokens:
        found = [int(t) for t in rows["tokens"]]
        raise ValueError(
            f"J is recorded at tokens {found}, the boundaries are {tokens}; measure progress again"
        )
    return [float(value) for value in rows["J"]]


def count_episodes(rollouts: pd.DataFrame, decode: Decode, thinking: Thinking) -> pd.DataFrame:
    """Return how many episodes traces have by each segmenter, as shares of the traces.

    Columns method, level, episodes, estimate, low, high; `level` names the segmenter, so that
    `plotting.episode_counts` draws a panel for each.
    """
    rows = []
    for name, label in SEGMENTERS.items():
        settings = replace(thinking, segmenter=name)
        counts = rollouts.assign(episodes=[
            len(segment([int(i) for i in row.token_ids[: row.trace_tokens]], decode, settings))
            for row in rollouts.itertuples()
        ])  # fmt: skip
        for k in sorted(counts["episodes"].unique()):
            share = proportion(*by_problem(counts.assign(equal=counts["episodes"] == k), "equal"))
            rows.append({"method": "base", "level": label, "episodes": k, **share.row()})
    return pd.DataFrame(rows)


def waste(progress: pd.DataFrame) -> pd.DataFrame:
    """Return what the base's thinking brings and wastes: name, estimate, low, high.

    Tokens after the stop point are those behind the first boundary from which J never rises by
    more than 0.05 (`regret.stop_point`). Of a trace that never finds the answer that is all of
    them, so they are counted once more over the traces that end with it (J above one half).
    """
    found = []
    for key, trace in progress.sort_values("j").groupby(TRACE):
        J, t = trace["J"].to_numpy(), trace["tokens"].to_numpy()
        stop = stop_point(J)
        found.append((*key[2:4], J[0], J[-1], 1 - t[stop] / max(t[-1], 1), J.max() - J[-1] > 0.05,
                      len(J) - 1))  # fmt: skip
    shares = [START, END, AFTER, BELOW]
    table = pd.DataFrame(found, columns=["level", "problem", *shares, EPISODES])
    rows = [{"name": name, **proportion(*by_problem(table, name)).row()} for name in shares]
    right = table[table[END] > 0.5]
    if len(right):
        rows.append({"name": AFTER_RIGHT, **proportion(*by_problem(right, AFTER)).row()})
    count = two_way(*by_problem(table, EPISODES))
    return pd.DataFrame([*rows, {"name": EPISODES, **count.row()}])


def telling_trace(progress: pd.DataFrame) -> tuple[str, int]:
    """Return (problem, sample) of the trace that shows most, the first of equals.

    max (J_s - J_0) · u (1 - u), s the stop point and u = t_s / t_k: thinking that helps up to
    the middle of the trace and is wasted from there on.
    """
    found = {}
    for (*_, problem, sample), trace in progress.sort_values("j").groupby(TRACE):
        J, t = trace["J"].to_numpy(), trace["tokens"].to_numpy()
        stop = stop_point(J)
        u = t[stop] / max(t[-1], 1)
        if len(J) > 1:
            found[str(problem), int(sample)] = (J[stop] - J[0]) * u * (1 - u)
    if not found:
        raise ValueError("no trace has an episode; evaluate the base with a larger budget")
    return max(found, key=found.get)


def episodes_in_words(found: pd.DataFrame) -> str:
    """Return what notebook 01 finds of thinking in words, with its numbers: Markdown.

    Args:
        found: from `waste`.
    """
    value = found.set_index("name")
    start, end, after, below, episodes = (
        value.loc[name] for name in (START, END, AFTER, BELOW, EPISODES)
    )
    right = ""
    if AFTER_RIGHT in value.index:
        right = f" ({said(value.loc[AFTER_RIGHT])} in traces that end right)"
    return (
        f"**Answer.** A trace has {said(episodes)} episodes. J, the probability of a right answer "
        f"when the model is stopped, is {said(start)} without thinking and {said(end)} at the end. "
        f"{said(after)} of the thinking tokens come after the point from which J no longer rises"
        f"{right}, "
        f"and {said(below)} of the traces end below their own best J. "
        "(95 % intervals, over problems.)"
    )


@dataclass(frozen=True)
class Example:
    """One rollout as texts."""

    title: str
    episodes: list[str]
    wasted: list[bool]  # (k,) drawn faintly
    ending: str
