"""J of a step's rollouts by the estimator that the profile names, and what it cost in tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from mrtlib import prover
from mrtlib.config import Profile
from mrtlib.kept import Kept
from mrtlib.passes import counted
from mrtlib.probes import Probe, ProverError, Termination
from mrtlib.problems import Problem, grade
from mrtlib.rollouts import Reader, Rollout
from mrtlib.sampling import TransformersSampler
from mrtlib.self_check import obstacle

LONG = 512  # tokens of a budget from which a rollout's cache is kept for the prover


@dataclass(frozen=True)
class Measured:
    """J of some rollouts, and the tokens that went through the model for it."""

    J: list[np.ndarray]  # for each rollout J_0 ... J_k
    drawn: int  # tokens of answers that were generated
    read: int  # all others: prefixes, termination texts, references, padding


class Estimator:
    """Measures J at every boundary of rollouts, as `profile.prover` says."""

    def __init__(self, profile: Profile, reader: Reader) -> None:
        self.profile, self.reader = profile, reader
        self.termination = Termination.build(reader.tokenizer, profile.thinking)

    def check(self, problems: Sequence[Problem]) -> None:
        """Raise ProverError for a problem whose references could not be scored, naming it."""
        for problem in problems if self.exact else ():
            try:
                self.termination.answers(Probe([0], [], [], False, self.reader.references(problem)))
            except ProverError as error:
                raise ProverError(f"problem {problem.id}: {error}") from error

    @property
    def exact(self) -> bool:
        """Whether J is scored from references; if not, answers are drawn and graded."""
        return self.profile.prover.estimator == "exact"

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
        probes = self.probes(rollouts)
        with counted(model) as fed:
            J, drawn = (
                self._exact(model, probes, kept) if self.exact
                else self._sampled(model, probes, [r.problem for r in rollouts], seed)
            )  # fmt: skip
        return Measured(J, drawn, sum(fed) - drawn)

    def probes(self, rollouts: Sequence[Rollout]) -> list[Probe]:
        """Return each rollout's trace, cut at its own boundaries, with its references."""
        read = self.reader.references
        return [
            Probe(r.prompt_ids, r.trace_ids, r.boundaries, r.closed, read(r.problem))
            for r in rollouts
        ]

    def _exact(
        self, model: PreTrainedModel, probes: list[Probe], kept: Sequence[Kept] | None
    ) -> tuple[list[np.ndarray], int]:
        settings, way = self.profile.prover, prover.exact_for(model)
        more = {"kept": kept} if way is prover.exact else {}
        limits = settings.temperature, settings.pack_tokens
        return way(model, probes, self.termination, *limits, **more), 0

    def _sampled(
        self, model: PreTrainedModel, probes: list[Probe], problems: list[Problem], seed: int
    ) -> tuple[list[np.ndarray], int]:
        tokenizer, settings = self.reader.tokenizer, self.profile.prover
        rows = self.profile.evaluation.batch_rows
        counts = prover.sampled(
            TransformersSampler(model, tokenizer.pad_token_id, rows), probes, problems,
            self.termination, grade, self.reader.decode,
            answers=settings.samples, max_tokens=self.profile.thinking.answer_tokens,
            temperature=settings.temperature, top_p=1.0, stop_ids={tokenizer.eos_token_id},
            seed=seed,
        )  # fmt: skip
        return [c.J for c in counts], sum(int(c.tokens.sum()) for c in counts)
