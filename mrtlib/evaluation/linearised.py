"""Linearised evaluation: one stream that goes on past the context, against independent samples.

In backtracking search an episode depends on those before it by their last state alone, the steps
that still stand. So when a stream outgrows its window, the oldest episodes can be dropped as long
as the steps that they left stay, and the stream goes on without end. Each of its answers is a vote,
and is taken out of it; then the model is made to find an error and to go back (arXiv 2503.07572,
figure 8).
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import AutoConfig

from mrtlib.config import BACK, STEP, WRONG, Profile
from mrtlib.episodes import Decode, returns_to, token_boundaries
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.models.loading import check_context, work_keys
from mrtlib.models.sampling import Sample
from mrtlib.models.tokens import fetch, prompt_ids
from mrtlib.rollouts import Reader
from mrtlib.shards import Shards, complete
from mrtlib.store import content_seed
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Grade, Problem, ProblemError, as_record, load_problems

SHARD = 64  # problems
NOWHERE = 10**6  # where a line that names an error returns to if it does not say so
OPENING = 16  # tokens that the words which open a line of error may have, whatever the tokenizer
PARALLEL, LINEARISED = WAYS = ("parallel", "linearised")
_LABEL = re.compile(rf"{STEP} ([0-9]{{1,6}}):")


@dataclass(frozen=True)
class Plan:
    """What is compared."""

    problems: int = 50  # the first of each level
    samples: int = 10  # independent ones of each problem
    window: int = 256  # tokens that the model sees at most, prompt and new ones included
    tokens: int = 1024  # of a stream, at least; and as many as all samples of its problem


def plan_of(profile: Profile) -> Plan:
    """Return the plan of a profile: a window of half the model's context, streams of twice it.

    A profile that has fewer problems than a whole plan gets a quick one.
    """
    context, few = context_of(profile), profile.data.test < Plan.problems
    if few:
        return Plan(profile.data.test, samples=4, window=context // 2, tokens=context + 1)
    return Plan(window=context // 2, tokens=2 * context)


def context_of(profile: Profile) -> int:
    """Return how many tokens the profile's model can see."""
    return int(fetch(AutoConfig, profile).max_position_embeddings)


@dataclass(frozen=True)
class Line:
    """One paragraph of a stream, in the tokens that were sampled."""

    ids: tuple[int, ...]
    step: int | None  # n of a line `Step n: ...`
    back: int | None = None  # of a line that names an error: the step that it returns to


def lines_of(ids: Sequence[int], decode: Decode) -> list[Line]:
    """Read tokens as lines; what stands behind the last blank line is none yet and left out.

    Args:
        ids: (T,) as they were sampled.
    """
    text, lines = decode(list(ids)), []
    ends = list(itertools.accumulate(len(part) + 2 for part in text.split("\n\n")[:-1]))
    cuts = token_boundaries(ids, decode, sorted({*ends, len(text)}))
    for first, last in itertools.pairwise([0, *cuts]):
        written = decode(list(ids[first:last]))
        if written.endswith("\n\n"):
            label = _LABEL.match(written)
            step = int(label[1]) if label else None
            back = None
            if written.startswith(WRONG):
                back = returns_to(written)
                back = NOWHERE if back is None else back  # step 0 is a step
            lines.append(Line(tuple(ids[first:last]), step, back))
    return lines


def standing(lines: Iterable[Line]) -> list[Line]:
    """Return the steps that stand behind some lines, in order: the state that an episode needs.

    A return to step n takes n and later ones back, and so does a step that is written again. Lines
    that are no steps do not count.
    """
    steps: list[Line] = []
    for line in lines:
        first = line.step if line.back is None else line.back
        if first is not None:
            steps = [step for step in steps if step.step < first]
        if line.back is None and line.step is not None:
            steps.append(line)
    return steps


def episodes_of(lines: Iterable[Line]) -> list[list[Line]]:
    """Return the episodes of a stream: steps in a row are one, a line that names an error is one.

    These are the episodes of `episodes.by_backtracking`.
    """
    found: list[list[Line]] = []
    for line in lines:
        if found and line.back is None and found[-1][0].back is None:
            found[-1].append(line)
        else:
            found.append([line])
    return found


def window(episodes: Sequence[Sequence[Line]], room: int) -> tuple[int, list[Line]]:
    """Return how many of the oldest episodes are dropped, and the lines that the model still sees.

    As few whole episodes are dropped as will do. Of those only the steps that stand when they end
    are seen: what is left is a solution that might have been written without the detours, followed
    by the newest episodes. If even the steps that stand do not fit, the model starts anew.

    Args:
        room: tokens for these lines.
    """
    for dropped in range(len(episodes) + 1):
        old, new = episodes[:dropped], episodes[dropped:]
        seen = [*standing(itertools.chain(*old)), *itertools.chain(*new)]
        if tokens_of(seen) <= room:
            return dropped, seen
    return len(episodes), []


def tokens_of(lines: Iterable[Line]) -> int:
    """Return the number of tokens of some lines."""
    return sum(len(line.ids) for line in lines)


@dataclass(frozen=True)
class Start:
    """What an attempt of a stream goes on from, behind the prompt."""

    dropped: int  # episodes that have left the window
    seen: list[int]  # tokens of the lines in it
    words: list[int]  # that open a line of error, where the attempt before has ended


@dataclass
class Stream:
    """One problem's stream so far, and what it cost."""

    problem: Problem
    prompt: list[int]
    lines: list[Line] = field(default_factory=list)
    gone: int = 0  # episodes from before it started anew
    answered: bool = False  # its last attempt ended, so that an error has to be found
    tokens: int = 0  # generated
    through: int = 0  # through the model: each attempt reads its window anew
    rows: list[dict[str, Any]] = field(default_factory=list)

    def start(self, reader: Reader, room: int) -> Start:
        """Return what the model goes on from.

        Args:
            room: tokens for prompt, lines and the words that open a line of error.
        """
        words = reader.joiner.encode(BACK) if self.answered else []
        dropped, seen = window(episodes_of(self.lines), room - len(self.prompt) - len(words))
        dropped += self.gone
        if not seen:  # it starts anew
            self.gone, self.lines, words = dropped, [], []
        return Start(dropped, [i for line in seen for i in line.ids], words)

    def take(self, sample: Sample, start: Start, reader: Reader) -> None:
        """Add one attempt: its lines without the answer, its vote, and its cost."""
        kept = reader.within_budget(sample)
        length, closed, ended = reader.trace(kept.token_ids)
        lines = lines_of([*start.words, *kept.token_ids[:length]], reader.decode)
        self.lines += lines
        self.answered = closed or ended or (self.answered and not lines)
        size = len(kept.token_ids)
        read = len(self.prompt) + len(start.seen) + len(start.words) + size
        self.tokens, self.through = self.tokens + size, self.through + read
        found = grade(self.problem, reader.decode(kept.token_ids[length:])) if closed else None
        self.rows.append({
            "sample": 0, "k": len(self.rows), "tokens": self.tokens, "through": self.through,
            "read": read, "dropped": start.dropped, **_vote(found, kept),
        })  # fmt: skip


def _vote(found: Grade | None, sample: Sample) -> dict[str, Any]:
    """Return the columns of an attempt that say what it votes for; nothing without an answer."""
    logprob = float(np.mean(sample.logprobs)) if sample.logprobs else None
    if found is None:
        return {"correct": False, "answer": None, "logprob": logprob}
    return {"correct": found.correct, "answer": found.answer, "logprob": logprob}


@dataclass(frozen=True)
class Comparer:
    """Draws both ways from one model. C0 bounds a sample as it bounds an attempt of a stream."""

    evaluator: Evaluator
    plan: Plan

    def parallel(self, problems: Sequence[Problem], prompts: list[list[int]]) -> list[list[dict]]:
        """Return the rows of each problem's independent samples, without the problem's name."""
        reader, out = self.evaluator.reader, []
        drawn = self._draw(prompts, self.plan.samples, PARALLEL, problems)
        for problem, prompt, samples in zip(problems, prompts, drawn, strict=True):
            rows, tokens = [], 0
            for k, sample in enumerate(map(reader.within_budget, samples)):
                size, found = len(sample.token_ids), reader.read(problem, prompt, sample).grade
                tokens += size
                rows.append({
                    "sample": k, "k": k, "tokens": tokens, "read": len(prompt) + size, "dropped": 0,
                    "through": len(prompt) + tokens,  # the prompt is read once
                    **_vote(found, sample),
                })  # fmt: skip
            out.append(rows)
        return out

    def linearised(
        self, problems: Sequence[Problem], prompts: list[list[int]], goals: Sequence[int]
    ) -> list[list[dict]]:
        """Return the rows of each problem's stream, without the problem's name.

        Args:
            goals: tokens that each stream has at least when it ends.
        """
        reader, room = self.evaluator.reader, self.plan.window - most_tokens(self.evaluator.profile)
        streams, turn = [Stream(*pair) for pair in zip(problems, prompts, strict=True)], 0
        while going := [s for s, goal in zip(streams, goals, strict=True) if s.tokens < goal]:
            starts = [stream.start(reader, room) for stream in going]
            asked = [[*stream.prompt, *start.seen, *start.words]
                     for stream, start in zip(going, starts, strict=True)]  # fmt: skip
            drawn = self._draw(asked, 1, f"{LINEARISED} {turn}", problems)
            for stream, start, samples in zip(going, starts, drawn, strict=True):
                stream.take(samples[0], start, reader)
            turn += 1
        return [stream.rows for stream in streams]

    def rows(self, problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """Return the rows of the `attempts` schema of some problems, both ways."""
        evaluator, thinking = self.evaluator, self.evaluator.profile.thinking
        prompts = [prompt_ids(evaluator.reader.tokenizer, p.question, thinking) for p in problems]
        check_plan(self.plan, evaluator.profile, max(map(len, prompts)))
        check_context(evaluator.prover.model.config, self.plan.window, 0)
        parallel = self.parallel(problems, prompts)
        goals = [max(self.plan.tokens, rows[-1]["tokens"]) for rows in parallel]
        streams = self.linearised(problems, prompts, goals)
        return [
            {"method": evaluator.method, "seed": evaluator.seed, "level": problem.level,
             "problem": problem.id, "way": way, **row}
            for way, groups in zip(WAYS, (parallel, streams), strict=True)
            for problem, rows in zip(problems, groups, strict=True)
            for row in rows
        ]  # fmt: skip

    def _draw(
        self, prompts: list[list[int]], n: int, place: str, problems: Sequence[Problem]
    ) -> list[list[Sample]]:
        """Draw n continuations of each prompt; the seed is that of the place in the comparison."""
        evaluator, settings = self.evaluator, self.evaluator.profile.evaluation
        seed = content_seed(seed=evaluator.seed, at=place, problem=problems[0].id)
        return evaluator.prover.sampler.sample(
            prompts, n, most_tokens(evaluator.profile), settings.temperature, settings.top_p,
            evaluator.reader.end_ids, seed,
        )  # fmt: skip


def most_tokens(profile: Profile) -> int:
    """Return the most tokens of one attempt: the budget C0, and its answer."""
    return profile.thinking.budget + profile.thinking.answer_tokens


def check_plan(plan: Plan, profile: Profile, prompt: int) -> None:
    """Raise ProblemError where a window has no room for prompt, forced words and one attempt."""
    need = prompt + most_tokens(profile) + OPENING
    if plan.window < need:
        raise ProblemError(
            f"a window of {plan.window} tokens is too small for a prompt of {prompt} tokens and an "
            f"attempt of {most_tokens(profile)}; give {need} or more, or lower thinking.budget"
        )


def linearise(
    profile: Profile, method: str, seed: int, adapter: Path | None = None, plan: Plan | None = None
) -> pd.DataFrame:
    """Return the attempts of one model at the first test problems, in parallel and in one stream.

    Goes on from the shards that are there; says how far it is and how long it will take.

    Returns:
        Records of the schema `attempts`, in `profile.runs / "linearised" / METHOD-SEED`.
    """
    plan = plan or Plan()
    problems = load_problems(profile.problems / "test.jsonl", plan.problems)
    parts = [problems[i : i + SHARD] for i in range(0, len(problems), SHARD)]
    contents = [{"problems": [as_record(p) for p in part], "plan": asdict(plan)} for part in parts]
    keys = work_keys(profile, "model evaluation thinking", contents, adapter)

    @cache
    def comparer() -> Comparer:
        """Load the model when there is something to draw."""
        return Comparer(Evaluator.load(profile, method, seed, adapter), plan)

    shards = Shards(profile.runs / "linearised" / f"{method}-{seed}", "attempts")
    complete(
        {"attempts": shards}, keys, lambda i: {"attempts": comparer().rows(parts[i])},
        f"streams of {method}, seed {seed}",
    )  # fmt: skip
    return shards.read(keys)
