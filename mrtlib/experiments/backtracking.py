"""Backtracking search: what a return to an earlier step gains, and votes in one stream or in many.

Input are records of evaluated models (`rollouts`, `progress`) and of `linearise` (`attempts`);
output are tables with intervals over seeds and problems, as the figures take them. S seeds, P
problems, K samples of a problem.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from mrtlib.config import ROOT, WRONG, Profile
from mrtlib.episodes import Decode, returns_to
from mrtlib.evaluation.comparison import times_fewer, times_in_words
from mrtlib.evaluation.linearised import LINEARISED, PARALLEL, WAYS
from mrtlib.evaluation.tables import decided, need
from mrtlib.evaluation.votes import maj_at_k
from mrtlib.stats import SLACK, Array, over_seeds, proportion, two_way, wilson
from mrtlib.store import TRACE, read_csv
from mrtlib.tasks.grading import candidates

LINE, ATTEMPT = PARTS = ("error line", "error line and new attempt")
# The forms of MRT, and what each is compared with: the same training without information gain.
PAIRS = (("mixed_group", "outcome"), ("mrt_star_cut", "star"))
BINS = tuple(np.linspace(-1.1, 1.1, 12).round(1).tolist())  # one of them around no progress
COUNTED = ("generated", "through the model")  # tokens
COMMITTED = ROOT / "data" / "runs" / "backtrack"


def backtracks(tables: dict[str, pd.DataFrame], decode: Decode) -> pd.DataFrame:
    """Return every backtrack of some rollouts and its progress, a row for each part.

    The part `error line` is J behind the line less J before it; the other one adds the attempt that
    follows. A backtrack without such an attempt has the first row alone.

    Args:
        tables: `rollouts` and `progress` of one evaluated model or more.
        decode: ids to text, special tokens kept.

    Returns:
        TRACE, j (the error line is episode z_j, counted from 1), back (the step returned to), part,
        before (J), progress.

    Source: arXiv 2503.07572, figure 16.
    """
    curves = {key: rows["J"].to_numpy()
              for key, rows in tables["progress"].sort_values("j").groupby(TRACE)}  # fmt: skip
    rows = []
    for rollout in tables["rollouts"].itertuples():
        key = tuple(getattr(rollout, name) for name in TRACE)
        texts = episode_texts(rollout.token_ids, rollout.boundaries, decode)
        wrong, J = [text.startswith(WRONG) for text in texts], curves[key]
        for j in (i for i, error in enumerate(wrong, start=1) if error):
            ends = [j, j + 1] if j < len(texts) and not wrong[j] else [j]
            back = returns_to(texts[j - 1])
            rows += [(*key, j, back, part, J[j - 1], J[end] - J[j - 1])
                     for part, end in zip(PARTS, ends, strict=False)]  # fmt: skip
    return pd.DataFrame(rows, columns=[*TRACE, "j", "back", "part", "before", "progress"])


def episode_texts(
    token_ids: Sequence[int], boundaries: Sequence[int], decode: Decode
) -> list[str]:
    """Return the episodes of a trace as texts, (k,)."""
    ids = [int(i) for i in token_ids]
    return [decode(ids[a:b]) for a, b in pairwise([0, *(int(t) for t in boundaries)])]


def progress_of_backtracks(found: pd.DataFrame) -> pd.DataFrame:
    """Return the mean progress of backtracks and the share of them that made more than rounding.

    A problem counts by the mean over its backtracks, and only if it has one at every seed.

    Args:
        found: from `backtracks`.

    Returns:
        method, part, quantity ("progress" or "share with progress"), estimate, low, high,
        backtracks, problems.
    """
    found = found.assign(positive=(found["progress"] > SLACK).astype(float))
    rows = []
    for (method, part), own in found.groupby(["method", "part"], sort=False):
        for name, column, way in (("progress", "progress", two_way),
                                  ("share with progress", "positive", proportion)):  # fmt: skip
            values, levels = crossed(own, column)
            rows.append({"method": method, "part": part, "quantity": name,
                         **way(values, levels).row(), "backtracks": len(own),
                         "problems": values.shape[1]})  # fmt: skip
    return pd.DataFrame(rows)


def progress_differences(
    found: pd.DataFrame, pairs: Sequence[tuple[str, str]] = PAIRS
) -> pd.DataFrame:
    """Return differences in mean progress, paired over problems in which both methods backtrack.

    Columns: method, other, part, estimate, low, high, problems, decided. A pair without such a
    problem is left out.
    """
    rows = []
    for method, other in pairs:
        for part, own in found.groupby("part", sort=False):
            both = [own[own["method"] == name] for name in (method, other)]
            ours, theirs, levels = paired(*both, "progress")
            if len(levels):
                gap = two_way(ours - theirs, levels)
                rows.append((method, other, part, *vars(gap).values(), len(levels)))
    names = ["method", "other", "part", "estimate", "low", "high", "problems"]
    return decided(pd.DataFrame(rows, columns=names))


def progress_shares(found: pd.DataFrame, bins: Sequence[float] = BINS) -> pd.DataFrame:
    """Return histograms of progress: method, part, left, right, share of its backtracks, mean.

    Bins hold their left end. The mean is that of `progress_of_backtracks`.
    """
    rows = []
    for (method, part), own in found.groupby(["method", "part"], sort=False):
        counts, _ = np.histogram(own["progress"].clip(-1, 1), bins)
        mean = crossed(own, "progress")[0].mean()
        rows += [(method, part, left, right, count / len(own), mean)
                 for (left, right), count in zip(pairwise(bins), counts, strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "part", "left", "right", "share", "mean"])


def search_table(tables: dict[str, pd.DataFrame], found: pd.DataFrame) -> pd.DataFrame:
    """Return how each model searches: method, quantity, estimate, low, high.

    Args:
        tables: `rollouts` of one evaluated model or more.
        found: their backtracks, from `backtracks`.
    """
    count = found[found["part"] == LINE].groupby(TRACE).size().rename("backtracks")
    rollouts = tables["rollouts"].join(count, on=TRACE).fillna({"backtracks": 0})
    rollouts["turned"] = (rollouts["backtracks"] > 0).astype(float)
    quantities = {
        "accuracy": ("correct", proportion), "backtracks of a rollout": ("backtracks", two_way),
        "rollouts with a backtrack": ("turned", proportion), "tokens": ("trace_tokens", two_way),
        "truncated": ("truncated", proportion),
    }  # fmt: skip
    rows = []
    for method, own in rollouts.groupby("method", sort=False):
        for name, (column, way) in quantities.items():
            rows.append({"method": method, "quantity": name, **way(*crossed(own, column)).row()})
    return pd.DataFrame(rows)


def warm_start_losses(profile: Profile) -> pd.DataFrame:
    """Return the records of the warm start: kind, seed, step, loss and more.

    Those of the run; where it has none, those of the committed run, as every run begins with the
    committed model. `python -m mrtlib backtracker` makes them anew.
    """
    return _of_warm_start(profile, "warm_start.csv")


def warm_start_accuracy(profile: Profile) -> pd.DataFrame:
    """Return what each model can do after its warm start: accuracy with Wilson's interval.

    Of `n` rollouts on validation problems; they share problems, so intervals are a little short.
    """
    found = _of_warm_start(profile, "warm_start_accuracy.csv")
    low, high = wilson((found["accuracy"] * found["n"]).round(), found["n"])
    shown = found[["kind", "seed", "n", "accuracy"]].assign(low=low, high=high)
    return shown.join(found[["errors_named", "thinking", "truncated", "examples", "set_tokens"]])


def _of_warm_start(profile: Profile, name: str) -> pd.DataFrame:
    paths = [runs / name for runs in (profile.runs, COMMITTED)]
    return read_csv(next((path for path in paths if path.is_file()), paths[-1]))


def warm_start_curves(losses: pd.DataFrame) -> pd.DataFrame:
    """Return held-out loss by kind of data and step: kind, step, estimate, low, high, seeds.

    Seeds may look at the loss at steps that differ a little, as their sets have a few texts more or
    less: the n-th look of each is one point, at their mean step.

    Args:
        losses: kind, seed, step, loss.
    """
    losses = losses.sort_values("step", kind="stable")
    look = losses.groupby(["kind", "seed"]).cumcount().rename("look")
    rows = [
        {"kind": kind, "step": own["step"].mean(), **over_seeds(own["loss"]).row(),
         "seeds": len(own)}
        for (kind, _), own in losses.groupby(["kind", look], sort=False)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def vote_points(attempts: pd.DataFrame, family: str) -> pd.DataFrame:
    """Return maj@K of every problem, K = 1 ... n samples, in parallel and in a stream.

    A stream has as many tokens as K samples of its problem have on average. Its votes are the
    attempts that are done by then, and the one that is under way counts by the share of it that is
    done: stopping before it or behind it, by chance, spends these tokens on average. Votes are
    weighted by likelihood, exp of the mean token log-probability, as in the authors' analysis.

    Args:
        attempts: records of the `attempts` schema.
        family: of their problems.

    Returns:
        method, seed, level, problem, way, k, tokens (what K samples have generated on average),
        through (the model, for these), votes, accuracy.

    Source: arXiv 2503.07572, figures 7 and 8.
    """
    rows = []
    labels = ["method", "seed", "level", "problem"]
    for key, own in attempts.sort_values("k", kind="stable").groupby(labels, sort=False):
        samples, stream = (own[own["way"] == way] for way in WAYS)
        n, total = len(samples), int(samples["tokens"].iloc[-1])
        prompt = int(samples["through"].iloc[-1]) - total
        texts, right, weights = _ballots(samples, family)
        ends, read = ([0, *stream[column]] for column in ("tokens", "through"))
        curve = [0.0, *_votes_so_far(stream, family)]
        for k in range(1, n + 1):
            spent = k * total / n
            accuracy = maj_at_k(texts, right, k, weights=weights)
            rows.append((*key, PARALLEL, k, spent, prompt + spent, k, accuracy))
            at = (np.interp(spent, ends, side) for side in (read, range(len(ends)), curve))
            rows.append((*key, LINEARISED, k, spent, *at))
    names = [*labels, "way", "k", "tokens", "through", "votes", "accuracy"]
    return pd.DataFrame(rows, columns=names)


def _ballots(attempts: pd.DataFrame, family: str) -> tuple[list, list[bool], Array]:
    """Return what each attempt votes for, whether it is right, and its weight."""
    texts = candidates(attempts["answer"].tolist(), family)
    return texts, attempts["correct"].tolist(), np.exp(attempts["logprob"].to_numpy())


def _votes_so_far(stream: pd.DataFrame, family: str) -> list[float]:
    """Return the chance that a vote is right behind each attempt of a stream."""
    sides = _ballots(stream, family)
    first = [[side[: n + 1] for side in sides] for n in range(len(stream))]
    return [maj_at_k(texts, right, len(right), weights=w) for texts, right, w in first]


def stream_story(
    attempts: pd.DataFrame, method: str, problem: str, family: str = "countdown"
) -> pd.DataFrame:
    """Return one stream, an attempt a row: answer, correct, tokens, read, dropped, vote.

    `vote` is the chance that the vote of all attempts up to it is right.
    """
    chosen = (attempts["method"] == method) & (attempts["problem"] == problem)
    stream = attempts[chosen & (attempts["way"] == LINEARISED)].sort_values(["seed", "k"])
    need(stream, "", f"the stream of {method} at {problem}")
    stream = stream[stream["seed"] == stream["seed"].iloc[0]].reset_index(drop=True)
    shown = stream[["answer", "correct", "tokens", "read", "dropped"]]
    return shown.assign(vote=_votes_so_far(stream, family))


def vote_curves(points: pd.DataFrame) -> pd.DataFrame:
    """Return maj@K over the tokens: method, way, k, tokens, through, votes, estimate, low, high."""
    rows = []
    for key, own in points.groupby(["method", "way", "k"], sort=False):
        means = own[["tokens", "through", "votes"]].mean()
        rows.append((*key, *means, *vars(proportion(*crossed(own, "accuracy"))).values()))
    names = ["method", "way", "k", "tokens", "through", "votes", "estimate", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def at_equal_tokens(points: pd.DataFrame) -> pd.DataFrame:
    """Return what a stream is right more often than samples with as many tokens, paired.

    Columns: method, k, tokens, parallel, linearised (accuracies), estimate, low, high, decided.
    """
    rows = []
    for (method, k), own in points.groupby(["method", "k"], sort=False):
        sides = [own[own["way"] == way] for way in (LINEARISED, PARALLEL)]
        ours, other, levels = paired(*sides, "accuracy")
        gap = two_way(ours - other, levels)
        rows.append((method, k, own["tokens"].mean(), other.mean(), ours.mean(),
                     *vars(gap).values()))  # fmt: skip
    names = ["method", "k", "tokens", *WAYS, "estimate", "low", "high"]
    return decided(pd.DataFrame(rows, columns=names))


def efficiency(points: pd.DataFrame, counted: str = COUNTED[0]) -> pd.DataFrame:
    """Return how many times fewer tokens one way needs for the best vote of another, paired.

    Compared are each model's stream with its own samples, and each trained model's samples with
    those of the base and of its rival in `PAIRS`.

    Args:
        counted: which tokens, one of `COUNTED`.

    Returns:
        ours, other, counted, accuracy (the other's best), times_fewer, low, high, decided: whether
        the interval leaves out 1. 0 where that accuracy is not reached.

    Source: arXiv 2503.07572, figure 8 (horizontal arrows).
    """
    methods = list(dict.fromkeys(points["method"]))
    pairs = [((m, LINEARISED), (m, PARALLEL)) for m in methods]
    rivals = [(m, "base") for m in methods if m != "base"] + list(PAIRS)
    pairs += [((m, PARALLEL), (o, PARALLEL)) for m, o in rivals if {m, o} <= set(methods)]
    rows = []
    for ours, other in pairs:
        sides = [points[(points["method"] == method) & (points["way"] == way)]
                 for method, way in (ours, other)]  # fmt: skip
        (x, y), (rival_x, rival_y), levels = _curves(*sides, counted)
        times = times_fewer(x, y, rival_y, levels, rival_x)
        rows.append((" ".join(ours), " ".join(other), counted, rival_y.mean((1, 2)).max(),
                     *vars(times).values()))  # fmt: skip
    names = ["ours", "other", "counted", "accuracy", "times_fewer", "low", "high"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(decided=(table["low"] > 1) | (table["high"] < 1))


def _curves(ours: pd.DataFrame, other: pd.DataFrame, counted: str) -> tuple:
    """Return (mean tokens (K,), accuracy (K, S, P)) of two sides, and the problems' levels."""
    column = "tokens" if counted == COUNTED[0] else "through"
    found = []
    for k in sorted(set(ours["k"])):
        sides = [side[side["k"] == k] for side in (ours, other)]
        found.append((*(side[column].mean() for side in sides), *paired(*sides, "accuracy")))
    x, rival_x, y, rival_y, levels = zip(*found, strict=True)
    return (np.array(x), np.array(y)), (np.array(rival_x), np.array(rival_y)), levels[0]


def progress_in_words(row: pd.Series) -> str:
    """Say in words what one row of `progress_differences` shows, whichever way it came out."""
    much = f"{row.estimate:+z.3f} [{row.low:z.3f}, {row.high:z.3f}], by {row.part}"
    if not row.decided:
        return (f"a backtrack of `{row.method}` shows no significant difference in progress from "
                f"one of `{row.other}` ({much})")  # fmt: skip
    sort = "more" if row.estimate > 0 else "less"
    return f"a backtrack of `{row.method}` makes {sort} progress than one of `{row.other}` ({much})"


def efficiency_in_words(row: pd.Series) -> str:
    """Say in words what one row of `efficiency` shows, whichever way it came out."""
    much = times_in_words(row)
    much += "" if row.counted == COUNTED[0] else f", counted {row.counted}"
    place = f"the best vote of {row.other}, {row.accuracy:.1%}"
    if row.times_fewer == 0:
        end = "" if row.decided else "; whether it can is not decided"
        return f"{row.ours} does not reach {place}{end} ({much})"
    if not row.decided:
        return f"{row.ours} shows no significant difference in the tokens to {place} ({much})"
    return f"{row.ours} needs {'fewer' if row.low > 1 else 'more'} tokens to {place} ({much})"


def told(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `efficiency` that are told in words, none of them against the base.

    Those in generated tokens, as the paper counts, and what is decided in the others.
    """
    of_base = table["other"].str.startswith("base ") & ~table["ours"].str.startswith("base ")
    return table[((table["counted"] == COUNTED[0]) | table["decided"]) & ~of_base]


def crossed(table: pd.DataFrame, column: str) -> tuple[Array, Array]:
    """Return the means (S, P) of a column over a problem's rows, and the problems' levels (P,).

    Problems without a row at one of the seeds are left out.

    Raises:
        ValueError: no problem has a row at every seed.
    """
    means = _by_seed(table, column)
    if means.empty:
        raise ValueError(f"no problem has a value of {column!r} at every seed; evaluate more")
    return means.to_numpy().T, means.index.get_level_values("level").to_numpy()


def _by_seed(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return means by (level, problem) and seed, of the problems that have a row at every seed."""
    index = ["level", "problem"]
    return table.astype({column: float}).pivot_table(column, index, "seed", sort=False).dropna()


def paired(ours: pd.DataFrame, other: pd.DataFrame, column: str) -> tuple[Array, Array, Array]:
    """Return two sides' means (S, P) at the seeds and problems that both have, and the levels.

    A side with one seed, as the base is, stands beside every seed of the other.
    """
    first, second = (_by_seed(side, column) for side in (ours, other))
    index = first.index.intersection(second.index, sort=False)
    first, second = first.loc[index], second.loc[index]
    if min(first.shape[1], second.shape[1]) > 1:
        seeds = first.columns.intersection(second.columns)
        first, second = first[seeds], second[seeds]
    shape = max(first.shape[1], second.shape[1]), len(index)
    levels = index.get_level_values("level").to_numpy()
    return (*(np.broadcast_to(side.to_numpy().T, shape) for side in (first, second)), levels)
