"""Countdown: reach a target from given numbers. Grammar, answers, grading, and the problem sets.

    sum     = product (("+" | "-") product)*
    product = atom ("*" atom)*
    atom    = whole number | "(" sum ")"

Text is never evaluated as code. A parsed expression is an int or a triple (sign, left, right).
An accepted answer is canonical: it has parentheses only where they change its meaning. So the
accepted answers over given numbers are finitely many.

The problem sets in `data/problems/` are made by one command from one seed. There are two levels,
`three` and `four` numbers from 1 to 20, and targets from 10 to 50. A problem is kept when it has a
solution whose every result lies between 1 and 60, its target is not one of its numbers, and it has
few enough accepted answers (see `LEVELS`) for all of them to be scored. Splits are disjoint by
(sorted numbers, target). The rest is `warmup`: the reasoner learns from it, and no file has it.

Two more test sets are of a kind that no training problem has: `larger`, with targets from 51 to 99
(and results up to 99), and `five`, with five numbers.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from mrtlib.tasks.problems import MAX_ANSWER, Grade, Problem, write_problems

MAX_LENGTH = 200  # characters of an expression
MAX_NUMBER = 10**6  # largest number that an expression may name
MAX_SYMBOLS = 40  # numbers, signs and parentheses of an expression; bounds the recursion
MAX_VALUE = 60  # every intermediate result lies between 1 and this
MAX_LAST = 99  # a careless last result lies between 0 and this

# The problem sets: numbers from 1 to LARGEST, and problems of each level in a split.
LARGEST, TARGETS = 20, range(10, 51)
SPLITS = {"test": 500, "validation": 250, "train": 1500}

@dataclass(frozen=True)
class Kind:
    """What the problems of a level are like, and how they are found."""

    numbers: int
    references: int  # accepted answers at most
    sets: int | None  # sets of numbers that are looked at; None: all of them
    targets: range = TARGETS
    largest: int = MAX_VALUE  # every result of some solution lies between 1 and this


LEVELS = {"three": Kind(3, 6, None), "four": Kind(4, 8, 1500)}
# Sets out of distribution: their levels, and problems of each level.
LARGER = range(51, 100)
OUTSIDE = {
    "larger": ({"three": Kind(3, 6, None, LARGER, 99), "four": Kind(4, 8, 300, LARGER, 99)}, 125),
    "five": ({"five": Kind(5, 24, 120)}, 250),
}

Step = tuple[int, str, int, int]  # larger operand, sign, smaller operand, result
_LEXEME = re.compile(r"\s*([0-9]+|[-+*()])")
MAX_ASKED = 5  # numbers of a question that is read; six have millions of expressions
_QUESTION = re.compile(r"Reach ([0-9]{1,6}) with ([0-9]{1,6}(?:, ?[0-9]{1,6}){1,9})\.?")


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


def asked(question: str, level: str) -> Problem | None:
    """Make the problem that a question of this form asks, or return None if it is another."""
    found = _QUESTION.fullmatch(question.strip())
    if not found:
        return None
    numbers = tuple(map(int, found[2].split(",")))
    return countdown(numbers, int(found[1]), level) if len(numbers) <= MAX_ASKED else None


def judge(problem: Problem, answer: str) -> Grade:
    """Grade an answer: an expression over the problem's numbers that reaches its target."""
    short = answer[:MAX_ANSWER]
    try:
        node = parse(answer[: MAX_ANSWER + 1])
    except ExpressionError:
        return Grade(False, short, "unparsable")
    text = canonical(node)
    if text.split() != lexemes_of(answer):
        return Grade(False, text, "not canonical")
    right = sorted(numbers_in(node)) == list(problem.numbers) and value(node) == problem.target
    return Grade(right, text, "correct" if right else "wrong")


class ExpressionError(ValueError):
    """A text that is not an expression of the small grammar, or one beyond its bounds."""


def parse(text: str):
    """Parse an infix expression over +, -, * and whole numbers into nested tuples.

    Returns:
        An int, or (sign, left, right) with the usual precedence, left-associative.
    Raises:
        ExpressionError: not in the grammar, or longer than its bounds.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    lexemes = lexemes_of(text)
    if len(lexemes) > MAX_SYMBOLS:
        raise ExpressionError(f"more than {MAX_SYMBOLS} symbols")
    node, rest = _sum(lexemes)
    if rest:
        raise ExpressionError(f"{rest[0]!r} was not expected")
    return node


def lexemes_of(text: str) -> list[str]:
    """Split an expression into numbers, signs and parentheses."""
    out, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _LEXEME.match(text, at)
        if match is None:
            raise ExpressionError(f"{text[at]!r} is not part of an expression")
        out.append(match[1])
        at = match.end()
    return out


def _sum(lexemes):
    node, lexemes = _product(lexemes)
    while lexemes and lexemes[0] in "+-":
        right, rest = _product(lexemes[1:])
        node, lexemes = (lexemes[0], node, right), rest
    return node, lexemes


def _product(lexemes):
    node, lexemes = _atom(lexemes)
    while lexemes and lexemes[0] == "*":
        right, lexemes = _atom(lexemes[1:])
        node = ("*", node, right)
    return node, lexemes


def _atom(lexemes):
    if not lexemes:
        raise ExpressionError("it ends too early")
    head, rest = lexemes[0], lexemes[1:]
    if head == "(":
        node, rest = _sum(rest)
        if not rest or rest[0] != ")":
            raise ExpressionError("a parenthesis is not closed")
        return node, rest[1:]
    if not head.isdigit():
        raise ExpressionError(f"{head!r} stands where a number should")
    if len(head) > 7 or int(head) > MAX_NUMBER:
        raise ExpressionError(f"a number is over {MAX_NUMBER}")
    return int(head), rest


def value(node) -> int:
    """Return the value of a parsed expression."""
    if isinstance(node, int):
        return node
    sign, left, right = node[0], value(node[1]), value(node[2])
    return left + right if sign == "+" else left - right if sign == "-" else left * right


def numbers_in(node) -> list[int]:
    """Return the numbers of a parsed expression from left to right."""
    return [node] if isinstance(node, int) else numbers_in(node[1]) + numbers_in(node[2])


def canonical(node) -> str:
    """Write a parsed expression with parentheses only where they change its meaning."""
    if isinstance(node, int):
        return str(node)
    sign, left, right = node
    closed_left = sign == "*" and _is_sum(left)
    closed_right = sign in "*-" and _is_sum(right)
    return f"{_wrap(left, closed_left)} {sign} {_wrap(right, closed_right)}"


def _is_sum(node) -> bool:
    return not isinstance(node, int) and node[0] in "+-"


def _wrap(node, closed: bool) -> str:
    return f"( {canonical(node)} )" if closed else canonical(node)


@cache
def accepted(numbers: tuple[int, ...]) -> dict[int, frozenset[str]]:
    """Enumerate every accepted answer over these numbers, by its value."""
    found: dict[int, set[str]] = {}
    for order in set(itertools.permutations(numbers)):
        for node in _trees(order):
            found.setdefault(value(node), set()).add(canonical(node))
    return {target: frozenset(texts) for target, texts in found.items()}


def _trees(numbers: tuple[int, ...]) -> Iterator:
    """Yield every expression over the numbers in this order."""
    if len(numbers) == 1:
        yield numbers[0]
    for cut in range(1, len(numbers)):
        for left in _trees(numbers[:cut]):
            for right in _trees(numbers[cut:]):
                for sign in "+-*":
                    yield (sign, left, right)


def _all_problems(level: str, kind: Kind, rng: Random) -> list[Problem]:
    """List every problem of a level over the chosen sets of numbers, shuffled."""
    sets = list(itertools.combinations(range(1, LARGEST + 1), kind.numbers))
    if kind.sets is not None:
        sets = rng.sample(sets, kind.sets)
    out = []
    for numbers in sets:
        answers = accepted(numbers)
        out += [
            countdown(numbers, target, level)
            for target in sorted(reachable(numbers, kind.largest))
            if target in kind.targets
            and target not in numbers
            and len(answers[target]) <= kind.references
        ]
        accepted.cache_clear()  # thousands of expressions for each set of four numbers
    rng.shuffle(out)
    return out


def make_splits(seed: int) -> dict[str, list[Problem]]:
    """Make all problems and divide them: test, validation, train, and the rest as warmup."""
    splits: dict[str, list[Problem]] = {name: [] for name in (*SPLITS, "warmup")}
    for level, kind in LEVELS.items():
        left = _all_problems(level, kind, Random(f"{seed}/{level}"))
        for name, count in SPLITS.items():
            splits[name] += left[:count]
            left = left[count:]
        splits["warmup"] += left
    return splits


def make_outside(name: str, seed: int) -> list[Problem]:
    """Make a set of OUTSIDE, by name: no training problem is of its kind."""
    levels, count = OUTSIDE[name]
    return [problem for level, kind in levels.items()
            for problem in _all_problems(level, kind, Random(f"{seed}/{name}/{level}"))[:count]]


def write_splits(folder: Path, seed: int) -> dict[str, int]:
    """Write all splits, and the sets of OUTSIDE, as JSONL into a folder; return the counts."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = make_splits(seed) | {name: make_outside(name, seed) for name in OUTSIDE}
    for name in (*SPLITS, *OUTSIDE):
        write_problems(folder / f"{name}.jsonl", splits[name])
    return {name: len(problems) for name, problems in splits.items()}


def steps_from(
    pool: tuple[int, ...], largest: int = MAX_VALUE
) -> list[tuple[Step, tuple[int, ...]]]:
    """List the steps from a pool from which it can be finished, each with the pool it leaves."""
    return [
        (step, (*rest, step[3]))
        for step, rest in _pairs(pool)
        if 1 <= step[3] <= largest and reachable(tuple(sorted((*rest, step[3]))), largest)
    ]


def last_steps(pool: tuple[int, ...]) -> list[tuple[Step, tuple[int, ...]]]:
    """List all last steps, those included that a searcher who looks ahead would not make."""
    return [(step, (step[3],)) for step, _ in _pairs(pool) if 0 <= step[3] <= MAX_LAST]


def _pairs(pool: tuple[int, ...]) -> Iterator[tuple[Step, tuple[int, ...]]]:
    """Yield every step over two values of a pool, with the values it leaves alone."""
    for i in range(len(pool)):
        for j in range(i + 1, len(pool)):
            large, small = max(pool[i], pool[j]), min(pool[i], pool[j])
            rest = tuple(v for k, v in enumerate(pool) if k not in (i, j))
            yield (large, "+", small, large + small), rest
            yield (large, "-", small, large - small), rest
            yield (large, "*", small, large * small), rest


@cache
def reachable(pool: tuple[int, ...], largest: int = MAX_VALUE) -> frozenset[int]:
    """Return the values that a pool (ascending) can end on, with every result up to `largest`."""
    if len(pool) == 1:
        return frozenset(pool)
    rests = (tuple(sorted(rest)) for _, rest in steps_from(pool, largest))
    return frozenset().union(*(reachable(rest, largest) for rest in rests))


def candidates(answers: Sequence[str | None]) -> list[str | None]:
    """Return what each answer votes for: its value if it is an expression, else itself."""
    found: list[str | None] = []
    for answer in answers:
        try:
            found.append(None if answer is None else str(value(parse(answer))))
        except ExpressionError:
            found.append(answer)
    return found
