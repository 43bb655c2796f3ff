"""What each token of a step is paid: by its rollout, and by its episode. B rollouts, T tokens.

Places in a rollout are counted from the start of its trace. What stands in its prompt already, a
stale prefix, is paid nothing.
"""

from collections.abc import Sequence

import numpy as np

from mrtlib import credit
from mrtlib.credit import Curve, Group
from mrtlib.rollouts import Rollout
from mrtlib.training.methods import Method, running_scale
from mrtlib.training.starts import Start


def group_of(
    rollouts: Sequence[Rollout], starts: Sequence[Start], prefix_value: float, length_weight: float
) -> Group:
    """Return what is known of the rollouts of one problem."""
    return Group(
        np.array([float(r.grade.correct) for r in rollouts]),
        np.array([float(r.trace_tokens) for r in rollouts]),
        np.array([not s.answers for s in starts]),
        prefix_value,
        length_weight,
    )


def of_rollouts(
    method: Method, groups: Sequence[Group], rollouts: Sequence[Rollout], starts: Sequence[Start],
    width: int,
) -> np.ndarray:  # fmt: skip
    """Return what each token is paid as one of its rollout, (B, width)."""
    values = np.concatenate([method.rollouts(group) for group in groups])
    paid = np.tile(values[:, None], width)
    if not method.outcome_on_trace:
        for row, (rollout, start) in enumerate(zip(rollouts, starts, strict=True)):
            paid[row, : _written([rollout.maker_ends[-1]], start)[0]] = 0.0
    return paid


def budget_places(rollout: Rollout, budget: int, cuts: int) -> list[int]:
    """Return `cuts` budgets, evenly spaced up to C0, none of them behind the trace's end."""
    return [min(budget * (s + 1) // cuts, rollout.trace_tokens) for s in range(cuts)]


def at_budgets(measured: Sequence[np.ndarray], places: Sequence[list[int]]) -> list[Curve]:
    """Return J and t at 0 and at every place, from J at 0 and at the distinct places above it."""
    curves = []
    for J, own in zip(measured, places, strict=True):
        t = np.array([0, *own])
        curves.append((J[np.searchsorted(np.unique(t), t)], t))
    return curves


def ends_of(
    method: Method, rollout: Rollout, start: Start, places: list[int] | None
) -> np.ndarray:
    """Return where the tokens end that each value of the rollout's credit goes to, from 0 on.

    Args:
        places: the budgets at which J was measured, where it was.
    """
    if places is not None:
        last = rollout.maker_ends[-1]  # the token behind a budget could have ended the trace there
        ends = [t + 1 if t < rollout.trace_tokens else last for t in places]
    else:
        ends = rollout.maker_ends if method.to_maker else rollout.boundaries
    return _written([0, *ends], start)


def of_episodes(values: Sequence[np.ndarray], ends: Sequence[np.ndarray], squares: Sequence[float],
                width: int) -> np.ndarray:  # fmt: skip
    """Return the credit of each token, over its scale in recent steps, (B, width).

    Args:
        values: a rollout's credit (k,), for each rollout; `ends` (k + 1,) from `ends_of`.
        squares: `mean_square` of every step so far, this one last.
    """
    scale = running_scale(squares)
    return np.array([credit.per_token(value / scale, end, width)
                     for value, end in zip(values, ends, strict=True)])  # fmt: skip


def _written(ends: Sequence[int], start: Start) -> np.ndarray:
    """Return places in a rollout as places in what the model wrote of it."""
    return np.maximum(0, np.array(ends) - len(start.prefix))
