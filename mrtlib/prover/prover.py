"""The meta-prover mu: a trace is cut at a boundary, the thinking is closed, and mu answers.

J_j is the probability that this answer is right. `exact` sums the probabilities of the reference
answers by teacher forcing; `sampled` draws answers and grades them. k boundaries of a trace,
t_0 = 0 added to them.

Tokens of a trace stay as they were sampled. Text is put behind tokens in these places, each
tokenised by `tokens.Joiner` as the model would have written it there:

- the ending behind a prefix (`Termination.prompt`), in one piece; a merge across the cut (`.` and
  a blank line) replaces the last tokens of the prefix;
- an answer behind its opening, and its closing behind the answer (`Joiner.spellings`): `}}`,
  `}.` and `7}` close an answer as well as `}` does;
- the word that makes a model think on behind its trace (`Evaluator.extensions`).

A merge across the end of the prompt, or across the answer's opening, cannot happen: those tokens
are given, and the model goes on behind them. Answers in other words than the references are what
exact J leaves out; `Prover.compare` looks for them: a run
first compares exact with sampled J on a few traces, and goes on with `sampled` where they disagree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mrtlib.config import Profile
from mrtlib.models.caches import Kept
from mrtlib.models.compatibility import obstacle, shares
from mrtlib.models.packing import counted
from mrtlib.models.sampling import Sample, Sampler, TransformersSampler
from mrtlib.prover import exact
from mrtlib.prover.probes import Probe, Termination, references_of
from mrtlib.rollouts import Reader, Rollout
from mrtlib.stats import wilson
from mrtlib.store import read_json, write_json
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Grade, Problem

LONG = 512  # tokens of a budget from which a rollout's cache is kept for the prover
TRACES = 8  # on which exact and sampled J are compared
CHANCE = 1e-3  # of honest draws, below which the two disagree


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
    """Return J_0 ... J_k of what `Prover.exact` or `Prover.sampled` found for a rollout."""
    return found.J if isinstance(found, Counts) else found


@dataclass(frozen=True)
class Measurement:
    """J of some rollouts, and the tokens that went through the model for it."""

    found: list[np.ndarray | Counts]  # for each rollout, exact or sampled
    drawn: int  # tokens of answers that were generated
    read: int  # all others: prefixes, termination texts, references, padding

    @property
    def J(self) -> list[np.ndarray]:
        """For each rollout J_0 ... J_k."""
        return [J_of(found) for found in self.found]


@dataclass(frozen=True)
class Comparison:
    """Exact and sampled J of the same boundaries: `chance` bounds what honest draws would give."""

    answers: int
    exact: float  # mean J
    sampled: float  # share of right answers
    chance: float
    cause: str  # what a disagreement comes from, "" without one


class Prover:
    """One model, made to stop and answer: J at every boundary of rollouts, exactly or by sampling.

    A rollout is measured at its `boundaries`; for other places, `replace(rollout, boundaries=...)`.

    >>> from mrtlib import Prover, load_problems, load_profile
    >>> from mrtlib.models.loading import load_base
    >>> from mrtlib.models.tokens import load_tokenizer, prompt_ids
    >>> profile = load_profile("tiny")
    >>> tokenizer = load_tokenizer(profile)
    >>> prover = Prover(load_base(profile), tokenizer, profile)

    One rollout of the embedded model, and what it is worth to stop at each of its boundaries:

    >>> problem = load_problems(profile.problems / "test.jsonl", limit=1)[0]
    >>> prompt = prompt_ids(tokenizer, problem.question, profile.thinking)
    >>> ends = prover.reader.end_ids
    >>> [[sample]] = prover.sampler.sample([prompt], 1, 256, 1.0, 1.0, ends, seed=0)
    >>> rollout = prover.reader.read(problem, prompt, sample)
    >>> rollout.boundaries
    [31, 67, 97]
    >>> prover.exact([rollout])[0].round(1)  # the second episode finds the answer
    array([0.3, 0.3, 1. , 1. ])
    >>> prover.sampled([rollout], k=8, seed=1)[0].J  # shares of 8 answers
    array([0.375, 0.25 , 1.   , 1.   ])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        profile: Profile,
        sampler: Sampler | None = None,
    ) -> None:
        """Keep model and settings; answers are drawn in this process unless a sampler is given."""
        self.model, self.profile = model, profile
        self.reader = Reader(tokenizer, profile.thinking)
        self.termination = Termination(self.reader.joiner, profile.thinking)
        rows = profile.evaluation.batch_rows
        self.sampler = sampler or TransformersSampler(model, tokenizer.pad_token_id, rows)
        self.compared: Comparison | None = None

    def probe(self, rollout: Rollout) -> Probe:
        """Return a rollout's trace, cut at its boundaries, with its references."""
        natural = rollout.closed and rollout.boundaries[-1:] == [rollout.trace_tokens]
        references = references_of(rollout.problem, self.reader.joiner, self.profile.thinking)
        return Probe(
            rollout.prompt_ids, rollout.trace_ids, rollout.boundaries, natural, references
        )

    def exact(
        self, rollouts: Sequence[Rollout], kept: Sequence[Kept] | None = None
    ) -> list[np.ndarray]:
        """Return J_0 ... J_k of each rollout from the probabilities of its reference answers.

        All boundaries and references of a trace share one row of a packed pass (`exact.packed`),
        or have one each, with a warning, where a self-check rules that out.

        Args:
            kept: the rollouts' caches from sampling with these weights.

        Returns:
            For each rollout (k+1,) float64 in [0, 1].

        Raises:
            ProverError: references that are not prefix-free.
        """
        probes, settings = [self.probe(r) for r in rollouts], self.profile.prover
        limits = settings.temperature, settings.pack_tokens
        if shares(self.model, "exact J takes a row per boundary and reference"):
            return exact.packed(self.model, probes, self.termination, *limits, kept)
        return exact.unpacked(self.model, probes, self.termination, *limits)

    def sampled(self, rollouts: Sequence[Rollout], k: int, seed: int) -> list[Counts]:
        """Draw and grade k answers at every boundary of each rollout.

        All prompts go to the sampler in one call, so that it computes a trace once for all its
        boundaries and forks.
        Source: arXiv 2503.07572, section 4 and its analysis code (8 answers).
        """
        return self._sampled(rollouts, k, seed, grade)

    def _sampled(
        self,
        rollouts: Sequence[Rollout],
        k: int,
        seed: int,
        graded: Callable[[Problem, str], Grade],
    ) -> list[Counts]:
        probes = [self.probe(r) for r in rollouts]
        drawn = self.sampler.sample(
            [self.termination.prompt(p, j) for p in probes for j in range(len(p.ends))], k,
            self.profile.thinking.answer_tokens, self.profile.prover.temperature, 1.0,
            self.reader.end_ids, seed,
        )  # fmt: skip
        return tally(probes, [r.problem for r in rollouts], drawn, self.termination, graded)

    @property
    def is_exact(self) -> bool:
        """Whether `measure` scores references; if not, it draws and grades answers."""
        agreed = self.compared is None or not self.compared.cause
        return self.profile.prover.estimator == "exact" and agreed

    def measure(
        self, rollouts: Sequence[Rollout], seed: int, kept: Sequence[Kept] | None = None
    ) -> Measurement:
        """Measure J as the profile says, under the model's present weights.

        Args:
            seed: for answers that are drawn.
            kept: the rollouts' caches from sampling with these weights.
        """
        with counted(self.model) as fed:
            if self.is_exact:
                found, drawn = self.exact(rollouts, kept), 0
            else:
                found = self.sampled(rollouts, self.profile.prover.samples, seed)
                drawn = sum(int(counts.tokens.sum()) for counts in found)
        return Measurement(found, drawn, sum(fed) - drawn)

    def uses_caches(self, tokens: int) -> bool:
        """Say whether caches of so many tokens are worth keeping from sampling for `measure`.

        They spare it the prefixes, and are copies. Where a trace is hardly longer than the
        termination texts and references behind it, that gains little; and no more tokens are kept
        than a packed pass may hold.
        """
        fits = self.profile.thinking.budget >= LONG and tokens <= self.profile.prover.pack_tokens
        return self.is_exact and fits and not obstacle(self.model)

    def agree(self, rollouts: Sequence[Rollout], seed: int, record: Path) -> None:
        """Compare exact with sampled J once at the start of a run; go on with what is right.

        What was found is written to `record` and read from there when the run goes on later. Its
        tokens are in no count: every method spends them alike.

        Args:
            rollouts: of the run's first problems; up to 8, evenly taken, are used.
            seed: for the answers that are drawn.
        """
        if self.profile.prover.estimator != "exact":
            return
        if record.is_file():
            self.compared = Comparison(**read_json(record))
            return
        some = list(rollouts)[:: max(1, len(rollouts) // TRACES)][:TRACES]
        self.compared = found = self.compare(some, seed)
        write_json(record, asdict(found))
        if found.cause:
            print(
                f"exact J is {found.exact:.3f} on {len(some)} traces where {found.sampled:.3f} of "
                f"{found.answers} sampled answers are right: {found.cause}. This run goes on with "
                f"sampled J, {self.profile.prover.samples} answers a boundary",
                flush=True,
            )

    def compare(self, rollouts: Sequence[Rollout], seed: int) -> Comparison:
        """Compare exact and sampled J at all boundaries of some rollouts."""
        grades: list[tuple[Problem, Grade]] = []

        def graded(problem: Problem, text: str) -> Grade:
            grades.append((problem, grade(problem, text)))
            return grades[-1][1]

        answers, probes = self.profile.prover.samples, [self.probe(r) for r in rollouts]
        counts = self._sampled(rollouts, answers, seed, graded)
        J = np.concatenate(self.exact(rollouts)).clip(0, 1)
        right = np.concatenate([c.right for c in counts])
        natural = np.array([p.kind(j) == "natural" for p in probes for j in range(len(p.ends))])
        groups = [kind for kind in (natural, ~natural) if kind.any()]
        chance = min(_chance(J[kind], right[kind], answers) for kind in groups) * len(groups)
        missed = float((right - answers * J).sum())
        cause = _cause(missed, grades) if chance < CHANCE else ""
        return Comparison(
            len(grades), float(J.mean()), float(right.sum() / len(grades)), min(1.0, chance), cause
        )


def tally(
    probes: Sequence[Probe],
    problems: Sequence[Problem],
    drawn: Sequence[Sequence[Sample]],
    termination: Termination,
    graded: Callable[[Problem, str], Grade],
) -> list[Counts]:
    """Grade the answers drawn at every boundary of every probe; one problem a probe.

    Args:
        drawn: K samples for each boundary, those of one probe after those of the other. The text
            graded is the answer opening with what was drawn.
    """
    groups, counts = iter(drawn), []
    for probe, problem in zip(probes, problems, strict=True):
        own = [next(groups) for _ in probe.ends]
        grades = [[graded(problem, termination.answer(s.token_ids)) for s in group]
                  for group in own]  # fmt: skip
        counts.append(
            Counts(
                len(own[0]),
                np.array([sum(g.correct for g in row) for row in grades]),
                np.array([sum(g.answer is not None for g in row) for row in grades]),
                np.array([sum(len(s.token_ids) for s in group) for group in own]),
            )
        )
    return counts


def progress_rows(
    labels: Mapping[str, Any], probe: Probe, measured: np.ndarray | Counts
) -> list[dict]:
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


def _chance(J: np.ndarray, right: np.ndarray, answers: int) -> float:
    """Bound the chance that honest draws are as far from their mean as these.

    2 exp(-n KL(share || mean J)), n draws in all: the Chernoff bound holds for a sum of draws of
    unequal probability, too (Hoeffding 1963, J. Am. Stat. Assoc. 58, theorem 1).
    """
    n, p = answers * len(J), float(J.mean())
    share = float(right.sum()) / n
    parts = [(share, p), (1 - share, 1 - p)]
    if any(seen > 0 and expected <= 0 for seen, expected in parts):
        return 0.0
    divergence = sum(seen * np.log(seen / expected) for seen, expected in parts if seen > 0)
    return float(min(1.0, 2 * np.exp(-n * divergence)))


def _cause(missed: float, grades: list[tuple[Problem, Grade]]) -> str:
    """Name what most likely makes exact J miss so many right answers, or see too many."""
    if missed < 0:
        bare = np.mean([g.answer is None for _, g in grades])
        return (f"{bare:.0%} of the sampled answers show no closed box; raise "
                "thinking.answer_tokens, or let thinking.answer_open lead to one")  # fmt: skip
    right = [(p, g.answer) for p, g in grades if g.correct]
    other = [a for p, a in right if a not in p.references]
    if other and 2 * len(other) >= missed:
        return f"right answers in words that no reference has, such as {other[0]!r}; list them"
    return (
        "the model writes the references in tokens that are not scored; check "
        "thinking.answer_open and thinking.answer_close against the tokenizer"
    )
