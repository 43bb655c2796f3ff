"""A pasted trace: read, cut and measured as the rollout that it was."""

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest

from mrtlib.config import load_profile
from mrtlib.evaluation import sweep
from mrtlib.experiments import pasted
from mrtlib.models.loading import load_base
from mrtlib.models.tokens import load_tokenizer
from mrtlib.plotting.browser import explore_pasted, pasted_page
from mrtlib.prover.prover import Prover
from mrtlib.rollouts import Reader
from mrtlib.tasks.countdown import asked
from mrtlib.tasks.problems import ProblemError, load_problems

PROFILE = load_profile("tiny")
KNOWN = load_problems(PROFILE.problems / "test.jsonl", 20)


@pytest.fixture(scope="module")
def reader():
    return Reader(load_tokenizer(PROFILE), PROFILE.thinking)


@pytest.fixture(scope="module")
def prover():
    return Prover(load_base(PROFILE), load_tokenizer(PROFILE), PROFILE)


@pytest.fixture(scope="module")
def recorded():
    """Return a closed rollout of the base with its J, and its question."""
    tables = sweep.load_tables(sweep.evaluate(PROFILE, "base", 0))
    row = tables["rollouts"].query("correct and episodes > 2").iloc[0]
    of = tables["progress"].query("problem == @row.problem and sample == @row['sample']")
    question = next(p.question for p in load_problems(PROFILE.problems / "test.jsonl")
                    if p.id == row["problem"])  # fmt: skip
    return row, of.sort_values("j")["J"].to_numpy(), question


def test_a_rollout_that_is_pasted_has_its_episodes_its_answer_and_its_J(
    reader, prover, recorded
):  # fmt: skip
    row, J, question = recorded
    for text in (row["text"], "<think>\n" + row["text"]):
        problem = pasted.problem_of(question, "", (), "countdown")
        rollout = pasted.read(problem, text, reader)
        assert rollout.boundaries == list(row["boundaries"]) and rollout.grade.correct
        assert np.allclose(pasted.measured(rollout, prover), J, atol=1e-4)
    view = pasted.view(rollout, reader, J)
    assert view.answer == row["answer"] and "".join(view.episodes) in row["text"]


def test_without_a_model_the_episodes_are_shown_and_no_J(reader, recorded):
    row, _, question = recorded
    read = pasted.PastedReader((), reader, "countdown", load=lambda: pytest.fail("no model"))
    page = pasted_page(read, question, row["text"], "", False)
    assert page.count("<tr") == 2 + row["episodes"]
    assert "nan" not in page and "base64" not in page and "could have stopped" not in page
    assert "pasted trace" in page and "sample" not in page
    seen = pasted.unmeasured(asked(question, "x"), row["text"], reader)
    assert seen.tokens == [0, *row["boundaries"]] and seen.correct


def test_a_text_that_the_tokenizer_cannot_write_is_cut_and_not_measured(reader, prover):
    text = "Über <b>x</b>, let\n\nme see.\n\nHmm.\n\nWait, no \ud800 idea.</think> \\boxed{1}"
    seen = pasted.unmeasured(asked("Reach 3 with 1, 2.", "x"), text, reader)
    assert [e.split()[0] for e in seen.episodes] == ["Über", "Wait,"] and not seen.correct
    assert "\ud800" not in "".join(seen.episodes)
    read = pasted.PastedReader((), reader, "countdown", lambda: prover)
    assert "has no tokens" in pasted_page(read, "Reach 3 with 1, 2.", text, "", True)


def test_the_problem_of_a_question():
    problem = pasted.problem_of(f" {KNOWN[3].question} ", "", KNOWN, "countdown")
    assert problem is KNOWN[3]
    typed = pasted.problem_of("Reach 22 with 3, 5, 7.", "wrong", (), "countdown")
    assert "3 * 5 + 7" in typed.references and typed.target == 22
    other = pasted.problem_of("What is 1 / 2?", "0.5\n\n 1/2 \n0.5\n", KNOWN, "math")
    assert other.references == ("0.5", "1/2") and other.family == "math"
    with pytest.raises(ProblemError, match="needs its question"):
        pasted.problem_of("  ", "1", (), "math")
    with pytest.raises(ProblemError, match="201 characters"):
        pasted.problem_of("What?", "1" * 201, (), "math")


def test_a_question_of_countdown_is_read_within_bounds():
    assert asked("Reach 10 with 1, 2, 3, 4, 5, 6.", "x") is None  # millions of expressions
    assert asked("Reach 10 with 1.", "x") is None and asked("Reach ten with 1, 2.", "x") is None
    assert asked("Reach 3 with 1, 2.", "x").references == ("1 + 2", "2 + 1")


def test_what_is_wrong_with_a_text_is_said(reader, prover):
    def said(question="Reach 22 with 3, 5, 7.", text="First.", answers="", family="countdown"):
        read = pasted.PastedReader((), reader, family, lambda: prover)
        return pasted_page(read, question, text, answers, True)

    assert "needs its question" in said(question="")
    assert "no thinking" in said(text=" <think> ")
    assert "at most 200000" in said(text="x" * 200_001)
    assert "right answers" in said(question="<b>?", family="math")
    assert "context of" in said(text="3 + 5 = 8. " * 1000)


def test_the_model_is_loaded_once_and_only_when_it_is_asked_for(reader, prover, recorded):
    loads = []
    read = pasted.PastedReader(KNOWN, reader, "countdown", lambda: loads.append(1) or prover)
    box = explore_pasted(read)
    question, text, _, measure, button, page = box.children
    question.value, text.value = recorded[2], recorded[0]["text"]
    button.click()
    assert not loads and "base64" not in page.value
    measure.value = True
    button.click()
    button.click()
    assert loads == [1] and "base64" in page.value
    text.value, measure.value = "<script>alert(1)</script>", False
    button.click()
    assert "<script" not in page.value and "&lt;script&gt;" in page.value
