"""Ten thousand outputs and files that nobody meant well: no exception, and each within its bound.

The inputs are generated (Hypothesis) from the same seed each time: pieces of LaTeX, HTML, JSON,
think tags, control characters and text of any script, in any order.
"""

import json
import re
import resource
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrtlib.config import load_profile
from mrtlib.evaluation import latex
from mrtlib.experiments.episode_analysis import trace_view
from mrtlib.models.sampling import Sample
from mrtlib.plotting import trace
from mrtlib.plotting.trace import trace_html
from mrtlib.plotting.widgets import as_html
from mrtlib.rollouts import Reader
from mrtlib.store import read_csv, read_table, write_csv, write_table
from mrtlib.tasks.grading import candidates, grade
from mrtlib.tasks.problems import MAX_ANSWER, Problem, ProblemError, load_problems

PIECES = (
    "\\boxed{", "}", "{", "\\boxed", "\\frac{", "\\sqrt[", "\\text{", "^", "_", "\\left(",
    "\\right)", "\\begin{pmatrix}", "&", "\\\\", "(", ")", "+", "-", "*", "/", "!",
    "10^{10^{10}}", "9" * 50,
    "0.1(6)", "½", "−", "√", "≤", "x", "\\pi", "1,200", "50\\%", "{,}", "5, 7", "\\infty",
    "<think>", "</think>", "<|end|>", "<script>alert(1)</script>", "<img src=x onerror=y>", "&amp;",
    "\n\n", "Wait", "But wait,", "Alternatively", "\u2028", "\u0000", "\ud7ff", "\u202e", "\ufeff",
    "e\u0301" * 20, "𝟙", "🙂", "ا", "%s", "{0}", "${HOME}", "__import__('os')", "'; DROP",
    "\x1b[31m", "NaN", "null", "true", "1e999", "0x1F", " " * 30,
)  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=25).map("".join)
PROBLEMS = (
    Problem("c", "countdown", "three", "Reach 22 with 3, 5, 7.", ("3 * 5 + 7",), (3, 5, 7), 22),
    Problem("m", "math", "easy", "What is a half?", ("\\frac{1}{2}",)),
    Problem("w", "math", "easy", "Where?", ("(-\\infty, 3)", "\\text{east}")),
)
OURS = {"div", "p", "b", "table", "tr", "th", "td", "img"}  # tags of a trace's page
SECONDS = 3.0  # for one input, on a slow machine beside other work
MEMORY = 256 * 1024  # KiB that the process may grow by over one input


def many(count: int):
    """Return the settings of a test with so many inputs, the same ones each time."""
    return settings(max_examples=count, derandomize=True, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck))  # fmt: skip


def bounded(work, *arguments):
    """Call and return; fail where it takes more time or memory than it may."""
    began, held = time.process_time(), most_held()
    result = work(*arguments)
    assert time.process_time() - began < SECONDS
    assert most_held() - held < MEMORY
    return result


def most_held() -> int:
    """Return the most KiB that this process has held at once so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_the_bound_of_memory_can_fail():
    with pytest.raises(AssertionError):  # more than has ever been held
        bounded(bytearray, 1024 * (most_held() + 2 * MEMORY))


@many(4500)
@given(st.sampled_from(PROBLEMS), TEXTS, st.booleans())
def test_any_output_is_graded(problem, text, boxed):
    result = bounded(grade, problem, f"\\boxed{{{text}}}" if boxed else text)
    assert result.answer is None or len(result.answer) <= MAX_ANSWER
    assert (result.answer is None) == (result.reason == "unboxed")


@many(500)
@given(st.sampled_from(["countdown", "math"]), st.lists(st.one_of(st.none(), TEXTS), max_size=6))
def test_any_answers_are_put_to_a_vote(family, answers):
    keys = bounded(candidates, answers, family)
    assert len(keys) == len(answers)
    assert all(key is None for key, answer in zip(keys, answers, strict=True) if answer is None)
    if family == "math":
        assert keys == candidates(answers, family)


@pytest.fixture(scope="module")
def reader(toy_tokenizer) -> Reader:
    return Reader(toy_tokenizer, load_profile("tiny").thinking)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hostile")


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag, attrs) -> None:
        self.found[tag] += 1
        assert not any(name.startswith("on") for name, _ in attrs)


def tags_of(page: str) -> Counter[str]:
    parser = Tags()
    parser.feed(page)
    return parser.found


@many(2000)
@given(ids=st.lists(st.integers(0, 167), max_size=120), start=st.booleans())
def test_any_tokens_are_read_shown_and_kept(ids, start, reader, folder):
    """From tokens to a rollout, its record, and back from the disk."""
    sample = Sample(ids, [-1.0] * len(ids), bool(start))
    rollout = bounded(reader.read, PROBLEMS[0], [1, 2], sample)
    ends = [0, *rollout.boundaries]
    assert ends == sorted(set(ends)) and ends[-1] == rollout.trace_tokens
    row = reader.row(rollout, "base", 0, 0)
    if len(ids) % 20 == 0:  # the disk is slower than the rest together
        write_table(folder / "t.parquet", "rollouts", [row])
        back = read_table(folder / "t.parquet", "rollouts")
        assert back["text"].tolist() == [row["text"]]


@pytest.fixture(scope="module")
def undrawn():
    """The curve beside a trace, which holds no words, is not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        figure = plt.figure()
        patch.setattr(trace, "panels", lambda *_, **__: (figure.gca(),))
        patch.setattr(trace, "_curve", lambda *_: None)
        patch.setattr(trace, "render", lambda *_, **__: b"")
        yield


@many(1000)
@given(words=st.lists(TEXTS, min_size=1, max_size=6), question=TEXTS)
def test_any_trace_is_shown_as_text(words, question, undrawn):
    """Whatever a model or a problem says, the page has the tags of our own and no others."""
    pieces = [*words, "</think>"]
    ids = list(range(len(pieces)))
    rollouts = pd.DataFrame([{
        "method": "base", "seed": 0, "problem": "p", "sample": 0, "token_ids": ids,
        "boundaries": [len(words)], "correct": False, "answer": question,
    }])  # fmt: skip
    progress = pd.DataFrame([
        {"method": "base", "seed": 0, "problem": "p", "sample": 0, "j": j, "tokens": t,
         "kind": "forced", "estimator": "exact", "J": 0.5 * j}
        for j, t in enumerate((0, len(words)))
    ])  # fmt: skip
    problem = Problem("p", "math", "easy", question or "?", ("1",))
    view = trace_view(rollouts, progress, [problem], "base", "p", 0,
                      lambda some: "".join(pieces[i] for i in some))  # fmt: skip
    found = tags_of(bounded(trace_html, view))
    assert found.keys() <= OURS and found["img"] == found["b"] == 1
    assert tags_of(as_html("".join(words))) == {"pre": 1}
    assert not {"script", "img", "b"} & tags_of(as_html(pd.DataFrame({"t": words}))).keys()


@many(500)
@given(words=st.lists(TEXTS, min_size=1, max_size=4))
def test_any_text_is_exported(words, folder):
    write_csv(folder / "t.csv", pd.DataFrame({"text": words}))
    assert len(read_csv(folder / "t.csv")) == len(words)
    for word in words:
        cell = re.sub(r"\$(-|J|K|C_0)\$", "", latex._cell(word))  # symbols of our own
        assert not re.search(r"(?<!\\)[%#$&_]", cell)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
RECORD = {"id": "a", "family": "math", "level": "easy", "question": "?", "references": ["1"]}
LINES = st.one_of(
    st.binary(max_size=60),
    TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.tuples(st.sampled_from([*RECORD, "numbers", "target", "more"]), VALUES).map(
        lambda change: json.dumps(RECORD | dict([change])).encode()
    ),
)


@many(1500)
@given(lines=st.lists(LINES, max_size=4))
def test_any_file_is_problems_or_one_clear_error(lines, folder):
    path = folder / "problems.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        problems = bounded(load_problems, path)
    except ProblemError as error:
        assert len(str(error)) < 10_000
    else:
        assert problems and all(isinstance(text, str) for p in problems for text in p.references)


UNPICKLING = re.compile(
    r"\b(?:import (?:pickle|dill|cloudpickle|joblib|shelve|marshal)|pickle\.loads?|read_pickle"
    r"|allow_pickle\s*=\s*True|weights_only\s*=\s*False|trust_remote_code\s*=\s*True"
    r"|(?<!\.)eval\(|\bexec\()"
)


def test_nothing_is_unpickled_or_evaluated():
    root = Path(__file__).parents[1]
    for path in [*root.glob("mrtlib/**/*.py"), *root.glob("notebooks/*.ipynb")]:
        assert not UNPICKLING.search(path.read_text(encoding="utf-8")), path.name


def test_the_search_for_unpickling_can_fail():
    for line in ("import pickle", "torch.load(f, weights_only=False)", "pd.read_pickle(x)",
                 "np.load(f, allow_pickle=True)", "eval(answer)"):  # fmt: skip
        assert UNPICKLING.search(line)
