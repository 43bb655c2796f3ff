"""Estimators against enumeration; intervals against known coverage; the same rng, the same bits."""

import itertools
import math
import time

import numpy as np
import pytest

from mrtlib import stats

ANSWERS = ["7", "8", None, "7", "9", "8"]
CORRECT = [True, False, False, True, False, False]


def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("n", [1, 4, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = itertools.combinations([i < c for i in range(n)], k)
        assert stats.pass_at_k(n, c, k) == pytest.approx(np.mean([any(s) for s in subsets]))
    assert stats.pass_at_k([8, 8], [0, 8], 3).tolist() == [0, 1]
    with pytest.raises(ValueError, match="pass@9"):
        stats.pass_at_k(8, 2, 9)


def vote(subset, weights):
    """One vote counted with dicts: fair ties, None abstains, right answers are one."""
    count = {}
    for i in subset:
        if ANSWERS[i] is not None:
            key = "right" if CORRECT[i] else ANSWERS[i]
            count[key] = count.get(key, 0) + weights[i]
    best = [key for key, n in count.items() if n == max(count.values())]
    return ("right" in best) / len(best) if best else 0.0


@pytest.mark.parametrize("weights", [[1] * 6, [1, 4, 9, 2, 3, 1]])
@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_majority_is_exact_over_subsets(k, weights):
    expected = np.mean([vote(s, weights) for s in itertools.combinations(range(6), k)])
    assert stats.maj_at_k(ANSWERS, CORRECT, k, weights=weights) == pytest.approx(expected)
    drawn = stats.maj_at_k(ANSWERS, CORRECT, k, rng(), weights, 20_000, enumerate_up_to=0)
    assert drawn == pytest.approx(expected, abs=0.02)


def test_majority_ties_and_silence():
    assert stats.maj_at_k(["1", "2"], [True, False], 2) == 0.5
    assert stats.maj_at_k(["1", "2", "3"], [True, False, False], 3) == pytest.approx(1 / 3)
    assert stats.maj_at_k(["a/b", "c"], [True, True], 2) == 1  # two forms of the right answer
    assert stats.maj_at_k([None, None], [False, False], 2) == 0
    # Two votes cannot beat one when ties are fair.
    one, two = (stats.maj_at_k(["1", "2", "1"], [True, False, True], k) for k in (1, 2))
    assert one == pytest.approx(two)
    # A tie of weights whose sums differ in the last bit is still a tie.
    assert stats.maj_at_k(["1"] * 3 + ["2"], [True] * 3 + [False], 4,
                          weights=[0.1, 0.1, 0.1, 0.3]) == 0.5  # fmt: skip
    with pytest.raises(ValueError, match="rng"):
        stats.maj_at_k(["1"] * 60, [True] * 60, 30)
    with pytest.raises(ValueError, match="maj@3"):
        stats.maj_at_k(["1"], [True], 3)


def test_maj_at_p_j_votes_at_each_boundary():
    answers, correct = [["1", "2"], ["1", "1"]], [[True, False], [True, True]]
    np.testing.assert_allclose(stats.maj_at_p_j(answers, correct, 1), [0.5, 1.0])
    weighted = stats.maj_at_p_j(answers, correct, 2, weights=[[0.9, 0.1], [1, 1]])
    np.testing.assert_allclose(weighted, [1.0, 1.0])


def test_wilson():
    low, high = stats.wilson([0, 5, 10, 0], [10, 10, 10, 0])
    # Solutions of (p̂ - p)² = z² p (1 - p) / n.
    for p in (low[1], high[1]):
        assert (0.5 - p) ** 2 == pytest.approx(1.959963985**2 * p * (1 - p) / 10)
    assert (low[0], high[2]) == (0, 1)
    assert high[0] == pytest.approx(1 - low[2])
    assert (low[3], high[3]) == (0, 1)
    with pytest.raises(ValueError, match="right <= n"):
        stats.wilson(3, 2)


def test_bootstrap_spread_is_that_of_the_two_stages():
    values = rng().random((40, 6))
    interval = stats.bootstrap(values, rng(), draws=4000)
    assert interval.estimate == pytest.approx(values.mean())
    # Var of a draw: variance between problem means, plus the mean variance within, over P.
    variance = (values.mean(1).var() + (values.var(1) / 6).mean()) / 40
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.08)
    assert interval.low < interval.estimate < interval.high


def test_bootstrap_weighs_problems_not_samples():
    ragged = [[1.0] * 9, [0.0]]
    interval = stats.bootstrap(ragged, rng(), draws=500)
    assert interval.estimate == 0.5
    assert {interval.low, interval.high} == {0.0, 1.0}
    mixed = [[1.0, 1.0, 1.0], [1.0], [1.0, 1.0]]  # a short problem is not padded with zeros
    assert stats.bootstrap(mixed, rng(), draws=50) == stats.Interval(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        stats.bootstrap([[1.0], []], rng())


def test_bootstrap_in_chunks(monkeypatch):
    values = rng().random((5, 3))
    monkeypatch.setattr(stats, "CHUNK", 40)
    chunked = stats.bootstrap(values, rng(), draws=3001)
    monkeypatch.undo()
    whole = stats.bootstrap(values, rng(), draws=3001)
    assert chunked.low == pytest.approx(whole.low, abs=0.02)
    assert chunked.high == pytest.approx(whole.high, abs=0.02)


def test_pairing_removes_what_problems_share():
    difficulty = rng().random(200)
    interval = stats.paired_bootstrap(difficulty + 0.1, difficulty, rng())
    assert interval.low == pytest.approx(0.1) and interval.high == pytest.approx(0.1)
    with pytest.raises(ValueError, match="over_seeds"):
        stats.paired_bootstrap(np.ones((2, 3)), np.ones((2, 3)), rng())


def test_paired_bootstrap_resamples_problems():
    ours, other = rng().random(60), np.random.default_rng(6).random(60)
    interval = stats.paired_bootstrap(ours, other, rng(), draws=4000)
    width = 2 * 1.96 * (ours - other).std() / math.sqrt(60)
    assert interval.estimate == pytest.approx((ours - other).mean())
    assert interval.high - interval.low == pytest.approx(width, rel=0.08)


def test_seeds_are_a_cluster_of_their_own():
    effect = np.array([[0.3], [-0.1], [0.1], [0.2], [0.0]])  # differs by seed, not by problem
    other = rng().random((5, 50))
    interval = stats.paired_bootstrap_over_seeds(other + effect, other, rng(), draws=4000)
    assert interval.estimate == pytest.approx(0.1)
    width = 2 * 1.96 * effect.std() / math.sqrt(5)
    assert interval.high - interval.low == pytest.approx(width, rel=0.15)
    with pytest.raises(ValueError, match="one shape"):
        stats.paired_bootstrap_over_seeds(other, other[:, 1:], rng())


def test_paired_draw_is_the_mean_of_the_drawn_rows_and_columns():
    difference = rng().random((3, 4))
    means = [stats.paired_bootstrap_over_seeds(difference, 0 * difference, rng(), 1).low
             for _ in range(2)]  # fmt: skip
    again = rng()
    seeds, problems = again.integers(3, size=(1, 3))[0], again.integers(4, size=(1, 4))[0]
    assert means[0] == means[1] == pytest.approx(difference[seeds][:, problems].mean())


@pytest.mark.parametrize(
    "draw",
    [
        lambda r: stats.bootstrap(rng().random((20, 4)), r, 300),
        lambda r: stats.paired_bootstrap(rng().random(20), np.zeros(20), r, 300),
        lambda r: stats.maj_at_k(ANSWERS, CORRECT, 3, r, draws=300, enumerate_up_to=0),
    ],
)
def test_the_same_rng_state_gives_the_same_bits(draw):
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first = draw(np.random.default_rng(3))
    np.random.seed(2)  # noqa: NPY002
    assert draw(np.random.default_rng(3)) == first
    assert draw(np.random.default_rng(4)) != first


def test_two_thousand_draws_over_five_hundred_problems_are_quick():
    values = rng().random((500, 4))
    start = time.process_time()
    stats.bootstrap(values, rng())
    stats.paired_bootstrap(values[:, 0], values[:, 1], rng())
    assert time.process_time() - start < 3  # about 0.3 s; loose for a busy machine
