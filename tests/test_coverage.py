"""Intervals cover the truth as often as they say, and the bootstrap does not."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from mrtlib.experiments import coverage, population


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A short study: a fifth of the repetitions of the one on record."""
    return coverage.study(population.read(), 300, resampled=150, problems=(50, 500))


def test_every_kind_covers_and_decides_rarely(table):
    assert len(table) == 2 * 2 * (3 * 8 + 5)
    assert coverage.faults(table).empty, coverage.faults(table).to_string()


def test_the_bootstrap_is_found_out(table):
    bad = coverage.faults(table, "bootstrap")
    assert set(bad["kind"]) >= {
        "difference over seeds alone", "mean over seeds alone", "share of 99.7 %", "difference",
        "relative regret", "tokens at equal accuracy",
    }  # fmt: skip
    alone = bad[bad["kind"] == "difference over seeds alone"]
    assert (alone["coverage"] < 0.9).all() and (alone["decided"] > 0.1).all()


def test_the_study_on_record_is_sound_and_up_to_date(records):
    kept = pd.read_csv(records / "coverage.csv")
    assert coverage.faults(kept).empty
    assert set(kept["problems"]) == set(coverage.PROBLEMS)
    closed = kept[kept["way"] == "closed form"]
    assert closed["repetitions"].min() >= 2000
    one = replace(population.read(), seed=0.0)
    most = int(closed["repetitions"].max())
    kinds = coverage.Simulation
    for trials in (kinds.difference_of_one_model, kinds.of_one_model):
        made = coverage.simulate(trials, one, coverage.ONE, 50, most, 400, 0)
        was = kept.merge(made, on=["kind", "way", "seeds", "problems", "repetitions"])
        assert len(was) == len(made)
        assert was["coverage_x"].to_numpy() == pytest.approx(was["coverage_y"], abs=1e-3)


def test_faults_are_seen_beyond_the_error_of_the_simulation():
    row = {"kind": "mean", "way": "closed form", "coverage": 0.95, "decided": math.nan,
           "repetitions": 4000}  # fmt: skip
    rows = [row, row | {"coverage": 0.91}, row | {"coverage": 0.99}, row | {"decided": 0.07},
            row | {"decided": 0.055}, row | {"coverage": 0.99, "kind": "share of 99.7 %"},
            row | {"coverage": 0.91, "kind": "share of 99.7 %"}]  # fmt: skip
    assert list(coverage.faults(pd.DataFrame(rows)).index) == [1, 2, 3, 6]
    few = [row | {"coverage": 0.91, "repetitions": 100}]
    assert coverage.faults(pd.DataFrame(few)).empty


def test_intervals_of_few_seeds_cover_at_the_levels_that_are_printed():
    table = coverage.of_few_seeds(40_000)
    assert set(table["seeds"]) == set(coverage.MANY_SEEDS) and len(table) == 8
    short = table["level"] - table["coverage"]
    assert short.max() < 0.005, table.to_string()  # seeds that agree by chance made it 0.03


def test_the_study_is_made_once_and_then_read(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "DRAWS", 5)
    first = coverage.on_record(tmp_path / "coverage.csv", 4)
    monkeypatch.setattr(coverage, "study", lambda *_: pytest.fail("made again"))
    pd.testing.assert_frame_equal(coverage.on_record(tmp_path / "coverage.csv", 4), first)
    assert set(first["way"]) == {"closed form", "bootstrap"}


def test_several_looks_err_more_often_than_one():
    level = 1 - 0.05 / 3
    one = coverage.of_looks((10,), level)
    assert abs(one - (1 - level)) < 4 * math.sqrt(level * (1 - level) / 100_000)
    assert coverage.of_looks((6,), level) < coverage.of_looks((3, 6), level) < 3 * (1 - level)
    assert coverage.of_looks((3, 5, 6, 10), level) > 2 * one


def test_looking_at_the_best_of_several_forms_errs_more_often_than_at_one():
    level = 1 - 0.05 / 3
    alone = coverage.of_looks_at_the_best((3, 6), level, forms=1)
    assert alone == pytest.approx(coverage.of_looks((3, 6), level), abs=0.003)
    once = coverage.of_looks_at_the_best((10,), level)
    assert 1 - level < once <= 0.05 + 0.003  # Bonferroni holds for the three of one outcome
    often = coverage.of_looks_at_the_best((3, 5, 6, 10), level)
    assert max(once, coverage.of_looks((3, 5, 6, 10), level)) < often < 3 * 0.052
