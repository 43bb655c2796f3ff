"""Searchers never err in arithmetic, waste as they are told, and their answers are accepted."""

import re
from dataclasses import replace
from random import Random

import pytest

from mrtlib.episodes import official
from mrtlib.reasoner.searchers import (
    Habits,
    attempt,
    draw_habits,
    expression_of,
    guess,
    write_trace,
)
from mrtlib.tasks.countdown import MAX_LAST, MAX_VALUE, countdown, last_steps, reachable, steps_from
from mrtlib.tasks.grading import grade

PROBLEMS = [countdown((3, 5, 7), 22, "three"), countdown((2, 3, 4, 10), 25, "four")]
STEP = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)([.,])")
NONE = Habits(insight=0, near=0, slow=0, repeat=0, check=0, filler=0, patience=1, after=0)


def traces(problem, count=200):
    rng = Random(0)
    return [write_trace(problem, draw_habits(problem.level, rng), rng) for _ in range(count)]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.level)
def test_every_step_is_right_and_every_found_answer_accepted(problem):
    seen = 0
    for trace in traces(problem):
        for a, sign, b, c, end in STEP.findall(trace.text):
            a, b, c = int(a), int(b), int(c)
            assert c == {"+": a + b, "-": a - b, "*": a * b}[sign]
            assert a >= b and (1 <= c <= MAX_VALUE or (end == "," and 0 <= c <= MAX_LAST))
            seen += 1
        for _, answer in trace.found:
            assert grade(problem, f"\\boxed{{{answer}}}").correct
    assert seen > 1000


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.level)
def test_each_attempt_is_an_episode_by_the_official_rule(problem):
    for trace in traces(problem, 50):
        verdicts = len(re.findall(r"^(?:Not|So) ", trace.text, flags=re.M))
        assert len(official(trace.text)) == verdicts


def test_an_answer_is_known_only_after_it_was_found():
    trace = next(t for t in traces(PROBLEMS[0]) if t.found and t.found[0][0] > 60)
    end, answer = trace.found[0]
    assert trace.answer_at(end - 1) is None
    assert trace.answer_at(end) == answer
    assert trace.answer_at(len(trace.text)) == trace.found[-1][1]


def test_a_guess_uses_the_numbers_of_its_problem_and_is_seldom_right():
    for problem in PROBLEMS:
        rng = Random(3)
        guesses = [guess(problem, draw_habits(problem.level, rng), rng) for _ in range(200)]
        grades = [grade(problem, f"\\boxed{{{words}}}") for words in guesses]
        assert {g.reason for g in grades} <= {"correct", "wrong"}
        assert 0 < sum(g.correct for g in grades) < 100


def test_careless_last_steps_are_all_that_two_values_allow():
    assert [s for s, _ in last_steps((5, 5))] == [(5, "+", 5, 10), (5, "-", 5, 0), (5, "*", 5, 25)]
    assert [s[3] for s, _ in last_steps((40, 50))] == [90, 10]  # 2000 is beyond MAX_LAST


def test_reachable_equals_a_walk_over_all_steps():
    def walk(pool):
        if len(pool) == 1:
            return set(pool)
        return set().union(*(walk(rest) for _, rest in steps_from(pool)))

    for pool in ((3, 5, 7), (1, 1, 2), (2, 3, 4, 10)):
        assert reachable(pool) == walk(pool)


def test_insight_and_nearness_raise_the_share_of_solved_attempts():
    def share(insight, near):
        habits = replace(NONE, insight=insight, near=near)
        rng = Random(1)
        solved = [attempt(PROBLEMS[0], habits, rng)[-1][3] == 22 for _ in range(500)]
        return sum(solved) / 500

    assert share(0, 0) < share(0, 1) < share(1, 1) == 1


def test_slow_searchers_find_late_what_others_find_at_once():
    def found(slow):
        rng = Random(4)
        sharp = replace(NONE, insight=1, near=1, slow=slow, patience=4)
        made = [write_trace(PROBLEMS[0], sharp, rng) for _ in range(300)]
        return sum("Not " not in trace.text for trace in made) / 300

    assert found(0) == 1 and found(3) < 0.3


def test_repeats_checks_and_fillers_follow_the_habits():
    rng = Random(2)
    stuck = write_trace(PROBLEMS[0], replace(NONE, repeat=1, patience=5), rng)
    bodies = re.split(r"\n\n(?=[A-Z][a-z ]*(?:-check)?, )", stuck.text)
    assert len({body.split(", ", 1)[1].strip() for body in bodies}) == 1
    rambling = write_trace(PROBLEMS[0], replace(NONE, check=1, filler=1, patience=4), rng)
    assert rambling.text.count("But let me double-check") == 3


def test_a_used_intermediate_result_is_not_used_twice():
    # 2 * 3 = 6 beside a given 6: the expression_of must hold the product once.
    steps = ((3, "*", 2, 6), (6, "+", 6, 12))
    assert expression_of(steps) == ("+", ("*", 3, 2), 6)
