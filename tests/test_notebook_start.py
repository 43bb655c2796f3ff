"""The first cells of a notebook: wrong parameters are errors, and its answer stands on top."""

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mrtlib.config import ROOT, load_profile
from mrtlib.plotting import notebook
from mrtlib.plotting.notebook import Answer, ParameterError, check_parameters

OWN = 'profile = "tiny"\nseed = 0\nshare = 1.0\ninteractive = True'


def injected(*lines: str) -> list[str]:
    return ["", OWN, "\n".join([notebook.INJECTED, *lines]), "from mrtlib import plotting"]


def test_parameters_that_a_notebook_has_pass():
    check_parameters(["", OWN, "from mrtlib import plotting"])
    check_parameters(injected('profile = "smoke"', "seed = 3", "share = 1", "interactive = False"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("seeed = 3", "no parameter 'seeed'; choose one of profile, seed, share, interactive"),
        ('seed = "x"', "seed = 'x' is of another type than 0"),
        ("seed = True", "seed = True is of another type than 0"),
        ("interactive = 1", "interactive = 1 is of another type than True"),
        ("profile = 7", "profile = 7 is of another type than 'tiny'"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_an_error(line, words):
    with pytest.raises(ParameterError, match=words):
        check_parameters(injected(line))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Run a small notebook by papermill, with an answer that comes late; None where it stops."""

    def run(**parameters):
        folder = tmp_path_factory.mktemp("book")
        first = new_code_cell(OWN.replace("tiny", "smoke"))
        first.metadata.tags = ["parameters"]
        cells = [first, new_code_cell(
            f"import os\nos.environ['MRT_RUNS'] = {str(folder)!r}\n"
            "from mrtlib import plotting\nsettings = plotting.start(profile)\n"
            "answer = plotting.Answer(settings, 'toy')"
        ), new_code_cell("answer.say('**Answer.** 42', 'And more.')")]  # fmt: skip
        book = new_notebook(cells=cells)
        book.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
        nbformat.write(book, folder / "toy.ipynb")
        done = papermill.execute_notebook(folder / "toy.ipynb", None, parameters, cwd=ROOT,
                                          progress_bar=False)  # fmt: skip
        return done, folder

    return run


def test_the_answer_stands_above_the_cells_that_compute_it(executed):
    book, folder = executed(seed=1)
    shown = [cell for cell in book.cells if "plotting.Answer" in cell.source][0].outputs
    assert [out.data["text/markdown"] for out in shown] == ["**Answer.** 42\n\nAnd more."]
    record = folder / "smoke" / "conclusions" / "toy.md"
    assert record.read_text() == "**Answer.** 42\n\nAnd more.\n"


def test_papermill_stops_at_a_name_that_the_notebook_does_not_have(executed):
    with pytest.raises(papermill.PapermillExecutionError, match="no parameter 'sed'"):
        executed(sed=1)


def test_the_answer_of_the_last_run_is_shown_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    smoke = load_profile("smoke")
    assert not Answer(smoke, "toy").file.exists()
    Answer(smoke, "toy").say("It is 42.")
    shown = []
    monkeypatch.setattr(notebook, "display", lambda what, **_: shown.append(what.data))
    Answer(smoke, "toy")
    assert shown == ["It is 42.\n"]
