"""The study's plan: what is trained, in which order, at which rate; and what counts as done."""

from dataclasses import replace

import pandas as pd
import pytest

from mrtlib.config import TRAINED_METHODS, load_profile
from mrtlib.experiments import stages, study
from mrtlib.experiments.measuring import Measuring
from mrtlib.shards import Shards
from mrtlib.store import KEY, write_json
from mrtlib.training import runs


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    return load_profile("study")


def test_every_method_is_in_the_study_and_the_main_ones_at_two_lengths(profile):
    runs = stages.tasks_of(profile, "train")
    assert {run.method for run in runs} == set(TRAINED_METHODS)
    seeds = {(run.part.name, run.method): 0 for run in runs}
    for run in runs:
        seeds[run.part.name, run.method] += 1
    assert all(seeds[part, m] == 10 for part in ("short", "long") for m in study.MAIN)
    assert all(seeds["middle", m] == 5 for m in (*study.BESIDE, *study.REST))  # compared with it
    assert len({run.name for run in runs}) == len(runs)


def test_one_command_is_a_queue_of_every_stage(profile):
    every = stages.tasks_of(profile, stages.ALL)
    parts = [task.name for name in stages.STAGES for task in stages.tasks_of(profile, name)]
    assert [task.name for task in every] == parts
    assert len(set(parts)) == len(parts)  # a worker takes a task by its name


def test_a_study_that_is_cut_short_has_whole_seeds(profile):
    first = stages.tasks_of(profile, "train")[: 2 * len(study.MAIN)]
    assert {(run.seed, run.method) for run in first} == {(s, m) for s in (0, 1) for m in study.MAIN}


def test_runs_of_a_part_have_its_length_its_own_decay_and_a_folder(profile):
    short, long = (study.compared(profile)[i].settings(profile) for i in (0, 1))
    assert long.training.tokens == 4 * short.training.tokens
    assert {long.training.count, short.training.count} == {"all"}
    assert {long.training.schedule, short.training.schedule} == {"cosine"}
    assert long.runs.parent == profile.runs
    assert long.runs != short.runs


def test_a_run_is_done_when_its_log_is_on_record_and_with_other_settings_it_is_not(profile):
    run = stages.tasks_of(profile, "search")[0]
    assert run.ready()
    assert not run.done()
    run.record.write(run.key, [])
    assert run.done()
    other = replace(profile, training=replace(profile.training, group_size=4, micro_batch=32))
    assert not stages.tasks_of(other, "search")[0].done()


def test_a_run_whose_log_is_lost_is_made_again_though_its_adapter_is_there(profile, monkeypatch):
    run = stages.tasks_of(profile, "search")[0]
    run.adapter.mkdir(parents=True)
    write_json(run.adapter / KEY, run.full_key)
    trained = []

    def again(*_) -> None:
        trained.append(run.trained())  # its mark is not taken off before it is replaced
        Shards(run.adapter, "steps").write("steps", [])

    monkeypatch.setattr(runs, "_train", again)
    monkeypatch.setattr(runs, "adapter_is_whole", lambda _: True)
    assert run.made() == run.adapter and trained == []  # to be measured it needs no log
    run.do()
    assert trained == [True] and run.done()
    run.do()
    assert trained == [True]


def test_a_run_whose_adapter_was_left_out_is_made_again_to_be_measured(profile, monkeypatch):
    run = stages.tasks_of(profile, "search")[0]
    task, trained = Measuring(run, "test"), []
    assert not task.ready()
    run.record.write(run.key, [])
    assert task.ready() and not run.trained()
    monkeypatch.setattr(study, "train", lambda *asked: trained.append(asked[1:]))
    assert run.made() == run.adapter and trained == [(run.method, run.seed)]


def ended(**runs) -> pd.DataFrame:
    """Return a search of one method: the regret at each rate, or None where it broke down."""
    return pd.DataFrame([
        {"method": "outcome", "learning_rate": float(rate.replace("_", ".")), "broken": end is None,
         "regret": 0.9 if end is None else end}
        for rate, end in runs.items()
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("runs", "rate"),
    [
        ({"1": 0.6, "2": 0.5, "4": 0.55}, 2.0),
        ({"1": 0.6, "2": 0.5, "4": None}, 1.0),  # 2 is next below one that broke down
        ({"1": 0.6, "2": 0.7, "4": 0.5}, 1.0),  # nobody knows whether 4 is safe
        ({"1": None, "2": 0.5, "4": 0.6}, 2.0),
        ({"1": None, "2": None, "4": None}, 1.0),
    ],
)
def test_a_rate_has_the_least_regret_and_is_not_next_to_one_that_breaks_down(runs, rate):
    assert study.best_rates(ended(**runs)) == {"outcome": rate}
