"""What the logs of the study's runs say: how far it is, how each method learns, how each run ended.

All of it is about the validation problems, which are the same for every run. What holds on the test
problems is in `study_results`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib.config import ROOT, Profile
from mrtlib.experiments.study import MAIN, compared, rates_tried, searched, trainings
from mrtlib.shards import Shards
from mrtlib.stats import cut, over_seeds
from mrtlib.training.schedule import THROUGH

QUANTITIES = {
    "validation": "natural accuracy", "validation_forced": "forced accuracy",
    "validation_regret": "normalised regret",
}  # fmt: skip
FLAT = 0.01  # a curve is flat that moves by less over the last quarter of the tokens


def home(profile: Profile) -> Path:
    """Return the folder of a study's records: the runs folder, or where it has none the committed.

    A study is read where it cannot be made anew in an hour, so a runs folder elsewhere need not
    hold one.
    """
    own = profile.runs
    return own if (own / "steps").is_dir() else ROOT / "data" / "runs" / profile.name


def measures(profile: Profile) -> Shards:
    """Return the measures of a study's runs that are on record."""
    return Shards(home(profile) / "measures", "measures")


def on_record(profile: Profile) -> pd.DataFrame:
    """Return the parts of the comparison, and how many of their runs are on record.

    Columns: part, tokens (through the model, millions, in a run), methods, seeds, planned, done.
    """
    rows = []
    for part in compared(profile):
        runs = trainings(profile, [part])
        rows.append({
            "part": part.name, "tokens": part.settings(profile).training.tokens / 1e6,
            "methods": len(part.methods), "seeds": len(part.seeds), "planned": len(runs),
            "done": sum(log_shards(profile).has(run.key) for run in runs),
        })  # fmt: skip
    return pd.DataFrame(rows)


def log_shards(profile: Profile) -> Shards:
    """Return the logs of a study's runs that are on record."""
    return Shards(home(profile) / "steps", "steps")


def logs(profile: Profile) -> pd.DataFrame:
    """Return the steps of all runs of the comparison that are on record, shorter runs first.

    Columns: part, those of the `steps` schema, through (tokens through the model so far, millions).
    """
    parts = []
    for run in sorted(trainings(profile, compared(profile)), key=lambda run: run.size):
        if log_shards(profile).has(run.key):
            steps = log_shards(profile).read([run.key]).sort_values("step")
            through = steps[list(THROUGH)].sum(axis=1).cumsum() / 1e6
            parts.append(steps.assign(part=run.part.name, through=through))
    if not parts:
        return pd.DataFrame(columns=["part", "method", "seed", "step", "through", *QUANTITIES])
    return pd.concat(parts, ignore_index=True)


def validated(steps: pd.DataFrame) -> pd.DataFrame:
    """Return validation while each method trains: what `plotting.study_curves` draws.

    Validation comes every so many steps, and after the last one. A point is a mean over the runs of
    a method; steps that only some of its runs reached are left out, but for the last one of each.

    Args:
        steps: from `logs`.

    Returns:
        part, method, through (millions), quantity, estimate, low, high (t intervals over three
        seeds or more), seeds.
    """
    known = steps.dropna(subset="validation")
    runs = known.groupby(["part", "method", "seed"])["step"]
    known = known.assign(point=known["step"].where(known["step"] != runs.transform("max"), np.inf))
    count = known.groupby(["part", "method"])["seed"].transform("nunique")
    rows = []
    for (part, method, point), at in known.groupby(["part", "method", "point"], sort=False):
        if len(at) == count[at.index[0]]:
            rows += [
                {"part": part, "method": method, "through": at["through"].mean(), "quantity": name,
                 **_over(at[column]), "seeds": len(at), "point": point}
                for column, name in QUANTITIES.items()
            ]  # fmt: skip
    columns = ["part", "method", "through", "quantity", "estimate", "low", "high", "seeds", "point"]
    return pd.DataFrame(rows, columns=columns).drop(columns="point")


def lengths(steps: pd.DataFrame, points: int = 16) -> pd.DataFrame:
    """Return thinking tokens while each method trains: what `plotting.study_lengths` draws.

    A point is the mean over the rollouts of the steps in an equal share of a run's tokens.

    Args:
        steps: from `logs`.
        points: of a curve.

    Returns:
        part, method, through (millions), estimate, low, high (t intervals over three seeds or
        more), seeds.

    Source: arXiv 2503.07572, figure 10.
    """
    rows = []
    for (part, method), runs in steps.groupby(["part", "method"], sort=False):
        share = runs["through"] / runs.groupby("seed")["through"].transform("max")
        point = np.ceil(share * points).clip(1, points)
        means = runs.groupby([point.rename("point"), "seed"])[["through", "length"]].mean()
        for _, at in means.groupby("point"):
            rows.append({"part": part, "method": method, "through": at["through"].mean(),
                         **_over(at["length"], np.inf), "seeds": len(at)})  # fmt: skip
    columns = ["part", "method", "through", "estimate", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _over(values: pd.Series, most: float = 1.0) -> dict[str, float]:
    """Return the mean over seeds and its interval; none of two seeds, which would not cover.

    Args:
        most: the largest value that there can be; the least is 0.
    """
    found = cut(over_seeds(values), 0.0, most).row()
    return found if len(values) > 2 else found | {"low": np.nan, "high": np.nan}


def ends(steps: pd.DataFrame) -> pd.DataFrame:
    """Return what each run of a study ended with: part, method, seed, steps and validation."""
    known = steps.dropna(subset="validation").sort_values("step", kind="stable")
    last = known.groupby(["part", "method", "seed"], sort=False).tail(1)
    return last[["part", "method", "seed", "step", "through", *QUANTITIES]].reset_index(drop=True)


def gaps(steps: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return how each main method ended against `outcome`, on the validation problems.

    Seeds are paired; only those that both methods have count. The intervals are over seeds alone:
    they are about these problems, and say nothing of others.

    Returns:
        part, method, quantity, estimate (method less outcome), low, high, seeds.
    """
    last, rows = ends(steps), []
    for part, runs in last[last["method"].isin(MAIN)].groupby("part", sort=False):
        for column, name in QUANTITIES.items():
            wide = runs.pivot(index="seed", columns="method", values=column)
            for method in [m for m in MAIN[1:] if m in wide and MAIN[0] in wide]:
                gap = (wide[method] - wide[MAIN[0]]).dropna()
                if len(gap):
                    rows.append({"part": part, "method": method, "quantity": name,
                                 **over_seeds(gap, level).row(), "seeds": len(gap)})  # fmt: skip
    return pd.DataFrame(rows, columns=["part", "method", "quantity", "estimate", "low", "high",
                                       "seeds"])  # fmt: skip


def last_quarter(steps: pd.DataFrame, part: str, method: str = MAIN[0]) -> float:
    """Return how far a method's mean accuracy moved over the last quarter of the tokens.

    Its validation points are joined by straight lines; natural accuracy. NaN without runs.
    """
    curve = validated(steps) if len(steps) else pd.DataFrame(columns=["part", "method", "quantity"])
    mine = curve[(curve["part"] == part) & (curve["method"] == method)
                 & (curve["quantity"] == QUANTITIES["validation"])]  # fmt: skip
    if mine.empty:
        return float("nan")
    mine = mine.sort_values("through")
    end = mine["through"].iloc[-1]
    before = np.interp(0.75 * end, mine["through"], mine["estimate"])
    return float(mine["estimate"].iloc[-1] - before)


def flat_in_words(steps: pd.DataFrame, part: str = "long") -> str:
    """Return whether the curve of outcome RL is flat at the end, by the rule of the protocol."""
    moved = last_quarter(steps, part)
    if np.isnan(moved):
        return f"- No *{part}* run of outcome RL is on record."
    flat = "flat" if abs(moved) < FLAT else "not flat"
    return (f"- Over the last quarter of the *{part}* runs the mean validation accuracy of outcome "
            f"RL moved by {100 * moved:+.1f} points: it is {flat}.")  # fmt: skip


def in_words(record: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """Return how far the study is, and how the main methods ended so far: a list in Markdown.

    Parts with fewer than three seeds are not compared: an interval of two does not cover.

    Args:
        record, gaps: from `on_record` and `gaps`.
    """
    said = [f"{row.done} of {row.planned} *{row.part}* runs are on record"
            for row in record.itertuples()]  # fmt: skip
    parts = ["- " + ", ".join(said) + "."]
    mine = gaps[(gaps["quantity"] != QUANTITIES["validation_forced"]) & (gaps["seeds"] >= 3)]
    for part, rows in mine.groupby("part", sort=False):
        told = [f"`{row.method}` {row.quantity} {100 * row.estimate:+z.1f} points "
                f"[{100 * row.low:z.1f}, {100 * row.high:z.1f}], {row.seeds} seeds"
                + ("" if row.low > 0 or row.high < 0 else ", not decided")
                for row in rows.itertuples()]  # fmt: skip
        parts.append(f"- *{part}* runs against outcome RL, validation (95 % intervals): "
                     + "; ".join(told) + ".")  # fmt: skip
    return "\n".join(parts)


def rates(profile: Profile) -> pd.DataFrame:
    """Return the search for peak rates as far as it is on record: `study.rates_tried`."""
    return rates_tried(trainings(profile, searched()), log_shards(profile))


def rates_in_words(table: pd.DataFrame) -> str:
    """Return for which methods the rule took another rate than that of the least regret: Markdown.

    Args:
        table: from `rates`.
    """
    if table.empty:
        return "No run of the search is on record."
    least = table.loc[table.groupby("method")["regret"].idxmin()].set_index("method")
    bound = [f"`{method}`" for method in least.index[~least["chosen"].astype(bool)]]
    others = f": {', '.join(bound)}" if bound else ""
    return (f"{len(table)} runs of {len(least)} methods are on record. For {len(bound)} of these "
            f"the rule does not take the rate with the least regret{others}.")  # fmt: skip
