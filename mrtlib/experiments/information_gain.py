"""The paper's information gain: where it is made, how well it is measured, and what is paid for it.

Input are records: `progress` (exact J of the base), `answers` (K drawn at each boundary of some
traces) and `rollouts`. No model is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from mrtlib import credit
from mrtlib.config import Thinking
from mrtlib.evaluation.tables import said, small
from mrtlib.models.tokens import Joiner
from mrtlib.prover.probes import references_of
from mrtlib.regret import normalised_regret
from mrtlib.stats import Interval, by_problem, proportion, two_way, wilson
from mrtlib.store import TRACE
from mrtlib.tasks.grading import right_texts
from mrtlib.tasks.problems import Problem

ROUNDING = 1e-9  # at most, between two ways to compute one number
FEWEST = 0.1  # share of a level's problems that must reach an episode index


def by_episode(progress: pd.DataFrame) -> pd.DataFrame:
    """Return mean progress by episode index: method, level, j, estimate, low, high, problems.

    As j grows, the traces that have an episode j are fewer and harder; indices that less than a
    tenth of a level's problems reach are left out.
    """
    rows = []
    for (method, level), part in progress.groupby(["method", "level"], sort=False):
        whole = part["problem"].nunique()
        for j, spot in part[part["j"] > 0].groupby("j"):
            reached = spot["problem"].nunique()
            if reached >= FEWEST * whole:
                rows.append({"method": method, "level": level, "j": int(j),
                             **two_way(*by_problem(spot, "progress")).row(),
                             "problems": reached})  # fmt: skip
    return pd.DataFrame(rows)


def paired(answers: pd.DataFrame, progress: pd.DataFrame) -> pd.DataFrame:
    """Return exact and sampled J of the same boundaries: TRACE, j, exact, sampled, answers, ...

    `low`, `high`: Wilson's 95 % interval of the sampled J; `inside`: it covers the exact one.

    Raises:
        ValueError: a boundary with answers has no exact J.
    """
    spots = answers.groupby([*TRACE, "j"])["correct"].agg(["size", "sum"]).reset_index()
    table = spots.merge(progress[[*TRACE, "j", "J"]], "left", on=[*TRACE, "j"])
    if table["J"].isna().any():
        raise ValueError("some answers have no exact J; draw them for the evaluated rollouts")
    table = table.rename(columns={"size": "answers", "sum": "right", "J": "exact"})
    low, high = wilson(table["right"], table["answers"])
    table = table.assign(sampled=table["right"] / table["answers"], low=low, high=high)
    # Rounding may put an exact 1 a little above Wilson's end of 1.
    return table.assign(inside=table["exact"].between(low - 1e-6, high + 1e-6))


@dataclass(frozen=True)
class Agreement:
    """How well sampled J agrees with exact J."""

    correlation: float  # NaN where one of them does not vary
    bias: Interval  # mean of sampled - exact, over problems
    inside: Interval  # share of Wilson intervals that cover the exact J, over problems
    noise: float  # root mean square of sampled - exact
    expected_noise: float  # sqrt(mean J (1 - J) / K), of K draws with exact J


def agreement(table: pd.DataFrame) -> Agreement:
    """Return the agreement of `paired` values: both are J if bias is near 0, noise as expected."""
    gap = (table["sampled"] - table["exact"]).to_numpy()
    variance = (table["exact"] * (1 - table["exact"]) / table["answers"]).clip(lower=0)
    varies = min(table["exact"].nunique(), table["sampled"].nunique()) > 1
    return Agreement(
        correlation=float(table["exact"].corr(table["sampled"])) if varies else float("nan"),
        bias=two_way(*by_problem(table.assign(gap=gap), "gap")),
        inside=proportion(*by_problem(table, "inside")),
        noise=float(np.sqrt(np.mean(gap**2))),
        expected_noise=float(np.sqrt(variance.mean())),
    )


def reference_sizes(
    problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, thinking: Thinking
) -> dict[str, list[int]]:
    """Return the tokens of each reference answer, its closing included, by problem id."""
    joiner = Joiner(tokenizer)
    return {
        problem.id: [max(len(one.tokens) for one in spellings) + 1  # and the token that ends it
                     for spellings in references_of(problem, joiner, thinking)]
        for problem in problems
    }  # fmt: skip


def tokens_and_noise(
    answers: pd.DataFrame, sizes: Mapping[str, Sequence[int]], found: Agreement
) -> pd.DataFrame:
    """Return the tokens of a boundary and the noise of J, sampled and exact: way, tokens, noise.

    Only the tokens behind the termination text count; both share the prefix.

    Args:
        sizes: from `reference_sizes`.
    """
    sampled = answers.groupby([*TRACE, "j"])["answer_tokens"].sum().mean()
    exact = np.mean([sum(sizes[name]) for name in answers["problem"].unique()])
    return pd.DataFrame({
        "way": ["sampled", "exact"], "tokens": [sampled, exact], "noise": [found.noise, 0.0],
    })  # fmt: skip


def probability_mass(
    answers: pd.DataFrame, progress: pd.DataFrame, problems: Mapping[str, Problem]
) -> pd.DataFrame:
    """Return whether the references have all the probability of being right: quantity, value.

    Exact J adds up the references. So it would miss a right answer that is none of them, and a sum
    over 1 would show that one is counted twice.
    """
    right = answers[answers["correct"]]
    listed = _scored(right, problems)
    return pd.DataFrame([
        ("largest exact J", progress["J"].max()),
        ("smallest exact J", progress["J"].min()),
        ("right sampled answers", float(len(right))),
        ("of these, share listed as a reference", float(listed.mean()) if len(listed) else 1.0),
    ], columns=["quantity", "value"])  # fmt: skip


def _scored(right: pd.DataFrame, problems: Mapping[str, Problem]) -> np.ndarray:
    """Return for each right answer whether it is one of the texts that exact J adds up."""
    known = {name: frozenset(right_texts(problems[name])) for name in right["problem"].unique()}
    return np.array([row.answer in known[row.problem] for row in right.itertuples()], dtype=bool)


def coverage_in_words(answers: pd.DataFrame, problems: Mapping[str, Problem]) -> str:
    """Return how much of what a model writes rightly exact J adds up: a share with its interval.

    Means over the problems with a right answer, over the answers of each.
    """
    right = answers[answers["correct"]]
    if right.empty:
        return "No sampled answer is right, so nothing shows whether exact J misses any."
    shares = right.assign(scored=_scored(right, problems)).groupby("problem")["scored"].mean()
    found = proportion(shares.to_numpy(float)[None], None)
    return (f"Coverage: exact J scores {said(vars(found))} of the right answers that were sampled, "
            f"by problem ({len(shares)} problems).")  # fmt: skip


def credit_table(J: Sequence[float], t: Sequence[int], budget: int) -> pd.DataFrame:
    """Return what each form of credit gives the episodes of one trace: a row for each episode.

    Columns: j, tokens (t_j), J, episode_progress, discounted (g_j), regret_to_go.
    """
    return pd.DataFrame({
        "j": range(1, len(J)), "tokens": t[1:], "J": J[1:],
        "episode_progress": credit.progress(J),
        "discounted": credit.discounted_progress(J, t, budget),
        "regret_to_go": credit.regret_to_go(J, t, budget),
    })  # fmt: skip


def identity_gaps(progress: pd.DataFrame, budget: int) -> pd.Series:
    """Return |(1 - regret) - (J_0 + Σ_j g_j)| of every trace; 0 up to rounding."""
    gaps = {}
    for key, trace in progress.sort_values("j").groupby(TRACE):
        J, t = trace["J"].to_numpy(), trace["tokens"].to_numpy()
        gained = J[0] + credit.discounted_progress(J, t, budget).sum()
        gaps[key] = abs(1 - float(normalised_regret(J, t, budget)) - gained)
    return pd.Series(gaps)


def shaped_gaps(
    rollouts: pd.DataFrame, progress: pd.DataFrame, alphas: Sequence[float]
) -> pd.DataFrame:
    """Return how far `shaped_constant` is from plain GRPO on the recorded groups: alpha, gap.

    gap = max |A(f + α (f - J_0)) - A(f)| over all rollouts, A the group-normalised advantage. It is
    not 0 because 1e-4 is added to the deviation.
    """
    start = progress[progress["j"] == 0].groupby("problem")["J"].first()
    groups = [(start[name], group.to_numpy(float))
              for name, group in rollouts.groupby("problem")["correct"]]  # fmt: skip

    def gap(f: np.ndarray, c: float, alpha: float) -> float:
        shaped = credit.outcome(credit.shaped_constant(f, c, alpha))
        return np.abs(shaped - credit.outcome(f)).max()

    rows = [(alpha, max(gap(f, c, alpha) for c, f in groups)) for alpha in alphas]
    return pd.DataFrame(rows, columns=["alpha", "gap"])


def answer_in_words(gain: pd.DataFrame, errors: pd.DataFrame | None, gaps: pd.Series) -> str:
    """Return notebook 02's answer in three sentences, with its numbers: Markdown.

    Args:
        gain, gaps: from `by_episode` and `identity_gaps`.
        errors: from `estimators.errors`, where they were compared.
    """
    first, last = gain.iloc[0], gain[gain["level"] == gain["level"].iloc[0]].iloc[-1]
    price = "" if errors is None else _price_in_words(errors)
    return (
        f"**Answer.** On `{first['level']}` the first episode gains {said(first)} of $J$, and "
        f"episode {last['j']} {said(last)}. {price}Of "
        "the forms that are trained, only `regret_to_go` also says *when*: discounted by what is "
        "left of the budget, progress adds up to the regret removed, on all "
        f"{len(gaps)} traces. (95 % intervals, over problems.)"
    )


def _price_in_words(errors: pd.DataFrame) -> str:
    rows = errors.rename(columns={"error": "estimate"}).set_index("answers")
    near = (rows["tokens"] - rows.loc[0, "tokens"]).abs().drop(0).idxmin()
    return (
        f"One packed pass measures that with an error of {said(rows.loc[0])} against many answers, "
        f"whose own noise makes {rows.loc[0, 'floor']:.3f} of it, for "
        f"{rows.loc[0, 'tokens']:.0f} tokens a trace; {near} answers a boundary are off by "
        f"{said(rows.loc[near])} ({rows.loc[near, 'predicted']:.2f} are to be expected), for "
        f"{rows.loc[near, 'tokens']:.0f}. "
    )


def gain_in_words(
    gain: pd.DataFrame, found: Agreement, price: pd.DataFrame, gaps: pd.Series
) -> str:
    """Return what was measured of J in words, with its numbers: Markdown.

    Args:
        gain, price, gaps: from `by_episode`, `tokens_and_noise` and `identity_gaps`.
    """
    lines = [
        f"{level}: {said(part.iloc[0])} in episode 1 and {said(part.iloc[-1])} in episode "
        f"{part.iloc[-1]['j']}"
        for level, part in gain.groupby("level", sort=False)
    ]
    tokens, bias = price.set_index("way")["tokens"], vars(found.bias)
    return (
        f"Mean progress by level is {'; '.join(lines)}. Sampled J agrees with exact J "
        f"(correlation {found.correlation:.2f}, bias {said(bias)}), but has a noise of "
        f"{found.noise:.2f}; {found.expected_noise:.2f} is to be expected of its draws. Exact J "
        f"has none, and takes {tokens['exact']:.0f} tokens a boundary instead of "
        f"{tokens['sampled']:.0f}. On all {len(gaps)} traces the credit g_j adds up to the regret "
        f"that the trace removed, with gaps {small(gaps.max(), ROUNDING)}. "
        "(95 % intervals, over problems.)"
    )
