"""What the words of a trace say: its arithmetic, its repeats, and when the answer was found."""

import re
from collections.abc import Callable, Sequence

import pandas as pd

from mrtlib.problems import Grade, Problem, grade

Decode = Callable[[list[int]], str]
STEP = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")
WORKS = re.compile(r"So ([^.\n]{1,100}) works\.")


def arithmetic(text: str) -> list[bool]:
    """Return for each step "a op b = c" in natural numbers whether it is right."""
    return [
        {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(c)
        for a, sign, b, c in STEP.findall(text)
    ]


def wasted(episodes: Sequence[str], problem: Problem) -> list[bool]:
    """Return for each episode whether it repeats an earlier one's steps or follows the answer.

    The answer is found where an episode says of a right expression that it works.
    """
    seen, solved, out = set(), False, []
    for words in episodes:
        steps = tuple(STEP.findall(words))
        out.append(solved or (bool(steps) and steps in seen))
        seen.add(steps)
        solved = solved or any(_grade(problem, e).correct for e in WORKS.findall(words))
    return out


def parses(problem: Problem, answer: str | None) -> bool:
    """Say whether an answer can be read at all, right or not."""
    return answer is not None and _grade(problem, answer).reason not in ("unboxed", "unparsable")


def _grade(problem: Problem, answer: str) -> Grade:
    return grade(problem, f"\\boxed{{{answer}}}")


def episodes_of(row: pd.Series, decode: Decode) -> list[str]:
    """Return the words of each episode of a record of `rollouts`."""
    ends = [0, *row["boundaries"]]
    return [decode(row["token_ids"][a:b].tolist()) for a, b in zip(ends, ends[1:], strict=False)]
