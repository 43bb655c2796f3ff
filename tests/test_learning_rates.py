"""The search of the learning rate records every run and chooses by the reported measure."""

from dataclasses import replace

import pandas as pd

from mrtlib.experiments import learning_rates


def test_the_rate_with_the_least_mean_regret_is_chosen_for_each_method():
    table = pd.DataFrame(
        [("a", 1e-3, 0, 0.5), ("a", 1e-3, 1, 0.9), ("a", 1e-4, 0, 0.6), ("a", 1e-4, 1, 0.6),
         ("b", 1e-3, 0, 0.1), ("b", 1e-4, 0, 0.2)],
        columns=["method", "learning_rate", "seed", "regret"],
    )  # fmt: skip
    assert learning_rates.best(table) == {"a": 1e-4, "b": 1e-3}


def test_every_run_is_in_the_table(toy_profile, tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    base = toy_profile("none")
    profile = replace(
        base,
        thinking=replace(base.thinking, budget=32, answer_tokens=8),
        data=replace(base.data, train=4, validation=2),
        training=replace(base.training, methods=("outcome", "regret_to_go"), tokens=10**6),
        evaluation=replace(base.evaluation, budgets=(8, 16, 24, 32), extensions=1,
                           extension_tokens=8),
    )  # fmt: skip
    table = learning_rates.search(profile, (1e-3, 1e-2), (0,), 10)
    assert len(table) == 4 and set(table["generated"]) == {10}
    assert table["regret"].between(0, 1).all() and (table["low"] <= table["high"]).all()
    assert len(pd.read_csv(tmp_path / "smoke" / "tuning.csv")) == 4
    again = learning_rates.search(profile, (1e-3, 1e-2), (0,), 10)
    pd.testing.assert_frame_equal(table, again)
    one = learning_rates.search(profile, (1e-3,), (0,), 10)  # a part of it anew
    assert len(one) == 2 and len(pd.read_csv(tmp_path / "smoke" / "tuning.csv")) == 4
