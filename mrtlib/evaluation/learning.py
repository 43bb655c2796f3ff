"""Training logs as tables: learning curves, cost, methods at equal tokens, the first batch.

`steps` are records of that schema, of several methods and seeds: a row for each optimiser step.
"""

import numpy as np
import pandas as pd

from mrtlib.evaluation.tables import written
from mrtlib.schemas import SECONDS
from mrtlib.stats import cut, over_seeds

QUANTITIES = {"reward": 1.0, "regret": 1.0, "length": np.inf}  # of the curves; largest values
FIRST = ("generated_tokens", "length", "reward", "episodes")  # of the first batch
WINDOW = 5  # steps that one point of a curve is the mean of


def smoothed(steps: pd.DataFrame, window: int = WINDOW) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what `plotting.learning_curves` draws: means over seeds, and the seeds themselves.

    Each seed's series is smoothed: a point is the mean over the last `window` steps, for one step
    has few rollouts. Intervals are t intervals over seeds; with one seed there is none, and low and
    high are NaN. A quantity that a method does not log is left out, and so are the steps that only
    some of a method's runs reached.

    Returns:
        (method, step, quantity, estimate, low, high) and (method, seed, step, quantity, estimate).
    """
    parts = []
    for (method, seed), run in steps.sort_values("step").groupby(["method", "seed"]):
        smooth = run[list(QUANTITIES)].rolling(window, min_periods=1).mean()
        long = smooth.assign(method=method, seed=seed, step=run["step"])
        labels = ["method", "seed", "step"]
        parts.append(long.melt(labels, list(QUANTITIES), "quantity", "estimate"))
    seeds = pd.concat(parts).dropna(subset="estimate")
    runs = steps.groupby("method")["seed"].nunique()
    rows = []
    for key, part in seeds.groupby(["method", "step", "quantity"]):
        if len(part) == runs[key[0]]:  # else some runs had spent their tokens by then
            interval = cut(over_seeds(part["estimate"]), 0.0, QUANTITIES[key[2]])
            rows.append((*key, *vars(interval).values()))
    columns = ["method", "step", "quantity", "estimate", "low", "high"]
    return pd.DataFrame(rows, columns=columns), seeds.reset_index(drop=True)


def what_ran(steps: pd.DataFrame) -> pd.DataFrame:
    """Return for each method what its runs were: seeds, steps, tokens, rates, as they are logged.

    Columns: seeds, steps and generated tokens (of a run, from the fewest to the most), peak rate,
    last rate (of the last step).
    """
    rows = {}
    for method, of_method in steps.groupby("method", sort=False):
        runs = of_method.sort_values("step").groupby("seed")
        ends = runs[["step", "generated_tokens", "learning_rate"]].last()
        rows[method] = {
            "seeds": ", ".join(str(seed) for seed in ends.index),
            "steps": _span(ends["step"]), "generated tokens": _span(ends["generated_tokens"]),
            "peak rate": of_method["learning_rate"].max(), "last rate": ends["learning_rate"].max(),
        }  # fmt: skip
    return pd.DataFrame(rows).T


def _span(values: pd.Series) -> str:
    low, high = f"{values.min():,}", f"{values.max():,}"
    return low if low == high else f"{low} to {high}"


def cost(steps: pd.DataFrame) -> pd.DataFrame:
    """Return for each method the mean seconds of a step, their shares, and the tokens of a run.

    `tokens_to_outcome` are the tokens of a run over those of `outcome`. Tokens are generated ones;
    reference answers are scored by teacher forcing, which is part of probing. `read_for_one` are
    the tokens that the prover reads for each generated one.
    """
    by = steps.groupby("method", sort=False)
    table = by[list(SECONDS)].mean()
    table.insert(0, "step_s", table.sum(axis=1))
    for name in SECONDS:
        table[name.replace("_s", "_share")] = table[name] / table["step_s"]
    ends = steps.groupby(["method", "seed"])["generated_tokens"].max()
    table["generated_tokens"] = ends.groupby("method").mean()
    read = steps.groupby(["method", "seed"])["prover_tokens"].sum()
    table["read_for_one"] = (read / ends).groupby("method").mean()
    if "outcome" in table.index:
        table["tokens_to_outcome"] = table["generated_tokens"] / ends["outcome"].mean()
    return table


def at_equal_tokens(steps: pd.DataFrame, window: int = WINDOW) -> pd.DataFrame:
    """Return each method's reward, regret and length at one count of generated tokens.

    The count is the smallest total of a run. Values are the means over the last `window` steps up
    to it, and then over seeds. Methods that write shorter traces are at a later step.
    """
    return _means(_at_equal_tokens(steps, window))


def reward_gaps(steps: pd.DataFrame, window: int = WINDOW) -> pd.DataFrame:
    """Return each method's reward less that of outcome RL, as in `at_equal_tokens`.

    Returns:
        Indexed by method: estimate, low, high, paired over the seeds that both have (t interval;
        nan where that is one seed).
    """
    return _gaps(_at_equal_tokens(steps, window))


def in_words(steps: pd.DataFrame) -> str:
    """Return how the methods stood at equal tokens, in words: rewards, differences and lengths."""
    runs = _at_equal_tokens(steps)
    equal, gaps = _means(runs), _gaps(runs)
    told = []
    for method, row in equal.iterrows():
        gap = ""
        if method in gaps.index and np.isfinite(gaps.loc[method, "low"]):
            number, ends = written(*gaps.loc[method], 3, 1, "+")
            gap = f" ({number} {ends} to outcome RL)"
        told.append(f"`{method}`: reward {row.reward:.3f}{gap}, {row.length:.0f} thinking tokens")
    return "; ".join(told)


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.groupby("method", sort=False).mean().drop(columns="seed")


def _gaps(runs: pd.DataFrame) -> pd.DataFrame:
    rewards = runs.pivot(index="seed", columns="method", values="reward")
    others = [method for method in runs["method"].unique() if method != "outcome"]
    return pd.DataFrame(
        {m: over_seeds((rewards[m] - rewards["outcome"]).dropna()).row() for m in others}
    ).T  # fmt: skip


def _at_equal_tokens(steps: pd.DataFrame, window: int = WINDOW) -> pd.DataFrame:
    """Return the rows that `at_equal_tokens` is the mean of: one a run."""
    total = int(steps.groupby(["method", "seed"])["generated_tokens"].max().min())
    rows = []
    # Other sorts leave equal steps, and so the methods, in an order that hangs on the processor.
    steps = steps.sort_values("step", kind="stable")
    for (method, seed), run in steps.groupby(["method", "seed"], sort=False):
        last = run[run["generated_tokens"] <= total].tail(window)
        rows.append({"method": method, "seed": seed, "tokens": total, "step": last["step"].max(),
                     **last[list(QUANTITIES)].mean()})  # fmt: skip
    return pd.DataFrame(rows)


def first_batch(steps: pd.DataFrame) -> pd.DataFrame:
    """Return the measures of the first batch by seed and method; equal seeds must agree in them."""
    first = steps[steps["step"] == steps["step"].min()]
    return first.set_index(["seed", "method"])[list(FIRST)].sort_index()
