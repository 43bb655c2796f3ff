"""Trees of expressions to exact values.

`value_of` bounds powers, factorials, the nesting of functions and the number of terms. A tree that
it refuses never reaches sympy.
"""

import math
from fractions import Fraction
from functools import reduce

from mrtlib.tasks.math.algebra import Tree
from mrtlib.tasks.math.values import (
    MAX_FACTORIAL,
    Arithmetic,
    Undefined,
    Value,
    ValueTooLarge,
    constant,
    named,
    number_of,
    rational,
    text_of,
)

MAX_NESTED = 2  # functions in functions, powers in exponents
MAX_EXPONENT = 10_000  # of a power outside the field
MAX_NUMBER = 10**12  # in functions, which sympy and mpmath are given


def value_of(tree: Tree, field: Arithmetic, nested: int = 0) -> Value:
    """Return the exact value of a tree; what is outside the field becomes a name "@...".

    Raises:
        ValueTooLarge: beyond the bounds.
        Undefined: there is no such value.
    """
    kind, *rest = tree
    if kind == "num":
        return constant(Fraction(*rest))
    if kind == "name":
        return named(rest[0])
    if nested > MAX_NESTED:
        raise ValueTooLarge("functions too deep in functions")
    inside = nested + (kind in ("fn", "log", "root", "binom", "factorial"))
    if kind == "power":
        return _power(value_of(rest[0], field, nested), rest[1], field, nested + 1)
    if kind == "fn":
        return _outside(kind, [named(rest[0]), value_of(rest[1], field, inside)])
    values = [value_of(part, field, inside) for part in rest]
    return _OPERATIONS[kind](field, *values)


def _power(base: Value, tree: Tree, field: Arithmetic, nested: int) -> Value:
    exponent = value_of(tree, field, nested)
    number, known = rational(exponent), rational(base)
    if number is not None and number.denominator == 1:
        return field.power(base, int(number))
    if number is not None and number.denominator == 2 and known is not None:
        root = field.root(known)
        if root is not None:
            return field.power(root, number.numerator)
    size = number_of(exponent)
    if nested > MAX_NESTED or (size is not None and abs(size) > MAX_EXPONENT):
        raise ValueTooLarge("a tower of powers")
    return _outside("power", [base, exponent])


def _root(field: Arithmetic, value: Value, index: Value) -> Value:
    number, known = rational(index), rational(value)
    if number is None or number.denominator != 1 or not 2 <= number <= 100:
        raise Undefined("a root that is no root")
    outside = _outside("power", [value, constant(1 / number)])
    if known is None:
        return outside
    if number == 2:
        return field.root(known) or outside
    if known < 0 and number % 2:
        # The real root, which is not the principal power that sympy would take.
        return field.multiply(constant(-1), _root(field, constant(-known), index))
    exact = _whole_root(known, int(number))
    return constant(exact) if exact is not None else outside


def _whole_root(value: Fraction, index: int) -> Fraction | None:
    if value < 0 and index % 2 == 0:
        return None
    parts = []
    for part in (abs(value.numerator), value.denominator):
        guess = round(part ** (1 / index)) if part < 10**300 else 0
        if guess**index != part:
            return None
        parts.append(guess)
    return Fraction(parts[0], parts[1]) * (-1 if value < 0 else 1)


def _log(field: Arithmetic, base: Value, value: Value) -> Value:
    low, known = rational(base), rational(value)
    if known is not None and known <= 0:
        raise Undefined("the logarithm of a number that is not positive")
    if low is not None and (low <= 0 or low == 1):
        raise Undefined("a logarithm to such a base")
    if text_of(base) == text_of(value):
        return constant(1)
    if low is not None and known is not None:
        guess = round(math.log(known) / math.log(low)) if known < 10**300 else 0
        if abs(guess) < 1000 and low**guess == known:
            return constant(guess)
    return _outside("log", [base, value])


def _factorial(field: Arithmetic, value: Value) -> Value:
    number = rational(value)
    if number is None:
        return _outside("factorial", [value])
    if number.denominator != 1 or number < 0:
        raise Undefined("the factorial of such a number")
    if number > MAX_FACTORIAL:
        raise ValueTooLarge("a factorial")
    return constant(math.factorial(int(number)))


def _binom(field: Arithmetic, top: Value, bottom: Value) -> Value:
    n, k = rational(top), rational(bottom)
    if n is None or k is None:
        return _outside("binom", [top, bottom])
    if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        raise Undefined("such a binomial")
    if n > 10 * MAX_FACTORIAL:
        raise ValueTooLarge("a binomial")
    return constant(math.comb(int(n), int(k)))


def _abs(field: Arithmetic, value: Value) -> Value:
    number = rational(value)
    return constant(abs(number)) if number is not None else _outside("abs", [value])


def _outside(kind: str, values: list[Value]) -> Value:
    """Name a value outside the field by what it is made of."""
    for value in values:
        number = rational(value)
        if number is not None and abs(number) > MAX_NUMBER:
            raise ValueTooLarge("a large number in a function")
    text = f"@{kind}({','.join(map(text_of, values))})"
    if len(text) > 20_000:
        raise ValueTooLarge("functions of long expressions")
    return named(text)


_OPERATIONS = {
    "sum": lambda field, *values: reduce(field.add, values),
    "product": lambda field, *values: reduce(field.multiply, values),
    "div": lambda field, a, b: field.divide(a, b),
    "neg": lambda field, a: field.multiply(constant(-1), a),
    "degrees": lambda field, a: field.multiply(a, field.divide(named("pi"), constant(180))),
    "abs": _abs, "root": _root, "log": _log, "factorial": _factorial, "binom": _binom,
}  # fmt: skip
