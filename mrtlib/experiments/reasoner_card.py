"""What the embedded reasoner can and cannot do, measured on held-out problems.

For each problem one rollout, two answers of mu (without thinking, and at a random boundary) and
the exact J_0. All of it is stored as records, so a second call only reads. The text of a trace
shows whether its arithmetic is right, what it repeats, and where it finds the answer.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib.config import ROOT, Profile
from mrtlib.episodes import Decode
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.evaluation.tables import said
from mrtlib.experiments.answers import draw_answers, problems_by_id
from mrtlib.experiments.episode_analysis import Example
from mrtlib.models.loading import work_keys
from mrtlib.prover.prover import progress_rows
from mrtlib.reasoner.lessons import Recipe
from mrtlib.reasoner.making import make
from mrtlib.shards import Shards, complete
from mrtlib.stats import Interval, proportion, two_way
from mrtlib.store import content_seed, read_json
from mrtlib.tasks.countdown import value
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Grade, Problem, as_record

TABLES = {"rollouts": "rollouts", "direct": "answers", "cut": "answers", "progress": "progress"}
SHARD = 125  # problems
# name -> (at least, at most), for the committed reasoner.
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


LOG = "training.json"  # beside a model that was made here


def arithmetic(text: str) -> list[bool]:
    """Return for each step "a op b = c" in natural numbers whether it is right."""
    return [value((sign, int(a), int(b))) == int(c) for a, sign, b, c in STEP.findall(text)]


def wasted(episodes: Sequence[str], problem: Problem) -> list[bool]:
    """Return for each episode whether it repeats an earlier one's steps or follows the answer.

    The answer is found where an episode says that a right expression works.
    """
    seen, solved, out = set(), False, []
    for text in episodes:
        steps = tuple(STEP.findall(text))
        out.append(solved or (bool(steps) and steps in seen))
        seen.add(steps)
        solved = solved or any(_grade(problem, e).correct for e in WORKS.findall(text))
    return out


def parses(problem: Problem, answer: str | None) -> bool:
    """Say whether an answer can be read at all, right or not."""
    return answer is not None and _grade(problem, answer).reason not in ("unboxed", "unparsable")


def _grade(problem: Problem, answer: str) -> Grade:
    return grade(problem, f"\\boxed{{{answer}}}")


def episodes_of(row: pd.Series, decode: Decode) -> list[str]:
    """Return the text of each episode of a record of `rollouts`."""
    ends = pairwise([0, *row["boundaries"]])
    return [decode(row["token_ids"][a:b].tolist()) for a, b in ends]


def retrain(profile: Profile, recipe: Recipe) -> Profile:
    """Make the reasoner anew; return the profile with that model.

    Goes on from the last checkpoint in the profile's runs, and writes the model beside it. The
    committed one is left alone.
    """
    folder = profile.runs / "reasoner"
    make(recipe, folder, folder / "model")
    made = folder / "model"
    name = made.relative_to(ROOT) if made.is_relative_to(ROOT) else made
    return replace(profile, model=replace(profile.model, name=str(name)))


HOW_MADE = """A stock Llama (about a million weights, width 128) with a word-level tokenizer, in
which every number is one token, learns to predict the next token of written-out searches over
**Countdown**: *reach 22 with 3, 5, 7*. The searchers are wasteful on purpose. They make attempts
in poor order, repeat attempts, go on after the answer was found, and give up early. Some traces
are cut at a paragraph or in the middle of one, and answered at once, so that the model can answer
wherever its thinking is stopped. The last part of the training sees the weights rounded to 4
bits.

With `retrain = True` all of this is done again from a seed, goes on where it was cut off, and says
how long it will take. The committed model is left alone; the rest of the notebook then measures
the new one."""


def origin_in_words(profile: Profile) -> str:
    """Return where the profile's model comes from: how it was made, where that is on record."""
    if (Path(profile.model_path) / LOG).is_file():
        return HOW_MADE
    model = profile.model
    revision = "" if Path(profile.model_path).is_dir() else f", revision `{model.revision}`"
    bits = "in 4 bits" if model.quantization == "nf4" else f"in {model.dtype}"
    return f"`{model.name}`{revision}, loaded {bits}. How it was made is not on record here."


def loss_curve(profile: Profile) -> pd.DataFrame:
    """Return the training loss of the embedded reasoner: step, tokens, loss; no rows of another."""
    path = Path(profile.model_path) / LOG
    log = read_json(path)["log"] if path.is_file() else []
    return pd.DataFrame(log, columns=["step", "tokens", "loss"])


def card_records(profile: Profile, seed: int) -> dict[str, pd.DataFrame]:
    """Return the records of the card: rollouts, direct and cut answers, progress (J_0 alone).

    Of twice as many problems as the evaluation has, as each gets one rollout only: the card is
    about problems, not about the variance within them.
    """
    own = replace(profile, evaluation=replace(profile.evaluation, samples=1))
    problems = list(problems_by_id(own, 2 * own.data.test).values())
    parts = [problems[i : i + SHARD] for i in range(0, len(problems), SHARD)]
    contents = [{"problems": [as_record(p) for p in part], "seed": seed} for part in parts]
    keys = work_keys(own, "model thinking evaluation", contents)
    load = cache(partial(Evaluator.load, own, "base", seed, None))  # if there is something to do
    shards = {n: Shards(profile.runs / "card" / n, schema) for n, schema in TABLES.items()}
    complete(shards, keys, lambda i: _records(load(), parts[i], _seed(seed, parts[i])),
             "reasoner card")  # fmt: skip
    return {name: shard.read(keys) for name, shard in shards.items()}


def _seed(seed: int, problems: list[Problem]) -> int:
    return content_seed(seed=seed, at=problems[0].id, draws="card")


def _records(evaluator: Evaluator, problems: list[Problem], seed: int) -> dict[str, list[dict]]:
    """Return the rows of every table for some problems; answers are drawn with the seed."""
    rollouts = [group[0] for group in evaluator.rollouts(problems)]
    rows = [evaluator.reader.row(r, "base", evaluator.seed, 0) for r in rollouts]
    table, rng = pd.DataFrame(rows), np.random.default_rng(seed)
    cuts = [[int(rng.integers(row["episodes"] + 1))] for row in rows]
    bare = [replace(rollout, boundaries=[]) for rollout in rollouts]  # J_0 alone
    J = evaluator.prover.exact(bare)
    return {
        "rollouts": rows,
        "direct": draw_answers(evaluator, table, [[0]] * len(rows), 1, seed),
        "cut": draw_answers(evaluator, table, cuts, 1, seed + 1),
        "progress": [
            row
            for r, start in zip(bare, J, strict=True)
            for row in progress_rows(r.labels("base", evaluator.seed, 0),
                                     evaluator.prover.probe(r), start)
        ],
    }  # fmt: skip


def per_problem(records: dict[str, pd.DataFrame], profile: Profile, decode: Decode) -> pd.DataFrame:
    """Return the samples of every measure: a row for each problem, [] for a measure it lacks.

    Args:
        records: from `card_records`.
        decode: ids to text, special tokens kept.
    """
    problems, rollouts = problems_by_id(profile), records["rollouts"].set_index("problem")
    direct, cut, start = (records[n].set_index("problem") for n in ("direct", "cut", "progress"))
    rows = []
    for name, row in rollouts.iterrows():
        problem, episodes = problems[name], episodes_of(row, decode)
        forced = [cut["answer"][name]] if cut["kind"][name] == "forced" else []
        right, J = float(row["correct"]), start["J"][name]
        rows.append({
            "problem": name,
            "level": row["level"],
            "arithmetic steps right": arithmetic("".join(episodes)),
            "forced answers that parse": [
                parses(problem, a) for a in (direct["answer"][name], *forced)
            ],
            "natural answers that parse": [parses(problem, row["answer"])] * row["closed"],
            "accuracy at C0": [right],
            f"accuracy at C0, {row['level']}": [right],
            "exact J without thinking": [J],
            "sampled, without thinking": [float(direct["correct"][name])],
            "gained by thinking": [right - J],
            "wasted episodes": wasted(episodes, problem),
            "episodes": [len(episodes)],
        })  # fmt: skip
    return pd.DataFrame(rows)


def card(samples: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Return the card: name, estimate, low, high, at_least, at_most (NaN: no threshold).

    Means over problems with their intervals, NaN where there was nothing to measure. All are shares
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
    if not has.any():  # no trace ended by itself, say; NaN meets no threshold
        return Interval(np.nan, np.nan, np.nan)
    values = samples.loc[has, name].map(np.mean).to_numpy(float)[None]
    # The number of problems of a level is fixed only where all have the measure.
    levels = samples["level"] if has.all() else None
    return (proportion if name not in NO_SHARE else two_way)(values, levels)


def card_in_words(table: pd.DataFrame) -> str:
    """Return notebook 00's answer in words, with its numbers: Markdown."""
    row = table.set_index("name").T
    levels = [name for name in row if name.startswith("accuracy at C0, ")]
    by_level = ", ".join(f"{name.split(', ')[1]} {said(row[name])}" for name in levels)
    steps, forced = row["arithmetic steps right"], row["forced answers that parse"]
    arithmetic = "It writes no arithmetic steps" if np.isnan(steps["estimate"]) else (
        f"{steps['estimate']:.1%} of its arithmetic is right")  # fmt: skip
    return (
        f"**Answer.** It solves {said(row['accuracy at C0'])} of held-out problems within C0 "
        f"({by_level}), and {said(row['exact J without thinking'])} without thinking. "
        f"{arithmetic}. Where it is cut, {forced['estimate']:.1%} of its forced answers can be "
        f"read. A trace has {said(row['episodes'])} episodes, of which "
        f"{said(row['wasted episodes'])} are wasted; training can improve on that. "
        "(95 % intervals, over problems.)"
    )


def examples(records: dict[str, pd.DataFrame], profile: Profile, decode: Decode) -> list[Example]:
    """Return up to three rollouts with wasted episodes, the first of each kind.

    Kinds are wrong, and right on each level, in the order in which they come up.
    """
    rollouts, problems = records["rollouts"], problems_by_id(profile)
    chosen: dict[str, Example] = {}
    for _, row in rollouts.iterrows():
        episodes, problem = episodes_of(row, decode), problems[row["problem"]]
        waste = wasted(episodes, problem)
        kind = f"right, {row['level']}" if row["correct"] else "wrong"
        if any(waste) and row["closed"] and kind not in chosen:
            title, ending = f"{problem.question} ({kind})", f"Answer: {row['answer']}"
            chosen[kind] = Example(title, episodes, waste, ending)
    return list(chosen.values())[:3]
