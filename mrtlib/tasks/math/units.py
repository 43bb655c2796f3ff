"""Units of answers: one name for each unit, however it is written.

`cm`, `centimeters` and `centimetres` are one unit, `square cm` and `cm^2` too. Nothing is
converted: 100 cm is not 1 m, since an answer in another unit is not the one asked for. A word
that is in no table is a unit by its singular: 5 apples are not 5 oranges.
"""

from collections.abc import Iterator
from fractions import Fraction

from mrtlib.tasks.math.tokens import Token

_NAMES = """
cm cms centimeter centimetre
mm millimeter millimetre
km kms kilometer kilometre
m meter metre
in inch inches
ft foot feet
yd yds yard
mi mile
nm nanometer nanometre
s sec secs second
min mins minute
h hr hrs hour
g gram
kg kgs kilogram
mg milligram
lb pound lbs
oz ounce
L liter litre
ml milliliter millilitre mL
degree deg
rad radian
dollar usd
cent
euro eur
% percent pct
"""
_CANONICAL = {
    alias: words.split()[0] for words in _NAMES.strip().splitlines() for alias in words.split()
}
# Words that would change the number, so they are no unit; nor are numbers in words.
_CHANGING_WORDS = (
    "squared cubed factorial half halves third thirds quarter fourth fifth sixth seventh eighth "
    "ninth tenth fourths fifths sixths sevenths eighths ninths "
    "tenths hundredth hundredths thousandth thousandths millionth millionths "
    "negative minus plus times below above under over less more least most not no about around "
    "approximately nearly almost mod modulo inverse root power remainder base to than from by "
    "zero one two three four five six seven eight nine ten eleven twelve is are"
)
_CHANGING = frozenset(_CHANGING_WORDS.split())
_NUMBERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9,
            "trillion": 10**12, "dozen": 12}  # fmt: skip
_SIGNS = {"%": "%", "$": "dollar", "£": "sterling", "€": "euro", "circ": "degree"}
_DROPPED = frozenset({"*", "of", "{", "}"})


def prefixed(tokens: tuple[Token, ...]) -> tuple[tuple[Token, ...], str]:
    r"""Split off a currency sign in front (`\$5`, `-\$5`): the other tokens and the unit."""
    at = 1 if tokens[:1] == (("op", "-"),) else 0
    if len(tokens) > at + 1 and tokens[at][0] == "op" and tokens[at][1] in "$£€":
        return tokens[:at] + tokens[at + 1 :], _SIGNS[tokens[at][1]]
    return tokens, ""


def unfolded(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    r"""Write a fraction of units, \frac{\text{m}}{\text{s}}, in a line, m/s."""
    for at in range(1, len(tokens) - 6):
        kinds = [kind for kind, _ in tokens[at : at + 7]]
        if tokens[at] == ("fn", "frac") and kinds[2] == kinds[5] == "word":
            line = (tokens[at + 2], ("op", "/"), tokens[at + 5])
            return tokens[:at] + line + tokens[at + 7 :]
    return tokens


def suffix_at(tokens: tuple[Token, ...]) -> int:
    """Return where the unit begins: the first word or sign of a unit outside all brackets."""
    depth = 0
    for at, (kind, text) in enumerate(tokens):
        if kind == "op" and text in ("(", "[", "{", "set{"):
            depth += 1
        elif kind == "op" and text in (")", "]", "}", "set}"):
            depth -= 1
        elif depth == 0 and at and (kind == "word" or (kind == "op" and text in _SIGNS)):
            return at
    return len(tokens)


def unit_of(tokens: tuple[Token, ...]) -> tuple[str, Fraction] | None:
    """Return a unit's one name and the number it multiplies by; None when it is no unit.

    The words "thousand dollars" are ("dollar^1", 1000), "cm per second" ("cm^1 s^-1", 1).
    """
    scale, power, sign, out = Fraction(1), 1, 1, {}
    if tokens and tokens[-1] in (("op", "^"), ("op", "/"), ("op", "-")):
        return None
    last, raised = None, 0
    for kind, text in _spelled_out(tokens):
        if text in _DROPPED:
            continue
        if {text, text.removesuffix("s")} & _CHANGING or (kind == "op" and _SIGNS.get(text) in out):
            return None
        if text in _NUMBERS or text.rstrip("s") in _NUMBERS:
            scale *= _NUMBERS.get(text, _NUMBERS.get(text.rstrip("s")))
        elif text in ("square", "sq", "cubic", "cu"):
            power = 2 if text.startswith("sq") else 3
        elif text in ("/", "per"):
            sign = -1
        elif text == "^":
            raised = 1
        elif text == "-" and raised:
            raised = -1
        elif kind == "num" and raised and last is not None and text in "123":
            out[last] *= raised * int(text)
            raised = 0
        elif kind in ("word", "name") or text in _SIGNS:
            last = _canonical(text)
            out[last] = out.get(last, 0) + sign * power
            power = 1
        else:
            return None
    named = sorted(f"{name}^{count}" for name, count in out.items() if name)
    return " ".join(named), scale


def _spelled_out(tokens: tuple[Token, ...]) -> Iterator[Token]:
    for token in tokens:
        if token == ("word", "mph"):
            yield from (("word", "mi"), ("op", "/"), ("word", "h"))
        elif token != ("op", "."):
            yield token


def _canonical(text: str) -> str:
    if text in _SIGNS:
        return _SIGNS[text]
    # Short words are abbreviations, whose s is no plural: ms is not m.
    singular = text.removesuffix("s") if len(text) > 3 else text
    return "" if text == "exactly" else _CANONICAL.get(text, _CANONICAL.get(singular, singular))
