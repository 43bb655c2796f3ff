"""What the embedded reasoner can and cannot do, measured on held-out problems.

One rollout for each problem, two answers of mu (without thinking, and at a random boundary) and
the exact J_0. All of it is stored as records, so a second call only reads.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib import prover
from mrtlib.answers import LABELS, draw, probe_of, problems_by_id
from mrtlib.card_page import Example
from mrtlib.config import ROOT, Profile
from mrtlib.evaluate import Evaluator
from mrtlib.findings import checked, row_of, said
from mrtlib.lessons import Recipe
from mrtlib.problems import Problem
from mrtlib.reasoner import make
from mrtlib.stats import Interval, share, two_way
from mrtlib.store import Shards, file_hashes, read_json, work_key
from mrtlib.trace_reading import Decode, arithmetic, episodes_of, parses, wasted

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


def retrain(profile: Profile, recipe: Recipe) -> Profile:
    """Make the reasoner anew from nothing; return the profile with that model.

    Goes on from the last checkpoint in the profile's runs, and writes the model beside it; the
    committed one is left alone.
    """
    folder = profile.runs / "reasoner"
    make(recipe, folder, folder / "model")
    name = str((folder / "model").relative_to(ROOT))
    return replace(profile, model=replace(profile.model, name=name))


def loss_curve(profile: Profile) -> pd.DataFrame:
    """Return the training loss of the profile's reasoner: step, tokens, loss."""
    return pd.DataFrame(read_json(Path(profile.model_path) / "training.json")["log"])


def measured(profile: Profile, seed: int) -> dict[str, pd.DataFrame]:
    """Return the records of the card: rollouts, direct and cut answers, progress (J_0 alone).

    Twice the evaluation's problems, as each gets one rollout only.
    """
    shards = {n: Shards(profile.runs / "card" / n, schema) for n, schema in TABLES.items()}
    # One rollout a problem: the card is about problems, not about the spread within one.
    profile = replace(profile, evaluation=replace(profile.evaluation, samples=1))
    problems = list(problems_by_id(profile, 2 * profile.data.test).values())
    parts = [problems[i : i + SHARD] for i in range(0, len(problems), SHARD)]
    keys = [_key(profile, part, seed) for part in parts]
    missing = [i for i, key in enumerate(keys) if not shards["progress"].has(key)]
    evaluator = Evaluator.load(profile, "base", seed, None) if missing else None
    began = time.monotonic()
    for done, i in enumerate(missing, start=1):
        at = int(keys[i][:12], 16)  # a seed of its own for each part
        for name, rows in _measure(evaluator, parts[i], at).items():  # progress comes last
            shards[name].write(keys[i], rows)
        left = (time.monotonic() - began) / done * (len(missing) - done)
        print(f"reasoner card: part {done} of {len(missing)}, {left:.0f} s left", flush=True)
    return {name: shard.read(keys) for name, shard in shards.items()}


def _key(profile: Profile, part: Sequence[Problem], seed: int) -> str:
    folder = Path(profile.model_path)
    weights = file_hashes([folder / "model.safetensors"], folder) if folder.is_dir() else {}
    return work_key(
        problems=[p.id for p in part], model=repr(profile.model), weights=weights, seed=seed,
        thinking=repr(profile.thinking), evaluation=repr(profile.evaluation),
    )  # fmt: skip


def _measure(evaluator: Evaluator, problems: list[Problem], at: int) -> dict[str, list[dict]]:
    rollouts = [group[0] for group in evaluator.rollouts(problems)]
    rows = [evaluator.reader.row(r, "base", evaluator.seed, 0) for r in rollouts]
    table, rng = pd.DataFrame(rows), np.random.default_rng(at)
    cuts = [[int(rng.integers(row["episodes"] + 1))] for row in rows]
    bare = [
        replace(probe_of(evaluator.reader, row, p), trace_ids=[], boundaries=[], natural=False)
        for row, p in zip(rows, problems, strict=True)
    ]
    settings = evaluator.profile.prover
    J = prover.exact_for(evaluator.model)(
        evaluator.model, bare, evaluator.termination, settings.temperature, settings.pack_tokens
    )  # fmt: skip
    return {
        "rollouts": rows,
        "direct": draw(evaluator, table, [[0]] * len(rows), 1, at),
        "cut": draw(evaluator, table, cuts, 1, at + 1),
        "progress": [
            record
            for row, probe, values in zip(rows, bare, J, strict=True)
            for record in prover.records({n: row[n] for n in LABELS}, probe, values)
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
        rows.append({"name": name, **row_of(_over_problems(samples, name)),
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
    return (share if name not in NO_SHARE else two_way)(values, levels)


def claims(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the card claims: its thresholds, and that every share is one."""
    shares = table[table["name"] != "episodes"]
    rows = [("smallest end of an interval of a share", shares["low"].min(), -1.0, 1.0),
            ("largest end of an interval of a share", shares["high"].max(), -1.0, 1.0)]  # fmt: skip
    bound = table.dropna(subset=["at_least", "at_most"], how="all")
    rows += [
        (r.name, r.estimate, -np.inf if np.isnan(r.at_least) else r.at_least,
         np.inf if np.isnan(r.at_most) else r.at_most)
        for r in bound.itertuples(index=False)
    ]  # fmt: skip
    return checked(rows)


def answer(table: pd.DataFrame) -> str:
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
