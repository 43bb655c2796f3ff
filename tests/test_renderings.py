"""Ways to write a right answer: each is accepted by the grader, and exact J adds them up."""

import pandas as pd
import pytest
from own_model import write_all

from mrtlib.config import load_profile
from mrtlib.experiments import information_gain as gain
from mrtlib.models.loading import load_base
from mrtlib.models.sampling import Sample
from mrtlib.models.tokens import load_tokenizer, prompt_ids
from mrtlib.prover.prover import Prover
from mrtlib.tasks.grading import grade, right_texts
from mrtlib.tasks.math.renderings import MOST, renderings
from mrtlib.tasks.problems import Problem


def problem(*references: str, family: str = "math") -> Problem:
    return Problem("p", family, "x", "What?", references)


@pytest.mark.parametrize(
    ("answer", "others"),
    [
        ("7", set()),
        ("1200", {"1,200", "1{,}200", "1\\,200"}),
        ("1,234,567", {"1234567", "1{,}234{,}567"}),
        ("-1200", {"-1,200"}),
        ("0.5", {".5", "1/2", "\\frac{1}{2}", "\\dfrac{1}{2}"}),
        ("\\frac{1}{2}", {"0.5", "1/2"}),
        ("\\frac12", {"0.5", "1/2", "\\frac{1}{2}"}),
        ("-3/4", {"-0.75", "-\\frac{3}{4}"}),
        ("2/6", {"\\frac{2}{6}", "1/3", "\\frac{1}{3}"}),
        ("\\frac{1}{3}", {"1/3", "\\dfrac{1}{3}"}),
        ("2.0", {"2"}),
        ("90^\\circ", {"90", "90^{\\circ}", "90°"}),
        ("5 \\text{ cm}", {"5", "5\\text{ cm}", "5 cm"}),
        ("(1,2)", {"(1, 2)"}),
        ("\\{1, 2, 3\\}", {"\\{1,2,3\\}"}),
        ("\\left(0,\\frac{1}{2}\\right]", {"(0, \\frac{1}{2}]"}),
        ("[0, 1)", {"[0,1)"}),
        ("\\sqrt{2}", set()),
        ("\\text{east}", set()),
        ("1/0", set()),
        ("", set()),
    ],
)
def test_the_usual_ways_to_write_an_answer(answer, others):
    found = renderings(answer)
    assert found[0] == answer and others <= set(found[1:])
    assert len(found) == len(set(found)) <= MOST
    if not others:
        assert found == (answer,)
    for text in found[1:]:
        assert grade(problem(answer), f"\\boxed{{{text}}}").correct


@pytest.mark.parametrize(("answer", "never"), [
    ("1/3", "0.333333"), ("1,2", "12"), ("(1,200)", "(1200)"), ("12345", "12,345,0"),
    ("0.1234567", "0.123457"),
])  # fmt: skip
def test_no_other_value_is_among_them(answer, never):
    assert never not in renderings(answer)


def test_the_texts_of_a_problem_are_all_once_and_those_of_countdown_as_they_are():
    assert right_texts(problem("0.5", "1/2"))[:2] == ("0.5", ".5")
    assert len(set(right_texts(problem("0.5", "1/2")))) == len(right_texts(problem("0.5", "1/2")))
    assert right_texts(problem("3 * 5", "0.5", family="countdown")) == ("3 * 5", "0.5")


def test_exact_J_adds_the_ways_up(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path / "runs"))
    profile = load_profile(str(write_all(tmp_path)))
    tokenizer = load_tokenizer(profile)
    prover = Prover(load_base(profile), tokenizer, profile)
    prompt = prompt_ids(tokenizer, "What?", profile.thinking)
    sample = Sample(tokenizer.encode("Hm."), [0.0] * len(tokenizer.encode("Hm.")), False)

    def J(one: Problem) -> float:
        return float(prover.exact([prover.reader.read(one, prompt, sample)])[0][-1])

    texts = right_texts(problem("0.5"))
    single = [J(problem(text, family="countdown")) for text in texts]  # that text alone
    assert len(single) == 5 and min(single) > 0
    assert J(problem("0.5")) == pytest.approx(sum(single), rel=1e-4)


def test_coverage_is_the_share_of_right_answers_that_are_scored():
    one = {"p": problem("0.5")}
    rows = [("p", ".5", True), ("p", "\\frac{2}{4}", True), ("p", "0.7", False)]
    answers = pd.DataFrame(rows, columns=["problem", "answer", "correct"])
    assert "scores 0.50 [" in gain.coverage_in_words(answers, one)
    assert "No sampled answer is right" in gain.coverage_in_words(answers.iloc[2:], one)
