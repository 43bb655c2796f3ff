"""What is kept of an evaluated run gives the same results as its whole records; and the stage."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import load_profile
from mrtlib.evaluation.results import metrics_of, results
from mrtlib.evaluation.sweep import evaluate, load_tables
from mrtlib.experiments import measuring, queue, stages, study
from mrtlib.experiments.measuring import Base, Measuring, metrics_from, rows_of
from mrtlib.shards import Shards
from mrtlib.store import write_json


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    return load_profile("study")


@pytest.fixture(scope="module")
def small():
    """The study's profile on two problems a level, two rollouts each, forced on to 2 C0 and 4."""
    profile = load_profile("study")
    own = replace(profile.evaluation, samples=4, extension_tokens=224, extensions=3, batch_rows=64)
    return replace(profile, data=replace(profile.data, test=2), evaluation=own)


@pytest.fixture(scope="module")
def tables(small, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRT_RUNS", str(tmp_path_factory.mktemp("runs")))
        return load_tables(evaluate(small, "base", 0))


LABELS = {"part": "base", "method": "base", "seed": 0, "set": "test"}


def test_what_is_kept_gives_the_results_of_the_whole_records(small, tables, tmp_path):
    metrics, c0 = metrics_of(tables, small), small.thinking.budget
    record = Shards(tmp_path, "measures")
    record.write("base", rows_of(metrics, LABELS))
    again = metrics_from(record.read(["base"]))
    kept, whole = results({("base", 0): again}), results({("base", 0): metrics})
    assert set(kept["budget"]) == {*small.evaluation.budgets, 448, 672, 896}
    columns = ["seed", "level", "metric", "budget"]
    both = kept.merge(whole, on=columns, suffixes=("", "_whole"))
    assert len(both) == len(kept) and both["metric"].nunique() == 8
    for column in ("estimate", "low", "high"):
        assert np.allclose(both[column], both[f"{column}_whole"], atol=1e-3,
                           equal_nan=True), column  # fmt: skip
    rows = record.read(["base"])
    assert set(rows.loc[rows["budget"] > c0, "n"]) == {1}  # one rollout a problem is forced on
    assert set(rows.loc[(rows["measure"] == "accuracy") & (rows["budget"] <= c0), "n"]) == {4}


def test_a_run_is_measured_when_its_adapter_is_there(profile):
    tasks = stages.tasks_of(profile, "evaluate")
    models = 1 + len(stages.tasks_of(profile, "train"))  # the base beside the runs
    assert len({task.name for task in tasks}) == len(tasks) == 4 * models
    assert [task.set for task in tasks[:models]] == ["test"] * models
    base, first = tasks[:2]
    assert isinstance(base.run, Base) and base.ready() and base.size == 500 * 4 * 224
    assert not first.ready()
    write_json(first.run.adapter / "key.json", "of other settings")
    assert not first.ready()
    write_json(first.run.adapter / "key.json", first.run.full_key)
    assert first.ready()


def test_keys_tell_sets_settings_and_problems_apart(profile, tmp_path):
    run = study.trainings(profile, study.compared(profile))[0]
    keys = {Measuring(run, name).key for name in measuring.SETS}
    more = replace(profile, evaluation=replace(profile.evaluation, samples=5))
    keys.add(Measuring(study.trainings(more, study.compared(more))[0], "test").key)
    keys.add(Measuring(Base(profile), "test").key)
    text = (profile.problems / "test.jsonl").read_text(encoding="utf-8")
    (tmp_path / "test.jsonl").write_text(text + "\n", encoding="utf-8")
    other = replace(profile, data=replace(profile.data, folder=str(tmp_path)))
    keys.add(Measuring(Base(other), "test").key)
    keys.add(Measuring(Base(profile), "test", beyond=True).key)
    assert len(keys) == 7


def test_the_queue_measures_what_is_ready_once(small, tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    one = replace(small, data=replace(small.data, test=1))
    run = study.trainings(one, study.compared(one))[0]
    tasks = [Measuring(Base(one), "test"), Measuring(run, "test")]
    tasks.append(Measuring(Base(one), "test", beyond=True))
    assert queue.work_off(tasks, one.runs) == []
    assert [task.done() for task in tasks] == [True, False, True]
    models, inside = (measuring.measured(tasks[0].record, some) for some in (tasks, tasks[:2]))
    assert list(models) == list(inside) == [("base", 0)]
    assert max(budget for _, budget in inside["base", 0]) == one.thinking.budget
    far = models["base", 0]
    assert max(budget for _, budget in far) == 4 * one.thinking.budget
    for place, problems in inside["base", 0].items():  # up to C0 both are of the same rollouts
        assert far[place].tolist() == pytest.approx(problems.tolist())
    monkeypatch.setattr(measuring, "evaluate", pytest.fail)  # it is not measured again
    assert queue.work_off(tasks, one.runs) == []
    with pytest.raises(ValueError, match="one set"):
        measuring.measured(tasks[0].record, [tasks[1], Measuring(run, "five")])


def test_values_of_one_model_only_make_its_metrics():
    rows = pd.DataFrame([
        {"level": "three", "problem": "p", "measure": "accuracy", "budget": 56, "value": 0.25},
        {"level": "three", "problem": "q", "measure": "accuracy", "budget": 56, "value": 0.5},
    ])  # fmt: skip
    (key, series), = metrics_from(rows).items()
    assert key == ("accuracy", 56) and series["three", "q"] == 0.5


@pytest.mark.parametrize("method", ["outcome", "mixed_group"])
def test_committed_rollouts_of_a_seed_give_its_committed_measures(method, monkeypatch):
    monkeypatch.delenv("MRT_RUNS", raising=False)
    profile = load_profile("study")
    [task] = [t for t in measuring.measurings(profile)
              if (t.run.part.name, t.run.method, t.run.seed, t.set, t.beyond)
              == ("long", method, 3, "test", True)]  # fmt: skip
    settings = task.settings
    tables = load_tables(settings.runs / "evaluation" / f"{method}-3")
    assert len(tables["rollouts"]) == 2 * settings.data.test * settings.evaluation.samples
    labels = {"part": "long", "method": method, "seed": 3, "set": "test"}
    place = ["level", "problem", "measure", "budget"]
    made = pd.DataFrame(rows_of(metrics_of(tables, settings), labels)).set_index(place)
    kept = task.record.read([task.key]).set_index(place)
    assert set(made.index) == set(kept.index)
    assert np.allclose(made["value"], kept["value"].reindex(made.index), atol=2e-5)
