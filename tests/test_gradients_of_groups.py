"""What whole-rollout advantages follow: expected gradients over every group of a small policy.

The policy chooses one of three tokens at every prefix; every output up to the budget is enumerated,
and every group of them. A reward is any fixed 0/1 function of the output.
"""

import itertools

import numpy as np
import pytest
from test_gradients import BUDGET, CASES, World, cosine

from mrtlib import credit
from mrtlib.credit import EPSILON, Group
from mrtlib.training import payment
from mrtlib.training.methods import METHODS
from mrtlib.training.starts import Start

PAIR = 0.5 / (np.sqrt(0.5) + EPSILON)  # the advantage of the right one of two


class Choices:
    """A softmax policy over sequences of three tokens: p, ∇ log p and a reward of each sequence."""

    def __init__(self, steps: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.outputs = list(itertools.product(range(3), repeat=steps))
        prefixes = [o for n in range(steps) for o in itertools.product(range(3), repeat=n)]
        logits = {prefix: rng.normal(size=3) for prefix in prefixes}
        self.p, self.score = [], []
        for ids in self.outputs:
            grad, p = np.zeros((len(prefixes), 3)), 1.0
            for n, token in enumerate(ids):
                e = np.exp(logits[ids[:n]])
                p *= e[token] / e.sum()
                grad[prefixes.index(ids[:n])] += np.eye(3)[token] - e / e.sum()
            self.p.append(p)
            self.score.append(grad)
        self.right = (rng.random(len(self.outputs)) < 0.4).astype(float)
        self.lengths = 1.0 + np.array([sum(ids) for ids in self.outputs])

    def gradient(self, reward: np.ndarray) -> np.ndarray:
        """Return ∇ E[reward]."""
        return sum(p * r * s for p, r, s in zip(self.p, reward, self.score, strict=True))


def expected(method: str, on: Choices, size: int, answers: Choices | None = None,
             prefix_value: float = 0.0) -> list[np.ndarray]:  # fmt: skip
    """Return the expected gradient of one rollout of each part of a group, over all groups."""
    parts = [on] * (size // 2 if answers else size) + [answers] * (size // 2 if answers else 0)
    total = {id(part): np.zeros_like(part.score[0]) for part in parts}
    for rows in itertools.product(*(range(len(part.p)) for part in parts)):
        chance = np.prod([part.p[i] for part, i in zip(parts, rows, strict=True)])
        correct = np.array([part.right[i] for part, i in zip(parts, rows, strict=True)])
        lengths = np.array([part.lengths[i] for part, i in zip(parts, rows, strict=True)])
        goes_on = np.array([part is on for part in parts])
        values = METHODS[method].rollouts(Group(correct, lengths, goes_on, prefix_value, 0.3))
        for place in {0, size - 1}:
            part = parts[place]
            total[id(part)] += chance * values[place] * part.score[rows[place]]
    halves = [on, answers] if answers else [on]
    return [total[id(part)] * len(halves) / 2 for part in halves]


@pytest.fixture(scope="module", params=range(3))
def on(request) -> Choices:
    return Choices(2, request.param)


@pytest.fixture(scope="module")
def answers() -> Choices:
    return Choices(1, 10)


@pytest.mark.parametrize(
    "method", ["outcome", "outcome_wide", "budget_curriculum", "stale_outcome"]
)
def test_outcome_rl_follows_the_success_probability(on, method):
    """Also from stale prefixes, whose continuations are all that is learned."""
    [two] = expected(method, on, 2)
    np.testing.assert_allclose(two, PAIR * on.gradient(on.right), atol=1e-14)
    [three] = expected(method, on, 3)
    assert cosine(three, on.gradient(on.right)) == pytest.approx(1, abs=1e-12)


def test_a_mixed_group_follows_going_on_and_answering_each_by_itself(on, answers):
    going, answering = expected("mixed_group", on, 2, answers)
    np.testing.assert_allclose(going, PAIR * on.gradient(on.right), atol=1e-14)
    np.testing.assert_allclose(answering, PAIR * answers.gradient(answers.right), atol=1e-14)
    going, answering = expected("mixed_group", on, 4, answers)
    assert cosine(going, on.gradient(on.right)) == pytest.approx(1, abs=1e-12)
    assert cosine(answering, answers.gradient(answers.right)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("prefix_value", [0.0, 0.3, 1.0])
def test_the_termination_baseline_follows_the_continuations_exactly(on, prefix_value):
    [found] = expected("termination_baseline", on, 2, prefix_value=prefix_value)
    np.testing.assert_allclose(found, on.gradient(on.right), atol=1e-14)


def test_a_length_penalty_follows_no_success_probability_and_favours_short_right_outputs():
    on = Choices(2, 1)
    [found] = expected("length_penalty", on, 2)
    assert cosine(found, on.gradient(on.right)) < 0.99
    short = on.gradient(-on.right * on.lengths)
    [plain] = expected("outcome", on, 2)
    assert ((found - plain) * short).sum() > 0


def test_final_progress_follows_the_last_J():
    for case in CASES.values():
        world = World(*case)
        last = sum(p * J[-1] * s.sum(0) for p, (J, _), s in
                   zip(world.p, world.curves, world.scores, strict=True))  # fmt: skip
        np.testing.assert_allclose(world.gradient(METHODS["final_progress"]), last, atol=1e-13)


def test_budget_relative_follows_the_mean_J_over_budgets_each_segment_by_its_own_weight():
    """V2 holds the rollout itself, as in the public code: that weighs segments differently."""
    world, cuts = World(*CASES["equal tokens"]), 2
    method, rng = METHODS["budget_relative"], np.random.default_rng(5)
    worth: dict[tuple, float] = {}
    curves, ends = [], []
    for rollout, ids in zip(world.rollouts, world.outputs, strict=True):
        places = payment.budget_places(rollout, BUDGET, cuts)
        marks = sorted({t for t in places if t})
        closed = [rollout.closed and t == rollout.trace_tokens for t in [0, *marks]]
        J = np.array([worth.setdefault((ids[:t], c), rng.random())
                      for t, c in zip([0, *marks], closed, strict=True)])  # fmt: skip
        curves += payment.at_budgets([J], [places])
        ends.append(payment.ends_of(method, rollout, Start([0]), places))
    found = 0.0
    for a, b in itertools.product(range(len(world.p)), repeat=2):
        values = method.credit([curves[a], curves[b]], BUDGET)[0]
        tokens = credit.per_token(values, ends[a], len(world.outputs[a]))
        found = found + world.p[a] * world.p[b] * np.tensordot(tokens, world.scores[a], 1)
    true = 0.0
    for p, (J, _), end, score in zip(world.p, curves, ends, world.scores, strict=True):
        returns = np.cumsum(J[:0:-1] / cuts)[::-1]
        weights = [1 - (1 - s / cuts) / 2 for s in range(cuts)]
        tokens = credit.per_token(returns * weights, end, len(score))
        true = true + p * np.tensordot(tokens, score, 1)
    np.testing.assert_allclose(found, true, atol=1e-13)
    whole = sum(p * J[1:].mean() * s.sum(0)
                for p, (J, _), s in zip(world.p, curves, world.scores, strict=True))  # fmt: skip
    assert 0.5 < cosine(found, whole) < 0.999  # so not the gradient of the mean, for small groups
