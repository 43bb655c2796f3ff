"""Answers of the meta-prover, one by one: drawn at boundaries of recorded rollouts, and stored.

They are stored in shards whose keys depend on the rollouts themselves, so a second call only reads.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import pandas as pd

from mrtlib.config import Profile, key_texts
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.models.loading import work_keys
from mrtlib.rollouts import of_record
from mrtlib.shards import Shards, complete
from mrtlib.store import MEASURE, TRACE, content_seed
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Problem, as_record, load_problems

SHARD = 20  # rollouts


def problems_by_id(profile: Profile, limit: int | None = None) -> dict[str, Problem]:
    """Return the test problems by id, in the order of their file, at most `limit` a level."""
    return {p.id: p for p in load_problems(profile.problems / "test.jsonl", limit)}


def first_rollouts(profile: Profile, rollouts: pd.DataFrame, per_level: int) -> pd.DataFrame:
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


def draw_answers(
    evaluator: Evaluator, rollouts: pd.DataFrame, places: Sequence[Sequence[int]], answers: int,
    seed: int,
) -> list[dict]:  # fmt: skip
    """Draw answers of mu at boundaries of recorded rollouts; return rows of the `answers` schema.

    Args:
        rollouts: records of the `rollouts` schema, N of them.
        places: (N,) the boundaries j of each, 0 being no thinking at all.
        answers: K, how many at each boundary.
    """
    prover, termination = evaluator.prover, evaluator.prover.termination
    problems = problems_by_id(evaluator.profile)
    spots = [
        (row, prover.probe(of_record(row, problems[row["problem"]])), j)
        for row, js in zip(rollouts.to_dict("records"), places, strict=True)
        for j in js
    ]
    drawn = prover.draw([termination.prompt(probe, j) for _, probe, j in spots], answers, seed)
    rows = []
    for (row, probe, j), group in zip(spots, drawn, strict=True):
        for k, sample in enumerate(group):
            text = termination.answer(sample.token_ids)
            result, size = grade(problems[row["problem"]], text), len(sample.token_ids)
            rows.append({name: row[name] for name in TRACE} | {
                "j": j, "tokens": probe.ends[j], "k": k, "answer": result.answer,
                "correct": result.correct, "logprob": sum(sample.logprobs) / size,
                "kind": probe.kind(j), "answer_tokens": size,
            })  # fmt: skip
    return rows


def at_every_boundary(profile: Profile, rollouts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return `profile.prover.samples` answers at every boundary of the base's rollouts.

    Reads what is stored and draws the rest, with an estimate of the time left.

    Args:
        rollouts: records of the base, as `first_rollouts` gives them.
    """
    parts = [rollouts[i : i + SHARD] for i in range(0, len(rollouts), SHARD)]
    keys = work_keys(profile, "model thinking prover", [known_of(profile, p, seed) for p in parts])
    load = cache(partial(Evaluator.load, profile, "base", 0, None))  # if there is something to draw

    def answers(i: int) -> dict[str, list[dict]]:
        """Draw the answers of a part, with a seed of its own."""
        places = [range(len(ends) + 1) for ends in parts[i]["boundaries"]]
        own = draw_seed(profile, parts[i], seed)
        return {"answers": draw_answers(load(), parts[i], places, profile.prover.samples, own)}

    shards = Shards(profile.runs / "answers", "answers")
    complete({"answers": shards}, keys, answers, "answers")
    return shards.read(keys)


def drawn_from(part: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Return what answers to recorded rollouts depend on beside model and settings."""
    rollouts = [[int(i) for i in ids] for ids in part["token_ids"]]
    return {"rollouts": rollouts, "problems": part["problem"].tolist(), "seed": seed}


def known_of(profile: Profile, part: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Return what decides graded answers to recorded rollouts beside model and settings.

    The seed of a draw (`drawn_from`) does not depend on the problems' content; what is kept does.
    """
    known = problems_by_id(profile)
    asked = [as_record(known[name]) for name in sorted(set(part["problem"]))]
    return drawn_from(part, seed) | {"asked": asked}


def draw_seed(profile: Profile, part: pd.DataFrame, seed: int) -> int:
    """Return the seed of a part's draws: a function of rollouts and settings, not of weights."""
    settings = key_texts(profile, "thinking prover") | {"model": profile.model.name}
    return content_seed(measure=MEASURE, **settings, **drawn_from(part, seed))
