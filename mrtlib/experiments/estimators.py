"""The estimators of J compared: their error against a gold standard, and training with each.

The error is that of progress, on some recorded traces of the base. At each boundary J is measured
exactly, with K answers for several K, each time drawn anew, and with 256 more answers: the gold
standard. For learning, one training is repeated with its reward measured by each estimator. Every
run draws the same rollouts at its first step, and takes as many steps as the exact one. The tokens
of a step differ, so learning is compared after equal tokens through the model, and after equal
steps.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from mrtlib.config import Profile
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.experiments.answers import known_of, problems_by_id
from mrtlib.models.compatibility import obstacle
from mrtlib.models.loading import work_key
from mrtlib.models.packing import counted
from mrtlib.prover.prover import progress_rows
from mrtlib.rollouts import of_record
from mrtlib.shards import Shards, complete
from mrtlib.stats import by_problem, cut, over_seeds, root_mean_square
from mrtlib.store import TRACE, read_json, read_table, write_json

ANSWERS = (1, 2, 4, 8, 16)
GOLD = 256
METHOD = "episode_progress"
EXACT = "exact"
SAMPLED = (4,)  # answers a boundary; the authors' online form draws 4
POINTS = 25  # of a learning curve
WINDOW = 5  # steps in the mean that makes a point
QUANTITIES = ("reward", "regret")
COLUMNS = ("estimator", "seed", "step", "generated_tokens", "prover_tokens", *QUANTITIES)
FEWEST = 5  # seeds from which an interval over them is given
MARGIN = 0.02  # of mean reward: a smaller difference does not count as worse


def progress_by_estimator(
    profile: Profile, rollouts: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Measure J of recorded rollouts of the base with each number of answers, or read it.

    Args:
        rollouts: records of the base, as `answers.first_rollouts` gives them.

    Returns:
        Rows of the `progress` schema, with the estimator in `answers`; and the tokens through the
        model for a trace, by the number of answers. 0 answers are exact J.
    """
    folder = profile.runs / "estimators"
    known = known_of(profile, rollouts, seed)
    key = work_key(profile, "model thinking prover", answers=[*ANSWERS, GOLD], **known)

    def measure(_: int) -> dict[str, list[dict]]:
        """Measure each number of answers in turn, and write the tokens."""
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
    complete({"progress": shards}, [key], measure, "estimators")
    return shards.read([key]), read_json(folder / f"cost-{key}.json")


def _progress_rows(
    evaluator: Evaluator, rollouts: pd.DataFrame, k: int, seed: int
) -> tuple[list[dict], float]:
    """Return the rows of one estimator, and the tokens through the model for a trace."""
    prover, problems = evaluator.prover, problems_by_id(evaluator.profile)
    records = rollouts.to_dict("records")
    traces = [of_record(row, problems[row["problem"]]) for row in records]
    with counted(prover.model) as tokens:
        found = prover.sampled(traces, k, 1000 * seed + k) if k else prover.exact(traces)
    rows = [
        record
        for row, trace, values in zip(records, traces, found, strict=True)
        for record in progress_rows({n: row[n] for n in TRACE}, prover.probe(trace), values)
    ]
    return rows, sum(tokens) / len(traces)


def against_gold(table: pd.DataFrame) -> pd.DataFrame:
    """Return each estimator's progress beside that of the gold standard.

    Columns: TRACE, j, answers, gold, progress, and variances by exact J: gold_variance of the gold
    standard's own draws, draw_variance of K answers.
    """
    place = [*TRACE, "j"]
    table = table.sort_values([*TRACE, "answers", "j"])
    table = table.assign(one=table["J"] * (1 - table["J"]))  # of one answer at a boundary
    table["variance"] = table["one"] + table.groupby([*TRACE, "answers"])["one"].shift()
    table = table[table["j"] > 0].set_index(place)
    gold = table.loc[table["answers"] == GOLD, "progress"].rename("gold")
    exact = table.loc[table["answers"] == 0, "variance"].rename("exact")
    found = table.loc[table["answers"] != GOLD, ["answers", "progress"]].join([gold, exact])
    return found.assign(
        gold_variance=found["exact"] / GOLD,
        draw_variance=found["exact"] / found["answers"].clip(lower=1),
    ).reset_index()


def errors(table: pd.DataFrame, cost: dict[str, float]) -> pd.DataFrame:
    """Return the error of each estimator's progress, and its cost: a row for each estimator.

    Columns: way, answers, tokens (through the model, of a trace), error (root mean square distance
    from the gold standard) with low and high over problems, floor (the part of the error that the
    gold standard's own draws make), predicted (floor and K draws together), correlation with the
    gold standard.
    """
    rows = []
    for k, part in against_gold(table).groupby("answers"):
        part = part.assign(square=(part["progress"] - part["gold"]) ** 2)
        error, low, high = vars(root_mean_square(*by_problem(part, "square"))).values()
        # Each problem counts once, as in the error, however many boundaries its trace has.
        variances = part.groupby("problem")[["gold_variance", "draw_variance"]].mean()
        floor, own = variances.mean()
        rows.append({
            "way": sampled_name(k) if k else EXACT, "answers": k, "tokens": cost[str(k)],
            "error": error, "low": low, "high": high, "floor": float(np.sqrt(floor)),
            "predicted": float(np.sqrt(floor + (own if k else 0.0))),
            "correlation": part["progress"].corr(part["gold"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def sampling_needed(table: pd.DataFrame, cost: dict[str, float]) -> tuple[float, float]:
    """Return what makes sampled J as good as exact J: answers, and times exact J's tokens.

    Both are lower bounds at 97.5 %. Noise of the gold standard counts as an error of exact J, up to
    the end of the error's interval, and never are more answers needed than the gold standard has.
    Tokens are linear in the answers.

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
    exact, (answers, times) = rows.loc[0], sampling_needed(table, cost)
    near = min(ANSWERS, key=lambda k: abs(rows.loc[k, "tokens"] - exact["tokens"]))
    other = rows.loc[near]
    own = "an" if exact["low"] > exact["floor"] else "no"
    limit = ", the most that this gold standard can show" if answers >= GOLD - 0.5 else ""
    return (
        f"The error of exact progress against the gold standard of {GOLD} answers is "
        f"{exact['error']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}]. The noise of the gold "
        f"standard alone makes {exact['floor']:.3f}, so {own} error of exact progress itself is "
        f"seen (correlation {exact['correlation']:.3f}). Sampled progress at about the same cost, "
        f"K = {near} with {other['tokens'] / exact['tokens']:.2f} times the tokens, has an error "
        f"of {other['error']:.2f} [{other['low']:.2f}, {other['high']:.2f}] (correlation "
        f"{other['correlation']:.2f}). To be as good as exact, sampling needs at least "
        f"{answers:.0f} answers a boundary and {times:.0f} times the tokens of exact J{limit}."
    )


def sampled_name(answers: int) -> str:
    """Return the estimator's name in tables and figures."""
    return f"sampled, K = {answers}"


def with_exact(profile: Profile) -> Profile:
    """Return the profile with the exact reward: itself, or one with a folder of its own."""
    if profile.prover.estimator == EXACT:
        return profile
    name, prover = f"{profile.name}/estimators/exact", replace(profile.prover, estimator=EXACT)
    return replace(profile, name=name, prover=prover)


def with_sampled(profile: Profile, answers: int, steps: int) -> Profile:
    """Return the profile with the reward from `answers` answers a boundary, in its own folder."""
    prover = replace(profile.prover, estimator="sampled", samples=answers)
    training = replace(profile.training, tokens=10**9, most_steps=steps)
    name = f"{profile.name}/estimators/sampled-{answers}"
    return replace(profile, name=name, prover=prover, training=training)


def runs(profile: Profile, seeds: range) -> pd.DataFrame:
    """Train with every estimator at every seed, or read it; return the steps.

    Returns:
        A row for each step: estimator, seed, step, generated_tokens, prover_tokens, reward, regret,
        and total: the tokens through the model so far, of rollouts, answers, and what the prover
        read.
    """
    from mrtlib.training.runs import train  # heavy, and not needed by the tables below

    def steps_of(variant: Profile, seed: int, name: str) -> pd.DataFrame:
        steps = read_table(train(variant, METHOD, seed) / "steps.parquet", "steps")
        return steps.assign(estimator=name)

    parts = []
    for seed in seeds:
        parts.append(steps_of(with_exact(profile), seed, EXACT))
        steps = len(parts[-1])
        parts += [steps_of(with_sampled(profile, k, steps), seed, sampled_name(k)) for k in SAMPLED]
    return with_totals(pd.concat(parts, ignore_index=True)[list(COLUMNS)])


def with_totals(steps: pd.DataFrame) -> pd.DataFrame:
    """Add the column total to steps that have estimator, seed, step and the tokens of a step."""
    read = steps.sort_values("step").groupby(["estimator", "seed"])["prover_tokens"].cumsum()
    return steps.assign(total=steps["generated_tokens"] + read)


def common_total(steps: pd.DataFrame) -> int:
    """Return the largest total that every run has reached."""
    return int(steps.groupby(["estimator", "seed"])["total"].max().min())


def by_tokens(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the learning of each run by tokens: estimator, seed, total, reward, regret.

    A value is the mean of the last steps up to that total, at most five, and NaN before a run's
    first step. Totals are equally spaced, from where every run has a step to where the shortest
    one ends.
    """
    last = common_total(steps)
    first = int(steps.groupby(["estimator", "seed"])["total"].min().max())
    grid = np.unique(np.linspace(min(first, last), last, POINTS))
    runs = steps.sort_values("step", kind="stable").groupby(["estimator", "seed"], sort=False)
    parts = {}
    for key, run in runs:
        smooth = run.set_index("total")[list(QUANTITIES)].rolling(WINDOW, min_periods=1).mean()
        parts[key] = smooth.reindex(grid, method="ffill")
    return pd.concat(parts, names=["estimator", "seed", "total"]).reset_index()


def mean_curves(points: pd.DataFrame) -> pd.DataFrame:
    """Return what `plotting.estimator_curves` draws: means over seeds with 95 % t intervals.

    Columns: estimator, total, quantity, estimate, low, high (NaN with one seed).
    """
    long = points.melt(["estimator", "seed", "total"], QUANTITIES, "quantity", "estimate").dropna()
    return pd.DataFrame([
        {"estimator": name, "total": total, "quantity": quantity,
         **cut(over_seeds(part["estimate"]), 0.0, 1.0).row()}
        for (name, quantity, total), part in
        long.groupby(["estimator", "quantity", "total"], sort=False)
    ])  # fmt: skip


def gaps_at_equal_tokens(steps: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return each estimator's reward and regret at equal tokens, and the gaps to exact.

    Columns: estimator, step (the last before that total, mean over seeds), and those of `_gaps`.
    """
    last = points[points["total"] == points["total"].max()].set_index(["estimator", "seed"])
    done = steps[steps["total"] <= common_total(steps)]
    reached = done.groupby(["estimator", "seed"])["step"].max()
    return _gaps(last, reached.reindex(last.index, fill_value=0))


def gaps_at_equal_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the same at equal steps: at the last step that all runs have."""
    count = int(steps.groupby(["estimator", "seed"])["step"].max().min())
    runs = steps[steps["step"] <= count].groupby(["estimator", "seed"], sort=False)
    last = runs.apply(lambda run: run.sort_values("step")[list(QUANTITIES)].tail(WINDOW).mean())
    return _gaps(last, runs["step"].max())


def _gaps(last: pd.DataFrame, step: pd.Series) -> pd.DataFrame:
    """Return for each estimator, and for reward and regret, mean over seeds and gap to exact.

    The gap is the mean difference at the same seeds, low and high its 95 % t interval over them;
    both are NaN with fewer than `FEWEST` seeds, and the gap too where one has none. `reward_least`
    is the reward of the worst seed, where a run that collapsed shows.
    """
    rows = []
    for name in last.index.unique("estimator"):
        row: dict[str, object] = {"estimator": name, "step": step.loc[name].mean()}
        for quantity in QUANTITIES:
            gap = (last.loc[name, quantity] - last.loc[EXACT, quantity]).to_numpy()
            known = np.isfinite(gap).all()  # a seed may have no step by then
            middle, *ends = vars(over_seeds(gap)).values() if known else (np.nan,) * 3
            low, high = ends if len(gap) >= FEWEST else (np.nan, np.nan)
            row |= {quantity: last.loc[name, quantity].mean(), f"{quantity}_gap": middle,
                    f"{quantity}_low": low, f"{quantity}_high": high}  # fmt: skip
        rows.append(row | {"reward_least": last.loc[name, "reward"].min()})
    return pd.DataFrame(rows)


def learning_in_words(tokens: pd.DataFrame, steps: pd.DataFrame, total: int) -> str:
    """Return the rewards at equal tokens and at equal steps, and their gaps to exact: Markdown."""
    return (
        "Mean training reward by the estimator of $J$, and its difference to exact: after "
        f"{total / 1e6:.2f} million tokens through the model, {_gaps_in_words(tokens)}; after "
        f"{steps['step'].iloc[0]:.0f} steps each, {_gaps_in_words(steps)}."
    )


def _gaps_in_words(table: pd.DataFrame) -> str:
    rows = table.set_index("estimator")
    parts = [f"exact {rows.loc[EXACT, 'reward']:.3f}"]
    for name, row in rows.drop(EXACT).iterrows():
        known = pd.notna(row["reward_low"])
        ends = f" [{row['reward_low']:+z.3f}, {row['reward_high']:+z.3f}]" if known else ""
        parts.append(f"{name} {row['reward']:.3f}, {row['reward_gap']:+z.3f}{ends}")
    return "; ".join(parts)
