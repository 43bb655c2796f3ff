"""The study seed by seed: how many of each method are on record, and how each run ended."""

from collections.abc import Sequence

import pandas as pd

from mrtlib.config import Profile
from mrtlib.evaluation.comparison import Models
from mrtlib.evaluation.results import by_seed_and_problem, level_names, problems_of
from mrtlib.experiments.measuring import SETS
from mrtlib.experiments.study import compared, trainings
from mrtlib.experiments.study_logs import log_shards
from mrtlib.experiments.study_results import PRIMARY, Found

BEYOND = "beyond C0"


def counted(profile: Profile, found: Sequence[Found]) -> pd.DataFrame:
    """Return how many seeds of each method are on record, and how many are planned.

    Args:
        profile: the study's.
        found: from `study_results.recorded`.

    Returns:
        part, method, planned, trained, a column for each test set, and beyond C0: seeds.
    """
    logs, rows = log_shards(profile), []
    models = {(f.part, f.set): f.models for f in found}
    for part in compared(profile):
        runs = trainings(profile, [part])
        for method in part.methods:
            own = [run for run in runs if run.method == method]
            sets = {name: _seeds(models.get((part.name, name), {}), method) for name in SETS}
            far = [key for key in sets[SETS[0]] if _goes_on(models[part.name, SETS[0]][key],
                                                            profile.thinking.budget)]  # fmt: skip
            rows.append({
                "part": part.name, "method": method, "planned": len(own),
                "trained": sum(logs.has(run.key) for run in own),
                **{name: len(keys) for name, keys in sets.items()}, BEYOND: len(far),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _seeds(models: Models, method: str) -> list[tuple[str, int]]:
    return [key for key in models if key[0] == method]


def _goes_on(metrics: dict, c0: int) -> bool:
    return any(budget > c0 for _, budget in metrics)


def ends(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return how each run ended: its means on the test problems at C0, by level.

    Returns:
        part, method, seed, level ("all" first), and a column for each primary measure.
    """
    rows = []
    for part, name, models in found:
        for (method, seed), metrics in models.items() if name == SETS[0] else ():
            index = metrics[PRIMARY[0], c0]
            for level in ("all", *level_names(index)):
                asked = problems_of(index, level)
                means = {m: by_seed_and_problem([metrics[m, c0]], asked, level).mean()
                         for m in PRIMARY}  # fmt: skip
                rows.append({"part": part, "method": method, "seed": seed, "level": level, **means})
    return pd.DataFrame(rows, columns=["part", "method", "seed", "level", *PRIMARY])
