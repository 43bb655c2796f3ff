"""The methods that can be trained: for each, the credit of an episode and the tokens it is paid to.

The trainer adds alpha times the credit, divided by its spread over recent steps (`running_spread`),
to the outcome advantage of the episode's tokens. The spread is one number for a whole step: it
scales the credit's part of the gradient and does not turn it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mrtlib import credit
from mrtlib.credit import Curve

RECENT = 10  # steps in the running spread


@dataclass(frozen=True)
class Method:
    """A method: the gain of an episode, its baseline, and which tokens are paid.

    `to_maker`: the token that makes boundary t_j (it completes the next episode's marker, closes
    the trace or ends the output) is paid as a token of episode j, for it is the action that ended
    that episode. Otherwise it is paid as a token of the episode that it opens, and a closing tag
    gets no credit.
    """

    gain: Callable[[np.ndarray, np.ndarray, float], np.ndarray]  # (J, t, C0) -> (k,)
    centred: Callable[[Sequence[Curve], Sequence[np.ndarray]], list[np.ndarray]]
    to_maker: bool

    def credit(self, curves: Sequence[Curve], budget: float) -> list[np.ndarray]:
        """Return the credit of each episode of a group's rollouts, (k,) a rollout."""
        return self.centred(curves, [self.gain(J, t, budget) for J, t in curves])


METHODS: dict[str, Method] = {
    "outcome": Method(credit.no_credit, credit.less_group_mean, False),
    "episode_progress": Method(credit.episode_progress, credit.less_group_mean, False),
    "episode_progress_centred": Method(credit.episode_progress, credit.less_expected, True),
    "regret_to_go": Method(credit.regret_to_go, credit.less_expected, True),
}


def mean_square(values: Sequence[np.ndarray]) -> float:
    """Return the mean square of the credit of all episodes of a step; 0 without any."""
    joined = np.concatenate([np.zeros(0), *values])
    return float(np.mean(joined**2)) if joined.size else 0.0


def running_spread(squares: Sequence[float]) -> float:
    """Return what the credit of a step is divided by: its root mean square over recent steps.

    Not over one group: where nothing happened in a group, J moves by noise alone, and a spread of
    its own would make that noise as large as a real gain. And not over one step: over the last 10,
    a problem's weight hardly depends on the other problems of its step. With steps of 16 groups,
    drawn from 500 recorded ones, this spread varies by 1.4 % from step to step (standard
    deviation), and that of single steps by 14 %.

    Args:
        squares: (n,) `mean_square` of every step so far, this one last.
    """
    return float(np.sqrt(np.mean(squares[-RECENT:]))) + credit.EPSILON


def largest_share(values: Sequence[np.ndarray], tokens: Sequence[np.ndarray]) -> float:
    """Return the largest share of a step's credit, Σ |A| over its tokens, in one episode.

    Args:
        values: a rollout's credit (k,), for each rollout.
        tokens: how many tokens each of these episodes has.
    """
    sums = [np.abs(v) * n for v, n in zip(values, tokens, strict=True)]
    joined = np.concatenate([np.zeros(0), *sums])
    return float(joined.max() / joined.sum()) if joined.any() else 0.0
