"""What the answers to one problem vote for: equal answers are one candidate."""

from collections.abc import Sequence

from mrtlib.countdown import ExpressionError, parse, value


def candidates(answers: Sequence[str | None]) -> list[str | None]:
    """Return a key for each answer to one problem; equal answers have equal keys.

    Right answers are one candidate however they are written; if wrong ones were not, a vote would
    favour the right answer. All votes group by this function: it gets a problem's answers together,
    so that families whose answers are equal in pairs rather than by a value can be told here.

    Args:
        answers: (n,) as they were read; None, or the NaN that a table makes of it, is no answer
            and votes for nothing: its key is None.
    """
    return [candidate(answer) if isinstance(answer, str) else None for answer in answers]


def candidate(answer: str) -> str:
    """Return what an answer votes for: its value if it is an expression, else itself."""
    try:
        return str(value(parse(answer)))
    except ExpressionError:
        return answer
