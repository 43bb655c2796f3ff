"""What the study keeps of an evaluated run: a number for each test problem, measure and budget.

Whole rollouts of a hundred runs would be a hundred megabytes. The mean over a problem's rollouts is
all that the results table, its paired differences and their intervals are made of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib.config import Profile, key_texts
from mrtlib.evaluation.results import Metrics, metrics_of
from mrtlib.evaluation.sweep import evaluate, load_tables
from mrtlib.experiments.study import Part, Training, compared, trainings
from mrtlib.models.loading import work_key
from mrtlib.shards import Shards, complete
from mrtlib.store import Row, content_key, file_hashes
from mrtlib.tasks.problems import load_problems

SETS = ("test", "larger", "five")
KEPT = ("natural_accuracy", "truncated", "tokens", "episodes", "pass@4", "maj@4", "accuracy",
        "regret")  # fmt: skip
DIGITS = 5  # of a value: more is rounding, and takes room


def rows_of(metrics: Metrics, labels: Row) -> list[dict]:
    """Return the rows of `measures` of one evaluated model.

    Args:
        metrics: from `evaluation.results.metrics_of`.
        labels: part, method, seed, set.
    """
    rows = []
    for (name, at), problems in metrics.items():
        if name in KEPT:
            rows += [
                {**labels, "level": level, "problem": problem, "measure": name, "budget": at,
                 "value": round(float(np.mean(values)), DIGITS), "n": len(values)}
                for (level, problem), values in problems.items()
            ]  # fmt: skip
    return rows


def metrics_from(rows: pd.DataFrame) -> Metrics:
    """Return the measures of one model as `evaluation.results` takes them.

    Each problem has one number, the mean over its rollouts, which is all that is used of them.
    """
    groups = rows.groupby(["measure", "budget"], sort=False).indices
    levels, problems, values = (rows[name].to_numpy() for name in ("level", "problem", "value"))
    return {
        (str(name), int(budget)):
            pd.Series(values[at], _index(tuple(levels[at]), tuple(problems[at])))
        for (name, budget), at in groups.items()
    }


@cache
def _index(levels: tuple[str, ...], problems: tuple[str, ...]) -> pd.MultiIndex:
    """Return the index of some problems; of the same ones the same object.

    Two runs are then aligned at a glance, where their problems would be compared one by one.
    """
    return pd.MultiIndex.from_arrays([levels, problems], names=["level", "problem"])


@dataclass(frozen=True)
class Base:
    """The base model, measured as a run is; it takes no training."""

    profile: Profile
    part: Part = Part("base", ("base",), (0,), lambda profile: profile)
    method: str = "base"
    seed: int = 0
    name: str = "base"
    adapter: None = None

    @property
    def settings(self) -> Profile:
        """Return the settings that it is measured with."""
        return self.part.settings(self.profile)

    @cached_property
    def key(self) -> str:
        """Return what it is known by: its weights, and how they are loaded."""
        return f"base-{work_key(self.profile, 'model')[:16]}"

    def trained(self) -> bool:
        """Return True."""
        return True

    def done(self) -> bool:
        """Return True."""
        return True

    def made(self) -> None:
        """Return no adapter."""


@dataclass(frozen=True)
class OfRun:
    """What tasks share that put something of a trained run, or of the base, on record."""

    run: Training | Base

    @property
    def record(self) -> Shards:
        """Return the measures of all runs of the study."""
        return Shards(self.run.profile.runs / "measures", "measures")

    def done(self) -> bool:
        """Say whether what it measures is on record, under its `key`."""
        return self.record.has(self.key)

    def hash_of(self, sections: str, set_: str, count: int | None) -> str:
        """Return what tells a record from others of the run: its settings and its problems.

        Args:
            sections: of the profile that the measure hangs on, beside the run.
            count: of the set's problems, those that are taken of each level; None for all.
        """
        settings = self.settings
        files = file_hashes([settings.problems / f"{set_}.jsonl"], settings.problems)
        return content_key(run=self.run.key, **key_texts(settings, sections), problems=files,
                           count=count)[:16]  # fmt: skip

    def labels(self, set_: str) -> Row:
        """Return the labels of the run's rows: part, method, seed, set."""
        run = self.run
        return {"part": run.part.name, "method": run.method, "seed": run.seed, "set": set_}

    def in_parts(
        self, folder: str, count: int, measures: Callable[[int], Sequence[Row]]
    ) -> None:
        """Put on record what is measured part by part; a task that was stopped goes on.

        Args:
            folder: of the parts, in the study's.
            count: how many parts there are.
            measures: returns the rows of the i-th.
        """
        parts = Shards(self.run.profile.runs / folder / "measures", "measures")
        keys = [f"{self.key}-{i:03d}" for i in range(count)]
        complete({"measures": parts}, keys, lambda i: {"measures": measures(i)}, self.name)
        self.record.write(self.key, parts.read(keys).to_dict("records"))

    def ready(self) -> bool:
        """Say whether there is an adapter to measure, or a run on record that can be made again."""
        return self.run.trained() or self.run.done()


@dataclass(frozen=True)
class Measuring(OfRun):
    """One run of the study on one test set, as a task of the queue; its record is `measures`."""

    set: str
    beyond: bool = False  # whether thinking is forced on, beyond C0: that takes most of the time

    @property
    def name(self) -> str:
        """Return the set's name and the run's."""
        set_ = f"{self.set}-beyond" if self.beyond else self.set
        return f"measure-{set_}-{self.run.name.removeprefix('train-')}"

    @cached_property
    def size(self) -> float:
        """Return the thinking tokens at most."""
        settings = self.settings
        forced = settings.evaluation.extensions * settings.evaluation.extension_tokens
        each = settings.evaluation.samples * settings.thinking.budget + forced
        file = settings.problems / f"{self.set}.jsonl"
        return float(_count(file, _few(settings, self.set)) * each)

    @property
    def settings(self) -> Profile:
        """Return the settings that the run is measured with: how traces are read is the study's."""
        study = self.run.profile
        whole = replace(self.run.settings, thinking=study.thinking, prover=study.prover)
        plain = replace(whole, evaluation=replace(whole.evaluation, extensions=0))
        return whole if self.beyond else plain

    @cached_property
    def key(self) -> str:
        """Return the name of its record: the run's, the set's, and how it is measured."""
        run, part = self.run, self.run.part.name.replace("/", "-")
        own = self.hash_of("evaluation thinking prover", self.set, _few(self.settings, self.set))
        return f"{part}-{run.method}-{run.seed}-{self.set}-{own}"

    def do(self) -> None:
        """Measure the run, from the parts that are there on; put the measures on record."""
        run, settings = self.run, self.settings
        tables = load_tables(evaluate(settings, run.method, run.seed, run.made(), self.set))
        self.record.write(self.key, rows_of(metrics_of(tables, settings), self.labels(self.set)))


def _few(profile: Profile, name: str) -> int | None:
    """Return how many problems of each level of a set are taken; None for all."""
    return getattr(profile.data, name, None)


@cache
def _count(path: Path, few: int | None) -> int:
    """Return how many problems of a file are taken."""
    return len(load_problems(path, few))


def measurings(profile: Profile) -> list[Measuring]:
    """Return the tasks of measuring: set by set, each with the base and then by trainings.

    What lies beyond C0 comes last, on the first set.
    """
    runs = [Base(profile), *trainings(profile, compared(profile))]
    inside = [Measuring(run, name) for name in SETS for run in runs]
    return inside + [Measuring(run, SETS[0], beyond=True) for run in runs]


def measured(record: Shards, tasks: Sequence[Measuring]) -> dict[tuple[str, int], Metrics]:
    """Return the measures of the tasks that are on record, by (method, seed).

    Of a run that is measured beyond C0 too, that record is taken: it holds both.

    Args:
        tasks: of one part (and the base) and one set.
    """
    if len({(task.run.part.name, task.set) for task in tasks if task.run.method != "base"}) > 1:
        raise ValueError("methods are compared within one part and on one set")
    there = sorted((task for task in tasks if record.has(task.key)), key=lambda task: task.beyond)
    return {(task.run.method, task.run.seed): metrics_from(record.read([task.key]))
            for task in there}  # fmt: skip
