"""Regret against the achievable comparator of the study's runs: by hand, simulated, as a task."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import load_profile
from mrtlib.evaluation.sweep import evaluate, load_tables
from mrtlib.experiments import queue, stages, study_reach
from mrtlib.experiments.achievable import AREAS
from mrtlib.experiments.measuring import Base
from mrtlib.experiments.study_reach import BUDGETS, Reaching
from mrtlib.stats import linearised, ratio, two_way
from mrtlib.tasks.problems import load_problems

PROBLEMS, SEEDS = 60, 3
LEVELS = np.array(["three", "four"] * (PROBLEMS // 2))
INDEX = pd.MultiIndex.from_arrays([LEVELS, range(PROBLEMS)], names=["level", "problem"])


def reached(methods: dict[str, float], seed: int = 0, apart: float = 0.0) -> dict:
    """Return areas of models that miss a share, on average, of what each problem lets them reach.

    Seeds lie `apart` (a standard deviation). A third of the problems lets nobody reach anything.
    """
    rng, models = np.random.default_rng(seed), {}
    hard = rng.choice([0.0, 0.4, 0.9], PROBLEMS)
    for method, share in methods.items():
        for s in range(1 if method == "base" else SEEDS):
            reachable = hard * rng.uniform(0.5, 1, PROBLEMS)
            own = share + apart * rng.normal()
            missed = reachable * np.clip(own + rng.normal(0, 0.05, PROBLEMS), 0, 1)
            models[method, s] = {
                (name, b): pd.Series(b * own, INDEX)
                for b in BUDGETS
                for name, own in zip(AREAS, (reachable, missed, 2 * missed), strict=True)
            }  # fmt: skip
    return models


def values(models: dict, method: str, name: str, budget: int) -> np.ndarray:
    return np.array([own[name, budget] for (m, _), own in models.items() if m == method])


def test_regret_is_the_area_missed_of_that_which_could_be_reached():
    models = reached({"base": 0.1, "outcome": 0.3, "mixed_group": 0.2})
    table = study_reach.regrets(models).set_index(["method", "budget"])
    for method in ("base", "outcome", "mixed_group"):
        for b in (1, 8):
            missed, reachable = (values(models, method, n, b) for n in ("missed", "reachable"))
            found, want = table.loc[(method, b)], ratio(missed, reachable, LEVELS)
            assert found["estimate"] == pytest.approx(missed.sum() / reachable.sum())
            assert (found["low"], found["high"]) == pytest.approx((want.low, want.high))
            above = 2 * missed.sum()
            assert found["at_most"] == pytest.approx(above / (reachable.sum() + above / 2))
    assert table["seeds"].unstack(0).iloc[0].to_dict() == {
        "base": 1, "outcome": SEEDS, "mixed_group": SEEDS}  # fmt: skip


def test_a_difference_is_that_of_the_regrets_and_paired():
    models = reached({"base": 0.1, "outcome": 0.3, "mixed_group": 0.2})
    regret = study_reach.regrets(models).set_index(["method", "budget"])["estimate"]
    table = study_reach.differences(models).set_index(["method", "budget"])
    for method in ("base", "mixed_group"):
        for b in BUDGETS:
            gap = regret[method, b] - regret["outcome", b]
            assert table.loc[(method, b), "estimate"] == pytest.approx(gap), (method, b)
    assert table["decided"].all() and (table["high"] < 0).all() and table["seeds"].eq(SEEDS).all()
    same = {**models, **{("mixed_group", s): models["outcome", s] for s in range(SEEDS)}}
    alike = study_reach.differences(same).set_index(["method", "budget"]).loc["mixed_group"]
    assert alike[["estimate", "low", "high"]].to_numpy() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("apart", "most"), [(0.0, 1.0), (0.05, 0.98)])
def test_the_difference_of_two_ratios_is_covered(apart, most):
    """Two methods that miss as much, of other areas: intervals hold 0 in 93 % of trials, or more.

    Where seeds do not differ the two-way interval counts what is by chance twice, and is long.
    """
    trials, inside = 400, 0
    for trial in range(trials):
        models = reached({"outcome": 0.3, "mixed_group": 0.3}, trial, apart)
        mine, theirs = (
            linearised(values(models, m, "missed", 1), values(models, m, "reachable", 1))
            for m in ("mixed_group", "outcome")
        )
        gap = two_way(mine - theirs, LEVELS)
        inside += gap.low <= 0 <= gap.high
    assert 0.93 <= inside / trials <= most


def test_fewer_than_three_seeds_are_not_compared():
    models = reached({"base": 0.1, "outcome": 0.3, "mixed_group": 0.2})
    assert study_reach.differences({}).empty and study_reach.regrets({}).empty
    del models["outcome", 2]
    assert study_reach.differences(models).empty


def test_the_areas_of_a_run_are_drawn_once_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    profile = load_profile("study")
    (profile.runs / "steps").mkdir(parents=True)  # a study of one's own, not the committed one
    one = replace(profile, data=replace(profile.data, test=1))
    task = Reaching(Base(one))
    assert study_reach.reached(one) == {}
    assert queue.work_off([task], one.runs) == [] and task.done()
    rows = task.record.read([task.key])
    asked = load_problems(one.problems / "test.jsonl", 1)
    assert set(rows["problem"]) == {problem.id for problem in asked}
    assert len(rows) == len(asked) * len(BUDGETS) * len(AREAS)
    table = rows.pivot_table("value", ["problem", "budget"], "measure")
    own = (table["reachable"] - table["missed"]).unstack("budget")
    assert (own.diff(axis=1).iloc[:, 1:] >= 0).all(None)  # further episodes add to the area
    tables = load_tables(evaluate(task.settings, "base", 0, None, study_reach.SET))
    J = tables["progress"].query("sample == 0").groupby("problem")["J"]
    first = J.apply(lambda J: (J.iloc[0] + J.iloc[1]) / 2)  # under the first episode
    assert own[1].to_dict() == pytest.approx(first.to_dict(), abs=2e-5)
    assert list(study_reach.reached(one)) == [("base", 0)]
    monkeypatch.setattr(study_reach.Evaluator, "load", pytest.fail)  # it is not drawn again
    assert queue.work_off([task], one.runs) == []


def test_the_stage_has_the_base_and_long_runs_of_two_methods(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    profile = load_profile("study")
    (profile.runs / "steps").mkdir(parents=True)
    tasks = stages.tasks_of(profile, "reach")
    assert len(tasks) == len({task.key for task in tasks}) == 1 + 2 * 10
    assert tasks[0].ready() and not tasks[1].ready()
    assert {(task.run.part.name, task.run.method) for task in tasks[1:]} == {
        ("long", "outcome"), ("long", "mixed_group")}  # fmt: skip
    assert tasks[0].size == 500 * 224
