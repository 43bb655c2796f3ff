"""What single settings of MRT are worth: short runs of one form, each with one thing changed.

All of them are measured with the study's own settings, on the validation problems: nothing about
the test problems may come from a choice among them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from mrtlib.config import LABELS, Profile
from mrtlib.evaluation.results import Metrics
from mrtlib.experiments.measuring import Measuring, metrics_from
from mrtlib.experiments.study import LENGTHS, Part, trained_for, trainings
from mrtlib.experiments.study_logs import measures
from mrtlib.experiments.study_results import DRAWN, PRIMARY, difference

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
    "constant-rate": Variant("rate not decayed", changed("training", schedule="constant")),
    "unquantised": Variant("base in float32", changed("model", quantization="none")),
    "groups-of-4": Variant("groups of 4", changed("training", group_size=4, problems_per_step=16)),
    # Larger groups are more often of rollouts that are not all right or all wrong.
    "groups-of-16": Variant("groups of 16",
                            changed("training", group_size=16, problems_per_step=4)),
    "half-boundaries": Variant("half of the boundaries", changed("thinking", group_size=2)),
    "sampled": Variant("J sampled, K = 4", changed("prover", estimator="sampled", samples=4)),
    "centred": Variant("centred progress", method="episode_progress_centred"),
    "half-budget-first": Variant("budget C0/2, then C0", changed("training", budgets=(0.5, 1.0))),
    "spread": Variant("problems with spread alone", changed("data", train_files=("spread",))),
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


def results(profile: Profile) -> pd.DataFrame:
    """Return what each variant gains over the form as it is, paired over seeds and problems.

    Outcome RL stands first, for the scale. Variants with fewer than three seeds on record are
    left out.

    Args:
        profile: the study's.

    Returns:
        variant, measure (as it is written), estimate, low, high, seeds.
    """
    found = {"": _measured(profile, unchanged(profile), FORM)}
    found[LABELS["outcome"]] = _measured(profile, unchanged(profile), "outcome")
    for part, variant in zip(ablated(profile), VARIANTS.values(), strict=True):
        found[variant.label] = _measured(profile, part, variant.method)
    whole = {name: seeds for name, seeds in found.items() if len(seeds) == SEEDS}
    models = {(name, seed): metrics for name, seeds in whole.items()
              for seed, metrics in seeds.items()}  # fmt: skip
    rows = [
        {"variant": name, "measure": DRAWN[measure],
         **difference(models, name, measure, profile.thinking.budget, other="")}
        for name in whole if name and "" in whole
        for measure in PRIMARY
    ]  # fmt: skip
    columns = ["variant", "measure", "estimate", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _measured(profile: Profile, part: Part, method: str) -> dict[int, Metrics]:
    """Return what is on record of a part's runs of one method, by seed."""
    record = measures(profile)
    tasks = [Measuring(run, SET) for run in trainings(profile, [part]) if run.method == method]
    return {task.run.seed: metrics_from(record.read([task.key]))
            for task in tasks if record.has(task.key)}  # fmt: skip
