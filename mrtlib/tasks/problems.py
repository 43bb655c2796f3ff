"""Problems and their JSONL files. Both families, Countdown and mathematics, have one record:

    {"id": "three-3.5.7-22", "family": "countdown", "level": "three",
     "question": "Reach 22 with 3, 5, 7.", "references": ["3 * 5 + 7", ...],
     "numbers": [3, 5, 7], "target": 22}
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_ANSWER = 200  # characters of an answer that is looked at
SPLIT_NAMES = ("train", "validation", "test")
FAMILIES = ("countdown", "math")
MOST_FAULTS = 20  # of a file that are listed
ALL = "all"  # in tables, all levels together
_WORDS = {"type": "string", "pattern": r"\S"}
_HALF = re.compile("[\ud800-\udfff]")  # what UTF-8 cannot hold
_SCHEMA = {
    "type": "object",
    "required": ["id", "family", "level", "question", "references"],
    "additionalProperties": False,
    "properties": {
        "id": _WORDS, "family": {"enum": list(FAMILIES)}, "question": _WORDS,
        "level": {**_WORDS, "not": {"const": ALL}},
        "references": {"type": "array", "minItems": 1, "items": _WORDS},
        "numbers": {"type": "array", "items": {"type": "integer"}},
        "target": {"type": ["integer", "null"]},
    },
}  # fmt: skip


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


def normalised(question: str) -> str:
    """Return a question as its letters and digits alone, by which equal ones are found."""
    plain = unicodedata.normalize("NFKC", question).casefold()
    return re.sub(r"[\W_]+", "", plain) or plain


def question_key(problem: Problem) -> str:
    """Return what is alike of problems that ask the same, and of no others.

    Data sets of mathematics differ in spaces, capitals, dollar signs and the last full stop.
    """
    if problem.family != "math":
        return problem.question
    plain = unicodedata.normalize("NFKC", problem.question).casefold()
    return re.sub(r"[\s$]+", "", plain).rstrip(".?!")


def asked_again(held: Sequence[Problem], trained: Sequence[Problem]) -> list[str]:
    """Return the ids of problems that are held out and ask what is trained on."""
    known = {question_key(problem) for problem in trained}
    return [problem.id for problem in held if question_key(problem) in known]


def load_problems(path: Path | str, limit: int | None = None) -> list[Problem]:
    """Read problems from a JSONL file, at most `limit` of each level.

    >>> from mrtlib import load_problems, load_profile
    >>> folder = load_profile("tiny").problems
    >>> for problem in load_problems(folder / "test.jsonl", limit=1):
    ...     print(problem.level, problem.question, len(problem.references))
    three Reach 13 with 9, 16, 20. 6
    four Reach 34 with 5, 7, 9, 16. 6

    Raises:
        ProblemError: the file is missing, or lines are not problems; lists all of them, with what
            is wrong, before anything is done with the others.
    """
    path = Path(path)
    if not path.is_file():
        raise ProblemError(
            f"no problem file {path}; set MRT_ROOT to the folder that data/problems lies in, "
            "or see the README there for making one"
        )
    records, faults = _records(path)
    if faults:
        more = f"\nand {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise ProblemError(f"{path}: {len(faults)} fault(s); mend or remove these lines:\n"
                           + "\n".join(faults[:MOST_FAULTS]) + more)  # fmt: skip
    if not records:
        raise ProblemError(f"{path} holds no problem")
    taken: Counter[str] = Counter()
    out = []
    for record in records:
        taken[record["level"]] += 1
        if limit is None or taken[record["level"]] <= limit:
            out.append(_problem(record))
    return out


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Write problems as a JSONL file, which `load_problems` reads, whole or not at all."""
    lines = [json.dumps(as_record(problem), ensure_ascii=False) + "\n" for problem in problems]
    part = path.with_name(f".{path.name}.tmp")
    part.write_text("".join(lines), encoding="utf-8", newline="\n")
    part.replace(path)


def check_splits(folder: Path, train: Sequence[str] = SPLIT_NAMES[:1]) -> None:
    """Raise ProblemError where the splits of a folder do not have the same levels.

    A method would be trained on what it is never asked, or asked what it was never trained on.

    Args:
        train: files of the training problems, without ".jsonl". Where there are several, some may
            have levels that are never asked: they are meant to be learned beside the others.
    """
    levels = {name: {p.level for p in load_problems(folder / f"{name}.jsonl")}
              for name in (*train, *SPLIT_NAMES[1:])}  # fmt: skip
    trained = " and ".join(train)
    levels[trained] = set.union(*(levels[name] for name in train))
    splits = (trained, *SPLIT_NAMES[1:])
    known = set.union(*(levels[name] for name in (splits if len(train) == 1 else splits[1:])))
    lacking = [f"{name}.jsonl has none of {', '.join(sorted(known - levels[name]))}"
               for name in splits if known - levels[name]]  # fmt: skip
    if lacking:
        raise ProblemError(
            f"the splits in {folder} have different levels: {'; '.join(lacking)}; add problems of "
            "these levels, or take them out of the others"
        )


def _records(path: Path) -> tuple[list[dict], list[str]]:
    """Read every line; return the records, and each line's faults with its number."""
    records, faults, first = [], [], {}
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"line {number}: not JSON ({getattr(error, 'msg', error)})"[:200])
            continue
        found = [] if _plain(record) else _faults(record)
        if "\\u" in line and _HALF.search(json.dumps(record, ensure_ascii=False)):
            found.append("holds half of a character (an escape of a surrogate)")
        if not found and (before := first.setdefault(record["id"], number)) != number:
            found = [f"id {record['id']!r} is that of line {before} already"]
        faults += [f"line {number}: {text}" for text in found]
        records.append(record)
    return records, faults


def _text(path: Path) -> str:
    """Return a file's text without a byte-order mark.

    Lines end where the file says so: characters such as U+2028 may stand inside a question.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProblemError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None


def _plain(record: object) -> bool:
    """Say whether a record is right at a glance, as nearly all are; the schema has the last word.

    Importing jsonschema takes seconds where JupyterLab's extras of it are installed.
    """
    if not isinstance(record, dict) or not record.keys() <= _SCHEMA["properties"].keys():
        return False
    words = [record.get(name) for name in ("id", "level", "question")]
    lists = [record.get(name, []) for name in ("references", "numbers")]
    if not all(isinstance(one, list) for one in lists) or not lists[0]:
        return False
    return (
        all(isinstance(text, str) and re.search(r"\S", text) for text in words + lists[0])
        and all(type(number) is int for number in lists[1])
        and (record.get("target") is None or type(record["target"]) is int)
        and record.get("family") in FAMILIES and record["level"] != ALL
    )  # fmt: skip


def _faults(record: object) -> list[str]:
    """Say what is wrong with a record, and where in it."""
    from jsonschema import Draft202012Validator

    faults = []
    for error in Draft202012Validator(_SCHEMA).iter_errors(record):
        where = "/".join(map(str, error.absolute_path))
        faults.append(f"{where}: {error.message}"[:200] if where else error.message[:200])
    return faults


def _problem(record: dict) -> Problem:
    lists = {name: tuple(record.get(name) or ()) for name in ("references", "numbers")}
    return Problem(**record | lists)
