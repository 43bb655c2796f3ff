"""Grading: read the boxed answer of a text, and ask the problem's family whether it is right."""

import re
from collections.abc import Hashable, Sequence

from mrtlib.tasks import countdown
from mrtlib.tasks.math import equivalence
from mrtlib.tasks.math.renderings import renderings
from mrtlib.tasks.problems import Grade, Problem

# A family is a module that judges an answer, and says which answers vote together.
MODULES = {"countdown": countdown, "math": equivalence}
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# A box opens with a brace, or holds the one number or letter that follows it.
_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(\{)|(-?[0-9]+(?:[.,/][0-9]+)*(?:\\?%)?|[A-Za-z](?![A-Za-z])))"
)


def boxed(text: str) -> str | None:
    """Return the content of the last boxed answer that is closed, or None. Linear in the text.

    `\\boxed{5}`, `\\boxed {5}`, `\\fbox{5}` and `\\boxed 5` are boxes; `\\{` is no brace of one.
    """
    closings, opened = {}, []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closings[opened.pop()] = brace.start()
    answer = None
    for box in _BOX.finditer(text):
        if box[2] is not None:
            answer = box[2]
        elif box.start(1) in closings:
            answer = text[box.end() : closings[box.start(1)]].strip()
    return answer


def grade(problem: Problem, text: str) -> Grade:
    r"""Grade the last boxed answer of a text. Bounded in time and size whatever the text.

    >>> from mrtlib import Problem, grade
    >>> half = Problem("half", "math", "easy", "What is 1 / 2?", references=("0.5",))
    >>> grade(half, r"So it is \boxed{\frac{1}{2}}.").correct
    True
    >>> grade(half, "It is 0.5.").reason
    'unboxed'
    """
    answer = boxed(text)
    if answer is None:
        return Grade(False, None, "unboxed")
    return MODULES[problem.family].judge(problem, answer)


def right_texts(problem: Problem) -> tuple[str, ...]:
    """Return every right answer that exact J scores, as texts: one way to write each, or several.

    Of Countdown these are all there are. Of mathematics they are the usual ways to write the
    references (`renderings`); others are right as well, so J is then a lower bound.
    """
    if problem.family != "math":
        return problem.references
    texts = (text for answer in problem.references for text in renderings(answer))
    return tuple(dict.fromkeys(texts))


def candidates(answers: Sequence[str | None], family: str) -> list[Hashable | None]:
    """Return a key for each answer to one problem; equal answers have equal keys.

    Right answers are one candidate, however they are written. So must wrong ones be that are equal,
    or a vote would favour the right answer. Countdown answers are equal if their values are, those
    of `math` if the grader says so (0.5 and 1/2).

    Args:
        answers: (n,) as they were read; None, or the NaN that a table makes of it, is no answer
            and votes for nothing: its key is None.
        family: of the problem.
    """
    texts = [answer if isinstance(answer, str) else None for answer in answers]
    return MODULES[family].candidates(texts)
