"""Each claim of the paper: what we measured, its interval, and the verdict that follows from it.

A claim is a bound that a number must be beyond. The interval decides: wholly beyond the bound, the
claim is reproduced; wholly short of it, it is not; else the data do not decide. Nothing here says
what should come out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mrtlib.config import ROOT, Profile, load_profile
from mrtlib.evaluation.comparison import Models
from mrtlib.evaluation.results import by_seed_and_problem, level_of_each, paired_seeds, problems_of
from mrtlib.experiments import study_reach, study_votes
from mrtlib.experiments.episode_analysis import AFTER_RIGHT
from mrtlib.experiments.study_results import (
    FEWEST,
    MAIN_PARTS,
    MRT,
    PRIMARY_PART,
    Found,
    difference,
    paired_with_outcome,
    removed,
    tokens,
)
from mrtlib.stats import Interval, fieller, ratio
from mrtlib.store import read_csv

REPRODUCED, NOT, OPEN = "reproduced", "not reproduced", "not decided"
UNTESTED = "cannot be tested at this scale"  # there is no interval
NOT_RUN = "not run yet"
COLUMNS = ("claim", "paper", "measured", "low", "high", "bound", "verdict", "command")
TINY = "make reproduce"
STUDY = f"python -m mrtlib study; {TINY}"  # the runs; then notebook 06, which reads them


class About(NamedTuple):
    """A claim about a method that is not among the main ones: it has less of a measure at C0."""

    method: str
    other: str  # what it has less than
    measure: str
    claim: str
    paper: str


REST = (
    About("length_penalty", "outcome", "natural_accuracy",
          "a length penalty costs natural accuracy: share lost", "3.7 points (table 1)"),
    About("budget_curriculum", "outcome", "regret",
          "a budget curriculum lowers regret: normalised regret less", "yes (figure 12)"),
    About("mrt_star_keep", "star", "regret",
          "MRT (STaR), kept whole: less regret than STaR", "yes (figure 9)"),
    About("mrt_star_cut", "star", "regret",
          "MRT (STaR), cut: less regret than STaR", "yes (figure 9)"),
)  # fmt: skip


def verdict(low: float, high: float, bound: float) -> str:
    """Return the verdict on a claim that a number is larger than a bound, by its interval."""
    if np.isnan(low) or np.isnan(high):
        return UNTESTED
    return REPRODUCED if low > bound else NOT if high < bound else OPEN


def row(
    claim: str, paper: str, numbers: Sequence[float], bound: float, command: str
) -> dict[str, object]:
    """Return a claim's row: it says that the number is larger than the bound.

    Args:
        numbers: measured, low, high.
    """
    measured, low, high = (float(number) for number in numbers)
    values = (claim, paper, measured, low, high, bound, verdict(low, high, bound), command)
    return dict(zip(COLUMNS, values, strict=True))


def not_run(claim: str, paper: str) -> dict[str, object]:
    """Return the row of a claim that no run on record speaks of yet."""
    return dict(zip(COLUMNS, (claim, paper, *[np.nan] * 4, NOT_RUN, STUDY), strict=True))


def claims(profile: Profile, found: Sequence[Found]) -> pd.DataFrame:
    """Return all claims as a table of COLUMNS; of the study, each length of run by itself.

    Args:
        profile: the study's.
        found: from `study_results.recorded`.
    """
    on_test, c0 = [f for f in found if f.set == "test"], profile.thinking.budget
    rows = [claim for f in on_test if f.part in MAIN_PARTS for claim in of_study(f, c0)]
    votes = of_votes(*study_votes.voted(profile))
    reach = of_reach(study_reach.differences(study_reach.reached(profile)))
    rest = of_rest(on_test, c0)
    rows += [*votes, *reach, *rest, *of_tiny(), *of_backtracking()]
    return pd.DataFrame(rows, columns=COLUMNS)


def of_study(part: Found, c0: int) -> list[dict]:
    """Return the claims that the main methods of a part of the study speak of."""
    models, rows = part.models, []
    methods = [m for m in MRT if m in paired_with_outcome(models)]
    if methods:
        less = removed([part]).set_index(["method", "budget"])
        fewer = tokens([part], c0).set_index("method")
    for method in methods:
        where = _where(part, method)
        numbers = ["estimate", "low", "high"]
        rows += [
            row(f"less regret than outcome RL at C0 (share removed; {where})", "yes (figure 9)",
                less.loc[(method, c0), numbers], 0.0, STUDY),
            _beyond(part.part, method, less.loc[[(method, 4 * c0)]])
            if (method, 4 * c0) in less.index else
            not_run("less regret than outcome RL at 4 C0, by extrapolation "
                    f"({part.part} runs, {method})", "yes (figure 9)"),
            row(f"fewer tokens at outcome RL's best accuracy (times; {where})",
                "1.6 (figure 7)", fewer.loc[method, ["times_fewer", "low", "high"]], 1.6, STUDY),
            row(f"gain in natural accuracy over the base, to outcome RL's ({where})",
                "2 to 3 (table 1)", gains(models, method, c0), 2.0, STUDY),
            row(f"thinking is not longer than outcome RL's (tokens saved; {where})",
                "about as long (figure 10)", minus(difference(models, method, "tokens", c0)),
                0.0, STUDY),
            *while_training(models, method, c0, where),
        ]  # fmt: skip
    rows.append(
        row(f"outcome RL has more regret than the base at C0 ({part.part} runs)",
            "at every budget (figure 9)", above_base(models, c0), 0.0, STUDY)
    )  # fmt: skip
    return rows


def while_training(models: Models, method: str, c0: int, where: str) -> list[dict]:
    """Return the two halves of a claim: regret falls, and not because thinking is cut short."""
    left, long = (times_the_base(models, method, name, c0) for name in ("regret", "tokens"))
    fallen = 1 - left.estimate, 1 - left.high, 1 - left.low
    return [
        row(f"training lowers regret at C0 (share of the base's removed; {where})",
            "yes (figure 9)", fallen, 0.0, STUDY),
        row(f"while thinking is not cut short (tokens, as a share of the base's; {where})",
            "0.95 to 1.4 (figure 10)", (long.estimate, long.low, long.high), 0.95, STUDY),
    ]  # fmt: skip


def _beyond(part: str, method: str, less: pd.DataFrame) -> dict[str, object]:
    """Return the claim about 4 C0, where fewer seeds were measured than at C0."""
    [found] = less.to_dict("records")
    return row(f"less regret than outcome RL at 4 C0, by extrapolation ({part} runs, "
               f"{found['seeds']} seeds, {method})", "yes (figure 9)",
               [found[name] for name in ("estimate", "low", "high")], 0.0, STUDY)  # fmt: skip


def _where(part: Found, method: str) -> str:
    """Return whose runs a claim is about, and how many of them."""
    seeds = len(paired_seeds(part.models, method, "outcome"))
    return f"{part.part} runs, {seeds} seeds, {method}"


def of_votes(part: str, models: Models) -> list[dict]:
    """Return the claims about votes of several rollouts.

    Args:
        part, models: from `study_votes.voted`.
    """
    table = study_votes.efficiency(models) if part else pd.DataFrame(columns=["method", "other"])
    table = table[table["other"] == "outcome"].set_index("method")
    return [
        row("fewer tokens at outcome RL's best vote accuracy (times; "
            f"{_where(Found(part, study_votes.SET, models), method)})",
            "1.6 (figure 7)", table.loc[method, ["times_fewer", "low", "high"]], 1.6, STUDY)
        for method in MRT if method in table.index
    ]  # fmt: skip


def of_reach(table: pd.DataFrame) -> list[dict]:
    """Return the claims about regret against what votes could reach, over all of the episodes.

    Args:
        table: from `study_reach.differences`.
    """
    whole = table[(table["budget"] == study_reach.BUDGETS[-1]) & table["method"].isin(MRT)]
    return [
        row("less regret than outcome RL against what votes could reach (share; "
            f"{study_reach.BUDGETS[-1]} episodes; {PRIMARY_PART} runs, {found['seeds']} seeds, "
            f"{found['method']})", "yes (appendix E)", minus(found), 0.0, STUDY)
        for found in whole.to_dict("records")
    ]  # fmt: skip


def minus(found: dict[str, float]) -> tuple[float, float, float]:
    """Return an interval of the opposite: measured, low, high."""
    return -found["estimate"], -found["high"], -found["low"]


def gains(
    models: Models, method: str, c0: int, among: str = "all"
) -> tuple[float, float, float]:  # fmt: skip
    """Return the ratio of a method's gain over the base to that of outcome RL, with its interval.

    Gains are in natural accuracy at C0. The base has no seeds: it stands against each of them.
    Where outcome RL's own gain may be none, there is no ratio: all three are nan.

    Args:
        among: the level of the problems, or "all".
    """
    place, seeds = ("natural_accuracy", c0), paired_seeds(models, method, "outcome")
    index = problems_of(models["base", 0][place], among)
    ours, other, base = (
        by_seed_and_problem([models[m, s][place] for s in own], index, among)
        for m, own in ((method, seeds), ("outcome", seeds), ("base", [0]))
    )
    found = fieller(ours - base, other - base, level_of_each(index))
    return found.estimate, found.low, found.high


def times_the_base(models: Models, method: str, measure: str, c0: int) -> Interval:
    """Return a method's mean at C0 over the base's, paired over problems, with its interval.

    Of the seeds that it shares with outcome RL. The base has none: it stands against each of them.
    """
    place, base = (measure, c0), models["base", 0][measure, c0]
    own = [models[method, seed][place] for seed in paired_seeds(models, method, "outcome")]
    ours, theirs = (by_seed_and_problem(series, base, "all")
                    for series in (own, [base] * len(own)))  # fmt: skip
    return ratio(ours, theirs, level_of_each(base))


def above_base(models: Models, c0: int) -> tuple[float, float, float]:
    """Return by how much the regret of outcome RL at C0 is larger than the base's."""
    seeds = sorted(seed for method, seed in models if method == "outcome")
    start = {("outcome", seed): models["base", 0] for seed in seeds}
    found = difference(
        start | {("trained", seed): models["outcome", seed] for seed in seeds},
        "trained", "regret", c0,
    )  # fmt: skip
    return found["estimate"], found["low"], found["high"]


def _table(profile: str, name: str) -> pd.DataFrame:
    """Return a committed table of another profile's run."""
    own = load_profile(profile).runs / name
    return read_csv(own if own.is_file() else ROOT / "data" / "runs" / profile / name)


def of_tiny() -> list[dict]:
    """Return the claims that the base's episodes speak of, and one of a control."""
    waste = _table("tiny", "tables/waste.csv").set_index("name")
    share = waste.reindex([AFTER_RIGHT]).loc[AFTER_RIGHT, ["estimate", "low", "high"]]
    votes = _table("tiny", "tables/votes.csv")
    long = votes[(votes["place"] == "half-way") & (votes["votes"] == votes["votes"].max())
                 & (votes["bucket"] != "all")].iloc[-1]  # fmt: skip
    checks = _table("tiny", "claims/02_information_gain_reward.csv").set_index("claim")["value"]
    gap = checks["largest gap of shaped_constant to GRPO"]
    return [
        row("base models do not minimise regret (share of tokens behind the last progress, traces "
            "that end right)", "yes (figure 3)", share, 0.1, TINY),
        row(f"a vote of {long['votes']} half-way beats thinking on (the traces with most "
            "episodes, accuracy)", "yes (figure 3)", long[["estimate", "low", "high"]], 0.0, TINY),
        row("a constant bonus for right answers leaves GRPO as it is (how far the largest "
            "difference of advantages stays below 0.001)", "a control of ours", [1e-3 - gap] * 3,
            0.0, TINY),
    ]  # fmt: skip


def of_backtracking() -> list[dict]:
    """Return the claims that the runs of backtracking search speak of."""
    progress = _table("backtrack", "progress_differences.csv")
    progress = progress[progress["part"] == "error line and new attempt"].set_index("method")
    votes = _table("backtrack", "vote_efficiency.csv").set_index(["counted", "ours", "other"])
    numbers, times = ["estimate", "low", "high"], ["times_fewer", "low", "high"]
    names = {"mixed_group": "MRT (RL) over outcome RL", "mrt_star_cut": "MRT (STaR) over STaR"}
    rows = [
        row(f"more progress in a backtrack: {names[method]}", "yes (figure 16)",
            progress.loc[method, numbers], 0.0, TINY)
        for method in names
    ]  # fmt: skip
    stream = "mrt_star_cut linearised", "mrt_star_cut parallel"
    shares = {
        "MRT (RL) against outcome RL":
            ("generated", "mixed_group parallel", "outcome parallel", 1.6),
        "MRT (STaR) against STaR": ("generated", "mrt_star_cut parallel", "star parallel", 1.7),
        "MRT (STaR), one stream against many samples": ("generated", *stream, 1.0),
        "the same, with all tokens through the model": ("through the model", *stream, 1.0),
    }  # fmt: skip
    return rows + [
        row(f"backtracking: fewer tokens at the best vote accuracy ({name})",
            f"{bound:g} (figure 8)", votes.loc[tuple(place), times], bound, TINY)
        for name, (*place, bound) in shares.items()
    ]  # fmt: skip


def of_rest(found: Sequence[Found], c0: int) -> list[dict]:
    """Return the claims about the other methods, from the part that they are in, or that none is.

    A number is on the side of the claim where it is larger: accuracy lost, regret removed.
    """
    rows = []
    for about in REST:
        ours, other, claim = about.method, about.other, about.claim
        part = next((f for f in found if len(paired_seeds(f.models, ours, other)) >= FEWEST), None)
        if part is None:
            rows.append(not_run(claim, about.paper))
            continue
        less = difference(part.models, ours, about.measure, c0, other=other)
        where = f"{part.part} runs, {less['seeds']} seeds"
        rows.append(row(f"{claim} ({where})", about.paper, minus(less), 0.0, STUDY))
    return rows


def without_short(table: pd.DataFrame) -> pd.DataFrame:
    """Return the claims without those on *short* runs, which say the same of less training."""
    return table[~table["claim"].str.contains("short runs", regex=False)]


def markdown(table: pd.DataFrame) -> str:
    """Return the claims as a Markdown table: what was measured with its interval, the verdict."""
    lines = ["| claim | the paper | measured | claimed: more than | verdict |",
             "|:--|:--|--:|--:|:--|"]  # fmt: skip
    for row in table.itertuples():
        numbers = f"{row.measured:z.3f} [{row.low:z.3f}, {row.high:z.3f}]"
        bound = "" if np.isnan(row.bound) else f"{row.bound:g}"
        shown = "" if np.isnan(row.measured) else numbers
        lines.append(f"| {row.claim} | {row.paper} | {shown} | {bound} | {row.verdict} |")
    return "\n".join(lines) + "\n"
