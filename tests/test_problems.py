"""Problems are read with clear errors, and grading is right and bounded."""

import json
import shutil
import time

import pytest

from mrtlib.config import ROOT
from mrtlib.tasks import problems
from mrtlib.tasks.countdown import (
    LEVELS,
    OUTSIDE,
    SPLITS,
    TARGETS,
    Kind,
    _all_problems,
    countdown,
    make_outside,
    make_splits,
    reachable,
)
from mrtlib.tasks.grading import boxed, grade
from mrtlib.tasks.problems import (
    Problem,
    ProblemError,
    as_record,
    check_splits,
    load_problems,
    question_key,
)

PROBLEM = countdown((3, 5, 7), 22, "three")
MATH = Problem("m", "math", "math", "What is 1/2 + 1/2?", ("1",))
FOLDER = ROOT / "data" / "problems"


def box(answer: str) -> str:
    return f"Therefore \\boxed{{{answer}}}."


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("Find  $x$.", "find x", True), ("What is 3 + 5?", "what is 3+5", True),
     ("What is 3 + 5?", "What is 3 - 5?", False), ("Solve x < 5", "Solve x > 5", False),
     ("1.25 + 1", "12.5 + 1", False), ("$2^3$", "23", False)],
)  # fmt: skip
def test_problems_of_mathematics_ask_the_same_or_they_do_not(one, other, same):
    asked = [question_key(Problem(q, "math", "math", q, ("1",))) for q in (one, other)]
    assert (asked[0] == asked[1]) == same


def test_every_reference_is_graded_right_and_says_so():
    for reference in PROBLEM.references:
        assert grade(PROBLEM, box(f" {reference} ")).correct


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (box("3 + 5 + 7"), "wrong"),
        (box("3 * 7 + 1"), "wrong"),  # right value, other numbers
        (box("3 * 5 + 7 + 7 - 7"), "wrong"),
        (box("( 3 * 5 ) + 7"), "not canonical"),
        (box("9**9**9"), "unparsable"),
        (box("(" * 10_000), "unparsable"),
        ("\\boxed{" * 10_000, "unboxed"),
        ("no answer", "unboxed"),
        ("", "unboxed"),
    ],
)
def test_wrong_answers_have_a_reason_within_a_second(text, reason):
    began = time.perf_counter()
    result = grade(PROBLEM, text)
    assert (result.correct, result.reason) == (False, reason)
    assert time.perf_counter() - began < 1


def test_the_last_closed_box_counts():
    assert boxed("\\boxed{1} \\boxed{2}") == "2"
    assert boxed("\\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("\\boxed{1") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [("\\boxed {5}", "5"), ("\\fbox{5}", "5"), ("\\boxed 5", "5"), ("so \\boxed -5.", "-5"),
     ("\\boxed 1,200.", "1,200"), ("\\boxed x", "x"), ("\\boxed and", None), ("\\boxed", None),
     ("\\boxed{5} and then \\boxed{6", "5"), ("\\boxed{\\boxed{5}}", "5"),
     ("\\boxed{1} {", "1"), ("} \\boxed{1}", "1"),
     ("\\boxed{\\left\\{1\\right.}", "\\left\\{1\\right."),
     ("\\boxed{a} \\fbox{b} \\boxed c", "c"), ("\\boxed{}", ""), ("\\boxed\n{5}", "5")],
)  # fmt: skip
def test_boxes_in_every_spelling(text, answer):
    assert boxed(text) == answer


@pytest.mark.parametrize("piece", ["\\boxed{", "\\boxed ", "\\boxed{}", "{", "}", "\\"])
def test_finding_a_box_is_linear(piece):
    small, large = piece * 2_000, piece * 200_000
    times = []
    for text in (small, large):
        began = time.process_time()
        boxed(text)
        times.append(time.process_time() - began)
    assert times[1] < 500 * max(times[0], 0.005)  # quadratic would be 10,000 times


@pytest.mark.parametrize(
    ("answer", "right"),
    [("1", True), ("1.0", True), ("\\frac{2}{2}", True), ("2", False), ("x", False),
     ("9^{9^{9^{9^{9^9}}}}", False), ("(" * 150, False)],
)  # fmt: skip
def test_math_answers(answer, right):
    assert grade(MATH, box(answer)).correct is right


def changed(**fields) -> str:
    """Return a good line with some fields changed, and an id of its own."""
    return json.dumps(as_record(PROBLEM) | {"id": "other"} | fields)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "not JSON"),
        ("[1]", "is not of type 'object'"),
        ('{"id": "x"}', "'family' is a required property"),
        (changed(colour=1), "'colour' was unexpected"),
        (changed(family="chess"), "'chess' is not one of"),
        (changed(references=[]), "references: .* non-empty"),
        (changed(references="42"), "references: '42' is not of type 'array'"),  # not ("4", "2")
        (changed(references=7), "references: 7 is not of type 'array'"),
        (changed(references=["1", 2]), "references/1: 2 is not of type 'string'"),
        (changed(references=[" "]), "references/0"),
        (changed(id=3), "id: 3 is not of type 'string'"),
        (changed(id=PROBLEM.id), "is that of line 1 already"),
        (changed(level=["three"]), "level: .* is not of type 'string'"),
        (changed(level=""), "level"),
        (changed(target=1.5), "target: 1.5 is not of type"),
        (changed()[:-20], "not JSON"),  # cut off
        (changed(target=0)[:-2] + "9" * 5000 + "}", "not JSON"),  # a number without end
        (changed(numbers=[])[:-3] + "[" * 10**5, "not JSON"),
        (changed(level="all"), "level: 'all'"),  # all levels together, in every table
        (changed(id="\ud800"), "half of a character"),
        (changed(target=True), "target: True is not of type"),
        (changed(numbers=[1, True]), "numbers/1: True is not of type"),
        (changed(numbers=None), "numbers: None is not of type"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(as_record(PROBLEM)) + "\n" + line + "\n")
    with pytest.raises(ProblemError, match=message) as error:
        load_problems(path)
    assert "line 2" in str(error.value)


def test_all_faults_of_a_file_are_listed_at_once_and_not_without_end(tmp_path):
    path = tmp_path / "problems.jsonl"
    lines = [changed(), changed(id="b", level=1), "", changed(id="c", target="x")]
    path.write_text("\n".join(lines))
    with pytest.raises(ProblemError) as error:
        load_problems(path)
    assert "2 fault(s)" in str(error.value)
    assert "line 2: level" in str(error.value) and "line 4: target" in str(error.value)
    path.write_text("\n".join(changed(id=f"p{i}", level=1) for i in range(100)))
    with pytest.raises(ProblemError, match="100 fault") as error:
        load_problems(path)
    assert str(error.value).count("\n") == 21 and "and 80 more" in str(error.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_one_clear_line(tmp_path, encoding):
    path = tmp_path / "problems.jsonl"
    lines = [changed(), json.dumps(as_record(MATH) | {"question": "Größe?"}, ensure_ascii=False)]
    path.write_bytes("\n".join(lines).encode(encoding))
    with pytest.raises(ProblemError, match="not UTF-8 .*save the file as UTF-8") as error:
        load_problems(path)
    assert f"line {2 if encoding == 'latin-1' else 1}" in str(error.value)


def test_what_only_looks_like_an_end_of_line_is_text(tmp_path):
    path = tmp_path / "problems.jsonl"
    odd = "one\u2028two\u0085three"
    record = json.dumps(as_record(MATH) | {"question": odd}, ensure_ascii=False)
    path.write_bytes(("\ufeff" + changed() + "\r\n" + record).encode())  # a mark, no end
    first, second = load_problems(path)
    assert first.id == "other" and second.question == odd


def test_missing_and_empty_files_are_errors(tmp_path):
    with pytest.raises(ProblemError, match="no problem file"):
        load_problems(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ProblemError, match="holds no problem"):
        load_problems(tmp_path / "empty.jsonl")


def test_records_read_back_as_they_were(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps(as_record(PROBLEM)) + "\n")
    assert load_problems(tmp_path / "p.jsonl") == [PROBLEM]


def test_committed_splits_are_disjoint_and_complete():
    splits = {name: load_problems(FOLDER / f"{name}.jsonl") for name in SPLITS}
    keys = [(p.numbers, p.target) for problems in splits.values() for p in problems]
    assert len(keys) == len(set(keys))
    for name, count in SPLITS.items():
        levels = [p.level for p in splits[name]]
        assert levels.count("three") == levels.count("four") == count
    for problem in splits["test"][::50]:
        assert problem == countdown(problem.numbers, problem.target, problem.level)


def test_committed_problems_are_those_of_the_committed_code(monkeypatch):
    monkeypatch.setattr("mrtlib.tasks.countdown.LEVELS", {"three": LEVELS["three"]})
    made = make_splits(0)
    for name, count in SPLITS.items():
        assert load_problems(FOLDER / f"{name}.jsonl", count)[:count] == made[name]
    warm = {p.id for p in made["warmup"]}
    assert warm and not warm & {p.id for name in SPLITS for p in made[name]}


def test_candidates_depend_on_their_generator_alone(monkeypatch):
    from random import Random

    monkeypatch.setattr("mrtlib.tasks.countdown.LARGEST", 8)
    one, again, other = (_all_problems("three", LEVELS["three"], Random(i)) for i in (1, 1, 2))
    assert one == again
    assert one != other


def test_sets_out_of_distribution_are_of_kinds_that_no_training_problem_is_of():
    splits = [load_problems(FOLDER / f"{name}.jsonl") for name in SPLITS]
    known = {(p.numbers, p.target) for problems in splits for p in problems}
    for name, (levels, count) in OUTSIDE.items():
        problems = load_problems(FOLDER / f"{name}.jsonl")
        assert not known & {(p.numbers, p.target) for p in problems}
        assert len({p.id for p in problems}) == len(problems) == count * len(levels)
        for problem in problems:
            kind = levels[problem.level]
            assert problem.target in kind.targets and len(problem.numbers) == kind.numbers
            assert problem.target in reachable(problem.numbers, kind.largest)
            assert len(problem.references) <= kind.references
        for problem in problems[::50]:  # complete: every accepted form of every solution
            assert problem == countdown(problem.numbers, problem.target, problem.level)
            assert all(grade(problem, box(text)).correct for text in problem.references)
    assert not set(OUTSIDE["larger"][0]["three"].targets) & set(TARGETS)
    assert OUTSIDE["five"][0]["five"].numbers not in {kind.numbers for kind in LEVELS.values()}


def test_the_committed_larger_targets_are_those_of_the_committed_code(monkeypatch):
    levels, count = OUTSIDE["larger"]
    monkeypatch.setitem(OUTSIDE, "larger", ({"three": levels["three"]}, count))
    assert make_outside("larger", 0) == load_problems(FOLDER / "larger.jsonl", count)[:count]
    small = Kind(3, 6, 5, levels["three"].targets, 40)  # results up to 40 reach no such target
    monkeypatch.setitem(OUTSIDE, "larger", ({"three": small}, count))
    assert make_outside("larger", 0) == []


def test_splits_with_other_levels_are_refused_before_anything_is_sampled(tmp_path):
    for name in ("train", "validation", "test"):
        shutil.copy(FOLDER / f"{name}.jsonl", tmp_path)
    check_splits(tmp_path)
    lines = (tmp_path / "validation.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "validation.jsonl").write_text("".join(x for x in lines if '"four"' not in x))
    with pytest.raises(ProblemError, match=r"validation.jsonl has none of four; add problems"):
        check_splits(tmp_path)


def test_what_is_right_at_a_glance_is_right_by_the_schema():
    values = [None, "", " ", "x", "all", "math", 1, 1.0, True, [], ["x"], ["x", ""], [1], [1, True]]
    known = {True: 0, False: 0}
    for name in ("id", "family", "level", "question", "references", "numbers", "target", "colour"):
        for value in values:
            record = json.loads(changed(**{name: value}))
            plain = problems._plain(record)
            known[plain] += 1
            assert not (plain and problems._faults(record)), record
    assert min(known.values()) > 10
    assert not problems._plain([]) and not problems._plain({}) and not problems._plain("x")
