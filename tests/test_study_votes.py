"""Votes of the study's runs: from rollouts by hand, against brute force, and as a task."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import load_profile
from mrtlib.experiments import queue, stages, study, study_votes
from mrtlib.experiments.measuring import Base
from mrtlib.experiments.study_votes import GENERATED, Voting
from mrtlib.rollouts import Rollout
from mrtlib.stats import proportion, two_way
from mrtlib.tasks.countdown import countdown
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import load_problems

C0, PROBLEMS, SEEDS, MOST = 224, 40, 3, 4


def voted(methods: dict[str, float], tokens: float = 100.0) -> dict:
    """Return votes that grow by a fifth of what is left with each rollout, from a start."""
    rng, models = np.random.default_rng(0), {}
    levels = ["three"] * (PROBLEMS // 2) + ["four"] * (PROBLEMS // 2)
    index = pd.MultiIndex.from_arrays([levels, range(PROBLEMS)], names=["level", "problem"])
    for method, start in methods.items():
        for seed in range(1 if method == "base" else SEEDS):
            noise = 0.02 * rng.random(PROBLEMS)
            values = {f"maj@{k}": 1 - (1 - start) * 0.8 ** (k - 1) + noise
                      for k in range(1, MOST + 1)}  # fmt: skip
            values[GENERATED] = np.full(PROBLEMS, tokens)
            models[method, seed] = {(name, C0): pd.Series(list(own[:, None]), index)
                                    for name, own in values.items()}  # fmt: skip
    return models


def rollout(problem, text: str, tokens: int) -> Rollout:
    return Rollout(problem, [1], [2] * tokens, 1, True, False, [1], [1], grade(problem, text))


def test_votes_of_a_problem_are_those_of_all_subsets():
    problem = countdown((3, 5, 7), 22, "three")
    right, wrong = "The answer is \\boxed{3 * 5 + 7}", "The answer is \\boxed{3 + 5 + 7}"
    texts = [right, wrong, wrong, "I do not know", right]
    rollouts = [rollout(problem, text, 10 * i) for i, text in enumerate(texts, 1)]
    labels = {"part": "long", "method": "outcome", "seed": 0, "set": "test"}
    rows = pd.DataFrame(study_votes.rows_of(rollouts, labels, load_profile("study")))
    found = rows.set_index("measure")["value"]
    assert found[GENERATED] == pytest.approx(30)
    for k in range(1, 6):
        wins = []
        for some in itertools.combinations(texts, k):
            good, bad = some.count(right), some.count(wrong)
            wins.append(0.5 * (good == bad) * (good > 0) + (good > bad))
        assert found[f"maj@{k}"] == pytest.approx(np.mean(wins), abs=1e-5), k
    assert (rows["budget"] == C0).all() and (rows["n"] == 5).all()


def test_curves_are_means_over_seeds_and_problems_at_the_tokens_of_the_votes():
    models = voted({"base": 0.1, "outcome": 0.3})
    table = study_votes.curves(models).set_index(["method", "votes"])
    assert table["tokens"].unstack(0)["outcome"].tolist() == [100, 200, 300, 400]
    values = np.array([[v[0] for v in models["outcome", s]["maj@3", C0]] for s in range(SEEDS)])
    want = proportion(values, np.array(["three"] * 20 + ["four"] * 20))
    assert table.loc[("outcome", 3), ["estimate", "low", "high"]].tolist() == pytest.approx(
        list(vars(want).values()))  # fmt: skip


def test_efficiency_is_outcomes_tokens_over_those_at_its_best_vote():
    models = voted({"base": 0.0, "outcome": 0.3, "mixed_group": 0.3})
    for seed in range(SEEDS):  # the same votes from half of the tokens
        half = models["mixed_group", seed] = dict(models["outcome", seed])
        half[GENERATED, C0] = half[GENERATED, C0].map(lambda v: v / 2)
    table = study_votes.efficiency(models).set_index(["method", "other"])
    assert table.loc[("mixed_group", "outcome"), "times_fewer"] == pytest.approx(2.0)
    assert table.loc[("outcome", "mixed_group"), "times_fewer"] == pytest.approx(0.5)
    assert table.loc[("base", "outcome"), "times_fewer"] == 0.0  # it does not get there
    assert 1.5 < table.loc[("outcome", "base"), "low"] < 4  # one vote or two, for the base's four
    better = voted({"outcome": 0.3, "mixed_group": 0.5})
    row = study_votes.efficiency(better).iloc[0]
    assert 1.5 < row["low"] <= row["times_fewer"] <= row["high"] < 4


def test_what_a_vote_adds_is_paired_over_seeds_and_problems():
    models = voted({"base": 0.1, "outcome": 0.3, "mixed_group": 0.5})
    table = study_votes.differences(models).set_index("measure")
    levels = np.array(["three"] * 20 + ["four"] * 20)

    def gap(name: str) -> np.ndarray:
        own, theirs = (np.array([[v[0] for v in models[m, s][name, C0]] for s in range(SEEDS)])
                       for m in ("mixed_group", "outcome"))  # fmt: skip
        return own - theirs

    for name, values in {"maj@1": gap("maj@1"), "maj@4": gap("maj@4"),
                         "gain": gap("maj@4") - gap("maj@1")}.items():  # fmt: skip
        want = list(vars(two_way(values, levels)).values())
        assert table.loc[name, ["estimate", "low", "high"]].tolist() == pytest.approx(want), name
    assert table["seeds"].eq(SEEDS).all() and table.loc["maj@1", "decided"]
    assert table.loc["gain", "high"] < 0  # what starts higher has less to gain
    assert study_votes.differences({}).empty and study_votes.efficiency({}).empty


def test_a_run_votes_once_and_its_votes_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    monkeypatch.setattr(study_votes, "MOST", 3)
    profile = load_profile("study")
    (profile.runs / "steps").mkdir(parents=True)  # a study of one's own, not the committed one
    one = replace(profile, data=replace(profile.data, test=1))
    task = Voting(Base(one))
    assert study_votes.voted(one) == ("", {})
    assert queue.work_off([task], one.runs) == [] and task.done()
    rows = task.record.read([task.key])
    problems = load_problems(one.problems / "test.jsonl", 1)
    assert set(rows["problem"]) == {problem.id for problem in problems}
    assert set(rows["measure"]) == {"maj@1", "maj@2", "maj@3", GENERATED}
    assert rows.loc[rows["measure"] != GENERATED, "value"].between(0, 1).all()
    monkeypatch.setattr(study_votes.Evaluator, "load", pytest.fail)  # it is not drawn again
    assert queue.work_off([task], one.runs) == []


def test_the_stage_has_the_base_and_the_main_methods_long_runs_first(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    profile = load_profile("study")
    (profile.runs / "steps").mkdir(parents=True)
    tasks = stages.tasks_of(profile, "vote")
    assert len(tasks) == len({task.key for task in tasks}) == 1 + 2 * 10 * len(study.MAIN)
    assert tasks[0].ready() and not tasks[1].ready()
    assert {task.run.part.name for task in tasks[1:51]} == {"long"}
    assert tasks[0].size == 500 * 10 * 224
    for task in tasks[1:3]:  # two seeds of outcome are too few
        task.record.write(task.key, [])
    assert study_votes.voted(profile) == ("", {})
