"""Rollouts are read from sampled ids: the budget cuts them, the answer is graded behind the tag."""

from dataclasses import replace

import pytest

from mrtlib.config import Thinking
from mrtlib.models.sampling import Sample
from mrtlib.rollouts import Reader, of_record
from mrtlib.tasks.countdown import countdown

PROBLEM = countdown((3, 5, 7), 22, "three")
TRACE = "First, 7 + 5 = 12.\n\n12 + 3 = 15.\n\nNot 7 + 5 + 3.\n\nWait, 5 * 3 = 15.\n\n"
ANSWER = "</think>\n\nThe answer is \\boxed{5 * 3 + 7}<|end|>"


@pytest.fixture
def reader(toy_tokenizer):
    return Reader(toy_tokenizer, Thinking(budget=64))


def sample_of(reader, text) -> Sample:
    ids = reader.tokenizer.encode(text, add_special_tokens=False)
    return Sample(ids, [-0.5] * len(ids), text.endswith("<|end|>"))


def test_a_closed_trace_is_cut_into_episodes_and_its_answer_graded(reader):
    rollout = reader.read(PROBLEM, [1], sample_of(reader, TRACE + ANSWER))
    assert rollout.closed and not rollout.truncated and rollout.grade.correct
    assert reader.decode(rollout.trace_ids) == TRACE
    first = rollout.boundaries[0]
    assert reader.decode(rollout.trace_ids[:first]).endswith("Not 7 + 5 + 3.\n\n")
    assert rollout.boundaries[-1] == rollout.trace_tokens


def test_a_trace_over_the_budget_is_cut_and_has_no_answer(reader):
    rollout = reader.read(PROBLEM, [1], sample_of(reader, TRACE * 3 + ANSWER))
    assert rollout.truncated and rollout.trace_tokens == len(rollout.token_ids) == 64
    assert (rollout.grade.correct, rollout.grade.reason) == (False, "truncated")
    assert len(reader.within_budget(sample_of(reader, TRACE * 3)).logprobs) == 64


def test_an_end_token_inside_the_thinking_ends_it_and_is_no_part_of_it(reader):
    rollout = reader.read(PROBLEM, [1], sample_of(reader, TRACE + "<|end|>"))
    assert rollout.ended and not rollout.closed and not rollout.truncated
    assert reader.decode(rollout.trace_ids) == TRACE
    assert rollout.trace_tokens == rollout.boundaries[-1] == len(rollout.token_ids) - 1
    assert rollout.maker_ends[-1] == len(rollout.token_ids)  # the end token made the last boundary
    assert (rollout.grade.correct, rollout.grade.reason) == (False, "ended")
    assert not rollout.closed  # so its last boundary is forced
    assert reader.tokenizer.eos_token_id not in rollout.trace_ids
    row = reader.row(rollout, "base", 0, 0)
    assert (row["ended"], row["truncated"], row["closed"]) == (True, False, False)


def test_a_right_answer_in_a_trace_that_just_ends_is_none(reader):
    text = "\\boxed{5 * 3 + 7}.\n\n<|end|>"
    assert reader.read(PROBLEM, [1], sample_of(reader, text)).grade.reason == "ended"


def test_an_output_that_ends_behind_the_budget_is_cut_at_it(reader):
    rollout = reader.read(PROBLEM, [1], sample_of(reader, TRACE * 3 + "<|end|>"))
    assert rollout.truncated and not rollout.ended and rollout.maker_ends[-1] == 64
    at_once = reader.read(PROBLEM, [1], sample_of(reader, "<|end|>"))
    assert at_once.ended and at_once.boundaries == [] and at_once.maker_ends == [1]


def test_a_boundary_is_made_by_one_token(reader):
    rollout = reader.read(PROBLEM, [1], sample_of(reader, TRACE + ANSWER))
    first, last = rollout.boundaries
    assert reader.decode(rollout.token_ids[first : first + 1]) == "Wait"
    assert rollout.maker_ends == [first + 1, last + 1]  # the marker, and the closing tag


def test_a_box_inside_the_thinking_is_no_answer(reader):
    text = "\\boxed{5 * 3 + 7}.\n\n</think>\n\nThe answer is"
    assert reader.read(PROBLEM, [1], sample_of(reader, text)).grade.reason == "unboxed"


def test_an_empty_trace_has_no_episodes(reader):
    rollout = reader.read(PROBLEM, [1], sample_of(reader, ANSWER))
    assert rollout.boundaries == [] and rollout.trace_tokens == 0 and rollout.grade.correct


def test_a_trace_without_markers_is_one_episode(reader):
    rollout = reader.read(PROBLEM, [1], sample_of(reader, "7 + 5 = 12.\n\n" + ANSWER))
    assert len(rollout.boundaries) == 1


def test_row_fits_the_schema(reader, tmp_path):
    from mrtlib.store import read_table, write_table

    rollout = reader.read(PROBLEM, [1, 2], sample_of(reader, TRACE + ANSWER))
    write_table(tmp_path / "r.parquet", "rollouts", [reader.row(rollout, "base", 0, 3)])
    row = read_table(tmp_path / "r.parquet", "rollouts").iloc[0]
    assert row["text"] == TRACE + ANSWER and row["episodes"] == 2 and row["sample"] == 3


def test_a_record_gives_its_rollout_back(reader):
    for text in (TRACE + ANSWER, TRACE + "<|end|>", TRACE * 3, ANSWER):
        rollout = reader.read(PROBLEM, [1, 2], sample_of(reader, text))
        again = of_record(reader.row(rollout, "base", 0, 3), PROBLEM)
        assert replace(again, maker_ends=rollout.maker_ends, grade=rollout.grade) == rollout
        assert (again.grade.correct, again.grade.answer) == (
            rollout.grade.correct, rollout.grade.answer,
        )  # fmt: skip
