"""The ablations: what is changed, what stays as it is, and what is read from the records."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from mrtlib.config import TRAINED_METHODS, load_profile
from mrtlib.experiments import ablations, stages, study
from mrtlib.experiments.ablations import SEEDS, VARIANTS
from mrtlib.experiments.measuring import Measuring
from mrtlib.stats import two_way
from mrtlib.training.runs import training_key


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    own = load_profile("study")
    (own.runs / "steps").mkdir(parents=True)  # a study of one's own, not the committed one
    return own


def differences(one: dict, other: dict, at: str = "") -> set[str]:
    """Return the names of the settings in which two profiles differ."""
    found = set()
    for name, value in one.items():
        if isinstance(value, dict) and name != "learning_rate":
            found |= differences(value, other[name], f"{at}{name}.")
        elif value != other[name]:
            found.add(f"{at}{name}")
    return found


CHANGED = {
    "alpha-0.3": {"training.alpha"}, "alpha-3": {"training.alpha"},
    "constant-rate": {"training.schedule"}, "unquantised": {"model.quantization"},
    "groups-of-4": {"training.group_size", "training.problems_per_step"},
    "groups-of-16": {"training.group_size", "training.problems_per_step"},
    "half-boundaries": {"thinking.group_size"},
    "sampled": {"prover.estimator", "prover.samples"}, "centred": set(),
    "half-budget-first": {"training.budgets"}, "spread": {"data.train_files"},
}  # fmt: skip


def test_each_variant_changes_one_thing_of_the_short_runs(profile):
    whole = asdict(ablations.unchanged(profile).settings(profile))
    keys = {training_key(ablations.unchanged(profile).settings(profile), ablations.FORM, 0)}
    for name, part in zip(VARIANTS, ablations.ablated(profile), strict=True):
        own = part.settings(profile)
        assert differences(asdict(own), whole) - {"name"} == CHANGED[name]
        rollouts = own.training.group_size * own.training.problems_per_step
        assert rollouts == 64 and part.methods[0] in TRAINED_METHODS
        assert part.seeds == (0, 1, 2)
        keys.add(training_key(own, part.methods[0], 0))
    assert len(keys) == 1 + len(VARIANTS)


def test_runs_without_a_change_are_the_short_ones_of_the_comparison(profile):
    short = {run.full_key for run in study.trainings(profile, study.compared(profile)[:1])}
    own = study.trainings(profile, [ablations.unchanged(profile)])
    assert len(own) == 2 * SEEDS and {run.full_key for run in own} <= short


def test_all_are_measured_alike_on_the_validation_problems(profile):
    tasks = [t for t in stages.tasks_of(profile, "ablate") if isinstance(t, Measuring)]
    assert len(tasks) == (2 + len(VARIANTS)) * SEEDS == len({t.key for t in tasks})
    assert {task.set for task in tasks} == {"validation"}
    for task in tasks:
        own = task.settings
        assert own.thinking == profile.thinking and own.prover == profile.prover
        assert own.evaluation == replace(profile.evaluation, extensions=0)
        assert "/" not in task.key and "/" not in task.name


def rows(task: Measuring, accuracy: np.ndarray) -> list[dict]:
    run = task.run
    labels = {"part": run.part.name, "method": run.method, "seed": run.seed, "set": task.set}
    return [
        {**labels, "level": "three" if i % 2 else "four", "problem": f"p{i}", "measure": measure,
         "budget": 224, "value": value if measure == "natural_accuracy" else 1 - value, "n": 4}
        for i, value in enumerate(accuracy.tolist())
        for measure in ("natural_accuracy", "regret")
    ]  # fmt: skip


def test_results_are_paired_with_the_form_as_it_is(profile):
    tasks = [t for t in stages.tasks_of(profile, "ablate") if isinstance(t, Measuring)]
    rng, values = np.random.default_rng(0), {}
    for task in tasks:
        part = task.run.part.name
        if part == "ablation/alpha-3" and task.run.seed == 2 or part == "ablation/centred":
            continue  # two seeds are too few
        base = {"outcome": 0.3}.get(task.run.method, 0.4) + 0.1 * (part == "ablation/sampled")
        accuracy = base + 0.1 * rng.random(10)
        values.setdefault((part, task.run.method), []).append(accuracy.round(5))
        task.record.write(task.key, rows(task, accuracy.round(5)))
    table = ablations.results(profile)
    whole = [v.label for name, v in VARIANTS.items() if name not in ("alpha-3", "centred")]
    assert list(table["variant"].unique()) == ["outcome RL", *whole]
    found = table.set_index(["variant", "measure"])
    gap = (np.array(values["ablation/sampled", ablations.FORM])
           - np.array(values["short", ablations.FORM]))  # fmt: skip
    want = two_way(gap, np.array(["four", "three"] * 5))
    row = found.loc["J sampled, K = 4", "natural accuracy"]
    assert row[["estimate", "low", "high"]].tolist() == pytest.approx(list(vars(want).values()))
    assert row["low"] > 0 and row["seeds"] == SEEDS
    assert found.loc["J sampled, K = 4", "regret"]["estimate"] == pytest.approx(-want.estimate)
    assert found.loc["outcome RL", "natural accuracy"]["high"] < 0


def test_without_records_there_are_no_results(profile):
    assert ablations.results(profile).empty
