"""Countdown expressions: a small grammar with bounds, and the enumeration of all answers.

    sum     = product (("+" | "-") product)*
    product = atom ("*" atom)*
    atom    = whole number | "(" sum ")"

Text is never evaluated as code. A parsed expression is an int or a triple (sign, left, right).
An accepted answer has parentheses only where they change its meaning, which makes the accepted
answers over given numbers finitely many.
"""

import itertools
import re
from collections.abc import Iterator
from functools import cache

MAX_LENGTH = 200  # characters of an expression
MAX_NUMBER = 10**6  # largest number that an expression may name
MAX_SYMBOLS = 40  # numbers, signs and parentheses of an expression; bounds the recursion

_LEXEME = re.compile(r"\s*([0-9]+|[-+*()])")


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


def render(node) -> str:
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
    return f"( {render(node)} )" if closed else render(node)


@cache
def accepted(numbers: tuple[int, ...]) -> dict[int, frozenset[str]]:
    """Enumerate every accepted answer over these numbers, by the value it reaches."""
    found: dict[int, set[str]] = {}
    for order in set(itertools.permutations(numbers)):
        for node in _trees(order):
            found.setdefault(value(node), set()).add(render(node))
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
