"""Answers of the meta-prover, one by one: drawn at boundaries of recorded rollouts, and stored.

Where `prover.sampled` keeps counts, the votes of several answers need each of them. Everything is
stored in shards keyed by the rollouts themselves, so a second call only reads.
"""

import time
from collections.abc import Mapping, Sequence

import pandas as pd

from mrtlib.config import Profile
from mrtlib.evaluate import Evaluator
from mrtlib.probes import Probe
from mrtlib.problems import Problem, grade, load_problems
from mrtlib.rollouts import Reader
from mrtlib.store import Shards, work_key

SHARD = 20  # rollouts
LABELS = ("method", "seed", "level", "problem", "sample")


def problems_by_id(profile: Profile, limit: int | None = None) -> dict[str, Problem]:
    """Return the test problems by id, in the order of their file, at most `limit` a level."""
    return {p.id: p for p in load_problems(profile.problems / "test.jsonl", limit)}


def subset(profile: Profile, rollouts: pd.DataFrame, per_level: int) -> pd.DataFrame:
    """Return the first rollout of the first `per_level` evaluated problems of each level.

    Raises:
        ValueError: one of these problems has no rollout.
    """
    wanted = list(problems_by_id(profile, min(per_level, profile.data.test)))
    first = rollouts[rollouts["sample"] == 0].set_index("problem", drop=False)
    missing = [name for name in wanted if name not in first.index]
    if missing:
        raise ValueError(f"no rollout of {missing[0]} and {len(missing) - 1} more; evaluate first")
    return first.loc[wanted].reset_index(drop=True)


def probe_of(reader: Reader, row: Mapping, problem: Problem) -> Probe:
    """Return the probe of one record of the `rollouts` schema."""
    ids = [int(i) for i in row["token_ids"]]
    return Probe(
        [int(i) for i in row["prompt_ids"]], ids[: row["trace_tokens"]],
        [int(t) for t in row["boundaries"]], bool(row["closed"]), reader.references(problem),
    )  # fmt: skip


def draw(
    evaluator: Evaluator,
    rollouts: pd.DataFrame,
    places: Sequence[Sequence[int]],
    answers: int,
    seed: int,
) -> list[dict]:
    """Draw answers of mu at boundaries of recorded rollouts; return rows of `answers`.

    Args:
        rollouts: records of the `rollouts` schema, N of them.
        places: (N,) the boundaries j of each, 0 being no thinking at all.
        answers: K, how many at each boundary.
    """
    profile, reader = evaluator.profile, evaluator.reader
    problems, termination = problems_by_id(profile), evaluator.termination
    spots = [
        (row, probe_of(reader, row, problems[row["problem"]]), j)
        for row, js in zip(rollouts.to_dict("records"), places, strict=True)
        for j in js
    ]
    drawn = evaluator.sampler.sample(
        [termination.prompt(probe, j) for _, probe, j in spots], answers,
        profile.thinking.answer_tokens, profile.prover.temperature, 1.0,
        reader.end_ids, seed,
    )  # fmt: skip
    rows = []
    for (row, probe, j), group in zip(spots, drawn, strict=True):
        for k, sample in enumerate(group):
            words = termination.answer(sample.token_ids)
            result, size = grade(problems[row["problem"]], words), len(sample.token_ids)
            rows.append({name: row[name] for name in LABELS} | {
                "j": j, "tokens": probe.ends[j], "k": k, "answer": result.answer,
                "correct": result.correct, "logprob": sum(sample.logprobs) / size,
                "kind": probe.kind(j), "answer_tokens": size,
            })  # fmt: skip
    return rows


def everywhere(profile: Profile, rollouts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return `profile.prover.samples` answers at every boundary of the base's rollouts.

    Reads what is stored and draws the rest, with the time it will still take.

    Args:
        rollouts: records of the base, as `subset` gives them.
    """
    shards = Shards(profile.runs / "answers", "answers")
    parts = [rollouts[i : i + SHARD] for i in range(0, len(rollouts), SHARD)]
    keys = [_key(profile, part, seed) for part in parts]
    missing = [i for i, key in enumerate(keys) if not shards.has(key)]
    evaluator = Evaluator.load(profile, "base", 0, None) if missing else None
    began = time.monotonic()
    for done, i in enumerate(missing, start=1):
        places = [range(len(ends) + 1) for ends in parts[i]["boundaries"]]
        at = int(keys[i][:12], 16)  # a seed of its own for each part
        shards.write(keys[i], draw(evaluator, parts[i], places, profile.prover.samples, at))
        left = (time.monotonic() - began) / done * (len(missing) - done)
        print(f"answers: part {done} of {len(missing)}, {left:.0f} s left", flush=True)
    return shards.read(keys)


def _key(profile: Profile, part: pd.DataFrame, seed: int) -> str:
    """Return the shard's key: other rollouts, settings or seed, another shard."""
    return work_key(
        rollouts=[[int(i) for i in ids] for ids in part["token_ids"]],
        problems=part["problem"].tolist(), thinking=repr(profile.thinking),
        prover=repr(profile.prover), model=profile.model.name, seed=seed,
    )  # fmt: skip
