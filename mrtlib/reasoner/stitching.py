"""The data of the warm start: attempts of the base, stitched into traces that take a step back.

    joined      a wrong attempt, then a right one that shares its longest possible beginning; the
                line between them returns to the step behind what they share
    random      a wrong attempt, a return to a random step, and a right attempt that shares nothing
    rejection   right attempts alone

A beginning that a right attempt has is good: the target can be reached from it. In `joined` and
`random` there may be more wrong attempts than one. A wrong attempt is given and not learned, or
the model would learn to fail first; what is learned is the error line, and the right attempt.

Source: arXiv 2503.07572, figures 14 and 15 (`random` is like RISE, arXiv 2407.18219).
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from mrtlib.config import BACK, Thinking
from mrtlib.episodes import returns_to
from mrtlib.reasoner.attempts import (
    cut_at,
    forced_answer,
    is_sound,
    pieces,
    pools,
    read_steps,
    solution,
    write_steps,
)
from mrtlib.reasoner.lessons import Recipe
from mrtlib.tasks.countdown import Step, reachable
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Problem

KINDS = ("joined", "random", "rejection")
Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Stitching:
    """How the three sets are made, all alike but for the stitching."""

    tokens: int = 300_000  # of each set, all that goes through the model
    single: float = 0.3  # of the traces of `joined` and `random` are right at once
    errors: tuple[float, ...] = (0.5, 0.3, 0.2)  # shares of the others with 1, 2, 3 wrong attempts
    cut: float = 0.2  # share of all traces that are cut and answered, half at a paragraph


@dataclass(frozen=True)
class Attempts:
    """The sound attempts of a model at one problem, each once."""

    problem: Problem
    right: tuple[Steps, ...]
    wrong: tuple[Steps, ...]


@dataclass(frozen=True)
class Trace:
    """One trace of the warm start: attempts, and the steps to which the lines between return."""

    problem: Problem
    attempts: tuple[Steps, ...]  # all wrong but the last
    backs: tuple[int, ...]  # a step for each gap, counted from 1
    kept: tuple[int, ...]  # steps of the attempt before that stand behind each gap

    @property
    def parts(self) -> list[tuple[str, bool]]:
        """The trace as (text, learned) pairs; wrong attempts are given."""
        out, numbers, shared = [], self.problem.numbers, 0
        for n, steps in enumerate(self.attempts):
            if n:
                shared = self.kept[n - 1]
                out.append((f"{BACK} {self.backs[n - 1]}.\n\n", True))
            numbers = pools(self.problem.numbers, steps)[shared]
            text = write_steps(steps[shared:], self.problem, numbers, shared + 1)
            out.append((text, n == len(self.attempts) - 1))
        return out

    @property
    def text(self) -> str:
        """The trace without its answer."""
        return "".join(text for text, _ in self.parts)


def sort_attempts(problem: Problem, outputs: Iterable[str]) -> Attempts:
    """Read outputs of a model that makes single attempts; what is unsound is left out.

    A right attempt reaches the target, and its answer is right; a wrong one ends elsewhere.
    """
    right, wrong = {}, {}
    for output in outputs:
        steps = tuple(read_steps(output))
        if not is_sound(problem, steps):
            continue
        if steps[-1][3] != problem.target:
            wrong[steps] = None
        elif grade(problem, output).correct:
            right[steps] = None
    return Attempts(problem, tuple(right), tuple(wrong))


def shared(first: Steps, second: Steps) -> int:
    """Return how many steps two attempts have in common at their beginning."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in same)


def good_steps(problem: Problem, steps: Steps) -> int:
    """Return how many steps of an attempt are made before the target gets out of reach."""
    ways = [problem.target in reachable(tuple(sorted(p))) for p in pools(problem.numbers, steps)]
    return sum(1 for _ in itertools.takewhile(bool, ways[1:]))


def good_beginnings(attempts: Attempts) -> set[Steps]:
    """Return the good beginnings of wrong attempts, each as long as it can be.

    To go on from them is the search for right attempts that share as much as possible.
    """
    cuts = [(wrong, good_steps(attempts.problem, wrong)) for wrong in attempts.wrong]
    return {wrong[:good] for wrong, good in cuts if good}


def join(attempts: Attempts, errors: int, rng: Random) -> Trace | None:
    """Join wrong attempts and a right one, each where it parts from the one before; None if none.

    The last wrong attempt is any, so a model learns how often each return is right. It is followed
    by the right attempt that shares the most with it; before it stand wrong ones that part from
    the next before their first bad step.
    """
    chosen = [rng.choice(attempts.wrong)]
    while len(chosen) < errors:
        after = chosen[0]
        others = [w for w in attempts.wrong if w not in chosen
                  and shared(w, after) <= good_steps(attempts.problem, w)]  # fmt: skip
        if not others:
            return None
        chosen.insert(0, _closest(after, others, rng))
    chosen.append(_closest(chosen[-1], attempts.right, rng))
    kept = tuple(shared(a, b) for a, b in itertools.pairwise(chosen))
    return Trace(attempts.problem, tuple(chosen), tuple(k + 1 for k in kept), kept)


def _closest(steps: Steps, others: Sequence[Steps], rng: Random) -> Steps:
    most = max(shared(steps, other) for other in others)
    return rng.choice([other for other in others if shared(steps, other) == most])


def stitch(attempts: Attempts, errors: int, rng: Random) -> Trace | None:
    """Put a right attempt behind wrong ones that share no step with the next; None if none do."""
    if len(attempts.wrong) < errors:
        return None
    chosen = [*rng.sample(attempts.wrong, errors), rng.choice(attempts.right)]
    if any(shared(a, b) for a, b in itertools.pairwise(chosen)):
        return None
    backs = tuple(rng.randint(1, len(steps)) for steps in chosen[:-1])
    return Trace(attempts.problem, tuple(chosen), backs, (0,) * errors)


def draw_trace(kind: str, attempts: Attempts, settings: Stitching, rng: Random) -> Trace | None:
    """Draw one trace of a kind; None where these attempts give none of the drawn sort."""
    alone = kind == "rejection" or rng.random() < settings.single
    if not attempts.right or not (alone or attempts.wrong):
        return None
    if alone:
        return Trace(attempts.problem, (rng.choice(attempts.right),), (), ())
    errors = rng.choices(range(1, len(settings.errors) + 1), settings.errors)[0]
    if kind == "joined":
        return join(attempts, errors, rng)
    return stitch(attempts, errors, rng)


def standing(text: str) -> list[Step]:
    """Return the steps that stand at the end of a text: returned to, or made since."""
    steps: list[Step] = []
    for line in text.split("\n\n"):
        back = returns_to(line)
        if back is not None:
            steps = steps[: back - 1]
        elif found := read_steps(line):
            label = int(line.split()[1].rstrip(":"))
            steps = [*steps[: label - 1], *found]
    return steps


def lesson(trace: Trace, settings: Stitching, thinking: Thinking, rng: Random) -> list[tuple]:
    """Write a trace as a training text, (piece, learned) pairs; some are cut and answered.

    Of one that is cut, the answer alone is learned.
    """
    recipe = Recipe(cut_at_start=0.0, cut_at_paragraph=settings.cut / 2,
                    cut_anywhere=settings.cut / 2)  # fmt: skip
    cut = cut_at(trace.text, recipe, rng)
    if cut is None:
        prompt, _, *ending = pieces(
            trace.problem, trace.text, solution(trace.attempts[-1]), False, thinking
        )
        return [prompt, *trace.parts, *ending]
    kept = trace.text[:cut]
    answer = forced_answer(trace.problem, standing(kept), rng)
    prompt, _, *ending = pieces(trace.problem, kept, answer, True, thinking)
    return [prompt, (kept, False), *ending]
