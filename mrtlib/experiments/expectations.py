"""What was expected of MRT before the study, and what came out: each with its interval.

They are ours, not the paper's; its claims are in `verdicts`, and an expectation is read in the same
way: it says that a number is larger than a bound, and the interval decides.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrtlib.evaluation.comparison import Models, used_at_equal_accuracy
from mrtlib.evaluation.results import paired_seeds
from mrtlib.experiments.study_results import FEWEST, MRT, Found, removed
from mrtlib.experiments.verdicts import NOT, NOT_RUN, REPRODUCED, gains, verdict

WORDS = {REPRODUCED: "confirmed", NOT: "refuted"}
COLUMNS = ("part", "method", "seeds", "expectation", "measured", "low", "high", "bound", "verdict")
BUDGETS = {"C0/4": 0.25, "C0/2": 0.5, "C0": 1, "2 C0": 2, "4 C0": 4}
RIVALS = ("length_penalty", "budget_relative")
HARD = "four"
NUMBERS = ["estimate", "low", "high"]
UNKNOWN = (np.nan,) * 3


def expectations(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return all expectations as a table of COLUMNS; each length of run by itself.

    Args:
        found: from `study_results.recorded`.
    """
    parts = [part for part in found if part.set == "test"]
    rows = [
        {"part": part.part, "method": method, **row}
        for part in parts
        for method in MRT if len(paired_seeds(part.models, method, "outcome")) >= FEWEST
        for row in of_method(part, method, c0)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=COLUMNS)
    unmet = [_row(_against_rival(rival), UNKNOWN, 0.0, 0) for rival in RIVALS
             if _against_rival(rival) not in set(table["expectation"])]  # fmt: skip
    return pd.DataFrame([*rows, *[{"part": "", "method": "", **row} for row in unmet]],
                        columns=COLUMNS)  # fmt: skip


def of_method(part: Found, method: str, c0: int) -> list[dict]:
    """Return what was expected of one form of MRT, from the runs of one length."""
    models = part.models
    seeds = len(paired_seeds(models, method, "outcome"))
    rows = [_row("tokens used, at outcome RL's best accuracy: times fewer",
                 fewer_tokens(models, method, "outcome", c0), 1.6, seeds),
            _row("tokens used, at the base's best accuracy: times fewer",
                 fewer_tokens(models, method, "base", c0), 3.0, seeds)]  # fmt: skip
    less = removed([part]).set_index(["method", "budget"])
    for name, times in BUDGETS.items():
        place = method, round(c0 * times)
        numbers = less.loc[place, NUMBERS] if place in less.index else UNKNOWN
        rows.append(_row(f"share of outcome RL's regret removed at {name}", numbers, 0.0, seeds))
    rows.append(_row("the same at C0, by a tenth", less.loc[(method, c0), NUMBERS], 0.1, seeds))
    for rival in RIVALS:  # of the same length of run, where it has both
        if (shared := len(paired_seeds(models, method, rival))) >= FEWEST:
            numbers = regret_removed_of(models, method, rival, c0)
            rows.append(_row(_against_rival(rival), numbers, 0.0, shared))
    hard = gains(models, method, c0, HARD)
    return [*rows, _row(f"gain over the base to outcome RL's, on `{HARD}`", hard, 2.0, seeds)]


def fewer_tokens(models: Models, method: str, other: str, c0: int) -> tuple[float, ...]:
    """Return how many times fewer tokens a method uses for the other's best accuracy up to C0."""
    table = used_at_equal_accuracy(_against(models, method, other), c0)
    return tuple(table.loc[0, ["times_fewer", "low", "high"]])


def regret_removed_of(models: Models, method: str, rival: str, c0: int) -> Sequence[float]:
    """Return the share of a rival's regret at C0 that a method removes."""
    table = removed([Found("", "", _against(models, method, rival))])
    return table.set_index("budget").loc[c0, NUMBERS]


def _against(models: Models, method: str, other: str) -> Models:
    """Return a method beside another in the place of `outcome`; the base is one for all seeds."""
    seeds = paired_seeds(models, method, "outcome" if other == "base" else other)
    theirs = {s: models[other, 0 if other == "base" else s] for s in seeds}
    return ({("outcome", s): theirs[s] for s in seeds}
            | {(method, s): models[method, s] for s in seeds})  # fmt: skip


def _against_rival(rival: str) -> str:
    return f"share of the regret of {rival} removed at C0"


def _row(words: str, numbers: Sequence[float], bound: float, seeds: int) -> dict:
    measured, low, high = (float(number) for number in numbers)
    said = verdict(low, high, bound)
    return {"seeds": seeds, "expectation": words, "measured": measured, "low": low, "high": high,
            "bound": bound, "verdict": NOT_RUN if np.isnan(measured) else WORDS.get(said, said)}
