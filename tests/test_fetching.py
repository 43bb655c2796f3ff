"""Benchmarks and data sets become problem files: on local sets of the same schemas, offline."""

import json
import re
from collections import Counter
from dataclasses import replace

import datasets
import pytest

from mrtlib import __main__
from mrtlib.tasks import fetching
from mrtlib.tasks.fetching import SOURCES, as_problems, split, without
from mrtlib.tasks.problems import (
    Problem,
    ProblemError,
    check_splits,
    load_problems,
    normalised,
)

# Rows with the fields of each benchmark on the hub.
SCHEMAS = {
    "aime24": {"id": 1, "problem": "Find {n}.", "solution": "s", "answer": "{n}", "url": "u"},
    "aime25": {"problem": "Find {n}.", "answer": "{n}", "id": "0"},
    "amc23": {"id": 0, "question": "Find {n}.", "answer": "{n}.0", "url": "u"},
    "math500": {"problem": "Find {n}.", "solution": "s", "answer": "\\frac{{n}}{2}",
                "subject": "Algebra", "level": 3, "unique_id": "x"},
    "minerva": {"question": "Find {n}.", "answer": "{n}", "type": "t"},
    "deepscaler": {"problem": "Train {n}.", "answer": "{n}", "solution": "s"},
}  # fmt: skip


def rows_of(name, count, first=0):
    def filled(value, n):
        return value.replace("{n}", str(n)) if isinstance(value, str) else value

    return [{key: filled(value, n) for key, value in SCHEMAS[name].items()}
            for n in range(first, first + count)]  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Every benchmark as a local file of its schema, twelve rows each."""
    found = {}
    for name, source in SOURCES.items():
        path = write(tmp_path / f"{name}.jsonl", rows_of(name, 12))
        found[name] = replace(source, path=str(path))
    monkeypatch.setattr(fetching, "SOURCES", found)
    return found


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if not source.trains])
def test_each_benchmark_becomes_test_problems(name, local, tmp_path, capsys):
    folder = tmp_path / "out"
    command = f"problems fetch {name} --into {folder}"
    assert __main__.main(command.split()) == 0
    problems = load_problems(folder / "test.jsonl")
    assert len(problems) == 12 and not (folder / "train.jsonl").exists()
    assert problems[3].id == f"{name}-3" and problems[3].question == "Find 3."
    assert problems[3].references == ({"math500": "\\frac{3}{2}"}.get(name, "3"),)
    assert {(p.family, p.level) for p in problems} == {("math", "math")}
    assert f"{name}: 12 of 12 rows of" in capsys.readouterr().out


def test_what_is_trained_on_is_split_and_lacks_what_is_tested_on(local, tmp_path, capsys):
    write(tmp_path / "deepscaler.jsonl", rows_of("deepscaler", 30) + [
        {"problem": " FIND  7 ", "answer": "7", "solution": ""},  # a test problem, otherwise spelt
        {"problem": "Train 3.", "answer": "3", "solution": ""}, {"problem": "x", "answer": None,
         "solution": ""}, {"problem": "y", "answer": "1" * 201, "solution": ""},
        {"problem": "In a box?", "answer": "It is \\boxed{\\frac{1}{2}}.", "solution": ""},
    ])  # fmt: skip
    folder = tmp_path / "out"
    command = f"problems fetch aime24 deepscaler --into {folder} --validation 5"
    assert __main__.main(command.split()) == 0
    check_splits(folder)
    parts = {n: load_problems(folder / f"{n}.jsonl") for n in ("train", "validation", "test")}
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 26, "validation": 5, "test": 12
    }
    questions = [normalised(p.question) for part in parts.values() for p in part]
    assert len(questions) == len(set(questions))
    answers = {p.question: p.references for p in parts["train"] + parts["validation"]}
    assert answers["In a box?"] == ("\\frac{1}{2}",)
    record = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    left = record["sources"]["deepscaler"]["left out"]
    assert left == {"duplicate": 1, "no question or no answer": 1,
                    "question or answer too long": 1, "in a test set": 1}  # fmt: skip
    assert record["sources"]["deepscaler"]["commit"]
    said = capsys.readouterr().out
    assert "left out: " in said and "1 in a test set" in said and "26 in train.jsonl" in said
    before = (folder / "train.jsonl").read_bytes()
    assert __main__.main(command.split()) == 0
    assert (folder / "train.jsonl").read_bytes() == before  # the same seed, the same files


def test_a_data_set_of_ones_own_is_divided_into_three(tmp_path, capsys):
    rows = [{"q": f"What is {n}?", "a": n, "hard": "hard" if n % 2 else "easy"} for n in range(40)]
    path, folder = write(tmp_path / "mine.jsonl", rows), tmp_path / "out"
    command = (f"problems fetch --dataset {path} --question q --answer a --level hard "
               f"--into {folder} --validation 4 --test 6")  # fmt: skip
    assert __main__.main(command.split()) == 0
    check_splits(folder)
    sizes = {n: Counter(p.level for p in load_problems(folder / f"{n}.jsonl"))
             for n in ("train", "validation", "test")}  # fmt: skip
    assert sizes == {"train": {"easy": 10, "hard": 10}, "validation": {"easy": 4, "hard": 4},
                     "test": {"easy": 6, "hard": 6}}  # fmt: skip
    assert "own: 40 of 40 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "name a benchmark"),
        ("aime99", "unknown benchmark 'aime99'; choose from aime24, aime25"),
        ("--dataset D", "name the fields of the data set with --question and --answer"),
        ("--dataset D --question nope --answer a", "no field 'nope'; it has q, a"),
        ("--dataset D --question q --answer a --test 500", "has 40 problems, which is not enough"),
        ("--dataset nowhere --question q --answer a", "hub cannot be reached"),
        ("math500", "hub cannot be reached"),
        ("--dataset BROKEN --question q --answer a", "cannot read"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(words, says, tmp_path, capsys):
    data = write(tmp_path / "d.jsonl", [{"q": f"{n}?", "a": n} for n in range(40)])
    (tmp_path / "b.json").write_text("{broken", encoding="utf-8")
    words = words.replace("D ", f"{data} ").replace("BROKEN", str(tmp_path / "b.json"))
    words = words if not words.endswith("--dataset D") else words.replace(" D", f" {data}")
    command = ["problems", "fetch", "--into", str(tmp_path / "out"), *words.split()]
    assert __main__.main(command) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_benchmark_is_read_at_a_commit_that_is_written_down(name, monkeypatch):
    asked = []

    def load(path, split, revision):
        asked.append((path, split, revision))
        return datasets.Dataset.from_list([{"problem": "Find 1.", "answer": "1"}])

    monkeypatch.setattr(fetching, "hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    source = SOURCES[name]
    _, commit = fetching.read_rows(source)
    assert asked == [(source.path, source.split, commit)]
    assert re.fullmatch("[0-9a-f]{40}", commit)


def test_what_is_there_is_not_replaced_and_nothing_is_trained_on_that_is_held_out(
    local, tmp_path, capsys
):
    write(tmp_path / "deepscaler.jsonl", rows_of("deepscaler", 30))
    folder = tmp_path / "out"
    fetch = f"problems fetch {{}} --into {folder} --validation 5 --test 3"
    assert __main__.main(fetch.format("deepscaler").split()) == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert __main__.main(fetch.format("deepscaler").split()) == 0  # the same once more
    assert __main__.main(fetch.format("aime24").split()) == 2  # another test set
    assert "is there with other problems" in capsys.readouterr().err
    (folder / "test.jsonl").write_text("keep me")
    assert __main__.main(fetch.format("aime24").split()) == 2
    assert (folder / "test.jsonl").read_text() == "keep me"
    (folder / "test.jsonl").unlink()
    write(tmp_path / "aime24.jsonl", [{"problem": "train  9!", "answer": "1"}])
    assert __main__.main(fetch.format("aime24").split()) == 2  # it asks what is trained on
    assert "trained on" in capsys.readouterr().err
    assert not (folder / "test.jsonl").exists()
    assert {path: path.read_bytes() for path in folder.iterdir()}.items() <= before.items()


def test_the_pieces():
    a, b = (Problem(str(i), "math", "math", q, ("1",)) for i, q in enumerate(("A b?", "C")))
    left = Counter()
    assert without([a, b], [replace(a, id="9", question="a-B")], left) == [b]
    assert left == {"in a test set": 1}
    assert normalised("Ｆｉｎｄ x²!") == normalised("find X2")
    assert normalised("+") != normalised("-")
    with pytest.raises(ProblemError, match="not enough"):
        split([a, b], 1, 1, 0)
    assert as_problems([{"problem": "p", "answer": [3.0]}], SOURCES["aime24"], "n", left)[
        0
    ].references == ("3",)
