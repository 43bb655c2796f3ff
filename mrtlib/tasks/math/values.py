"""What an answer is: an exact value, and the form in which values stand.

A value is a fraction of polynomials over the rationals with square roots of integers. Numbers,
letters, pi and e generate a field in which equality is decided exactly: a value is num / den, both
polynomials with a square-free radicand and powers of names in each term, and a/b = c/d where
ad = bc. Square roots of different square-free integers are independent over the rationals, so a
term's coefficients are unique. What lies outside the field (sin x, 2^n, a root of a letter) is a
name of its own, "@...": equal values with such names are equal, but different ones may be equal
too. All work is counted and bounded, so no input takes long.

A form is a number, a set, an interval, an equation, a text ... `reading` makes it of tokens, and
`equality` compares two. Several values ("1, 2", "1 or 2", "±2") are a list. A label (`x = 5`,
`x \\in A`) is stored beside what it labels. An inequality in one letter is the set of its
solutions, a union of intervals. What fits no form is `Unread`, which equals nothing but the same
tokens.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from mrtlib.tasks.math.algebra import Tree

Poly = dict[tuple[int, tuple[tuple[str, int], ...]], Fraction]
Value = tuple[Poly, Poly]

MAX_BITS = 20_000  # of one coefficient
MAX_TERMS = 500
MAX_WORK = 20_000  # products of terms, for one answer
MAX_DEGREE = 100_000
MAX_FACTORIAL = 300
MAX_RADICAND = 10**10  # its square part is found by trial division


class ValueTooLarge(ValueError):
    """An expression beyond the bounds; it is refused, not computed."""


class Undefined(ValueError):
    """An expression without a value, such as 1/0."""


class Arithmetic:
    """The field's operations, with one budget of work for all of them."""

    def __init__(self, work: int = MAX_WORK):
        self.left = work

    def add(self, a: Value, b: Value) -> Value:
        if a[1] == b[1]:
            return self._checked(self._plus(a[0], b[0])), a[1]
        num = self._plus(self._times(a[0], b[1]), self._times(b[0], a[1]))
        return self._checked(num), self._times(a[1], b[1])

    def multiply(self, a: Value, b: Value) -> Value:
        return self._times(a[0], b[0]), self._times(a[1], b[1])

    def divide(self, a: Value, b: Value) -> Value:
        if not b[0]:
            raise Undefined("division by zero")
        return self.multiply(a, (b[1], b[0]))

    def power(self, base: Value, exponent: int) -> Value:
        """Return base^exponent; refused before it is computed if the result is too large."""
        if exponent < 0:
            base, exponent = self.divide(constant(1), base), -exponent
        if exponent == 0 and not base[0]:
            raise Undefined("0^0")
        for poly in base:
            terms = len(poly)
            bits = max((_bits(c) for c in poly.values()), default=0)
            wide = math.comb(min(exponent, MAX_TERMS) + terms - 1, terms - 1) if terms > 1 else 1
            if exponent > MAX_DEGREE or wide > MAX_TERMS or exponent * (bits - 1) > MAX_BITS:
                raise ValueTooLarge(f"a power of {exponent}")
        out = constant(1)
        while exponent:
            if exponent & 1:
                out = self.multiply(out, base)
            exponent >>= 1
            base = self.multiply(base, base) if exponent else base
        return out

    def root(self, value: Fraction) -> Value | None:
        """Return the square root of a rational, imaginary for a negative one."""
        whole = abs(value.numerator * value.denominator)
        square = math.isqrt(whole)
        if square * square != whole:
            if whole > MAX_RADICAND:
                return None
            square = _square_part(whole)
        names = (("i", 1),) if value < 0 else ()
        key = (whole // square**2 if square else 1, names)
        return ({key: Fraction(square, value.denominator)} if square else {}), one()

    def equal(self, a: Value, b: Value) -> bool:
        return self._times(a[0], b[1]) == self._times(b[0], a[1])

    def _plus(self, a: Poly, b: Poly) -> Poly:
        out = dict(a)
        for key, coefficient in b.items():
            out[key] = out.get(key, Fraction(0)) + coefficient
            if not out[key]:
                del out[key]
        return out

    def _times(self, a: Poly, b: Poly) -> Poly:
        if b == one():
            return a
        wide = max(map(_bits, [*a.values(), *b.values()]), default=0)
        self.left -= len(a) * len(b) * (1 + wide // 256)
        if self.left < 0:
            raise ValueTooLarge("more work than an answer is worth")
        out: Poly = {}
        for (n, names), x in a.items():
            for (m, others), y in b.items():
                shared = math.gcd(n, m)
                sign, merged = _merge(names, others)
                key = (n * m // shared**2, merged)
                out[key] = out.get(key, Fraction(0)) + sign * shared * x * y
        return self._checked({key: value for key, value in out.items() if value})

    def _checked(self, poly: Poly) -> Poly:
        if len(poly) > MAX_TERMS or any(_bits(value) > 2 * MAX_BITS for value in poly.values()):
            raise ValueTooLarge("too many terms or digits")
        return poly


def one() -> Poly:
    return {(1, ()): Fraction(1)}


def constant(value: Fraction | int) -> Value:
    """Return a rational as a value."""
    return ({(1, ()): Fraction(value)} if value else {}), one()


def named(name: str) -> Value:
    """Return a letter, or a name that stands for something outside the field."""
    return {(1, ((name, 1),)): Fraction(1)}, one()


def rational(value: Value) -> Fraction | None:
    """Return a value as a rational number, or None if it is none."""
    num, den = value
    if not num:
        return Fraction(0)
    (key, top), *more = num.items()
    if more or len(den) != 1 or key not in den:
        return None
    return top / den[key]


def opaque(value: Value) -> bool:
    """Return whether something outside the field is part of a value."""
    return any(name.startswith("@") for poly in value for _, names in poly for name, _ in names)


def bits(value: Value) -> int:
    """Return the bits of the largest number in a value."""
    return max((_bits(number) for poly in value for number in poly.values()), default=0)


def text_of(value: Value) -> str:
    """Return a text that is the same for equal representations of a value."""
    return repr(tuple(sorted((key, str(c)) for key, c in poly.items()) for poly in value))


def scale_of(a: Value, b: Value) -> Fraction | None:
    """Return the rational c with num(a) = c num(b), both not zero; None without one."""
    if not a[0] or a[0].keys() != b[0].keys():
        return None
    ratios = {a[0][key] / b[0][key] for key in a[0]}
    return ratios.pop() if len(ratios) == 1 else None


def number_of(value: Value) -> float | None:
    """Return a real constant as a float, for putting ends of intervals in order."""
    try:
        num, den = (_float(poly) for poly in value)
        return num / den
    except (KeyError, OverflowError, ZeroDivisionError):
        return None


def _float(poly: Poly) -> float:
    known = {"pi": math.pi, "e": math.e}
    return sum(
        float(coefficient) * math.sqrt(n) * math.prod(known[name] ** k for name, k in names)
        for (n, names), coefficient in poly.items()
    )


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _merge(names, others) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Multiply two products of names; i^2 is -1, which gives the sign."""
    if not names or not others:
        return 1, names or others
    powers = dict(names)
    for name, power in others:
        powers[name] = powers.get(name, 0) + power
    turns = powers.pop("i", 0) % 4
    if turns % 2:
        powers["i"] = 1
    return (-1 if turns >= 2 else 1), tuple(sorted(powers.items()))


def _square_part(whole: int) -> int:
    """Return the largest s with s^2 dividing a whole number, in O(cube root) divisions."""
    square, rest, factor = 1, whole, 2
    while factor**3 <= rest:
        while rest % factor**2 == 0:
            rest //= factor**2
            square *= factor
        if rest % factor == 0:
            rest //= factor
        factor += 1
    # What is left has no prime below its cube root: it is p, p q or p^2.
    last = math.isqrt(rest)
    return square * last if last * last == rest else square


# --- forms -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unread:
    """An answer in no known form."""


@dataclass(frozen=True)
class Words:
    """A text that is compared as it stands: words, a set of numbers, an integer in another base."""

    text: str


@dataclass(frozen=True)
class Scalar:
    """One expression. `unit` is "" without one."""

    tree: Tree
    unit: str = ""


@dataclass(frozen=True)
class Infinite:
    """Plus or minus infinity."""

    sign: int


@dataclass(frozen=True)
class Items:
    """Several forms.

    `kind` is "set" or "list" (both without an order), "ratio", "chain" (a = b = c), or the
    brackets of a tuple or interval, as "(]".
    """

    kind: str
    items: tuple


@dataclass(frozen=True)
class Piece:
    """An interval; an end is a Scalar or Infinite, and belongs to it where closed."""

    low: Scalar | Infinite
    high: Scalar | Infinite
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True)
class Union:
    """Intervals, single points among them as closed intervals from a number to itself."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of expressions; `bars` marks a determinant."""

    rows: tuple[tuple[Scalar, ...], ...]
    bars: bool


@dataclass(frozen=True)
class Relation:
    """left = right, left < right or left <= right, in more than one letter alone on a side."""

    sign: str
    left: Tree
    right: Tree


@dataclass(frozen=True)
class Labelled:
    """A form with the name it was given."""

    name: str
    form: object


Form = Unread | Words | Scalar | Infinite | Items | Union | Matrix | Relation | Labelled
REAL = Union((Piece(Infinite(-1), Infinite(1), False, False),))


def interval_of(form: Form) -> Piece | None:
    """Return the interval that a pair in brackets can also be."""
    if not isinstance(form, Items) or form.kind not in ("()", "(]", "[)", "[]"):
        return None
    if len(form.items) != 2 or not all(isinstance(i, Scalar | Infinite) for i in form.items):
        return None
    return Piece(*form.items, form.kind[0] == "[", form.kind[1] == "]")
