"""How far a run is, by the tokens that it has spent, and what hangs on that: rate and budget."""

import math
from collections.abc import Sequence

from mrtlib.config import Training

LAST = 0.1  # of the peak learning rate, where it decays
THROUGH = ("sampled", "probed", "learned")  # tokens through the model, as a step's log names them


def spent(history: Sequence[dict], count: str) -> int:
    """Return the tokens that a run has spent, from TRL's log.

    Args:
        count: "generated", of rollouts and drawn answers; "all", through the model.
    """
    names = THROUGH if count == "all" else ("generated",)
    return sum(int(log[name]) for log in history for name in names if name in log)


def share_done(history: Sequence[dict], training: Training) -> float:
    """Return how much of a run is done, in [0, 1]: by its tokens, or by its most steps."""
    steps = sum("generated" in log for log in history)
    tokens = spent(history, training.count) / training.tokens
    return min(1.0, max(tokens, steps / training.most_steps))


def rate_factor(schedule: str, done: float) -> float:
    """Return the learning rate after a share `done` of the run, as a share of its peak."""
    falls = {"constant": 0.0, "linear": done, "cosine": (1 - math.cos(math.pi * done)) / 2}
    return 1 - (1 - LAST) * falls[schedule]


def rate_at(step: int, done: float, training: Training) -> float:
    """Return the learning rate of a step as a share of its peak: a warm-up, then the schedule."""
    warm = min(1.0, step / training.warmup_steps) if training.warmup_steps else 1.0
    return warm * rate_factor(training.schedule, done)


def stage(budgets: Sequence[float], done: float) -> float:
    """Return the budget of the rollouts as a share of C0: the run has one part for each."""
    return budgets[min(int(done * len(budgets)), len(budgets) - 1)]
