"""The estimators of J compared: their error against a gold standard, and what they teach.

On some recorded traces of the base: K answers at each boundary for several K, each drawn anew, and
256 more that stand for the truth. J comes exact from the evaluation's records. And the same
training with its reward measured by each estimator. Every run draws the same rollouts at its first
step and takes as many steps as the exact one. What a step costs in tokens differs, so learning is
compared where all have put as many through the model.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from mrtlib.config import Profile
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.experiments.answers import drawn_from, problems_by_id
from mrtlib.models.compatibility import obstacle
from mrtlib.models.loading import work_key
from mrtlib.models.packing import counted
from mrtlib.prover.prover import progress_rows
from mrtlib.rollouts import of_record
from mrtlib.stats import by_problem, cut, over_seeds, root_mean_square
from mrtlib.store import TRACE, Shards, complete, read_json, read_table, write_json

ANSWERS = (1, 2, 4, 8, 16)
GOLD = 256
METHOD = "episode_progress"
EXACT = "exact"
SAMPLED = (4,)  # answers a boundary; 4 is what the authors' online form draws
POINTS = 25  # of a learning curve
WINDOW = 5  # steps that a point is the mean of
QUANTITIES = ("reward", "regret")
COLUMNS = ("estimator", "seed", "step", "generated_tokens", "prover_tokens", *QUANTITIES)
FEWEST = 5  # seeds from which an interval over them is given
MARGIN = 0.02  # of mean reward: what is not called worse


def progress_by_estimator(
    profile: Profile, rollouts: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, dict]:
    """Measure J of recorded rollouts of the base with each number of answers; or read it.

    Args:
        rollouts: records of the base, as `answers.subset` gives them.

    Returns:
        Rows of the `progress` schema, `answers` telling the estimators apart; and the tokens that
        a trace cost each way, by number of answers, "0" being exact.
    """
    folder = profile.runs / "estimators"
    key = work_key(
        profile, "model thinking prover", answers=[*ANSWERS, GOLD], **drawn_from(rollouts, seed)
    )

    def every_way(_: int) -> dict[str, list[dict]]:
        """Measure each number of answers in turn; the tokens are written on the way."""
        evaluator = Evaluator.load(profile, "base", 0, None)
        obstacle(evaluator.prover.model)  # tried once; its tokens are no part of the cost
        rows, cost = [], {}
        for k in (0, *ANSWERS, GOLD):
            found, cost[str(k)] = _progress_rows(evaluator, rollouts, k, seed)
            rows += found
            print(f"J measured with {k or 'no'} answers a boundary", flush=True)
        write_json(folder / f"cost-{key}.json", cost)
        return {"progress": rows}

    shards = Shards(folder / "progress", "progress")
    complete({"progress": shards}, [key], every_way, "estimators")
    return shards.read([key]), read_json(folder / f"cost-{key}.json")


def _progress_rows(
    evaluator: Evaluator, rollouts: pd.DataFrame, k: int, seed: int
) -> tuple[list[dict], float]:
    """Return the rows of one estimator, and the tokens through the model for a trace."""
    prover, problems = evaluator.prover, problems_by_id(evaluator.profile)
    records = rollouts.to_dict("records")
    traces = [of_record(row, problems[row["problem"]]) for row in records]
    with counted(prover.model) as fed:
        found = prover.sampled(traces, k, 1000 * seed + k) if k else prover.exact(traces)
    rows = [
        record
        for row, trace, values in zip(records, traces, found, strict=True)
        for record in progress_rows({n: row[n] for n in TRACE}, prover.probe(trace), values)
    ]
    return rows, sum(fed) / len(traces)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return progress by the gold standard beside each estimator's: TRACE, j, answers, ...

    Columns also: gold, progress (the estimator's), doubt (the variance that the gold standard's own
    draws leave in it) and spread (the variance that K answers must show).
    """
    table = table.sort_values([*TRACE, "answers", "j"])
    part = table.assign(noise=table["J"] * (1 - table["J"]))
    part["both"] = part["noise"] + part.groupby([*TRACE, "answers"])["noise"].shift()
    part = part[part["j"] > 0]
    gold = part[part["answers"] == GOLD].rename(columns={"progress": "gold"})
    exact = part[part["answers"] == 0].rename(columns={"both": "true"})
    found = part[part["answers"] != GOLD].merge(gold[[*TRACE, "j", "gold"]], on=[*TRACE, "j"])
    found = found.merge(exact[[*TRACE, "j", "true"]], on=[*TRACE, "j"])
    return found.assign(
        doubt=found["true"] / GOLD, spread=found["true"] / found["answers"].clip(lower=1)
    )[[*TRACE, "j", "answers", "gold", "progress", "doubt", "spread"]]


def errors(table: pd.DataFrame, cost: dict[str, float]) -> pd.DataFrame:
    """Return what each estimator's progress is off by, and its price: a row an estimator.

    Columns: way, answers, tokens (through the model, of a trace), error (root mean square from the
    gold standard) with low and high over problems, floor (what the gold standard's own draws make
    of it), predicted (floor and K draws together), correlation with the gold standard.
    """
    rows = []
    for k, part in compared(table).groupby("answers"):
        off = part.assign(square=(part["progress"] - part["gold"]) ** 2)
        error, low, high = vars(root_mean_square(*by_problem(off, "square"))).values()
        # Each problem counts once, as in the error, however many boundaries its trace has.
        doubt, spread = part.groupby("problem")[["doubt", "spread"]].mean().mean()
        rows.append({
            "way": sampled_name(k) if k else EXACT, "answers": k, "tokens": cost[str(k)],
            "error": error, "low": low, "high": high, "floor": float(np.sqrt(doubt)),
            "predicted": float(np.sqrt(doubt + (spread if k else 0.0))),
            "correlation": part["progress"].corr(part["gold"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def needed(table: pd.DataFrame, cost: dict[str, float]) -> tuple[float, float]:
    """Return what sampled J takes to be as good as exact J: answers, and times exact J's tokens.

    Both are lower bounds at 97.5 %: what the gold standard cannot tell from its own noise is
    counted as an error of exact J, up to the end of its interval, and no more than the answers of
    the gold standard are ever said to be needed. Tokens are a straight line in the answers.

    Args:
        table: from `errors`.
    """
    rows = table.set_index("answers")
    one = rows.loc[1, "predicted"] ** 2 - rows.loc[1, "floor"] ** 2
    left = max(rows.loc[0, "high"] ** 2 - rows.loc[0, "floor"] ** 2, one / GOLD)
    each = (cost[str(GOLD)] - cost["1"]) / (GOLD - 1)
    return one / left, (cost["1"] + each * (one / left - 1)) / cost["0"]


def errors_in_words(table: pd.DataFrame, cost: dict[str, float]) -> str:
    """Return what the comparison says, with its numbers: Markdown."""
    rows = table.set_index("answers")
    exact, (answers, times) = rows.loc[0], needed(table, cost)
    near = min(ANSWERS, key=lambda k: abs(rows.loc[k, "tokens"] - exact["tokens"]))
    other = rows.loc[near]
    own = "an error of its own" if exact["low"] > exact["floor"] else "no error of its own"
    limit = ", the most that this gold standard could show" if answers >= GOLD - 0.5 else ""
    return (
        f"Exact progress lies {exact['error']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}] from "
        f"the gold standard of {GOLD} answers, whose noise alone makes {exact['floor']:.3f}: {own} "
        f"is seen (correlation {exact['correlation']:.3f}). Sampled progress at about its cost, "
        f"K = {near} with {other['tokens'] / exact['tokens']:.2f} times the tokens, lies "
        f"{other['error']:.2f} [{other['low']:.2f}, {other['high']:.2f}] from it (correlation "
        f"{other['correlation']:.2f}). To be as good as exact, sampling takes at least "
        f"{answers:.0f} answers a boundary, and {times:.0f} times the tokens of exact J{limit}."
    )


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
    from mrtlib.training.runs import train  # heavy, and not needed by the tables below

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
         **cut(over_seeds(part["estimate"]), 0.0, 1.0).row()}
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


def learning_in_words(tokens: pd.DataFrame, steps: pd.DataFrame, total: int) -> str:
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
        ends = f" [{row['reward_low']:+z.3f}, {row['reward_high']:+z.3f}]" if known else ""
        parts.append(f"{name} {row['reward']:.3f}, {row['reward_gap']:+z.3f}{ends}")
    return "; ".join(parts)
