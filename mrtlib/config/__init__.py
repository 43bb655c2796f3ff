"""Every number of a run: frozen dataclasses (`settings`), named profiles (`profiles`), and files.

One dial selects them all: the profile's name (`smoke`, `tiny`, `backtrack`, `r1-distill-1.5b`).
Nothing else in the library branches on size.
"""

from mrtlib.config.limits import check
from mrtlib.config.profiles import PROFILES, load_profile
from mrtlib.config.settings import (
    ALTERNATIVELY,
    ANSWER,
    BACK,
    BUT_WAIT,
    CHECK,
    COMPARED,
    GONE,
    HOLD_ON,
    LABELS,
    MARKERS,
    ROOT,
    STEP,
    TRAINED_METHODS,
    WAIT,
    WRONG,
    Data,
    Evaluation,
    Lora,
    Model,
    Profile,
    ProfileError,
    ProverSettings,
    Thinking,
    Training,
    as_json,
    key_texts,
    later,
)

__all__ = [
    "ALTERNATIVELY", "ANSWER", "BACK", "BUT_WAIT", "CHECK", "COMPARED", "GONE", "HOLD_ON", "LABELS",
    "MARKERS", "PROFILES", "ROOT", "STEP", "TRAINED_METHODS", "WAIT", "WRONG", "Data", "Evaluation",
    "Lora", "Model", "Profile", "ProfileError", "ProverSettings", "Thinking", "Training", "as_json",
    "check", "key_texts", "later", "load_profile",
]  # fmt: skip
