"""Whether two mathematical answers are equal: exactly by their forms, algebra by math-verify.

`equality` decides numbers, units, texts, sets, intervals and all rational expressions in this
process. Only functions, and powers with letters, are left to a worker process with a time limit
(`worker`), and only within the bounds of `values`.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path

from mrtlib.tasks.math.algebra import Tree
from mrtlib.tasks.math.equality import equal, readable
from mrtlib.tasks.math.evaluation import value_of
from mrtlib.tasks.math.reading import form_of
from mrtlib.tasks.math.tokens import Token, spelling, tokens_of
from mrtlib.tasks.math.values import Arithmetic, Scalar, Undefined, ValueTooLarge, rational
from mrtlib.tasks.problems import MAX_ANSWER, Grade, Problem

SECONDS = 0.8  # of the worker's processor time, for one comparison of answers
STARVED = 10.0  # seconds after which the worker is late even if other processes had the processor
START_SECONDS = 120.0  # importing sympy and compiling the grammar, once, on a slow machine
STARTS = 3  # tries, before it is given up
MAX_READ = 200  # characters of an answer whose form is looked at
MAX_REFERENCE = 1000  # the same of a reference, which a person wrote
MAX_TEXT = 4000  # characters of a text that is compared as text
ASKED = 24  # questions about algebra in one grouping of answers
PAIRS = 2000  # exact comparisons in one grouping


class GradingError(ValueError):
    """Answers that cannot be graded, as what decides algebra does not run."""


def equivalent(reference: str, answer: str) -> bool:
    """Return whether an answer equals the reference; see `equality` for what is equal.

    An answer of more than 200 characters is equal only if it is the reference but for spaces and
    spellings of LaTeX. Algebra that takes over 0.8 s of processor time counts as not equal.
    """
    if max(len(reference), len(answer)) > MAX_TEXT:
        return False
    mine, theirs = tokens_of(reference), tokens_of(answer)
    if len(answer) > MAX_READ or len(reference) > MAX_REFERENCE:
        return bool(mine) and spelling(mine) == spelling(theirs)
    return equal(mine, theirs, _Questions(SECONDS, ASKED))


def judge(problem: Problem, answer: str) -> Grade:
    """Grade an answer: correct, wrong, or unparsable, which is in no form that is known."""
    if any(equivalent(reference, answer) for reference in problem.references):
        reason = "correct"
    else:
        read = len(answer) <= MAX_READ and readable(tokens_of(answer))
        reason = "wrong" if read else "unparsable"
    return Grade(reason == "correct", answer[:MAX_ANSWER], reason)


def candidates(answers: Sequence[str | None], seconds: float = 10.0) -> list[Hashable | None]:
    """Return a key for each answer, the same for answers that are equal; None stays None.

    The key is the first answer of its group as it was written. Equality is strict: 5 and 5 cm
    are two answers, 0.5 and 1/2 one. An answer in no known form is equal to its own spelling.
    Cost is bounded: at most 2,000 exact comparisons and 24 questions about algebra that take
    `seconds` together; answers whose comparison would go beyond that count as different.

    Args:
        answers: (n,) texts, anything that is no text counts as None.
    """
    groups = _Groups(_Questions(seconds, ASKED))
    return [groups.key(a) if isinstance(a, str) else None for a in answers]


class _Groups:
    """Groups of equal answers among those seen so far."""

    def __init__(self, ask: "_Questions"):
        self.ask, self.pairs = ask, PAIRS
        self.spelled: dict[tuple[Token, ...], str] = {}
        self.numbers: dict[Hashable, str] = {}
        self.first: list[tuple[tuple[Token, ...], str, bool]] = []

    def key(self, answer: str) -> str:
        tokens = spelling(tokens_of(answer[:MAX_TEXT]))
        if not tokens or len(answer) > MAX_READ:
            return self.spelled.setdefault(tokens, answer)
        if tokens not in self.spelled:
            self.spelled[tokens] = self._group(tokens, answer)
        return self.spelled[tokens]

    def _group(self, tokens: tuple[Token, ...], answer: str) -> str:
        number = _number(tokens)
        if number in self.numbers:
            return self.numbers[number]
        for other, key, is_number in self.first:
            if is_number and number is not None:
                continue  # two numbers with different values
            self.pairs -= 1
            if self.pairs < 0:
                break
            if equal(other, tokens, self.ask, strict=True):
                return key
        self.first.append((tokens, answer, number is not None))
        if number is not None:
            self.numbers[number] = answer
        return answer


def _number(tokens: tuple[Token, ...]) -> Hashable | None:
    """Return the value and unit of an answer that is a rational number, or None."""
    form = form_of(tokens)
    try:
        value = rational(value_of(form.tree, Arithmetic())) if isinstance(form, Scalar) else None
    except (ValueTooLarge, Undefined):
        return None
    if value is None:
        return None
    return (value / 100, "") if form.unit == "%^1" else (value, form.unit)


class _Questions:
    """Asks the worker, within a total of seconds and a number of questions."""

    def __init__(self, seconds: float, count: int):
        self.seconds, self.count = seconds, count

    def __call__(self, a: Tree, b: Tree) -> bool:
        self.count -= 1
        if self.count < 0 or self.seconds <= 0:
            return False
        right, spent = _WORKER.ask([a, b], min(self.seconds, SECONDS))
        self.seconds -= spent
        return right


class _Worker:
    """The worker process: started when first needed; ended and started anew when it is late."""

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.ready = False
        self.restarts = 0  # after one that was killed; not after one that was late or had grown
        self.lock = threading.Lock()

    def ask(self, trees: list[Tree], seconds: float) -> tuple[bool, float]:
        """Return the answer, False if it is late, and the seconds spent without starting."""
        with self.lock:
            for _ in range(2):  # a process that died is started again, once for a question
                self._start()
                began = self.clock()
                answer = self._answer(trees, seconds)
                if answer is not None:
                    spent = seconds if answer == "late" else self.clock() - began
                    return answer == "1", spent
            return False, seconds

    def _answer(self, trees: list[Tree], seconds: float) -> str | None:
        """Return the worker's line, "late", or None if the process has died."""
        try:
            self.process.stdin.write(json.dumps(trees).encode() + b"\n")
            line = self._patient_line(seconds)
        except OSError:
            line = ""
        if line == "late":
            self.end()
            self._launch()  # it warms up while the caller goes on
        elif not line:
            self._died()
        return line or None

    def _start(self) -> None:
        for _ in range(STARTS):
            if self.process is None:
                self._launch()
            if self.ready or self._line(START_SECONDS) == "ready":
                self.ready = True
                return
            self._died()
        raise GradingError(
            f"the process for algebra ended {STARTS} times while it started; is math-verify "
            "installed (pip install -r requirements.txt), and is there memory for 300 MB?"
        )

    def _died(self) -> None:
        """Clear up behind a process that has ended; one that was killed is counted, and said."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        code = self.process.returncode
        self.end()
        if code == 0:  # it had grown large
            return
        self.restarts += 1
        print(f"the process for algebra ended and is started again; {self.restarts} times so far",
              flush=True)  # fmt: skip

    def _launch(self) -> None:
        package = str(Path(__file__).parents[3])
        paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mrtlib.tasks.math.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip

    def _patient_line(self, seconds: float) -> str:
        """Read a line within seconds of the worker's processor time; load changes no grade."""
        began, last, left = self.clock(), time.monotonic() + STARVED, seconds
        while (line := self._line(left)) == "late" and time.monotonic() < last:
            left = seconds - (self.clock() - began)
            if left < 0.02:
                break
        return line

    def clock(self) -> float:
        """Return the seconds of processor that the worker has used; where unknown, wall time."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return time.monotonic()

    def _line(self, seconds: float) -> str:
        """Read a line: "" at the end of the stream, "late" when there is none in time."""
        out, end = b"", time.monotonic() + seconds
        while not out.endswith(b"\n"):
            left = max(0.0, end - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                return "late"
            piece = os.read(self.process.stdout.fileno(), 64)
            if not piece:
                return ""
            out += piece
        return out.decode().strip()

    def end(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
        self.process, self.ready = None, False


_WORKER = _Worker()
atexit.register(_WORKER.end)
if hasattr(os, "register_at_fork"):  # a forked process must not read its parent's answers
    os.register_at_fork(after_in_child=_WORKER.__init__)
