"""What the base does while it thinks: how many episodes, what they bring, what is wasted.

Input are the records of an evaluation (`rollouts`, `progress`); output are tables with intervals
over problems, as the figures take them. k episodes of a trace.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from mrtlib.config import Thinking
from mrtlib.episodes import segment
from mrtlib.findings import TRACE, against, by_problem, checked, row_of, said
from mrtlib.stats import share, two_way
from mrtlib.traces import stop_point

SEGMENTERS = {"official": "official rule", "markers": "every marker", "tokens": "equal tokens"}


def episode_counts(
    rollouts: pd.DataFrame, decode: Callable[[list[int]], str], thinking: Thinking
) -> pd.DataFrame:
    """Return how many episodes traces have by each segmenter, as shares of the traces.

    Columns method, level, episodes, estimate, low, high; `level` names the segmenter, so that
    `figures.episode_counts` gives each a panel.
    """
    rows = []
    for name, words in SEGMENTERS.items():
        way = replace(thinking, segmenter=name)
        counts = rollouts.assign(episodes=[
            len(segment([int(i) for i in row.token_ids[: row.trace_tokens]], decode, way))
            for row in rollouts.itertuples()
        ])  # fmt: skip
        for k in sorted(counts["episodes"].unique()):
            as_many = by_problem(counts.assign(as_many=counts["episodes"] == k), "as_many")
            rows.append({"method": "base", "level": words, "episodes": k,
                         **row_of(share(*as_many))})  # fmt: skip
    return pd.DataFrame(rows)


def waste(progress: pd.DataFrame) -> pd.DataFrame:
    """Return what the base's thinking brings and wastes: name, estimate, low, high.

    Tokens after the stop point are those behind the first boundary from which J never rises by
    more than 0.05 (`traces.stop_point`).
    """
    found = []
    for key, trace in progress.sort_values("j").groupby(TRACE):
        J, t = trace["J"].to_numpy(), trace["tokens"].to_numpy()
        stop = stop_point(J)
        found.append((*key[2:4], J[0], J[-1], 1 - t[stop] / max(t[-1], 1), J.max() - J[-1] > 0.05,
                      len(J) - 1))  # fmt: skip
    names = ["J without thinking", "J at the end", "share of tokens after the stop point",
             "share of traces that end below their best J", "episodes"]  # fmt: skip
    table = pd.DataFrame(found, columns=["level", "problem", *names])
    ways = [share] * 4 + [two_way]  # episodes are a count
    return pd.DataFrame([
        {"name": name, **row_of(way(*by_problem(table, name)))}
        for name, way in zip(names, ways, strict=True)
    ])


def story(progress: pd.DataFrame) -> tuple[str, int]:
    """Return (problem, sample) of the trace that shows most, the first of equals.

    max (J_s - J_0) · u (1 - u), s the stop point and u = t_s / t_k: thinking that helps up to
    the middle of the trace and is wasted from there on.
    """
    best, chosen = -np.inf, ("", 0)
    for key, trace in progress.sort_values("j").groupby(TRACE):
        J, t = trace["J"].to_numpy(), trace["tokens"].to_numpy()
        stop, share = stop_point(J), t[stop_point(J)] / max(t[-1], 1)
        worth = (J[stop] - J[0]) * share * (1 - share)
        if len(J) > 1 and worth > best:
            best, chosen = worth, (str(key[3]), int(key[4]))
    if not chosen[0]:
        raise ValueError("no trace has an episode; evaluate the base with a larger budget")
    return chosen


def claims(
    name: str, found: pd.DataFrame, votes: pd.DataFrame, counts: pd.DataFrame
) -> pd.DataFrame:
    """Return what notebook 01 claims, as `checked` does; those about size are for `tiny` alone.

    Args:
        name: the profile's.
        found, votes, counts: from `waste`, `vote_table` and `episode_counts`.
    """
    value = found.set_index("name")["estimate"]
    total = counts.groupby("level")["estimate"].sum()
    rows = [
        ("shares of episode counts add up to", total.min(), 1 - 1e-9, 1 + 1e-9),
        ("lowest vote accuracy", votes["accuracy"].min(), 0.0, 1.0),
        ("highest vote accuracy", votes["accuracy"].max(), 0.0, 1.0),
    ]
    scale = [
        ("mean episodes of a trace", value["episodes"], 4.0, 8.0),
        ("J at the end less J without thinking",
         value["J at the end"] - value["J without thinking"], 0.15, 1.0),
        ("share of tokens after the stop point",
         value["share of tokens after the stop point"], 0.10, 1.0),
    ]  # fmt: skip
    return checked(rows + (scale if name == "tiny" else []))


def answer(found: pd.DataFrame, contest: pd.DataFrame) -> str:
    """Return notebook 01's answer in words, with its numbers: Markdown.

    Args:
        found, contest: from `waste` and `votes.contest`.
    """
    value, race = found.set_index("name"), contest.set_index("name")
    start, end, after, below, episodes = (value.loc[name] for name in value.index)
    difference = race.loc["votes less end"]
    return (
        f"**Answer.** A trace has {said(episodes)} episodes. J, the chance that the model answers "
        f"rightly when stopped, is {said(start)} without thinking and {said(end)} at the end. "
        f"{said(after)} of the thinking tokens come after the point from which J no longer "
        f"rises, and {said(below)} of the traces end below their own best J. Voting half-way is "
        f"{against(difference)} thinking on to the end: a difference in accuracy of "
        f"{said(difference)}, at {difference['tokens']:+.0f} tokens. "
        "(95 % intervals, over problems.)"
    )
