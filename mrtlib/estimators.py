"""The same training with the reward measured by each estimator: exact, and sampled with K answers.

Every run takes the same rollout seeds and the same number of steps; what a step costs in tokens
differs, so learning is compared where all have put as many tokens through the model.
"""

from dataclasses import replace

from mrtlib.config import Profile

METHOD = "episode_progress"
EXACT = "exact"


def variant(profile: Profile, samples: int, steps: int) -> Profile:
    """Return the profile with the reward from `samples` answers a boundary, in its own folder."""
    prover = replace(profile.prover, estimator="sampled", samples=samples)
    training = replace(profile.training, tokens=10**9, most_steps=steps)
    name = f"{profile.name}/estimators/sampled-{samples}"
    return replace(profile, name=name, prover=prover, training=training)
