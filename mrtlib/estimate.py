"""J of rollouts by the estimator that the profile names, what it cost, and whether exact is right.

Exact J is blind to right answers that are not among the spellings of a reference. So a run first
compares it with sampled J on a few traces, and goes on with `sampled` where they disagree.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from mrtlib import prover
from mrtlib.config import Profile
from mrtlib.kept import Kept
from mrtlib.passes import counted
from mrtlib.probes import Probe, ProverError, Termination, check_references
from mrtlib.problems import Grade, Problem, grade
from mrtlib.rollouts import Reader, Rollout
from mrtlib.sampling import TransformersSampler
from mrtlib.self_check import obstacle
from mrtlib.store import read_json, write_json

LONG = 512  # tokens of a budget from which a rollout's cache is kept for the prover
TRACES = 8  # on which exact and sampled J are compared
CHANCE = 1e-3  # of honest draws, below which the two disagree


@dataclass(frozen=True)
class Measured:
    """J of some rollouts, and the tokens that went through the model for it."""

    found: list[np.ndarray | prover.Counts]  # for each rollout, exact or sampled
    drawn: int  # tokens of answers that were generated
    read: int  # all others: prefixes, termination texts, references, padding

    @property
    def J(self) -> list[np.ndarray]:
        """For each rollout J_0 ... J_k."""
        return [prover.J_of(found) for found in self.found]


@dataclass(frozen=True)
class Comparison:
    """Exact and sampled J of the same boundaries: `chance` bounds what honest draws would give."""

    answers: int
    exact: float  # mean J
    sampled: float  # share of right answers
    chance: float
    cause: str  # what a disagreement comes from, "" without one


class Estimator:
    """Measures J at every boundary of rollouts, as `profile.prover` says."""

    def __init__(self, profile: Profile, reader: Reader) -> None:
        self.profile, self.reader = profile, reader
        self.termination = Termination(reader.joiner, profile.thinking)
        self.compared: Comparison | None = None

    def check(self, problems: Sequence[Problem]) -> None:
        """Raise ProverError for a problem whose references could not be scored, naming it."""
        for problem in problems if self.exact else ():
            if not all(text.strip() for text in problem.references):
                raise ProverError(f"problem {problem.id}: a reference is empty; remove it")
            try:
                check_references(self.reader.references(problem))
            except ProverError as error:
                raise ProverError(f"problem {problem.id}: {error}") from error

    @property
    def exact(self) -> bool:
        """Whether J is scored from references; if not, answers are drawn and graded."""
        agreed = self.compared is None or not self.compared.cause
        return self.profile.prover.estimator == "exact" and agreed

    def uses_caches(self, model: PreTrainedModel, tokens: int) -> bool:
        """Say whether caches of so many tokens are worth keeping from sampling for `measure`.

        They spare it the prefixes, and are copies. Where a trace is hardly longer than the
        termination texts and references behind it, that gains little; and no more tokens are kept
        than a packed pass may hold.
        """
        prover, budget = self.profile.prover, self.profile.thinking.budget
        fits = budget >= LONG and tokens <= prover.pack_tokens
        return self.exact and fits and not obstacle(model)

    def measure(
        self,
        model: PreTrainedModel,
        rollouts: Sequence[Rollout],
        seed: int,
        kept: Sequence[Kept] | None = None,
    ) -> Measured:
        """Measure J of rollouts under the model's present weights.

        Args:
            seed: for answers that are drawn.
            kept: the rollouts' caches from sampling with these weights.
        """
        return self.of_probes(
            model, self.probes(rollouts), [r.problem for r in rollouts], seed, kept
        )

    def of_probes(
        self,
        model: PreTrainedModel,
        probes: list[Probe],
        problems: list[Problem],
        seed: int,
        kept: Sequence[Kept] | None = None,
    ) -> Measured:
        """Measure J where probes are cut; one problem a probe."""
        with counted(model) as fed:
            if self.exact:
                found, drawn = self._exact(model, probes, kept), 0
            else:
                found = self._sampled(model, probes, problems, seed, grade)
                drawn = sum(int(counts.tokens.sum()) for counts in found)
        return Measured(found, drawn, sum(fed) - drawn)

    def probes(self, rollouts: Sequence[Rollout]) -> list[Probe]:
        """Return each rollout's trace, cut at its own boundaries, with its references."""
        return [self.reader.probe(rollout) for rollout in rollouts]

    def _exact(
        self, model: PreTrainedModel, probes: list[Probe], kept: Sequence[Kept] | None = None
    ) -> list[np.ndarray]:
        settings, way = self.profile.prover, prover.exact_for(model)
        more = {"kept": kept} if way is prover.exact else {}
        limits = settings.temperature, settings.pack_tokens
        return way(model, probes, self.termination, *limits, **more)

    def _sampled(
        self,
        model: PreTrainedModel,
        probes: list[Probe],
        problems: list[Problem],
        seed: int,
        graded: Callable[[Problem, str], Grade],
    ) -> list[prover.Counts]:
        tokenizer, settings = self.reader.tokenizer, self.profile.prover
        rows = self.profile.evaluation.batch_rows
        return prover.sampled(
            TransformersSampler(model, tokenizer.pad_token_id, rows), probes, problems,
            self.termination, graded,
            answers=settings.samples, max_tokens=self.profile.thinking.answer_tokens,
            temperature=settings.temperature, top_p=1.0, stop_ids=self.reader.end_ids, seed=seed,
        )  # fmt: skip

    def agree(
        self, model: PreTrainedModel, rollouts: Sequence[Rollout], seed: int, record: Path
    ) -> None:
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
        few = list(rollouts)[:: max(1, len(rollouts) // TRACES)][:TRACES]
        self.compared = found = self.compare(model, few, seed)
        write_json(record, asdict(found))
        if found.cause:
            print(
                f"exact J is {found.exact:.3f} on {len(few)} traces where {found.sampled:.3f} of "
                f"{found.answers} sampled answers are right: {found.cause}. This run goes on with "
                f"sampled J, {self.profile.prover.samples} answers a boundary",
                flush=True,
            )

    def compare(
        self, model: PreTrainedModel, rollouts: Sequence[Rollout], seed: int
    ) -> Comparison:
        """Compare exact and sampled J at all boundaries of some rollouts."""
        probes, problems = self.probes(rollouts), [r.problem for r in rollouts]
        grades: list[tuple[Problem, Grade]] = []

        def graded(problem: Problem, text: str) -> Grade:
            grades.append((problem, grade(problem, text)))
            return grades[-1][1]

        counts = self._sampled(model, probes, problems, seed, graded)
        J = np.concatenate(self._exact(model, probes)).clip(0, 1)
        right = np.concatenate([c.right for c in counts])
        natural = np.array([p.kind(j) == "natural" for p in probes for j in range(len(p.ends))])
        answers = self.profile.prover.samples
        groups = [kind for kind in (natural, ~natural) if kind.any()]
        chance = min(_chance(J[kind], right[kind], answers) for kind in groups) * len(groups)
        missed = float((right - answers * J).sum())
        cause = _cause(missed, grades) if chance < CHANCE else ""
        return Comparison(
            len(grades), float(J.mean()), float(right.sum() / len(grades)), min(1.0, chance), cause
        )


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
