"""What the embedded reasoner can and cannot do, measured on held-out problems.

One rollout for each problem, two answers of mu (without thinking, and at a random boundary) and
the exact J_0. All of it is stored as records, so a second call only reads. The words of a trace
say how its arithmetic is, what it repeats, and when the answer was found.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib.config import ROOT, Profile
from mrtlib.episodes import Decode
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.evaluation.tables import said
from mrtlib.experiments.answers import draw, problems_by_id
from mrtlib.experiments.episode_analysis import Example
from mrtlib.models.loading import work_key
from mrtlib.prover.prover import progress_rows
from mrtlib.reasoner.lessons import Recipe
from mrtlib.reasoner.making import make
from mrtlib.stats import Interval, proportion, two_way
from mrtlib.store import TRACE, Shards, complete, read_json
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Grade, Problem

TABLES = {"rollouts": "rollouts", "direct": "answers", "cut": "answers", "progress": "progress"}
SHARD = 125  # problems
# name -> (at least, at most): what the committed reasoner must meet.
LIMITS = {
    "arithmetic steps right": (0.99, None),
    "forced answers that parse": (0.99, None),
    "natural answers that parse": (0.99, None),
    "accuracy at C0": (0.30, 0.80),
    "accuracy at C0, three": (0.50, None),
    "accuracy at C0, four": (None, 0.50),
    "exact J without thinking": (None, None),
    "sampled, without thinking": (None, None),
    "gained by thinking": (0.15, None),
    "wasted episodes": (0.15, None),
}
EPISODES = (4.0, 8.0)
NO_SHARE = ("gained by thinking", "episodes")
STEP = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")
WORKS = re.compile(r"So ([^.\n]{1,100}) works\.")


def arithmetic(text: str) -> list[bool]:
    """Return for each step "a op b = c" in natural numbers whether it is right."""
    return [
        {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(c)
        for a, sign, b, c in STEP.findall(text)
    ]


def wasted(episodes: Sequence[str], problem: Problem) -> list[bool]:
    """Return for each episode whether it repeats an earlier one's steps or follows the answer.

    The answer is found where an episode says of a right expression that it works.
    """
    seen, solved, out = set(), False, []
    for words in episodes:
        steps = tuple(STEP.findall(words))
        out.append(solved or (bool(steps) and steps in seen))
        seen.add(steps)
        solved = solved or any(_grade(problem, e).correct for e in WORKS.findall(words))
    return out


def parses(problem: Problem, answer: str | None) -> bool:
    """Say whether an answer can be read at all, right or not."""
    return answer is not None and _grade(problem, answer).reason not in ("unboxed", "unparsable")


def _grade(problem: Problem, answer: str) -> Grade:
    return grade(problem, f"\\boxed{{{answer}}}")


def episodes_of(row: pd.Series, decode: Decode) -> list[str]:
    """Return the words of each episode of a record of `rollouts`."""
    ends = [0, *row["boundaries"]]
    return [decode(row["token_ids"][a:b].tolist()) for a, b in zip(ends, ends[1:], strict=False)]


def retrain(profile: Profile, recipe: Recipe) -> Profile:
    """Make the reasoner anew from nothing; return the profile with that model.

    Goes on from the last checkpoint in the profile's runs, and writes the model beside it; the
    committed one is left alone.
    """
    folder = profile.runs / "reasoner"
    make(recipe, folder, folder / "model")
    made = folder / "model"
    name = made.relative_to(ROOT) if made.is_relative_to(ROOT) else made
    return replace(profile, model=replace(profile.model, name=str(name)))


def loss_curve(profile: Profile) -> pd.DataFrame:
    """Return the training loss of the profile's reasoner: step, tokens, loss."""
    return pd.DataFrame(read_json(Path(profile.model_path) / "training.json")["log"])


def card_records(profile: Profile, seed: int) -> dict[str, pd.DataFrame]:
    """Return the records of the card: rollouts, direct and cut answers, progress (J_0 alone).

    Twice the evaluation's problems, as each gets one rollout only.
    """
    # One rollout a problem: the card is about problems, not about the spread within one.
    own = replace(profile, evaluation=replace(profile.evaluation, samples=1))
    problems = list(problems_by_id(own, 2 * own.data.test).values())
    parts = [problems[i : i + SHARD] for i in range(0, len(problems), SHARD)]
    keys = [
        work_key(own, "model thinking evaluation", problems=[p.id for p in part], seed=seed)
        for part in parts
    ]

    @cache
    def evaluator() -> Evaluator:
        """Load the model when there is something to measure."""
        return Evaluator.load(own, "base", seed, None)

    def records(i: int) -> dict[str, list[dict]]:
        """Measure a part, with a seed of its own."""
        return _part_records(evaluator(), parts[i], int(keys[i][:12], 16))

    shards = {n: Shards(profile.runs / "card" / n, schema) for n, schema in TABLES.items()}
    complete(shards, keys, records, "reasoner card")
    return {name: shard.read(keys) for name, shard in shards.items()}


def _part_records(evaluator: Evaluator, problems: list[Problem], at: int) -> dict[str, list[dict]]:
    rollouts = [group[0] for group in evaluator.rollouts(problems)]
    rows = [evaluator.reader.row(r, "base", evaluator.seed, 0) for r in rollouts]
    table, rng = pd.DataFrame(rows), np.random.default_rng(at)
    cuts = [[int(rng.integers(row["episodes"] + 1))] for row in rows]
    bare = [replace(rollout, boundaries=[]) for rollout in rollouts]  # J_0 alone
    J = evaluator.prover.exact(bare)
    return {
        "rollouts": rows,
        "direct": draw(evaluator, table, [[0]] * len(rows), 1, at),
        "cut": draw(evaluator, table, cuts, 1, at + 1),
        "progress": [
            record
            for row, start, values in zip(rows, bare, J, strict=True)
            for record in progress_rows(
                {n: row[n] for n in TRACE}, evaluator.prover.probe(start), values
            )
        ],
    }


def per_problem(records: dict[str, pd.DataFrame], profile: Profile, decode: Decode) -> pd.DataFrame:
    """Return the samples of every measure, a row a problem; a measure it lacks is empty.

    Args:
        records: from `measured`.
        decode: ids to text, special tokens kept.
    """
    problems, rollouts = problems_by_id(profile), records["rollouts"].set_index("problem")
    direct, cut, start = (records[n].set_index("problem") for n in ("direct", "cut", "progress"))
    rows = []
    for name, row in rollouts.iterrows():
        problem, words = problems[name], episodes_of(row, decode)
        forced = [cut["answer"][name]] if cut["kind"][name] == "forced" else []
        right, J = float(row["correct"]), start["J"][name]
        rows.append({
            "problem": name,
            "level": row["level"],
            "arithmetic steps right": arithmetic("".join(words)),
            "forced answers that parse": [
                parses(problem, a) for a in (direct["answer"][name], *forced)
            ],
            "natural answers that parse": [parses(problem, row["answer"])] * row["closed"],
            "accuracy at C0": [right],
            f"accuracy at C0, {row['level']}": [right],
            "exact J without thinking": [J],
            "sampled, without thinking": [float(direct["correct"][name])],
            "gained by thinking": [right - J],
            "wasted episodes": wasted(words, problem),
            "episodes": [len(words)],
        })  # fmt: skip
    return pd.DataFrame(rows)


def card(samples: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Return the card: name, estimate, low, high, at_least, at_most (NaN: no threshold).

    Means over problems with their intervals, NaN where there was nothing to measure; all are shares
    but "episodes", a count, and "gained by thinking", a difference.

    Args:
        samples: from `per_problem`.
    """
    limits = LIMITS if profile.name == "tiny" else dict.fromkeys(LIMITS, (None, None))
    levels = [f"accuracy at C0, {level}" for level in profile.data.levels]
    rows = []
    for name in dict.fromkeys([*LIMITS, *levels, "episodes"]):
        if name not in samples:  # a level that this profile does not have
            continue
        least, most = limits.get(name, EPISODES if profile.name == "tiny" else (None, None))
        rows.append({"name": name, **_over_problems(samples, name).row(),
                     "at_least": least, "at_most": most})  # fmt: skip
    return pd.DataFrame(rows).astype({"at_least": float, "at_most": float})


def _over_problems(samples: pd.DataFrame, name: str) -> Interval:
    """Return the mean of one measure over the problems that have it."""
    has = samples[name].map(lambda own: isinstance(own, list) and len(own) > 0)
    if not has.any():  # no trace ended by itself, say: no number, and it meets no threshold
        return Interval(np.nan, np.nan, np.nan)
    values = samples.loc[has, name].map(np.mean).to_numpy(float)[None]
    # Only what all problems have, has a fixed number of them on each level.
    levels = samples["level"] if has.all() else None
    return (proportion if name not in NO_SHARE else two_way)(values, levels)


def card_in_words(table: pd.DataFrame) -> str:
    """Return notebook 00's answer in words, with its numbers: Markdown."""
    row = table.set_index("name").T
    levels = [name for name in row if name.startswith("accuracy at C0, ")]
    by_level = ", ".join(f"{name.split(', ')[1]} {said(row[name])}" for name in levels)
    return (
        f"**Answer.** It solves {said(row['accuracy at C0'])} of held-out problems within C0 "
        f"({by_level}), and {said(row['exact J without thinking'])} without thinking. "
        f"{row['arithmetic steps right']['estimate']:.1%} of its arithmetic is right. It answers "
        f"wherever it is cut: {row['forced answers that parse']['estimate']:.1%} of forced answers "
        f"can be read. A trace has {said(row['episodes'])} episodes, of which "
        f"{said(row['wasted episodes'])} are wasted: that is the room for training. "
        "(95 % intervals, over problems.)"
    )


def examples(records: dict[str, pd.DataFrame], profile: Profile, decode: Decode) -> list[Example]:
    """Return up to three rollouts to look at, the first of each kind in the order of the file.

    Kinds: right with wasted episodes, on the first level and on the last; and wrong.
    """
    rollouts, problems = records["rollouts"], problems_by_id(profile)
    chosen: dict[str, Example] = {}
    for _, row in rollouts.iterrows():
        words, problem = episodes_of(row, decode), problems[row["problem"]]
        waste = wasted(words, problem)
        kind = f"right, {row['level']}" if row["correct"] else "wrong"
        if any(waste) and row["closed"]:
            ending = f"Answer: {row['answer']}"
            chosen.setdefault(kind, Example(f"{problem.question} ({kind})", words, waste, ending))
    return list(chosen.values())[:3]
