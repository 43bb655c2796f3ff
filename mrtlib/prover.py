"""The meta-prover mu: a trace is cut at a boundary, the thinking is closed, and mu answers.

J_j is the probability that this answer is right. `exact` sums the probabilities of the reference
answers by teacher forcing; `sampled` draws answers and grades them. k boundaries of a trace,
t_0 = 0 added to them.

Tokens of a trace stay as they were sampled. Text is put behind tokens in these places, each
tokenised by `joints.Joiner` as the model would have written it there:

- the ending behind a prefix (`Termination.prompt`), in one piece; a merge across the cut (`.` and
  a blank line) replaces the last tokens of the prefix;
- an answer behind its opening, and its closing behind the answer (`Joiner.spellings`): `}}`,
  `}.` and `7}` close an answer as well as `}` does;
- the word that makes a model think on behind its trace (`Evaluator.extensions`).

A merge across the end of the prompt, or across the answer's opening, cannot happen: those tokens
are given, and the model goes on behind them. Answers in other words than the references are what
exact J leaves out; `Estimator.compare` looks for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from mrtlib.kept import Kept
from mrtlib.probes import Probe, ProverError, Termination
from mrtlib.problems import Grade, Problem
from mrtlib.sampling import Sampler
from mrtlib.scoring import answer_logprobs
from mrtlib.self_check import obstacle, shares
from mrtlib.stats import wilson


def exact(
    model: PreTrainedModel,
    probes: Sequence[Probe],
    termination: Termination,
    temperature: float = 1.0,
    pack_tokens: int = 16384,
    kept: Sequence[Kept] | None = None,
) -> list[np.ndarray]:
    """Return the probability that mu writes a reference answer, at every boundary.

    J_j = Σ_y Π_i p(y_i | prompt, z_{0:j}, termination text, y_{<i}), y a spelling of a reference
    with its closing, p at the given temperature. All boundaries and references of a trace share
    one row of a packed pass.

    Args:
        pack_tokens: bound on the padded tokens of a pass; a trace over it is split.
        kept: caches of the traces from sampling, one for each probe, under the same weights;
            then only the termination texts and references go through the model.

    Returns:
        For each probe J_0 ... J_k, float64 (k+1,).

    Raises:
        ProverError: references that are not prefix-free; a model that cannot share prefixes
            (use `exact_unpacked`; `exact_for` chooses).
        ValueError: one boundary with one reference alone exceeds `pack_tokens`.
    """
    if reason := obstacle(model):
        raise ProverError(f"{reason}; use exact_unpacked")
    return _total(
        probes,
        answer_logprobs(model, probes, termination, temperature, pack_tokens, True, kept),
    )


def exact_unpacked(
    model: PreTrainedModel,
    probes: Sequence[Probe],
    termination: Termination,
    temperature: float = 1.0,
    pack_tokens: int = 16384,
) -> list[np.ndarray]:
    """Return what `exact` returns from one plain row per boundary and reference: any model."""
    return _total(
        probes,
        answer_logprobs(model, probes, termination, temperature, pack_tokens, False),
    )


def exact_for(model: PreTrainedModel) -> Callable[..., list[np.ndarray]]:
    """Return `exact`, or `exact_unpacked` with a warning where a self-check rules it out."""
    return exact if shares(model, "exact J takes a row per boundary and reference") else (
        exact_unpacked
    )


def _total(probes: Sequence[Probe], logp: Mapping[tuple[int, int, int], float]) -> list[np.ndarray]:
    """Add the probabilities of the references of each boundary."""
    totals = [np.zeros(len(probe.ends)) for probe in probes]
    for (index, j, _), value in logp.items():
        totals[index][j] += np.exp(value)
    return totals


@dataclass(frozen=True)
class Counts:
    """Sampled answers at every boundary of a trace; arrays (k+1,)."""

    answers: int  # K
    right: np.ndarray
    boxed: np.ndarray  # answers in which the grader found an answer at all
    tokens: np.ndarray  # tokens generated

    def at(self, places: Sequence[int]) -> "Counts":
        """Return the counts of some of the boundaries."""
        where = list(places)
        return Counts(self.answers, self.right[where], self.boxed[where], self.tokens[where])

    @property
    def J(self) -> np.ndarray:
        """Share of right answers (k+1,)."""
        return self.right / self.answers


def J_of(found: np.ndarray | Counts) -> np.ndarray:
    """Return J_0 ... J_k of what `exact` or `sampled` found for a probe."""
    return found.J if isinstance(found, Counts) else found


def sampled(
    sampler: Sampler,
    probes: Sequence[Probe],
    problems: Sequence[Problem],
    termination: Termination,
    grade: Callable[[Problem, str], Grade],
    *,
    answers: int,
    max_tokens: int,
    temperature: float,
    top_p: float,
    stop_ids: set[int],
    seed: int,
) -> list[Counts]:
    """Draw and grade `answers` answers at every boundary of every probe; one problem a probe.

    All prompts go to the sampler in one call, so that it computes a trace once for all its
    boundaries and forks. The text graded is the answer opening with what was drawn.
    Source: arXiv 2503.07572, section 4 and its analysis code (8 answers).
    """
    prompts = [termination.prompt(probe, j) for probe in probes for j in range(len(probe.ends))]
    drawn = iter(sampler.sample(prompts, answers, max_tokens, temperature, top_p, stop_ids, seed))
    counts = []
    for probe, problem in zip(probes, problems, strict=True):
        groups = [next(drawn) for _ in probe.ends]
        grades = [
            [grade(problem, termination.answer(s.token_ids)) for s in group] for group in groups
        ]
        counts.append(
            Counts(
                answers,
                np.array([sum(g.correct for g in row) for row in grades]),
                np.array([sum(g.answer is not None for g in row) for row in grades]),
                np.array([sum(len(s.token_ids) for s in group) for group in groups]),
            )
        )
    return counts


def records(labels: Mapping[str, Any], probe: Probe, measured: np.ndarray | Counts) -> list[dict]:
    """Return the rows of the `progress` schema of one probe: one for each of t_0 ... t_k.

    Args:
        labels: method, seed, level, problem and sample.
        measured: what `exact` or `sampled` returned for the probe. An exact J is its own
            interval; a sampled one has Wilson's at 95 %, and `boxed` is a share of its answers.
    """
    counts = measured if isinstance(measured, Counts) else None
    J = J_of(measured)
    low, high = (J, J) if counts is None else wilson(counts.right, counts.answers)
    return [
        {
            **labels,
            "j": j,
            "tokens": tokens,
            "estimator": "sampled" if counts else "exact",
            "answers": counts.answers if counts else 0,
            "right": int(counts.right[j]) if counts else 0,
            "J": float(J[j]),
            "low": float(low[j]),
            "high": float(high[j]),
            "progress": float(J[j] - J[j - 1]) if j else None,
            "kind": probe.kind(j),
            "boxed": float(counts.boxed[j] / counts.answers) if counts else None,
        }
        for j, tokens in enumerate(probe.ends)
    ]
