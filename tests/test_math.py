r"""Answers are graded as the table says: no wrong answer is right, and hardly a right one wrong.

The rows of data/problems/grading.jsonl were labelled by hand, by what is true and by written
conventions, and never by what the code says.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from functools import cache

import pytest

from mrtlib.config import ROOT
from mrtlib.tasks.grading import grade
from mrtlib.tasks.math import equivalence
from mrtlib.tasks.math.equivalence import candidates, equivalent, judge
from mrtlib.tasks.problems import Problem

TABLE = ROOT / "data" / "problems" / "grading.jsonl"
ALGEBRA = {"polynomial", "algebra", "equation", "matrix", "hostile"}
KINDS = {
    "integer", "thousands", "decimal", "scientific", "fraction", "percent", "root", "degree",
    "unit", "currency", "text", "tuple", "set", "list", "interval", "base", "ratio",
} | ALGEBRA  # fmt: skip
LONG = " + ".join(f"{n}x^{{{n}}}" for n in range(40, 1, -1))


@cache
def rows() -> list[dict]:
    return [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]


def right(row: dict) -> bool:
    return equivalent(row["reference"], row["answer"])


def warm() -> None:
    """Start the worker, so that no timed row waits for it."""
    assert equivalent("\\sin 2x", "2\\sin x\\cos x")


def test_the_table_holds_every_kind_with_right_and_wrong_answers():
    assert len(rows()) >= 300
    counts = Counter((row["kind"], row["verdict"]) for row in rows())
    assert {kind for kind, _ in counts} == KINDS
    assert {verdict for _, verdict in counts} == {"right", "wrong"}
    assert min(counts[kind, verdict] for kind in KINDS for verdict in ("right", "wrong")) >= 3
    pairs = [(row["reference"], row["answer"]) for row in rows()]
    assert len(pairs) == len(set(pairs))


def test_no_wrong_answer_is_right_and_at_most_two_percent_of_the_right_are_wrong(capsys):
    graded = [(row, right(row)) for row in rows()]
    agreed = Counter(row["kind"] for row, got in graded if got == (row["verdict"] == "right"))
    totals = Counter(row["kind"] for row in rows())
    with capsys.disabled():
        print()
        for kind, total in sorted(totals.items()):
            print(f"{kind:12} {agreed[kind]:4} of {total:4}  {agreed[kind] / total:7.2%}")
    wrong_right = [row for row, got in graded if got and row["verdict"] == "wrong"]
    wrong_wrong = [row for row, got in graded if not got and row["verdict"] == "right"]
    assert wrong_right == []
    assert len(wrong_wrong) <= 0.02 * sum(row["verdict"] == "right" for row in rows()), wrong_wrong


def test_equality_does_not_depend_on_the_side():
    """A right answer is the reference of its reference, where no unit or label was left out."""
    plain = {"fraction", "root", "interval", "set", "tuple", "base", "matrix", "polynomial"}
    for row in rows():
        both = row["reference"], row["answer"]
        if row["kind"] in plain and "=" not in "".join(both) and right(row):
            assert equivalent(*both[::-1]), both


def seconds(row: dict) -> float:
    """Return the processor time of grading a row, here and in the worker, which has started."""
    warm()
    worker = equivalence._WORKER.process
    began, here = equivalence._WORKER.clock(), time.process_time()
    right(row)
    spent = time.process_time() - here
    # A worker that was late is another process now, and has had all the time it may have.
    same = equivalence._WORKER.process is worker
    return spent + (equivalence._WORKER.clock() - began if same else equivalence.SECONDS)


def test_every_answer_is_graded_in_time():
    for row in rows():
        limit = 1.0 if row["kind"] in ALGEBRA else 0.05
        took = seconds(row)
        if took > limit:
            took = min(seconds(row) for _ in range(3))
        assert took <= limit, row


@pytest.mark.parametrize(
    "answer",
    ["9^{9^9}", "1000000!", "(x+y+z)^{99}", "\\binom{1000000}{500000}", "2^{2^{2^{2^{2^2}}}}",
     "((x+y)^{50})^{50}", "10^{1000000}", "e^{e^{e^{20}}}", "(((1+x)^{9})^{9})^{9}", "1e99999",
     "(" * 99 + "5", "\\frac" * 39, "9" * 200, "\\sqrt" * 39 + "2", "^{" * 99, "2^" * 99 + "2"],
)  # fmt: skip
def test_hostile_answers_never_reach_the_worker(answer, monkeypatch):
    def never(*_):
        raise AssertionError("the worker was asked")

    monkeypatch.setattr(equivalence._WORKER, "ask", never)
    for reference in ("5", "x", "\\frac{\\sqrt{3}}{2}", "\\sin x"):
        began = time.process_time()
        assert not equivalent(reference, answer)
        assert time.process_time() - began < 0.5
    assert judge(Problem("m", "math", "math", "", ("5",)), answer).reason in ("wrong", "unparsable")


def test_late_algebra_is_wrong_and_the_worker_is_there_again():
    warm()
    slow = ["\\sin^{20} x\\cos^{20} x", "\\frac{\\sin^{20} 2x}{2^{20}}"]
    before = equivalence._WORKER.process.pid
    assert not equivalent(*slow)
    assert equivalence._WORKER.process.pid != before
    assert equivalent("\\ln 8", "3\\ln 2")


def test_a_worker_that_died_is_started_again():
    warm()
    dead = equivalence._WORKER.process
    dead.kill()
    dead.wait()
    assert equivalent("\\ln 8", "3\\ln 2")
    assert equivalence._WORKER.process.pid != dead.pid


def test_a_worker_that_is_killed_while_it_starts_is_started_again(capsys):
    equivalence._WORKER.end()
    equivalence._WORKER._launch()  # not ready yet
    equivalence._WORKER.process.kill()
    before = equivalence._WORKER.restarts
    assert equivalent("\\ln 8", "3\\ln 2")
    assert equivalence._WORKER.restarts == before + 1
    assert "is started again" in capsys.readouterr().out


def test_a_worker_that_never_starts_is_a_clear_error(monkeypatch):
    equivalence._WORKER.end()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(equivalence.GradingError, match="ended 3 times .* math-verify"):
        equivalent("\\ln 8", "3\\ln 2")
    monkeypatch.undo()
    assert equivalent("\\ln 8", "3\\ln 2"), "the next answer is graded again"


def test_a_forked_process_has_a_worker_of_its_own():
    script = (
        "import os\nfrom mrtlib.tasks.math import equivalence\n"
        "def ask():\n"
        "    assert equivalence.equivalent('\\\\ln 8', '3\\\\ln 2')\n"
        "    return equivalence._WORKER.process.pid\n"
        "mine, (end, start) = ask(), os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.write(start, str(ask()).encode())\n"
        "    equivalence._WORKER.end()\n"
        "    os._exit(0)\n"
        "theirs = int(os.read(end, 20))\n"
        "print(mine == theirs, mine == ask())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "False True\n"


def test_a_large_caller_keeps_its_worker():
    """The kernel hands the largest size of a process to those it starts."""
    script = (
        "from mrtlib.tasks.math import equivalence\n"
        "large, pids = b'x' * (400 * 2**20), set()\n"
        "for n in range(2, 6):\n"
        "    assert equivalence.equivalent(f'\\\\ln {2**n + 1}^2', f'2\\\\ln {2**n + 1}')\n"
        "    pids.add(equivalence._WORKER.process.pid)\n"
        "print(len(pids))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "1\n"


def test_the_memory_of_the_worker_is_bounded():
    from mrtlib.tasks.math.worker import MEMORY, RESIDENT

    warm()
    for n in range(2, 40):
        equivalent(f"\\sin({n}x)+2^{{{n}x}}", f"2^{{{n}x}}+\\cos({n}x)\\tan({n}x)")
        equivalent(f"(1+\\sqrt x)^{{{n}}}", f"(1-\\sqrt x)^{{{n}}}+2^{{{n}x}}")
    equivalent("\\ln 8", "3\\ln 2")  # a worker that has grown too large is new by now
    with open(f"/proc/{equivalence._WORKER.process.pid}/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    assert int(status["VmHWM"].split()[0]) * 1024 < RESIDENT + 2**20 * 32
    with open(f"/proc/{equivalence._WORKER.process.pid}/limits", encoding="ascii") as file:
        limit = next(line for line in file if line.startswith("Max address space")).split()[3]
    assert int(limit) < 2 * MEMORY + RESIDENT


def test_nothing_of_the_worker_reaches_the_screen():
    script = (
        "from mrtlib.tasks.math.equivalence import equivalent\n"
        "for answer in ('\\\\cos x^{99}', '\\\\ln(-\\\\sin x)', '\\\\binom{x}{x}^x'):\n"
        "    equivalent('\\\\sin x', answer)\n"
        "equivalent('\\\\sin^{40} x', '(1-\\\\cos^2 x)^{20}+2^{x^x}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], capture_output=True, text=True,
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_grading_numbers_starts_no_worker():
    script = (
        "import sys\nfrom mrtlib.tasks.math import equivalence\n"
        "from mrtlib.tasks.grading import grade\nfrom mrtlib.tasks.problems import Problem\n"
        "grade(Problem('m', 'math', 'math', '', ('1/2',)), '\\\\boxed{0.5}')\n"
        "print(equivalence._WORKER.process, 'sympy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "None False\n"


def test_an_answer_of_any_length_that_is_the_reference_is_right():
    assert len(LONG) > 300
    assert equivalent(LONG, LONG)
    assert equivalent(LONG, LONG.replace(" ", "").replace("{2}", "2"))
    assert not equivalent(LONG, LONG.replace("40x", "41x"))
    long = Problem("m", "math", "math", "", (LONG,))
    assert grade(long, f"\\boxed{{{LONG}}}").reason == "correct"
    assert grade(long, f"\\boxed{{{LONG + LONG}}}").reason == "unparsable"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("0.5", "correct"), ("0.49", "wrong"), ("\\text{half}", "wrong"), ("(1,2)", "wrong"),
     ("1/0", "unparsable"), ("\\frac{1}", "unparsable"), ("9^{9^9}", "unparsable"),
     ("1 2", "unparsable"), ("", "unparsable")],
)  # fmt: skip
def test_reasons(answer, reason):
    problem = Problem("m", "math", "math", "", ("1/2",))
    assert grade(problem, f"\\boxed{{{answer}}}").reason == reason


def test_groups_of_equal_answers():
    answers = ["0.5", None, "1/2", "½", "50\\%", "2", "\\sqrt4", "\\ln 8", "3\\ln 2", "5 cm", "5",
               "5\\text{ cm}", "(1,2)", "(2,1)", "\\{1,2\\}", "2, 1", "(", "((", "(", "",
               float("nan"), "north", "North", "thorn"]  # fmt: skip
    keys = candidates(answers)
    names: dict = {}
    for answer, key in zip(answers, keys, strict=True):
        names.setdefault(key, []).append(answer)
    assert names.pop(None)[0] is None
    assert list(names.values()) == [
        ["0.5", "1/2", "½", "50\\%"], ["2", "\\sqrt4"], ["\\ln 8", "3\\ln 2"],
        ["5 cm", "5\\text{ cm}"], ["5"], ["(1,2)"], ["(2,1)"], ["\\{1,2\\}", "2, 1"],
        ["(", "("], ["(("], [""], ["north", "North"], ["thorn"],
    ]  # fmt: skip


def test_grouping_many_answers_is_bounded(monkeypatch):
    asked = []
    monkeypatch.setattr(equivalence._WORKER, "ask", lambda *_: (asked.append(1) and False, 0.0))
    began = time.process_time()
    algebra = [f"\\sin({n}x)" for n in range(2, 302)]
    numbers = [f"{n}/7" for n in range(1000)]
    assert len(set(candidates(algebra + numbers))) == 1300
    assert len(asked) <= equivalence.ASKED
    assert time.process_time() - began < 10
