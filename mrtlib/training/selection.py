"""One sampled step of the fine-tuning forms: rollouts, their J, and what of them is learned.

G rollouts a group; B of a step, groups one after the other. A trace has k episodes.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedModel

from mrtlib import regret
from mrtlib.credit import DROPPED, Curve
from mrtlib.models.quantization import Twin
from mrtlib.models.sampling import Sample, TransformersSampler
from mrtlib.models.server import server_sampler
from mrtlib.prover.probes import BLANK_LINE
from mrtlib.prover.prover import Measurement, Prover
from mrtlib.rollouts import Rollout
from mrtlib.training.collecting import ANSWERS, COMPARISON, CUTS
from mrtlib.training.source import Source

UNMEASURED = Measurement([], 0, 0)


@dataclass(frozen=True)
class Form:
    """A form: how many episodes are kept of each rollout of a group, and whether that needs J."""

    kept: Callable[[ArrayLike, Sequence[Curve]], NDArray[np.int64]]  # (r, curves) -> (G,)
    needs_J: bool


@dataclass(frozen=True)
class Step:
    """One sampled step: its columns of the `steps` schema, its rollouts, what is learned of it."""

    columns: dict[str, Any]
    generated: int  # tokens
    rollouts: list[Rollout]
    kept: list[Rollout]


class Sampling:
    """What one round samples and measures with: the policy of the round before."""

    def __init__(
        self, source: Source, form: Form, policy: PreTrainedModel, record: Path,
        adapter: Path | None = None,
    ) -> None:  # fmt: skip
        """Keep the policy, or its plain twin where the profile has one.

        Args:
            record: file of the run's comparison of exact with sampled J.
            adapter: folder of the policy's, for servers that draw; None for the base.
        """
        profile = self.profile = source.profile
        self.source, self.form, self.record, self.reader = source, form, record, source.reader
        self.model = Twin(policy).model if profile.model.twin else policy
        source.check_room(self.model.config)
        rows = profile.training.problems_per_step * profile.training.group_size
        served = server_sampler(profile, adapter)
        self.sampler = served or TransformersSampler(
            self.model, source.tokenizer.pad_token_id, rows
        )
        self.prover = Prover(self.model, source.tokenizer, profile, served, source.reader)

    def step(self, number: int, indices: Sequence[int]) -> Step:
        """Sample a group for each of these problems, and choose; steps are counted from 0."""
        seed = 1_000_003 * self.source.seed + number
        watched = self.form.needs_J or number % self.profile.training.watch_every == 0
        began, before = time.perf_counter(), self.sampler.tokens
        rollouts = self._rollouts(indices, seed)
        middle, sampled = time.perf_counter(), self.sampler.tokens - before
        if watched:
            self.agree(rollouts, seed)
        found = self.prover.measure(rollouts, seed + ANSWERS) if watched else UNMEASURED
        after, before = time.perf_counter(), self.sampler.tokens
        kept, answers = self._kept(rollouts, curves_of(rollouts, found), seed + CUTS)
        sampled += self.sampler.tokens - before
        columns = summary(rollouts, found, self.profile.thinking.budget) | {
            "sampling_s": middle - began + time.perf_counter() - after,
            "probing_s": after - middle,
            "sampled": float(sampled), "probed": float(found.read + found.drawn),
        }  # fmt: skip
        generated = sum(len(r.token_ids) for r in rollouts) + found.drawn + answers
        return Step(columns, generated, rollouts, kept)

    def agree(self, rollouts: Sequence[Rollout], seed: int) -> None:
        """Compare exact with sampled J, once in a run, or read what was found.

        Every method spends as many tokens on it, so they are not counted.
        """
        if self.prover.compared is None:
            self.prover.agree(rollouts, seed + COMPARISON, self.record)

    def _rollouts(self, indices: Sequence[int], seed: int) -> list[Rollout]:
        """Sample a group for each problem, as the trainer does."""
        profile, source = self.profile, self.source
        rows = [source.problems[i] for i in indices for _ in range(profile.training.group_size)]
        prompts = [source.prompts[problem.question] for problem in rows]
        drawn = self.sampler.sample(
            prompts, 1,
            profile.thinking.budget + profile.thinking.answer_tokens,
            profile.training.temperature, 1.0, self.reader.end_ids, seed,
        )  # fmt: skip
        return [self.reader.read(problem, prompt, samples[0])
                for problem, prompt, samples in zip(rows, prompts, drawn, strict=True)]  # fmt: skip

    def _kept(
        self, rollouts: list[Rollout], curves: list[Curve], seed: int
    ) -> tuple[list[Rollout], int]:
        """Return what is learned of the groups, and how many tokens of answers were drawn."""
        size, chosen = self.profile.training.group_size, []
        for first in range(0, len(rollouts), size):
            group = slice(first, first + size)
            right = [r.grade.correct for r in rollouts[group]]
            chosen += self.form.kept(right, curves[group]).tolist()
        # A trace that closed itself at its cut has the answer that is drawn there already.
        cut = [n != DROPPED and not (r.closed and n == len(r.boundaries))
               for r, n in zip(rollouts, chosen, strict=True)]  # fmt: skip
        ends = [(r, n) for r, n, c in zip(rollouts, chosen, cut, strict=True) if c]
        shorter, answers = self.cut(ends, seed) if ends else ([], 0)
        found = iter(shorter)
        offered = [next(found) if c else r for r, c in zip(rollouts, cut, strict=True)]
        kept = [r for r, n in zip(offered, chosen, strict=True) if n != DROPPED and r.grade.correct]
        return kept, answers

    def cut(self, ends: Sequence[tuple[Rollout, int]], seed: int) -> tuple[list[Rollout], int]:
        """Close traces behind some of their episodes, and draw one answer for each.

        One and no more, so that a trace is kept as often as its cut is worth: of many answers one
        is right by luck. An answer that does not end is none.

        Args:
            ends: rollouts, and how many episodes of each are left.
        Returns:
            The cut rollouts, right or wrong, and how many tokens were drawn.
        """
        starts = [closed_prefix(self.prover, r, n) for r, n in ends]
        thinking = self.profile.thinking
        drawn = self.sampler.sample(
            starts, 1, thinking.answer_tokens, self.profile.training.temperature, 1.0,
            self.reader.end_ids, seed,
        )  # fmt: skip
        cut = []
        for (r, _), start, (answer,) in zip(ends, starts, drawn, strict=True):
            ids = start[len(r.prompt_ids) :] + answer.token_ids
            shorter = self.reader.read(r.problem, r.prompt_ids, Sample(ids, [], answer.finished))
            right = shorter.grade.correct and answer.finished
            cut.append(replace(shorter, grade=replace(shorter.grade, correct=right)))
        return cut, sum(len(answer.token_ids) for (answer,) in drawn)


def closed_prefix(prover: Prover, rollout: Rollout, episodes: int) -> list[int]:
    """Return prompt, first episodes, and the closing as the model writes it when it has finished.

    A paragraph that the cut left open is ended first.
    """
    prefix = rollout.trace_ids[: rollout.boundaries[episodes - 1] if episodes else 0]
    end = prover.termination
    text = (BLANK_LINE if end.inside_paragraph(prefix) else "") + end.natural(prefix)
    read = [*rollout.prompt_ids, *prefix]
    stay, closing = prover.reader.joiner.behind(read, text, len(prefix))
    return [*read[:stay], *closing]


def curves_of(rollouts: Sequence[Rollout], found: Measurement) -> list[Curve]:
    """Return J (NaN where it was not measured) and boundaries of each rollout.

    Without the last boundary of a truncated one: there the budget ended, and no episode.
    """
    curves = []
    for i, rollout in enumerate(rollouts):
        t = np.array([0, *rollout.boundaries])
        J = found.J[i] if found.found else np.full(len(t), np.nan)
        whole = len(t) - (rollout.truncated and len(t) > 1)
        curves.append((J[:whole], t[:whole]))
    return curves


def summary(rollouts: Sequence[Rollout], found: Measurement, budget: int) -> dict[str, Any]:
    """Return a step's means, those of J None where it was not measured, and what that read."""
    columns = {
        "reward": _mean(r.grade.correct for r in rollouts),
        "length": _mean(r.trace_tokens for r in rollouts),
        "episodes": _mean(len(r.boundaries) for r in rollouts),
        "truncated": _mean(r.truncated for r in rollouts),
        "ended": _mean(r.ended for r in rollouts),
        "prover_tokens": found.read, "progress": None, "regret": None,
    }  # fmt: skip
    if found.found:
        left = [float(regret.normalised_regret(J, [0, *r.boundaries], budget))
                for r, J in zip(rollouts, found.J, strict=True)]  # fmt: skip
        columns |= {"progress": _mean(J[-1] - J[0] for J in found.J), "regret": _mean(left)}
    return columns


def _mean(values: Iterable[float]) -> float:
    """Return the mean of some numbers or truths."""
    return float(np.mean(list(values)))
