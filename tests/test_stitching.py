"""Warm-start traces return to steps from which the target can be reached, and are sound."""

import json
from itertools import pairwise
from random import Random

import pytest

from mrtlib.config import BACK, ROOT, load_profile
from mrtlib.episodes import returns_to
from mrtlib.reasoner import attempts, stitching
from mrtlib.reasoner.attempts import build_tokenizer, pools, read_steps, write_steps
from mrtlib.reasoner.lessons import encode
from mrtlib.reasoner.searchers import attempt
from mrtlib.reasoner.stitching import KINDS, Stitching, draw_trace, sort_attempts, standing
from mrtlib.tasks.countdown import countdown, reachable
from mrtlib.tasks.grading import grade

THINKING = load_profile("backtrack").thinking
PROBLEMS = [
    countdown((3, 5, 7), 22, "three"), countdown((2, 3, 4, 10), 25, "four"),
    countdown((4, 5, 11, 12), 33, "four"), countdown((5, 7, 12), 47, "three"),
]  # fmt: skip
MANY = Stitching(errors=(0.3, 0.3, 0.4))


def output(problem, steps):
    answer = attempts.solution(steps)
    return f"{write_steps(steps, problem)}{THINKING.close_text}\\boxed{{{answer}}}"


@pytest.fixture(scope="module")
def found():
    rng, out = Random(0), []
    for problem in PROBLEMS:
        made = [attempt(problem, attempts.draw_habits(rng), rng) for _ in range(60)]
        out.append(sort_attempts(problem, [output(problem, steps) for steps in made]))
    return out


@pytest.fixture(scope="module")
def traces(found):
    rng = Random(1)
    drawn = {kind: [draw_trace(kind, rng.choice(found), MANY, rng) for _ in range(300)]
             for kind in KINDS}  # fmt: skip
    return {kind: [t for t in some if t is not None] for kind, some in drawn.items()}


def test_steps_are_read_as_they_were_written(found):
    for each in found:
        assert each.right and each.wrong
        for steps in (*each.right, *each.wrong):
            assert tuple(read_steps(write_steps(steps, each.problem))) == steps


def test_attempts_are_sorted_by_where_they_end(found):
    for each in found:
        assert all(steps[-1][3] == each.problem.target for steps in each.right)
        assert all(steps[-1][3] != each.problem.target for steps in each.wrong)
        for steps in each.right:
            assert grade(each.problem, output(each.problem, steps)).correct


def test_unsound_outputs_are_left_out():
    problem = PROBLEMS[0]
    good = "Step 1: 5 * 3 = 15, left 7, 15.\n\nStep 2: 15 + 7 = 22, need 22.\n\n"
    answer = "The answer is \\boxed{5 * 3 + 7}"
    assert sort_attempts(problem, [good + answer]).right
    outputs = [
        good + "The answer is \\boxed{5 * 3 - 7}",  # right steps, wrong answer
        good.replace("= 22", "= 23") + answer,  # wrong arithmetic
        good.replace("15 + 7", "16 + 7") + answer,  # a value that is not there
        good.split("Step 2")[0] + answer,  # unfinished
    ]
    left = sort_attempts(problem, outputs)
    assert not left.right and not left.wrong


def test_error_lines_of_joined_traces_return_to_a_good_prefix(traces):
    returned = 0
    for trace in traces["joined"]:
        text, target = "", trace.problem.target
        for line in trace.text.split("\n\n"):
            back = returns_to(line)
            if back is not None:
                kept = standing(text)[: back - 1]
                assert len(kept) == back - 1
                pool = pools(trace.problem.numbers, kept)[-1]
                assert target in reachable(tuple(sorted(pool)))
                returned += back > 1
            text += line + "\n\n"
    assert returned > 20  # or the test shows nothing


def test_joined_attempts_share_all_they_can(traces, found):
    of = {each.problem.id: each for each in found}
    for trace in traces["joined"]:
        for n, (a, b) in enumerate(pairwise(trace.attempts)):
            assert a[: trace.kept[n]] == b[: trace.kept[n]]
            assert trace.backs[n] == trace.kept[n] + 1
        if trace.backs:
            rights = of[trace.problem.id].right
            wrong = trace.attempts[-2]
            assert trace.kept[-1] == max(stitching.shared(wrong, right) for right in rights)


def test_random_traces_share_nothing_and_return_anywhere(traces):
    backs = set()
    for trace in traces["random"]:
        for a, b in pairwise(trace.attempts):
            assert a[0] != b[0]
        backs |= set(trace.backs)
    assert backs == {1, 2, 3}


@pytest.mark.parametrize("kind", KINDS)
def test_traces_are_sound_and_end_right(traces, kind):
    for trace in traces[kind]:
        assert all(map(attempts.is_right, read_steps(trace.text)))
        steps = standing(trace.text)
        assert attempts.is_sound(trace.problem, steps)
        assert tuple(steps) == trace.attempts[-1]
        assert steps[-1][3] == trace.problem.target
        assert trace.text.count(BACK) == len(trace.backs)
    assert any(trace.backs for trace in traces[kind]) == (kind != "rejection")


@pytest.mark.parametrize("kind", KINDS)
def test_texts_teach_error_lines_and_right_attempts_alone(traces, kind):
    rng, cut = Random(2), 0
    tokenizer = build_tokenizer(THINKING)
    for trace in traces[kind]:
        made = stitching.lesson(trace, Stitching(cut=0.5), THINKING, rng)
        text = "".join(piece for piece, _ in made)
        learned = "".join(piece for piece, own in made if own)
        (ids, _), = encode([made], tokenizer)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        result = grade(trace.problem, text)
        if THINKING.stop_text in text:
            cut += 1
            assert THINKING.stop_text not in learned and "Step" not in learned
            assert result.reason in ("correct", "wrong")
        else:
            assert result.correct
            assert learned.count(BACK) == len(trace.backs)
            last = trace.attempts[-1][(trace.kept or (0,))[-1] :]
            assert read_steps(learned) == list(last)
    assert 0.3 < cut / len(traces[kind]) < 0.7


def test_what_stands_after_a_return():
    text = "Step 1: 7 - 5 = 2, left 3, 2.\n\nStep 2: 3 * 2 = 6, need 22.\n\n"
    first, second = (7, "-", 5, 2), (3, "*", 2, 6)
    assert standing(text) == [first, second]
    assert standing(text + f"{BACK} 2.\n\n") == [first]
    assert standing(text + f"{BACK} 1.\n\n") == []
    again = text + f"{BACK} 2.\n\nStep 2: 3 + 2 = 5, need 22.\n\n"
    assert standing(again) == [first, (3, "+", 2, 5)]
    assert standing(text + f"{BACK} 2.\n\nStep 2: 3 + 2 = ") == [first]


def test_a_forced_answer_goes_on_from_what_stands():
    rng, problem = Random(0), PROBLEMS[0]
    right = [(5, "*", 3, 15), (15, "+", 7, 22)]
    assert attempts.forced_answer(problem, right, rng) == "5 * 3 + 7"
    some = {attempts.forced_answer(problem, right[:1], rng) for _ in range(50)}
    assert all("5 * 3" in answer for answer in some) and "5 * 3 + 7" in some
    wrong = [(7, "-", 5, 2), (3, "*", 2, 6)]
    assert len({attempts.forced_answer(problem, wrong, rng) for _ in range(50)}) > 2


def test_no_test_problem_is_used():
    """The warm start reads training problems, the base the ones that no file has."""
    ids = {name: {json.loads(line)["id"] for line in
                  (ROOT / f"data/problems/{name}.jsonl").read_text().splitlines()}
           for name in ("train", "validation", "test")}  # fmt: skip
    assert not ids["train"] & (ids["test"] | ids["validation"])


def test_a_base_s_lesson_is_one_attempt_with_its_own_answer():
    rng, forced, right = Random(3), 0, []
    for problem in PROBLEMS * 50:
        made = attempts.lesson(problem, attempts.RECIPE, THINKING, rng)
        text = "".join(piece for piece, _ in made)
        assert BACK not in text
        if THINKING.stop_text in text:
            forced += 1
            assert not any(THINKING.stop_text in piece for piece, learned in made if learned)
        else:
            result, ends = grade(problem, text), read_steps(text)[-1][3]
            assert result.correct == (ends == problem.target)
            right.append(result.correct)
    assert 0.2 < forced / 200 < 0.5 and 0.3 < sum(right) / len(right) < 0.9
