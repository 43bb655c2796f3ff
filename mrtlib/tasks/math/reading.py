"""Tokens of an answer to its form: where it is split, and what its brackets mean."""

from itertools import accumulate, pairwise

from mrtlib.tasks.math.algebra import NotAlgebra, tree_of
from mrtlib.tasks.math.evaluation import value_of
from mrtlib.tasks.math.tokens import Token
from mrtlib.tasks.math.units import prefixed, suffix_at, unfolded, unit_of
from mrtlib.tasks.math.values import (
    REAL,
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
    ValueTooLarge,
    Words,
    interval_of,
    number_of,
)

Tokens = tuple[Token, ...]

_COMMA = ("op", ",")
_JOINS = frozenset((("word", "or"), ("word", "and"), ("op", ";")))
_RELATIONS = frozenset(("op", sign) for sign in ("=", "<", ">", "<=", ">=", "!=", "in"))
_PAIRS = {"(": ")", "[": "]", "{": "}", "set{": "set}"}
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MATRICES = frozenset(("matrix", "pmatrix", "bmatrix", "smallmatrix", "array", "vmatrix"))
_ANGLES = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))


def form_of(tokens: Tokens) -> Form:
    """Return the form of an answer."""
    try:
        return _answer(_outward(tokens))
    except (NotAlgebra, Undefined, ValueTooLarge):
        return Unread()


def _outward(tokens: Tokens) -> Tokens:
    """Write an interval with brackets that open outwards, ]2, 3[, with round ones."""
    inner = tokens[1:-1]
    if not inner or ("op", "[") in inner or ("op", "]") in inner:
        return tokens
    first, last = tokens[0], tokens[-1]
    if first == ("op", "]") and last in (("op", "["), ("op", "]"), ("op", ")")):
        first = ("op", "(")
    if last == ("op", "[") and first in (("op", "["), ("op", "(")):
        last = ("op", ")")
    return (first, *inner, last)


def _answer(tokens: Tokens) -> Form:
    if tokens[:1] == (("op", "="),):
        tokens = tokens[1:]
    if not tokens:
        raise NotAlgebra("nothing")
    parts, joins = _split(tokens, _COMMA, *_JOINS)
    if len(parts) == 1:
        return _relation(tokens)
    # An empty part stands between a comma and its "and"; at an end it is a mistake.
    forms = [_relation(part) for part in parts if part]
    if not parts[0] or not parts[-1]:
        raise NotAlgebra("a separator at the end")
    return _listed(forms, all(join == ("word", "or") for join in joins))


def _words(tokens: Tokens) -> Form:
    if len(tokens) == 1 and len(tokens[0][1]) == 1:
        return Scalar(["name", tokens[0][1]])
    texts = [text for _, text in tokens]
    return Words(" ".join(texts[1:] if texts[0] in ("the", "a", "an") and texts[1:] else texts))


def _listed(forms: list[Form], alternatives: bool) -> Form:
    """Join forms: solutions with one label to a labelled list or union, others to a list."""
    labels = {form.name for form in forms if isinstance(form, Labelled)}
    if isinstance(forms[0], Labelled) and len(labels) == 1:
        inner = [form.form if isinstance(form, Labelled) else form for form in forms]
        if alternatives and any(isinstance(form, Union) for form in inner):
            points = [Items("set", (f,)) if isinstance(f, Scalar) else f for f in inner]
            pieces = tuple(piece for form in points for piece in _pieces(form))
            return Labelled(forms[0].name, Union(pieces))
        if not any(isinstance(form, Union) for form in inner):
            return Labelled(forms[0].name, Items("list", _flat(inner)))
    return Items("list", _flat(forms))


def _flat(forms: list[Form]) -> tuple[Form, ...]:
    """Put the two values of ± in the place of their list."""
    out = []
    for form in forms:
        out += form.items if isinstance(form, Items) and form.kind == "list" else [form]
    return tuple(out)


def _relation(tokens: Tokens) -> Form:
    sides, signs = _split(tokens, *_RELATIONS)
    if not signs:
        return _object(tokens)
    signs = [sign for _, sign in signs]
    if set(signs) == {"="}:
        return _equation(sides)
    if signs == ["in"]:
        return Labelled(_label(sides[0]), _object(sides[1]))
    if signs == ["!="]:
        return Labelled(_label(sides[0]), _without((_scalar(sides[1]),)))
    return _inequality(sides, signs)


def _equation(sides: list[Tokens]) -> Form:
    if len(sides) > 2:
        label = _label_or_none(sides[0])
        chain = Items("chain", tuple(_scalar(side) for side in sides[bool(label) :]))
        return Labelled(label, chain) if label else chain
    left, right = sides
    for name, other in ((left, right), (right, left)):
        label = _label_or_none(name)
        if label and _independent(name, other):
            return Labelled(label, _object(other))
    return Relation("=", tree_of(left), tree_of(right))


def _label(tokens: Tokens) -> str:
    label = _label_or_none(tokens)
    if label is None:
        raise NotAlgebra("no single letter on this side")
    return label


def _label_or_none(tokens: Tokens) -> str | None:
    """Return the name that is alone on a side: x, f(x), f(2), (x, y), AB or an angle's."""
    kinds = [kind for kind, _ in tokens]
    texts = [text for _, text in tokens]
    if kinds == ["name"] and texts[0] not in ("pi", "e", "i", "infty"):
        return texts[0]
    if len(kinds) == 4 and kinds[0] == "name" and (texts[1], texts[3]) == ("(", ")"):
        return "".join(texts) if kinds[2] in ("name", "num") else None
    if texts[:2] == ["m", "\\angle"] or texts[:1] == ["\\angle"]:
        return "".join(texts)
    if len(kinds) > 1 and set(kinds) == {"name"} and "".join(texts).isupper():
        return "".join(texts)
    pair = len(kinds) >= 5 and texts[0] == "(" and texts[-1] == ")"
    if pair and set(kinds[1::2]) == {"name"} and set(texts[2:-1:2]) == {","}:
        return "".join(texts)
    return texts[0] if kinds == ["word"] else None


def _independent(label: Tokens, other: Tokens) -> bool:
    """Return whether no letter of a label is on the other side too."""
    named = label[:1] if label[0][0] == "name" else label  # the x of f(x) may be there
    return not {token for token in named if token[0] in ("name", "word")} & set(other)


def _inequality(sides: list[Tokens], signs: list[str]) -> Form:
    if signs[0] not in _FLIPPED or (len(signs) == 2 and signs[1] not in _FLIPPED):
        raise NotAlgebra("a mixed chain")
    if signs[0] in (">", ">="):
        sides, signs = sides[::-1], [_FLIPPED.get(sign, sign) for sign in signs[::-1]]
    if not all(sign in ("<", "<=") for sign in signs) or len(signs) > 2:
        raise NotAlgebra("a chain that turns")
    closed = [sign == "<=" for sign in signs]
    if len(signs) == 2:
        low, high = _end(sides[0]), _end(sides[2])
        return Labelled(_label(sides[1]), Union((Piece(low, high, *closed),)))
    for at, name in enumerate(sides):
        label = _label_or_none(name)
        if label and _independent(name, sides[1 - at]):
            other = _end(sides[1 - at])
            piece = (
                Piece(Infinite(-1), other, False, closed[0]) if at == 0
                else Piece(other, Infinite(1), closed[0], False)
            )  # fmt: skip
            return Labelled(label, Union((piece,)))
    return Relation(signs[0], tree_of(sides[0]), tree_of(sides[1]))


def _end(tokens: Tokens) -> Scalar | Infinite:
    form = _object(tokens)
    if not isinstance(form, Scalar | Infinite):
        raise NotAlgebra("no end of an interval")
    return form


def _object(tokens: Tokens) -> Form:
    """Return the form of what holds no relation and no separator at the top."""
    if not tokens:
        raise NotAlgebra("nothing")
    for reader in (_sets, _enclosed, _matrix, _special, _ratio):
        form = reader(tokens)
        if form is not None:
            return form
    if any(token in (("op", "+-"), ("op", "-+")) for token in tokens):
        return Items("list", tuple(_scalar(tokens, upper) for upper in (True, False)))
    return _scalar(tokens)


def _sets(tokens: Tokens) -> Form | None:
    """Read a union, or the real numbers without some."""
    parts, signs = _split(tokens, ("op", "cup"))
    if signs:
        forms = [_object(part) for part in parts]
        if all(isinstance(form, Items) and form.kind == "set" for form in forms):
            return Items("set", tuple(item for form in forms for item in form.items))
        return Union(tuple(piece for form in forms for piece in _pieces(form)))
    parts, signs = _split(tokens, ("op", "setminus"))
    if len(signs) == 1:
        gaps = _object(parts[1])
        if _object(parts[0]) == REAL and isinstance(gaps, Items) and gaps.kind == "set":
            return _without(gaps.items)
    return None


def _without(gaps: tuple[Form, ...]) -> Union:
    """Return the union of the real numbers without some."""
    if not gaps or not all(isinstance(gap, Scalar) for gap in gaps):
        raise NotAlgebra("no gaps")
    places = [number_of(value_of(gap.tree, Arithmetic())) for gap in gaps]
    if None not in places:
        gaps = tuple(gap for _, gap in sorted(zip(places, gaps, strict=True), key=lambda p: p[0]))
    ends = [Infinite(-1), *gaps, Infinite(1)]
    return Union(tuple(Piece(a, b, False, False) for a, b in pairwise(ends)))


def _pieces(form: Form) -> tuple[Piece, ...]:
    if isinstance(form, Union):
        return form.pieces
    piece = interval_of(form)
    if piece:
        return (piece,)
    points = isinstance(form, Items) and form.kind == "set"
    if points and all(isinstance(item, Scalar) for item in form.items):
        return tuple(Piece(item, item, True, True) for item in form.items)
    raise NotAlgebra("no part of a union")


def _enclosed(tokens: Tokens) -> Form | None:
    """Read a set, a tuple, an interval or a needless bracket round the whole."""
    kind, opening = tokens[0]
    depths = list(accumulate(map(_step, tokens)))
    if kind != "op" or opening not in _PAIRS or depths.index(0) != len(tokens) - 1:
        return None
    closing, inner = tokens[-1][1], tokens[1:-1]
    if opening == "set{":
        return _set(inner)
    parts, commas = _split(inner, _COMMA)
    if commas and opening == "{":
        return _set(inner)
    if commas:
        return Items(opening + closing, tuple(_object(part) for part in parts))
    return _answer(inner)


def _set(inner: Tokens) -> Form:
    if not inner:
        return Items("set", ())
    bar = next((at for at, token in enumerate(inner[:4]) if token[1] in ("|", ":")), 0)
    if bar and inner[0][0] == "name" and (bar == 1 or inner[1] == ("op", "in")):
        return form_of(inner[bar + 1 :])  # {x | x < 3}
    parts, _ = _split(inner, _COMMA)
    return Items("set", _flat([_object(part) for part in parts]))


def _matrix(tokens: Tokens) -> Form | None:
    kind = tokens[0][1].removeprefix("begin:")
    if kind not in _MATRICES or tokens[-1] != ("op", f"end:{kind}"):
        return None
    rows, _ = _split(tokens[1:-1], ("op", "row"))
    rows = rows[:-1] if not rows[-1] else rows
    cells = [_split(row, ("op", "&"))[0] for row in rows]
    scalars = tuple(tuple(_scalar(cell) for cell in row) for row in cells)
    if len({len(row) for row in scalars}) != 1:
        raise NotAlgebra("rows of different length")
    return Matrix(scalars, kind == "vmatrix")


def _special(tokens: Tokens) -> Form | None:
    """Read infinity, the empty set, the real numbers, words, an integer in a base."""
    if tokens[-1] == ("name", "infty") and len(tokens) <= 2:
        sign = {("op", "-"): -1, ("op", "+"): 1}.get(tokens[0], 1 if len(tokens) == 1 else 0)
        return Infinite(sign) if sign else None
    if all(kind == "word" for kind, _ in tokens):
        return _words(tokens)
    if len(tokens) > 1:
        return None
    kind, text = tokens[0]
    if kind == "base":
        digits, _, base = text.partition("_")
        return Scalar(["num", int(digits), 1]) if base == "10" else Words(text)
    if text == "emptyset":
        return Items("set", ())
    if text.startswith("field"):
        return REAL if text == "fieldR" else Words(text)
    return None


def _ratio(tokens: Tokens) -> Form | None:
    parts, colons = _split(tokens, ("op", ":"), ("word", "to"))
    if not colons:
        return None
    return Items("ratio", tuple(_scalar(part) for part in parts))


def _scalar(tokens: Tokens, upper: bool = True) -> Scalar:
    """Read an expression, with a unit if there is one."""
    tokens, currency = prefixed(unfolded(tokens))
    at = suffix_at(tokens)
    if any(token[0] == "fn" and token[1] in _ANGLES for token in tokens[:at]):
        at = len(tokens)  # the degree sign belongs to the angle: sin 30°
    head, tail = tokens[:at], tokens[at:]
    if tail and tail[0] == ("op", "circ") and len(tail) > 1 and tail[1][1] in "CF":
        tail = (("word", f"°{tail[1][1]}"), *tail[2:])
    if currency and ("op", "$") not in tail and all("dollar" not in t for _, t in tail):
        tail = (("word", currency), *tail)
    found = unit_of(tail)
    if found is None:
        raise NotAlgebra("no unit")
    unit, scale = found
    tree = tree_of(head, upper)
    if scale != 1:
        tree = ["product", tree, ["num", int(scale), 1]]
    return Scalar(tree, unit)


def _split(tokens: Tokens, *separators: Token) -> tuple[list[Tokens], list[Token]]:
    """Split tokens at separators outside all brackets: the parts, and the separators found."""
    depth, start, parts, found = 0, 0, [], []
    for i, token in enumerate(tokens):
        depth += _step(token)
        if depth < 0:
            raise NotAlgebra("a bracket that was not opened")
        if depth == 0 and token in separators:
            parts.append(tokens[start:i])
            found.append(token)
            start = i + 1
    if depth:
        raise NotAlgebra("a bracket that is not closed")
    return [*parts, tokens[start:]], found


def _step(token: Token) -> int:
    kind, text = token
    if kind != "op":
        return 0
    if text in _PAIRS or text.startswith("begin:"):
        return 1
    return -1 if text in _PAIRS.values() or text.startswith("end:") else 0
