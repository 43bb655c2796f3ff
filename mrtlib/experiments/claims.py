"""What the notebooks claim, as tables that say whether each claim holds; and findings in words."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrtlib.evaluation.learning import first_batch
from mrtlib.evaluation.tables import overall
from mrtlib.experiments.estimators import EXACT, MARGIN, needed
from mrtlib.experiments.information_gain import ROUNDING, Agreement


def of_evaluation(
    results: pd.DataFrame, tables: dict[tuple[str, int], dict[str, pd.DataFrame]], c0: int
) -> pd.DataFrame:
    """Return what must hold of any evaluation as (claim, value, holds); none says who wins."""
    budgets = pd.concat(t["budgets"] for t in tables.values())
    inner, beyond = (budgets[budgets["extrapolated"] == way] for way in (False, True))
    shares = results[results["metric"].isin(["accuracy", "regret", "truncated", "pass@4"])]
    slack = 1e-9  # of rounding, where all problems have one value
    inside = results["estimate"].between(results["low"] - slack, results["high"] + slack)
    own = overall(results).set_index(["method", "metric", "budget"])["estimate"].sort_index()
    methods = sorted({m for m, _ in tables})
    apart = max(_ends_apart(t) for t in tables.values())
    floor = min(own[m, "pass@4", c0] - own[m, "natural_accuracy", c0] for m in methods)
    summed = _smallest_rise(own, methods, c0)
    sets = {frozenset(t["rollouts"]["problem"]) for t in tables.values()}
    rows = [
        ("shares lie in [0, 1]", shares["estimate"].max(),
         shares["estimate"].between(-slack, 1 + slack).all()),
        ("each interval holds its estimate", inside.mean(), inside.all()),
        ("no rollout thinks past its budget", (inner["tokens"] / inner["budget"]).max(),
         (inner["tokens"] <= inner["budget"]).all()),
        ("accuracy at C0 is J at the end of the trace", apart, apart < 1e-6),
        ("pass@4 is at least the accuracy of one sample", floor, floor >= -slack),
        ("all models answered the same problems", len(sets), len(sets) == 1),
        ("regret times budget never falls up to C0", summed, summed >= -slack),
        ("forced extensions go beyond C0", beyond["budget"].min(), (beyond["budget"] > c0).all()),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "value", "holds"])


def _smallest_rise(own: pd.Series, methods: list[str], c0: int) -> float:
    """Return the least rise of regret(b) * b, the area above the curve, between budgets b."""
    rises = []
    for method in methods:
        curve = own[method, "regret"].loc[:c0]
        rises += list(np.diff(curve.to_numpy() * curve.index.to_numpy(dtype=float)))
    return float(min(rises))


def _ends_apart(tables: dict[str, pd.DataFrame]) -> float:
    """Return how far accuracy at C0 is from J at the last boundary, at most."""
    place = ["problem", "sample"]
    inside = tables["budgets"][~tables["budgets"]["extrapolated"]]
    at_end = inside.sort_values("budget").groupby(place)["accuracy"].last()
    last = tables["progress"].sort_values("j").groupby(place)["J"].last()
    gap = (at_end - last.reindex(at_end.index)).abs().max()
    return math.inf if np.isnan(gap) else float(gap)


def of_training(
    steps: pd.DataFrame, methods: tuple[str, ...], seeds: int, tokens: int
) -> pd.DataFrame:
    """Return the claims of a training comparison as (claim, value, holds); none says who wins.

    Args:
        methods, seeds, tokens: what was to be trained: methods, number of seeds, tokens of a run.
    """
    runs = steps.groupby(["method", "seed"])
    apart = first_batch(steps).groupby("seed").agg(np.ptp).to_numpy().max()
    growing = runs["generated_tokens"].agg(lambda t: bool((np.diff(t) > 0).all()))
    spent = runs["generated_tokens"].max()
    measured = steps.loc[steps["method"] != "outcome", "regret"]
    learned = steps[steps["method"] != "outcome"].groupby(["method", "seed"])["grad_norm"].max()
    rows = [
        ("every method has a run at every seed", runs.ngroups,
         runs.ngroups == len(methods) * seeds),
        ("every run has generated its tokens", spent.min(), (spent >= tokens).all()),
        ("rewards are shares", steps["reward"].max(), steps["reward"].between(0, 1).all()),
        ("at equal seed, methods start from one and the same batch", apart, apart == 0),
        ("tokens only add up", growing.mean(), growing.all()),
        ("regret is measured at each step of the MRT forms, in [0, 1]", measured.mean(),
         measured.between(0, 1).all()),
        ("every run of an MRT form has seen a gradient", learned.min(), (learned > 0).all()),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "value", "holds"])


def checked(rows: Sequence[tuple[str, float, float, float]]) -> pd.DataFrame:
    """Return claims as a table: claim, value, at_least, at_most, holds.

    Args:
        rows: (claim, value, at_least, at_most); an open side is ±inf.
    """
    table = pd.DataFrame(rows, columns=["claim", "value", "at_least", "at_most"])
    return table.assign(holds=table["value"].between(table["at_least"], table["at_most"]))


def of_reasoner(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the card claims: its thresholds, and that every share is one."""
    shares = table[table["name"] != "episodes"]
    rows = [("smallest end of an interval of a share", shares["low"].min(), -1.0, 1.0),
            ("largest end of an interval of a share", shares["high"].max(), -1.0, 1.0)]  # fmt: skip
    bound = table.dropna(subset=["at_least", "at_most"], how="all")
    rows += [
        (r.name, r.estimate, -np.inf if np.isnan(r.at_least) else r.at_least,
         np.inf if np.isnan(r.at_most) else r.at_most)
        for r in bound.itertuples(index=False)
    ]  # fmt: skip
    return checked(rows)


def of_episodes(
    name: str, found: pd.DataFrame, votes: pd.DataFrame, counts: pd.DataFrame
) -> pd.DataFrame:
    """Return what notebook 01 claims, as `checked` does; those about size are for `tiny` alone.

    Args:
        name: the profile's.
        found, votes, counts: from `waste`, `vote_table` and `episode_counts`.
    """
    value = found.set_index("name")["estimate"]
    total = counts.groupby("level")["estimate"].sum()
    rows = [
        ("shares of episode counts add up to", total.min(), 1 - 1e-9, 1 + 1e-9),
        ("lowest vote accuracy", votes["accuracy"].min(), 0.0, 1.0),
        ("highest vote accuracy", votes["accuracy"].max(), 0.0, 1.0),
    ]
    scale = [
        ("mean episodes of a trace", value["episodes"], 4.0, 8.0),
        ("J at the end less J without thinking",
         value["J at the end"] - value["J without thinking"], 0.15, 1.0),
        ("share of tokens after the stop point",
         value["share of tokens after the stop point"], 0.10, 1.0),
    ]  # fmt: skip
    return checked(rows + (scale if name == "tiny" else []))


def of_information_gain(
    name: str, gaps: pd.Series, shaped: pd.DataFrame, mass: pd.DataFrame, found: Agreement,
    more: list[tuple[str, float, float, float]],
) -> pd.DataFrame:
    """Return what notebook 02 claims, as `checked` does; those about size are for `tiny` alone.

    Args:
        more: further claims about size, as rows for `checked`.
    """
    value = mass.set_index("quantity")["value"]
    rows = [
        ("largest gap of the identity", gaps.max(), 0.0, ROUNDING),
        ("largest gap of shaped_constant to GRPO", shaped["gap"].max(), 0.0, 1e-3),
        ("largest exact J", value["largest exact J"], 0.0, 1 + 1e-5),
        ("smallest exact J", value["smallest exact J"], 0.0, 1.0),
    ]  # fmt: skip
    scale = [
        # A countdown answer is in its canonical form or wrong; other families have equivalents.
        ("right answers listed as a reference",
         value["of these, share listed as a reference"], 1.0, 1.0),
        ("correlation of exact and sampled J", found.correlation, 0.85, 1.0),
        ("bias of sampled J", found.bias.estimate, -0.03, 0.03),
        ("share of Wilson intervals that hold the exact J", found.inside.estimate, 0.90, 1.0),
        ("noise over what K draws would show", found.noise / max(found.expected_noise, 1e-12),
         0.8, 1.2),
    ]  # fmt: skip
    return checked(rows + (scale + more if name == "tiny" else []))


def of_gold(table: pd.DataFrame, cost: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """Return what notebook 02 claims of the instruments on `tiny`, as rows for `checked`."""
    rows = table.set_index("answers")
    return [
        ("exact progress off by more than the gold standard's noise, lower end",
         rows.loc[0, "low"] - rows.loc[0, "floor"], -np.inf, 0.0),
        ("correlation of exact progress with the gold standard",
         rows.loc[0, "correlation"], 0.98, 1.0),
        ("times the tokens of exact J that sampling takes for its error",
         needed(table, cost)[1], 5.0, np.inf),
    ]  # fmt: skip


def of_learning(table: pd.DataFrame) -> list[tuple[str, float, float, float]]:
    """Return the claim that exact J teaches no worse at equal tokens, where there are intervals.

    It is that no other estimator is ahead by more than `MARGIN` of mean reward for certain.
    """
    return [
        (f"lower end of the reward of {row.estimator} over exact", row.reward_low, -np.inf, MARGIN)
        for row in table[table["estimator"] != EXACT].itertuples()
        if pd.notna(row.reward_low)
    ]
