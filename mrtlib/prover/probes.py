"""The places where a trace is cut, and the text that ends its thinking and opens the answer."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mrtlib.config import Thinking
from mrtlib.models.tokens import Joiner, Spelling
from mrtlib.tasks.grading import right_texts
from mrtlib.tasks.problems import Problem

BLANK_LINE = "\n\n"  # ends a paragraph that the cut has left open

Reference = tuple[Spelling, ...]  # every way to write one accepted answer and its closing


class ProverError(ValueError):
    """A probe that cannot be measured, or a model that cannot take a packed pass."""


@dataclass(frozen=True)
class Probe:
    """One trace and its boundaries t_1 < ... < t_k, the tokens of it at which it is cut."""

    prompt_ids: list[int]
    trace_ids: list[int]
    boundaries: list[int]
    natural: bool  # the model closed the trace itself, at t_k
    references: list[Reference]

    def __post_init__(self) -> None:
        ends = [0, *self.boundaries]
        if any(a >= b for a, b in itertools.pairwise(ends)):
            raise ProverError(f"boundaries must increase from 1 on, not {self.boundaries}")
        if ends[-1] > len(self.trace_ids):
            raise ProverError(f"boundary {ends[-1]} lies behind {len(self.trace_ids)} trace tokens")
        if not self.prompt_ids:
            raise ProverError("the prompt is empty; a probe needs at least one prompt token")

    @property
    def ends(self) -> list[int]:
        """t_0 = 0, t_1, ..., t_k."""
        return [0, *self.boundaries]

    def kind(self, j: int) -> str:
        """Return "natural" for the end of a trace that closed itself, otherwise "forced"."""
        return "natural" if self.natural and 0 < j == len(self.boundaries) else "forced"


class Termination:
    """The text that ends the thinking and opens the answer, put behind any prefix of a trace."""

    def __init__(self, joiner: Joiner, thinking: Thinking) -> None:
        self.joiner, self.thinking = joiner, thinking

    def prompt(self, probe: Probe, j: int) -> list[int]:
        """Return everything that mu reads at boundary j: prompt, prefix of the trace, ending.

        Forced: a blank line if the cut left a paragraph open, stop text, closing, answer opening.
        Natural: closing, less what of it the trace already ends with, and answer opening. The
        ending is tokenised in one piece behind the prefix; where a merge crosses the cut, the
        last tokens of the prefix give way to the merged ones.

        Source: arXiv 2503.07572, section 4 and its analysis code.
        """
        prefix = probe.trace_ids[: probe.ends[j]]
        read = [*probe.prompt_ids, *prefix]
        text = self.natural(prefix) if probe.kind(j) == "natural" else self.forced(prefix)
        stay, ending = self.joiner.behind(read, text, len(prefix))
        return [*read[:stay], *ending]

    def forced(self, prefix: Sequence[int]) -> str:
        """Return the text that ends a trace which did not end by itself."""
        thinking = self.thinking
        closing = thinking.stop_text + thinking.close_text + thinking.answer_open
        return (BLANK_LINE if self.inside_paragraph(prefix) else "") + closing

    def natural(self, prefix: Sequence[int]) -> str:
        """Return the text behind a trace that closed itself."""
        close, tail = self.thinking.close_text, self.joiner.decode(prefix[-8:])
        sizes = range(min(len(tail), len(close)), 0, -1)
        written = next((n for n in sizes if tail.endswith(close[:n])), 0)
        return close[written:] + self.thinking.answer_open

    def inside_paragraph(self, prefix: Sequence[int]) -> bool:
        """Say whether a trace that ends here ends within a line."""
        return bool(prefix) and not self.joiner.decode(prefix[-4:]).endswith("\n")

    def answer(self, ids: Sequence[int]) -> str:
        """Return the answer's text: its opening, and what mu wrote behind it."""
        return self.thinking.answer_open + self.joiner.decode(ids)


def check_references(references: Sequence[Reference]) -> None:
    """Raise ProverError when the probabilities of references do not add up.

    That is so when no token of the vocabulary closes one of them, and when one begins with
    another: some answers would then be counted twice.
    """
    if not all(references):
        raise ProverError(
            "no token of the vocabulary closes a reference; check thinking.answer_close"
        )
    spellings = [spelling for reference in references for spelling in reference]
    for first, second in itertools.permutations(spellings, 2):
        n = len(first.tokens)
        if first.tokens != second.tokens[:n]:
            continue
        ends = set(second.ends) if len(second.tokens) == n else {second.tokens[n]}
        if ends & set(first.ends):
            raise ProverError(
                f"references must be distinct and prefix-free once closed, but {second.tokens} "
                f"begins with {first.tokens}; remove repeats, and check thinking.answer_close"
            )


def references_of(problem: Problem, joiner: Joiner, thinking: Thinking) -> list[Reference]:
    """Return the ways in tokens to write each right text of a problem (`right_texts`), closed."""
    return [
        joiner.spellings(thinking.answer_open, text, thinking.answer_close)
        for text in right_texts(problem)
    ]


def check_problems(problems: Sequence[Problem], joiner: Joiner, thinking: Thinking) -> None:
    """Raise ProverError for a problem whose references could not be scored, naming it."""
    for problem in problems:
        if not all(text.strip() for text in problem.references):
            raise ProverError(f"problem {problem.id}: a reference is empty; remove it")
        try:
            check_references(references_of(problem, joiner, thinking))
        except ProverError as error:
            raise ProverError(f"problem {problem.id}: {error}") from error
