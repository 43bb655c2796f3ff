"""Rollouts: a sampled output read as trace, episodes and answer, within a budget of thinking."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from mrtlib.config import Thinking
from mrtlib.episodes import find_trace, segment
from mrtlib.models import think_ids
from mrtlib.problems import Grade, Problem, grade
from mrtlib.sampling import Sample


@dataclass(frozen=True)
class Rollout:
    """One output for one problem. All lengths are tokens as they were sampled."""

    problem: Problem
    prompt_ids: list[int]
    token_ids: list[int]  # all that was kept of the output, the end token included
    trace_tokens: int  # thinking tokens, before the closing tag
    closed: bool  # thinking ended by itself within the budget
    boundaries: list[int]  # t_1 ... t_k; empty for an empty trace
    grade: Grade  # of the answer behind the closing tag

    @property
    def trace_ids(self) -> list[int]:
        """The thinking part, without its closing tag."""
        return self.token_ids[: self.trace_tokens]

    @property
    def truncated(self) -> bool:
        """Whether the budget ended before the thinking did."""
        return not self.closed


class Reader:
    """Reads samples as rollouts with one tokenizer and one way to think."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking) -> None:
        self.tokenizer, self.thinking = tokenizer, thinking
        self.close_ids = think_ids(tokenizer, thinking)[1]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special tokens kept."""
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def references(self, problem: Problem) -> list[list[int]]:
        """Return the token ids of a problem's reference answers."""
        return self.tokenizer(list(problem.references), add_special_tokens=False)["input_ids"]

    def within_budget(self, sample: Sample) -> Sample:
        """Cut a sample at the budget unless its thinking closed by then."""
        length, closed = find_trace(sample.token_ids, self.close_ids)
        budget = self.thinking.budget
        if closed and length <= budget:
            return sample
        return replace(
            sample, token_ids=sample.token_ids[:budget], logprobs=sample.logprobs[:budget],
            finished=False,
        )  # fmt: skip

    def read(self, problem: Problem, prompt_ids: list[int], sample: Sample) -> Rollout:
        """Read a sample as a rollout.

        One whose thinking was cut at the budget has no answer: graded wrong, reason "truncated".
        """
        kept = self.within_budget(sample).token_ids
        length, closed = find_trace(kept, self.close_ids)
        boundaries = segment(kept[:length], self.decode, self.thinking)
        result = Grade(False, None, "truncated")
        if closed:
            result = grade(problem, self.decode(kept[length:]))
        return Rollout(problem, prompt_ids, kept, length, closed, boundaries, result)

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
            "truncated": rollout.truncated,
            "answer": rollout.grade.answer,
            "correct": rollout.grade.correct,
            "boundaries": rollout.boundaries,
            "episodes": len(rollout.boundaries),
        }
