"""Where rollouts begin: at a problem, or behind a prefix of a trace that an older policy wrote.

The contexts of MRT's objective (arXiv 2503.07572, Eq. 2) come from an old policy. Here they are
records: one trace for each problem of the next steps, sampled when an outer iteration begins, each
cut at an episode boundary that is drawn at random. T thinking tokens of a prefix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrtlib.models.sampling import Sample
from mrtlib.prover.probes import Termination
from mrtlib.rollouts import Reader, Rollout, of_record
from mrtlib.shards import Shards
from mrtlib.store import read_json, write_json
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Problem
from mrtlib.training.ranks import Ranks


@dataclass(frozen=True)
class Start:
    """What the model reads before it writes; nothing of it is learned."""

    prompt_ids: list[int]  # problem, prefix and, where the model is made to answer, the ending
    prefix: tuple[int, ...] = ()  # (T,) the thinking tokens among them
    answers: bool = False  # the model is made to answer here

    def room(self, budget: int, answer_tokens: int) -> int:
        """Return how many tokens the model may write."""
        return answer_tokens + (0 if self.answers else budget - len(self.prefix))

    def within(self, sample: Sample, reader: Reader, budget: int, answer_tokens: int) -> Sample:
        """Return what counts of a sample: thinking up to the budget, an answer up to its own."""
        if self.answers:
            return _first(sample, answer_tokens)
        whole = reader.within_budget(self._joined(sample), budget)
        return _first(sample, len(whole.token_ids) - len(self.prefix))

    def rollout(
        self, problem: Problem, prompt: list[int], sample: Sample, reader: Reader,
        termination: Termination,
    ) -> Rollout:  # fmt: skip
        """Read a sample as a rollout of the problem; its trace begins with the prefix."""
        if not self.answers:
            return reader.read(problem, prompt, self._joined(sample))
        size = len(self.prefix)
        result = grade(problem, termination.answer(sample.token_ids))
        return Rollout(problem, prompt, [*self.prefix, *sample.token_ids], size, True, False,
                       [size] if size else [], [size], result)  # fmt: skip

    def _joined(self, sample: Sample) -> Sample:
        before = [0.0] * len(self.prefix)
        return replace(sample, token_ids=[*self.prefix, *sample.token_ids],
                       logprobs=[*before, *sample.logprobs])  # fmt: skip


def _first(sample: Sample, size: int) -> Sample:
    if len(sample.token_ids) <= size:
        return sample
    return Sample(sample.token_ids[:size], sample.logprobs[:size], finished=False)


class Spent(NamedTuple):
    """Tokens that a process spent on the traces of an outer iteration."""

    generated: float
    sampled: float  # through the model while it was sampled from


NOTHING = Spent(0, 0)


class StalePrefixes:
    """One trace for each problem of an outer iteration, as its first step's policy wrote it."""

    def __init__(self, folder: Path, upcoming: Sequence[Sequence[Problem]], every: int) -> None:
        """Keep the records in `folder`.

        Args:
            upcoming: the problems of each step of the run.
            every: steps of an outer iteration.
        """
        self.shards, self.upcoming, self.every = Shards(folder, "rollouts"), upcoming, every
        self.iteration, self.traces = -1, {}

    def refresh(
        self, step: int, sample: Callable[[list[Problem]], tuple[list[Rollout], Spent]],
        row: Callable, ranks: Ranks,
    ) -> Spent:
        """Bring the traces up to the step's outer iteration; return what they cost this process.

        The step that an iteration begins with pays for its traces, also where it is made again by
        a run that was cut and finds them there.

        Args:
            sample: draws a rollout for each of some problems from the present policy; processes
                may share them, and each gets all, with what it spent itself.
            row: turns a rollout into a record of the `rollouts` schema.
            ranks: the processes of the run; one of them writes, and pays for all.
        """
        if step // self.every == self.iteration:
            return NOTHING
        self.iteration = step // self.every
        first = self.iteration * self.every
        problems = {p.id: p for some in self.upcoming[first : first + self.every] for p in some}
        key = f"iteration-{self.iteration:04d}"
        price = self.shards.directory / f"{key}.json"
        paid = price.is_file() or step != first
        if not (self.shards.has(key) and paid):  # for all processes alike: one writes for all
            drawn, spent = sample(list(problems.values()))
            whole = ranks.sums(spent._asdict())
            if ranks.writes:
                write_json(price, whole)  # first: once the traces are there, so is their price
                self.shards.write(key, [row(rollout) for rollout in drawn])
            ranks.wait()
        # A run that was cut reads what it has: its policy may be a later one by now.
        records = self.shards.read([key]).to_dict("records")
        self.traces = {r["problem"]: of_record(r, problems[r["problem"]]) for r in records}
        pays = step == first and ranks.writes
        return Spent(**read_json(price)) if pays else NOTHING

    def prefix(self, problem: Problem, seed: int) -> Rollout:
        """Return the problem's trace cut at t_0 or another boundary but its last, drawn by seed."""
        trace = self.traces[problem.id]
        ends = [0, *trace.boundaries[:-1]]
        end = ends[np.random.default_rng([seed, *problem.id.encode()]).integers(len(ends))]
        return replace(trace, boundaries=[end] if end else [], trace_tokens=end, closed=False,
                       token_ids=trace.token_ids[:end])  # fmt: skip


def group_starts(
    prefix: Rollout, count: int, answering: int, probe_prompt: Callable[[Rollout], list[int]]
) -> list[Start]:
    """Return the starts of a group that shares a prefix: those that go on, then those that answer.

    Args:
        count: rollouts of the group, `answering` of them made to answer.
        probe_prompt: returns what the meta-prover reads behind the prefix.
    """
    thought = tuple(prefix.token_ids)
    on = Start([*prefix.prompt_ids, *thought], thought)
    answer = Start(probe_prompt(prefix), thought, answers=True) if answering else on
    return [on] * (count - answering) + [answer] * answering
