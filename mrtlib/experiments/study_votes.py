"""Votes of the study's runs: maj@k against all tokens of the k rollouts, and what MRT saves.

The paper's figures 7 and 8: at which total of tokens does one method's vote reach the accuracy that
another's reaches in the end. Here votes are plain, of the answers that a model gives by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from mrtlib.config import Profile
from mrtlib.evaluation.comparison import Models, times_fewer
from mrtlib.evaluation.results import by_seed_and_problem, level_of_each, paired_seeds
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.evaluation.tables import decided
from mrtlib.evaluation.votes import maj_at_k
from mrtlib.experiments.measuring import Base, OfRun, metrics_from
from mrtlib.experiments.study import MAIN, compared, trainings
from mrtlib.experiments.study_logs import measures
from mrtlib.experiments.study_results import comparable, enough
from mrtlib.rollouts import Rollout
from mrtlib.stats import proportion, two_way
from mrtlib.tasks.grading import candidates
from mrtlib.tasks.problems import load_problems

MOST = 10  # rollouts of a problem: K of the paper's figures
SET = "test"
PARTS = "votes"  # folder of the parts of what is being drawn
GENERATED = "generated"  # tokens of a rollout, its answer included


@dataclass(frozen=True)
class Voting(OfRun):
    """The votes of one run on the test problems, as a task of the queue."""

    @property
    def name(self) -> str:
        """Return the run's name, as one of votes."""
        return f"vote-{self.run.name.removeprefix('train-')}"

    @property
    def size(self) -> float:
        """Return the thinking tokens at most of a problem's rollouts, for each level."""
        settings = self.settings
        count = settings.data.test * len(settings.data.levels)
        return float(count * MOST * settings.thinking.budget)

    @property
    def settings(self) -> Profile:
        """Return the settings that rollouts are drawn with."""
        whole = self.run.settings
        return replace(whole, evaluation=replace(whole.evaluation, samples=MOST, extensions=0))

    @cached_property
    def key(self) -> str:
        """Return the name of its record: the run's, and how it votes."""
        run, own = self.run, self.hash_of("evaluation thinking", SET, self.settings.data.test)
        return f"votes-{run.part.name}-{run.method}-{run.seed}-{own}"

    def do(self) -> None:
        """Draw the rollouts of every problem, part by part; put their votes on record."""
        run, settings = self.run, self.settings
        model = Evaluator.load(settings, run.method, run.seed, run.made())
        problems = load_problems(settings.problems / f"{SET}.jsonl", settings.data.test)
        size = settings.evaluation.shard
        parts = [problems[start : start + size] for start in range(0, len(problems), size)]

        def votes(i: int) -> list[dict]:
            return [row for rollouts in model.rollouts(parts[i])
                    for row in rows_of(rollouts, self.labels(SET), settings)]  # fmt: skip

        self.in_parts(PARTS, len(parts), votes)


def rows_of(rollouts: Sequence[Rollout], labels: dict, profile: Profile) -> list[dict]:
    """Return the rows of `measures` of one problem: maj@k for every k, and tokens generated.

    Args:
        rollouts: (K,) of the problem.
        labels: part, method, seed, set.
    """
    problem, count = rollouts[0].problem, len(rollouts)
    answers = candidates([r.grade.answer for r in rollouts], profile.data.family)
    correct = [r.grade.correct for r in rollouts]
    values = {f"maj@{k}": maj_at_k(answers, correct, k) for k in range(1, count + 1)}
    values[GENERATED] = float(np.mean([len(r.token_ids) for r in rollouts]))
    return [
        {**labels, "level": problem.level, "problem": problem.id, "measure": name,
         "budget": profile.thinking.budget, "value": round(value, 5), "n": count}
        for name, value in values.items()
    ]  # fmt: skip


def votings(profile: Profile) -> list[Voting]:
    """Return the tasks of voting: the base, then the main methods, *long* runs first."""
    parts = sorted((p for p in compared(profile) if p.methods == MAIN),
                   key=lambda part: part.name != "long")  # fmt: skip
    return [Voting(run) for run in (Base(profile), *trainings(profile, parts))]


def voted(profile: Profile) -> tuple[str, Models]:
    """Return the first part with three seeds of `outcome` on record, and its votes; "" for none.

    Methods with fewer than three seeds are left out; the base is among them.
    """
    record, tasks = measures(profile), votings(profile)
    for part in dict.fromkeys(task.run.part.name for task in tasks[1:]):
        models = enough({
            (task.run.method, task.run.seed): metrics_from(record.read([task.key]))
            for task in tasks
            if task.run.part.name in ("base", part) and record.has(task.key)
        })  # fmt: skip
        if any(method == "outcome" for method, _ in models):
            return part, models
    return "", {}


def _curve(models: Models, method: str, seeds: Sequence[int]) -> tuple[list[float], np.ndarray]:
    """Return total tokens (K,) and accuracies (K, S, P) of the votes of 1 ... K rollouts."""
    first = models[method, seeds[0]]
    c0 = _c0(models)
    index = first[GENERATED, c0]
    count = sum(name.startswith("maj@") for name, _ in first)

    def values(name: str) -> np.ndarray:
        own = [models[method, seed][name, c0] for seed in seeds]
        return by_seed_and_problem(own, index, "all")

    each = float(values(GENERATED).mean())
    return ([k * each for k in range(1, count + 1)],
            np.array([values(f"maj@{k}") for k in range(1, count + 1)]))  # fmt: skip


def curves(models: Models) -> pd.DataFrame:
    """Return maj@k of each method: method, votes, tokens (of k rollouts), estimate, low, high."""
    rows = []
    for method in dict.fromkeys(method for method, _ in models):
        seeds = paired_seeds(models, method, method)
        for k, (tokens, values) in enumerate(zip(*_curve(models, method, seeds), strict=True), 1):
            rows.append({"method": method, "votes": k, "tokens": tokens,
                         **proportion(values, _levels(models)).row()})  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "votes", "tokens", "estimate", "low", "high"])


def _levels(models: Models) -> np.ndarray:
    """Return the level of each problem, (P,): all models voted on the same ones."""
    return level_of_each(next(iter(models.values()))["maj@1", _c0(models)])


def _c0(models: Models) -> int:
    return next(at for name, at in next(iter(models.values())) if name == GENERATED)


def efficiency(models: Models) -> pd.DataFrame:
    """Return with how many times fewer tokens one method has the best vote accuracy of another.

    Each method against outcome RL, and outcome RL against each: a method that never votes as well
    as outcome RL has a best vote too, and this says who reaches that one first. Tokens used for k
    rollouts are k times the mean of one, taken as given. The base stands against each seed of
    outcome RL.

    Returns:
        method, other, accuracy (the other's), times_fewer, low, high: as from
        `comparison.times_fewer`.
    """
    rows, models = [], comparable(models)
    for rival in dict.fromkeys(method for method, _ in models if method != "outcome"):
        for method, other in ((rival, "outcome"), ("outcome", rival)):
            mine, ours, theirs, best = _pair(models, method, other)
            times = times_fewer(mine, ours, best, _levels(models), theirs)
            rows.append((method, other, best.mean((1, 2)).max(), *vars(times).values()))
    names = ["method", "other", "accuracy", "times_fewer", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _pair(
    models: Models, method: str, other: str
) -> tuple[list[float], np.ndarray, list[float], np.ndarray]:  # fmt: skip
    """Return tokens (K,) and accuracies (K, S, P) of two methods, of the seeds that both have.

    The base has no seeds: it stands against each of the other's.
    """
    seeds = {m: paired_seeds(models, m, m) for m in (method, other)}
    if "base" not in seeds:
        seeds = dict.fromkeys(seeds, paired_seeds(models, method, other))
    (mine, ours), (theirs, best) = (_curve(models, m, seeds[m]) for m in (method, other))
    shape = np.broadcast_shapes(ours.shape, best.shape)
    return mine, np.broadcast_to(ours, shape), theirs, np.broadcast_to(best, shape)


def differences(models: Models) -> pd.DataFrame:
    """Return what a vote of 1 and of K answers is worth against outcome RL's, and what it adds.

    Returns:
        method, measure ("maj@1", "maj@K", "gain" for the second less the first), estimate, low,
        high (the method's less outcome RL's, paired over seeds and problems), seeds, decided.
    """
    rows, models = [], comparable(models)
    for method in dict.fromkeys(m for m, _ in models if m not in ("base", "outcome")):
        _, ours, _, theirs = _pair(models, method, "outcome")
        gap = ours - theirs  # (K, S, P)
        levels = _levels(models)
        values = {"maj@1": gap[0], f"maj@{len(gap)}": gap[-1], "gain": gap[-1] - gap[0]}
        rows += [{"method": method, "measure": name, **two_way(value, levels).row(),
                  "seeds": gap.shape[1]} for name, value in values.items()]  # fmt: skip
    names = ["method", "measure", "estimate", "low", "high", "seeds"]
    return decided(pd.DataFrame(rows, columns=names))
