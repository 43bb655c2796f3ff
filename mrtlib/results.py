"""The results table: every measure of every method with its interval, from evaluation records.

One row a number: `method, seed, level, metric, budget, estimate, low, high, problems, samples`.
`seed` is a training seed, or "all" for the aggregate over seeds and problems. A level is one of
the data's, or "all". Metrics: accuracy and regret at each budget; natural_accuracy, tokens,
episodes, truncated, pass@4, maj@4 at C0; and `diff_to_outcome_*`, paired over seeds and problems,
of the methods that were trained.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib import regret
from mrtlib.config import Profile
from mrtlib.stats import bootstrap, maj_at_k, paired_bootstrap_over_seeds, pass_at_k
from mrtlib.store import write_text

COLUMNS = (
    "method", "seed", "level", "metric", "budget", "estimate", "low", "high", "problems", "samples",
)  # fmt: skip
# What is measured for one evaluated model: (metric, budget) -> samples of each problem.
Measures = dict[tuple[str, int], pd.Series]


def measures(tables: dict[str, pd.DataFrame], profile: Profile) -> Measures:
    """Return each measure of one model as a Series (level, problem) -> array of samples."""
    rollouts, budgets, c0 = tables["rollouts"], tables["budgets"], profile.thinking.budget
    by = ["level", "problem"]
    plain = {"natural_accuracy": "correct", "tokens": "trace_tokens", "episodes": "episodes",
             "truncated": "truncated"}  # fmt: skip
    out: Measures = {(name, c0): _samples(rollouts, column) for name, column in plain.items()}
    votes = rollouts.groupby(by)
    out["pass@4", c0] = votes["correct"].apply(
        lambda c: np.atleast_1d(pass_at_k(len(c), c.sum(), 4))
    )
    out["maj@4", c0] = votes.apply(
        lambda g: np.atleast_1d(maj_at_k(g["answer"].tolist(), g["correct"].tolist(), 4))
    )
    for budget, rows in budgets.groupby("budget"):
        out["accuracy", int(budget)] = _samples(rows, "accuracy")
    return out | _regrets(tables["progress"], budgets, c0)


def _samples(rows: pd.DataFrame, column: str) -> pd.Series:
    return rows.groupby(["level", "problem"])[column].apply(lambda v: v.to_numpy(dtype=float))


def _regrets(progress: pd.DataFrame, budgets: pd.DataFrame, c0: int) -> Measures:
    """Normalised regret at each budget; beyond C0 along the forced extensions of a trace."""
    place = ["level", "problem", "sample"]
    inside = sorted(budgets.loc[~budgets["extrapolated"], "budget"].unique())
    beyond = budgets[budgets["extrapolated"]].sort_values("budget")
    longer = dict(iter(beyond.groupby(place)))
    found = []
    for key, trace in progress.sort_values("j").groupby(place):
        J, t = trace["J"].to_numpy(), trace["tokens"].to_numpy(dtype=float)
        found += [(*key, b, regret.normalised_regret(J, t, b)) for b in inside]
        if key in longer:
            found += [(*key, *point) for point in _beyond(J, t, longer[key])]
    table = pd.DataFrame(found, columns=[*place, "budget", "regret"])
    return {("regret", int(b)): _samples(part, "regret") for b, part in table.groupby("budget")}


def _beyond(J: np.ndarray, t: np.ndarray, extra: pd.DataFrame) -> list[tuple[int, float]]:
    """Return (budget, regret) after each forced extension; extension e sees the first e points."""
    added = np.diff(extra["tokens"].to_numpy(dtype=float), prepend=t[-1])
    out = []
    for e, budget in enumerate(extra["budget"], start=1):
        curve = regret.extrapolate(J, t, extra["accuracy"].to_numpy()[:e], added[:e])
        out.append((int(budget), float(regret.normalised_regret(*curve, budget))))
    return out


def results(
    models: dict[tuple[str, int], Measures], profile: Profile, rng: np.random.Generator
) -> pd.DataFrame:
    """Return the results table of all evaluated models, keyed by (method, training seed)."""
    draws, rows = profile.evaluation.bootstrap, []
    for (method, seed), found in models.items():
        for (metric, budget), values in found.items():
            for level, part in _levels(values):
                interval = bootstrap(part.tolist(), rng, draws)
                rows.append((method, str(seed), level, metric, budget, *_numbers(interval),
                             len(part), int(part.map(len).sum())))  # fmt: skip
    methods = list(dict.fromkeys(method for method, _ in models))
    for method in methods:
        rows += _over_seeds(models, method, None, draws, rng)
    if "outcome" in methods:
        for method in methods:
            if method not in ("base", "outcome"):
                rows += _over_seeds(models, method, "outcome", draws, rng)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _numbers(interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _levels(values: pd.Series) -> list[tuple[str, pd.Series]]:
    names = list(dict.fromkeys(values.index.get_level_values("level")))
    return [(name, values.xs(name, level="level")) for name in names] + [("all", values)]


def _over_seeds(models, method: str, other: str | None, draws: int, rng) -> list[tuple]:
    """Return the rows of a method over its seeds, or of its paired differences to another."""
    seeds = paired_seeds(models, method, other or method)
    rows = []
    if not seeds:
        return rows
    for metric, budget in models[method, seeds[0]]:
        series = [models[method, seed][metric, budget] for seed in seeds]
        rivals = [models[other, seed][metric, budget] for seed in seeds] if other else None
        for level, part in _levels(series[0]):
            ours = by_seed_and_problem(series, part, level)
            against = by_seed_and_problem(rivals, part, level) if other else np.zeros_like(ours)
            interval = paired_bootstrap_over_seeds(ours, against, rng, draws)
            name = f"diff_to_{other}_{metric}" if other else metric
            rows.append((method, "all", level, name, budget, *_numbers(interval), len(part),
                         sum(int(_part(s, level).map(len).sum()) for s in series)))  # fmt: skip
    return rows


def _part(values: pd.Series, level: str) -> pd.Series:
    return values if level == "all" else values.xs(level, level="level")


def paired_seeds(models: dict[tuple[str, int], Measures], method: str, other: str) -> list[int]:
    """Return the training seeds for which both methods were measured, ascending."""
    return sorted(s for m, s in models if m == method and (other, s) in models)


def by_seed_and_problem(series: list[pd.Series], index: pd.Series, level: str) -> np.ndarray:
    """Return (S, P): the mean over samples for each seed and problem, aligned by problem."""
    return np.array([
        [float(np.mean(v)) for v in _part(values, level).reindex(index.index)] for values in series
    ])  # fmt: skip


def relative_regret(
    models: dict[tuple[str, int], Measures], method: str, budget: int, rng: np.random.Generator,
    draws: int = 2000, level: str = "all",
) -> tuple[float, float, float]:
    """Return the share of the regret of `outcome` that a method removes at a budget, and interval.

    1 - regret(method) / regret(outcome), seeds and problems resampled together (paired).
    """
    seeds = paired_seeds(models, method, "outcome")
    index = _part(models[method, seeds[0]]["regret", budget], level)
    ours, other = (
        by_seed_and_problem([models[m, s]["regret", budget] for s in seeds], index, level)
        for m in (method, "outcome")
    )
    s = rng.integers(len(seeds), size=(draws, len(seeds)))
    p = rng.integers(ours.shape[1], size=(draws, ours.shape[1]))
    drawn = [1 - ours[i][:, k].mean() / other[i][:, k].mean() for i, k in zip(s, p, strict=True)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return 1 - ours.mean() / other.mean(), float(low), float(high)


def write_results(table: pd.DataFrame, path: Path) -> None:
    """Write the results table as CSV, six decimals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, table.to_csv(index=False, float_format="%.6f"))
