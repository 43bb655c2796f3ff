"""Rollouts: a sampled output read as trace, episodes and answer, within the budget C0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from mrtlib.config import Thinking
from mrtlib.episodes import find_tag, find_trace, segment_with_makers
from mrtlib.models.sampling import Sample
from mrtlib.models.tokens import Joiner, think_ids
from mrtlib.store import TRACE
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Grade, Problem


@dataclass(frozen=True)
class Rollout:
    """One output for one problem. All lengths are in tokens as they were sampled."""

    problem: Problem
    prompt_ids: list[int]
    token_ids: list[int]  # all that was kept of the output, the end token included
    trace_tokens: int  # thinking tokens, before the closing tag or the end token
    closed: bool  # thinking was closed by its tag within the budget
    ended: bool  # the output ended within the budget and its thinking was never closed
    boundaries: list[int]  # t_1 ... t_k; empty for an empty trace
    # For each boundary the tokens of the output up to its maker, and with it: the token that opens
    # the next episode, or ends the trace. An empty trace has one, for the token that ends it.
    maker_ends: list[int]
    grade: Grade  # of the answer behind the closing tag

    @property
    def trace_ids(self) -> list[int]:
        """The thinking part, without its closing tag."""
        return self.token_ids[: self.trace_tokens]

    @property
    def truncated(self) -> bool:
        """Whether the budget ended before the thinking did."""
        return not self.closed and not self.ended

    def labels(self, method: str, seed: int, sample: int) -> dict[str, Any]:
        """Return the columns `TRACE`, which name one trace in every table."""
        values = method, seed, self.problem.level, self.problem.id, sample
        return dict(zip(TRACE, values, strict=True))


class Reader:
    """Reads samples as rollouts, with one tokenizer and the settings of one profile."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking) -> None:
        self.tokenizer, self.thinking = tokenizer, thinking
        self.joiner = Joiner(tokenizer)
        self.decode = self.joiner.decode
        close_ids = think_ids(tokenizer, thinking)[1]
        # The token that closes the thinking; none where the tag takes several, which its
        # neighbours may be merged with.
        self.close_ids = close_ids if len(close_ids) == 1 else []
        self.end_ids = getattr(tokenizer, "end_ids", {tokenizer.eos_token_id})

    def trace(self, token_ids: Sequence[int]) -> tuple[int, bool, bool]:
        """Return (tokens of the trace, whether it was closed, whether the output ended inside it).

        An end token inside the thinking ends the output; it is no part of the trace.
        """
        length, closing = self._closed(token_ids)
        closed = closing > 0
        ended = not closed and length > 0 and token_ids[-1] in self.end_ids
        return length - ended, closed, ended

    def _closed(self, token_ids: Sequence[int]) -> tuple[int, int]:
        """Return the tokens before the closing tag, and those of the tag: none without one."""
        if self.close_ids:
            length, closed = find_trace(token_ids, self.close_ids)
            return length, int(closed)
        start, end = find_tag(token_ids, self.decode, self.thinking.close_tag)
        return start, end - start

    def within_budget(self, sample: Sample, budget: int | None = None) -> Sample:
        """Cut a sample at the budget unless its thinking closed, or the output ended, by then.

        Args:
            budget: in thinking tokens; C0 if it is not given.
        """
        length, closed, ended = self.trace(sample.token_ids)
        budget = budget or self.thinking.budget
        if (closed or ended) and length <= budget:
            return sample
        return replace(
            sample, token_ids=sample.token_ids[:budget], logprobs=sample.logprobs[:budget],
            finished=False,
        )  # fmt: skip

    def read(self, problem: Problem, prompt_ids: list[int], sample: Sample) -> Rollout:
        """Read a sample as a rollout.

        An answer stands behind the closing tag. A rollout without one has no answer and is wrong,
        whatever stands in its trace: its grade's reason is "truncated" where the thinking was cut
        at the budget, "ended" where the output ended inside it.
        """
        kept = self.within_budget(sample).token_ids
        length, closed, ended = self.trace(kept)
        boundaries, makers = segment_with_makers(kept[:length], self.decode, self.thinking)
        last = length + (self._closed(kept)[1] if closed else int(ended))  # what ends the trace
        makers = [n if n <= length else last for n in makers or [last]]
        result = Grade(False, None, "ended" if ended else "truncated")
        if closed:
            result = grade(problem, self.decode(kept[length:]))
        return Rollout(problem, prompt_ids, kept, length, closed, ended, boundaries, makers, result)

    def row(self, rollout: Rollout, method: str, seed: int, sample: int) -> dict[str, Any]:
        """Return the rollout's row of the `rollouts` schema."""
        same = ("prompt_ids", "token_ids", "trace_tokens", "closed", "ended", "truncated",
                "boundaries")  # fmt: skip
        return rollout.labels(method, seed, sample) | {n: getattr(rollout, n) for n in same} | {
            "text": self.decode(rollout.token_ids), "answer": rollout.grade.answer,
            "correct": rollout.grade.correct, "episodes": len(rollout.boundaries),
        }  # fmt: skip


def of_record(row: Mapping[str, Any], problem: Problem) -> Rollout:
    """Return the rollout of one record of the `rollouts` schema."""
    bounds = [int(t) for t in row["boundaries"]]
    return Rollout(
        problem, [int(i) for i in row["prompt_ids"]], [int(i) for i in row["token_ids"]],
        int(row["trace_tokens"]), bool(row["closed"]), bool(row["ended"]), bounds, [],
        Grade(bool(row["correct"]), row["answer"], ""),
    )  # fmt: skip
