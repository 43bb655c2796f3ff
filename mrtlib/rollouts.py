"""Rollouts: a sampled output read as trace, episodes and answer, within a budget of thinking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from mrtlib.config import Thinking
from mrtlib.episodes import find_trace, segment_settled
from mrtlib.models.sampling import Sample
from mrtlib.models.tokens import Joiner, think_ids
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Grade, Problem


@dataclass(frozen=True)
class Rollout:
    """One output for one problem. All lengths are tokens as they were sampled."""

    problem: Problem
    prompt_ids: list[int]
    token_ids: list[int]  # all that was kept of the output, the end token included
    trace_tokens: int  # thinking tokens, before the closing tag or the end token
    closed: bool  # thinking was closed by its tag within the budget
    ended: bool  # the output ended within the budget and its thinking was never closed
    boundaries: list[int]  # t_1 ... t_k; empty for an empty trace
    settled: list[int]  # for each boundary, the tokens of the output that had been written when
    # it was certain to be one: with the token that opens the next episode, or ends the trace; an
    # empty trace has one for the token that ends it
    grade: Grade  # of the answer behind the closing tag

    @property
    def trace_ids(self) -> list[int]:
        """The thinking part, without its closing tag."""
        return self.token_ids[: self.trace_tokens]

    @property
    def truncated(self) -> bool:
        """Whether the budget ended before the thinking did."""
        return not self.closed and not self.ended


class Reader:
    """Reads samples as rollouts with one tokenizer and one way to think."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking) -> None:
        self.tokenizer, self.thinking = tokenizer, thinking
        self.joiner = Joiner(tokenizer)
        self.decode = self.joiner.decode
        self.close_ids = think_ids(tokenizer, thinking)[1]
        self.end_ids = {tokenizer.eos_token_id}

    def trace(self, token_ids: Sequence[int]) -> tuple[int, bool, bool]:
        """Return (tokens of the trace, whether it was closed, whether the output just ended).

        An end token inside the thinking ends the output; it is no part of the trace.
        """
        length, closed = find_trace(token_ids, self.close_ids)
        ended = not closed and length > 0 and token_ids[-1] in self.end_ids
        return length - ended, closed, ended

    def within_budget(self, sample: Sample) -> Sample:
        """Cut a sample at the budget unless its thinking closed, or the output ended, by then."""
        length, closed, ended = self.trace(sample.token_ids)
        budget = self.thinking.budget
        if (closed or ended) and length <= budget:
            return sample
        return replace(
            sample, token_ids=sample.token_ids[:budget], logprobs=sample.logprobs[:budget],
            finished=False,
        )  # fmt: skip

    def read(self, problem: Problem, prompt_ids: list[int], sample: Sample) -> Rollout:
        """Read a sample as a rollout.

        An answer stands behind the closing tag. So one whose thinking was cut at the budget
        (reason "truncated") and one that ended inside its thinking ("ended") have none and are
        wrong, whatever stands in the trace.
        """
        kept = self.within_budget(sample).token_ids
        length, closed, ended = self.trace(kept)
        boundaries, known = segment_settled(kept[:length], self.decode, self.thinking)
        over = length + (len(self.close_ids) if closed else int(ended))  # the trace has ended
        known = [n if n <= length else over for n in known or [over]]
        result = Grade(False, None, "ended" if ended else "truncated")
        if closed:
            result = grade(problem, self.decode(kept[length:]))
        return Rollout(
            problem, prompt_ids, kept, length, closed, ended, boundaries, known, result
        )

    def row(self, rollout: Rollout, method: str, seed: int, sample: int) -> dict:
        """Return the rollout's row of the `rollouts` schema."""
        return {
            "method": method,
            "seed": seed,
            "level": rollout.problem.level,
            "problem": rollout.problem.id,
            "sample": sample,
            "prompt_ids": rollout.prompt_ids,
            "token_ids": rollout.token_ids,
            "text": self.decode(rollout.token_ids),
            "trace_tokens": rollout.trace_tokens,
            "closed": rollout.closed,
            "ended": rollout.ended,
            "truncated": rollout.truncated,
            "answer": rollout.grade.answer,
            "correct": rollout.grade.correct,
            "boundaries": rollout.boundaries,
            "episodes": len(rollout.boundaries),
        }


def of_record(row: Mapping[str, Any], problem: Problem) -> Rollout:
    """Return the rollout of one record of the `rollouts` schema."""
    bounds = [int(t) for t in row["boundaries"]]
    return Rollout(
        problem, [int(i) for i in row["prompt_ids"]], [int(i) for i in row["token_ids"]],
        int(row["trace_tokens"]), bool(row["closed"]), bool(row["ended"]), bounds, [],
        Grade(bool(row["correct"]), row["answer"], ""),
    )  # fmt: skip
