r"""The grammar of expressions in answers: tokens to a tree.

    sum     = [sign] product (sign product)*
    product = power (("*" | "/") [sign] power | power)*          2x, 2(3), \frac{1}{2}x
    power   = postfix ["^" exponent]
    postfix = atom ("!" | degree sign)*
    atom    = number | base number | name | group | function | "|" sum "|"

A tree is made of lists, so that it can be written as JSON: ["num", p, q] for the rational p/q,
["name", x], ["sum", ...], ["product", ...], ["div", a, b], ["power", a, b], ["neg", a],
["fn", name, a], ["log", base, a], ["root", a, k], ["binom", n, k], ["factorial", a], ["abs", a],
["degrees", a].

Conventions: an integer before a proper fraction is a mixed number; `1/2x` is (1/2) x;
`\log` is to base 10; digits after `^` are one exponent, as in plain text; a sign `±` makes two
expressions. Two numbers side by side are no expression.
"""

from fractions import Fraction

from mrtlib.tasks.math.tokens import Token

Tree = list

MAX_DEPTH = 60  # brackets in brackets; bounds the recursion
MAX_DIGITS = 1200
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class NotAlgebra(ValueError):
    """Tokens that are not an expression of the grammar."""


def tree_of(tokens: tuple[Token, ...], upper: bool = True) -> Tree:
    """Return the tree of an expression, reading ± as + (upper) or as -.

    Raises:
        NotAlgebra: the tokens are no expression.
    """
    parser = _Parser(tokens, upper)
    tree = parser.sum()
    if parser.at < len(tokens):
        raise NotAlgebra(f"{tokens[parser.at][1]!r} was not expected")
    return tree


def exact_number(text: str) -> Fraction:
    """Return the exact value of a number token, "5.", "0.1(6)" or "1.5e-3"."""
    if len(text) > MAX_DIGITS:
        raise NotAlgebra("too many digits")
    if "(" in text:
        plain, period = text[:-1].split("(")
        places = len(plain.split(".")[1])
        return exact_number(plain) + Fraction(int(period), (10 ** len(period) - 1) * 10**places)
    mantissa, _, exponent = text.partition("e")
    if abs(int(exponent or 0)) > MAX_DIGITS:
        raise NotAlgebra("too large an exponent")
    whole, _, places = mantissa.partition(".")
    value = Fraction(int((whole + places) or 0), 10 ** len(places))
    return value * Fraction(10) ** int(exponent or 0)


def _num(value: Fraction) -> Tree:
    return ["num", value.numerator, value.denominator]


class _Parser:
    """Recursive descent: the methods take what the rules of the grammar say."""

    def __init__(self, tokens: tuple[Token, ...], upper: bool):
        self.tokens, self.upper = tokens, upper
        self.at = self.depth = self.bars = 0

    def peek(self, ahead: int = 0) -> Token:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ("end", "")

    def take(self, sign: str) -> bool:
        if self.peek() == ("op", sign):
            self.at += 1
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise NotAlgebra(f"{sign!r} is missing before {self.peek()[1]!r}")

    def sign(self) -> int:
        """Take one sign and return it; 0 when there is none."""
        plus = 1 if self.upper else -1
        for text, value in (("+", 1), ("-", -1), ("+-", plus), ("-+", -plus)):
            if self.take(text):
                return value
        return 0

    def sum(self) -> Tree:
        parts, sign = [], self.sign() or 1
        while True:
            part = self.product()
            parts.append(part if sign > 0 else ["neg", part])
            sign = self.sign()
            if not sign:
                return parts[0] if len(parts) == 1 else ["sum", *parts]

    def product(self) -> Tree:
        tree = self.mixed() or self.power()
        factors = [tree]
        while True:
            if self.take("*"):
                factors.append(self.signed())
            elif self.take("/"):
                factors = [["div", _product(factors), self.signed()]]
            elif self.starts_factor():
                factors.append(self.power())
            else:
                return _product(factors)

    def signed(self) -> Tree:
        return ["neg", self.power()] if self.sign() < 0 else self.power()

    def starts_factor(self) -> bool:
        kind, text = self.peek()
        bar = text == "|" and not self.bars  # inside bars the next one closes
        return kind in ("name", "fn") or (kind == "op" and (text in _CLOSING or bar))

    def mixed(self) -> Tree | None:
        """Take an integer and a proper fraction of integers, 1\\frac{1}{2} or 1 1/2."""
        start = self.at
        kind, whole = self.peek()
        if kind != "num" or not whole.isdigit():
            return None
        self.at += 1
        parts = None
        if self.peek() == ("fn", "frac"):
            tree = self.power()
            if tree[0] == "div" and tree[1][0] == tree[2][0] == "num":
                parts = Fraction(*tree[1][1:]), Fraction(*tree[2][1:])
        elif [self.peek(i)[0] for i in range(3)] == ["num", "op", "num"] and (
            self.peek(1)[1] == "/" and self.peek()[1].isdigit() and self.peek(2)[1].isdigit()
        ):
            parts = Fraction(self.peek()[1]), Fraction(self.peek(2)[1])
            self.at += 3
        if parts and 0 < parts[0] < parts[1] and parts[0].denominator == parts[1].denominator == 1:
            return _num(int(whole) + parts[0] / parts[1])
        self.at = start
        return None

    def power(self) -> Tree:
        base = self.postfix()
        if not self.take("^"):
            return base
        return ["power", base, self.exponent()]

    def exponent(self) -> Tree:
        # A bare exponent is one atom: x^2y is (x^2) y, and x^{y^z} needs its braces.
        return ["neg", self.atom()] if self.sign() < 0 else self.atom()

    def postfix(self) -> Tree:
        tree = self.atom()
        while True:
            if self.take("!"):
                if self.peek() == ("op", "!"):
                    raise NotAlgebra("n!! is no factorial of a factorial")
                tree = ["factorial", tree]
            elif self.take("circ"):
                tree = ["degrees", tree]
            else:
                return tree

    def atom(self) -> Tree:
        kind, text = self.peek()
        self.at += 1
        if kind == "num":
            if self.peek()[0] == "num":
                raise NotAlgebra("two numbers side by side")
            return _num(exact_number(text))
        if kind == "base":
            digits, base = text.split("_")
            return ["num", int(digits, int(base)), 1]
        if kind == "name" or (kind == "word" and len(text) == 1):
            if text in ("f", "g") and self.peek() == ("op", "("):
                raise NotAlgebra("an unknown function")
            if text == "infty":
                raise NotAlgebra("infinity is no number")
            return ["name", text]
        if kind == "fn":
            return self.function(text)
        if kind == "op" and text in _CLOSING:
            return self.enclosed(_CLOSING[text])
        if (kind, text) == ("op", "|"):
            self.bars += 1
            tree = self.enclosed("|")
            self.bars -= 1
            return ["abs", tree]
        raise NotAlgebra(f"{text!r} was not expected")

    def enclosed(self, closing: str) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotAlgebra("too many brackets in brackets")
        tree = self.sum()
        self.expect(closing)
        self.depth -= 1
        return tree

    def function(self, name: str) -> Tree:
        if name == "frac":
            return ["div", self.argument(), self.argument()]
        if name == "binom":
            return ["binom", self.argument(), self.argument()]
        if name == "sqrt":
            index = ["num", 2, 1]
            if self.take("["):
                index = self.enclosed("]")
            return ["root", self.atom(), index]
        if name in ("log", "ln", "lg"):
            return self.logarithm(name)
        power = self.exponent() if self.take("^") else None
        if power in (["neg", ["num", 1, 1]], ["num", -1, 1]):
            if name.startswith("arc"):
                raise NotAlgebra("an inverse of an inverse")
            return ["fn", f"arc{name}", self.operand()]
        operand = self.operand()
        tree = ["power", ["name", "e"], operand] if name == "exp" else ["fn", name, operand]
        return ["power", tree, power] if power else tree

    def logarithm(self, name: str) -> Tree:
        base = ["name", "e"] if name == "ln" else ["num", 10, 1]
        if self.take("_"):
            base = self.argument()
        power = self.exponent() if self.take("^") else None
        tree = ["log", base, self.operand()]
        return ["power", tree, power] if power else tree

    def argument(self) -> Tree:
        """Take one argument as LaTeX does: a group, or a single digit or letter."""
        kind, text = self.peek()
        if kind == "num" and len(text) > 1:
            if not text.isdigit():
                raise NotAlgebra("an argument without braces")
            self.tokens = (
                *self.tokens[: self.at], ("num", text[0]), ("num", text[1:]),
                *self.tokens[self.at + 1 :],
            )  # fmt: skip
        if self.peek()[0] == "num":
            self.at += 1
            return _num(exact_number(self.tokens[self.at - 1][1]))
        return self.atom()

    def operand(self) -> Tree:
        """Take the operand of a function: a bracket, or the factors up to a sign or function."""
        kind, text = self.peek()
        if kind == "op" and text in _CLOSING:
            return self.postfix()
        factors = [self.power()]
        while self.peek()[0] == "name" or self.peek() in (("fn", "frac"), ("fn", "sqrt")):
            factors.append(self.power())
        if self.take("/"):
            return ["div", _product(factors), self.power()]
        return _product(factors)


def _product(factors: list[Tree]) -> Tree:
    return factors[0] if len(factors) == 1 else ["product", *factors]
