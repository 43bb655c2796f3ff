"""What was expected of MRT before the study, and what came out: each with its interval.

They are ours, not the paper's; its claims are in `verdicts`, and an expectation is read in the same
way: it says that a number is larger than a bound, and the interval decides.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrtlib.evaluation.comparison import Models, used_at_equal_accuracy
from mrtlib.evaluation.results import level_names, paired_seeds, relative_regret
from mrtlib.evaluation.tables import written
from mrtlib.experiments.study_results import FEWEST, MRT, Found, paired_with_outcome
from mrtlib.experiments.verdicts import NOT, NOT_RUN, REPRODUCED, gains, verdict

WORDS = {REPRODUCED: "confirmed", NOT: "refuted"}
COLUMNS = ("part", "method", "seeds", "expectation", "measured", "low", "high", "bound", "verdict")
BUDGETS = {"C0/4": 0.25, "C0/2": 0.5, "C0": 1, "2 C0": 2, "4 C0": 4}
RIVALS = ("length_penalty", "budget_relative")
HARD = "four"


def expectations(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return all expectations as a table of COLUMNS; each length of run by itself.

    Args:
        found: from `study_results.recorded`.
    """
    rows = [
        {"part": part.part, "method": method, **row}
        for part in found if part.set == "test"
        for method in paired_with_outcome(part.models) if method in MRT
        for row in of_method(part.models, method, c0)
    ]  # fmt: skip
    said = {row["expectation"] for row in rows}
    rows += [{"part": "", "method": "", **_not_run(_against_rival(rival))}
             for rival in RIVALS if _against_rival(rival) not in said]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def of_method(models: Models, method: str, c0: int) -> list[dict]:
    """Return what was expected of one form of MRT, from the runs of one length."""
    seeds = len(paired_seeds(models, method, "outcome"))
    rows = [_row("times fewer tokens used than by outcome RL",
                 fewer_tokens(models, method, "outcome", c0), 1.6, seeds),
            _row("times fewer tokens used than by the base",
                 fewer_tokens(models, method, "base", c0), 3.0, seeds)]  # fmt: skip
    bounds = [(f"regret of outcome RL removed at {name}", times, 0.0)
              for name, times in BUDGETS.items()]  # fmt: skip
    bounds.append(("regret of outcome RL removed at C0, by a tenth", 1, 0.1))
    for words, times, bound in bounds:
        rows.append(_removed(models, method, "outcome", round(c0 * times), words, bound))
    for rival in RIVALS:  # of the same length of run, where it has both
        if len(paired_seeds(models, method, rival)) >= FEWEST:
            rows += [_removed(models, method, rival, round(c0 * times),
                              _against_rival(rival, name), 0.0)
                     for name, times in BUDGETS.items()]  # fmt: skip
            rows.append(_removed(models, method, rival, c0,
                                 f"{_against_rival(rival)}, by a tenth", 0.1))  # fmt: skip
    if HARD in level_names(models["base", 0]["natural_accuracy", c0]):
        hard = gains(models, method, c0, HARD)
        rows.append(_row(f"gain over the base to outcome RL's, on `{HARD}`", hard, 2.0, seeds))
    return rows


def _removed(
    models: Models, method: str, other: str, budget: int, words: str, bound: float
) -> dict:
    """Return the row of the share of another's regret that a method removes at a budget.

    It is of the seeds for which both were measured there.
    """
    there = {key: metrics for key, metrics in models.items() if ("regret", budget) in metrics}
    seeds = len(paired_seeds(there, method, other))
    if seeds < FEWEST:
        return _not_run(words)
    found = relative_regret(_against(there, method, other), method, budget)
    return _row(words, (found.estimate, found.low, found.high), bound, seeds)


def fewer_tokens(models: Models, method: str, other: str, c0: int) -> tuple[float, ...]:
    """Return how many times fewer tokens a method uses for the other's best accuracy up to C0."""
    table = used_at_equal_accuracy(_against(models, method, other), c0)
    return tuple(table.loc[0, ["times_fewer", "low", "high"]])


def _against(models: Models, method: str, other: str) -> Models:
    """Return a method beside another in the place of `outcome`; the base is one for all seeds."""
    seeds = paired_seeds(models, method, "outcome" if other == "base" else other)
    theirs = {s: models[other, 0 if other == "base" else s] for s in seeds}
    return ({("outcome", s): theirs[s] for s in seeds}
            | {(method, s): models[method, s] for s in seeds})  # fmt: skip


def _against_rival(rival: str, budget: str = "C0") -> str:
    return f"regret of {rival} removed at {budget}"


def _not_run(words: str) -> dict:
    return {"seeds": 0, "expectation": words, "verdict": NOT_RUN}


def _row(words: str, numbers: Sequence[float], bound: float, seeds: int) -> dict:
    measured, low, high = (float(number) for number in numbers)
    said = verdict(low, high, bound)
    return {"seeds": seeds, "expectation": words, "measured": measured, "low": low, "high": high,
            "bound": bound, "verdict": WORDS.get(said, said)}


def markdown(table: pd.DataFrame) -> str:
    """Return the expectations as a Markdown table: a row each, with interval, bound and verdict."""
    lines = ["| runs | method | expected of it | measured | expected: more than | verdict |",
             "|:--|:--|:--|--:|--:|:--|"]  # fmt: skip
    for row in table.itertuples():
        known = np.isfinite(row.measured)
        numbers = " ".join(written(row.measured, row.low, row.high, 3)) if known else ""
        runs = f"{row.part}, {row.seeds} seeds" if row.seeds else row.part
        bound = f"{row.bound:g}" if known else ""
        lines.append(
            f"| {runs} | {row.method} | {row.expectation} | {numbers} | {bound} | {row.verdict} |"
        )
    return "\n".join(lines) + "\n"
