"""Problems, their reference answers, and grading.

Two families. `countdown`: reach a target from given numbers, each used exactly once, with
+, - and *. `math`: any data set with a boxed answer. A record, as it stands in a file:

    {"id": "three-3.5.7-22", "family": "countdown", "level": "three", "target": 22,
     "numbers": [3, 5, 7], "question": "Reach 22 with 3, 5, 7.",
     "references": ["3 * 5 + 7", "5 * 3 + 7", "7 + 3 * 5", "7 + 5 * 3"]}

An accepted Countdown answer is an expression with parentheses only where they change its
meaning, so the accepted answers of a problem are finitely many and `references` is all of them.
Model output is never evaluated as code (see `countdown`).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from mrtlib.countdown import ExpressionError, accepted, lexemes_of, numbers_in, parse, render, value

MAX_ANSWER = 200  # characters of an answer that is looked at
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
# A box opens with a brace, or holds the one number or letter that follows it.
_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(\{)|(-?[0-9]+(?:[.,/][0-9]+)*(?:\\?%)?|[A-Za-z](?![A-Za-z])))"
)


class ProblemError(ValueError):
    """A problem file or record that cannot be used."""


@dataclass(frozen=True)
class Problem:
    """One problem. `references` are all accepted answers (countdown) or the known one (math)."""

    id: str
    family: str
    level: str
    question: str
    references: tuple[str, ...]
    numbers: tuple[int, ...] = ()
    target: int | None = None


@dataclass(frozen=True)
class Grade:
    """Outcome of one answer, `answer` being what was read of it, at most 200 characters.

    `reason` is one of

        correct        equal to a reference
        wrong          read, and equal to none
        unboxed        no closed box in the text; `answer` is None
        unparsable     in no form that is read, too long or too large to be looked at, and not
                       a reference word for word
        not canonical  a Countdown expression with needless parentheses
    """

    correct: bool
    answer: str | None
    reason: str


def countdown(numbers: tuple[int, ...], target: int, level: str) -> Problem:
    """Make a Countdown problem with its complete set of accepted answers."""
    numbers = tuple(sorted(numbers))
    return Problem(
        id=f"{level}-{'.'.join(map(str, numbers))}-{target}",
        family="countdown",
        level=level,
        question=f"Reach {target} with {', '.join(map(str, numbers))}.",
        references=tuple(sorted(accepted(numbers).get(target, ()))),
        numbers=numbers,
        target=target,
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
    """Grade the last boxed answer of a text. Bounded in time and size whatever the text."""
    answer = boxed(text)
    if answer is None:
        return Grade(False, None, "unboxed")
    if problem.family == "countdown":
        return _grade_countdown(problem, answer)
    from mrtlib.equivalence import judge  # starts a process when it must, for `math` alone

    reason = judge(problem.references, answer)
    return Grade(reason == "correct", answer[:MAX_ANSWER], reason)


def _grade_countdown(problem: Problem, answer: str) -> Grade:
    short = answer[:MAX_ANSWER]
    try:
        node = parse(answer[: MAX_ANSWER + 1])
    except ExpressionError:
        return Grade(False, short, "unparsable")
    text = render(node)
    if text.split() != lexemes_of(answer):
        return Grade(False, text, "not canonical")
    right = sorted(numbers_in(node)) == list(problem.numbers) and value(node) == problem.target
    return Grade(right, text, "correct" if right else "wrong")


def as_record(problem: Problem) -> dict:
    """Return a problem as the JSON object of its line."""
    return {name: getattr(problem, name) for name in Problem.__dataclass_fields__}


def load_problems(path: Path | str, limit: int | None = None) -> list[Problem]:
    """Read problems from a JSONL file, at most `limit` of each level.

    Raises:
        ProblemError: the file is missing, or a line is not a problem; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ProblemError(f"no problem file {path}; see data/problems/README.md for making one")
    out: list[Problem] = []
    taken: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        problem = _read(line, f"{path}, line {number}")
        taken[problem.level] = taken.get(problem.level, 0) + 1
        if limit is None or taken[problem.level] <= limit:
            out.append(problem)
    if not out:
        raise ProblemError(f"{path} holds no problem")
    return out


def _read(line: str, where: str) -> Problem:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{where}: not JSON ({error.msg}); mend or remove the line") from None
    if not isinstance(record, dict):
        raise ProblemError(f"{where}: not a JSON object")
    missing = [k for k in ("id", "family", "level", "question", "references") if k not in record]
    unknown = [k for k in record if k not in Problem.__dataclass_fields__]
    if missing or unknown:
        raise ProblemError(f"{where}: missing fields {missing}, unknown fields {unknown}")
    if record["family"] not in ("countdown", "math"):
        raise ProblemError(f"{where}: family {record['family']!r} is neither countdown nor math")
    if not record["references"] or not all(isinstance(r, str) for r in record["references"]):
        raise ProblemError(f"{where}: references must be a list of one or more texts")
    record["references"] = tuple(record["references"])
    record["numbers"] = tuple(record.get("numbers") or ())
    return Problem(**record)
