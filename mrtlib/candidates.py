"""What the answers to one problem vote for: equal answers are one candidate."""

from collections.abc import Hashable, Sequence

from mrtlib.countdown import ExpressionError, parse, value
from mrtlib.equivalence import equal_groups


def candidates(answers: Sequence[str | None], family: str) -> list[Hashable | None]:
    """Return a key for each answer to one problem; equal answers have equal keys.

    Right answers are one candidate however they are written; if wrong ones were not, a vote would
    favour the right answer. Countdown answers are equal in value, those of `math` as the grader
    sees them (0.5 and 1/2).

    Args:
        answers: (n,) as they were read; None, or the NaN that a table makes of it, is no answer
            and votes for nothing: its key is None.
        family: of the problem, "countdown" or "math".
    """
    texts = [answer if isinstance(answer, str) else None for answer in answers]
    if family == "math":
        return equal_groups(texts)
    return [None if answer is None else _candidate(answer) for answer in texts]


def _candidate(answer: str) -> str:
    """Return what an answer votes for: its value if it is an expression, else itself."""
    try:
        return str(value(parse(answer)))
    except ExpressionError:
        return answer
