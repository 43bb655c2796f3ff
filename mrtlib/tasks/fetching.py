"""Benchmarks and data sets of one's own as problem files: fields mapped, checked, split, recorded.

What was read is kept in `source.json` beside the files: data set, commit, and how many rows were
left out and why.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from mrtlib.hub import hub_answers
from mrtlib.tasks.grading import boxed
from mrtlib.tasks.problems import (
    MAX_ANSWER,
    SPLIT_NAMES,
    Problem,
    ProblemError,
    asked_again,
    load_problems,
    normalised,
    write_problems,
)

RECORD = "source.json"
LEVEL = "math"  # of problems whose data set has no levels
MOST_LETTERS = 8000  # of a question
_WHOLE = re.compile(r"^(-?[0-9]+)\.0+$")
EMPTY, LONG, TWICE, KNOWN = (
    "no question or no answer", "question or answer too long", "duplicate", "in a test set",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A data set whose rows are problems, and the fields in which question and answer stand."""

    path: str  # on the hub, or a folder or file
    split: str
    question: str
    answer: str
    level: str | None = None
    trains: bool = False  # its rows are to be trained on, not tested on
    revision: str | None = None  # its commit on the hub; None for the newest


# The benchmarks of the paper's table 1, and its training set.
SOURCES = {
    "aime24": Source("HuggingFaceH4/aime_2024", "train", "problem", "answer",
                     revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a"),
    "aime25": Source("math-ai/aime25", "test", "problem", "answer",
                     revision="563bb8404243c5f09de6ec262f2db674fe5bce9b"),
    "amc23": Source("math-ai/amc23", "test", "question", "answer",
                    revision="80815d37005feb82cd7f8fbc6901d5d3eff43057"),
    "math500": Source("HuggingFaceH4/MATH-500", "test", "problem", "answer",
                      revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"),
    "minerva": Source("math-ai/minervamath", "test", "question", "answer",
                      revision="ee46ddc498933b1977577953250ca5c66be64f96"),
    "deepscaler": Source("agentica-org/DeepScaleR-Preview-Dataset", "train", "problem", "answer",
                         trains=True, revision="b6ae8c60f5c1f2b594e2140b91c49c9ad0949e29"),
}  # fmt: skip


def read_rows(source: Source) -> tuple[list[dict], str]:
    """Return the rows of a data set, and the commit or fingerprint that they are of.

    A file or folder is read as `datasets` reads it (JSON, JSONL, CSV, Parquet); no code of a data
    set is run.

    Raises:
        ProblemError: it is not there, has no such split, or the hub cannot be reached.
    """
    import datasets  # heavy

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # what it finds, we say in one line
    local = Path(source.path)
    revision = None if local.exists() else source.revision
    if not local.exists() and not hub_answers():
        raise ProblemError(
            f"cannot fetch {source.path}: the hub cannot be reached (offline?), and it is no file "
            "or folder here"
        )
    try:
        if local.is_file():
            datasets.disable_progress_bars()  # a download shows one
            kind = {"jsonl": "json"}.get(local.suffix[1:], local.suffix[1:])
            table = datasets.load_dataset(kind, data_files=str(local), split="train")
        else:
            table = datasets.load_dataset(source.path, split=source.split, revision=revision)
    except Exception as error:  # of the library, the file system or the network
        words = " ".join(str(error.__cause__ or error).split())[:300]  # its own says little
        raise ProblemError(f"cannot read {source.path}, split {source.split!r}: {words}") from error
    return table.to_list(), revision or _commit(source.path) or table._fingerprint


def _commit(path: str) -> str | None:
    """Return the newest commit of a data set on the hub; None for a local one."""
    if Path(path).exists():
        return None
    from huggingface_hub import HfApi

    return HfApi().dataset_info(path).sha


def as_problems(
    rows: Iterable[Mapping[str, Any]], source: Source, name: str, left_out: Counter[str]
) -> list[Problem]:
    """Return the problems of a data set's rows; count those that are left out, by reason.

    Of an answer in a box the content is taken.

    Args:
        name: how ids begin.

    Raises:
        ProblemError: the rows lack a field.
    """
    found: dict[str, Problem] = {}
    for number, row in enumerate(rows):
        _need_fields(row, source)
        question, answer = (_text(row[key]) for key in (source.question, source.answer))
        answer = boxed(answer) or answer
        answer = _WHOLE.sub(r"\1", answer)  # a model writes 27, which exact J is of, and not 27.0
        key = normalised(question)
        if not question or not answer:
            left_out[EMPTY] += 1
        elif len(question) > MOST_LETTERS or len(answer) > MAX_ANSWER:
            left_out[LONG] += 1
        elif key in found:
            left_out[TWICE] += 1
        else:
            level = _text(row[source.level]) if source.level else LEVEL
            found[key] = Problem(f"{name}-{number}", "math", level or LEVEL, question, (answer,))
    return list(found.values())


def _need_fields(row: Mapping[str, Any], source: Source) -> None:
    wanted = filter(None, (source.question, source.answer, source.level))
    if lacking := [key for key in wanted if key not in row]:
        raise ProblemError(f"{source.path} has no field {lacking[0]!r}; it has {', '.join(row)}")


def _text(value: Any) -> str:
    """Return a field as a text: data sets have numbers, and lists of one answer."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def split(
    problems: Sequence[Problem], validation: int, test: int, seed: int
) -> dict[str, list[Problem]]:
    """Divide problems at random: so many of each level to validate and to test on, rest to train.

    Raises:
        ProblemError: a level has too few.
    """
    parts: dict[str, list[Problem]] = {name: [] for name in SPLIT_NAMES}
    for level in sorted({p.level for p in problems}):
        own = [p for p in problems if p.level == level]
        if len(own) <= validation + test:
            raise ProblemError(f"level {level!r} has {len(own)} problems, which is not enough for "
                               f"{validation} to validate, {test} to test on, and some to train on")
        Random(f"{seed} {level}").shuffle(own)
        parts["test"] += own[:test]
        parts["validation"] += own[test : test + validation]
        parts["train"] += own[test + validation :]
    return parts


def without(
    problems: Sequence[Problem], tested: Sequence[Problem], left_out: Counter[str]
) -> list[Problem]:
    """Return the problems whose question is in no test set."""
    known = {normalised(p.question) for p in tested}  # rather one too many
    kept = [p for p in problems if normalised(p.question) not in known]
    left_out[KNOWN] += len(problems) - len(kept)
    return kept


def fetch(
    sources: Mapping[str, Source], folder: Path, validation: int, test: int, seed: int
) -> dict[str, Any]:
    """Write data sets as `train.jsonl`, `validation.jsonl` and `test.jsonl`; return the record.

    What is tested on goes to `test.jsonl`; what is trained on is divided into the other two,
    without what is tested on. A data set alone is divided into all three.

    Args:
        sources: by name.
        validation, test: problems of each level; `test` where no source is tested on.

    Raises:
        ProblemError: a data set cannot be read, or nothing of it is a problem; or the folder has
            other problems, or ones that ask what is held out here. Nothing is written.
    """
    record: dict[str, Any] = {"seed": seed, "sources": {}}
    tested: list[Problem] = []
    trained: list[Problem] = []
    for name, source in sorted(sources.items(), key=lambda item: item[1].trains):
        left_out: Counter[str] = Counter()
        rows, commit = read_rows(source)
        found = as_problems(rows, source, name, left_out)
        if source.trains:
            found = without(found, tested, left_out)
        if not found:
            raise ProblemError(f"no row of {source.path} is a problem: {dict(left_out)}")
        (trained if source.trains else tested).extend(found)
        record["sources"][name] = {
            "path": source.path, "split": source.split, "commit": commit, "rows": len(rows),
            "taken": len(found), "left out": dict(left_out),
        }  # fmt: skip
    parts = split(trained, validation, 0 if tested else test, seed) if trained else {}
    parts = {**parts, "test": tested or parts.get("test", [])}
    _check_beside(folder, parts)
    record["problems"] = {name: len(part) for name, part in parts.items() if part}
    _write(folder, parts, record)
    return record


def _check_beside(folder: Path, parts: Mapping[str, list[Problem]]) -> None:
    """Refuse to replace other problems, and to train on what is held out, of this call or before.

    Runs may have been made with what is there.
    """
    files = {name: folder / f"{name}.jsonl" for name in SPLIT_NAMES}
    there = {name: load_problems(file) for name, file in files.items() if file.is_file()}
    for name, problems in there.items():
        if parts.get(name) and parts[name] != problems:
            raise ProblemError(f"{files[name]} is there with other problems, which runs may have "
                               "been made with; name another folder with --into")  # fmt: skip
    whole = {name: parts.get(name) or there.get(name, []) for name in SPLIT_NAMES}
    for name in SPLIT_NAMES[1:]:
        if shared := asked_again(whole[name], whole["train"]):
            raise ProblemError(f"{len(shared)} problem(s) of {name} are trained on in {folder}, "
                               f"{shared[0]!r} first; fetch both with one command, which leaves "
                               "them out, into another folder")  # fmt: skip


def _write(folder: Path, parts: Mapping[str, list[Problem]], record: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        if part:
            write_problems(folder / f"{name}.jsonl", part)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")


def in_words(record: Mapping[str, Any], folder: Path) -> str:
    """Return what was taken and what was left out, a line a data set."""
    lines = []
    for name, found in record["sources"].items():
        left = ", ".join(f"{count} {why}" for why, count in found["left out"].items() if count)
        lines.append(f"{name}: {found['taken']} of {found['rows']} rows of {found['path']} at "
                     f"{found['commit']}" + (f"; left out: {left}" if left else ""))  # fmt: skip
    counts = ", ".join(f"{count} in {name}.jsonl" for name, count in record["problems"].items())
    return "\n".join([*lines, f"{folder}: {counts}"])
