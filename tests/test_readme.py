"""What the README shows is what is committed: its table, its figures, its notebooks."""

import re
import subprocess
import textwrap

import numpy as np
import pandas as pd
import pytest

from mrtlib.batch import numbered, profile_of
from mrtlib.config import ROOT, load_profile
from mrtlib.evaluation.tables import results_markdown
from mrtlib.experiments import backtracking, scale, verdicts
from mrtlib.experiments.benchmark import markdown
from mrtlib.experiments.claims import checked
from mrtlib.plotting.gallery import CAPTIONS, NARROW
from mrtlib.schemas import SCHEMAS
from mrtlib.store import read_csv

README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = load_profile("tiny")
PAGES = ("README.md", "CONTRIBUTING.md", "data/problems/README.md", "data/reasoner/README.md",
         "data/backtracker/README.md")  # fmt: skip


def test_its_table_is_the_committed_results():
    table = pd.read_csv(ROOT / "data" / "runs" / "tiny" / "results.csv")
    assert results_markdown(table, TINY.thinking.budget) in README


def test_its_benchmark_is_the_committed_one():
    table = pd.read_csv(ROOT / "data" / "runs" / "tiny" / "bench.csv")
    assert markdown(table) in README


def test_its_claims_are_the_committed_ones():
    table = read_csv(ROOT / "data" / "runs" / "study" / "claims.csv")
    assert verdicts.markdown(verdicts.without_short(table)) in README


def written_intervals(text: str) -> list[tuple[str, ...]]:
    """Return (estimate, low, high) as they stand in a text, code left out."""
    number = r"[+-]?\d+(?:\.\d+)?"
    words = r"(?: ?%)?(?: [A-Za-z][\w/ ]{0,40})?"
    form = rf"(?<![\w.,])({number}){words} \[({number})(?: %)?, ({number})(?: %)?\]"
    plain = re.sub(r"```.*?```", "", text, flags=re.S).replace("−", "-").replace("**", "")
    return re.findall(form, " ".join(plain.split()))


def intervals_on_record() -> np.ndarray:
    """Return (N, 3) estimate, low, high of every committed table that has intervals.

    As a text may give them: shares or points, a difference as less or as more.
    """
    folders = (ROOT / "data" / "runs", ROOT / "figures")
    found = [read_csv(path) for folder in folders for path in sorted(folder.rglob("*.csv"))]
    found.append(backtracking.warm_start_accuracy(load_profile("backtrack")))
    rows = []
    for table in found:
        for low in [name for name in table if name == "low" or name.endswith("_low")]:
            stem = low.removesuffix("low")
            ends = table[[low, stem + "high"]].to_numpy(float)
            names = [stem + "gap"] if stem else table.select_dtypes(float).columns
            rows += [np.column_stack([table[name], ends]) for name in names if name in table]
    both = np.concatenate([*rows, *(-row[:, [0, 2, 1]] for row in rows)])
    return np.concatenate([both, 100 * both])


def is_on_record(written: tuple[str, ...], record: np.ndarray) -> bool:
    """Say whether some row is rounded to these numbers."""
    digits = [len(text.partition(".")[2]) for text in written]
    near = 0.5 * 10.0 ** -np.array(digits) * (1 + 1e-6)
    return bool((np.abs(record - np.array(written, dtype=float)) <= near).all(axis=1).any())


def test_its_intervals_are_on_record():
    """Every interval that the text quotes is a row of a committed table, rounded."""
    record, quoted = intervals_on_record(), written_intervals(README)
    assert len(quoted) > 150
    assert [row for row in quoted if not is_on_record(row, record)] == []
    wrong = [(mean, low, f"{float(high) + 7:.{len(high.partition('.')[2])}f}")
             for mean, low, high in quoted]  # fmt: skip
    assert np.mean([is_on_record(row, record) for row in wrong]) < 0.1  # it can fail


def test_its_table_of_a_large_model_is_the_committed_one():
    assert scale.markdown(read_csv(ROOT / "data" / "runs" / "tiny" / "scale.csv")) in README


def test_it_lists_the_notebooks_and_the_figures_that_are_there():
    row = r"^\| \[(\w+)\]\(notebooks/\1\.ipynb\) \| \[results\]\(data/runs/(\w+)/\1\.ipynb\) \|"
    rows = re.findall(row, README, flags=re.M)
    assert rows == [(path.stem, profile_of(path, TINY).name) for path in numbered()]
    section = README.partition("## The notebooks")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    for kind in ("pdf", "png", "csv"):
        found = {path.stem for path in (ROOT / "figures").glob(f"*.{kind}")}
        assert {stem.removesuffix(NARROW) for stem in found} == set(CAPTIONS)
        assert named == {*CAPTIONS, NARROW}
    page = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", page, flags=re.M) == list(CAPTIONS)


def test_its_example_of_a_profile_is_read(tmp_path):
    lines = README.partition('    base = "r1-distill-1.5b"')
    example = textwrap.dedent("".join(lines[1:])).partition("\nExamples:")[0]
    (tmp_path / "mine.toml").write_text(example, encoding="utf-8")
    profile = load_profile(str(tmp_path / "mine.toml"))
    assert profile.name == "mine" and profile.problems.name == "my-problems"
    assert profile.evaluation.budgets[-1] == profile.thinking.budget == 4096


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^):]+)\)", text)
    heads = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-")
             for head in re.findall(r"^#+ (.+)$", text, flags=re.M)}  # fmt: skip
    assert {link[1:] for link in found if link.startswith("#")} <= heads
    links = [(ROOT / page).parent / link for link in found if not link.startswith("#")]
    named = [ROOT / path for path in re.findall(r"`((?:mrtlib|tests|data)/[\w/-]+\.\w+)`", text)]
    assert [path for path in links + named if not path.exists()] == []


def test_claims_of_the_notebooks_are_short_enough_to_be_shown_whole():
    tables = sorted((ROOT / "data" / "runs").glob("*/claims/*.csv"))
    claims = pd.concat([read_csv(path) for path in tables])["claim"]
    assert len(tables) >= 7 and [claim for claim in claims if len(claim) > 50] == []


def test_every_column_of_the_records_is_explained():
    text = (ROOT / "data" / "runs" / "README.md").read_text(encoding="utf-8")
    general, *sections = text.split("\n## ")
    told = {section.split("`")[1]: section for section in sections}
    claimed = told.pop("claims/NOTEBOOK.csv")
    assert all(f"`{column}`" in claimed for column in checked([]))
    tables = told.pop("*.csv")
    for name in ("study/results.csv", "study/claims.csv", "study/expectations.csv",
                 "tiny/coverage.csv", "tiny/tuning.csv"):  # fmt: skip
        columns = read_csv(ROOT / "data" / "runs" / name).columns
        missing = [column for column in columns if f"`{column}`" not in tables + general]
        assert not missing, (name, missing)
    assert told.keys() == SCHEMAS.keys()
    for name, columns in SCHEMAS.items():
        for column in columns.names:
            assert f"`{column}`" in told[name] + general, (name, column)


def test_the_repository_stays_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 120e6
