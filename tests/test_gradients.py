"""What each form of credit really follows: expected gradients by enumeration of a small policy.

The policy chooses one of a few tokens at every prefix, with logits of its own there; every output
up to the budget is enumerated, and every pair of them as a group. J is any fixed function of the
prefix and of whether the model closed it. So all expectations are exact sums.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from mrtlib import credit, regret
from mrtlib.config import Thinking
from mrtlib.models.sampling import Sample
from mrtlib.rollouts import Reader
from mrtlib.tasks.countdown import countdown
from mrtlib.training.methods import METHODS, Less, Method

PROBLEM = countdown((3, 5, 7), 22, "three")
BUDGET = 4
GO, MARKER, CLOSE, END = "x\n\n", "Wait\n\n", "</think>", "<end>"
CASES = {
    "a marker of one token": ((GO, MARKER, CLOSE), "official"),
    "a marker of two tokens": ((GO, "But", " wait\n\n", CLOSE), "official"),
    "a whole word": ((GO, "Wait", "ing\n\n", CLOSE), "markers"),
    "equal tokens": ((GO, "y", CLOSE), "tokens"),
    "an output that just ends": ((GO, MARKER, CLOSE, END), "official"),
    "a line that names an error": ((GO, "Wrong 1\n\n", CLOSE), "backtrack"),
    "an error in two tokens": ((GO, "Wro", "ng\n\n", CLOSE), "backtrack"),
}


class Pieces:
    """A tokenizer of a few fixed pieces of text."""

    unk_token_id = None

    def __init__(self, pieces: tuple[str, ...]) -> None:
        self.pieces = [*pieces, *({"<think>", CLOSE, END} - set(pieces))]
        self.eos_token_id = self.pieces.index(END)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [self.pieces.index(text)]

    def decode(self, ids, **_) -> str:
        return "".join(self.pieces[i] for i in ids)


class World:
    """All outputs of a policy, how they are read, and what they are worth."""

    def __init__(self, pieces: tuple[str, ...], segmenter: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.size, ends = len(pieces), {pieces.index(p) for p in (CLOSE, END) if p in pieces}
        thinking = Thinking(segmenter=segmenter, min_paragraphs=1, episode_tokens=2, budget=BUDGET)
        reader = Reader(Pieces(pieces), thinking)
        self.logits: dict[tuple, np.ndarray] = {}
        worth: dict[tuple, float] = {}
        self.outputs, self.curves, self.rollouts = [], [], []
        for ids in self._outputs((), ends):
            rollout = reader.read(PROBLEM, [0], Sample(list(ids), [], ids[-1] in ends))
            t = [0, *rollout.boundaries]
            last = len(t) - 1
            places = [(ids[:n], rollout.closed and 0 < j == last) for j, n in enumerate(t)]
            J = np.array([worth.setdefault(place, rng.random()) for place in places])
            self.outputs.append(ids)
            self.curves.append((J, np.array(t)))
            self.rollouts.append(rollout)
        for ids in self.outputs:
            for n in range(len(ids)):
                self.logits.setdefault(ids[:n], rng.normal(size=self.size))
        self.row = {prefix: i for i, prefix in enumerate(self.logits)}
        self.scores = [self._score(ids) for ids in self.outputs]  # (n, R, V) each
        self.p = np.array([np.prod([self._policy(ids[:n])[ids[n]] for n in range(len(ids))])
                           for ids in self.outputs])  # fmt: skip

    def _outputs(self, prefix: tuple, ends: set[int]):
        for token in range(self.size):
            ids = (*prefix, token)
            if token in ends or len(ids) == BUDGET:
                yield ids
            else:
                yield from self._outputs(ids, ends)

    def _policy(self, prefix: tuple) -> np.ndarray:
        e = np.exp(self.logits[prefix])
        return e / e.sum()

    def _score(self, ids: tuple) -> np.ndarray:
        """Return ∇ log π of every token of an output."""
        grads = np.zeros((len(ids), len(self.logits), self.size))
        for n, token in enumerate(ids):
            grads[n, self.row[ids[:n]]] -= self._policy(ids[:n])
            grads[n, self.row[ids[:n]], token] += 1
        return grads

    def true_gradient(self) -> np.ndarray:
        """Return ∇ E[1 - regret], J fixed."""
        values = [1 - regret.normalised_regret(J, t, BUDGET) for J, t in self.curves]
        return sum(p * v * s.sum(0) for p, v, s in
                   zip(self.p, values, self.scores, strict=True))  # fmt: skip

    def gradient(self, method: Method) -> np.ndarray:
        """Return the expected gradient of a method over every group of two outputs."""
        total = 0.0
        for a, b in itertools.product(range(len(self.p)), repeat=2):
            values = method.credit([self.curves[a], self.curves[b]], BUDGET)[0]
            total = total + self.p[a] * self.p[b] * self.paid(method, a, values)
        return total

    def paid(self, method: Method, a: int, values: np.ndarray) -> np.ndarray:
        rollout, ids = self.rollouts[a], self.outputs[a]
        ends = rollout.maker_ends if method.to_maker else rollout.boundaries
        values = values[: len(ends)] if len(values) else np.zeros(len(ends))  # of an empty trace
        tokens = credit.per_token(values, [0, *ends], len(ids))
        return np.tensordot(tokens, self.scores[a], 1)

    def myopic_gradient(self) -> np.ndarray:
        """Return Σ_j E[∇ E[J_j - J_{j-1} | the tokens before episode j]]."""
        total = 0.0
        for a, (J, _) in enumerate(self.curves):
            values = np.diff(J)
            total = total + self.p[a] * self.paid(METHODS["regret_to_go"], a, values)
        return total


def bare(curves, gains):
    """Take nothing off what an episode gained."""
    return list(gains)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module", params=CASES)
def world(request) -> World:
    return World(*CASES[request.param])


@pytest.mark.parametrize("centred", [credit.less_expected, bare])
def test_regret_to_go_follows_the_regret(world, centred):
    found = world.gradient(Method(credit=Less(credit.regret_to_go, centred), to_maker=True))
    np.testing.assert_allclose(found, world.true_gradient(), atol=1e-13)
    trained = Method(credit=Less(credit.regret_to_go, credit.less_expected), to_maker=True)
    assert METHODS["regret_to_go"] == trained


def test_paid_to_the_next_episode_it_does_not(world):
    """A token that ends an episode decides what it gained; so does one that closes the trace."""
    wrong = replace(METHODS["regret_to_go"], to_maker=False)
    found, true = world.gradient(wrong), world.true_gradient()
    assert cosine(found, true) < 0.99
    assert np.linalg.norm(found - true) > 0.1 * np.linalg.norm(true)


def test_the_baseline_is_paid_nothing_for(world):
    """What the others do changes no expectation: with the baseline alone the gradient is 0."""

    def baseline(curves, gains):
        with_it = credit.less_expected(curves, gains)
        return [(g if len(g) else 0.0) - w for w, g in zip(with_it, gains, strict=True)]

    alone = Method(credit=Less(credit.regret_to_go, baseline), to_maker=True)
    assert np.abs(world.gradient(alone)).max() < 1e-13
    astray = world.gradient(replace(alone, to_maker=False))
    assert np.linalg.norm(astray) > 0.01 * np.linalg.norm(world.true_gradient())


def test_centred_progress_follows_each_episode_s_own_gain(world):
    found = world.gradient(METHODS["episode_progress_centred"])
    np.testing.assert_allclose(found, world.myopic_gradient(), atol=1e-13)


def test_episode_progress_follows_no_total_and_favours_closing():
    world = World(*CASES["a marker of one token"])
    found = world.gradient(METHODS["episode_progress"])
    assert cosine(found, world.true_gradient()) < 0.9
    assert np.abs(found - world.myopic_gradient()).max() > 0.01

    def mean(curves, gains):
        centred = credit.less_group_mean(curves, gains)
        return [g - v for g, v in zip(gains, centred, strict=True)]

    taken = world.gradient(Method(credit=Less(credit.episode_progress, mean)))  # what it adds
    assert np.abs(taken).max() > 0.01


@pytest.mark.parametrize("doubt", [1e-3, 1e-5, 1e-9, 0.0, -1e-9])
def test_no_advantage_is_larger_than_what_there_is_to_gain(doubt):
    """Little doubt left in the group, and one trace of it falls from there."""
    sure = (np.array([0.1, 1 - doubt, 0.3]), np.array([0, 10, 60]))
    other = (np.array([0.1, 0.2, 0.9]), np.array([0, 20, 50]))
    for method in (METHODS["regret_to_go"], METHODS["episode_progress_centred"]):
        values = np.concatenate(method.credit([sure, sure, other], 100))
        assert np.abs(values).max() <= 2.0


def test_a_problem_keeps_its_weight_whatever_else_is_in_the_step():
    from mrtlib.training.methods import mean_square, running_scale

    rng = np.random.default_rng(0)
    squares = [mean_square([rng.normal(size=40)]) for _ in range(20)]
    low, high = (running_scale([*squares, s]) for s in (0.8**2, 1.2**2))
    assert 1.2 / 0.8 > 1.4 and high / low < 1.05
    assert running_scale([0.0]) > 0


def test_the_enumeration_reads_what_it_should():
    world = World(*CASES["a marker of two tokens"])
    at = world.outputs.index((0, 1, 2, 3))  # x, But, wait, close
    rollout = world.rollouts[at]
    assert rollout.boundaries == [1, 3] and rollout.maker_ends == [3, 4] and rollout.closed
    word = World(*CASES["a whole word"])
    at = word.outputs.index((0, 1, 0, 3))  # x, Wait, x: one word with what comes behind it
    assert word.rollouts[at].boundaries == [3]
    ended = World(*CASES["an output that just ends"])
    at = ended.outputs.index((0, 1, 3))
    assert ended.rollouts[at].ended and ended.rollouts[at].maker_ends == [2, 3]
    assert sum(world.p) == pytest.approx(1)
    assert replace(rollout, closed=False).truncated
