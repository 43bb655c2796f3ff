r"""Text of a mathematical answer to tokens: numbers, names, words, commands and signs.

LaTeX, plain text and Unicode signs (½, √, ≤) give the same tokens, so two answers with equal
tokens are the same answer, and the parsers after this one know a single spelling. Linear in the
text. A token is (kind, text):

    num    "1200", "0.5", "0.1(6)" (the period of a repeating decimal), "1e3"
    base   "1011_2", an integer in a base that its digits fit
    name   a letter, a Greek letter, or a letter with an index: "x", "pi", "a_1"
    word   of a text, in small letters unless it is a single letter: "east", "cm", "A"
    fn     a function or construction: "frac", "sqrt", "sin"
    op     signs and brackets; "{" is a group, "set{" the bracket of a set
    other  anything else; no parser takes it, so such an answer equals only itself

A comma is a thousands separator only between a group of one to three digits and groups of
three, outside round, square and set brackets, and without a space: `1,200`, never `(1,200)`
or `1, 200`. `1{,}200` and `1\,200` are separators everywhere. Digits with a plain space between
them are never joined.
"""

import re

Token = tuple[str, str]

_FUNCTIONS = (
    "frac sqrt binom sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp"
)
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega infty"
)
_SILENT = (
    "left right big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits nolimits "
    "quad qquad thinspace mathbf boldsymbol bm mathit mathnormal ensuremath boxed fbox "
    "underline checkmark"
)
_TEXT = "text|textbf|textit|textrm|textnormal|textsf|mbox|hbox|mathrm|mathsf|emph|operatorname"
_SHORT_WORDS = "no on is it at an as in of up we he me us go so do to by my be or if am pm ok"
_SHORT_UNITS = (
    "cm mm km nm ft yd mi in kg mg lb lbs oz ml mL hr hrs min sec ms mph deg rad dm dL am pm"
)
FUNCTIONS, GREEK, SILENT, SHORT_WORDS, SHORT_UNITS = (
    frozenset(words.split()) for words in (_FUNCTIONS, _GREEK, _SILENT, _SHORT_WORDS, _SHORT_UNITS)
)
_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "lbrace": "{",
    "rbrace": "}", "varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta",
    "varnothing": "emptyset", "approx": "=", "simeq": "=", "degree": "circ", "mid": "|",
    "vert": "|", "lvert": "|", "rvert": "|", "cdot": "*", "times": "*", "ast": "*", "div": "/",
    "lt": "<", "gt": ">", "colon": ":", "lbrack": "[", "rbrack": "]", "langle": "(",
    "rangle": ")", "infinity": "infty", "backslash": "setminus", "pounds": "£", "euro": "€",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "inf": "infty", "oo": "infty",
}  # fmt: skip
_SIGNS = {
    "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "=": "=", "*": "*", "/": "/",
    "|": "|", "{": "set{", "}": "set}", ":": ":", "[": "[", "]": "]", "(": "(", ")": ")",
    "pm": "+-", "mp": "-+", "cup": "cup", "cap": "cap", "setminus": "setminus", "in": "in",
    "emptyset": "emptyset", "circ": "circ", "%": "%", "$": "$", "£": "£", "€": "€",
    "&": "&", "lfloor": "lfloor", "rfloor": "rfloor", "lceil": "lceil", "rceil": "rceil",
}  # fmt: skip
_UNICODE = {
    "−": "-", "–": "-", "×": "*", "÷": "/", "·": "*", "⋅": "*", "∗": "*", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "≈": "=", "±": r"\pm ", "∓": r"\mp ",
    "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ",
    "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "√": r"\sqrt ", "θ": r"\theta ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "μ": r"\mu ",
    "φ": r"\phi ", "ω": r"\omega ", "σ": r"\sigma ", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}",
    "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}",
    "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}",
    "⅞": r"\frac{7}{8}", "⁄": "/", "∕": "/", "⟨": "(", "⟩": ")", "\u2009": r"\,",
    "\u202f": r"\,", "\u00a0": " ", "∣": "|", "¢": r"\text{ cents}", "‰": "\ufffd",
} | dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", (f"^{{{d}}}" for d in "0123456789"), strict=True))  # fmt: skip
_TABLE = str.maketrans(_UNICODE)

_SEPARATOR = r"(?:\{,\}(?:\\!)?|,\\!|\\,|\\ )"
_PATTERNS = [(kind, re.compile(pattern)) for kind, pattern in (
    ("space", r"\s+|~|\\[,;:! ]|\\(?:text)?color\s*\{[a-zA-Z]*\}"),
    ("repeating", r"(\d*\.\d*)\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))"),
    ("repeating", r"(\d+\.)\((\d+)()\)"),
    ("base", r"(\d[0-9A-F]*|[A-F][0-9A-F]+)\s*_\s*(?:\{\s*(?:\\text\{)?(\w{1,7})\}{1,2}|(\d))"),
    ("base", r"\(([0-9A-F]+)\)\s*_\s*(?:\{\s*(?:\\text\{)?(\w{1,7})\}{1,2}|(\d))"),
    ("science", r"(?:\d+\.?\d*|\.\d+)[eE][-+]?\d{1,5}(?![0-9A-Za-z])"),
    ("num", rf"[1-9]\d{{0,2}}(?:{_SEPARATOR}\d{{3}})+(?:\.\d+)?(?!\d|{_SEPARATOR}\d)"),
    ("grouped", r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?!\d|,\d)"),
    ("num", r"\d+\.?\d*|\.\d+"),
    ("text", rf"\\(?:{_TEXT})\s*\{{([^{{}}]*)\}}"),
    ("field", r"\\mathbb\s*\{?\s*([NZQRC])\s*\}?"),
    ("matrix", r"\\(begin|end)\s*\{([a-zA-Z]*)\}(?:\{[lcr|]*\})?"),
    ("row", r"\\\\(?:\[[\d.]+(?:pt|em|ex|mm|cm)\])?"),
    ("circ", r"°|\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?|\\degree(?![A-Za-z])|(?<=\d)\^\{?o(?!\w)\}?"),
    ("command", r"\\([A-Za-z]+|[^A-Za-z\s])"),
    ("name", r"([A-Za-z])\s*_\s*(?:\{\s*([A-Za-z0-9]{1,6})\s*\}|([A-Za-z0-9]))"),
    ("hyphened", r"[A-Za-z]+(?:-[A-Za-z]+)+"),
    ("run", r"[A-Za-z]+"),
    ("op", r"<=|>=|!=|\*\*|\+-|\.\.\.|[-+*/^=<>(),\[\]|!:;&$%_£€{}]"),
)]  # fmt: skip
# The tokens of kinds that do not depend on what stands around them.
_PLAIN = {
    "space": lambda match: [],
    "science": lambda match: [("num", match[0].lower())],
    "num": lambda match: [("num", re.sub(_SEPARATOR, "", match[0]))],
    "field": lambda match: [("op", f"field{match[1]}")],
    "matrix": lambda match: [("op", f"{match[1]}:{match[2]}")],
    "row": lambda match: [("op", "row")],
    "circ": lambda match: [("op", "circ")],
}
_ANNOUNCED = re.compile(r"\A(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*:?\s+", re.IGNORECASE)
_QUOTES = '"“”'
_HALF_DAY = re.compile(r"(\d\s*|\{\s*)([apAP])\.?\s?[mM]\.?(?![A-Za-z])")
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
          "nine": 9, "ten": 10, "twelve": 12, "sixteen": 16}  # fmt: skip
_JOINS = frozenset({"or", "and"})


def tokens_of(text: str) -> tuple[Token, ...]:
    """Return the tokens of an answer; () when nothing is in it."""
    return tuple(_Scanner(_bare(text)).tokens())


def _bare(text: str) -> str:
    """Take off what surrounds an answer: math delimiters, bold marks, a box, a full stop."""
    text = _ANNOUNCED.sub("", text.translate(_TABLE).strip().strip(_QUOTES))
    text = re.sub(r"\{([-+])\}", r"\1", re.sub(r"\A([A-Za-z])\)\Z", r"\1", text))
    text = _HALF_DAY.sub(r"\1 \2m", text)
    before = None
    while before != text:
        before = text
        for opening, closing in (
            ("$$", "$$"), ("$", "$"), (r"\$", r"\$"), (r"\(", r"\)"), (r"\[", r"\]")
        ):  # fmt: skip
            inner = text[len(opening) : -len(closing)]
            if text.startswith(opening) and text.endswith(closing) and inner and (
                opening != "$" or not inner.endswith("\\")
            ):  # fmt: skip
                text = inner.strip()
        text = text.removeprefix("**").removesuffix("**").strip()
        if text.endswith((",", ";", ".")) and not text.endswith((r"\,", r"\;", "..", "right.")):
            text = text[:-1].rstrip()
    dollars = re.findall(r"(?<!\\)\$", text)
    # An even count are delimiters of formulas inside the text; a single one is money.
    return re.sub(r"(?<!\\)\$", " ", text) if dollars and len(dollars) % 2 == 0 else text


def spelling(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """Return tokens without the braces of an exponent of one token: x^{2} as x^2."""
    out: list[Token] = []
    for token in tokens:
        out.append(token)
        if token == ("op", "}") and [t[1] for t in out[-4:-2]] == ["^", "{"]:
            out[-3:] = [out[-2]]
    return tuple(out)


def is_word(letters: str) -> bool:
    """Return whether letters that stand alone are a word rather than a product.

    Distinct letters in alphabetical order (abc; no vowel but a), only of x, y, z, two small ones
    that are no short word (ba) or small ones without a vowel (mnp) are a product. All else is a
    word, whose order of letters matters.
    """
    low = letters.lower()
    if low in _JOINS or low in SHORT_WORDS:
        return True
    if len(set(letters)) < len(letters):
        return True
    vowels = set(low) & set("aeiouy")
    ordered = list(low) == sorted(low) and (not vowels - {"a"} or low[-1] <= "f")
    small = letters == low and (len(letters) == 2 or not vowels)
    return not (ordered or small or set(letters) <= set("xyz"))


class _Scanner:
    """One pass over a text. `stack` is of the open brackets, which decide what a comma is.

    The method of a pattern adds its tokens, or returns False: the pattern does not apply here.
    """

    def __init__(self, text: str):
        self.text, self.at, self.stack = text, 0, []
        self.out: list[Token] = []
        # Letters are words when the text holds nothing else, else only where a unit can stand.
        self.wordy = re.fullmatch(r"[A-Za-z\s.,'-]*", text) is not None

    def tokens(self) -> list[Token]:
        while self.at < len(self.text):
            for kind, pattern in _PATTERNS:
                match = pattern.match(self.text, self.at)
                if match and kind in _PLAIN:
                    self.out += _PLAIN[kind](match)
                elif not match or getattr(self, f"_{kind}")(match) is False:
                    continue
                self.at = match.end()
                break
            else:
                self.out.append(("other", self.text[self.at]))
                self.at += 1
        return self.out

    def _add(self, kind: str, text: str) -> None:
        self.out.append((kind, text))

    def _repeating(self, match):
        if match[1] == ".":
            return False
        period = match[2] or match[3]
        return self._add("num", f"{match[1]}({period})")

    def _base(self, match):
        word = match[2] or match[3]
        base = int(word) if word.isdigit() else _BASES.get(word.lower(), 0)
        if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in match[1]):
            if match[1][0].isalpha():
                return False  # a product of letters, the last one with an index
            return self._add("other", match[0])
        return self._add("base", f"{match[1].lstrip('0') or '0'}_{base}")

    def _grouped(self, match):
        if self.stack and self.stack[-1] != "{":
            return False
        return self._add("num", match[0].replace(",", ""))

    def _text(self, match):
        inner = _bare(match[1])
        for piece in re.findall(r"[A-Za-z]+(?:['-][A-Za-z]+)*|[^A-Za-z]+", inner):
            if piece[0].isalpha():
                if piece.isupper() and len(piece) > 1 and not is_word(piece):
                    self.out += [("name", letter) for letter in piece]
                    continue
                lone = len(piece) == 1 and match[0].startswith((r"\mathrm", r"\operatorname"))
                constant = lone and (piece in "eid" or not self._after_number())
                self._add("name" if constant else "word", _folded(piece))
            elif piece.strip() not in ("", "."):  # the dot of an abbreviation
                self.out += _Scanner(piece).tokens()

    def _command(self, match):
        name = _SAME.get(match[1], match[1])
        if name in FUNCTIONS:
            return self._add("fn", name)
        if name in GREEK:
            return self._add("name", name)
        if name in _SIGNS:
            return self._sign(_SIGNS[name])
        if name in SILENT:
            if name in ("left", "right") and self.text[match.end() : match.end() + 1] == ".":
                self.text = self.text[: match.end()] + " " + self.text[match.end() + 1 :]
            elif self.text[match.end() : match.end() + 1] == "{":
                self._add("op", "{")
                self.stack.append("{")
                self.text = self.text[: match.end()] + " " + self.text[match.end() + 1 :]
            return None
        return self._add("other", match[0])

    def _name(self, match):
        if self.at and self.text[self.at - 1].isalpha():
            return False
        return self._add("name", f"{match[1]}_{match[2] or match[3]}")

    def _hyphened(self, match):
        """Read x-axis as a word, but x-y as a difference."""
        if not self.wordy or all(len(part) < 3 or not is_word(part) for part in
                                 match[0].split("-")):  # fmt: skip
            return False
        return self._add("word", _folded(match[0]))

    def _run(self, match) -> None:
        run = match[0]
        known = _SAME.get(run, run)
        spaced = self.at > 0 and self.text[self.at - 1] in " ~," and is_word(run)
        if len(run) == 1:
            # Among words a letter is a word: "plan A".
            alone = self.wordy and len(self.text) > 1 and re.search("[A-Za-z]{2}", self.text)
            self._add("word" if alone else "name", run)
        elif known in FUNCTIONS:
            self._add("fn", known)
        elif known in GREEK and known not in ("Pi", "Xi"):
            self._add("name", known)
        elif run.lower() in _JOINS or (self.wordy and is_word(run)) or spaced or (
            (self._after_number() or self.text[self.at - 1].isspace()) and run in SHORT_UNITS
        ):  # fmt: skip
            self._add("word", _folded(run))
        else:
            self.out += [("name", letter) for letter in run]

    def _after_number(self) -> bool:
        return bool(self.out) and (self.out[-1][0] == "num" or self.out[-1][1] in ("}", ")", "/"))

    def _op(self, match):
        sign = match[0]
        if sign == "{":
            before = self.out[-1] if self.out else ("op", "")
            # A plain brace may be meant as a set, {1,200}, so its commas are no thousands.
            group = before[0] != "op" or before[1] in ("^", "_", "}", "]", "*")
            self.stack.append("{" if group else "set{")
            return self._add("op", "{")
        if sign == "}" and self.stack:
            self.stack.pop()
            return self._add("op", "}")
        return self._sign({"**": "^", "...": "other"}.get(sign, sign))

    def _sign(self, sign: str):
        if sign in ("(", "[", "{", "set{"):
            self.stack.append(sign)
        elif sign in (")", "]", "}", "set}") and self.stack:
            self.stack.pop()
        return self._add("other" if sign == "other" else "op", sign)


def _folded(word: str) -> str:
    return word if len(word) == 1 else word.lower()
