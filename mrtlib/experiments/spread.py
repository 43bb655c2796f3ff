"""Training problems of which a group of the base has spread: some rollouts right, some wrong.

Of the others a group pays nothing for its outcome, as all its rollouts get the same. DAPO (arXiv
2503.14476) samples on until a step has none of them; here they are left out once, before training.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from mrtlib.config import Profile
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.models.loading import work_keys
from mrtlib.rollouts import Rollout
from mrtlib.shards import Shards, complete
from mrtlib.tasks.problems import (
    SPLIT_NAMES,
    Problem,
    ProblemError,
    as_record,
    load_problems,
    write_problems,
)
from mrtlib.training.source import training_problems

MEASURE = "natural_accuracy"  # of a group
NONE, ALL = 0.0, 1.0


def as_in_training(profile: Profile) -> Profile:
    """Return a profile that evaluates with groups as they are sampled in training."""
    training = profile.training
    return replace(profile, evaluation=replace(
        profile.evaluation, samples=training.group_size, temperature=training.temperature,
        top_p=1.0, extensions=0, context=0,
    ))  # fmt: skip


def shares_right(profile: Profile, problems: Sequence[Problem], seed: int) -> dict[str, float]:
    """Return the share of right rollouts in a group of the base, for each problem.

    Sampled part by part, from what is on record on; says how far it is.

    Args:
        seed: of the rollouts.
    """
    own = as_in_training(profile)
    size = own.evaluation.shard
    parts = [problems[i : i + size] for i in range(0, len(problems), size)]
    contents = [{"problems": [as_record(p) for p in part], "seed": seed} for part in parts]
    keys = work_keys(own, "model evaluation thinking", contents)
    shards = Shards(own.runs / "spread" / "measures", "measures")

    @cache
    def evaluator() -> Evaluator:
        """Load the model when there is something to sample."""
        return Evaluator.load(own, "base", seed, None)

    def sample(i: int) -> dict[str, list[dict]]:
        groups = evaluator().rollouts(parts[i])
        return {"measures": [row(group, seed, own.thinking.budget) for group in groups]}

    complete({"measures": shards}, keys, sample, "groups of the base")
    found = shards.read(keys)
    return dict(zip(found["problem"], found["value"], strict=True))


def row(group: Sequence[Rollout], seed: int, budget: int) -> dict:
    """Return how much of a group is right, as a row of `measures`."""
    problem, right = group[0].problem, sum(r.grade.correct for r in group)
    return {"part": "base", "method": "base", "seed": seed, "set": "train",
            "level": problem.level, "problem": problem.id, "measure": MEASURE, "budget": budget,
            "value": right / len(group), "n": len(group)}  # fmt: skip


def with_spread(profile: Profile, seed: int) -> list[Problem]:
    """Return the training problems of which a group of the base has spread."""
    problems = training_problems(profile)
    shares = shares_right(profile, problems, seed)
    return [problem for problem in problems if NONE < shares[problem.id] < ALL]


def write_with_spread(profile: Profile, seed: int, name: str) -> dict[str, int]:
    """Write `with_spread` beside the training problems; return how many of each level there are.

    `data.train_files = [name]` in a profile then trains on them alone.

    Args:
        name: of the file, without ".jsonl".

    Raises:
        ProblemError: the name is none of a file of training problems; the file is there already
            and has other problems; or there are none to write, as the base is right always or
            never.
    """
    if not re.fullmatch(r"\w[\w.-]*", name) or name in SPLIT_NAMES:  # before hours of sampling
        raise ProblemError(f"{name!r} cannot be the name of a file of training problems; give "
                           "--name one of letters, digits, '.', '_' and '-', not one of "
                           + ", ".join(SPLIT_NAMES))  # fmt: skip
    path = profile.problems / f"{name}.jsonl"
    problems = with_spread(profile, seed)
    if not problems:
        raise ProblemError(
            f"in no group of {profile.training.group_size} rollouts is the base right in some and "
            "wrong in others; larger groups, or other problems, may have spread"
        )
    if path.is_file() and load_problems(path) != problems:
        raise ProblemError(
            f"{path} is there with other problems, which runs may have been trained on; give "
            "another --name"
        )
    write_problems(path, problems)
    counts = Counter(problem.level for problem in problems)
    return {level: counts[level] for level in {p.level: 0 for p in training_problems(profile)}}
