"""Votes of several answers against further thinking: [maj@p]_j, the paper's figure 3.

Input are answers drawn at every boundary of one trace a problem; intervals are over problems.
p votes, K answers at each boundary, k episodes of a trace.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mrtlib.evaluation.tables import against, number, written
from mrtlib.evaluation.votes import maj_at_k, pass_at_k
from mrtlib.stats import Array, Interval, cut, proportion, two_way
from mrtlib.store import TRACE
from mrtlib.tasks.grading import candidates

VOTES = (1, 2, 4, 8)
GOING = 0.2  # of a bucket's traces, the least behind a boundary of `vote_or_think`
ALL = "all"  # the bucket of all traces


def likelihood(spot: pd.DataFrame) -> Array:
    """Return exp of each answer's mean token log-probability, (K,): the authors' weight.

    They write 2 for exp; that is this weight to the power of 0.69.

    Source: arXiv 2503.07572, the public code of figure 3.
    """
    return np.exp(spot["logprob"].to_numpy(float))


def probability(spot: pd.DataFrame) -> Array:
    """Return each answer's probability under the prover, all its tokens together, (K,).

    As a share of the largest: those of long answers are below what a float can hold.
    """
    logp = (spot["logprob"] * spot["answer_tokens"]).to_numpy(float)
    return np.exp(logp - logp.max(initial=-np.inf))


def plain(spot: pd.DataFrame) -> Array:
    """Return 1 for each answer, (K,)."""
    return np.ones(len(spot))


RULES = {"likelihood": likelihood, "plain": plain, "probability": probability}


def vote_table(answers: pd.DataFrame, family: str, votes: Sequence[int] = VOTES) -> pd.DataFrame:
    """Return [maj@p]_j of every trace: TRACE, j, tokens, rule, votes, accuracy, spent.

    Exact over all subsets of p of the K answers. `rule` names the weights of the votes (`RULES`);
    `grading.candidates` says which answers vote together. `spent` is t_j plus the tokens of p
    answers of mean length.

    Args:
        answers: records of the `answers` schema, K >= max(votes) at each boundary.
        family: of their problems.

    Source: arXiv 2503.07572, figure 3 and appendix D.
    """
    found = []
    for key, spot in answers.sort_values(["j", "k"]).groupby([*TRACE, "j"]):
        texts, right = candidates(spot["answer"], family), spot["correct"].tolist()
        tokens, size = int(spot["tokens"].iloc[0]), spot["answer_tokens"].mean()
        for rule, weigh in RULES.items():
            weights = weigh(spot)
            found += [
                (*key, tokens, rule, p, maj_at_k(texts, right, p, weights=weights),
                 tokens + p * size)
                for p in votes
            ]  # fmt: skip
    names = [*TRACE, "j", "tokens", "rule", "votes", "accuracy", "spent"]
    return pd.DataFrame(found, columns=names)


def buckets(votes: pd.DataFrame, parts: int = 3) -> pd.Series:
    """Return the bucket of each row, by its trace's number of episodes: at most `parts` buckets.

    A number of episodes goes where the middle of its traces lies in their order, so that buckets
    are as large as whole numbers allow. They are named by numbers and size.
    """
    counts = votes.groupby(TRACE)["j"].max()
    group = ((counts.rank() - 0.5) / len(counts) * parts).astype(int)  # rank: mean of equals
    names = {}
    for g in sorted(group.unique()):
        inside = counts[group == g]
        low, high = inside.min(), inside.max()
        names[g] = f"{low if low == high else f'{low}–{high}'} episodes (n = {len(inside)})"
    named = group.map(names).rename("bucket")
    # Panels have the order of the categories: short traces come first.
    return votes.join(named, on=TRACE)["bucket"].astype(pd.CategoricalDtype(names.values()))


def scaling_curves(votes: pd.DataFrame, answers: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return the curves of the paper's figure 3: rule, bucket, curve, x, estimate, low, high.

    [maj@p]_j for each p, and `direct`: pass@k without thinking, k = 1 ... K. Over "episodes" a
    further answer counts as one episode: x = j + p - 1, and k - 1 for `direct`. Over "tokens" x is
    all that is spent, on thinking and answers. A trace that has ended keeps its last value.

    Args:
        votes: from `vote_table`, of the rules that are wanted.
        answers: records it was made from.
        axis: "episodes" or "tokens".
    """
    if axis not in ("episodes", "tokens"):
        raise ValueError(f"axis must be 'episodes' or 'tokens', not {axis!r}")
    rows, votes = [], votes.assign(bucket=buckets(votes))
    for (rule, name), part in votes.groupby(["rule", "bucket"], observed=True, sort=False):
        labels = {"rule": rule, "bucket": name}
        for p, curve in part.groupby("votes"):
            accuracy, spent = (curve.pivot(index=TRACE, columns="j", values=column).ffill(axis=1)
                               for column in ("accuracy", "spent"))  # fmt: skip
            rows += [
                labels | {"curve": f"maj@{p}",
                          "x": float(j + p - 1 if axis == "episodes" else spent[j].mean()),
                          **proportion(accuracy[j].to_numpy()[None]).row()}
                for j in accuracy.columns
            ]  # fmt: skip
        inside = part[TRACE].drop_duplicates().merge(answers[answers["j"] == 0], on=TRACE)
        rows += [labels | row for row in _direct(inside, axis)]
    table = pd.DataFrame(rows)
    table["bucket"] = table["bucket"].astype(votes["bucket"].dtype)
    table = table.sort_values("bucket", kind="stable")
    return table.sort_values("rule", key=lambda column: column.map(list(RULES).index),
                             kind="stable", ignore_index=True)  # fmt: skip


def _direct(answers: pd.DataFrame, axis: str) -> list[dict]:
    """Return pass@k of answers without thinking: the best that a choice among k can reach."""
    counts = answers.groupby(TRACE)["correct"].agg(["size", "sum"])
    size = answers["answer_tokens"].mean()
    return [
        {"curve": "direct", "x": float(k - 1 if axis == "episodes" else k * size),
         **proportion(pass_at_k(counts["size"], counts["sum"], k)[None]).row()}
        for k in range(1, int(counts["size"].min()) + 1)
    ]  # fmt: skip


def against_end(votes: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Return each vote beside what thinking on to the end and answering once gives that trace.

    TRACE, bucket, episodes (k), j, votes, accuracy, end (of one answer at the end), gain (the
    first less the second) and more (tokens spent less those of the end, below 0 for saved ones).

    Args:
        votes: from `vote_table`.
        rule: one of `RULES`.
    """
    votes = votes.assign(bucket=buckets(votes), episodes=votes.groupby(TRACE)["j"].transform("max"))
    own = votes[votes["rule"] == rule]
    end = own[(own["j"] == own["episodes"]) & (own["votes"] == 1)].set_index(TRACE)
    end = end[["accuracy", "spent"]].set_axis(["end", "spent_at_end"], axis=1)
    both = own.join(end, on=TRACE)
    more = both["spent"] - both.pop("spent_at_end")
    return both.assign(gain=both["accuracy"] - both["end"], more=more)


def gain_interval(gains: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of paired differences of shares, and an interval for few or sparse ones.

    The ends are those of `two_way` with two more problems, one won and one lost: where nearly all
    problems are even, t intervals of some dozens are too short. That these cover, one by one and
    as a curve's, is simulated in `tests/test_voting.py`.

    Args:
        gains: (..., n) differences in [-1, 1], one a problem.

    Source: pseudo-counts as in Agresti and Min (2005), Statistics in Medicine 24; here twice
    theirs, as half of them left curves of skewed differences at 92 % in our simulation.
    """
    gains = np.asarray(gains, dtype=float)
    more = np.broadcast_to([1.0, -1.0], (*gains.shape[:-1], 2))
    around = cut(two_way(np.concatenate([gains, more], -1)[..., None, :], level=level), -1.0, 1.0)
    return replace(around, estimate=two_way(gains[..., None, :]).estimate)


def vote_or_think(votes: pd.DataFrame, rule: str = "likelihood") -> pd.DataFrame:
    """Compare a vote at each boundary with thinking on: bucket, votes, j, n, estimate, low, high.

    The paired difference over the n traces that go on after boundary j: the vote of p answers
    there, less one answer at the end. Boundaries behind which less than `GOING` of the bucket go on
    are left out. The m intervals of a curve hold together with 95 %: each is one of 1 - 0.05 / m
    (Bonferroni), so the best of the boundaries may be looked for.

    Args:
        votes, rule: as in `against_end`.
    """
    rows, table = [], against_end(votes, rule)
    going = table[table["j"] < table["episodes"]]
    for (name, p), curve in going.groupby(["bucket", "votes"], observed=True):
        least = GOING * (curve["j"] == 0).sum()
        spots = [(j, part) for j, part in curve.groupby("j") if len(part) >= least]
        rows += [
            {"bucket": name, "votes": p, "j": j, "n": len(part),
             **gain_interval(part["gain"], 1 - 0.05 / len(spots)).row(),
             "tokens": part["more"].mean()}
            for j, part in spots
        ]  # fmt: skip
    return pd.DataFrame(rows)


def contests(votes: pd.DataFrame, rule: str = "likelihood") -> pd.DataFrame:
    """Compare votes with thinking on, at places that were chosen beforehand.

    bucket, place, votes, n, vote, end, estimate, low, high, tokens: the mean accuracy of the vote,
    that of one answer at the end, and their paired difference over n problems. Places are

    - half-way: boundary ⌈k/2⌉;
    - equal tokens: the last boundary before the end at which the vote costs no more than thinking
      on and answering once, of the traces that have one (who chooses it knows where they end);
    - the end: votes instead of one answer, at a higher cost.

    Args:
        votes, rule: as in `against_end`.
    """
    table = against_end(votes, rule)
    many, half = table["votes"] > 1, -(-table["episodes"] // 2)
    before = table[many & (table["j"] < table["episodes"]) & (table["more"] <= 0)]
    places = {
        "half-way": table[many & (table["j"] == half)],
        "equal tokens": before.sort_values("j").groupby([*TRACE, "votes"]).tail(1),
        "the end": table[many & (table["j"] == table["episodes"])],
    }
    rows = []
    for name in [*table["bucket"].cat.categories, ALL]:
        for place, found in places.items():
            inside = found if name == ALL else found[found["bucket"] == name]
            rows += [{"bucket": name, "place": place, "votes": p, **_contest(part, name == ALL)}
                     for p, part in inside.groupby("votes")]  # fmt: skip
    return pd.DataFrame(rows)


def _contest(part: pd.DataFrame, whole: bool) -> dict[str, float]:
    """Return a row of `contests`; in a bucket, how many problems a level has is left to chance."""
    gains = part["gain"].to_numpy()
    gain = two_way(gains[None], part["level"]) if whole else gain_interval(gains)
    return {"n": len(part), "vote": part["accuracy"].mean(), "end": part["end"].mean(),
            **gain.row(), "tokens": part["more"].mean()}  # fmt: skip


def by_bucket(found: pd.DataFrame) -> pd.DataFrame:
    """Return the differences of `contests` in points, as texts: place and votes by bucket."""
    order = [found[name].drop_duplicates() for name in ("place", "bucket")]
    table = found.assign(text=found.apply(_points, axis=1)).pivot(
        index=["place", "votes"], columns="bucket", values="text")  # fmt: skip
    return table.reindex(order[0], level=0)[order[1]].fillna("–")


def rules_compared(votes: pd.DataFrame) -> pd.DataFrame:
    """Return what weights bring: rule, votes, accuracy, estimate, low, high.

    The mean accuracy over the boundaries of a trace, and the paired difference to plain votes.

    Args:
        votes: from `vote_table`.
    """
    mean = votes.groupby([*TRACE, "rule", "votes"])["accuracy"].mean().unstack("rule")
    rows = []
    for rule in [rule for rule in RULES if rule != "plain"]:
        for p, part in mean[mean.index.get_level_values("votes") > 1].groupby("votes"):
            gap = (part[rule] - part["plain"]).to_numpy()[None]
            rows.append({"rule": rule, "votes": p, "accuracy": part[rule].mean(),
                         **two_way(gap, part.index.get_level_values("level")).row()})  # fmt: skip
    return pd.DataFrame(rows)


def votes_in_words(found: pd.DataFrame, race: pd.DataFrame, rules: pd.DataFrame) -> str:
    """Return what notebook 01 finds of votes in words, with its numbers: Markdown.

    Args:
        found, race, rules: from `contests`, `vote_or_think` and `rules_compared`.
    """
    most = int(found["votes"].max())
    half = found[(found["place"] == "half-way") & (found["votes"] == most)]
    equal = found[(found["place"] == "equal tokens") & (found["bucket"] == ALL)]
    end = found[(found["place"] == "the end") & (found["bucket"] == ALL)].iloc[-1]
    *parts, whole = (f"{row['bucket']}: {_points(row)}" for _, row in half.iterrows())
    race = race[race["votes"] == most]
    by_rule = [f"{_points(row)} by {row['rule']}"
               for _, row in rules[rules["votes"] == most].iterrows()]  # fmt: skip
    return "\n".join([
        f"**Votes.** A vote of {most} half-way {against(half.iloc[-1])} thinking on to the end and "
        f"answering once: {whole.partition(': ')[2]}, at "
        f"{number(half['tokens'].iloc[-1], 0, 1, '+')} tokens. (Differences in accuracy, in "
        "points, paired over problems.)\n",
        f"- By bucket: {'; '.join(parts)}.",
        "- As late as equal tokens allow: "
        + ("; ".join(f"{_points(row)} with {row['votes']} votes" for _, row in equal.iterrows())
           or "no trace has room for votes") + ".",
        f"- Of the {len(race)} boundaries of all buckets, a vote of {most} is ahead of thinking on "
        f"for certain at {(race['low'] > 0).sum()}, and behind it at {(race['high'] < 0).sum()}.",
        f"- {most} votes at the end, less one answer there: {_points(end)}.",
        f"- Weights of {most} votes, less plain votes: {', '.join(by_rule)}.",
    ])  # fmt: skip


def _points(row: pd.Series) -> str:
    """Return a difference of shares and its interval in points."""
    return " ".join(written(row["estimate"], row["low"], row["high"], 1, 100, "+"))
