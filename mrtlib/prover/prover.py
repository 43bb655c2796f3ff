"""The meta-prover mu: a trace is cut at a boundary, its thinking is ended, and mu answers.

J_j is the probability that this answer is right. `Prover.exact` adds up the probabilities of the
reference answers by teacher forcing; `Prover.sampled` draws answers and grades them. k boundaries
of a trace, and t_0 = 0 before them; K answers at each.

Tokens of a trace stay as they were sampled. Text is put behind tokens in three places, and each
time tokenised by `tokens.Joiner` as the model would have written it there:

- the ending behind a prefix (`Termination.prompt`), in one piece; a merge across the cut (`.` and
  a blank line) replaces the last tokens of the prefix;
- an answer behind its opening, and its closing behind the answer (`Joiner.spellings`): `}}`,
  `}.` and `7}` close an answer as well as `}` does;
- the word that forces the model to think on behind its trace (`Evaluator.extensions`).

No merge can cross the end of the prompt, or the answer's opening: those tokens are given. Exact J
leaves out right answers in other words than the references. So a run first compares exact with
sampled J on a few traces (`Prover.agree`), and goes on with sampled J where they disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mrtlib.config import Profile, ProverSettings
from mrtlib.models.caches import Kept
from mrtlib.models.compatibility import can_share, obstacle
from mrtlib.models.packing import counted
from mrtlib.models.sampling import Sample, Sampler, TransformersSampler
from mrtlib.prover import exact
from mrtlib.prover.probes import Probe, Termination, references_of
from mrtlib.rollouts import Reader, Rollout
from mrtlib.stats import wilson
from mrtlib.store import read_json, write_json
from mrtlib.tasks.grading import grade, right_texts
from mrtlib.tasks.problems import Grade, Problem

TRACES = 8  # on which exact and sampled J are compared
CHANCE = 1e-3  # the two disagree where so large a difference is less probable by chance alone


@dataclass(frozen=True)
class Drawn:
    """Answers drawn at every boundary of a trace."""

    grades: list[list[Grade]]  # (k+1, K)
    tokens: np.ndarray  # (k+1,) generated

    def at(self, boundaries: list[int]) -> "Drawn":
        """Return the answers at some of the boundaries."""
        return Drawn([self.grades[j] for j in boundaries], self.tokens[boundaries])

    @property
    def answers(self) -> int:
        """K, the number of answers at each boundary."""
        return len(self.grades[0])

    @property
    def right(self) -> np.ndarray:
        """The number of right answers (k+1,)."""
        return np.array([sum(g.correct for g in row) for row in self.grades])

    @property
    def boxed(self) -> np.ndarray:
        """The number of answers in which the grader found an answer at all (k+1,)."""
        return np.array([sum(g.answer is not None for g in row) for row in self.grades])

    @property
    def J(self) -> np.ndarray:
        """Share of right answers (k+1,)."""
        return self.right / self.answers


def J_of(found: np.ndarray | Drawn) -> np.ndarray:
    """Return J_0 ... J_k of what `Prover.exact` or `Prover.sampled` found for a rollout."""
    return found.J if isinstance(found, Drawn) else found


@dataclass(frozen=True)
class Measurement:
    """J of some rollouts, and the tokens that went through the model for it."""

    found: list[np.ndarray | Drawn]  # for each rollout, exact or sampled
    drawn: int  # tokens of answers that were generated
    read: int  # all others: prefixes, termination texts, references, padding

    @property
    def J(self) -> list[np.ndarray]:
        """For each rollout J_0 ... J_k."""
        return [J_of(found) for found in self.found]


@dataclass(frozen=True)
class Comparison:
    """Exact and sampled J of the same boundaries."""

    answers: int
    exact: float  # mean J
    sampled: float  # share of right answers
    chance: float  # bound on the probability that answers drawn with exact J are as far from it
    cause: str  # of a disagreement, "" without one


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
        reader: Reader | None = None,
    ) -> None:
        """Keep model and settings.

        Args:
            sampler: draws the answers; the model in this process if none is given.
            reader: one that is there already, with the spellings of answers that it has found.
        """
        self.model, self.profile = model, profile
        self.reader = reader or Reader(tokenizer, profile.thinking)
        self.termination = Termination(self.reader.joiner, profile.thinking)
        rows = profile.evaluation.batch_rows
        self.sampler = sampler or TransformersSampler(model, tokenizer.pad_token_id, rows)
        self.compared: Comparison | None = None

    def probe(self, rollout: Rollout) -> Probe:
        """Return a rollout's trace, cut at its boundaries, with its references."""
        natural = rollout.closed and rollout.boundaries[-1:] == [rollout.trace_tokens]
        references = references_of(rollout.problem, self.reader.joiner, self.profile.thinking)
        return Probe(rollout.prompt_ids, rollout.trace_ids, rollout.boundaries, natural, references)

    def exact(
        self, rollouts: Sequence[Rollout], kept: Sequence[Kept] | None = None
    ) -> list[np.ndarray]:
        """Return J_0 ... J_k of each rollout from the probabilities of its reference answers.

        All boundaries and references of a trace share one row of a packed pass (`exact.packed`).
        They have a row each, with a warning, where the model cannot share prefixes.

        Args:
            kept: the rollouts' caches from sampling with these weights.

        Returns:
            For each rollout (k+1,) float64 in [0, 1].

        Raises:
            ProverError: references that are not prefix-free.
        """
        probes = [self.probe(r) for r in rollouts]
        settings = self.profile.prover.temperature, limits(self.profile.prover)
        if can_share(self.model, "exact J takes a row per boundary and reference"):
            return exact.packed(self.model, probes, self.termination, *settings, kept)
        return exact.unpacked(self.model, probes, self.termination, *settings)

    def sampled(
        self, rollouts: Sequence[Rollout], k: int, seed: int, first: int = 0
    ) -> list[Drawn]:
        """Draw and grade k answers at every boundary of each rollout.

        All prompts go to the sampler in one call, so that it computes a trace once for all its
        boundaries and answers.

        Args:
            first: the number of boundaries before these, where these rollouts are a part of more.

        Source: arXiv 2503.07572, section 4 and its analysis code (8 answers).
        """
        probes = [self.probe(r) for r in rollouts]
        prompts = [self.termination.prompt(p, j) for p in probes for j in range(len(p.ends))]
        drawn = self.draw(prompts, k, seed, first)
        return graded(probes, [r.problem for r in rollouts], drawn, self.termination)

    def draw(
        self, prompts: list[list[int]], k: int, seed: int, first: int = 0
    ) -> list[list[Sample]]:
        """Draw k answers behind each prompt of `termination`, ungraded."""
        return self.sampler.sample(
            prompts, k, self.profile.thinking.answer_tokens, self.profile.prover.temperature, 1.0,
            self.reader.end_ids, seed, first,
        )  # fmt: skip

    @property
    def is_exact(self) -> bool:
        """Whether `measure` scores references; if not, it draws and grades answers."""
        agreed = self.compared is None or not self.compared.cause
        return self.profile.prover.estimator == "exact" and agreed

    def measure(
        self, rollouts: Sequence[Rollout], seed: int, kept: Sequence[Kept] | None = None,
        first: int = 0,
    ) -> Measurement:  # fmt: skip
        """Measure J as the profile says, under the model's present weights.

        Args:
            seed: for answers that are drawn.
            kept: the rollouts' caches from sampling with these weights.
            first: the number of boundaries before these, where these rollouts are a part of more.
        """
        if self.is_exact:
            with counted(self.model) as tokens:
                found = self.exact(rollouts, kept)
            return Measurement(found, 0, sum(tokens))
        before = self.sampler.tokens
        found = self.sampled(rollouts, self.profile.prover.samples, seed, first)
        drawn = sum(int(answers.tokens.sum()) for answers in found)
        return Measurement(found, drawn, self.sampler.tokens - before - drawn)

    def uses_caches(self, tokens: int) -> bool:
        """Say whether caches of so many tokens are worth keeping from sampling for `measure`.

        With them it need not compute the prefixes, but they take memory: `keep_tokens` bounds it.
        """
        fits = tokens <= self.profile.prover.keep_tokens
        return self.is_exact and fits and not obstacle(self.model)

    def agree(self, rollouts: Sequence[Rollout], seed: int, record: Path) -> None:
        """Compare exact with sampled J at the start of a run; use sampled J where they disagree.

        What was found is written to `record`, and read from there when the run is resumed. The
        tokens of the comparison are not counted: every method spends as many.

        Args:
            rollouts: of the run's first problems; up to 8, evenly spaced, are used.
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
        K, probes = self.profile.prover.samples, [self.probe(r) for r in rollouts]
        drawn = self.sampled(rollouts, K, seed)
        J = np.concatenate(self.exact(rollouts)).clip(0, 1)
        right = np.concatenate([answers.right for answers in drawn])
        natural = np.array([p.kind(j) == "natural" for p in probes for j in range(len(p.ends))])
        groups = [kind for kind in (natural, ~natural) if kind.any()]
        chance = min(_chance(J[kind], right[kind], K) for kind in groups) * len(groups)
        grades = [(rollout.problem, g) for rollout, answers in zip(rollouts, drawn, strict=True)
                  for row in answers.grades for g in row]  # fmt: skip
        cause = _cause(float((right - K * J).sum()), grades) if chance < CHANCE else ""
        share = float(right.sum() / len(grades))
        return Comparison(len(grades), float(J.mean()), share, min(1.0, chance), cause)


def limits(settings: ProverSettings) -> exact.Limits:
    """Return how the settings let probes share passes."""
    return exact.Limits(settings.pack_tokens, settings.pass_tokens, settings.equal_once)


def graded(
    probes: Sequence[Probe],
    problems: Sequence[Problem],
    drawn: Sequence[Sequence[Sample]],
    termination: Termination,
) -> list[Drawn]:
    """Grade the answers drawn at every boundary of every probe; one problem a probe.

    Args:
        drawn: K samples for each boundary, those of one probe after those of the other. The text
            graded is the answer opening with what was drawn.
    """
    groups, out = iter(drawn), []
    for probe, problem in zip(probes, problems, strict=True):
        own = [next(groups) for _ in probe.ends]
        grades = [[grade(problem, termination.answer(s.token_ids)) for s in group] for group in own]
        out.append(Drawn(grades, np.array([sum(len(s.token_ids) for s in g) for g in own])))
    return out


def progress_rows(
    labels: Mapping[str, Any], probe: Probe, measured: np.ndarray | Drawn
) -> list[dict[str, Any]]:
    """Return the rows of the `progress` schema of one probe: one for each of t_0 ... t_k.

    Args:
        labels: the columns `store.TRACE`.
        measured: what `exact` or `sampled` returned for the probe. An exact J is its own
            interval; a sampled one has Wilson's at 95 %, and `boxed` is a share of its answers.
    """
    drawn, J = measured if isinstance(measured, Drawn) else None, J_of(measured)
    low, high = wilson(drawn.right, drawn.answers) if drawn else (J, J)
    return [
        {
            **labels,
            "j": j,
            "tokens": tokens,
            "estimator": "sampled" if drawn else "exact",
            "answers": drawn.answers if drawn else 0,
            "right": int(drawn.right[j]) if drawn else 0,
            "J": float(J[j]),
            "low": float(low[j]),
            "high": float(high[j]),
            "progress": float(J[j] - J[j - 1]) if j else None,
            "kind": probe.kind(j),
            "boxed": float(drawn.boxed[j] / drawn.answers) if drawn else None,
        }
        for j, tokens in enumerate(probe.ends)
    ]


def _chance(J: np.ndarray, right: np.ndarray, answers: int) -> float:
    """Bound the chance that answers drawn with these J are as far from their mean as these.

    2 exp(-n KL(share || mean J)), n draws in all: the Chernoff bound, which also holds for a sum of
    draws of unequal probability (Hoeffding 1963, J. Am. Stat. Assoc. 58, theorem 1).
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
        return (f"{bare:.0%} of the sampled answers have no closed box; raise "
                "thinking.answer_tokens, or let thinking.answer_open lead to one")  # fmt: skip
    right = [(p, g.answer) for p, g in grades if g.correct]
    other = [a for p, a in right if a not in right_texts(p)]
    if other and 2 * len(other) >= missed:
        return f"right answers that no reference has, such as {other[0]!r}; list them"
    return (
        "the model writes the references in tokens that are not scored; check "
        "thinking.answer_open and thinking.answer_close against the tokenizer"
    )
