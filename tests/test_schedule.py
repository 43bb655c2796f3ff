"""Schedules by the tokens spent: learning rate, budget stages, and what counts as done."""

import pytest

from mrtlib.config import Training
from mrtlib.training.schedule import rate_at, rate_factor, share_done, spent, stage

LOG = [
    {"generated": 100.0, "sampled": 150.0, "probed": 50.0, "learned": 120.0},
    {"loss": 0.1},
    {"generated": 60.0, "sampled": 80.0, "learned": 70.0},
]


def test_tokens_are_counted_generated_or_all_that_go_through_the_model():
    assert spent(LOG, "generated") == 160
    assert spent(LOG, "all") == 150 + 50 + 120 + 80 + 70


def test_a_run_is_done_by_its_tokens_or_by_its_steps():
    assert share_done(LOG, Training(tokens=320, most_steps=100)) == 0.5
    assert share_done(LOG, Training(tokens=10**6, most_steps=4)) == 0.5
    assert share_done(LOG, Training(tokens=940, count="all")) == 0.5
    assert share_done(LOG, Training(tokens=1)) == 1.0
    assert share_done([], Training()) == 0.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_rates_decay_to_a_tenth(schedule):
    factors = [rate_factor(schedule, done / 10) for done in range(11)]
    assert factors[0] == 1 and factors[-1] == pytest.approx(0.1)
    assert factors == sorted(factors, reverse=True)
    assert factors[5] == pytest.approx(0.55)  # both are half-way down there
    assert rate_factor("constant", 0.7) == 1


def test_a_curriculum_has_equal_parts():
    assert [stage((0.5, 1.0), done) for done in (0, 0.49, 0.5, 1.0)] == [0.5, 0.5, 1.0, 1.0]
    assert stage((1.0,), 0.3) == 1.0


def test_a_warm_up_of_no_steps_wastes_none():
    assert rate_at(0, 0.0, Training(warmup_steps=0)) == 1.0
    assert [rate_at(step, 0.0, Training(warmup_steps=2)) for step in range(4)] == [0, 0.5, 1, 1]
