"""The methods that are trained by reinforcement, a line each, and the scale of their credit.

A method says what every token of a rollout is paid (`rollouts`, over a group), what is paid to the
tokens of each episode beside it (`credit`), and where rollouts begin. The trainer adds alpha times
the credit, divided by its scale over recent steps (`running_scale`). The scale is one number for
a whole step: it sets the size of the credit's part of the gradient and does not turn it.

A new method is a function like those in `mrtlib.credit` and a line here:

    METHODS["mine"] = Method(credit=Less(my_gain, credit.less_expected), to_maker=True)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mrtlib import credit
from mrtlib.credit import Array, Curve, Group

RECENT = 10  # steps in the running scale


@dataclass(frozen=True)
class Less:
    """A credit: the gain of each episode, less a baseline."""

    gain: Callable[[Array, Array, float], Array]  # (J, t, C0) -> (k,)
    baseline: Callable[[Sequence[Curve], Sequence[Array]], list[Array]]  # gains less it

    def __call__(self, curves: Sequence[Curve], budget: float) -> list[Array]:
        """Return the credit of each episode of a group's rollouts, (k,) a rollout."""
        return self.baseline(curves, [self.gain(J, t, budget) for J, t in curves])


@dataclass(frozen=True)
class Method:
    """What a method pays, and to which rollouts.

    `rollouts` gives each rollout of a group an advantage for all its tokens, `credit` a value to
    the tokens of each episode beside it; a method without credit needs no J.

    `to_maker`: the token that makes boundary t_j (it completes the next episode's marker, closes
    the trace or ends the output) is paid as a token of episode j, for it is the action that ended
    that episode. Otherwise it is paid as a token of the episode that it opens, and a closing tag
    gets no credit.
    """

    rollouts: Callable[[Group], Array] = lambda group: credit.outcome(group.correct)
    credit: Callable[[Sequence[Curve], float], list[Array]] | None = None
    to_maker: bool = False
    outcome_on_trace: bool = True  # if not, what `rollouts` gives goes to the answer alone
    at_budgets: bool = False  # J is measured at evenly spaced budgets, not at episodes' ends
    from_prefixes: bool = False  # rollouts go on from stale prefixes, not from the problem
    above_prefix: bool = False  # `rollouts` needs J at the prefix
    answering: float = 0.0  # share of a group that is made to answer at the prefix
    wider: int = 1  # times as many rollouts of a problem as the profile says
    # Of the rollouts, as shares of C0, in equal parts of the run; none: as the profile says.
    budgets: tuple[float, ...] = ()


def penalised(group: Group) -> Array:
    """Return the group's advantages for outcomes less the length penalty, (G,)."""
    rewards = credit.length_penalty(group.correct, group.lengths, group.length_weight)
    return credit.outcome(rewards)


def mixed(group: Group) -> Array:
    """Return `credit.mixed_group` advantages in the order of the group's rollouts, (G,)."""
    out, on = np.zeros(len(group.correct)), group.goes_on
    out[on], out[~on] = credit.mixed_group(group.correct[on], group.correct[~on])
    return out


def above_termination(group: Group) -> Array:
    """Return `credit.termination_baseline` of the group's continuations, (G,)."""
    return credit.termination_baseline(group.correct, group.prefix_value)


def _progress(baseline: Callable, to_maker: bool) -> Method:
    return Method(credit=Less(credit.episode_progress, baseline), to_maker=to_maker)


METHODS: dict[str, Method] = {
    # outcome RL: follows the success probability, see `credit.outcome`
    "outcome": Method(),
    "length_penalty": Method(penalised),
    # follows what outcome RL follows, first at half of the budget (a budget curriculum; MRT's
    # paper reads DeepScaleR's 8K and 16K stages as one)
    "budget_curriculum": Method(budgets=(0.5, 1.0)),
    # what the prover of the others reads goes into rollouts: a step of `regret_to_go` puts 1.6
    # times as many tokens through the embedded model as one of `outcome` (bench.csv), and 2.1
    # times where J is measured trace by trace; runs end alike with `training.count = "all"`
    "outcome_wide": Method(wider=2),
    # MRT (RL), and two controls from the same prefixes: p_c alone is followed by both
    "mixed_group": Method(mixed, from_prefixes=True, answering=0.5),
    "stale_outcome": Method(from_prefixes=True),
    "termination_baseline": Method(above_termination, from_prefixes=True, above_prefix=True),
    # credit of episodes; what each follows is said in `credit`
    "final_progress": Method(credit=Less(credit.final_progress, credit.less_others), to_maker=True),
    "episode_progress": _progress(credit.less_group_mean, to_maker=False),
    "episode_progress_centred": _progress(credit.less_expected, to_maker=True),
    "regret_to_go": Method(credit=Less(credit.regret_to_go, credit.less_expected), to_maker=True),
    # the outcome trains the answer alone, as AnytimeReasoner trains its summaries apart
    "budget_relative": Method(
        credit=credit.budget_return, to_maker=True, outcome_on_trace=False, at_budgets=True
    ),
}


def mean_square(values: Sequence[np.ndarray]) -> float:
    """Return the mean square of the credit of all episodes of a step; 0 without any."""
    joined = np.concatenate([np.zeros(0), *values])
    return float(np.mean(joined**2)) if joined.size else 0.0


def running_scale(squares: Sequence[float]) -> float:
    """Return what the credit of a step is divided by: its root mean square over recent steps.

    Not over one group: where nothing happened in a group, J moves by noise alone, and a scale of
    its own would make that noise as large as a real gain. And not over one step: over the last 10,
    a problem's weight hardly depends on the other problems of its step. With steps of 16 groups,
    drawn from 500 recorded ones, this scale varies by 1.4 % from step to step (standard
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
