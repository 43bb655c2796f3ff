"""Regret of the study's runs against what their traces could have reached by voting.

The paper's appendix E, of trained models beside the base: at every boundary of a trace it is better
to think on for an episode, or to let one more answer vote (`experiments.achievable`). One trace a
problem, with answers drawn at each of its boundaries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mrtlib.config import Profile
from mrtlib.evaluation.comparison import Models
from mrtlib.evaluation.results import by_seed_and_problem, level_of_each, paired_seeds
from mrtlib.evaluation.sweep import Evaluator, evaluate, load_tables
from mrtlib.evaluation.tables import decided
from mrtlib.experiments.achievable import AREAS, by_trace, share_at_most
from mrtlib.experiments.answers import SHARD, draw_answers, draw_seed, first_rollouts
from mrtlib.experiments.measuring import Base, Measuring, OfRun, metrics_from
from mrtlib.experiments.study import BESIDE, compared, trainings
from mrtlib.experiments.study_logs import measures
from mrtlib.experiments.study_results import FEWEST, PRIMARY_PART, enough, paired_with_outcome
from mrtlib.stats import linearised, two_way
from mrtlib.store import Row, content_key

SET = "test"
PARTS = "reach"  # folder of the parts of what is being drawn
BUDGETS = tuple(range(1, 9))  # in episodes
ESTIMATOR = "half of the answers chooses"  # of what is missed: records of another are not read
DIGITS = 5  # of an area: more is rounding, and takes room


@dataclass(frozen=True)
class Reaching(OfRun):
    """What the traces of one run could have reached, on the test problems, as a task of the queue.

    Its rollouts are those that the run is measured by.
    """

    @property
    def name(self) -> str:
        """Return the run's name, as one of what is reached."""
        return f"reach-{self.run.name.removeprefix('train-')}"

    @property
    def size(self) -> float:
        """Return the thinking tokens at most of a trace a problem, for each level."""
        settings = self.settings
        return float(settings.data.test * len(settings.data.levels) * settings.thinking.budget)

    @property
    def settings(self) -> Profile:
        """Return the settings that the run is measured with."""
        return Measuring(self.run, SET).settings

    @cached_property
    def key(self) -> str:
        """Return the name of its record: the run's, and how it is measured."""
        run, settings = self.run, self.settings
        of_run = self.hash_of("evaluation thinking prover", SET, settings.data.test)
        own = content_key(run=of_run, estimator=ESTIMATOR, budgets=list(BUDGETS))
        return f"reach-{run.part.name}-{run.method}-{run.seed}-{own[:16]}"

    def do(self) -> None:
        """Draw answers at every boundary, part by part; put the areas on record."""
        run, settings = self.run, self.settings
        adapter = run.made()
        tables = load_tables(evaluate(settings, run.method, run.seed, adapter, SET))
        some = first_rollouts(settings, tables["rollouts"], settings.data.test)
        progress = tables["progress"][tables["progress"]["sample"] == 0]
        model = Evaluator.load(settings, run.method, run.seed, adapter)
        parts = [some[i : i + SHARD] for i in range(0, len(some), SHARD)]

        def areas(i: int) -> list[Row]:
            places = [range(len(ends) + 1) for ends in parts[i]["boundaries"]]
            drawn = draw_answers(model, parts[i], places, settings.prover.samples,
                                 draw_seed(settings, parts[i], run.seed))  # fmt: skip
            found = by_trace(pd.DataFrame(drawn), progress, settings.data.family, BUDGETS)
            return rows_of(found, self.labels(SET))

        self.in_parts(PARTS, len(parts), areas)


def rows_of(areas: pd.DataFrame, labels: Row) -> list[Row]:
    """Return the rows of `measures` of some traces: the areas at every budget in episodes.

    Args:
        areas: from `achievable.by_trace`.
        labels: part, method, seed, set.
    """
    return [
        {**labels, "level": row["level"], "problem": row["problem"], "measure": name,
         "budget": row["budget"], "value": round(float(row[name]), DIGITS), "n": 1}
        for row in areas.to_dict("records") for name in AREAS
    ]  # fmt: skip


def reachings(profile: Profile) -> list[Reaching]:
    """Return the tasks: the base, then outcome RL and the paper's form, *long* runs."""
    parts = [part for part in compared(profile) if part.name == PRIMARY_PART]
    runs = [run for run in trainings(profile, parts) if run.method in BESIDE]
    return [Reaching(run) for run in (Base(profile), *runs)]


def reached(profile: Profile) -> Models:
    """Return what is on record, by (method, seed): the base, and methods with three seeds."""
    record = measures(profile)
    return enough({(task.run.method, task.run.seed): metrics_from(record.read([task.key]))
                   for task in reachings(profile) if record.has(task.key)})  # fmt: skip


def _areas(models: Models, method: str, seeds: Sequence[int], budget: int) -> list[np.ndarray]:
    """Return what AREAS names, (S, P) each: all models met the same problems."""
    index = next(iter(models.values()))[AREAS[0], budget]
    return [by_seed_and_problem([models[method, s][name, budget] for s in seeds], index, "all")
            for name in AREAS]  # fmt: skip


def _shares(models: Models, method: str, seeds: Sequence[int], budget: int) -> np.ndarray:
    """Return values (S, P) whose mean is the share of the reachable area that is missed."""
    reachable, missed, _ = _areas(models, method, seeds, budget)
    return linearised(missed, reachable)


def regrets(models: Models) -> pd.DataFrame:
    """Return regret against the achievable comparator by method and budget in episodes.

    The share of the area under the comparators that traces miss, as from
    `achievable.regret_by_episodes`.

    Returns:
        method, budget, estimate, low, high, at_most, seeds.

    Source: arXiv 2503.07572, appendix E.
    """
    rows = []
    for method in dict.fromkeys(method for method, _ in models):
        seeds, levels = paired_seeds(models, method, method), _levels(models)
        for budget in BUDGETS:
            reachable, missed, above = _areas(models, method, seeds, budget)
            most = share_at_most(reachable, missed, above)
            share = two_way(_shares(models, method, seeds, budget), levels)
            rows.append({"method": method, "budget": budget, **share.row(), "at_most": most,
                         "seeds": len(seeds)})  # fmt: skip
    columns = ["method", "budget", "estimate", "low", "high", "at_most", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def differences(models: Models) -> pd.DataFrame:
    """Return each method's regret less that of outcome RL, paired over seeds and problems.

    The base stands against every seed of outcome RL.

    Returns:
        method, budget, estimate, low, high, seeds, decided.
    """
    rows, rivals = [], paired_with_outcome(models)
    own = paired_seeds(models, "outcome", "outcome")
    if ("base", 0) in models and len(own) >= FEWEST:
        rivals = ["base", *rivals]
    for method in rivals:
        seeds = own if method == "base" else paired_seeds(models, method, "outcome")
        ours = [0] if method == "base" else seeds
        rows += [{"method": method, "budget": budget, "seeds": len(seeds), **two_way(
                     _shares(models, method, ours, budget)
                     - _shares(models, "outcome", seeds, budget), _levels(models)).row()}
                 for budget in BUDGETS]  # fmt: skip
    return decided(pd.DataFrame(rows, columns=["method", "budget", "estimate", "low", "high",
                                               "seeds"]))  # fmt: skip


def _levels(models: Models) -> np.ndarray:
    """Return the level of each problem, (P,)."""
    return level_of_each(next(iter(models.values()))[AREAS[0], BUDGETS[0]])
