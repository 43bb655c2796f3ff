"""The notebooks keep their form, and all of them run, in order, from what is committed."""

import ast
import io
import json
import re
import sys
from dataclasses import replace

import nbformat
import pandas as pd
import pytest

from mrtlib import batch
from mrtlib.config import PROFILES, ROOT, load_profile
from mrtlib.evaluation.results import COLUMNS

BOOKS = batch.numbered()
TINY, SMOKE = load_profile("tiny"), load_profile("smoke")
SMOKED = [path for path in BOOKS if batch.profile_of(path, SMOKE)]


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def faults(book) -> list[str]:
    """Return what is wrong with a notebook's source."""
    cells, found = code_cells(book), []
    for cell in cells:
        lines, tree = cell.source.splitlines(), ast.parse(cell.source)
        long = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
                and n.end_lineno - n.lineno >= 5]  # fmt: skip
        checks = {
            "more than 15 lines": len(lines) > 15,
            "a line over 100 characters": any(len(line) > 100 for line in lines),
            "a function over 5 lines": bool(long),
            "a class": any(isinstance(n, ast.ClassDef) for n in ast.walk(tree)),
            "outputs": bool(cell.outputs) or cell.execution_count is not None,
        }
        found += [f"{cell.id}: {name}" for name, wrong in checks.items() if wrong]
    if not any("claims.report(" in cell.source or "assert " in cell.source for cell in cells[-2:]):
        found.append("it claims nothing at its end")
    if not book.cells[0].source.startswith("# ") or "Question" not in book.cells[0].source:
        found.append("no title with the question at the top")
    return found


def noise(book) -> list[str]:
    """Return the numbers shown that are 0 but for rounding, which no two processors do alike."""
    outputs = [output for cell in code_cells(book) for output in cell.outputs]
    texts = [text for output in outputs for text in (output.get("text"), *(
        output.get("data", {}).get(kind) for kind in ("text/plain", "text/markdown")
    )) if text]  # fmt: skip
    signed, tiny = r"(?<!\w)[-\u2212]0(?:\.0*)?(?![\d.])", r"\d(?:\.\d+)?e-[1-9]\d"
    return re.findall(f"{signed}|{tiny}", "\n".join(texts))


def cut_short(book) -> list[str]:
    """Return the cells that show a table of which rows are left out."""
    return [cell.id for cell in code_cells(book) for output in cell.outputs
            if re.search(r"\d rows [x\u00d7] \d", output.get("data", {}).get("text/html", ""))]


def parameters(book) -> dict:
    """Return the parameters of a notebook: plain literals of the one cell with the tag."""
    (cell,) = [c for c in book.cells if "parameters" in c.metadata.get("tags", [])]
    body = ast.parse(cell.source).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body}


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_form(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert faults(book) == []
    assert book.metadata.kernelspec.name == "python3"
    assert "widgets" not in book.metadata
    assert len({cell.id for cell in book.cells}) == len(book.cells)
    given = parameters(book)
    assert given["profile"] == batch.profile_of(path, TINY).name
    assert given["interactive"] is True
    assert given["seed"] == 0


def test_the_form_check_can_fail():
    long = "def f():\n" + "    x = 1\n" * 5
    cell = nbformat.v4.new_code_cell(long + "class A: pass\n" * 10 + "y = " + "1" * 100)
    cell.execution_count = 1
    found = " ".join(faults(nbformat.v4.new_notebook(cells=[cell])))
    for fault in ("15 lines", "100 characters", "5 lines", "class", "outputs", "claims", "title"):
        assert fault in found


def test_committed_copies_show_no_noise_and_whole_tables():
    for path in BOOKS:
        folder = ROOT / "data" / "runs" / batch.profile_of(path, TINY).name
        copy = nbformat.read(folder / path.name, as_version=4)
        assert noise(copy) == [], path.stem
        assert cut_short(copy) == [], path.stem


def test_a_table_that_is_cut_short_is_seen():
    for rows, expected in ((60, []), (61, ["cell"])):
        html = pd.DataFrame({"x": range(rows)})._repr_html_()
        shown = nbformat.v4.new_output("display_data", {"text/html": html})
        cell = nbformat.v4.new_code_cell(outputs=[shown], id="cell")
        assert cut_short(nbformat.v4.new_notebook(cells=[cell])) == expected


def test_noise_is_seen():
    shown = nbformat.v4.new_output("stream", text="3e-16, -0.0% [\u22120.00, 0.1], -0.01, 1e-09")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[shown])])
    assert noise(book) == ["3e-16", "-0.0", "\u22120.00"]


def test_numbers_are_in_order():
    assert [int(path.stem[:2]) for path in BOOKS] == list(range(len(BOOKS)))


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """All notebooks run in the profile smoke, in a folder of their own; and what was said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRT_RUNS", str(tmp_path_factory.mktemp("runs")))
        profile, out = SMOKE, io.StringIO()
        copies = batch.reproduce(profile, seed=0, seeds=1, out=out)
        yield profile, copies, out.getvalue(), batch.summary(profile), profile.runs


def test_every_notebook_runs(reproduced):
    _, copies, said, _, runs = reproduced
    assert [path.name for path in copies] == [path.name for path in SMOKED]
    assert f"{BOOKS[-1].stem}: left out" in said  # a study takes hours: what is on record is read
    for path in copies:
        assert path.parent == runs.parent / batch.profile_of(path, SMOKE).name
        text, book = path.read_text(encoding="utf-8"), nbformat.read(path, as_version=4)
        assert f"{path.stem}: started" in said and f"{path.stem}: done in" in said
        assert any(cell.outputs for cell in code_cells(book))
        assert noise(book) == []
        assert not {"widgets", "papermill"} & set(book.metadata)
        assert "version" not in book.metadata.language_info  # of the Python that ran it
        assert "injected-parameters" in [cell.id for cell in book.cells]
        for cell in code_cells(book):
            if "plotting.keep" in cell.source or "budget_view(" in cell.source:
                shown = [o for o in cell.outputs if "image/png" in o.get("data", {})]
                assert shown, f"{path.stem}: nothing to see below {cell.source!r}"
        for local in (str(ROOT), str(runs.parent), sys.prefix):
            assert local not in text
    assert "outcome, seed 0: step 1, " in said
    assert "%|" not in said  # no progress bars


def test_what_a_run_leaves(reproduced):
    profile, _, _, said, runs = reproduced
    told = pd.concat(pd.read_csv(path) for path in sorted(runs.glob("claims/*.csv")))
    broken = told[~told["holds"] & (told["about"] == "code")]
    assert broken.empty and told["claim"].nunique() > 20
    table = pd.read_csv(runs / "results.csv")
    c0 = profile.thinking.budget
    assert tuple(table.columns) == COLUMNS
    assert set(table["method"]) == {"base", *profile.training.methods}
    rows = table[table["metric"].isin(["accuracy", "regret"]) & (table["seed"] == "all")]
    assert rows["estimate"].between(0, 1).all()
    assert set(rows["budget"]) > {c0 // 2, c0}
    removed = pd.read_csv(runs / "regret_removed.csv")
    assert set(removed["method"]) == set(profile.training.methods) - {"outcome"}
    assert (removed["low"] <= removed["high"]).all()
    record = json.loads((runs / "manifest.json").read_text(encoding="utf-8"))
    assert record["seeds"] == [0] and record["config"]["name"] == "smoke"
    assert {"results.csv", "data/problems/test.jsonl"} <= set(record["hashes"])
    assert not any(name.endswith(".md") for name in record["hashes"])
    for stem in ("learning_curves", "accuracy_by_budget", "regret_by_budget", "headline",
                 "results_table"):  # fmt: skip
        for kind in ("pdf", "png", "csv"):
            assert (profile.figures / f"{stem}.{kind}").stat().st_size
        assert f"{stem}.pdf" in said
    for name in ("reasoner_card", "waste", "estimator_errors", "results", "regret_removed",
                 "tokens_at_equal_accuracy"):  # fmt: skip
        assert r"\bottomrule" in (runs / "tables" / f"{name}.tex").read_text(encoding="utf-8")
    assert "outcome RL" in said
    equal = pd.read_csv(runs / "tokens_used_at_equal_accuracy.csv")
    methods = said.partition("Backtracking search")[0]
    assert methods.count("`outcome`") == len(removed) + len(equal)


def test_the_study_is_read_from_its_committed_records(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    study, out = load_profile("study"), io.StringIO()
    book = batch.execute(BOOKS[-1], {"profile": "study", "interactive": False}, out, study.runs)
    assert "**Answer.**" in nbformat.writes(book)
    assert noise(book) == []


def test_what_a_notebook_with_its_own_profile_leaves(reproduced):
    *_, said, runs = reproduced
    own = runs.parent / "backtrack-smoke"
    record = json.loads((own / "manifest.json").read_text(encoding="utf-8"))
    assert record["config"]["name"] == "backtrack-smoke" and record["seeds"] == [0]
    hashes = set(record["hashes"])
    assert {"votes_at_equal_tokens.csv", "data/backtracker/warm/model.safetensors"} <= hashes
    for stem in ("warm_start_loss", "search_curves", "backtrack_progress", "votes_by_tokens"):
        for kind in ("pdf", "png", "csv"):
            assert (own / "figures" / f"{stem}.{kind}").stat().st_size
        assert f"{stem}.pdf" in said
    gaps = pd.read_csv(own / "progress_differences.csv")
    assert said.count("a backtrack of `") == len(gaps)
    streams = pd.concat(map(pd.read_parquet, own.glob("linearised/*/*.parquet")))
    assert streams.groupby(["method", "way"]).ngroups == 2 * 5


def test_a_profile_runs_the_notebooks_that_are_about_its_runs(tmp_path, monkeypatch):
    for name in PROFILES:
        profile = load_profile(name)
        found = {path.stem: own and own.name for path in BOOKS
                 for own in [batch.profile_of(path, profile)]}  # fmt: skip
        own = [stem for stem, names in batch.OWN.items() if name in names.values()]
        for stem, ran_with in found.items():
            if own:
                assert ran_with == (name if stem in own else None)
            else:
                assert ran_with == batch.OWN.get(stem, {name: name}).get(name)
    own = next(i for i, path in enumerate(BOOKS) if path.stem in batch.OWN)
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("MRT_RUNS", str(tmp_path / "runs"))
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / BOOKS[own].name)
    out = io.StringIO()
    assert batch.reproduce(load_profile("r1-distill-1.5b"), 0, 1, out) == []
    assert "left out, as it is about other runs than 'r1-distill-1.5b'" in out.getvalue()


def test_seeds_on_record_are_those_of_a_finished_run_with_the_same_settings(reproduced):
    profile, *_, runs = reproduced
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRT_RUNS", str(runs.parent))
        assert batch.seeds_on_record(profile, 0) == 1
        assert batch.seeds_on_record(profile, 1) == 0  # of another first seed
        other = replace(profile, prover=replace(profile.prover, temperature=0.9))
        assert batch.seeds_on_record(other, 0) == 0
        patch.setenv("MRT_RUNS", str(runs / "nowhere"))
        assert batch.seeds_on_record(profile, 0) == 0


def test_a_notebook_that_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("MRT_RUNS", str(tmp_path / "runs"))
    cell = nbformat.v4.new_code_cell("print('on the way')\nraise ValueError('no disk')")
    book = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": {
        "name": "python3", "display_name": "Python 3", "language": "python"}})  # fmt: skip
    nbformat.write(book, tmp_path / "00_broken.ipynb")
    out = io.StringIO()
    with pytest.raises(batch.BatchError, match="00_broken stopped.*ValueError: no disk"):
        batch.reproduce(load_profile("smoke"), 0, 1, out)
    assert "00 | on the way" in out.getvalue()
    trouble = tmp_path / "runs" / "smoke" / "00_broken.error.txt"
    assert "no disk" in trouble.read_text(encoding="utf-8")
    assert not (tmp_path / "runs" / "smoke" / "00_broken.ipynb").exists()


def test_a_cell_that_hangs_is_stopped(tmp_path):
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("while True:\n    pass")],
        metadata={"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}},
    )
    nbformat.write(book, tmp_path / "00_endless.ipynb")
    with pytest.raises(batch.BatchError, match="00_endless was stopped.*more than 0.001 h.*--cell"):
        batch.execute(tmp_path / "00_endless.ipynb", {}, io.StringIO(), tmp_path, 0.001)


def test_a_copy_holds_nothing_of_the_hour():
    """What a loop says of its pace, and a library's notices, differ from run to run."""
    def stream(text: str, name: str = "stdout"):
        return nbformat.v4.new_output("stream", name=name, text=text)

    cells = [nbformat.v4.new_code_cell(outputs=[
        stream("found 3\nmeasures: 16 of 21, 18 s left\nand 4\n"),
        stream("records: 3 of 9, 20 s left\n"), stream("a notice\n", "stderr"),
    ])]  # fmt: skip
    book = batch.cleaned(nbformat.v4.new_notebook(cells=cells), {})
    assert [out.text for out in book.cells[0].outputs] == ["found 3\nand 4\n"]
