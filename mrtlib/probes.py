"""Where a trace is cut, and the text that then ends its thinking and opens the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from mrtlib.config import Thinking

BLANK_LINE = "\n\n"  # ends a paragraph that the cut has left open


class ProverError(ValueError):
    """A probe that cannot be measured, or a model that cannot take a packed pass."""


@dataclass(frozen=True)
class Probe:
    """One trace and where to cut it. Boundaries are t_1 < ... < t_k, in tokens of the trace."""

    prompt_ids: list[int]
    trace_ids: list[int]
    boundaries: list[int]
    natural: bool  # the model closed the trace itself, at t_k
    references: list[list[int]]  # token ids of every accepted answer, without the closing token

    def __post_init__(self) -> None:
        ends = [0, *self.boundaries]
        if any(a >= b for a, b in zip(ends, ends[1:], strict=False)):
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


@dataclass(frozen=True)
class Termination:
    """Token ids of the text that ends the thinking and opens the answer, each tokenised alone."""

    stop: tuple[int, ...]
    blank: tuple[int, ...]
    close: tuple[int, ...]
    answer_open: tuple[int, ...]
    answer_close: tuple[int, ...]
    ends_line: Callable[[Sequence[int]], bool]  # do these ids end with a newline?

    @classmethod
    def build(cls, tokenizer: PreTrainedTokenizerBase, thinking: Thinking) -> "Termination":
        """Tokenise the texts of a profile."""
        texts = (
            thinking.stop_text, BLANK_LINE, thinking.close_text,
            thinking.answer_open, thinking.answer_close,
        )  # fmt: skip
        ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        return cls(*ids, ends_line=lambda tail: tokenizer.decode(tail).endswith("\n"))

    def suffix(self, probe: Probe, j: int) -> list[int]:
        """Return what follows the prefix of boundary j, up to where the answer begins.

        Forced: a blank line if the cut left a paragraph open, stop text, closing, answer opening.
        Natural: closing, less what of it the trace already ends with, and answer opening.
        Source: arXiv 2503.07572, section 4 and its analysis code.
        """
        prefix = probe.trace_ids[: probe.ends[j]]
        if probe.kind(j) == "natural":
            sizes = range(min(len(prefix), len(self.close)), 0, -1)
            written = (n for n in sizes if tuple(prefix[-n:]) == self.close[:n])
            return [*self.close[next(written, 0) :], *self.answer_open]
        opened = bool(prefix) and not self.ends_line(prefix[-4:])
        return [*(self.blank if opened else ()), *self.stop, *self.close, *self.answer_open]

    def prompt(self, probe: Probe, j: int) -> list[int]:
        """Return everything that mu reads at boundary j: prompt, prefix of the trace, suffix."""
        return [*probe.prompt_ids, *probe.trace_ids[: probe.ends[j]], *self.suffix(probe, j)]

    def answers(self, probe: Probe) -> list[list[int]]:
        """Return the references, each with the closing tokens.

        Raises:
            ProverError: one of them is empty, or begins with another, so that their
                probabilities would count some answers twice.
        """
        if any(len(reference) == 0 for reference in probe.references):
            raise ProverError("a reference has no tokens; remove it, or write out the answer")
        closed = sorted([*reference, *self.answer_close] for reference in probe.references)
        for first, second in zip(closed, closed[1:], strict=False):
            if second[: len(first)] == first:
                raise ProverError(
                    f"references must be distinct and prefix-free once closed, but {second} "
                    f"begins with {first}; remove repeats, and check thinking.answer_close"
                )
        return closed
