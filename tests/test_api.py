"""The names of `import mrtlib`: an example of each that runs; light to import; installable."""

import ast
import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import mrtlib
from mrtlib import batch
from mrtlib.config import ROOT
from mrtlib.models.quantization import ModelError
from mrtlib.models.tokens import load_tokenizer

PACKAGE = Path(mrtlib.__file__).parent
HEAVY = {"torch", "transformers", "numpy", "pandas", "matplotlib"}


def failures(text: str, name: str) -> str:
    """Run the examples of a text, each told from its output by `>>>`; return what fails."""
    said = []
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert any(name in example.source for example in test.examples), f"no example of {name}"
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    return "".join(said)


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run a fresh interpreter."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder for what examples write, instead of the repository's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRT_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.mark.parametrize("name", mrtlib.__all__)
def test_every_name_has_an_example_that_holds(name, runs):
    assert failures(getattr(mrtlib, name).__doc__, name) == ""


def test_an_example_can_fail():
    assert "Got:\n    3" in failures(">>> len('abc')\n4\n", "len")
    with pytest.raises(AssertionError, match="no example of len"):
        failures("It has none.", "len")


def test_the_readme_s_session_holds(monkeypatch):
    monkeypatch.delenv("MRT_RUNS", raising=False)  # it reads what is committed
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## In a notebook\n")[2]
    session = section.partition("```pycon\n")[2].partition("```")[0]
    assert failures(session, "mrtlib") == ""


def test_every_name_is_what_its_home_calls_so():
    shown = {
        alias.name: node.module
        for node in ast.walk(ast.parse(Path(mrtlib.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mrtlib.")
        for alias in node.names
    }
    assert shown == {name: f"mrtlib.{home}" for name, home in mrtlib.HOMES.items()}
    for name in mrtlib.__all__:
        assert getattr(mrtlib, name) is getattr(importlib.import_module(shown[name]), name)
    assert dir(mrtlib) == sorted(mrtlib.__all__)
    with pytest.raises(AttributeError, match="'mrtlib' has no attribute 'bootstrap'"):
        mrtlib.bootstrap  # noqa: B018


def test_rooms_and_names_do_not_collide():
    rooms = {path.stem for path in PACKAGE.iterdir()}
    assert not rooms & set(mrtlib.__all__)
    script = "from mrtlib import stats, tasks, two_way; print(stats.two_way is two_way, tasks)"
    assert python("-c", script, cwd=PACKAGE.parent).stdout.startswith("True <module 'mrtlib.tasks'")


def heavy(script: str) -> set[str]:
    """Return the heavy libraries that a script loads."""
    done = python("-c", f"{script}\nimport sys; print(*sys.modules)", cwd=PACKAGE.parent)
    return HEAVY & set(done.stdout.split())


def seconds(script: str) -> float:
    """Return the shortest of several times that a script takes in a fresh interpreter."""
    times = []
    for _ in range(7):
        began = time.perf_counter()
        assert python("-c", script, cwd=PACKAGE.parent).returncode == 0
        times.append(time.perf_counter() - began)
    return min(times)


def test_import_is_light():
    assert heavy("import mrtlib; dir(mrtlib)") == set()
    assert heavy("from mrtlib import load_problems, grade, Problem, segment, load_profile") == set()
    assert heavy("from mrtlib import progress") == {"numpy"}
    empty, ours = seconds("pass"), seconds("import mrtlib")
    assert ours < 3 * empty, (ours, empty)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as `pip install .` leaves it, from a copy and without a network."""
    copy, site = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("site")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(PACKAGE, copy / "mrtlib", ignore=shutil.ignore_patterns("__pycache__"))
    done = python("-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
                  "--no-build-isolation", "--target", str(site), str(copy))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return site


def files_of(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")
            if path.is_file() and path.suffix != ".pyc"}  # fmt: skip


def test_an_installed_package_is_whole(installed):
    assert files_of(installed / "mrtlib") == files_of(PACKAGE)
    assert Path("plotting/paper.mplstyle") in files_of(installed / "mrtlib")


@pytest.fixture
def elsewhere(installed, tmp_path):
    """Start the installed package's Python in an empty folder, with more environment variables."""
    known = {k: v for k, v in os.environ.items() if k not in ("MRT_ROOT", "MRT_RUNS")}
    known["PYTHONPATH"] = str(installed)
    return lambda *words, **more: python(*words, cwd=tmp_path, env=known | more)


def test_an_installed_package_works_in_the_current_folder(installed, elsewhere, tmp_path):
    script = "import mrtlib; from mrtlib.config import ROOT; print(mrtlib.__file__, ROOT)"
    module = str(installed / "mrtlib" / "__init__.py")
    assert elsewhere("-c", script).stdout.split() == [module, str(tmp_path)]
    assert elsewhere("-c", script, MRT_ROOT=str(ROOT)).stdout.split() == [module, str(ROOT)]


def test_what_finds_no_data_names_the_way_out(elsewhere, tmp_path, monkeypatch):
    load = "mrtlib.load_problems(mrtlib.load_profile('tiny').problems / 'test.jsonl')"
    assert elsewhere("-c", f"import mrtlib; {load}", MRT_ROOT=str(ROOT)).returncode == 0
    missing = elsewhere("-c", f"import mrtlib; {load}").stderr.splitlines()[-1]
    assert "no problem file" in missing and "MRT_ROOT" in missing
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    with pytest.raises(batch.BatchError, match="no notebooks in .*; set MRT_ROOT"):
        batch.numbered()
    profile = mrtlib.load_profile("tiny")
    nowhere = replace(profile, model=replace(profile.model, name="data/nowhere"))
    with pytest.raises(ModelError, match=f"cannot load data/nowhere: .*{ROOT}; MRT_ROOT"):
        load_tokenizer(nowhere)


def test_what_is_required_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {re.match(r"[\w-]+", line)[0] for line in wanted} - {"mrtlib"}
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([\w-]+)==", pins, flags=re.M))
    assert pinned - names == {"setuptools"}
    assert names <= pinned
