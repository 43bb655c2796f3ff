"""Votes of several answers against further thinking: [maj@p]_j, the paper's figure 3.

Input are answers drawn at every boundary of some traces; intervals are over problems. p votes,
K answers at each boundary.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrtlib.evaluation.votes import maj_at_k, pass_at_k
from mrtlib.stats import proportion, two_way
from mrtlib.store import TRACE
from mrtlib.tasks.grading import candidates

VOTES = (1, 2, 4, 8)


def vote_table(answers: pd.DataFrame, family: str, votes: Sequence[int] = VOTES) -> pd.DataFrame:
    """Return [maj@p]_j of every trace: TRACE, j, tokens, votes, accuracy, spent.

    Votes are weighted by their likelihood, exp of the mean token log-probability, as in the
    authors' analysis; `grading.candidates` says which answers vote together. `spent` is t_j plus
    the tokens of p answers of mean length.

    Args:
        answers: records of the `answers` schema, K >= max(votes) at each boundary.
        family: of their problems.

    Source: arXiv 2503.07572, figure 3 and appendix D.
    """
    found = []
    for key, spot in answers.sort_values(["j", "k"]).groupby([*TRACE, "j"]):
        texts, right = candidates(spot["answer"], family), spot["correct"].tolist()
        weights = np.exp(spot["logprob"].to_numpy())
        tokens, size = int(spot["tokens"].iloc[0]), spot["answer_tokens"].mean()
        found += [(*key, tokens, p, maj_at_k(texts, right, p, weights=weights), tokens + p * size)
                  for p in votes]  # fmt: skip
    return pd.DataFrame(found, columns=[*TRACE, "j", "tokens", "votes", "accuracy", "spent"])


def buckets(votes: pd.DataFrame, parts: int = 3) -> pd.Series:
    """Return the bucket of each row, by its trace's number of episodes: at most `parts` buckets.

    Buckets are cut at quantiles of these numbers, and named by numbers and size.
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
    # Panels have the order of the categories: short traces come first.
    return votes.join(named, on=TRACE)["bucket"].astype(pd.CategoricalDtype(names.values()))


def scaling_curves(votes: pd.DataFrame, answers: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return the curves of the paper's figure 3: curve, x, estimate, low, high, bucket.

    [maj@p]_j for each p, and `direct`: pass@k without thinking, k = 1 ... K. Over "episodes" a
    further answer counts as one episode: x = j + p - 1, and k - 1 for `direct`. Over "tokens" x is
    all that is spent, on thinking and answers. A trace that has ended keeps its last value.

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
            accuracy, spent = (curve.pivot(index=TRACE, columns="j", values=column).ffill(axis=1)
                               for column in ("accuracy", "spent"))  # fmt: skip
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
    """Return pass@k of answers without thinking: the best that a choice among k can reach."""
    counts = answers.groupby(TRACE)["correct"].agg(["size", "sum"])
    size = answers["answer_tokens"].mean()
    return [
        {"curve": "direct", "x": float(k - 1 if axis == "episodes" else k * size),
         **proportion(pass_at_k(counts["size"], counts["sum"], k)[None]).row()}
        for k in range(1, int(counts["size"].min()) + 1)
    ]  # fmt: skip


def vote_or_think(votes: pd.DataFrame) -> pd.DataFrame:
    """Compare a vote half-way with thinking on to the end: name, estimate, low, high, tokens.

    Half-way is boundary ⌈k/2⌉ of each trace. The last row is the paired difference over problems,
    the vote half-way less one answer at the end.
    """
    most, last = int(votes["votes"].max()), votes.groupby(TRACE)["j"].transform("max")
    rows, found = [], {}
    for name, j, count in (
        ("one answer without thinking", 0 * last, 1), ("one answer half-way", -(-last // 2), 1),
        (f"{most} votes half-way", -(-last // 2), most), ("one answer at the end", last, 1),
    ):  # fmt: skip
        part = votes[(votes["j"] == j) & (votes["votes"] == count)].set_index(TRACE).sort_index()
        found[name], levels = part, part.index.get_level_values("level")
        accuracy = proportion(part["accuracy"].to_numpy()[None], levels)
        rows.append({"name": name, **accuracy.row(), "tokens": part["spent"].mean()})
    *_, ours, other = found.values()
    gap = ours["accuracy"] - other["accuracy"]  # aligned by trace
    difference = two_way(gap.to_numpy()[None], levels)
    spent = ours["spent"].mean() - other["spent"].mean()
    return pd.DataFrame([*rows, {"name": "votes less end", **difference.row(), "tokens": spent}])
