"""The same training with its reward measured by each estimator: exact, and from K answers.

Every run draws the same rollouts at its first step and takes as many steps as the exact one. What a
step costs in tokens differs, so learning is compared where all have put as many through the model.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from mrtlib.config import Profile
from mrtlib.findings import row_of
from mrtlib.stats import cut, over_seeds
from mrtlib.store import read_table

METHOD = "episode_progress"
EXACT = "exact"
SAMPLED = (4,)  # answers a boundary; 4 is what the authors' online form draws
POINTS = 25  # of a learning curve
WINDOW = 5  # steps that a point is the mean of
QUANTITIES = ("reward", "regret")
COLUMNS = ("estimator", "seed", "step", "generated_tokens", "prover_tokens", *QUANTITIES)
FEWEST = 5  # seeds from which an interval over them is given
MARGIN = 0.02  # of mean reward: what is not called worse


def sampled_name(answers: int) -> str:
    """Return the estimator's name in tables and figures."""
    return f"sampled, K = {answers}"


def exact_variant(profile: Profile) -> Profile:
    """Return the profile with the exact reward: itself, or one with a folder of its own."""
    if profile.prover.estimator == EXACT:
        return profile
    name, prover = f"{profile.name}/estimators/exact", replace(profile.prover, estimator=EXACT)
    return replace(profile, name=name, prover=prover)


def variant(profile: Profile, answers: int, steps: int) -> Profile:
    """Return the profile with the reward from `answers` answers a boundary, in its own folder."""
    prover = replace(profile.prover, estimator="sampled", samples=answers)
    training = replace(profile.training, tokens=10**9, most_steps=steps)
    name = f"{profile.name}/estimators/sampled-{answers}"
    return replace(profile, name=name, prover=prover, training=training)


def runs(profile: Profile, seeds: range) -> pd.DataFrame:
    """Train every estimator at every seed, or read it; return the steps with what they cost.

    Returns:
        A row a step: estimator, seed, step, generated_tokens, prover_tokens, reward, regret, and
        total: tokens through the model so far, in rollouts, answers, and what the prover read.
    """
    from mrtlib.trainer import train  # heavy, and not needed by the tables below

    parts = []
    for seed in seeds:
        exact = read_table(train(exact_variant(profile), METHOD, seed) / "steps.parquet", "steps")
        parts.append(exact.assign(estimator=EXACT))
        for answers in SAMPLED:
            folder = train(variant(profile, answers, len(exact)), METHOD, seed)
            steps = read_table(folder / "steps.parquet", "steps")
            parts.append(steps.assign(estimator=sampled_name(answers)))
    return with_totals(pd.concat(parts, ignore_index=True)[list(COLUMNS)])


def with_totals(steps: pd.DataFrame) -> pd.DataFrame:
    """Add the column total to steps that have estimator, seed, step and the tokens of a step."""
    steps = steps.sort_values(["estimator", "seed", "step"])
    read = steps.groupby(["estimator", "seed"])["prover_tokens"].cumsum()
    return steps.assign(total=steps["generated_tokens"] + read).sort_index()


def common_total(steps: pd.DataFrame) -> int:
    """Return the tokens that every run has put through the model."""
    return int(steps.groupby(["estimator", "seed"])["total"].max().min())


def by_tokens(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the learning of each run by tokens: estimator, seed, total, reward, regret.

    A value is the mean of the last steps up to that total, at most five, and NaN before a run's
    first step. Totals run in equal distances from where every run has a step to where the
    shortest one ends.
    """
    last = common_total(steps)
    first = int(steps.groupby(["estimator", "seed"])["total"].min().max())
    grid = np.unique(np.linspace(min(first, last), last, POINTS))
    rows = []
    for (name, seed), run in steps.sort_values("step", kind="stable").groupby(
        ["estimator", "seed"], sort=False
    ):
        smooth = run[list(QUANTITIES)].rolling(WINDOW, min_periods=1).mean().to_numpy()
        smooth = np.vstack([np.full(len(QUANTITIES), np.nan), smooth])
        at = np.searchsorted(run["total"].to_numpy(), grid, side="right")  # steps done by then
        rows += [
            {"estimator": name, "seed": seed, "total": total,
             **dict(zip(QUANTITIES, smooth[i], strict=True))}
            for total, i in zip(grid, at, strict=True)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """Return what `figures.estimator_curves` draws: means over seeds with 95 % t intervals.

    Columns: estimator, total, quantity, estimate, low, high (NaN with one seed).
    """
    long = points.melt(["estimator", "seed", "total"], QUANTITIES, "quantity", "estimate").dropna()
    return pd.DataFrame([
        {"estimator": name, "total": total, "quantity": quantity,
         **row_of(cut(over_seeds(part["estimate"]), 0.0, 1.0))}
        for (name, quantity, total), part in
        long.groupby(["estimator", "quantity", "total"], sort=False)
    ])  # fmt: skip


def at_equal_tokens(steps: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return where each estimator has come at equal tokens, and how far it is from exact there.

    Columns: estimator, step (that the total allowed it, mean over seeds), and those of `_gaps`.
    """
    last = points[points["total"] == points["total"].max()].set_index(["estimator", "seed"])
    done = steps[steps["total"] <= common_total(steps)]
    reached = done.groupby(["estimator", "seed"])["step"].max()
    return _gaps(last, reached.reindex(last.index, fill_value=0))


def at_equal_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the same where all have taken as many steps: the last, of which all seeds have one."""
    count = int(steps.groupby(["estimator", "seed"])["step"].max().min())
    runs = steps[steps["step"] <= count].groupby(["estimator", "seed"], sort=False)
    last = runs.apply(lambda run: run.sort_values("step")[list(QUANTITIES)].tail(WINDOW).mean())
    return _gaps(last, runs["step"].max())


def _gaps(last: pd.DataFrame, step: pd.Series) -> pd.DataFrame:
    """Return for each estimator, and for reward and regret, mean over seeds and gap to exact.

    The gap is the mean difference at the same seeds, low and high its 95 % t interval over
    them.
    With fewer than `FEWEST` seeds there is none to give, and both are NaN. `reward_least` is the
    reward of the worst seed: a run that fell apart shows there.
    """
    rows = []
    for name in last.index.unique("estimator"):
        row: dict[str, object] = {"estimator": name, "step": step.loc[name].mean()}
        for quantity in QUANTITIES:
            gap = (last.loc[name, quantity] - last.loc[EXACT, quantity]).to_numpy()
            ends = vars(over_seeds(gap))
            if len(gap) < FEWEST:
                ends |= {"low": np.nan, "high": np.nan}
            row |= {quantity: last.loc[name, quantity].mean(), f"{quantity}_gap": ends["estimate"],
                    f"{quantity}_low": ends["low"], f"{quantity}_high": ends["high"]}  # fmt: skip
        row["reward_least"] = last.loc[name, "reward"].min()
        rows.append(row)
    return pd.DataFrame(rows)


def words(tokens: pd.DataFrame, steps: pd.DataFrame, total: int) -> str:
    """Return who has learned what at equal tokens and at equal steps: Markdown."""
    return (
        f"Mean reward in training by the estimator of $J$, and the difference to exact: after "
        f"{total / 1e6:.2f} million tokens through the model, {_said(tokens)}; after "
        f"{steps['step'].iloc[0]:.0f} steps each, {_said(steps)}."
    )


def _said(table: pd.DataFrame) -> str:
    rows = table.set_index("estimator")
    parts = [f"exact {rows.loc[EXACT, 'reward']:.3f}"]
    for name, row in rows.drop(EXACT).iterrows():
        known = pd.notna(row["reward_low"])
        ends = f" [{row['reward_low']:+.3f}, {row['reward_high']:+.3f}]" if known else ""
        parts.append(f"{name} {row['reward']:.3f}, {row['reward_gap']:+.3f}{ends}")
    return "; ".join(parts)


def claims(table: pd.DataFrame) -> list[tuple[str, float, float, float]]:
    """Return the claim that exact J teaches no worse at equal tokens, where there are intervals.

    It is that no other estimator is ahead by more than `MARGIN` of mean reward for certain.
    """
    return [
        (f"lower end of the reward of {row.estimator} over exact", row.reward_low, -np.inf, MARGIN)
        for row in table[table["estimator"] != EXACT].itertuples()
        if pd.notna(row.reward_low)
    ]
