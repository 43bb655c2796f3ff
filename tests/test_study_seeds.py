"""How many seeds are on record, and how each run ended."""

import numpy as np
import pytest
from test_study_results import C0, LEVELS, SEEDS, made

from mrtlib.config import load_profile
from mrtlib.experiments import study, study_seeds
from mrtlib.experiments.study_results import Found
from mrtlib.experiments.study_seeds import BEYOND


def test_seeds_are_counted_by_what_is_on_record(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    profile = load_profile("study")
    for run in study.trainings(profile, study.compared(profile)):
        if run.part.name == "long" and run.method == "outcome" and run.seed < 5:
            run.record.write(run.key, [])
    models = made({"base": -0.1, "outcome": 0.0, "mixed_group": 0.1})
    models["outcome", 1]["regret", 4 * C0] = models["outcome", 1]["regret", C0]
    found = [Found("long", "test", models), Found("long", "five", {("outcome", 2): {}})]
    table = study_seeds.counted(profile, found).set_index(["part", "method"])
    row = table.loc[("long", "outcome")]
    assert (row["planned"], row["trained"], row["test"], row["larger"], row["five"],
            row[BEYOND]) == (10, 5, SEEDS, 0, 1, 1)  # fmt: skip
    assert table.loc[("long", "mixed_group"), ["trained", "test", BEYOND]].tolist() == [0, SEEDS, 0]
    assert table.loc["short"][["trained", "test"]].sum().sum() == 0
    assert set(table.loc["middle"]["planned"]) == {5} and len(table) == 5 + 5 + 12


def test_ends_are_means_over_problems_by_level():
    models = made({"base": -0.1, "outcome": 0.0})
    table = study_seeds.ends([Found("long", "test", models), Found("long", "five", models)], C0)
    assert len(table) == (1 + SEEDS) * 3  # the other set is left out
    table = table.set_index(["method", "seed", "level"])
    own = np.array([float(v[0]) for v in models["outcome", 2]["regret", C0]])
    four = np.array(LEVELS) == "four"
    assert table.loc[("outcome", 2, "all"), "regret"] == pytest.approx(own.mean())
    assert table.loc[("outcome", 2, "four"), "regret"] == pytest.approx(own[four].mean())
