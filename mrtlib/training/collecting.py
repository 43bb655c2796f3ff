"""The rollouts of a step: drawn in batches, read, and measured while their caches are at hand.

The keys and values of a batch exist when it has been sampled, under the weights that J is asked
of; so J is measured right then, and the next batch has the memory. B rollouts.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mrtlib.config import Profile
from mrtlib.credit import Curve
from mrtlib.models.caches import Kept
from mrtlib.models.sampling import Sample, Sampler
from mrtlib.prover.prover import Measurement, Prover
from mrtlib.rollouts import Rollout
from mrtlib.tasks.problems import Problem
from mrtlib.training import payment
from mrtlib.training.methods import Method
from mrtlib.training.ranks import ALONE, Ranks
from mrtlib.training.starts import Start

# From the seed of a step's rollouts to that of its answers at cuts, of its sampled J, of the
# comparison of exact with sampled J at the start, and of the traces that later rollouts begin with.
CUTS, ANSWERS, COMPARISON, STALE = 250_000, 500_000, 750_000, 875_000

Drawn = tuple[list[Sample], list[Kept] | None]


@dataclass
class Collected:
    """Rollouts, and what they took; of a step of several processes, this one's part."""

    starts: list[Start] = field(default_factory=list)  # (B,)
    samples: list[Sample] = field(default_factory=list)  # (B,) what was written behind the starts
    rollouts: list[Rollout] = field(default_factory=list)  # (B,)
    found: Measurement = field(default_factory=lambda: Measurement([], 0, 0))
    curves: list[Curve] = field(default_factory=list)  # (B,) where J was measured
    places: list[list[int] | None] = field(default_factory=list)  # (B,) budgets, for some methods
    sampled: int = 0  # tokens through the model for the samples
    sampling_s: float = 0.0
    probing_s: float = 0.0

    @property
    def written(self) -> int:
        """Tokens that were generated for the rollouts."""
        return sum(len(rollout.token_ids) - len(start.prefix)
                   for rollout, start in zip(self.rollouts, self.starts, strict=True))  # fmt: skip

    def add(self, found: Measurement) -> None:
        """Add what was measured of further rollouts."""
        old = self.found
        self.found = Measurement(
            [*old.found, *found.found], old.drawn + found.drawn, old.read + found.read
        )


@dataclass(frozen=True)
class Collector:
    """What draws and measures the rollouts of one step."""

    profile: Profile
    form: Method
    prover: Prover
    sampler: Sampler  # of the policy: the prover's model, or servers
    ranks: Ranks = ALONE

    def collect(
        self, problems: Sequence[Problem], prompts: Sequence[list[int]], starts: list[Start],
        seeds: tuple[int, int], budget: int, agree: Callable[[list[Rollout]], None] | None,
    ) -> Collected:  # fmt: skip
        """Return a rollout for each start, with J along it where it is wanted.

        Args:
            problems, prompts: (B,) of the starts, and what the model reads of each.
            seeds: of the rollouts, and of answers that are drawn.
            budget: thinking tokens at most.
            agree: compares exact with sampled J on a few rollouts before the first measurement;
                None where J is not measured.
        """
        out, first = Collected(starts=starts), self.ranks.before(len(starts))
        most = max(start.room(budget, self.profile.thinking.answer_tokens) for start in starts)
        longest = most + max(len(start.prompt_ids) for start in starts)
        size = self.profile.training.sampling_rows or len(starts)
        for part in np.array_split(range(len(starts)), -(-len(starts) // size)):
            rows = slice(part[0], part[-1] + 1)
            keeps = agree and self.local and self.prover.uses_caches(longest * len(part))
            before, began = self.sampler.tokens, time.perf_counter()
            samples, kept = self.draw(starts[rows], seeds[0], budget, first + rows.start, keeps)
            out.sampling_s += time.perf_counter() - began
            out.sampled += self.sampler.tokens - before
            rollouts = self.read(starts[rows], problems[rows], prompts[rows], samples)
            out.samples, out.rollouts = out.samples + samples, out.rollouts + rollouts
            if agree:
                began = time.perf_counter()
                agree(rollouts)
                out.probing_s += time.perf_counter() - began
            if agree and self.prover.is_exact:
                self.measure(rollouts, seeds[1], kept, out)
        if agree and not out.curves:  # answers are drawn behind all rollouts at once
            self.measure(out.rollouts, seeds[1], None, out)
        return out

    def read(
        self, starts: Sequence[Start], problems: Sequence[Problem], prompts: Sequence[list[int]],
        samples: Sequence[Sample],
    ) -> list[Rollout]:  # fmt: skip
        """Return what was drawn behind each start as a rollout of its problem, graded."""
        reader, ending = self.prover.reader, self.prover.termination
        return [start.rollout(problem, prompt, sample, reader, ending)
                for start, problem, prompt, sample in zip(
                    starts, problems, prompts, samples, strict=True)]  # fmt: skip

    @property
    def local(self) -> bool:
        """Whether sampling leaves caches in this process."""
        return hasattr(self.sampler, "sample_and_keep")

    def draw(
        self, starts: list[Start], seed: int, budget: int, first: int, keep: bool = False
    ) -> Drawn:
        """Draw one continuation of each start, and keep their caches if told so.

        Args:
            first: the place of the first of them among all rows.
        """
        thinking, reader = self.profile.thinking, self.prover.reader
        most = max(start.room(budget, thinking.answer_tokens) for start in starts)
        prompts = [start.prompt_ids for start in starts]
        settings = most, self.profile.training.temperature, 1.0, reader.end_ids, seed, first
        if keep:
            drawn, kept = self.sampler.sample_and_keep(prompts, *settings)
        else:
            drawn, kept = [s[0] for s in self.sampler.sample(prompts, 1, *settings)], None
        return [start.within(sample, reader, budget, thinking.answer_tokens)
                for start, sample in zip(starts, drawn, strict=True)], kept  # fmt: skip

    def measure(
        self, rollouts: list[Rollout], seed: int, kept: list[Kept] | None, out: Collected
    ) -> None:
        """Measure J of some rollouts, at their boundaries or at budgets, and add it to the rest."""
        began = time.perf_counter()
        places: list[list[int] | None] = [None] * len(rollouts)
        measured = rollouts
        if self.form.at_budgets:
            cuts = self.profile.training.cuts
            places = [payment.budget_places(r, self.profile.thinking.budget, cuts)
                      for r in rollouts]  # fmt: skip
            measured = [replace(r, boundaries=sorted({t for t in own if t}))
                        for r, own in zip(rollouts, places, strict=True)]  # fmt: skip
        probed = sum(1 + len(r.boundaries) for r in measured)
        first = 0 if self.prover.is_exact else self.ranks.before(probed)
        found = self.prover.measure(measured, seed, kept, first)
        out.add(found)
        out.places += places
        if self.form.at_budgets:
            out.curves += payment.at_budgets(found.J, places)
        else:
            out.curves += [(J, np.array([0, *r.boundaries]))
                           for J, r in zip(found.J, rollouts, strict=True)]  # fmt: skip
        out.probing_s += time.perf_counter() - began
