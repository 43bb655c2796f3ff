"""Information gain as advantages: the credit of each episode against the rest of its group.

A group is the rollouts of one problem. Each rollout gives its curve: J (k + 1,) and boundaries
t (k + 1,), t_0 = 0. Each form returns (k,) values a rollout, one for each episode. The trainer
divides them by their spread over the whole step (`scaled`) and adds alpha times the value to the
outcome advantage of the episode's tokens.
"""

from collections.abc import Callable

import numpy as np

from mrtlib import credit

Curve = tuple[np.ndarray, np.ndarray]


def outcome_alone(curves: list[Curve], budget: int) -> list[np.ndarray]:
    """Return no credit beside the outcome: zero for every episode of every rollout."""
    return [np.zeros(len(J) - 1) for J, _ in curves]


def episode_progress(curves: list[Curve], budget: int) -> list[np.ndarray]:
    """Return each episode's progress less the mean over the episodes of the group."""
    values = [credit.episode_progress(J) for J, _ in curves]
    joined = np.concatenate(values)
    return [v - joined.mean() for v in values] if joined.size else values


def regret_to_go(curves: list[Curve], budget: int) -> list[np.ndarray]:
    """Return each episode's regret-to-go less its baseline.

    The baseline of an episode that begins at t with success probability J is what the group
    removes from t on for each unit of doubt that is left, times the doubt left here:
    b = (1 - J) * sum_o G_o(t) / sum_o (1 - J_o(t)), over the other rollouts o of the group.
    It does not depend on the episode's own tokens, so the gradient stays unbiased.
    """
    gains = [credit.regret_to_go(J, t, budget) for J, t in curves]
    out = []
    for own, (J, t) in enumerate(curves):
        others = [o for o in range(len(curves)) if o != own]
        base = [_expected(curves, gains, others, start) * (1 - j)
                for j, start in zip(J[:-1], t[:-1], strict=True)]  # fmt: skip
        out.append(gains[own] - np.array(base))
    return out


def _expected(curves: list[Curve], gains, others: list[int], start: float) -> float:
    """Return what the others removed after `start` for each unit of doubt they had then."""
    removed = doubt = 0.0
    for o in others:
        J, t = curves[o]
        begun = int(np.searchsorted(t, start, side="right")) - 1  # episodes that ended by then
        doubt += 1 - J[begun]
        removed += gains[o][begun] if begun < len(gains[o]) else 0.0
    return removed / doubt if doubt > 1e-6 else 0.0


def scaled(values: list[np.ndarray]) -> list[np.ndarray]:
    """Divide values by their root mean square over all episodes of a step.

    Over the step and not over a group: in a group where nothing happened, J moves by noise alone,
    and a spread of its own would blow that up to the size of a real gain.
    """
    joined = np.concatenate([np.zeros(0), *values])
    spread = np.sqrt(np.mean(joined**2)) if joined.size else 0.0
    return [v / (spread + credit.EPSILON) for v in values]


CREDITS: dict[str, Callable[[list[Curve], int], list[np.ndarray]]] = {
    "outcome": outcome_alone,
    "episode_progress": episode_progress,
    "regret_to_go": regret_to_go,
}
