"""Estimators against enumeration; intervals against the analysis of variance worked out."""

import itertools
import math

import numpy as np
import pytest

from mrtlib import stats
from mrtlib.evaluation import votes

ANSWERS = ["7", "8", None, "7", "9", "8"]
CORRECT = [True, False, False, True, False, False]


def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("n", [1, 4, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = itertools.combinations([i < c for i in range(n)], k)
        assert votes.pass_at_k(n, c, k) == pytest.approx(np.mean([any(s) for s in subsets]))
    assert votes.pass_at_k([8, 8], [0, 8], 3).tolist() == [0, 1]
    with pytest.raises(ValueError, match="pass@9"):
        votes.pass_at_k(8, 2, 9)


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
    assert votes.maj_at_k(ANSWERS, CORRECT, k, weights=weights) == pytest.approx(expected)
    drawn = votes.maj_at_k(ANSWERS, CORRECT, k, rng(), weights, 20_000, enumerate_up_to=0)
    assert drawn == pytest.approx(expected, abs=0.02)


def test_majority_ties_and_silence():
    assert votes.maj_at_k(["1", "2"], [True, False], 2) == 0.5
    assert votes.maj_at_k(["1", "2", "3"], [True, False, False], 3) == pytest.approx(1 / 3)
    assert votes.maj_at_k(["a/b", "c"], [True, True], 2) == 1  # two forms of the right answer
    assert votes.maj_at_k([None, None], [False, False], 2) == 0
    for nothing in (None, math.nan):  # a table makes NaN of None
        answers = [nothing, nothing, "a", "b"]
        assert votes.maj_at_k(answers, [False, False, True, False], 4) == 0.5
    # Two votes cannot beat one when ties are fair.
    one, two = (votes.maj_at_k(["1", "2", "1"], [True, False, True], k) for k in (1, 2))
    assert one == pytest.approx(two)
    # A tie of weights whose sums differ in the last bit is still a tie.
    assert votes.maj_at_k(["1"] * 3 + ["2"], [True] * 3 + [False], 4,
                          weights=[0.1, 0.1, 0.1, 0.3]) == 0.5  # fmt: skip
    with pytest.raises(ValueError, match="rng"):
        votes.maj_at_k(["1"] * 60, [True] * 60, 30)
    with pytest.raises(ValueError, match="maj@3"):
        votes.maj_at_k(["1"], [True], 3)


def test_a_vote_counts_by_its_weight():
    answers, correct = ["1", "2"], [True, False]
    assert votes.maj_at_k(answers, correct, 1) == 0.5
    assert votes.maj_at_k(answers, correct, 2, weights=[0.9, 0.1]) == 1
    assert votes.maj_at_k(answers, correct, 2, weights=[0.1, 0.9]) == 0


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


def test_two_way_is_the_t_interval_of_one_way_where_there_is_only_one():
    values = [0.1, 0.4, 0.3, 0.8]
    half = 3.182446 * np.std(values, ddof=1) / 2  # t of 3 degrees of freedom
    for table in ([values], np.transpose([values])):
        found = stats.two_way(table)
        assert found.estimate == pytest.approx(0.4)
        assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half), rel=1e-6)
    assert stats.over_seeds(values) == stats.two_way([values])
    alone = stats.two_way([[0.3]])
    assert alone.estimate == 0.3 and math.isnan(alone.low) and math.isnan(alone.high)
    with pytest.raises(ValueError, match="a seed and a problem"):
        stats.two_way(np.ones((3, 0)))


def test_mean_squares_are_those_of_the_analysis_of_variance():
    values = np.array([[1.0, 2.0, 6.0], [3.0, 2.0, 10.0]])
    (of_seeds, of_problems, rest), free = stats.mean_squares(values)
    # Means of seeds 3 and 5, of problems 2, 2 and 8, of all 4.
    assert (of_seeds, of_problems, free) == (3 * 2 / 1, 2 * 24 / 2, (1, 2))
    left = values - [[3], [5]] - [2, 2, 8] + 4
    assert rest == pytest.approx((left**2).sum() / 2)
    _, variance, found = stats.mean_and_variance(values)
    assert found == 1  # that of two seeds
    assert variance == pytest.approx((of_seeds + of_problems - rest) / 6)
    total, df = stats.combined((np.array(2.0), np.array(4.0), np.array(1.5)), (5, 7))  # six seeds
    assert total == 4.5
    assert df == pytest.approx(stats.CAUTION * 4.5**2 / (2**2 / 5 + 4**2 / 7 + 1.5**2 / 35))


def test_seeds_that_agree_make_no_variance_negative():
    values = np.tile(rng().random((1, 40)), (5, 1))
    values += np.array([[0.1], [-0.1], [0.1], [-0.1], [0.0]]) * np.where(np.arange(40) % 2, 1, -1)
    (of_seeds, of_problems, rest), _ = stats.mean_squares(values)
    assert of_seeds < rest < of_problems
    assert stats.mean_and_variance(values)[1] == pytest.approx(of_problems / 200)


def test_levels_do_not_vary_by_chance():
    easy = np.arange(40) % 2
    values = rng().normal(0, 0.1, (3, 40)) + easy + np.array([[0.06], [0.0], [0.02]]) * easy
    plain, within = (stats.two_way(values, levels) for levels in (None, easy))
    assert within.estimate == pytest.approx(plain.estimate)
    assert within.high - within.low < 0.75 * (plain.high - plain.low)
    (_, _, rest), (_, df) = stats.mean_squares(values, easy)
    assert df == 38 and rest == pytest.approx(0.01, rel=0.3)  # seeds may differ by level
    each = stats.two_way(values[:, :2], [0, 1])  # one problem a level leaves nothing within them
    assert each == stats.two_way(values[:, :2])
    with pytest.raises(ValueError, match="level of each of 40"):
        stats.two_way(values, [0, 1])


def test_problems_count_alike_whatever_they_share():
    difficulty = rng().random(200)
    same = stats.two_way((difficulty + 0.1 - difficulty)[None])
    assert same.low == pytest.approx(0.1) and same.high == pytest.approx(0.1)


def test_many_intervals_at_once_are_those_one_by_one():
    draw = rng()
    values, other, levels = draw.random((6, 4, 10)), draw.random((6, 4, 10)), np.arange(10) % 2
    for way in (stats.two_way, stats.proportion, stats.root_mean_square):
        together = way(values, levels)
        for i, table in enumerate(values):
            alone = way(table, levels)
            assert all(isinstance(end, float) for end in vars(alone).values())
            assert [end[i] for end in vars(together).values()] == pytest.approx(
                list(vars(alone).values())
            )
    together = stats.ratio(values, other, levels)
    assert together.high[2] == pytest.approx(stats.ratio(values[2], other[2], levels).high)


def test_a_share_is_wilsons_where_every_problem_is_a_trial():
    values = np.arange(400) < 300
    found = stats.proportion(values[None].astype(float))
    low, high = stats.wilson(300, 400)
    assert (found.low, found.high) == pytest.approx((float(low), float(high)), abs=1e-3)
    # Ten trials of each problem that are alike are no more than one.
    alike = stats.proportion(np.repeat(values, 10).reshape(400, 10).mean(1)[None])
    assert alike == found


def test_a_share_stays_inside_and_is_never_certain():
    for values in (np.ones((5, 50)), np.zeros((5, 50))):
        found = stats.proportion(values)
        low, high = stats.wilson(values.mean() * 50, 50)
        assert (found.low, found.high) == pytest.approx((float(low), float(high)))
    almost = np.ones((1, 500))
    almost[0, 0] = 12 / 13
    found = stats.proportion(almost)
    assert 0.998 < found.low < found.estimate < found.high < 1
    t = stats.two_way(almost)
    assert t.high > 1  # where the t interval says that more than all may be right
    # A single failure of 50: the Poisson bound, -log(0.95) failures, is beyond Wilson's end.
    one = np.ones((1, 50))
    one[0, 0] = 0
    assert stats.proportion(one).high == pytest.approx(1 + math.log(0.95) / 49, abs=1e-4)
    with pytest.raises(ValueError, match="shares lie"):
        stats.proportion([[0.2, 1.2]])
    assert stats.proportion([[1.0, 1 + 1e-6]]).estimate == 1  # rounding of a sum of probabilities


def test_a_ratio_is_paired():
    other = 0.5 + rng().random((5, 50))
    found = stats.ratio(0.9 * other, other)
    assert (found.low, found.high) == pytest.approx((0.9, 0.9))
    free = stats.ratio(0.9 * other[:, ::-1], other)
    assert free.low < 0.9 < free.high
    # In the limit of small differences it is the difference over the mean of the other.
    ours = other + rng().normal(0, 1e-4, other.shape)
    difference, times = stats.two_way(ours - other), stats.ratio(ours, other)
    assert times.high - 1 == pytest.approx(difference.high / other.mean(), rel=0.01)
    with pytest.raises(ValueError, match="one shape"):
        stats.ratio(other, other[:, 1:])


def test_a_root_mean_square_is_on_the_scale_of_the_errors():
    squares = rng().normal(0, 0.3, (1, 4000)) ** 2
    found = stats.root_mean_square(squares)
    assert found.low < 0.3 < found.high
    # The standard error of a standard deviation is sigma / sqrt(2 n).
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.3 / math.sqrt(8000), rel=0.05)
    assert stats.root_mean_square(np.zeros((1, 5))) == stats.Interval(0, 0, 0)


def test_an_interval_is_cut_to_what_is_possible():
    assert stats.cut(stats.Interval(0.5, -0.2, 1.2), 0, 1) == stats.Interval(0.5, 0, 1)
    assert math.isnan(stats.cut(stats.Interval(0.5, math.nan, math.nan), 0, 1).low)


def test_the_same_rng_state_gives_the_same_bits():
    def draw(state):
        return votes.maj_at_k(ANSWERS, CORRECT, 3, state, draws=300, enumerate_up_to=0)

    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first = draw(np.random.default_rng(3))
    np.random.seed(2)  # noqa: NPY002
    assert draw(np.random.default_rng(3)) == first
    assert draw(np.random.default_rng(4)) != first


def test_two_or_three_seeds_that_agree_are_taken_for_no_more_than_they_are():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(1, 200)) + 0.1 * rng.normal(size=(3, 200))
    values -= values.mean(1, keepdims=True)  # every seed has the same mean
    *_, df = stats.mean_and_variance(values)
    assert df == 2
    *_, many = stats.mean_and_variance(np.concatenate([values, values[:2]]))
    assert many > 100
    around, wide = (stats.two_way(np.concatenate([values, values[:2]]), level=level)
                    for level in (0.95, 0.951))  # fmt: skip
    assert wide.high > 1.1 * around.high  # beyond 95 %, at most 2 (S - 1) = 8 degrees of freedom


def test_a_ratio_may_be_whatever_the_test_does_not_refuse():
    rng = np.random.default_rng(5)
    other = 1 + 0.2 * rng.normal(size=(5, 1)) + rng.normal(size=(5, 40))
    ours = 2 * other + rng.normal(size=(5, 40))
    found = stats.fieller(ours, other)
    assert found.estimate == pytest.approx(ours.mean() / other.mean())
    assert stats.two_way(ours - found.low * other).low == pytest.approx(0, abs=1e-9)
    assert stats.two_way(ours - found.high * other).high == pytest.approx(0, abs=1e-9)
    assert found.low < 2 < found.high
    wide, sure = stats.ratio(ours + 50, other + 50), stats.fieller(ours + 50, other + 50)
    assert [sure.low, sure.high] == pytest.approx([wide.low, wide.high], rel=1e-2)
    assert np.isnan(stats.fieller(ours, other - other.mean()).low)


@pytest.mark.parametrize("way", [stats.two_way, stats.proportion, stats.root_mean_square,
                                 lambda v: stats.ratio(v, np.ones_like(v)),
                                 lambda v: stats.fieller(v, 1 + np.arange(v.size).reshape(v.shape)),
                                 stats.over_seeds])  # fmt: skip
@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_what_was_not_measured_is_no_value(way, lost):
    values = np.full((3, 4), 0.5)
    values[1, 2] = lost
    with pytest.raises(ValueError, match="finite|shares lie in"):
        way(values)


def test_shares_beyond_95_percent_take_no_more_from_few_seeds_than_means_do():
    values = 0.4 + 0.1 * rng().random((5, 300)) + np.linspace(-0.1, 0.1, 5)[:, None]
    width = {}
    for level in (0.95, 0.983):
        share, mean = stats.proportion(values, level=level), stats.two_way(values, level=level)
        width[level] = (share.high - share.low) / (mean.high - mean.low)
    assert width[0.983] == pytest.approx(width[0.95], rel=0.1)  # alike at both levels
