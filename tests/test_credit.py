"""Each form of credit against a loop or a closed form, and what it really optimises."""

import numpy as np
import pytest

from mrtlib import credit
from mrtlib.regret import normalised_regret

RNG = np.random.default_rng(0)


def random_curve(k, reach):
    t = np.concatenate([[0], np.sort(RNG.choice(np.arange(1, reach), k, replace=False))])
    return RNG.random(k + 1), t


def test_outcome_is_trl():
    # Mean 0.25, ddof-1 std 0.5.
    expected = np.array([0.75, -0.25, -0.25, -0.25]) / (0.5 + 1e-4)
    np.testing.assert_allclose(credit.outcome([1, 0, 0, 0]), expected)
    groups = RNG.random((3, 5))
    np.testing.assert_allclose(credit.outcome(groups)[1], credit.outcome(groups[1]))
    assert not credit.outcome([1, 1, 1]).any()
    with pytest.raises(ValueError, match="two rollouts"):
        credit.outcome([1.0])


def test_what_was_not_measured_is_no_number():
    for call in (lambda: credit.outcome([1.0, np.nan]), lambda: credit.progress([0.1, np.nan])):
        with pytest.raises(ValueError, match="finite"):
            call()


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0, 10.0])
def test_shaped_constant_is_grpo_in_disguise(alpha):
    f = np.array([1.0, 0, 0, 1, 0, 0, 0, 1])
    shaped = credit.outcome(credit.shaped_constant(f, c=0.3, alpha=alpha))
    np.testing.assert_allclose(shaped, credit.outcome(f), atol=5e-4)
    # Up to the epsilon: without spread the two are equal exactly.
    same = np.ones(4)
    np.testing.assert_array_equal(
        credit.outcome(credit.shaped_constant(same, 0.3, alpha)), credit.outcome(same)
    )


def test_length_penalty_by_hand():
    r = credit.length_penalty([1, 0, 1, 1], [10, 999, 20, 30], alpha=0.5)
    z = 10 / np.std([10, 20, 30])
    sigmoid = 1 / (1 + np.exp([z, 0, -z]))
    np.testing.assert_allclose(r[[0, 2, 3]], 1 - 0.5 * sigmoid)
    assert r[1] == 0  # wrong is wrong, however long
    assert r[0] > r[2] > r[3] > 0
    np.testing.assert_allclose(credit.length_penalty([1, 1], [7, 7], 0.5), 0.75)
    np.testing.assert_array_equal(credit.length_penalty([0, 0], [7, 9], 0.5), 0)


def test_mixed_group_mean_advantage_is_progress_over_two_sigma():
    continued, terminated = np.array([1.0, 1, 0, 1]), np.array([0.0, 1, 0, 0])
    a_continued, a_terminated = credit.mixed_group(continued, terminated)
    sigma = np.concatenate([continued, terminated]).std(ddof=1) + credit.EPSILON
    gain = continued.mean() - terminated.mean()
    assert a_continued.mean() == pytest.approx(gain / (2 * sigma))
    assert a_terminated.mean() == pytest.approx(-gain / (2 * sigma))
    worse, _ = credit.mixed_group(terminated, continued)  # terminating beats continuing
    assert worse.mean() < 0
    assert [len(a) for a in credit.mixed_group([1, 0, 1], [0])] == [3, 1]


def test_termination_baseline_does_not_vanish_when_a_group_agrees():
    np.testing.assert_allclose(credit.termination_baseline([0, 0, 0], 0.75), -0.75)
    np.testing.assert_allclose(credit.termination_baseline([1, 0], [0.25, 0.5]), [0.75, -0.5])


def test_progress_telescopes():
    J, t = random_curve(6, 50)
    assert credit.progress(J).sum() == pytest.approx(J[-1] - J[0])
    np.testing.assert_array_equal(
        credit.episode_progress(J, t, 100), [b - a for a, b in zip(J, J[1:], strict=False)]
    )
    assert credit.progress([0.4]).shape == (0,)


@pytest.mark.parametrize("reach", [40, 400])
def test_credit_sums_to_the_regret_removed(reach):
    for _ in range(50):  # reach 400 puts boundaries on both sides of the budget
        J, t = random_curve(7, reach)
        g = credit.discounted_progress(J, t, 100)
        assert 1 - normalised_regret(J, t, 100) == pytest.approx(J[0] + g.sum())
    assert not credit.discounted_progress([0, 1, 0], [0, 100, 150], 100).any()


def test_early_progress_is_worth_more():
    early = credit.discounted_progress([0, 1, 1], [0, 20, 80], 100)
    late = credit.discounted_progress([0, 0, 1], [0, 20, 80], 100)
    np.testing.assert_allclose([early.sum(), late.sum()], [0.8, 0.2])


def test_regret_to_go_is_a_reverse_sum():
    J, t = random_curve(5, 90)
    g = credit.discounted_progress(J, t, 60)
    np.testing.assert_allclose(credit.regret_to_go(J, t, 60), [sum(g[j:]) for j in range(5)])


def test_budget_relative_against_loops():
    J, p = RNG.random((4, 5)), np.array([1.0, 2, 3, 4, 5])
    a, q = credit.budget_relative(J, p), p / p.sum()
    for g in range(4):
        for s in range(5):
            ret = sum(q[i] * J[g, i] for i in range(s, 5))
            group = np.mean([sum(q[i] * J[h, i] for i in range(s, 5)) for h in range(4)])
            w = [0.5 ** (s - i) for i in range(s)]
            past = sum(w[i] * J[g, i] for i in range(s)) / sum(w) if s else 0.0
            expected = ret - s / 5 * past * q[s:].sum() - (5 - s) / 5 * group
            assert a[g, s] == pytest.approx(expected)


def test_budget_relative_ignores_a_trace_that_stands_still():
    # Same value at every budget and in every rollout: nothing was gained anywhere.
    np.testing.assert_allclose(
        credit.budget_relative(np.full((3, 4), 0.6), np.ones(4)), 0, atol=1e-15
    )


def test_per_token():
    assert credit.per_token([1, 2], [0, 2, 5], length=7).tolist() == [1, 1, 2, 2, 2, 0, 0]
    assert credit.per_token([], [0], length=2).tolist() == [0, 0]
    assert credit.per_token([3], [0, 4], length=4).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(
    "call",
    [
        lambda: credit.per_token([1], [0, 5], 4),  # the trace is longer than the rollout
        lambda: credit.per_token([1, 2], [2, 5], 9),  # t_0 left out
        lambda: credit.discounted_progress([0, 1], [5, 9], 10),
        lambda: credit.discounted_progress([0, 1], [0, 9], 0),
        lambda: credit.regret_to_go([0, 1, 1], [0, 9], 10),
        lambda: credit.progress([]),
        lambda: credit.length_penalty([1, 0], [3], 0.5),
        lambda: credit.length_penalty([1, 0], [3, 4], 1.0),
        lambda: credit.budget_relative([[0.1, 0.2]], [1.0]),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match="must|needs|positive"):
        call()


def test_arguments_are_not_written_to():
    J, t = np.array([0.1, 0.5, 0.2]), np.array([0, 3, 9])
    before = J.copy(), t.copy()
    credit.regret_to_go(J, t, 5)
    credit.budget_relative(J[None], t[1:].cumsum().repeat(2)[:3])
    np.testing.assert_array_equal(J, before[0])
    np.testing.assert_array_equal(t, before[1])
