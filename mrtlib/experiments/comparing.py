"""The studies of notebook 02 that cost a training each: what exact J buys against sampled J.

They are made where the profile asks for them (`training.studies`).
"""

from dataclasses import dataclass

import pandas as pd

from mrtlib.config import Profile
from mrtlib.experiments import claims, estimators

OFF = (
    "Not compared in this profile: the gold standard takes hundreds of answers a boundary, and "
    "learning a training for each estimator and seed. `studies = true` under `[training]` asks for "
    "it."
)


@dataclass(frozen=True)
class Compared:
    """What `estimators` found, table by table."""

    errors: pd.DataFrame
    tokens: dict[str, float]
    learned: pd.DataFrame
    equal_tokens: pd.DataFrame
    equal_steps: pd.DataFrame
    total: int

    @property
    def errors_and_variance(self) -> pd.DataFrame:
        """The errors, and the squared error less that of the gold standard."""
        own = self.errors["error"] ** 2 - self.errors["floor"] ** 2
        return self.errors.assign(variance=own.clip(lower=0))


def compare(
    profile: Profile, rollouts: pd.DataFrame, seed: int, seeds: range
) -> Compared | None:
    """Compare the estimators by error and by learning, or read it; None where it is not asked for.

    Args:
        rollouts: records of the base, as `answers.first_rollouts` gives them.
        seed: of the answers; `seeds` of the trainings.
    """
    if not profile.training.studies:
        return None
    found, tokens = estimators.progress_by_estimator(profile, rollouts, seed)
    steps = estimators.runs(profile, seeds)
    points = estimators.by_tokens(steps)
    return Compared(
        estimators.errors(found, tokens), tokens, estimators.mean_curves(points),
        estimators.gaps_at_equal_tokens(steps, points), estimators.gaps_at_equal_steps(steps),
        estimators.common_total(steps),
    )  # fmt: skip


def in_words(found: Compared | None) -> str:
    """Return what the comparison says, with its numbers, or that there is none: Markdown."""
    if found is None:
        return OFF
    learning = estimators.learning_in_words(found.equal_tokens, found.equal_steps, found.total)
    return estimators.errors_in_words(found.errors, found.tokens) + "\n\n" + learning


def claimed(found: Compared | None) -> list[claims.Claim]:
    """Return what notebook 02 claims of the comparison."""
    if found is None:
        return []
    return claims.of_gold(found.errors, found.tokens) + claims.of_learning(found.equal_tokens)
