"""What the notebooks claim, as tables that say whether each claim holds.

A claim is a number and its bounds, ±inf for an open side. Where something must hold everywhere,
the number counts the exceptions. No claim says which method wins: that is reported with its
interval, whichever way it comes out. A claim is about the code, which a run must bear out, or about
the model, which may be too good or too bad for it: that is said, and stops nothing.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrtlib.config import TRAINED_METHODS, Profile, Training
from mrtlib.evaluation.learning import first_batch
from mrtlib.evaluation.tables import overall, rounded
from mrtlib.evaluation.votes import pass_at_k
from mrtlib.experiments import study_logs
from mrtlib.experiments.estimators import EXACT, MARGIN, sampling_needed
from mrtlib.experiments.information_gain import Agreement, agreement
from mrtlib.experiments.study import compared
from mrtlib.store import TRACE, write_csv
from mrtlib.training.methods import METHODS
from mrtlib.training.schedule import THROUGH

Claim = tuple[str, float, float, float]  # claim, value, at_least, at_most
SLACK = 1e-9  # of rounding
# Runs at one seed begin with the same rollouts. On another processor rounding may turn one of them
# another way; other rollouts would have several percent more tokens, or fewer.
SAME_BATCH = 0.01
CODE, MODEL = "code", "model"
FOLDER = "claims"  # in a runs folder


class ClaimError(ValueError):
    """A claim about the code that a run does not bear out."""


def checked(rows: Sequence[Claim], about: str = CODE) -> pd.DataFrame:
    """Return claims as a table: claim, value, at_least, at_most, holds, about.

    NaN does not hold.

    Args:
        about: CODE or MODEL.
    """
    table = pd.DataFrame(rows, columns=["claim", "value", "at_least", "at_most"])
    inside = table["value"].between(table["at_least"] - SLACK, table["at_most"] + SLACK)
    return table.assign(holds=inside, about=about)


def report(table: pd.DataFrame, profile: Profile, notebook: str) -> pd.DataFrame:
    """Put a notebook's claims on record, say which do not hold, and return them to be shown.

    Writes `claims/NOTEBOOK.csv` in the runs folder.

    Raises:
        ClaimError: one about the code does not hold.
    """
    table = table.reset_index(drop=True)
    write_csv(profile.runs / FOLDER / f"{notebook}.csv", table)
    for line in failing(table):
        print(line)
    broken = table[~table["holds"] & (table["about"] == CODE)]
    if len(broken):
        raise ClaimError("; ".join(failing(broken)))
    return rounded(table)


def failing(table: pd.DataFrame) -> list[str]:
    """Return the claims of a table that do not hold, in words."""
    return [
        f"claim about the {row.about}: {row.claim} is {row.value:.4g}, not in "
        f"[{row.at_least:g}, {row.at_most:g}]"
        for row in table[~table["holds"]].itertuples()
    ]


def of_reasoner(table: pd.DataFrame) -> pd.DataFrame:
    """Return what notebook 00 claims: the card's thresholds, and that intervals stay in [-1, 1].

    Args:
        table: from `reasoner_card.card`.
    """
    ends = table.loc[table["name"] != "episodes", ["low", "high"]]
    bound = table.dropna(subset=["at_least", "at_most"], how="all")
    bound = bound.fillna({"at_least": -np.inf, "at_most": np.inf})
    limits = bound[["name", "estimate", "at_least", "at_most"]].itertuples(index=False, name=None)
    shares = checked([
        ("smallest end of an interval of a share", ends["low"].min(), -1.0, 1.0),
        ("largest end of an interval of a share", ends["high"].max(), -1.0, 1.0),
    ])  # fmt: skip
    return pd.concat([shares, checked(list(limits), MODEL)])


def of_episodes(
    name: str, found: pd.DataFrame, counts: pd.DataFrame, of_votes: list[Claim]
) -> pd.DataFrame:
    """Return what notebook 01 claims; claims about size are for `tiny` alone.

    Args:
        name: the profile's.
        found, counts: from `waste` and `count_episodes`.
        of_votes: further claims.
    """
    value = found.set_index("name")["estimate"]
    total = counts.groupby("level")["estimate"].sum()
    rows = [("smallest sum of the shares of episode counts", total.min(), 1.0, 1.0)]
    of_size = [
        ("mean episodes of a trace", value["episodes"], 4.0, 8.0),
        ("J at the end less J without thinking",
         value["J at the end"] - value["J without thinking"], 0.15, 1.0),
        ("share of tokens after the stop point",
         value["share of tokens after the stop point"], 0.10, 1.0),
    ]  # fmt: skip
    return checked(rows + of_votes + (of_size if name == "tiny" else []))


def of_votes(
    name: str, answers: pd.DataFrame, votes: pd.DataFrame, pairs: pd.DataFrame,
    found: pd.DataFrame, race: pd.DataFrame,
) -> list[Claim]:  # fmt: skip
    """Return what notebook 01 claims of votes; no side wins by claim, and the test is sharp.

    Args:
        name: the profile's.
        answers, pairs: of the `answers` schema, and `information_gain.paired` of them.
        votes, found, race: from `vote_table`, `contests` and `vote_or_think`.
    """
    spot = [*TRACE, "j"]
    one = votes[votes["votes"] == 1].set_index(spot)["accuracy"]
    gap = (one - answers.groupby(spot)["correct"].mean().reindex(one.index)).abs()
    first = answers[answers["j"] == 0].groupby(TRACE)["correct"].agg(["size", "sum"])
    ahead = 0
    for p, rows in votes[votes["j"] == 0].groupby("votes"):
        best = pd.Series(pass_at_k(first["size"], first["sum"], p), first.index)
        ahead += int((rows.set_index(TRACE)["accuracy"] > best.reindex(
            pd.MultiIndex.from_frame(rows[TRACE])) + SLACK).sum())  # fmt: skip
    rows = [
        ("largest gap of maj@1 to the share of right", gap.max(), 0.0, 0.0),
        ("votes without thinking that beat pass@k", ahead, 0, 0),
    ]
    half = found[found["place"] == "half-way"]
    of_size = [
        ("test problems with answers put to a vote", votes["problem"].nunique(), 500, 500),
        ("share of right answers less exact J", agreement(pairs).bias.estimate, -0.01, 0.01),
        ("widest half of an interval half-way", (half["high"] - half["low"]).max() / 2, 0.0, 0.1),
        ("share of boundaries that are decided",
         ((race["low"] > 0) | (race["high"] < 0)).mean(), 0.5, 1.0),
    ]  # fmt: skip
    return rows + (of_size if name == "tiny" else [])


def of_information_gain(
    name: str, gaps: pd.Series, shaped: pd.DataFrame, mass: pd.DataFrame, found: Agreement,
    more: list[Claim],
) -> pd.DataFrame:  # fmt: skip
    """Return what notebook 02 claims; claims about size are for `tiny` alone.

    Args:
        name: the profile's.
        gaps, shaped, mass, found: from `identity_gaps`, `shaped_gaps`, `probability_mass` and
            `agreement`.
        more: further claims about size.
    """
    value = mass.set_index("quantity")["value"]
    rows = [
        ("largest gap of the identity", gaps.max(), 0.0, 0.0),
        ("largest gap of shaped_constant to GRPO", shaped["gap"].max(), 0.0, 1e-3),
        ("largest exact J", value["largest exact J"], 0.0, 1 + 1e-5),
        ("smallest exact J", value["smallest exact J"], 0.0, 1.0),
    ]
    of_size = [
        # A countdown answer is in its canonical form or wrong; other families have equivalents.
        ("right answers listed as a reference",
         value["of these, share listed as a reference"], 1.0, 1.0),
        ("correlation of exact and sampled J", found.correlation, 0.85, 1.0),
        ("bias of sampled J", found.bias.estimate, -0.03, 0.03),
        ("share of Wilson intervals that cover the exact J", found.inside.estimate, 0.90, 1.0),
        ("noise over the noise to be expected of K draws",
         found.noise / max(found.expected_noise, 1e-12), 0.8, 1.2),
    ]  # fmt: skip
    return checked(rows + (of_size + more if name == "tiny" else []))


def of_gold(table: pd.DataFrame, cost: dict[str, float]) -> list[Claim]:
    """Return what notebook 02 claims of the estimators' errors."""
    exact = table.set_index("answers").loc[0]
    return [
        ("exact progress: low end of error less gold noise",
         exact["low"] - exact["floor"], -np.inf, 0.0),
        ("correlation of exact and gold standard progress", exact["correlation"], 0.98, 1.0),
        ("tokens that sampling needs over those of exact J",
         sampling_needed(table, cost)[1], 5.0, np.inf),
    ]  # fmt: skip


def of_learning(table: pd.DataFrame) -> list[Claim]:
    """Return the claims that training with exact J is no worse at equal tokens.

    One for each other estimator with an interval: it is not ahead by more than `MARGIN` of mean
    reward for certain.
    """
    return [
        (f"reward of {row.estimator} less exact, lower end", row.reward_low, -np.inf, MARGIN)
        for row in table[table["estimator"] != EXACT].dropna(subset="reward_low").itertuples()
    ]


def of_training(
    steps: pd.DataFrame, methods: tuple[str, ...], seeds: int, tokens: int
) -> pd.DataFrame:
    """Return what notebook 03 claims of a comparison.

    Args:
        methods, seeds, tokens: what was to be trained: methods, number of seeds, tokens of a run.
    """
    runs, with_credit = steps.groupby(["method", "seed"]), steps[steps["method"] != "outcome"]
    falling = runs["generated_tokens"].agg(lambda t: (np.diff(t) <= 0).any())
    gradients = with_credit.groupby(["method", "seed"])["grad_norm"].max()
    gap = first_batch(steps).groupby("seed").agg(np.ptp).to_numpy().max()
    count = len(methods) * seeds
    of_model = checked([
        ("fewest tokens of a run", runs["generated_tokens"].max().min(), tokens, np.inf),
        ("runs without a right rollout", runs["reward"].max().eq(0).sum(), 0, 0),
        ("runs of the MRT forms without a gradient", (~(gradients > 0)).sum(), 0, 0),
    ], MODEL)  # fmt: skip
    return pd.concat([of_model, checked([
        ("runs, one of each method at each seed", runs.ngroups, count, count),
        ("steps whose reward is no share", (~steps["reward"].between(0, 1)).sum(), 0, 0),
        ("largest difference of first batches at a seed", gap, 0, 0),
        ("runs whose tokens do not add up", falling.sum(), 0, 0),
        ("steps of the MRT forms without a regret in [0, 1]",
         (~with_credit["regret"].between(0, 1)).sum(), 0, 0),
    ])])  # fmt: skip


def of_forms(steps: pd.DataFrame, training: Training) -> pd.DataFrame:
    """Return what notebook 03 claims of the runs of every form, one each.

    Args:
        steps: from `forms.study`.
    """
    runs = steps.groupby("method")
    spent = runs["generated_tokens"].max() >= training.tokens
    done = spent | (runs.size() >= training.most_steps)
    through = runs[list(THROUGH)].sum().sum(axis=1) / runs["generated_tokens"].max()
    shares = steps[["validation", "validation_regret"]].stack().dropna()
    return checked([
        ("forms that were trained", runs.ngroups, len(TRAINED_METHODS), len(TRAINED_METHODS)),
        ("forms that did not spend their tokens or steps", (~done).sum(), 0, 0),
        ("forms without a validation", runs["validation"].count().eq(0).sum(), 0, 0),
        ("validations that are no share", (~shares.between(0, 1)).sum(), 0, 0),
        ("fewest tokens through the model for one generated", through.min(), 1, np.inf),
    ])  # fmt: skip


def of_evaluation(
    results: pd.DataFrame, tables: dict[tuple[str, int], dict[str, pd.DataFrame]], c0: int
) -> pd.DataFrame:
    """Return what notebook 04 claims: what must hold of any evaluation."""
    budgets = pd.concat(t["budgets"] for t in tables.values())
    inner, beyond = (budgets[budgets["extrapolated"] == way] for way in (False, True))
    shares = results[results["metric"].isin(["accuracy", "regret", "truncated", "pass@4"])]
    covered = results["estimate"].between(results["low"] - SLACK, results["high"] + SLACK)
    own = overall(results).set_index(["method", "metric", "budget"])["estimate"].sort_index()
    methods = sorted({m for m, _ in tables})
    ahead = min(own[m, "pass@4", c0] - own[m, "natural_accuracy", c0] for m in methods)
    areas = [own[m, "regret"].loc[:c0] for m in methods]  # regret(b) * b, above the curve
    rise = min(np.diff(a.to_numpy() * a.index.to_numpy(float), prepend=0.0).min() for a in areas)
    sets = {frozenset(t["rollouts"]["problem"]) for t in tables.values()}
    return checked([
        ("smallest share", shares["estimate"].min(), 0, 1),
        ("largest share", shares["estimate"].max(), 0, 1),
        ("intervals without their estimate", (~covered).sum(), 0, 0),
        ("rollouts that think past their budget", (inner["tokens"] > inner["budget"]).sum(), 0, 0),
        ("largest gap of accuracy at C0 to the last J",
         np.max([_end_gap(t) for t in tables.values()]), 0, 1e-6),
        ("smallest pass@4 less the accuracy of one sample", ahead, 0, 1),
        ("sets of problems that were answered", len(sets), 1, 1),
        ("smallest rise of regret times budget up to C0", rise, 0, np.inf),
        ("forced extensions that stay within C0", (beyond["budget"] <= c0).sum(), 0, 0),
    ])  # fmt: skip


def _end_gap(tables: dict[str, pd.DataFrame]) -> float:
    """Return the largest gap of accuracy at C0 to J at the last boundary; NaN if one is missing."""
    place = ["problem", "sample"]
    inside = tables["budgets"][~tables["budgets"]["extrapolated"]]
    at_end = inside.sort_values("budget").groupby(place)["accuracy"].last()
    last = tables["progress"].sort_values("j").groupby(place)["J"].last()
    return float((at_end - last.reindex(at_end.index)).abs().max(skipna=False))


def of_study(steps: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Return what notebook 06 claims of the logs of its runs: what must hold of any study.

    Args:
        steps: from `study_logs.logs`.
        profile: the study's.
    """
    runs = steps.groupby(["part", "method", "seed"])["through"]
    parts = {part.name: part.settings(profile).training.tokens for part in compared(profile)}
    ends, last = runs.max() * 1e6, runs.nlargest(2).groupby(level=[0, 1, 2]).min() * 1e6
    tokens = ends.index.get_level_values("part").map(parts).to_numpy()
    shares = steps[list(study_logs.QUANTITIES)].stack().dropna()
    free = [name for name, form in METHODS.items()  # they begin with the same rollouts
            if not form.from_prefixes and form.wider == 1 and not form.budgets]  # fmt: skip
    batches = first_batch(steps[steps["method"].isin(free)])
    written = batches["generated_tokens"].groupby("seed")
    gap = (written.max() / written.min() - 1).max()
    return checked([
        ("runs that ended before their tokens were spent", (ends < tokens).sum(), 0, 0),
        ("runs that took a step more", (last.to_numpy() >= tokens).sum(), 0, 0),
        ("runs of methods that are not the study's",
         (~steps["method"].isin(TRAINED_METHODS)).sum(), 0, 0),
        ("runs whose last step was not validated",
         steps.loc[runs.idxmax(), "validation"].isna().sum(), 0, 0),
        ("validations that are no share", (~shares.between(0, 1)).sum(), 0, 0),
        ("largest gap of first batches, share of tokens", gap, 0, SAME_BATCH),
    ])  # fmt: skip


def of_backtracking(
    tables: dict[str, pd.DataFrame], found: pd.DataFrame, shares: pd.DataFrame,
    attempts: pd.DataFrame, points: pd.DataFrame, losses: pd.DataFrame, window: int, context: int,
) -> pd.DataFrame:  # fmt: skip
    """Return what notebook 05 claims: what must hold of any search, at any scale.

    Args:
        tables: `rollouts` and `progress` of all models.
        found, shares, points: from `backtracks`, `progress_shares` and `vote_points`.
        attempts, losses: records of the streams, and of the warm start.
        window, context: tokens that a stream sees, and that the model can see.
    """
    models = tables["rollouts"].groupby("method")["problem"].agg(frozenset)
    bars = shares.groupby(["method", "part"])["share"].sum()
    last = attempts.groupby(["method", "seed", "way", "problem"])["tokens"].max()
    streams, votes = last.xs("linearised", level="way"), points[points["way"] == "parallel"]
    sizes = attempts[attempts["way"] == "parallel"].groupby(["method", "seed", "problem"]).size()
    looks = losses.groupby(["kind", "seed"]).size()
    return checked([
        ("sets of problems that were answered", models.nunique(), 1, 1),
        ("largest gap of progress to what it adds up to", _telescope_gap(tables), 0, 1e-6),
        ("largest progress of a backtrack", found["progress"].abs().max(), 0, 1 + 1e-6),
        ("smallest sum of the shares of a histogram", bars.min(), 1, 1),
        ("largest sum of the shares of a histogram", bars.max(), 1, 1),
        ("fewest tokens of a stream", streams.min(), context + 1, np.inf),
        ("most tokens that a stream saw at once",
         attempts.loc[attempts["way"] == "linearised", "read"].max(), 1, min(window, context)),
        ("largest gap of a stream's tokens to its samples'",
         points.groupby(["method", "seed", "problem", "k"])["tokens"].agg(np.ptp).max(), 0, 1e-6),
        ("streams shorter than their problem's samples",
         (streams < last.xs("parallel", level="way")).sum(), 0, 0),
        ("fewest samples of a problem", sizes.min(), votes["k"].max(), votes["k"].max()),
        ("lowest vote accuracy", points["accuracy"].min(), 0, 1),
        ("highest vote accuracy", points["accuracy"].max(), 0, 1),
        ("numbers of looks at the loss of the warm starts", looks.nunique(), 1, 1),
        ("smallest held-out loss", losses["loss"].min(), 0, np.inf),
    ])  # fmt: skip


def _telescope_gap(tables: dict[str, pd.DataFrame]) -> float:
    """Return the largest gap of a trace's summed progress to J at its end less J without it."""
    traces = tables["progress"].sort_values("j", kind="stable").groupby(TRACE)
    ends = traces["J"].agg(["first", "last"])
    return float((traces["progress"].sum() - (ends["last"] - ends["first"])).abs().max())
