r"""The usual ways to write a right answer, for exact J, which scores texts and not values.

`0.5` is also written `1/2` and `\frac{1}{2}`. A way is taken only if the grader accepts it; those
that are left out make J too small, by as much as the model would write them.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from mrtlib.tasks.math.equivalence import equivalent

MOST = 8  # of one answer; each is scored at every boundary
DIGITS = 6  # of a decimal that stands for a fraction
_WHOLE = re.compile(r"-?[0-9]+|-?[0-9]{1,3}(?:(?:,|\{,\}|\\,)[0-9]{3})+")
_DECIMAL = re.compile(r"(-?)([0-9]*)\.([0-9]+)")
_RATIO = re.compile(
    r"(-?)(?:([0-9]+)\s*/\s*([0-9]+)|\\[dt]?frac\s*(?:\{([0-9]+)\}\s*\{([0-9]+)\}|([0-9])([0-9])))"
)
_DEGREES = re.compile(r"(.+?)\s*(?:\^\s*(?:\\circ|\{\\circ\})|°|\\degree)")
_UNIT = re.compile(r"(-?[0-9.,]+)\s*(?:\\,|\\ )?\\(?:text|mathrm)\{\s*([^{}]+?)\s*\}")
_GROUP = re.compile(r"(?:\\left)?(?:[(\[]|\\\{).*(?:[)\]]|\\\})", re.DOTALL)


@lru_cache(maxsize=100_000)
def renderings(answer: str) -> tuple[str, ...]:
    r"""Return an answer and other ways to write it, the answer first, at most eight.

    >>> from mrtlib.tasks.math.renderings import renderings
    >>> renderings("0.5")
    ('0.5', '.5', '1/2', '\\frac{1}{2}', '\\dfrac{1}{2}')
    """
    answer = answer.strip()
    others = dict.fromkeys(text for text in _others(answer) if text != answer)
    return (answer, *(text for text in others if equivalent(answer, text)))[:MOST]


def _others(answer: str) -> Iterator[str]:
    """Yield candidates, the more usual ones first."""
    if _WHOLE.fullmatch(answer):
        yield from _of_whole(int(re.sub(r"[^0-9-]", "", answer)))
    elif found := _DECIMAL.fullmatch(answer):
        yield from _of_fraction(Fraction(f"{found[1]}{found[2] or 0}.{found[3]}"))
    elif found := _RATIO.fullmatch(answer):
        top, below = (next(filter(None, found.group(*places))) for places in ((2, 4, 6), (3, 5, 7)))
        if int(below):
            yield from _of_ratio(found[1], top, below)
            yield from _of_fraction(Fraction(int(found[1] + top), int(below)))
    elif found := _DEGREES.fullmatch(answer):
        yield from (f"{found[1]}^\\circ", f"{found[1]}^{{\\circ}}", found[1], f"{found[1]}°")
    elif found := _UNIT.fullmatch(answer):
        number, unit = found[1], found[2]
        yield from (number, f"{number} \\text{{ {unit}}}", f"{number}\\text{{ {unit}}}",
                    f"{number} {unit}")  # fmt: skip
    elif _GROUP.fullmatch(answer):
        tight = re.sub(r"\s*,\s*", ",", answer)
        yield from (tight, tight.replace(",", ", "))
        bare = tight.replace("\\left", "").replace("\\right", "")
        yield from (bare, bare.replace(",", ", "))


def _of_whole(value: int) -> Iterator[str]:
    yield str(value)
    if abs(value) >= 1000:
        yield f"{value:,}"
        yield f"{value:,}".replace(",", "{,}")
        yield f"{value:,}".replace(",", "\\,")


def _of_ratio(sign: str, top: str, below: str) -> Iterator[str]:
    yield f"{sign}\\frac{{{top}}}{{{below}}}"
    yield f"{sign}{top}/{below}"
    yield f"{sign}\\dfrac{{{top}}}{{{below}}}"


def _of_fraction(value: Fraction) -> Iterator[str]:
    """Yield a fraction as a decimal, where that ends, and in lowest terms; a whole one as such."""
    if value.denominator == 1:
        yield from _of_whole(value.numerator)
        return
    decimal = f"{float(value):.{DIGITS}f}".rstrip("0")
    if Fraction(decimal) == value:
        yield decimal
        yield decimal.replace("0.", ".", 1) if abs(value) < 1 else decimal
    sign, top = "-" if value < 0 else "", str(abs(value.numerator))
    yield f"{sign}{top}/{value.denominator}"
    yield f"{sign}\\frac{{{top}}}{{{value.denominator}}}"
    yield f"{sign}\\dfrac{{{top}}}{{{value.denominator}}}"
