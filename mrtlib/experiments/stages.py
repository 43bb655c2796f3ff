"""The stages of the study, each a queue of tasks (`experiments.queue`)."""

from collections.abc import Sequence

from mrtlib.config import Profile
from mrtlib.experiments import ablations
from mrtlib.experiments.measuring import Measuring, measurings
from mrtlib.experiments.queue import Task
from mrtlib.experiments.study import Training, compared, searched, trainings
from mrtlib.experiments.study_reach import reachings
from mrtlib.experiments.study_votes import votings


def ablating(profile: Profile) -> list[Training | Measuring]:
    """Return the tasks of the ablations: the trainings, and the measuring of all on one set."""
    runs = trainings(profile, ablations.ablated(profile))
    first = trainings(profile, [ablations.unchanged(profile)])
    return [*runs, *[Measuring(run, ablations.SET) for run in first + runs]]


ALL = "all"
STAGES = {
    "search": lambda profile: trainings(profile, searched()),
    "train": lambda profile: trainings(profile, compared(profile)),
    "evaluate": measurings,
    "vote": votings,
    "reach": reachings,
    "ablate": ablating,
}


def tasks_of(profile: Profile, stage: str) -> Sequence[Task]:
    """Return the tasks of a stage of the study, or of all, in the order in which they are done."""
    if stage == ALL:
        return [task for name in STAGES for task in STAGES[name](profile)]
    return STAGES[stage](profile)
