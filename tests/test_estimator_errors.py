"""The comparison of estimators on draws whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import load_profile
from mrtlib.evaluation.sweep import load_tables
from mrtlib.experiments import claims, estimators
from mrtlib.experiments.answers import first_rollouts

PLACE = {"method": "base", "seed": 0, "level": "three", "sample": 0, "kind": "forced", "right": 0}
COST = {"0": 500.0, "1": 400.0, "2": 440.0, "4": 520.0, "8": 680.0, "16": 1000.0, "256": 10600.0}


def drawn(traces=80, off=0.0, rng=None, even=True):
    """Return J of traces by every estimator; `off` is a fault of exact J.

    Traces have five boundaries, or, if they are not `even`, every second one has two easy ones.
    """
    rng = rng or np.random.default_rng(0)
    rows = []
    for i in range(traces):
        size = 6 if i % 2 or even else 3
        J = rng.uniform(0.05, 0.95, size) if i % 2 or even else rng.uniform(0.01, 0.02, size)
        for k in (0, *estimators.ANSWERS, estimators.GOLD):
            seen = rng.binomial(k, J) / k if k else J + off * rng.choice([-1, 1], size)
            rows += [
                PLACE | {"problem": f"p{i}", "j": j, "tokens": 10 * j, "answers": k, "J": value,
                         "progress": value - seen[j - 1] if j else None}
                for j, value in enumerate(seen)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def test_errors_are_what_the_draws_must_show():
    table = estimators.errors(drawn(), COST).set_index("answers")
    assert list(table.index) == [0, 1, 2, 4, 8, 16] and "exact" in table["way"].to_list()
    assert (table["error"] / table["predicted"]).between(0.9, 1.1).all()
    assert table["error"].iloc[1:].is_monotonic_decreasing
    assert table.loc[0, "error"] == pytest.approx(table.loc[0, "floor"], rel=0.1)
    # J is uniform on [0.05, 0.95], where J (1 - J) is 0.1825 in the mean; a progress has two J.
    assert table.loc[1, "predicted"] == pytest.approx(np.sqrt(2 * 0.1825), rel=0.05)
    assert table.loc[0, "correlation"] > 0.98 > table.loc[1, "correlation"]


def test_short_traces_weigh_as_much_as_long_ones():
    table = estimators.errors(drawn(300, even=False), COST)
    assert (table["error"] / table["predicted"]).between(0.93, 1.07).all()


def test_what_sampling_needs_is_bounded_by_the_gold_standard():
    answers, times = estimators.sampling_needed(estimators.errors(drawn(), COST), COST)
    assert 120 < answers <= 256 and times == pytest.approx((360 + 40 * answers) / 500)


def test_an_exact_that_is_off_is_found_out():
    table = estimators.errors(drawn(off=0.1), COST)
    row = table.set_index("answers").loc[0]
    assert row["low"] > row["floor"]
    answers, _ = estimators.sampling_needed(table, COST)
    # The fault is 0.1 at both ends of a progress: as much as 0.365 / 0.02 = 18 answers leave.
    assert 10 < answers < 20


def test_words_and_claims():
    table = estimators.errors(drawn(), COST)
    text = estimators.errors_in_words(table, COST)
    assert "K = 4 with 1.04 times the tokens" in text and "so no error of exact progress" in text
    assert "the most that this" not in text or "at least 256 answers" in text
    good = {claim: low <= value <= high for claim, value, low, high in claims.of_gold(table, COST)}
    assert len(good) == 3 and all(good.values())
    bad = claims.of_gold(estimators.errors(drawn(off=0.3), COST), COST)
    assert not all(low <= value <= high for _, value, low, high in bad)
    assert "so an error of exact progress" in estimators.errors_in_words(
        estimators.errors(drawn(off=0.3), COST), COST
    )


def test_measured_once_on_a_real_model(records, monkeypatch, tmp_path):
    profile = load_profile("tiny")
    rollouts = load_tables(records / "evaluation" / "base-0")["rollouts"]
    few = first_rollouts(profile, rollouts, 1)
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    monkeypatch.setattr(estimators, "GOLD", 32)
    table, cost = estimators.progress_by_estimator(profile, few, 0)
    boundaries = int(few["episodes"].sum()) + len(few)
    assert len(table) == 7 * boundaries and set(table["answers"]) == {0, *estimators.ANSWERS, 32}
    assert list(cost) == ["0", "1", "16", "2", "32", "4", "8"]
    assert cost["1"] < cost["4"] < cost["16"] < cost["32"]
    monkeypatch.setattr(estimators, "_progress_rows", None)  # a second call only reads
    again, same = estimators.progress_by_estimator(profile, few, 0)
    pd.testing.assert_frame_equal(again, table)
    assert same == cost
