"""Meta Reinforcement Fine-Tuning (MRT, arXiv 2503.07572): episodes, progress and regret.

The names in HOMES are those to hold in the head. Each is imported when it is first asked for, so
that `import mrtlib` takes no time; all else is imported from its room.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mrtlib import notices

notices.hush()  # before any of the libraries is imported

if TYPE_CHECKING:  # what editors show; a test holds it to HOMES
    # ruff: noqa: F401
    from mrtlib.config import load_profile
    from mrtlib.credit import progress, regret_to_go
    from mrtlib.episodes import segment
    from mrtlib.evaluation.sweep import evaluate
    from mrtlib.prover.prover import Prover
    from mrtlib.regret import anytime, normalised_regret, stop_point
    from mrtlib.stats import two_way
    from mrtlib.tasks.grading import grade
    from mrtlib.tasks.problems import Problem, load_problems
    from mrtlib.training.runs import train
    from mrtlib.training.trainer import MRTTrainer

HOMES = {
    "load_profile": "config",
    "Problem": "tasks.problems",
    "load_problems": "tasks.problems",
    "grade": "tasks.grading",
    "segment": "episodes",
    "progress": "credit",
    "regret_to_go": "credit",
    "anytime": "regret",
    "normalised_regret": "regret",
    "stop_point": "regret",
    "two_way": "stats",
    "Prover": "prover.prover",
    "MRTTrainer": "training.trainer",
    "train": "training.runs",
    "evaluate": "evaluation.sweep",
}
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    """Import a name of HOMES (PEP 562)."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mrtlib.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
