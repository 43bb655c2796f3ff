"""Simulated models have the accuracy they are given, and vary as the records do."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import load_profile
from mrtlib.experiments import population
from mrtlib.shards import Shards
from mrtlib.stats import mean_squares
from mrtlib.store import read_json


@pytest.fixture(scope="module")
def budgets(records) -> pd.DataFrame:
    """The `budgets` records of every evaluated model of the profile `tiny`."""
    folders = sorted((records / "evaluation").iterdir())
    return pd.concat(
        Shards(folder / "budgets", "budgets").read(read_json(folder / "keys.json"))
        for folder in folders
    )


def test_the_table_on_record_is_that_of_the_records(budgets):
    made = population.components(budgets, load_profile("tiny").thinking.budget)
    kept = pd.read_csv(population.ON_RECORD)
    pd.testing.assert_frame_equal(made, kept, rtol=0, atol=1e-5, check_dtype=False)


def components(accuracy, levels):
    """Return the standard deviations of accuracy by seed, problem and cell, means over draws."""
    of_seeds, of_problems, rest = (np.mean(ms) for ms in mean_squares(accuracy, levels)[0])
    seeds, problems = accuracy.shape[-2:]
    parts = (of_seeds - rest) / problems, (of_problems - rest) / seeds, rest
    return [max(part, 0) ** 0.5 for part in parts]


def test_draws_vary_as_the_records_do(budgets):
    models = population.read()
    drawn = models.draw(np.random.default_rng(0), 60, 5, 500)
    at_end = budgets[(budgets["budget"] == models.budgets[-1]) & (budgets["method"] != "base")]
    grids = {m: population._grid(part) for m, part in at_end.groupby("method")}
    levels = np.arange(500) % 2
    own = np.mean([components(values, level) for values, level, _ in grids.values()], axis=0)
    assert components(drawn[0, :, -1], levels) == pytest.approx(own, rel=0.25)
    (ours, level, _), (other, _, _) = grids[population.OURS], grids[population.OTHER]
    gap = components(drawn[0, :, -1] - drawn[1, :, -1], levels)
    assert gap == pytest.approx(components(ours - other, level), rel=0.25)


@pytest.mark.parametrize("seed", [0.0, 0.0097, 0.04])
def test_the_accuracy_is_what_was_asked_for(seed):
    known = population.read()
    models = replace(known, seed=seed)
    drawn = models.draw(np.random.default_rng(1), 400, 5, 50)
    np.testing.assert_allclose(drawn.mean((1, 3, 4)), known.curves, atol=0.01)
    by_level = drawn[:, :, :, :, 1::2].mean((1, 3, 4))
    np.testing.assert_allclose(by_level, known.accuracy[:, 1], atol=0.012)
    assert (np.diff(drawn, axis=2) >= 0).all()  # right at one budget, right at the next
    assert set(np.unique(drawn)) <= {0, 0.25, 0.5, 0.75, 1}


def test_alike_is_the_other_method_twice():
    same = population.read().alike()
    assert (same.curves[0] == same.curves[1]).all()
    assert (same.curves[1] == population.read().curves[1]).all()
