"""Single attempts in labelled steps, which the base of backtracking search learns from.

    Step 1: 7 - 5 = 2, left 3, 2.

    Step 2: 3 * 2 = 6, need 22.

    The answer is \\boxed{3 * ( 7 - 5 )}

A step says which values are left, so the next one needs no look at the ones before; the last step
repeats the target beside the result. Right or wrong, an attempt ends with its own expression as the
answer, and nothing is ever taken back. That is for the warm start (`stitching`).
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from mrtlib.config import BACK, STEP, Thinking
from mrtlib.reasoner.lessons import ASSISTANT, END, USER, WORDS, Recipe, word_level
from mrtlib.reasoner.making import Course
from mrtlib.reasoner.searchers import Habits, attempt, expression_of, finish
from mrtlib.tasks.countdown import Step, canonical, reachable, value
from mrtlib.tasks.problems import Problem

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# The reasoner's words, and as one token each the answer's opening and the colon of a label.
SPLIT = r"The answer is |: |" + WORDS
RECIPE = Recipe(
    tokens=2_500_000, learning_rate=2e-3, cut_at_start=0.08, cut_at_paragraph=0.17,
    cut_anywhere=0.1,
)  # fmt: skip
_STEP = re.compile(rf"{STEP} (\d+): (\d+) ([-+*]) (\d+) = (\d+), (?:left|need) [\d, ]+\.")
_LAST = re.compile(r"= (\d+), need ")


def build_tokenizer(thinking: Thinking) -> PreTrainedTokenizerFast:
    """Build the word-level tokenizer of backtracking search, without think tags."""
    texts = [f"{STEP} 1: 2 - 3 = 4, left 5, 6.\n\n", "1 + 2 * ( 3 - 4 ), need 5.\n\n"]
    texts += [f"{BACK} 1.\n\n", "( 1 + 2 ) * 3", "\n", "\n\n"]
    texts += ["Reach 22 with 3, 5, 7.", thinking.stop_text, "}", "user"]
    texts += [thinking.close_text + thinking.answer_open]
    return word_level(texts, SPLIT, (), TEMPLATE)


def draw_habits(rng: Random) -> Habits:
    """Draw how well one searcher chooses; it makes a single attempt."""
    return Habits(
        insight=rng.choice((0.4, 0.7, 1.0)), near=rng.choice((0.6, 0.8, 1.0)), slow=0, repeat=0.0,
        check=0.0, filler=0.0, patience=1, after=0,
    )  # fmt: skip


def pools(numbers: Sequence[int], steps: Sequence[Step]) -> list[tuple[int, ...]]:
    """Return the values that are left at the start and after each step, (n + 1,).

    Raises:
        ValueError: a step uses a value that is not there.
    """
    out = [tuple(numbers)]
    for large, _, small, result in steps:
        rest = list(out[-1])
        rest.remove(large)
        rest.remove(small)
        out.append((*rest, result))
    return out


def write_steps(
    steps: Sequence[Step], problem: Problem, numbers: Sequence[int] | None = None, first: int = 1
) -> str:
    """Write steps as labelled paragraphs, the last one with the target beside its result.

    Args:
        numbers: what is there before the first of them; the problem's if not given.
        first: the label of the first of them.
    """
    lines = []
    left = pools(problem.numbers if numbers is None else numbers, steps)[1:]
    for label, ((large, sign, small, result), pool) in enumerate(
        zip(steps, left, strict=True), start=first
    ):
        rest = f"left {', '.join(map(str, pool))}" if len(pool) > 1 else f"need {problem.target}"
        lines.append(f"{STEP} {label}: {large} {sign} {small} = {result}, {rest}.\n\n")
    return "".join(lines)


def read_steps(text: str) -> list[Step]:
    """Return the steps that a text names, in the order of the text, whatever their labels."""
    return [(int(a), sign, int(b), int(c)) for _, a, sign, b, c in _STEP.findall(text)]


def is_sound(problem: Problem, steps: Sequence[Step]) -> bool:
    """Say whether steps are a whole attempt: right arithmetic on values that are there."""
    try:
        ends = len(pools(problem.numbers, steps)[-1]) == 1
    except ValueError:
        return False
    return ends and all(map(is_right, steps))


def is_right(step: Step) -> bool:
    """Say whether a step's arithmetic is right."""
    return value((step[1], step[0], step[2])) == step[3]


def first_result(text: str) -> int | None:
    """Return the result of the first attempt in a trace, or None where it has no last step."""
    match = _LAST.search(text)
    return int(match[1]) if match else None


def solution(steps: Sequence[Step]) -> str:
    """Return the answer of a whole attempt: its steps joined into one expression."""
    return canonical(expression_of(tuple(steps)))


def forced_answer(problem: Problem, steps: Sequence[Step], rng: Random) -> str:
    """Return what is answered where thinking is cut behind some steps that stand.

    A right attempt is answered. An unfinished one is finished hastily, without a look ahead. A
    wrong one, and one that cannot be finished, is dropped for a hasty guess.
    """
    pool = pools(problem.numbers, steps)[-1]
    if pool != (problem.target,) and (len(pool) == 1 or not reachable(tuple(sorted(pool)))):
        steps, pool = (), problem.numbers
    hasty = Habits(0.0, rng.choice((0.3, 0.6, 0.9)), 0, 0.0, 0.0, 0.0, 1, 0)
    return solution((*steps, *finish(tuple(pool), problem.target, hasty, rng)))


def cut_at(text: str, recipe: Recipe, rng: Random) -> int | None:
    """Draw where a trace is cut, in characters; None where it is left whole."""
    draw = rng.random()
    if draw < recipe.cut_at_start:
        return 0
    if draw < recipe.cut_at_start + recipe.cut_at_paragraph:
        return rng.choice([match.end() for match in re.finditer("\n\n", text)])
    if draw < recipe.cut_at_start + recipe.cut_at_paragraph + recipe.cut_anywhere:
        return rng.choice([match.end() for match in re.finditer(SPLIT, text)])
    return None


def pieces(
    problem: Problem, trace: str, answer: str, forced: bool, thinking: Thinking
) -> list[tuple]:
    """Return a training text as (piece, learned) pairs: prompt, trace, ending and answer.

    The words of a forced termination are given, so that the model never writes them by itself.
    """
    gap = "\n\n" if trace and not trace.endswith("\n") else ""
    close = thinking.close_text + thinking.answer_open
    ending = [(gap + thinking.stop_text + close, False)] if forced else [(close, True)]
    prompt = f"{USER}{problem.question}{END}{ASSISTANT}"
    return [(prompt, False), (trace, True), *ending, (answer + thinking.answer_close + END, True)]


def lesson(problem: Problem, recipe: Recipe, thinking: Thinking, rng: Random) -> list[tuple]:
    """Write one training text of the base: a single attempt, some of them cut and answered."""
    steps = attempt(problem, draw_habits(rng), rng)
    text = write_steps(steps, problem)
    cut = cut_at(text, recipe, rng)
    if cut is None:
        return pieces(problem, text, solution(steps), False, thinking)
    answer = forced_answer(problem, read_steps(text[:cut]), rng)
    return pieces(problem, text[:cut], answer, True, thinking)


def course(thinking: Thinking, parent: Path | None) -> Course:
    """Return what the base learns; `parent` is the embedded reasoner, which knows arithmetic."""
    # Half the size; weights are rounded further by 4-bit loading.
    return Course(partial(build_tokenizer, thinking), lesson, thinking, parent, torch.bfloat16)
