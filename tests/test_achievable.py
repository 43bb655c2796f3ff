"""Regret against the achievable comparator: against enumeration, and cases with a known answer."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest

from mrtlib.evaluation.votes import maj_at_k
from mrtlib.experiments.achievable import by_trace, gain, regret_by_episodes, votes_of_two

RIGHT, WRONG = "3 * 5 + 7", "3 + 5 + 7"
NAMES = {"method": "base", "seed": 0, "level": "three", "sample": 0}


def spot(problem: str, j: int, right: list[bool], logprobs: list[float] | None = None):
    """Return the answers of a boundary, right ones and wrong ones that are all the same."""
    return pd.DataFrame([
        {**NAMES, "problem": problem, "j": j, "k": k, "answer": RIGHT if good else WRONG,
         "correct": good, "logprob": -0.1 if logprobs is None else logprobs[k],
         "answer_tokens": 7}
        for k, good in enumerate(right)
    ])  # fmt: skip


def progress(problem: str, J: list[float]) -> pd.DataFrame:
    return pd.DataFrame([{**NAMES, "problem": problem, "j": j, "J": v} for j, v in enumerate(J)])


def wins_of(answers) -> np.ndarray:
    """Return votes of two of equal weight: right, wrong, or a tie."""
    right = np.asarray(answers, dtype=float)
    return (right[:, None] + right[None, :]) / 2


def test_votes_of_two_are_those_of_maj_at_k():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one = spot("p", 0, list(rng.random(6) < 0.5), list(-rng.random(6)))
        wins, weights = votes_of_two(one, "countdown"), np.exp(one["logprob"])
        mean = wins[np.triu_indices(6, 1)].mean()
        assert mean == pytest.approx(
            maj_at_k(one["answer"].tolist(), one["correct"].tolist(), 2, weights=weights))
        assert (wins == wins.T).all()


def test_the_gain_is_that_of_all_halves_by_hand():
    answers, on = [1, 0, 1, 1], 0.6
    wins, total = wins_of(answers), []
    for half in combinations(range(4), 2):
        rest = [a for a in range(4) if a not in half]
        choose, measure = (np.mean([wins[a, b] for a, b in combinations(some, 2)])
                           for some in (half, rest))  # fmt: skip
        total.append((measure - on) if choose > on else 0.0)
    assert gain(wins, on).missed == pytest.approx(np.mean(total))
    assert gain(wins, on).at_most == pytest.approx(0.75 - 0.6)


@pytest.mark.parametrize("on", [0.2, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("chance", [0.3, 0.5, 0.8])
def test_the_gain_is_without_bias_and_between_nothing_and_the_best(on, chance):
    """All draws of four answers are enumerated: two choose, and what they choose is measured.

    A vote of two answers of equal weight is right with the chance of one of them.
    """
    missed = at_most = value = 0.0
    for answers in product((0, 1), repeat=4):
        weight = np.prod([chance if a else 1 - chance for a in answers])
        found = gain(wins_of(answers), on)
        missed, at_most = missed + weight * found.missed, at_most + weight * found.at_most
    for answers in product((0, 1), repeat=2):  # the comparator that sees two of them
        weight = np.prod([chance if a else 1 - chance for a in answers])
        value += weight * (np.mean(answers) > on) * (chance - on)
    assert missed == pytest.approx(value)
    assert missed <= max(chance - on, 0) + 1e-12 <= at_most + 2e-12


def test_where_votes_are_worth_as_much_as_thinking_nothing_is_missed():
    """On average; the larger of the two estimates says that something is, by its noise alone."""
    rng = np.random.default_rng(1)
    found = [gain(wins_of(rng.random(8) < 0.5), 0.5) for _ in range(3000)]
    missed = np.array([g.missed for g in found])
    assert abs(missed.mean()) < 3 * missed.std() / np.sqrt(len(missed))
    assert np.mean([g.at_most for g in found]) > 0.05


def test_where_thinking_on_is_best_there_is_no_regret():
    answers = pd.concat([spot("p", j, [False] * 4) for j in range(3)])
    areas = by_trace(answers, progress("p", [0.2, 0.6, 0.9]), "countdown", [1, 2])
    assert areas["missed"].tolist() == [0, 0] and areas["at_most"].tolist() == [0, 0]
    assert areas["reachable"].tolist() == pytest.approx([0.4, 0.4 + 0.75])
    assert regret_by_episodes(areas)["estimate"].tolist() == [0, 0]


def test_where_votes_are_certain_the_regret_is_what_they_gain():
    """From J = 0.4 a vote of two is right, and an episode brings nothing."""
    answers = pd.concat([spot("p", 0, [True] * 4), spot("p", 1, [True] * 4)])
    areas = by_trace(answers, progress("p", [0.4, 0.4]), "countdown", [1, 5])
    assert areas["reachable"].tolist() == pytest.approx([0.7, 0.7])  # ended traces add nothing
    assert areas["missed"].tolist() == pytest.approx([0.3, 0.3])
    assert areas["at_most"].tolist() == pytest.approx([0.3, 0.3])
    found = regret_by_episodes(areas)
    assert found["estimate"].tolist() == pytest.approx([0.3 / 0.7] * 2)
    assert found["at_most"].tolist() == pytest.approx([0.3 / 0.7] * 2)


def test_regret_is_of_all_traces_together():
    none = pd.concat([spot("none", 0, [False] * 4), spot("none", 1, [False] * 4)])
    some = pd.concat([spot("some", 0, [True] * 4), spot("some", 1, [True] * 4)])
    J = pd.concat([progress("none", [0.2, 0.2]), progress("some", [0.4, 0.4])])
    found = regret_by_episodes(by_trace(pd.concat([none, some]), J, "countdown", [1]))
    assert found["problems"].tolist() == [2]
    assert found["estimate"].tolist() == pytest.approx([0.3 / 0.9])


def test_what_cannot_be_measured_is_refused():
    answers = pd.concat([spot("p", 0, [True] * 3), spot("p", 1, [True] * 3)])
    with pytest.raises(ValueError, match="3 answers, 4 are needed"):
        by_trace(answers, progress("p", [0.4, 0.4]), "countdown", [1])
    with pytest.raises(ValueError, match="'problem': 'p'.*not known"):
        by_trace(answers, progress("p", [0.4, 0.4, 0.5]), "countdown", [1])
    with pytest.raises(ValueError, match="not known"):
        by_trace(answers, progress("q", [0.4, 0.4]), "countdown", [1])
