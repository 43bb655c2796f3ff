"""Countdown expressions: the grammar accepts what it should, in bounded time."""

import itertools
import time

import pytest

from mrtlib.tasks import countdown
from mrtlib.tasks.countdown import ExpressionError, accepted, canonical, numbers_in, parse, value


def strings_over(numbers: tuple[int, ...], length: int) -> set[str]:
    """Every string of `length` symbols over the numbers, signs and parentheses."""
    symbols = [*map(str, numbers), "+", "-", "*", "(", ")"]
    return {" ".join(word) for word in itertools.product(symbols, repeat=length)}


@pytest.mark.parametrize(
    ("text", "result"),
    [("3 + 5 * 7", 38), ("( 3 + 5 ) * 7", 56), ("7-3-2", 2), ("7 - ( 3 - 2 )", 6), ("12", 12)],
)
def test_value_follows_the_usual_precedence(text, result):
    assert value(parse(text)) == result


@pytest.mark.parametrize(
    "text",
    ["", "3 +", "+ 3", "( 3", "3 )", "3 5", "9**9**9", "__import__('os')", "3 / 5", "-3", "()",
     "(" * 10_000, "1" * 150, "9999999", "1 + " * 60 + "1", "٣ + 1", "3 + x"],
)  # fmt: skip
def test_anything_else_is_refused_within_a_moment(text):
    began = time.perf_counter()
    with pytest.raises(ExpressionError):
        parse(text)
    assert time.perf_counter() - began < 1


def test_parentheses_are_written_only_where_they_change_the_meaning():
    assert canonical(parse("(3*5)+(7)")) == "3 * 5 + 7"
    assert canonical(parse("3*(5+7)")) == "3 * ( 5 + 7 )"
    assert canonical(parse("9-(5-2)")) == "9 - ( 5 - 2 )"
    assert canonical(parse("9-(5*2)")) == "9 - 5 * 2"


def test_rendering_keeps_value_and_numbers():
    for text in accepted((2, 3, 7))[13] | accepted((1, 2, 5, 9))[20]:
        node = parse(text)
        assert canonical(node) == text
        assert value(parse(canonical(node))) == value(node)


def test_accepted_answers_equal_a_search_over_all_strings():
    numbers = (2, 3)
    found: dict[int, set[str]] = {}
    for length in (3, 5):
        for text in strings_over(numbers, length):
            try:
                node = parse(text)
            except ExpressionError:
                continue
            if sorted(numbers_in(node)) == [2, 3] and canonical(node) == text:
                found.setdefault(value(node), set()).add(text)
    assert {target: set(texts) for target, texts in accepted(numbers).items()} == found


def test_deep_nesting_stays_within_the_bound_on_symbols():
    depth = countdown.MAX_SYMBOLS
    with pytest.raises(ExpressionError, match="symbols"):
        parse("(" * depth + "1" + ")" * depth)
