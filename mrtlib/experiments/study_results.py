"""What the study found on its test sets: results, primary comparisons, and differences to draw.

Everything is made from `measures`, a number for each problem, as the results of `evaluation` are
from whole records: by the same functions, with the same intervals.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mrtlib.config import Profile
from mrtlib.evaluation.comparison import Models, regret_removed, used_at_equal_accuracy
from mrtlib.evaluation.results import (
    COLUMNS,
    SHARES,
    Metrics,
    by_seed_and_problem,
    level_names,
    level_of_each,
    paired_seeds,
    problems_of,
)
from mrtlib.evaluation.tables import decided, in_order, written
from mrtlib.experiments.measuring import SETS, measured, measurings
from mrtlib.experiments.study import MAIN, REST, compared
from mrtlib.experiments.study_logs import measures
from mrtlib.stats import proportion, two_way

CONTROL = "final_progress"  # of MRT: the same prover, and one scalar a trace
MRT = tuple(method for method in MAIN if method not in ("outcome", CONTROL))
PRIMARY = ("natural_accuracy", "regret")  # at C0
NAMED = {"natural_accuracy": "natural accuracy", "regret": "normalised regret"}
OTHER_RL = tuple(method for method in REST if "star" not in method)
FAMILY_LEVEL = 1 - 0.05 / len(MRT)  # of one of the primary intervals of an outcome
PRIMARY_PART = "long"  # where the primary comparisons are made
MAIN_PARTS = (PRIMARY_PART, "short")  # of the main methods
BY_LENGTH = (PRIMARY_PART, "middle", "short")
SIDES = ("outcome RL", "the method", "base")  # of a method's panel, as they are drawn
PAPERS = "mixed_group"  # the paper's form of MRT
FEWEST = 3  # seeds: an interval of two does not cover
# What is drawn of each method against outcome RL; the tokens as a share of the budget.
DRAWN = {"natural_accuracy": "natural accuracy", "accuracy": "forced accuracy", "regret": "regret"}


class Found(NamedTuple):
    """What is on record of one part of the study on one test set, the base included."""

    part: str
    set: str
    models: Models


def models_of(profile: Profile, part: str, name: str) -> Models:
    """Return what is on record of a part of the study, and of the base, on one test set."""
    tasks = [task for task in measurings(profile)
             if task.set == name and task.run.part.name in (part, "base")]  # fmt: skip
    return measured(measures(profile), tasks)


def recorded(profile: Profile) -> list[Found]:
    """Return the parts and sets of which three seeds of `outcome` are on record, or more."""
    found = [Found(part.name, name, models_of(profile, part.name, name))
             for part in compared(profile) for name in SETS]  # fmt: skip
    return [f for f in found if sum(method == "outcome" for method, _ in f.models) >= FEWEST]


def whole_table(found: Sequence[Found]) -> pd.DataFrame:
    """Return the results of all parts and sets: part, set, and the columns of `results`.

    Rows are of all seeds together. A method with fewer than three of them is left out.
    """
    rows = []
    for part, name, models in found:
        models = enough(models)
        for method in dict.fromkeys(method for method, _ in models):
            rows += [{"part": part, "set": name, "method": method, "seed": "all", **row}
                     for row in _rows([m for key, m in models.items() if key[0] == method])]
    return pd.DataFrame(rows, columns=["part", "set", *COLUMNS])


def _rows(seeds: list[Metrics]) -> Iterator[dict]:
    """Yield the rows of one method, of every level, over the seeds that have a measure.

    A measure that fewer than three of several seeds have is left out: beyond C0, say.
    """
    for measure, budget in dict.fromkeys(place for metrics in seeds for place in metrics):
        own = [metrics[measure, budget] for metrics in seeds if (measure, budget) in metrics]
        if len(own) < min(FEWEST, len(seeds)):
            continue
        index = own[0]
        values = by_seed_and_problem(own, index, "all")
        levels, way = level_of_each(index), proportion if measure in SHARES else two_way
        for level in ["all", *dict.fromkeys(levels)]:
            mine = np.flatnonzero((levels == level) | (level == "all"))
            yield {
                "level": level, "metric": measure, "budget": budget,
                **way(values[:, mine], levels[mine]).row(), "problems": len(mine),
                "samples": values[:, mine].size,
            }  # fmt: skip


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def enough(models: Models) -> Models:
    """Return the models of the base, and of the methods with three seeds or more."""
    seeds = pd.Series([method for method, _ in models]).value_counts()
    return {key: metrics for key, metrics in models.items()
            if key[0] == "base" or seeds[key[0]] >= FEWEST}  # fmt: skip


def comparable(models: Models) -> Models:
    """Return the models of the base, of outcome RL, and of methods that can stand against it."""
    methods = ("base", "outcome", *paired_with_outcome(models))
    return {key: metrics for key, metrics in models.items() if key[0] in methods}


def paired_with_outcome(models: Models) -> list[str]:
    """Return the methods that share three seeds with `outcome`, or more."""
    return [method for method, other in pairs(models) if other == "outcome"]


def difference(
    models: Models, method: str, measure: str, budget: int, level: float = 0.95,
    other: str = "outcome", among: str = "all",
) -> dict[str, float]:  # fmt: skip
    """Return a method's mean less that of another, paired over seeds and problems.

    Args:
        level: of the two-way t interval.
        among: the level of the problems, or "all".

    Returns:
        estimate, low, high, seeds.
    """
    seeds, place = paired_seeds(models, method, other), (measure, budget)
    index = problems_of(models[method, seeds[0]][place], among)
    ours, theirs = (
        by_seed_and_problem([models[m, s][place] for s in seeds], index, among)
        for m in (method, other)
    )
    return {**two_way(ours - theirs, level_of_each(index), level).row(), "seeds": len(seeds)}


def primary(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return the primary comparisons of the protocol, and the same ones after *short* runs.

    Three comparisons share the error of an outcome, so each interval has 98.3 %. Those after short
    runs are secondary.

    Returns:
        part, method, measure, estimate, low, high, seeds, decided.
    """
    rows = [
        {"part": part, "method": method, "measure": measure,
         **difference(models, method, measure, c0, FAMILY_LEVEL)}
        for part, name, models in found if name == SETS[0] and part in MAIN_PARTS
        for measure in PRIMARY
        for method in paired_with_outcome(models) if method in MRT
    ]  # fmt: skip
    columns = ["part", "method", "measure", "estimate", "low", "high", "seeds"]
    return decided(pd.DataFrame(rows, columns=columns))


def differences(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return what `plotting.study_differences` draws: every method against outcome RL, at C0.

    Returns:
        part, set, method, measure (as it is written), estimate, low, high, seeds, decided.
    """
    rows = [
        {"part": part, "set": name, "method": method, "measure": words,
         **difference(models, method, measure, c0)}
        for part, name, models in found
        for method in paired_with_outcome(models)
        for measure, words in DRAWN.items()
    ]  # fmt: skip
    columns = ["part", "set", "method", "measure", "estimate", "low", "high", "seeds"]
    return decided(pd.DataFrame(rows, columns=columns))


def rivals(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return every method of the *middle* runs against the paper's form of MRT, test problems.

    Outcome RL is one of them. Where a run of it broke down, as it may, what the others differ from
    it by has intervals too wide to decide anything; against this form they have not.

    Returns:
        part, method, measure (as it is written), estimate, low, high, seeds, decided.
    """
    rows = [
        {"part": part, "method": method, "measure": words,
         **difference(models, method, measure, c0, other=PAPERS)}
        for part, name, models in found if name == SETS[0] and part not in MAIN_PARTS
        for method in dict.fromkeys(m for m, _ in models if m not in ("base", PAPERS))
        if len(paired_seeds(models, method, PAPERS)) >= FEWEST
        for measure, words in DRAWN.items()
    ]  # fmt: skip
    columns = ["part", "method", "measure", "estimate", "low", "high", "seeds"]
    return decided(pd.DataFrame(rows, columns=columns))


def by_budget(results: pd.DataFrame, c0: int) -> pd.DataFrame:
    """Return accuracy and regret of every method over the budget, beside outcome RL and the base.

    Each method is taken from its longest runs that are on record, on the test problems up to C0.

    Args:
        results: from `whole_table`.

    Returns:
        part, method (the one that the rows are about), series ("the method", "outcome RL" or
        "base"), metric, budget, used (mean thinking tokens), estimate, low, high.
    """
    mine = results[(results["set"] == SETS[0]) & (results["level"] == "all")
                   & (results["budget"] <= c0)]  # fmt: skip
    place = ["part", "method", "budget"]
    used = mine[mine["metric"] == "tokens"].set_index(place)["estimate"].rename("used")
    mine = mine[mine["metric"].isin(("accuracy", "regret"))].join(used, on=place)
    tables = []
    for method in in_order(mine["method"]):
        parts = set(mine.loc[mine["method"] == method, "part"])
        part = next(p for p in BY_LENGTH if p in parts)
        if method not in ("outcome", "base"):
            series = dict(zip(("outcome", method, "base"), SIDES, strict=True))
            rows = mine[(mine["part"] == part) & mine["method"].isin(series)]
            rows = rows.assign(series=rows["method"].map(series), method=method)
            tables.append(rows.sort_values("series", key=lambda s: s.map(SIDES.index),
                                           kind="stable"))  # fmt: skip
    names = ["part", "method", "series", "metric", "budget", "used", "estimate", "low", "high"]
    return _joined(tables).reindex(columns=names)


def by_level(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return every method against outcome RL at C0 by the level of the test problems.

    Returns:
        part, method, level, measure, estimate, low, high, seeds, decided.
    """
    rows = [
        {"part": part, "method": method, "level": level, "measure": words,
         **difference(models, method, measure, c0, among=level)}
        for part, name, models in found if name == SETS[0]
        for method in paired_with_outcome(models)
        for level in level_names(models["base", 0][PRIMARY[0], c0])
        for measure, words in DRAWN.items() if measure in PRIMARY
    ]  # fmt: skip
    columns = ["part", "method", "level", "measure", "estimate", "low", "high", "seeds"]
    return decided(pd.DataFrame(rows, columns=columns))


def all_differences(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return every paired difference at C0 that a text may quote: the table of `differences.csv`.

    Against outcome RL, of the forms of MRT (STaR) against STaR, of the paper's form against its
    rivals, and of the forms of MRT against the control of one scalar a trace; each with 95 % and
    with the level of the primary comparisons (98.3 %).

    Returns:
        part, set, method, other, level (of the problems), measure, confidence, estimate, low, high,
        seeds, decided.
    """
    rows = [
        {"part": part, "set": name, "method": method, "other": other, "level": level,
         "measure": measure, "confidence": confidence,
         **difference(models, method, measure, c0, confidence, other, level)}
        for part, name, models in found
        for method, other in pairs(models)
        for level in ("all", *level_names(models["base", 0][PRIMARY[0], c0]))
        for measure in (*DRAWN, "tokens")
        for confidence in (0.95, FAMILY_LEVEL)
    ]  # fmt: skip
    return decided(pd.DataFrame(rows, columns=["part", "set", "method", "other", "level", "measure",
                                               "confidence", "estimate", "low", "high", "seeds"]))


def pairs(models: Models) -> list[tuple[str, str]]:
    """Return which method is compared with which: those with three seeds in common, or more."""
    methods = dict.fromkeys(method for method, _ in models if method != "base")
    asked = [(method, "outcome") for method in methods if method != "outcome"]
    asked += [(method, "star") for method in methods if method.startswith("mrt_star")]
    asked += [(PAPERS, method) for method in methods if method in OTHER_RL]
    asked += [(method, CONTROL) for method in methods if method in MRT]
    return [pair for pair in asked if len(paired_seeds(models, *pair)) >= FEWEST]


def removed(found: Sequence[Found]) -> pd.DataFrame:
    """Return the share of outcome RL's regret that each method removes, by budget.

    Each budget is of the seeds for which both were measured there, three or more of them.

    Returns:
        part, set, method, level, budget, estimate, low, high, decided, seeds.
    """
    tables = []
    for part, name, models in found:
        budgets = {budget for metrics in models.values() for metric, budget in metrics
                   if metric == "regret"}  # fmt: skip
        for budget in sorted(budgets):
            there = {key: own for key, own in models.items() if ("regret", budget) in own}
            seeds = {m: len(paired_seeds(there, m, "outcome")) for m in paired_with_outcome(there)}
            if seeds:
                own = {key: there[key] for key in there if key[0] in (*seeds, "outcome")}
                table = regret_removed(own, (budget,))
                table = table.assign(part=part, set=name, seeds=table["method"].map(seeds))
                tables.append(table[table["level"] == "all"])
    return _joined(tables)


def tokens(found: Sequence[Found], c0: int) -> pd.DataFrame:
    """Return how many tokens each method uses for outcome RL's best accuracy, test problems."""
    return _joined([used_at_equal_accuracy(comparable(models), c0).assign(part=part)
                    for part, name, models in found
                    if name == SETS[0] and paired_with_outcome(models)])  # fmt: skip


SHOWN = {  # rows of the table for readers, and the budgets in C0
    "natural_accuracy": (1,), "accuracy": (0.25, 0.5, 1, 2, 4), "regret": (0.25, 0.5, 1, 2, 4),
    "maj@4": (1,), "tokens": (1,), "episodes": (1,),
}  # fmt: skip
FEW_DIGITS = {"tokens": 1, "episodes": 2}  # of numbers that are no shares


def shown(table: pd.DataFrame, part: str, name: str, c0: int) -> pd.DataFrame:
    """Return the results of one part on one set as readers see them: a column a method.

    Args:
        table: from `whole_table`.

    Returns:
        A row a measure and budget, named so; cells such as `0.459 [0.433, 0.485]`, over all
        levels, "" where too few seeds were measured.
    """
    mine = table[(table["part"] == part) & (table["set"] == name) & (table["level"] == "all")]
    cells = {}
    for measure, times in SHOWN.items():
        for row in mine[mine["metric"] == measure].itertuples():
            if row.budget in {round(c0 * x) for x in times}:
                few = FEW_DIGITS.get(measure, 3)
                text = " ".join(written(row.estimate, row.low, row.high, few))
                cells[row.method, f"{measure} at {row.budget}"] = text
    table = pd.Series(cells, dtype=str).unstack(0).fillna("")
    return table.loc[list(dict.fromkeys(place for _, place in cells)),
                     list(dict.fromkeys(mine["method"]))]  # fmt: skip


def in_words(table: pd.DataFrame, planned: int) -> str:
    """Return the primary comparisons in words, whichever way they came out: a list in Markdown.

    What is decided stands first, then every comparison with its interval; long runs first. With
    fewer seeds than are planned it is an interim look, and its intervals are not corrected for
    there being more.

    Args:
        table: from `primary`.
        planned: seeds of a method.
    """
    table = table.sort_values("part", key=lambda part: part != PRIMARY_PART, kind="stable")
    said = [_decided_in_words(part, rows, planned)
            for part, rows in table.groupby("part", sort=False)]  # fmt: skip
    for (part, measure), rows in table.groupby(["part", "measure"], sort=False):
        name = NAMED[measure]
        told = [f"`{row.method}` {100 * row.estimate:+z.1f} [{100 * row.low:z.1f}, "
                f"{100 * row.high:z.1f}], {row.seeds} seeds"
                + ("" if row.decided else ", not decided")
                for row in rows.itertuples()]  # fmt: skip
        said.append(f"{name} at $C_0$ on the test problems after *{part}* runs, less that of "
                    "outcome RL, in points (98.3 % intervals): "
                    + "; ".join(told) + ".")  # fmt: skip
    return "\n".join("- " + text[0].upper() + text[1:] for text in said)


def _decided_in_words(part: str, rows: pd.DataFrame, planned: int) -> str:
    """Say which comparisons of a part are decided, and by how many of the seeds."""
    kind = "primary" if part == PRIMARY_PART else "secondary"
    fewest, most, every = rows["seeds"].min(), rows["seeds"].max(), len(MRT) * len(PRIMARY)
    seeds = f"{fewest} to {most}" if fewest < most else f"{most}"
    look = f" ({every} are planned)" if len(rows) < every else ""
    look += f", an interim look at {seeds} of {planned} seeds" if fewest < planned else ""
    told = "; ".join(_verdict(row) for row in rows[rows["decided"]].itertuples()) or "none"
    return f"Decided after *{part}* runs, of {len(rows)} {kind} comparisons{look}: {told}."


def _verdict(row: NamedTuple) -> str:
    """Say what a decided comparison of `primary` says."""
    more = "more" if row.estimate > 0 else "less"
    return f"`{row.method}` has {more} {NAMED[row.measure]} than outcome RL"
