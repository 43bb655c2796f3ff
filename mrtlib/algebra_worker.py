r"""The process in which math-verify, and with it sympy, runs: `python -m mrtlib.algebra_worker`.

One question a line on standard input, the JSON list of the trees of two expressions (see
`answer_algebra`); one answer a line, "1" or "0". Two expressions are equal when their values
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

MEMORY = 256 * 2**20  # bytes of address space beyond what the imports take
RESIDENT = 300 * 2**20  # bytes after which the process ends itself and is started anew
DIGITS, AGREE = 250, 200  # computed with, and demanded to agree
POINTS = 8  # places where expressions with letters are tried
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


def names_in(tree: list) -> set[str]:
    """Return the letters of a tree that are no constants."""
    if tree[0] == "name":
        return {tree[1]} - {"pi", "e", "i"}
    return set().union(*(names_in(part) for part in tree[1:] if isinstance(part, list)))


def _inside_factorials(tree: list) -> set[str]:
    """Return the letters that count things, which makes factorials shorten."""
    if tree[0] in ("factorial", "binom"):
        return names_in(tree)
    parts = [part for part in tree[1:] if isinstance(part, list)]
    return set().union(*map(_inside_factorials, parts))


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

    Places where one has no real value are left out, unless there are no letters or i is in it.
    """
    import mpmath

    names, rng, tried = sorted(names_in(a) | names_in(b)), random.Random(0), 0
    imaginary = _has_i(a) or _has_i(b) or not names
    for at in range(POINTS if names else 1):
        # Mostly positive, where roots and logarithms of letters have a value.
        low = 0.1 if at < POINTS - 2 else -3
        place = {name: mpmath.mpf(rng.uniform(low, 3)) for name in names}
        try:
            gap, size, real = _gap(a, b, place, DIGITS)
        except (ZeroDivisionError, ValueError, OverflowError):
            continue
        if not (imaginary or real):
            continue
        if gap > size * mpmath.mpf(10) ** -AGREE and not _vanishes(a, b, place, gap):
            return False
        tried += 1
    return tried >= (LEAST if names else 1)


def _gap(a: list, b: list, place: dict, digits: int) -> tuple:
    """Return the distance of two values, the larger one's size, and whether both are real."""
    import mpmath

    with mpmath.workdps(digits):
        left, right = (value(tree, place) for tree in (a, b))
        real = not any(mpmath.im(v) for v in (left, right))
        return abs(left - right), max(abs(left), abs(right)), real


def _vanishes(a: list, b: list, place: dict, gap) -> bool:
    """Return whether a gap is rounding alone: sin(pi) is 0, but exp(-5000) is not."""
    import mpmath

    return _gap(a, b, place, 2 * DIGITS)[0] <= gap * mpmath.mpf(10) ** -AGREE


def _has_i(tree: list) -> bool:
    return tree == ["name", "i"] or any(_has_i(t) for t in tree[1:] if isinstance(t, list))


def value(tree: list, place: dict):
    """Return the value of a tree at a place, with mpmath's precision of the moment."""
    import mpmath

    kind, *rest = tree
    if kind == "num":
        return mpmath.mpf(rest[0]) / rest[1]
    if kind == "name":
        constants = {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1)}
        return place[rest[0]] if rest[0] in place else +constants[rest[0]]
    if kind == "fn":
        return getattr(mpmath, _INVERSE.get(rest[0], rest[0]))(value(rest[1], place))
    parts = [value(part, place) for part in rest]
    return {
        "sum": lambda *v: mpmath.fsum(v), "product": lambda *v: mpmath.fprod(v),
        "div": lambda a, b: a / b, "neg": lambda a: -a, "power": lambda a, b: a**b,
        "log": lambda base, a: mpmath.log(a) / mpmath.log(base), "binom": mpmath.binomial,
        "factorial": mpmath.factorial, "abs": abs, "degrees": mpmath.radians, "root": _root,
    }[kind](*parts)  # fmt: skip


def _root(a, index):
    """Return the real root where there is one, as school has it."""
    import mpmath

    if int(index) % 2 and not mpmath.im(a) and mpmath.re(a) < 0:
        return -mpmath.root(-mpmath.re(a), int(index))
    return mpmath.root(a, int(index))


def _bound_memory() -> None:
    with contextlib.suppress(ImportError, OSError):  # a system without limits or /proc
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def _resident() -> int:
    """Return the largest resident size so far, in bytes; 0 where it is unknown."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
