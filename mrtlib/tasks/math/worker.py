"""The process in which math-verify and sympy run: `python -m mrtlib.tasks.math.worker`.

One question a line on standard input, the JSON list of the trees of two expressions (see
`algebra`); one answer a line, "1" or "0". Two expressions are equal when their values
agree to 200 digits wherever both are real, tried at random places, and math-verify finds them
equal for positive letters. Both are needed: math-verify rounds numbers, so that 1/2^99 and
1/2^98 are equal to it, and the places alone would prove nothing. Memory is bounded, and nothing
else ever reaches standard output or standard error.
"""

import contextlib
import json
import os
import random
import sys
from collections.abc import Iterator

MEMORY = 256 * 2**20  # bytes of address space beyond what the imports take
RESIDENT = 300 * 2**20  # bytes after which the process ends itself and is started anew
DIGITS, AGREE = 250, 200  # computed with, and demanded to agree
POINTS = 14  # places where expressions with letters are tried
LEAST = 3  # of them that must have a value
_INVERSE = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}


def main() -> None:
    """Answer questions until standard input ends or memory has grown."""
    out = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    # Imports what is needed, and fills the caches that the first question would wait for.
    sine = ["power", ["fn", "sin", ["name", "x"]], ["num", 2, 1]]
    _equal([["sum", sine, ["num", 1, 1]], ["sum", ["num", 1, 1], sine, ["num", 0, 1]]])
    _bound_memory()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        with contextlib.suppress(MemoryError):
            print(int(_equal(json.loads(line))), file=out, flush=True)
            if _resident() < RESIDENT:
                continue
        break  # the next question finds the end of this process, and another is started


def _equal(trees: list) -> bool:
    try:
        return agree(*trees) and _verified(*trees)
    except MemoryError:
        raise
    except Exception:  # sympy raises anything
        return False


def _verified(a: list, b: list) -> bool:
    from math_verify import verify

    whole = _inside_factorials(a) | _inside_factorials(b)
    # math-verify compares a single letter as text; one more than it is an expression.
    reference, answer = symbolic(a, whole) + 1, symbolic(b, whole) + 1
    return bool(verify(reference, answer, timeout_seconds=None))


def subtrees(tree: list) -> Iterator[list]:
    """Yield a tree and all that is in it."""
    yield tree
    for part in tree[1:]:
        if isinstance(part, list):
            yield from subtrees(part)


def names_in(tree: list) -> set[str]:
    """Return the letters of a tree that are no constants."""
    return {part[1] for part in subtrees(tree) if part[0] == "name"} - {"pi", "e", "i"}


def _inside_factorials(tree: list) -> set[str]:
    """Return the letters that count things; taken as integers they let sympy cancel factorials."""
    counts = [part for part in subtrees(tree) if part[0] in ("factorial", "binom")]
    return set().union(*map(names_in, counts))


def symbolic(tree: list, whole: set[str]):
    """Return a tree as a sympy expression, its letters positive, those in `whole` integers."""
    import sympy

    kind, *rest = tree
    if kind == "num":
        return sympy.Rational(*rest)
    if kind == "name":
        constants = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
        integer = True if rest[0] in whole else None
        return constants.get(rest[0]) or sympy.Symbol(rest[0], positive=True, integer=integer)
    if kind == "fn":
        return getattr(sympy, _INVERSE.get(rest[0], rest[0]))(symbolic(rest[1], whole))
    return {
        "sum": sympy.Add, "product": sympy.Mul, "neg": lambda a: -a, "div": lambda a, b: a / b,
        "power": sympy.Pow, "root": sympy.real_root, "abs": sympy.Abs, "degrees": sympy.rad,
        "log": lambda base, a: sympy.log(a) / sympy.log(base), "binom": sympy.binomial,
        "factorial": sympy.factorial,
    }[kind](*(symbolic(part, whole) for part in rest))  # fmt: skip


def agree(a: list, b: list) -> bool:
    """Return whether two trees have the same values at random places, to 200 digits.

    Places where a part of one has no real value are left out, unless there are no letters or i
    is in it.
    """
    import mpmath

    names, rng, tried = sorted(names_in(a) | names_in(b)), random.Random(0), 0
    imaginary = not names or ["name", "i"] in [*subtrees(a), *subtrees(b)]
    for at in range(POINTS if names else 1):
        place = _place(names, at, rng)
        try:
            gap, size = _gap(a, b, place, DIGITS, imaginary)
            if gap > size * mpmath.mpf(10) ** -AGREE:
                # Rounding alone shrinks with more digits: sin(pi) is 0, exp(-5000) is not.
                again, _ = _gap(a, b, place, 2 * DIGITS, imaginary)
                if again > gap * mpmath.mpf(10) ** -AGREE:
                    return False
        except (ZeroDivisionError, ValueError, OverflowError):
            continue
        tried += 1
    return tried >= (LEAST if names else 1)


def _place(names: list[str], at: int, rng: random.Random) -> dict:
    """Draw values of letters: positive for roots and logarithms, then negative, then mixed."""
    import mpmath

    low, high = (0.1, 3) if at % 3 else (3, 30)
    signs = (1,) if at < 6 else (-1,) if at < 8 else (-1, 1)
    return {name: rng.choice(signs) * mpmath.mpf(rng.uniform(low, high)) for name in names}


def _gap(a: list, b: list, place: dict, digits: int, imaginary: bool) -> tuple:
    """Return the distance of two values and the larger one's size."""
    import mpmath

    with mpmath.workdps(digits):
        left, right = (numeric(tree, place, imaginary) for tree in (a, b))
        return abs(left - right), max(abs(left), abs(right))


def numeric(tree: list, place: dict, imaginary: bool):
    """Return the value of a tree at a place, with mpmath's present precision.

    Raises:
        ValueError: a part of it is not real, and `imaginary` does not allow that.
    """
    import mpmath

    kind, *rest = tree
    if kind == "num":
        return mpmath.mpf(rest[0]) / rest[1]
    if kind == "name":
        constants = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1)}
        return place[rest[0]] if rest[0] in place else +constants[rest[0]]
    parts = [numeric(part, place, imaginary) for part in rest if isinstance(part, list)]
    if kind == "fn":
        found = getattr(mpmath, _INVERSE.get(rest[0], rest[0]))(*parts)
    else:
        found = _NUMERIC[kind](mpmath, *parts)
    if mpmath.im(found) and not imaginary:
        raise ValueError("no real value here")
    return found


def _root(mpmath, a, index):
    """Return the real root where there is one, as school has it."""
    if int(index) % 2 and not mpmath.im(a) and mpmath.re(a) < 0:
        return -mpmath.root(-mpmath.re(a), int(index))
    return mpmath.root(a, int(index))


_NUMERIC = {
    "sum": lambda m, *parts: m.fsum(parts), "product": lambda m, *parts: m.fprod(parts),
    "div": lambda m, a, b: a / b, "neg": lambda m, a: -a, "power": lambda m, a, b: a**b,
    "log": lambda m, base, a: m.log(a) / m.log(base), "binom": lambda m, n, k: m.binomial(n, k),
    "factorial": lambda m, n: m.factorial(n), "abs": lambda m, a: abs(a),
    "degrees": lambda m, a: m.radians(a), "root": _root,
}  # fmt: skip


def _bound_memory() -> None:
    with contextlib.suppress(ImportError, OSError):  # a system without limits or /proc
        import resource

        most = _pages(0) * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _resident() -> int:
    """Return the resident size in bytes; 0 where it is unknown.

    Not from getrusage, whose maximum a process inherits from the one that started it.
    """
    try:
        return _pages(1) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _pages(field: int) -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[field])


if __name__ == "__main__":
    main()
