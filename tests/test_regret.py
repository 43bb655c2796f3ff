"""Anytime curves and regret against token-by-token sums; efficiency by hand."""

import math

import numpy as np
import pytest

from mrtlib import regret

RNG = np.random.default_rng(0)
J, T = [0.2, 0.5, 0.4], [0, 10, 30]


def random_curve():
    k = RNG.integers(0, 6)
    return RNG.random(k + 1), np.concatenate([[0], np.sort(RNG.integers(0, 200, k))])


def value_at(curve_J, t, n):
    """J_j of the last boundary at or before n, by a loop."""
    return [j for j, start in zip(curve_J, t, strict=True) if start <= n][-1]


def test_anytime_holds_each_value_from_its_boundary_on():
    np.testing.assert_array_equal(
        regret.anytime(J, T, [0, 9.9, 10, 29, 30, 999]), [0.2, 0.2, 0.5, 0.5, 0.4, 0.4]
    )


def test_area_and_regret_are_sums_over_tokens():
    for _ in range(50):  # with equal boundaries, and boundaries beyond the budget
        curve, t = random_curve()
        by_token = [value_at(curve, t, n) for n in range(100)]
        assert regret.area(curve, t, 100) == pytest.approx(sum(by_token))
        assert regret.normalised_regret(curve, t, 100) == pytest.approx(1 - np.mean(by_token))


def test_regret_at_the_extremes():
    assert regret.normalised_regret([1.0], [0], 50) == 0
    assert regret.normalised_regret([0.0, 1.0], [0, 50], 50) == 1
    assert regret.normalised_regret([0.0, 1.0], [0, 25], 50) == 0.5


def test_budgets_are_vectorised():
    budgets = np.array([[5.0, 10], [25, 500]])
    many = regret.normalised_regret(J, T, budgets)
    assert many.shape == (2, 2)
    assert many[1, 0] == pytest.approx(regret.normalised_regret(J, T, 25))
    np.testing.assert_allclose(regret.anytime(J, T, [5, 25]), [0.2, 0.5])
    np.testing.assert_allclose(regret.normalised_regret([0.3], [0], [5, 25]), 0.7)


def test_ramped_regret_by_hand():
    # (0,0) -> (10, 0.4) -> (20, 0.8), flat after: areas 2, 6 and 0.8 a token.
    assert regret.ramped_regret([0.4, 0.8], [10, 20], 20) == pytest.approx(1 - 8 / 20)
    assert regret.ramped_regret([0.4, 0.8], [10, 20], 30) == pytest.approx(1 - 16 / 30)
    assert regret.ramped_regret([0.4, 0.8], [10, 20], 15) == pytest.approx(1 - (2 + 2.5) / 15)


def notebook_area(accuracy, tokens, cutoff):
    """The area of the authors' notebook, transcribed; right as long as tokens ascend."""
    y, x = [0, *accuracy], np.array([0, *tokens])
    inside = list(x[x < cutoff])
    if len(inside) == len(x):
        return np.trapezoid([*y, y[-1]], [*x, cutoff]) / cutoff
    at = len(inside) - 1
    cut = y[at] + (cutoff - x[at]) / (x[at + 1] - x[at]) * (y[at + 1] - y[at])
    return np.trapezoid([*y[: at + 1], cut], [*inside, cutoff]) / cutoff


def test_ramped_regret_is_the_notebook_s():
    assert regret.ramped_regret([0.2, 0.8, 1], [100, 100, 200], 200) == pytest.approx(0.5)
    for _ in range(50):  # ties among them
        k = RNG.integers(1, 6)
        accuracy, tokens = RNG.random(k), np.sort(RNG.integers(1, 12, k)) * 10
        for budget in (35, 95, 300):
            expected = 1 - notebook_area(accuracy, tokens, budget)
            assert regret.ramped_regret(accuracy, tokens, budget) == pytest.approx(expected)


def test_ramped_regret_takes_points_that_go_back():
    """An answer that is shorter than the one before it; all within the budget."""
    for _ in range(20):
        accuracy, tokens = RNG.random(5), RNG.integers(10, 90, 5)
        expected = 1 - notebook_area(accuracy, tokens, 100)
        assert regret.ramped_regret(accuracy, tokens, 100) == pytest.approx(expected)
    # Over the budget and back: what lies beyond it does not count, on either way.
    there = regret.ramped_regret([0.5, 1.0], [10, 30], 20)
    assert regret.ramped_regret([0.5, 1.0, 1.0], [10, 30, 25], 20) == pytest.approx(there)


def test_extrapolation_continues_the_curve():
    longer_J, longer_t = regret.extrapolate(J, T, [0.6, 0.8], [5, 10])
    np.testing.assert_array_equal(longer_t, [0, 10, 30, 35, 45])
    # Nothing changes at budgets within the trace, and beyond it the new steps count.
    assert regret.area(longer_J, longer_t, 30) == regret.area(J, T, 30)
    assert regret.area(longer_J, longer_t, 50) == pytest.approx(
        regret.area(J, T, 35) + 10 * 0.6 + 5 * 0.8
    )
    assert len(regret.extrapolate(J, T, [], [])[0]) == 3


def test_tokens_to_reach_interpolates_on_the_envelope():
    tokens, accuracy = [10, 20, 30, 40], [0.2, 0.4, 0.3, 0.6]
    assert regret.tokens_to_reach(tokens, accuracy, 0.3) == pytest.approx(15)
    assert regret.tokens_to_reach(tokens, accuracy, 0.4) == 20  # the dip is ignored
    assert regret.tokens_to_reach(tokens, accuracy, 0.5) == pytest.approx(
        35
    )  # from the envelope 0.4 at 30
    assert regret.tokens_to_reach(tokens, accuracy, 0.1) == 10  # never left of the first point
    assert regret.tokens_to_reach(tokens, accuracy, 0.61) == math.inf
    assert regret.tokens_to_reach(tokens[::-1], accuracy[::-1], 0.3) == pytest.approx(15)


def test_efficiency_at_equal_accuracy():
    ours, rival = ([10, 20], [0.4, 0.8]), ([10, 40], [0.2, 0.6])
    assert regret.efficiency_at_equal_accuracy(*ours, *rival) == pytest.approx(40 / 15)
    assert regret.efficiency_at_equal_accuracy(*rival, *ours) == 0.0  # never reached
    assert regret.efficiency_at_equal_accuracy(*ours, *ours) == 1.0
    assert regret.efficiency_at_equal_accuracy([0, 9], [0.7, 0.8], *rival) == math.inf
    assert regret.efficiency_at_equal_accuracy([0], [0.5], [0], [0.5]) == 1.0


def test_many_curves_at_once_are_those_one_by_one():
    x = [10, 20, 40, 80]
    ours, other = RNG.random((2, 300, 4))
    ours[:20], other[20:40] = other[:20], 0.5  # equal, and flat
    each = [regret.efficiency_at_equal_accuracy(x, a, x, b)
            for a, b in zip(ours, other, strict=True)]  # fmt: skip
    assert regret.efficiency_at_equal_accuracy(x, ours, x, other).tolist() == each
    assert {0, 1} < set(each)


@pytest.mark.parametrize(
    "call",
    [
        lambda: regret.normalised_regret(J, T, 0),
        lambda: regret.ramped_regret(J, T, 0),
        lambda: regret.ramped_regret(J, [0, -1, 3], 9),
        lambda: regret.ramped_regret([0.1, np.nan, 0.3], T, 9),
        lambda: regret.normalised_regret([0.1, np.nan, 0.3], T, 9),
        lambda: regret.tokens_to_reach([1, 2], [0.5, np.nan], 0.5),
        lambda: regret.anytime(J, T, -1),
        lambda: regret.anytime(J, T, [5, np.nan]),
        lambda: regret.anytime(J, [0, np.nan, 30], [5, 15]),
        lambda: regret.normalised_regret(J, T, np.nan),
        lambda: regret.normalised_regret(J, T, np.inf),
        lambda: regret.ramped_regret(J, T, np.nan),
        lambda: regret.area(J, T, np.nan),
        lambda: regret.stop_point([0.1, 0.5, np.nan]),
        lambda: regret.stop_point([]),
        lambda: regret.area(J, [1, 2, 3], 9),
        lambda: regret.area(J, [0, 2], 9),
        lambda: regret.extrapolate(J, T, [0.5], [1, 2]),
        lambda: regret.tokens_to_reach([], [], 0.5),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match="must|need|from 0 on"):
        call()


def test_the_quirks_of_the_authors_notebook_are_there_on_request():
    accuracy, tokens = [0.2, 0.5, 0.9], [50.0, 150.0, 350.0]
    # Where every point lies within C0, an answer's half is all the difference.
    assert regret.ramped_regret_with_quirks(accuracy, tokens, 0, 400) == pytest.approx(
        regret.ramped_regret(accuracy, tokens, 400))  # fmt: skip
    assert regret.ramped_regret_with_quirks(accuracy, tokens, 20, 400) == pytest.approx(
        regret.ramped_regret(accuracy, [40, 140, 340], 400))  # fmt: skip
    # A point beyond C0 is not cut: the trapezoid goes there, and back along the last accuracy.
    x, y = [0, 50, 150, 350, 200], [0, 0.2, 0.5, 0.9, 0.9]
    want = 1 - np.trapezoid(y, x) / 200
    assert regret.ramped_regret_with_quirks(accuracy, tokens, 0, 200) == pytest.approx(want)
    assert regret.ramped_regret_with_quirks(accuracy, tokens, 0, [200, 400]).shape == (2,)
    assert want != pytest.approx(regret.ramped_regret(accuracy, tokens, 200), abs=0.01)
