"""What single settings of MRT are worth: short runs of one form, each with one thing changed.

All of them are measured with the study's own settings, on the validation problems: nothing about
the test problems may come from a choice among them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mrtlib.config import Profile
from mrtlib.experiments.study import LENGTHS, Part, trained_for

FORM = "episode_progress"  # the form whose settings are varied
SET = "validation"
SEEDS = 3

Change = Callable[[Profile], Profile]


@dataclass(frozen=True)
class Variant:
    """One thing that is changed."""

    label: str  # as tables and figures name it
    change: Change = lambda profile: profile
    method: str = FORM


def changed(part: str, **values: Any) -> Change:
    """Return the change of a profile that replaces values of one of its parts.

    Raises:
        TypeError: the part has no such setting; when the change is made.
    """
    return lambda profile: replace(profile, **{part: replace(getattr(profile, part), **values)})


VARIANTS = {
    "alpha-0.3": Variant("α = 0.3", changed("training", alpha=0.3)),
    "alpha-3": Variant("α = 3", changed("training", alpha=3.0)),
    "unquantised": Variant("base not quantised", changed("model", quantization="none")),
    "groups-of-4": Variant("groups of 4", changed("training", group_size=4, problems_per_step=16)),
    # Larger groups are more often of rollouts that are not all right or all wrong.
    "groups-of-16": Variant("groups of 16",
                            changed("training", group_size=16, problems_per_step=4)),
    "half-boundaries": Variant("half of the boundaries", changed("thinking", group_size=2)),
    "sampled": Variant("J sampled, K = 4", changed("prover", estimator="sampled", samples=4)),
    "centred": Variant("baseline by position", method="episode_progress_centred"),
}  # fmt: skip


def ablated(profile: Profile) -> list[Part]:
    """Return the runs of each variant: as long as the *short* ones, and paired with them by seed.

    Args:
        profile: the study's.
    """
    return [
        Part(f"ablation/{name}", (variant.method,), profile.training.seeds[:SEEDS],
             lambda whole, own=variant: trained_for(LENGTHS["short"])(own.change(whole)))
        for name, variant in VARIANTS.items()
    ]  # fmt: skip


def unchanged(profile: Profile) -> Part:
    """Return the runs that the variants stand against, those of outcome RL among them."""
    seeds = profile.training.seeds[:SEEDS]
    return Part("short", ("outcome", FORM), seeds, trained_for(LENGTHS["short"]))
