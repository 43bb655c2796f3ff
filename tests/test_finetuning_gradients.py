"""What each fine-tuning form really follows at the policy that was sampled, by enumeration.

A policy over three tokens with logits of its own at every prefix: two that think, one that closes.
Behind the closing it draws one of them as its answer, and one of the three is right. Up to three
thinking tokens; each is an episode. J is any fixed function of the prefix and of whether the model
closed it. All outputs are enumerated, and all groups of them, so expectations are exact sums.
"""

import itertools
from copy import deepcopy

import numpy as np
import pytest

from mrtlib import credit, regret
from mrtlib.credit import DROPPED

THINK, CLOSE, RIGHT, SIZE, BUDGET = (0, 1), 2, 0, 3, 3


class World:
    """All outputs of the policy: their probabilities, outcomes and curves."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        traces = [c for n in range(BUDGET + 1) for c in itertools.product(THINK, repeat=n)]
        open_ = [c for c in traces if len(c) < BUDGET]
        prefixes = open_ + [(*c, CLOSE) for c in open_]
        self.row = {prefix: i for i, prefix in enumerate(prefixes)}
        logits = rng.normal(size=(len(prefixes), SIZE))
        logits[len(open_) :, RIGHT] += 2  # a policy that knows something
        self.policy = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        worth = {(c, close): rng.random() for c in traces for close in (True, False)}
        self.outputs = list(self._outputs(()))
        self.p = np.array([self.probability(ids) for ids in self.outputs])
        self.right = np.array([ids[-2:] == (CLOSE, RIGHT) for ids in self.outputs])
        self.curves = []
        for ids in self.outputs:
            trace, closes = self.trace(ids), CLOSE in ids
            last = len(trace) if closes else len(trace) - 1  # where a budget ends no episode does
            J = [worth[trace[:n], closes and 0 < n == len(trace)] for n in range(last + 1)]
            self.curves.append((np.array(J), np.arange(last + 1)))

    def _outputs(self, prefix: tuple):
        for token in range(SIZE):
            ids = (*prefix, token)
            done = CLOSE in prefix or (token != CLOSE and len(ids) == BUDGET)
            yield from [ids] if done else self._outputs(ids)

    @staticmethod
    def trace(ids: tuple) -> tuple:
        return ids[: ids.index(CLOSE)] if CLOSE in ids else ids

    def probability(self, ids: tuple, start: int = 0) -> float:
        return float(np.prod([self.policy[self.row[ids[:n]], ids[n]]
                              for n in range(start, len(ids))]))  # fmt: skip

    def score(self, ids: tuple) -> np.ndarray:
        """Return ∇ log π of a whole output, (prefixes, tokens)."""
        grad = np.zeros_like(self.policy)
        for n, token in enumerate(ids):
            grad[self.row[ids[:n]]] -= self.policy[self.row[ids[:n]]]
            grad[self.row[ids[:n]], token] += 1
        return grad

    def gradient(self, values: np.ndarray) -> np.ndarray:
        """Return ∇ E[values], the value of each output held fixed."""
        return sum(p * v * self.score(ids)
                   for p, v, ids in zip(self.p, values, self.outputs, strict=True))  # fmt: skip

    def learned(self, at: int, episodes: int) -> np.ndarray:
        """Return the expected Σ ∇ log π of what is learned of an output cut behind episodes."""
        ids, trace = self.outputs[at], self.trace(self.outputs[at])
        if episodes == DROPPED:
            return np.zeros_like(self.policy)
        if CLOSE in ids and episodes == len(trace):  # it has drawn its answer itself
            return self.right[at] * self.score(ids)
        start = (*trace[:episodes], CLOSE)
        return self.probability((*start, RIGHT), len(start)) * self.score((*start, RIGHT))

    def expected(self, form, size: int) -> np.ndarray:
        """Return the expected sum over every group of this size."""
        total = np.zeros_like(self.policy)
        for group in itertools.product(range(len(self.p)), repeat=size):
            kept = form(self.right[list(group)], [self.curves[i] for i in group])
            weight = float(np.prod(self.p[list(group)]))
            total += weight * sum(self.learned(i, n) for i, n in zip(group, kept, strict=True))
        return total


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module", params=[0, 1, 2])
def world(request) -> World:
    return World(request.param)


def test_the_enumeration_is_whole(world):
    assert sum(world.p) == pytest.approx(1)
    assert np.abs(world.gradient(np.ones(len(world.p)))).max() < 1e-13
    assert world.right.sum() == 1 + 2 + 4 and len(world.outputs) == 3 * 7 + 8


@pytest.mark.parametrize("size", [1, 2])
def test_star_follows_the_outcome(world, size):
    found = world.expected(credit.star, size)
    np.testing.assert_allclose(found, size * world.gradient(world.right), atol=1e-13)


@pytest.mark.parametrize("size", [2, 3])
def test_keep_follows_the_outcome_weighted_by_the_chance_to_be_the_best(world, size):
    last = np.array([J[-1] for J, _ in world.curves])
    beaten = [world.p[world.right & (last > own + credit.TIE)].sum() for own in last]
    weights = world.right * (1 - np.array(beaten)) ** (size - 1)
    found = world.expected(credit.mrt_star_keep, size)
    np.testing.assert_allclose(found, size * world.gradient(weights), atol=1e-13)
    assert cosine(found, world.gradient(world.right)) < 0.999  # it is not the outcome's


def values_of_cuts(world: World) -> np.ndarray:
    """Return r v of each output: v = P(the cut is at c | c) / π(close | c), closed at prefix c."""
    kept = credit.mrt_star_cut(np.zeros(len(world.p)), world.curves)
    cuts = [None if n == DROPPED else world.trace(ids)[:n]
            for ids, n in zip(world.outputs, kept, strict=True)]  # fmt: skip
    values = np.zeros(len(world.p))
    for at in np.flatnonzero(world.right):
        c = world.trace(world.outputs[at])
        there = sum(p for p, cut in zip(world.p, cuts, strict=True) if cut == c)
        closes = world.policy[world.row[c], CLOSE]
        values[at] = there / world.probability(c) / closes
    return values


@pytest.mark.parametrize("size", [1, 2])
def test_cut_follows_the_outcome_weighted_by_where_the_cut_falls(world, size):
    values, found = values_of_cuts(world), world.expected(credit.mrt_star_cut, size)
    np.testing.assert_allclose(found, size * world.gradient(values), atol=1e-13)


def test_cut_follows_neither_outcome_nor_regret(world):
    found = world.expected(credit.mrt_star_cut, 1)
    removed = np.array([1 - regret.normalised_regret(J, t, BUDGET) for J, t in world.curves])
    for values in (world.right, removed):
        assert cosine(found, world.gradient(values)) < 0.9


def test_cut_favours_closing_most_where_it_is_rare(world):
    """The less π closes at a prefix, the more a right output that does is worth there."""
    c = (0,)
    row, at = world.row[c], world.outputs.index((0, CLOSE, RIGHT))
    paid = []
    for rare in (0.5, 0.05, 0.005):
        other = deepcopy(world)
        other.policy[row] = [(1 - rare) / 2, (1 - rare) / 2, rare]
        other.p = np.array([other.probability(ids) for ids in other.outputs])
        other.curves = [(np.where(np.arange(len(J)) == min(1, len(J) - 1), 1.0, 0.0), t)
                        for J, t in world.curves]  # fmt: skip
        paid.append(values_of_cuts(other)[at] * rare)
    np.testing.assert_allclose(paid, 1.0)  # v = 1 / π(close | c): every trace is cut there


def test_what_is_kept_of_a_group():
    curves = [(np.array(J), np.arange(len(J))) for J in (
        [0.1, 0.9, 0.905], [0.1, 0.3, 0.2, 0.95], [0.1, 0.9, 0.95], [0.1, 0.1], [0.1],
    )]  # fmt: skip
    right = [True, False, True, True, True]
    assert credit.star(right, curves).tolist() == [2, DROPPED, 2, 1, 0]
    assert credit.mrt_star_keep(right, curves).tolist() == [DROPPED, DROPPED, 2, DROPPED, DROPPED]
    assert credit.mrt_star_cut(right, curves).tolist() == [1, 3, 2, DROPPED, DROPPED]
    near = [(np.array([0.1, J]), np.arange(2)) for J in (0.990, 0.995, 0.970)]
    assert credit.mrt_star_keep([True] * 3, near).tolist() == [1, 1, DROPPED]
    wrong = [False] * 5
    assert credit.star(wrong, curves).tolist() == [DROPPED] * 5
    assert credit.mrt_star_keep(wrong, curves).tolist() == [DROPPED] * 5
    assert credit.mrt_star_cut(wrong, curves).tolist() == [1, 3, 2, DROPPED, DROPPED]
    with pytest.raises(ValueError, match="finite"):
        credit.mrt_star_cut([True], [(np.array([np.nan, 1.0]), np.arange(2))])
