"""The explorer's views over a few hand-made records, and the widgets driven without a browser."""

import matplotlib as mpl

mpl.use("Agg")

from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mrtlib.config import ROOT
from mrtlib.experiments import episode_analysis
from mrtlib.plotting import style, trace, widgets
from mrtlib.plotting.browser import explore_traces
from mrtlib.tasks.problems import Problem

C0 = 40
WORDS = ["First", " tries", ".\n\n", "Wait", ",", " <b>$x", "!", "</think>", " 22"]
PROBLEMS = [Problem("a", "countdown", "three", "Reach 22 & <stop>.", ("22",)),
            Problem("b", "countdown", "three", "Reach 7.", ("7",)),
            Problem("c", "countdown", "three", "Never sampled.", ("1",))]  # fmt: skip


def decode(ids):
    return "".join(WORDS[i] for i in ids)


def rollouts():
    return pd.DataFrame(
        [(m, seed, p, n, list(range(9)), [3, 7], m == "outcome")
         for m, seed in (("base", 0), ("outcome", 0), ("outcome", 1))
         for p in ("a", "b") for n in (0, 1) if (m, p) != ("base", "b")],
        columns=["method", "seed", "problem", "sample", "token_ids", "boundaries", "correct"],
    )  # fmt: skip


def progress():
    rows = [
        (r.method, r.seed, r.problem, r.sample, j, t, kind,
         J + 0.01 * r.seed + 0.1 * r.sample + off)
        for r in rollouts().itertuples()
        for kind, off in (("sampled", 0.05), ("exact", 0.0))
        for j, t, J in ((2, 7, 0.61), (0, 0, 0.1), (1, 3, 0.6))
    ]  # fmt: skip
    names = ["method", "seed", "problem", "sample", "j", "tokens", "estimator", "J"]
    return pd.DataFrame(rows, columns=names)


def results():
    rows = [(m, "all", "all", metric, b, at + 0.001 * b)
            for m, at in (("base", 0.2), ("outcome", 0.4))
            for metric in ("accuracy", "regret") for b in (20, 40, 60)]  # fmt: skip
    rows += [("base", "all", "all", "accuracy", 80, 0.3)]
    table = pd.DataFrame(rows, columns=["method", "seed", "level", "metric", "budget", "estimate"])
    return table.assign(low=table["estimate"] - 0.02, high=table["estimate"] + 0.02)


def view(method="base", problem="a", sample=0, **others):
    return episode_analysis.trace_view(
        rollouts(), progress(), PROBLEMS, method, problem, sample, decode, **others
    )


class Page(HTMLParser):
    """Collects tags and text, and checks that what is opened is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.pictures, self.text = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":  # has no end
            self.pictures.append(dict(attrs)["src"])
        else:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def test_trace_view_gathers_words_and_worth():
    seen = view()
    assert seen.episodes == ["First tries.\n\n", "Wait, <b>$x!"]
    assert (seen.tokens, seen.J, seen.stop_at) == ([0, 3, 7], [0.1, 0.6, 0.61], 1)
    assert seen.progress == pytest.approx([0.5, 0.01])
    assert (seen.question, seen.correct) == ("Reach 22 & <stop>.", False)


def test_trace_view_keeps_characters_that_span_tokens():
    pieces = ["é".encode()[:1], "é".encode()[1:], b"\n\n", b"x", b"y", b"z", b"!"]

    def bytewise(ids):
        return b"".join(pieces[i] for i in ids).decode(errors="replace")

    seen = episode_analysis.trace_view(rollouts(), progress(), PROBLEMS, "base", "a", 0, bytewise)
    assert "".join(seen.episodes) == "é\n\nxyz!"


def test_trace_view_takes_the_seed_and_exact_J():
    assert view("outcome").J[0] == pytest.approx(0.1)
    assert view("outcome", seed=1, sample=1).J[0] == pytest.approx(0.21)
    only = progress()
    only = only[only["estimator"] == "sampled"]
    seen = episode_analysis.trace_view(rollouts(), only, PROBLEMS, "base", "a", 0, decode)
    assert seen.J[0] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"problem": "zz"}, "problem 'zz' is not among the 3"),
        ({"sample": 9}, "no record of method 'base', problem 'a', sample 9"),
        ({"seed": 4}, "seed 4"),
    ],
)
def test_a_trace_that_is_not_there_is_named(choice, words):
    with pytest.raises(ValueError, match=words):
        view(**choice)


def test_J_must_be_recorded_at_every_boundary():
    gap = progress()
    gap = gap[gap["j"] != 1]
    with pytest.raises(ValueError, match="measure progress again"):
        episode_analysis.trace_view(rollouts(), gap, PROBLEMS, "base", "a", 0, decode)


def test_trace_html_escapes_what_others_wrote():
    page = Page(trace.trace_html(view()))
    assert not page.open  # everything closed
    assert "Wait, <b>$x!" in page.text and "Reach 22 & <stop>." in page.text
    assert page.tags.count("b") == 1  # the headline's, not the model's
    assert "stop" not in page.tags and "script" not in page.tags
    assert "0.61" in page.text and "could have stopped" not in page.text, "it was wrong"
    assert page.tags.count("tr") == 1 + 3  # heading, episodes 0 to 2
    (picture,) = page.pictures
    assert b64decode(picture.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not plt.get_fignums()  # or the notebook would show it a second time


def test_a_right_trace_shows_where_it_could_have_stopped():
    page = Page(trace.trace_html(view("outcome")))
    assert "could have stopped here" in page.text
    assert page.tags.count("tr") == 1 + 3 + 1  # and the stop


def test_budget_view_reads_values_off_the_results():
    fig = widgets.budget_view(results(), ["base", "outcome"], 40, C0)
    assert fig.get_figwidth() == style.WIDE and not fig.legends
    said = {t.get_text() for t in fig.axes[0].get_legend().get_texts()}
    assert said == {"base 0.240 [0.220, 0.260]", "outcome RL 0.440 [0.420, 0.460]"}
    fig.draw_without_rendering()
    for ax in fig.axes:
        box = ax.get_legend().get_window_extent()
        assert box.y1 <= fig.bbox.y1 + 1 and box.x1 <= fig.bbox.x1 + 1


def test_budget_view_refuses_what_was_not_measured():
    assert widgets.budgets_of(results()) == [20, 40, 60]  # 80 has no regret
    with pytest.raises(ValueError, match="50 was not evaluated; choose one of"):
        widgets.budget_view(results(), ["base"], 50)
    with pytest.raises(ValueError, match="the chosen methods"):
        widgets.budget_view(results(), [], 40)


def test_explore_traces_follows_the_choices():
    _, _, pages = explore_traces(rollouts(), progress(), PROBLEMS, decode).children
    problem, method, rollout, page = pages.children[0].children
    assert [value for _, value in problem.options] == ["a", "b"]  # c was never sampled
    assert page.value == trace.trace_html(view())
    method.value = "outcome"
    assert len(rollout.options) == 4
    rollout.value = (1, 1)
    assert page.value == trace.trace_html(view("outcome", sample=1, seed=1))
    problem.value = "b"
    assert page.value == trace.trace_html(view("outcome", "b"))
    method.value = "base"
    assert "no rollout" in page.value
    method.value = "outcome"
    assert page.value == trace.trace_html(view("outcome", "b"))


def test_a_search_looks_at_questions_ids_levels_and_outcomes():
    search, _, pages = explore_traces(rollouts(), progress(), PROBLEMS, decode).children
    problem, method, _, page = pages.children[0].children
    method.value = "outcome"

    def offered(words: str) -> list[str]:
        search.value = words
        return [value for _, value in problem.options]

    assert offered("reach 7") == ["b"] and page.value.count("Reach 7.") == 1
    assert offered("REACH three") == ["a", "b"]
    assert offered("right") == ["a", "b"] and offered("wrong") == ["a"]  # the base has no b
    assert offered("seventeen") == [] and "No problem has all these words" in page.value
    assert offered("") == ["a", "b"] and "Reach" in page.value


def test_two_rollouts_can_be_read_side_by_side():
    search, beside, pages = explore_traces(rollouts(), progress(), PROBLEMS, decode).children
    search.value = "stop"
    assert len(pages.children) == 1
    beside.value = True
    first, second = (box.children for box in pages.children)
    second[1].value = "outcome"
    assert first[-1].value == trace.trace_html(view())
    assert second[-1].value == trace.trace_html(view("outcome"))
    beside.value = False
    assert len(pages.children) == 1


def test_a_page_ends_with_the_answer_and_its_grade_and_has_no_empty_lines():
    right = replace(view("outcome"), answer="<b>22</b>", episodes=["a\n\n b", "\n\nc"])
    page = Page(trace.trace_html(right))
    assert "Answer: <b>22</b> (right)" in page.text
    assert "a\n b" in page.text and "\n\n" not in page.text
    for nothing in (None, float("nan")):
        assert "No answer" in Page(trace.trace_html(replace(view(), answer=nothing))).text


def test_choose_redraws_and_shows_texts_as_they_are():
    """What a model wrote is text, whatever it looks like; and nothing is shown by an Output."""
    asked = []

    def show(at: int, name: str) -> str:
        asked.append((at, name))
        return f"<b>{name}</b> {at}"

    box = widgets.choose(show, at=(0, 3), name=["x", "y"])
    at, name, page = box.children
    assert page.value.endswith("&lt;b&gt;x&lt;/b&gt; 0</pre>")
    at.value, name.value = 2, "y"
    assert asked == [(0, "x"), (2, "x"), (2, "y")]
    assert "&lt;b&gt;y&lt;/b&gt; 2" in page.value


def test_choose_shows_tables_and_figures_and_leaves_none_open():
    table = pd.DataFrame({"text": ["<script>"]})
    assert "&lt;script&gt;" in widgets.choose(lambda k: table, k=[1]).children[-1].value
    before = plt.get_fignums()
    page = widgets.choose(lambda k: plt.subplots()[0], k=[1, 2]).children[-1].value
    picture = b64decode(page.partition("base64,")[2].partition('"')[0])
    assert picture.startswith(b"\x89PNG") and plt.get_fignums() == before


def test_no_notebook_uses_an_output_widget():
    """Under plain papermill a figure in one of them hangs the kernel about every second time."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        source = path.read_text(encoding="utf-8")
        assert "interact(" not in source and "ipywidgets" not in source, path.name


def test_explore_traces_needs_something_to_show():
    with pytest.raises(ValueError, match="no rollout belongs"):
        explore_traces(rollouts(), progress(), PROBLEMS[2:], decode)
    with pytest.raises(ValueError, match="empty"):
        explore_traces(rollouts().iloc[:0], progress(), PROBLEMS, decode)


def test_explore_budgets_redraws_and_leaves_no_figure_open():
    box = widgets.explore_budgets(results(), C0)
    budget, methods, note, image = box.children
    assert budget.value == C0 and set(methods.value) == {"base", "outcome"}
    pictures = [bytes(image.value)]
    budget.value = 20
    pictures.append(bytes(image.value))
    methods.value = ("base",)
    pictures.append(bytes(image.value))
    assert len(set(pictures)) == 3 and all(p.startswith(b"\x89PNG") for p in pictures)
    methods.value = ()
    assert bytes(image.value) == pictures[-1] and "Choose one method" in note.value
    methods.value = ("outcome",)
    assert note.value == ""
    assert not plt.get_fignums()
