"""The bootstraps that are measured against: draws are what they say."""

import numpy as np
import pytest

from mrtlib.experiments import coverage


def rng():
    return np.random.default_rng(5)


def test_a_crossed_draw_is_the_mean_of_the_drawn_rows_and_columns():
    values = rng().random((2, 3, 4))
    means = coverage.crossed_means(values, rng(), 1)
    again = rng()
    problems, seeds = again.integers(4, size=(1, 4))[0], again.integers(3, size=(1, 3))[0]
    assert means[:, 0] == pytest.approx([v[seeds][:, problems].mean() for v in values])


def test_nested_draws_spread_as_the_two_stages_do():
    values = rng().random((1, 40, 6))
    means = coverage.nested_means(values, rng(), 4000)
    # Variance between problem means, plus the mean variance within, over P.
    variance = (values[0].mean(1).var() + (values[0].var(1) / 6).mean()) / 40
    assert means.mean() == pytest.approx(values.mean(), abs=0.003)
    assert means.std() == pytest.approx(variance**0.5, rel=0.05)
    found = coverage.percentile_interval(means)
    assert found.high[0] - found.low[0] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.08)


def test_shares_are_drawn_as_the_samples_behind_them():
    right = rng().random((1, 60, 4)) < 0.3
    samples = coverage.nested_means(right, rng(), 4000)
    shares = coverage.nested_share_means(right.mean(-1), 4, rng(), 4000)
    assert shares.mean() == pytest.approx(samples.mean(), abs=0.005)
    assert shares.std() == pytest.approx(samples.std(), rel=0.05)
