"""Whether two answers are equal: exactly where that is possible, else by asking.

The conventions, which are those of graders for the MATH data set (arXiv 2103.03874) where the
mathematics leaves a choice:

- Numbers are equal by value: 0.5, 1/2, ½ and 50 % are one; 0.333333 is not 1/3.
- A unit must be the reference's. An answer may leave the unit out ("5" for "5 cm", as the
  question names it) or add one that the reference lacks ("5 cm" for "5"). A percent sign may be
  left out or added like a unit, but only for numbers above 1: 0.5 and 0.5 % are both
  probabilities. Degrees also equal the same angle in radians where a pi shows that it is one.
  Nothing else is converted: 100 cm is not 1 m.
- Words are compared as text, without case unless they are a single letter.
- A tuple is ordered, a set is not, and no tuple is a set. A list ("1, 2", "±2") has no order and
  counts repetitions; it equals the set of its values. {5} is not 5.
- A pair in brackets equals the interval with the same brackets; `x<3` is (-∞, 3).
- A label ("x =") may be left out or added; two different labels are two different answers.
- Equations are equal if they are multiples of each other.
- Integers in a base are equal only to the same integer in the same base; base 10 is none.
"""

from collections.abc import Callable
from itertools import pairwise

from mrtlib.tasks.math.algebra import NotAlgebra, Tree
from mrtlib.tasks.math.evaluation import value_of
from mrtlib.tasks.math.reading import Tokens, form_of
from mrtlib.tasks.math.tokens import spelling
from mrtlib.tasks.math.values import (
    Arithmetic,
    Form,
    Infinite,
    Items,
    Labelled,
    Matrix,
    Piece,
    Relation,
    Scalar,
    Undefined,
    Union,
    Unread,
    Value,
    ValueTooLarge,
    bits,
    constant,
    interval_of,
    named,
    number_of,
    opaque,
    rational,
    scale_of,
)

Ask = Callable[[Tree, Tree], bool]
MAX_ITEMS = 50  # members of a set or list whose order is free
MAX_ASKED_BITS = 512  # of a number in a question about algebra; the worker has enough digits
WORK = 20_000  # products of terms, for one comparison


def readable(tokens: Tokens) -> bool:
    """Return whether an answer is in a known form and within the bounds of an exact value."""
    form = form_of(tokens)
    if isinstance(form, Scalar):
        try:
            value_of(form.tree, Arithmetic())
        except (ValueTooLarge, Undefined):
            return False
    return not isinstance(form, Unread)


def equal(reference: Tokens, answer: Tokens, ask: Ask, strict: bool = False) -> bool:
    """Return whether an answer equals a reference.

    Args:
        reference, answer: tokens of both.
        ask: decides whether two expressions are equal that exact values leave open.
        strict: allow no difference in units and labels, which makes equality transitive.
    """
    if not answer or not reference:
        return False
    if spelling(reference) == spelling(answer):
        return True
    try:
        comparison = _Comparison(ask, strict)
        return comparison.answers(reference, answer)
    except (ValueTooLarge, Undefined, NotAlgebra):
        return False


class _Comparison:
    """Comparison of one pair of answers, with one budget of exact arithmetic."""

    def __init__(self, ask: Ask, strict: bool):
        self.ask, self.strict = ask, strict
        self.field = Arithmetic(WORK)

    def answers(self, reference: Tokens, answer: Tokens) -> bool:
        mine, theirs = (self.end_of_chain(form_of(tokens)) for tokens in (reference, answer))
        if isinstance(mine, Scalar) and isinstance(theirs, Relation) and theirs.sign == "=":
            # 1/3 = 0.333 is no equation but a sum worked out, and must be right throughout.
            return all(self.quantities(mine, Scalar(side)) for side in (theirs.left, theirs.right))
        if self.strict:
            return self.same(mine, theirs)
        if isinstance(mine, Scalar) and isinstance(theirs, Scalar):
            if mine.unit and not theirs.unit:
                # "5 m" without \text is a product until a reference says that m is a unit.
                words = tuple(("word", t) if len(t) == 1 and k == "name" else (k, t)
                              for k, t in answer)  # fmt: skip
                again = form_of(words)
                if isinstance(again, Scalar) and again.unit == mine.unit:
                    theirs = again
            return self.quantities(mine, theirs)
        if _is_list(mine) and _is_list(theirs):
            return self.same(mine, _without_indices(mine, theirs))
        both = _assigned(mine), _assigned(theirs)
        if None not in both:
            return self.assignments(*both)
        if isinstance(mine, Labelled) != isinstance(theirs, Labelled):
            return self.unlabelled(mine, theirs)
        return self.same(mine, theirs)

    def assignments(self, a: dict[str, Form], b: dict[str, Form]) -> bool:
        """Compare x = 1, y = 2 with (x, y) = (1, 2), or with (1, 2) by the order of letters."""
        if "" in a or "" in b:
            mine, theirs = (
                list(names.values()) if "" in names else [names[name] for name in sorted(names)]
                for names in (a, b)
            )
            return len(mine) == len(theirs) and all(map(self.same, mine, theirs))
        return a.keys() == b.keys() and all(self.same(a[name], b[name]) for name in a)

    def end_of_chain(self, form: Form) -> Form:
        """Return the last side of a chain a = b = c if all are equal; other forms unchanged."""
        if isinstance(form, Labelled) and not isinstance(form.form, Labelled):
            return Labelled(form.name, self.end_of_chain(form.form))
        if not isinstance(form, Items) or form.kind != "chain":
            return form
        equal_sides = all(self.quantities(a, b) for a, b in pairwise(form.items))
        return form.items[-1] if equal_sides else Unread()

    def unlabelled(self, mine: Form, theirs: Form) -> bool:
        labelled, other = (mine, theirs) if isinstance(mine, Labelled) else (theirs, mine)
        if isinstance(other, Relation) and isinstance(labelled.form, Scalar):
            equation = Relation("=", ["name", labelled.name], labelled.form.tree)
            return self.relations(other, equation)
        inner = [form.form if form is labelled else form for form in (mine, theirs)]
        if all(isinstance(form, Scalar) for form in inner):
            return self.quantities(*inner)
        return self.same(*inner)

    def same(self, a: Form, b: Form) -> bool:
        """Return whether two forms are equal, with no leave for units and labels."""
        if isinstance(a, Unread) or isinstance(b, Unread):
            return False
        if isinstance(a, Union) or isinstance(b, Union):
            return self.unions(a, b)
        if type(a) is not type(b):
            return False
        if isinstance(a, Scalar):
            return self.units(a, b)
        if isinstance(a, Labelled):
            return _same_label(a.name, b.name) and self.same(a.form, b.form)
        if isinstance(a, Items):
            return self.items(a, b)
        if isinstance(a, Matrix):
            return a.bars == b.bars and self.rows(a, b)
        if isinstance(a, Relation):
            return self.relations(a, b)
        return a == b  # words, infinity

    # --- numbers and expressions ---

    def value(self, tree: Tree) -> Value:
        return value_of(tree, self.field)

    def expressions(self, a: Tree, b: Tree) -> bool:
        left, right = self.value(a), self.value(b)
        if self.field.equal(left, right):
            return True
        undecided = opaque(left) or opaque(right)
        return undecided and max(bits(left), bits(right)) <= MAX_ASKED_BITS and self.ask(a, b)

    def units(self, a: Scalar, b: Scalar) -> bool:
        """Compare two expressions, percent as hundredths and any other unit by its name."""
        (left, unit), (right, other) = (
            (["div", s.tree, ["num", 100, 1]], "") if s.unit == "%^1" else (s.tree, s.unit)
            for s in (a, b)
        )
        return unit == other and self.expressions(left, right)

    def quantities(self, mine: Scalar, theirs: Scalar) -> bool:
        """Compare with the leave for units that the conventions give."""
        if self.units(mine, theirs):
            return True
        if bool(mine.unit) == bool(theirs.unit):
            return False
        if "%^1" in (mine.unit, theirs.unit):
            number = rational(self.value(mine.tree))
            return number is not None and number > 1 and self.expressions(mine.tree, theirs.tree)
        if self.expressions(mine.tree, theirs.tree):
            return True
        if "degree^1" not in (mine.unit, theirs.unit):
            return False
        bare, angle = (mine, theirs) if theirs.unit else (theirs, mine)
        radians = self.field.multiply(
            self.value(angle.tree), self.field.divide(named("pi"), constant(180))
        )
        return self.field.equal(self.value(bare.tree), radians)

    # --- collections ---

    def items(self, a: Items, b: Items) -> bool:
        loose = {"set", "list"}
        if a.kind in loose and b.kind in loose:
            mine, theirs = (self.distinct(form.items) if form.kind == "set" else form.items
                            for form in (a, b))  # fmt: skip
            return len(mine) <= MAX_ITEMS and _matched(mine, theirs, self.same)
        if a.kind != b.kind or len(a.items) != len(b.items):
            return False
        return all(map(self.same, a.items, b.items))

    def distinct(self, items: tuple[Form, ...]) -> tuple[Form, ...]:
        out: list[Form] = []
        for item in items[:MAX_ITEMS]:
            if not any(self.same(item, other) for other in out):
                out.append(item)
        return (*out, *items[MAX_ITEMS:])

    def rows(self, a: Matrix, b: Matrix) -> bool:
        if [len(row) for row in a.rows] != [len(row) for row in b.rows]:
            return False
        pairs = zip(sum(a.rows, ()), sum(b.rows, ()), strict=True)
        return all(self.same(x, y) for x, y in pairs)

    # --- intervals ---

    def unions(self, a: Form, b: Form) -> bool:
        pieces = [self.normal(form) for form in (a, b)]
        return None not in pieces and _matched(*pieces, self.pieces)

    def pieces(self, a: Piece, b: Piece) -> bool:
        return (
            (a.low_closed, a.high_closed) == (b.low_closed, b.high_closed)
            and self.same(a.low, b.low)
            and self.same(a.high, b.high)
        )

    def normal(self, form: Form) -> tuple[Piece, ...] | None:
        """Return the intervals of a form, joined where they touch if their ends are numbers."""
        pieces = form.pieces if isinstance(form, Union) else (interval_of(form),)
        if None in pieces:
            return None
        ends = [(self.place(piece.low), self.place(piece.high)) for piece in pieces]
        if len(pieces) < 2 or any(end is None for pair in ends for end in pair):
            return pieces
        return self.joined([piece for _, piece in sorted(
            zip(ends, pieces, strict=True), key=lambda pair: (pair[0][0], not pair[1].low_closed)
        )])  # fmt: skip

    def joined(self, pieces: list[Piece]) -> tuple[Piece, ...]:
        out = [pieces[0]]
        for piece in pieces[1:]:
            last = out[-1]
            if self.same(last.high, piece.low):
                meet = last.high_closed or piece.low_closed
            else:
                meet = self.place(last.high) > self.place(piece.low)
            out[-1:] = [self.longer(last, piece)] if meet else [last, piece]
        return tuple(out)

    def longer(self, last: Piece, piece: Piece) -> Piece:
        if self.same(last.high, piece.high):
            closed = last.high_closed or piece.high_closed
            return Piece(last.low, last.high, last.low_closed, closed)
        end = max((last, piece), key=lambda one: self.place(one.high))
        return Piece(last.low, end.high, last.low_closed, end.high_closed)

    def place(self, end: Scalar | Infinite) -> float | None:
        if isinstance(end, Infinite):
            return end.sign * float("inf")
        return number_of(self.value(end.tree)) if not end.unit else None

    # --- equations and inequalities ---

    def relations(self, a: Relation, b: Relation) -> bool:
        if a.sign != b.sign:
            return False
        differences = [self.value(["sum", r.left, ["neg", r.right]]) for r in (a, b)]
        scale = scale_of(*differences)
        if scale is not None and (a.sign == "=" or (scale > 0 and _polynomial(*differences))):
            return True
        if not any(map(opaque, differences)):
            return False
        return self.expressions(a.left, b.left) and self.expressions(a.right, b.right)


def _matched(mine: tuple, theirs: tuple, same: Callable[[object, object], bool]) -> bool:
    """Return whether the items are the same in some order; sameness is transitive."""
    if len(mine) != len(theirs):
        return False
    rest = list(theirs)
    for item in mine:
        at = next((i for i, other in enumerate(rest) if same(item, other)), None)
        if at is None:
            return False
        del rest[at]
    return True


def _same_label(a: str, b: str) -> bool:
    """Return whether two labels name one thing: y = ... and f(x) = ... are one function."""
    return a == b or ("y" in (a, b) and any(name[1:] == "(x)" for name in (a, b)))


def _assigned(form: Form) -> dict[str, Form] | None:
    """Return the value of each letter in x = 1, y = 2 or (x, y) = (1, 2); "" for no letters.

    A pair without letters is its items under "", "1", ...; other forms are None.
    """
    if _is_list(form) and all(isinstance(item, Labelled) for item in form.items):
        names = {item.name: item.form for item in form.items}
        return names if len(names) == len(form.items) else None
    label, tupled = (form.name, form.form) if isinstance(form, Labelled) else ("", form)
    if not isinstance(tupled, Items) or tupled.kind != "()":
        return None
    if not label:
        return {str(at) if at else "": item for at, item in enumerate(tupled.items)}
    names = label.strip("()").split(",")
    if len(names) != len(tupled.items):
        return None
    return dict(zip(names, tupled.items, strict=True))


def _is_list(form: Form) -> bool:
    return isinstance(form, Items) and form.kind == "list"


def _without_indices(mine: Items, theirs: Items) -> Items:
    """Take the labels off x_1 = 3, x_2 = 4 where the reference has none and thus no order."""
    if any(isinstance(item, Labelled) for item in mine.items):
        return theirs
    labels = [item.name.split("_") for item in theirs.items if isinstance(item, Labelled)]
    indexed = len({tuple(label) for label in labels}) == len(theirs.items)
    if not indexed or len({label[0] for label in labels}) > 1 or any(len(n) < 2 for n in labels):
        return theirs
    return Items("list", tuple(item.form for item in theirs.items))


def _polynomial(*values: Value) -> bool:
    """Return whether the denominators are positive numbers, so that signs are kept."""
    return all(len(den) == 1 and (1, ()) in den and den[1, ()] > 0 for _, den in values)
