"""Votes of several answers against further thinking: [maj@p]_j, the paper's figure 3.

Input are `answers` drawn at every boundary of some traces; intervals are over problems. p votes,
K answers at each boundary.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrtlib.evaluation.votes import maj_at_p_j, pass_at_k
from mrtlib.stats import proportion, two_way
from mrtlib.store import TRACE
from mrtlib.tasks.grading import candidates

VOTES = (1, 2, 4, 8)


def vote_table(
    answers: pd.DataFrame, family: str, votes: Sequence[int] = VOTES
) -> pd.DataFrame:
    """Return [maj@p]_j of every trace: TRACE, j, tokens, votes, accuracy, spent.

    Votes are weighted by their likelihood, exp of the mean token log-probability, as in the
    authors' analysis; `candidates` says which count as the same. `spent` is t_j and the tokens of
    p answers of mean length.

    Args:
        answers: records of the `answers` schema, K >= max(votes) at each boundary.
        family: of their problems.

    Source: arXiv 2503.07572, figure 3 and appendix D.
    """
    found = []
    for key, trace in answers.sort_values(["j", "k"]).groupby(TRACE):
        spots = [spot for _, spot in trace.groupby("j")]
        texts = [candidates(spot["answer"], family) for spot in spots]
        right = [spot["correct"].tolist() for spot in spots]
        weights = [np.exp(spot["logprob"].to_numpy()) for spot in spots]
        for p in votes:
            accuracy = maj_at_p_j(texts, right, p, weights=weights)
            found += [
                (*key, int(spot["j"].iloc[0]), int(spot["tokens"].iloc[0]), p, share,
                 spot["tokens"].iloc[0] + p * spot["answer_tokens"].mean())
                for spot, share in zip(spots, accuracy, strict=True)
            ]  # fmt: skip
    return pd.DataFrame(found, columns=[*TRACE, "j", "tokens", "votes", "accuracy", "spent"])


def buckets(votes: pd.DataFrame, parts: int = 3) -> pd.Series:
    """Return the bucket of each row: its trace's count of episodes, in `parts` groups or fewer.

    The groups are cut at quantiles of the counts and named by counts and size.
    """
    counts = votes.groupby(TRACE)["j"].max()
    edges = np.unique(np.quantile(counts, np.arange(1, parts) / parts, method="lower"))
    group = np.searchsorted(edges, counts)
    names = {}
    for g in np.unique(group):
        inside = counts[group == g]
        low, high = inside.min(), inside.max()
        names[g] = f"{low if low == high else f'{low}–{high}'} episodes (n = {len(inside)})"
    named = pd.Series([names[g] for g in group], index=counts.index, name="bucket")
    # The order of panels is the order of first appearance, so short traces come first.
    return votes.join(named, on=TRACE)["bucket"].astype(pd.CategoricalDtype(names.values()))


def held_at_end(trace_table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return (traces, J + 1) of a column by j, a trace that has ended held at its last value."""
    return trace_table.pivot(index=TRACE, columns="j", values=column).ffill(axis=1)


def scaling_curves(
    votes: pd.DataFrame, answers: pd.DataFrame, axis: str
) -> pd.DataFrame:
    """Return the curves of the paper's figure 3: curve, x, estimate, low, high, bucket.

    [maj@p]_j for each p, and `direct`, pass@k without thinking, k = 1 ... K. Over "episodes" a
    further answer counts as one episode: x = j + p - 1, for direct k - 1. Over "tokens" x is all
    that is spent, thinking and answers. In a bucket a trace that has ended keeps its last value.

    Args:
        votes: from `vote_table`.
        answers: records it was made from.
        axis: "episodes" or "tokens".
    """
    if axis not in ("episodes", "tokens"):
        raise ValueError(f"axis must be 'episodes' or 'tokens', not {axis!r}")
    rows, bucket = [], buckets(votes)
    for name in bucket.cat.categories:
        part = votes[bucket == name]
        for p, curve in part.groupby("votes"):
            accuracy, spent = held_at_end(curve, "accuracy"), held_at_end(curve, "spent")
            rows += [
                {"curve": f"maj@{p}", "bucket": name,
                 "x": float(j + p - 1 if axis == "episodes" else spent[j].mean()),
                 **proportion(accuracy[j].to_numpy()[None]).row()}
                for j in accuracy.columns
            ]  # fmt: skip
        inside = part[TRACE].drop_duplicates().merge(answers[answers["j"] == 0], on=TRACE)
        rows += [row | {"bucket": name} for row in _direct(inside, axis)]
    return pd.DataFrame(rows)


def _direct(answers: pd.DataFrame, axis: str) -> list[dict]:
    """Return pass@k of answers without thinking; the best that choosing among k can do."""
    tally = answers.groupby(TRACE)["correct"].agg(["size", "sum"])
    size = answers["answer_tokens"].mean()
    return [
        {"curve": "direct", "x": float(k - 1 if axis == "episodes" else k * size),
         **proportion(pass_at_k(tally["size"], tally["sum"], k)[None]).row()}
        for k in range(1, int(tally["size"].min()) + 1)
    ]  # fmt: skip


def vote_or_think(votes: pd.DataFrame) -> pd.DataFrame:
    """Compare voting half-way with thinking on to the end: name, estimate, low, high, tokens.

    Half-way is boundary ⌈k/2⌉ of each trace. The last row is the paired difference over problems,
    votes half-way less one answer at the end.
    """
    most, last = int(votes["votes"].max()), votes.groupby(TRACE)["j"].transform("max")
    ways = {
        "one answer without thinking": (votes["j"] == 0) & (votes["votes"] == 1),
        "one answer half-way": (votes["j"] == -(-last // 2)) & (votes["votes"] == 1),
        f"{most} votes half-way": (votes["j"] == -(-last // 2)) & (votes["votes"] == most),
        "one answer at the end": (votes["j"] == last) & (votes["votes"] == 1),
    }
    values = {name: votes[mask].set_index(TRACE).sort_index() for name, mask in ways.items()}
    levels = next(iter(values.values())).index.get_level_values("level")
    rows = [
        {"name": name, **proportion(v["accuracy"].to_numpy()[None], levels).row(),
         "tokens": v["spent"].mean()}
        for name, v in values.items()
    ]  # fmt: skip
    _, _, ours, other = values.values()
    gap = ours["accuracy"] - other["accuracy"]  # aligned by trace
    difference = two_way(gap.to_numpy()[None], levels)
    spent = ours["spent"].mean() - other["spent"].mean()
    return pd.DataFrame([*rows, {"name": "votes less end", **difference.row(), "tokens": spent}])
