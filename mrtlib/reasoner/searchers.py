"""Deliberately wasteful searchers over Countdown, who write the traces the reasoner learns from.

A searcher makes attempts. An attempt combines two values at a time until one is left, writes each
step as a paragraph and ends with a verdict in words:

    Wait, 7 + 5 = 12.

    12 * 3 = 36, need 22.

    Not ( 7 + 5 ) * 3.

How it wastes tokens is drawn anew for each trace (`Habits`): it makes steps in poor order, repeats
attempts, checks failed ones, writes sentences that say nothing, goes on after it has found the
answer, or gives up early. A searcher never errs in arithmetic.
"""

from dataclasses import dataclass, replace
from random import Random

from mrtlib.config import ALTERNATIVELY, BUT_WAIT, CHECK, HOLD_ON, WAIT
from mrtlib.tasks.countdown import Step, canonical, last_steps, reachable, steps_from
from mrtlib.tasks.problems import Problem

OPENERS = (WAIT, ALTERNATIVELY, BUT_WAIT, HOLD_ON)  # of an attempt that is not a check
FILLERS = (
    "Hmm, that was not it.",
    "Let me think about the numbers again.",
    "I should try something else.",
    "There must be a way to do this.",
)


@dataclass(frozen=True)
class Habits:
    """What one searcher does: numbers of attempts (int), and probabilities for each (float)."""

    insight: float  # the next step is one from which the target can be reached
    near: float  # the last step is the one that comes closest to the target
    slow: int  # first attempts, without insight and near
    repeat: float  # the attempt is an earlier one, word for word
    check: float  # the attempt is the last one again, as a check
    filler: float  # a sentence that says nothing comes first
    patience: int  # attempts before giving up
    after: int  # attempts after the answer was found


@dataclass(frozen=True)
class Trace:
    """What a searcher wrote, and (end in characters, answer) of each answer that it found."""

    text: str  # ends with a blank line
    found: tuple[tuple[int, str], ...]

    def answer_at(self, cut: int) -> str | None:
        """Return the answer found last in the first `cut` characters, or None."""
        return next((answer for end, answer in reversed(self.found) if end <= cut), None)


def draw_habits(level: str, rng: Random) -> Habits:
    """Draw the habits of one searcher. Four kinds are mixed: hasty, stuck, rambling, thorough."""
    kind = rng.random()
    hard = level == "four"
    return Habits(
        insight=rng.choice((0.6, 0.8, 1.0) if hard else (0.2, 0.5, 0.8)),
        near=rng.choice((0.3, 0.6, 0.9)),
        slow=rng.choice((0, 1, 2, 3, 4)),
        repeat=0.35 if 0.25 < kind < 0.5 else 0.06,
        check=0.25 if 0.5 < kind < 0.75 else 0.04,
        filler=0.5 if 0.5 < kind < 0.8 else 0.08,
        patience=rng.randint(2, 3) if kind < 0.1 else rng.randint(5, 8 if hard else 10),
        after=rng.choice((0, 0, 1, 1, 2, 3)),
    )


def write_trace(problem: Problem, habits: Habits, rng: Random) -> Trace:
    """Search for a problem's answer, and write down how."""
    text = ""
    tried: list[tuple[Step, ...]] = []
    found: list[tuple[int, str]] = []
    left = habits.patience
    while left > 0:
        steps, check = _choose(habits, tried, bool(found), problem, rng)
        opener = "First" if not tried else CHECK if check else rng.choice(OPENERS)
        text += _paragraphs(steps, problem.target, opener, habits, rng)
        if steps[-1][3] == problem.target:
            found.append((len(text), canonical(expression_of(steps))))
            left = left if len(found) > 1 else habits.after + 1
        text += verdict(steps, problem.target) + "\n\n"
        tried.append(steps)
        left -= 1
    return Trace(text, tuple(found))


def _choose(habits, tried, solved: bool, problem, rng) -> tuple[tuple[Step, ...], bool]:
    """Choose the next attempt, and whether it is a check of the one before."""
    draw = rng.random()
    if tried and (draw < habits.check or (solved and draw < 0.6)):
        return tried[-1], True
    if tried and draw > 1 - habits.repeat:
        return rng.choice(tried), False
    slow = len(tried) < habits.slow
    for _ in range(8):
        steps = attempt(problem, replace(habits, insight=0.0, near=0.0) if slow else habits, rng)
        if steps not in tried:
            break
    return steps, False


def attempt(problem: Problem, habits: Habits, rng: Random) -> tuple[Step, ...]:
    """Combine two values at a time until one is left."""
    return finish(tuple(problem.numbers), problem.target, habits, rng)


def finish(
    pool: tuple[int, ...], target: int, habits: Habits, rng: Random
) -> tuple[Step, ...]:
    """Combine two values of a pool at a time until one is left."""
    steps: list[Step] = []
    while len(pool) > 1:
        options = steps_from(pool)
        if len(pool) == 2 and rng.random() < habits.near:
            options = [min(options, key=lambda o: abs(o[0][3] - target))]
        elif rng.random() < habits.insight:
            good = [o for o in options if target in reachable(tuple(sorted(o[1])))]
            options = good or options
        elif len(pool) == 2:
            options = last_steps(pool)
        step, pool = rng.choice(options)
        steps.append(step)
    return tuple(steps)


def guess(problem: Problem, habits: Habits, rng: Random) -> str:
    """Return the answer of a searcher that has found none: one more attempt, not written down."""
    return canonical(expression_of(attempt(problem, replace(habits, insight=0.0), rng)))


def expression_of(steps: tuple[Step, ...]):
    """Join the steps of an attempt into one expression (nested tuples, as `countdown.parse`)."""
    made: dict[int, list] = {}
    node = None
    for large, sign, small, result in steps:
        left = made[large].pop() if made.get(large) else large
        right = made[small].pop() if made.get(small) else small
        node = (sign, left, right)
        made.setdefault(result, []).append(node)
    return node


def _paragraphs(steps, target: int, opener: str, habits: Habits, rng: Random) -> str:
    """Write the steps of an attempt, a paragraph each.

    The last one repeats the target beside the result: a small model can compare neighbours.
    """
    lines = [f"{large} {sign} {small} = {result}" for large, sign, small, result in steps]
    lines[0] = f"{opener}, {lines[0]}"
    lines[-1] += f", need {target}"
    lines = [line + "." for line in lines]
    if rng.random() < habits.filler:
        lines.insert(0, rng.choice(FILLERS))
    return "\n\n".join(lines) + "\n\n"


def verdict(steps: tuple[Step, ...], target: int) -> str:
    """Say how an attempt ended, with the expression that it tried.

    As each attempt ends with its expression, a small model can learn to join steps into one.
    """
    tried = canonical(expression_of(steps))
    return f"So {tried} works." if steps[-1][3] == target else f"Not {tried}."
