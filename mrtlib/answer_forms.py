r"""What kind of thing an answer is: a number, a set, an interval, an equation, a text ...

`answer_reading` makes these forms of tokens and `answer_equality` compares them. Several values
("1, 2", "1 or 2", "±2") are a list. A label (`x = 5`, `x \in A`) is kept beside what it labels.
An inequality in one letter is the set of its solutions, a union of intervals. What fits no form
is `Unread`, which equals nothing but the same tokens.
"""

from dataclasses import dataclass

from mrtlib.answer_algebra import Tree


@dataclass(frozen=True)
class Unread:
    """An answer in no known form."""


@dataclass(frozen=True)
class Words:
    """A text, its words joined by single spaces."""

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
class Based:
    """An integer written in another base than ten, its digits without leading zeros."""

    text: str


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


Form = (
    Unread | Words | Scalar | Infinite | Based | Items | Union | Matrix | Relation | Labelled
)  # fmt: skip
REAL = Union((Piece(Infinite(-1), Infinite(1), False, False),))


def interval_of(form: Form) -> Piece | None:
    """Return the interval that a pair in brackets can also be."""
    if not isinstance(form, Items) or form.kind not in ("()", "(]", "[)", "[]"):
        return None
    if len(form.items) != 2 or not all(isinstance(i, Scalar | Infinite) for i in form.items):
        return None
    return Piece(*form.items, form.kind[0] == "[", form.kind[1] == "]")
