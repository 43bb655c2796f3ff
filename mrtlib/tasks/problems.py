"""Problems and their JSONL files. Both families, Countdown and mathematics, have one record:

    {"id": "three-3.5.7-22", "family": "countdown", "level": "three",
     "question": "Reach 22 with 3, 5, 7.", "references": ["3 * 5 + 7", ...],
     "numbers": [3, 5, 7], "target": 22}
"""

import json
from dataclasses import dataclass
from pathlib import Path

MAX_ANSWER = 200  # characters of an answer that is looked at
FAMILIES = ("countdown", "math")


class ProblemError(ValueError):
    """A problem file or record that cannot be used."""


@dataclass(frozen=True)
class Problem:
    """One problem. `references` are all accepted answers (countdown) or the known one (math).

    >>> from mrtlib import Problem
    >>> half = Problem("half", "math", "easy", "What is 1 / 2?", references=("0.5",))
    """

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


def as_record(problem: Problem) -> dict:
    """Return a problem as the JSON object of its line."""
    return {name: getattr(problem, name) for name in Problem.__dataclass_fields__}


def load_problems(path: Path | str, limit: int | None = None) -> list[Problem]:
    """Read problems from a JSONL file, at most `limit` of each level.

    >>> from mrtlib import load_problems, load_profile
    >>> folder = load_profile("tiny").problems
    >>> for problem in load_problems(folder / "test.jsonl", limit=1):
    ...     print(problem.level, problem.question, len(problem.references))
    three Reach 13 with 9, 16, 20. 6
    four Reach 34 with 5, 7, 9, 16. 6

    Raises:
        ProblemError: the file is missing, or a line is not a problem; names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ProblemError(
            f"no problem file {path}; set MRT_ROOT to the folder that data/problems lies in, "
            "or see the README there for making one"
        )
    out: list[Problem] = []
    taken: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        problem = _problem(line, f"{path}, line {number}")
        taken[problem.level] = taken.get(problem.level, 0) + 1
        if limit is None or taken[problem.level] <= limit:
            out.append(problem)
    if not out:
        raise ProblemError(f"{path} holds no problem")
    return out


def _problem(line: str, where: str) -> Problem:
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
    if record["family"] not in FAMILIES:
        raise ProblemError(
            f"{where}: no family {record['family']!r}; choose one of {', '.join(FAMILIES)}"
        )
    if not record["references"] or not all(isinstance(r, str) for r in record["references"]):
        raise ProblemError(f"{where}: references must be a list of one or more texts")
    record["references"] = tuple(record["references"])
    record["numbers"] = tuple(record.get("numbers") or ())
    return Problem(**record)
