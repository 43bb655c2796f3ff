"""The results table: every measure of every method with its interval, from evaluation records.

One row a number: `method, seed, level, metric, budget, estimate, low, high, problems, samples`.
`seed` is a training seed, or "all" for the aggregate over seeds and problems. A level is one of
the data's, or "all". Metrics: accuracy, tokens used and regret at each budget, and official_regret,
as the authors' notebook takes it, with its slips too (official_regret_with_quirks);
natural_accuracy, episodes, truncated, pass@4, maj@4 at C0; and `diff_to_outcome_*`, paired over
seeds and problems, of the methods that were trained. Intervals are two-way (`stats.two_way`), of
shares `stats.proportion`.
"""

import numpy as np
import pandas as pd

from mrtlib import regret
from mrtlib.config import Profile
from mrtlib.evaluation.votes import maj_at_k, pass_at_k
from mrtlib.stats import Interval, proportion, ratio, two_way
from mrtlib.tasks.grading import candidates

COLUMNS = (
    "method", "seed", "level", "metric", "budget", "estimate", "low", "high", "problems", "samples",
)  # fmt: skip
SHARES = (
    "natural_accuracy", "truncated", "pass@4", "maj@4", "accuracy", "regret", "official_regret",
)  # fmt: skip
# What is measured for one evaluated model: (metric, budget) -> samples of each problem, or the
# mean of them, which all estimates are made of.
Metrics = dict[tuple[str, int], pd.Series]


def metrics_of(tables: dict[str, pd.DataFrame], profile: Profile) -> Metrics:
    """Return each measure of one model as a Series (level, problem) -> array of samples."""
    rollouts, budgets, c0 = tables["rollouts"], tables["budgets"], profile.thinking.budget
    by = ["level", "problem"]
    plain = {"natural_accuracy": "correct", "tokens": "trace_tokens", "episodes": "episodes",
             "truncated": "truncated"}  # fmt: skip
    out: Metrics = {(name, c0): _samples(rollouts, column) for name, column in plain.items()}
    votes, family = rollouts.groupby(by), profile.data.family
    out["pass@4", c0] = votes["correct"].apply(
        lambda c: np.atleast_1d(pass_at_k(len(c), c.sum(), 4))
    )
    out["maj@4", c0] = votes.apply(
        lambda g: np.atleast_1d(
            maj_at_k(candidates(g["answer"], family), g["correct"].tolist(), 4)
        )
    )
    for budget, rows in budgets.groupby("budget"):
        out["accuracy", int(budget)] = _samples(rows, "accuracy")
        out["tokens", int(budget)] = _samples(rows, "tokens")  # at C0 what a trace has
    inside = sorted(budgets.loc[~budgets["extrapolated"], "budget"].unique())
    return (
        out | _regrets(tables["progress"], budgets, inside)
        | _official_regrets(tables["progress"], rollouts, inside)
    )  # fmt: skip


def _samples(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return a Series (level, problem), sorted, of the values of a column in their order."""
    groups = rows.groupby(["level", "problem"])
    counts, number = groups.size(), groups.ngroup().to_numpy()
    values = rows[column].to_numpy(dtype=float)[np.argsort(number, kind="stable")]
    parts = np.split(values, np.cumsum(counts.to_numpy())[:-1])
    return pd.Series(parts, index=counts.index)


def _regrets(progress: pd.DataFrame, budgets: pd.DataFrame, inside: list[int]) -> Metrics:
    """Normalised regret at each budget; beyond C0 along the forced extensions of a trace."""
    place = ["level", "problem", "sample"]
    beyond = budgets[budgets["extrapolated"]].sort_values("budget")
    longer = dict(iter(beyond.groupby(place)))
    found = []
    for key, trace in progress.sort_values("j").groupby(place):
        J, t = trace["J"].to_numpy(), trace["tokens"].to_numpy(dtype=float)
        left = regret.normalised_regret(J, t, inside)
        found += [(*key, b, value) for b, value in zip(inside, left, strict=True)]
        if key in longer:
            found += [(*key, *point) for point in _beyond(J, t, longer[key])]
    table = pd.DataFrame(found, columns=[*place, "budget", "regret"])
    return {("regret", int(b)): _samples(part, "regret") for b, part in table.groupby("budget")}


def _official_regrets(
    progress: pd.DataFrame, rollouts: pd.DataFrame, inside: list[int]
) -> Metrics:
    """Regret along the authors' ramp, over all tokens: prompt, thinking, and a mean answer.

    Their points lie at the tokens of prompt, prefix, stop text and mean answer. What stands behind
    a trace has the mean length of those that the model closed itself, as exact J draws none. With
    the two slips of their notebook it is a measure of its own.
    """
    place = ["level", "problem", "sample"]
    closed = rollouts[rollouts["closed"]]
    answer = float((closed["token_ids"].map(len) - closed["trace_tokens"]).mean())
    prompts = rollouts.set_index(place)["prompt_ids"].map(len)
    answer = 0.0 if np.isnan(answer) else answer  # no trace was closed
    found = []
    for key, trace in progress.sort_values("j").groupby(place):
        at = prompts[key] + trace["tokens"].to_numpy() + answer
        J = trace["J"].to_numpy()
        left = (regret.ramped_regret(J, at, inside),
                regret.ramped_regret_with_quirks(J, at, answer, inside))  # fmt: skip
        found += [(*key, *row) for row in zip(inside, *left, strict=True)]
    names = ["official_regret", "official_regret_with_quirks"]
    table = pd.DataFrame(found, columns=[*place, "budget", *names])
    return {(name, int(b)): _samples(part, name)
            for name in names for b, part in table.groupby("budget")}  # fmt: skip


def _beyond(J: np.ndarray, t: np.ndarray, extra: pd.DataFrame) -> list[tuple[int, float]]:
    """Return (budget, regret) after each forced extension; extension e sees the first e points."""
    added = np.diff(extra["tokens"].to_numpy(dtype=float), prepend=t[-1])
    out = []
    for e, budget in enumerate(extra["budget"], start=1):
        curve = regret.extrapolate(J, t, extra["accuracy"].to_numpy()[:e], added[:e])
        out.append((int(budget), float(regret.normalised_regret(*curve, budget))))
    return out


def results(models: dict[tuple[str, int], Metrics]) -> pd.DataFrame:
    """Return the results table of all evaluated models, keyed by (method, training seed)."""
    rows = []
    for method, seed in models:
        rows += _rows(models, method, [seed], str(seed))
    methods = list(dict.fromkeys(method for method, _ in models))
    for method in methods:
        rows += _rows(models, method, paired_seeds(models, method, method), "all")
    if "outcome" in methods:
        for method in methods:
            if method not in ("base", "outcome"):
                seeds = paired_seeds(models, method, "outcome")
                rows += _rows(models, method, seeds, "all", "outcome")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(
    models: dict[tuple[str, int], Metrics], method: str, seeds: list[int], name: str,
    other: str | None = None,
) -> list[tuple]:
    """Return the rows of a method over some seeds, or of its paired differences to another."""
    rows = []
    for metric, budget in models[method, seeds[0]] if seeds else ():
        series = [models[method, seed][metric, budget] for seed in seeds]
        rivals = [models[other, seed][metric, budget] for seed in seeds] if other else []
        for level in [*level_names(series[0]), "all"]:
            part = problems_of(series[0], level)
            values = by_seed_and_problem(series, part, level)
            if other:
                values = values - by_seed_and_problem(rivals, part, level)
            way = proportion if metric in SHARES and not other else two_way
            interval = way(values, level_of_each(part))
            label = f"diff_to_{other}_{metric}" if other else metric
            samples = sum(int(problems_of(s, level).map(np.size).sum()) for s in series)
            rows.append((method, name, level, label, budget, *vars(interval).values(), len(part),
                         samples))  # fmt: skip
    return rows


def level_names(values: pd.Series) -> list[str]:
    """Return the levels of a measure's problems, in the order of their first one."""
    return list(dict.fromkeys(values.index.get_level_values("level")))


def level_of_each(values: pd.Series) -> np.ndarray | None:
    """Return the level of each problem, (P,), as `stats.two_way` takes it; None for one level."""
    if "level" not in values.index.names:
        return None
    return values.index.get_level_values("level").to_numpy()


def problems_of(values: pd.Series, level: str) -> pd.Series:
    """Return a measure of the problems of one level; of all for "all"."""
    return values if level == "all" else values.xs(level, level="level")


def paired_seeds(models: dict[tuple[str, int], Metrics], method: str, other: str) -> list[int]:
    """Return the training seeds for which both methods were measured, ascending."""
    return sorted(s for m, s in models if m == method and (other, s) in models)


def by_seed_and_problem(series: list[pd.Series], index: pd.Series, level: str) -> np.ndarray:
    """Return (S, P): the mean over samples for each seed and problem, aligned by problem."""
    return np.array([_means(problems_of(values, level), index.index) for values in series])


def _means(values: pd.Series, index: pd.Index) -> np.ndarray:
    """Return (P,): the mean over samples of each problem of an index.

    Raises:
        ValueError: a problem has none.
    """
    if not values.index.equals(index):
        if len(missing := index.difference(values.index)):
            raise ValueError(f"{len(missing)} of {len(index)} problems were not measured by all of "
                             f"the models that are compared, {missing[0]} first; measure them anew "
                             "or leave the model out")  # fmt: skip
        values = values.reindex(index)
    if values.dtype != object:  # they are means already
        return values.to_numpy()
    cells = [np.atleast_1d(cell) for cell in values]
    sizes = np.array([len(cell) for cell in cells])
    return np.add.reduceat(np.concatenate(cells), np.cumsum(sizes) - sizes) / sizes


def relative_regret(
    models: dict[tuple[str, int], Metrics], method: str, budget: int, level: str = "all"
) -> Interval:
    """Return the share of the regret of `outcome` that a method removes at a budget.

    1 - regret(method) / regret(outcome), paired over seeds and problems.
    """
    seeds = paired_seeds(models, method, "outcome")
    index = problems_of(models[method, seeds[0]]["regret", budget], level)
    ours, other = (
        by_seed_and_problem([models[m, s]["regret", budget] for s in seeds], index, level)
        for m in (method, "outcome")
    )
    left = ratio(ours, other, level_of_each(index))
    return Interval(1 - left.estimate, 1 - left.high, 1 - left.low)
