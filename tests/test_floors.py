"""Modules import only downward, and the light ones never pull in a heavy library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mrtlib

PACKAGE = Path(mrtlib.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "sympy")

FLOORS = {
    "__init__": 0,
    "advantages": 0,
    "algebra_worker": 0,
    "answer_algebra": 0,
    "answer_equality": 0,
    "answer_evaluation": 0,
    "answer_forms": 0,
    "answer_reading": 0,
    "answer_tokens": 0,
    "answer_units": 0,
    "answer_values": 0,
    "candidates": 0,
    "config": 0,
    "countdown": 0,
    "credit": 0,
    "episodes": 0,
    "findings": 0,
    "equivalence": 0,
    "packing": 0,
    "percentile": 0,
    "population": 0,
    "problem_sets": 0,
    "problems": 0,
    "records": 0,
    "regret": 0,
    "searchers": 0,
    "stats": 0,
    "store": 0,
    "trace_reading": 0,
    "forks": 1,
    "fourbit": 1,
    "grpo": 1,
    "joints": 1,
    "kept": 1,
    "lessons": 1,
    "models": 1,
    "passes": 1,
    "reasoner": 1,
    "sampling": 1,
    "self_check": 1,
    "server": 1,
    "training_log": 1,
    "twin": 1,
    "estimate": 2,
    "probes": 2,
    "prover": 2,
    "scoring": 2,
    "rollouts": 2,
    "trainer": 2,
    "estimators": 3,
    "evaluate": 3,
    "reasoner_card": 3,
    "gold": 3,
    "information_gain": 3,
    "answers": 3,
    "analysis": 3,
    "card_page": 3,
    "votes": 3,
    "ways": 3,
    "workload": 3,
    "results": 3,
    "tuning": 3,
    "comparison": 3,
    "coverage": 3,
    "learning": 3,
    "batch": 3,
    "bench": 3,
    "figures": 3,
    "trace_page": 3,
    "traces": 3,
    "scaling": 3,
    "instruments": 3,
    "drawing": 3,
    "explorer": 3,
    "__main__": 4,
}
LIGHT = [f.stem for f in FILES if FLOORS.get(f.stem) == 0 or f.stem == "figures"]


def own_imports(source: str) -> set[str]:
    """Return the modules of mrtlib that a source imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("mrtlib.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            parts = (["mrtlib"] if node.level else []) + (module.split(".") if module else [])
            if parts[:1] == ["mrtlib"]:
                found |= (
                    {parts[1]} if len(parts) > 1 else {a.name for a in node.names} & set(FLOORS)
                )
    return found


def upward(name: str, source: str) -> set[str]:
    """Return the imports that climb: to a higher floor, or to a module without one."""
    return {m for m in own_imports(source) if FLOORS.get(m, 99) > FLOORS[name]}


def loaded_by(modules: list[str]) -> dict[str, list[str]]:
    """Import modules one after the other in a fresh interpreter; return what each drags in."""
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[2:]:\n"
        "    importlib.import_module(name)\n"
        "    print(name, *[h for h in sys.argv[1].split(',') if h in sys.modules])\n"
    )
    command = [sys.executable, "-c", script, ",".join(HEAVY), *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_go_down(path):
    assert path.stem in FLOORS, f"give {path.stem} a floor in {Path(__file__).name}"
    assert not upward(path.stem, path.read_text(encoding="utf-8"))


def test_no_module_imports_itself_through_others():
    # Imports within a floor are allowed, so a cycle has to be ruled out on its own.
    graph = {path.stem: own_imports(path.read_text(encoding="utf-8")) for path in FILES}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_floor_zero_and_figures_are_light():
    dragged = loaded_by([f"mrtlib.{name}" for name in LIGHT if name != "__init__"])
    assert {name: heavy for name, heavy in dragged.items() if heavy} == {}


def test_the_checks_can_fail():
    assert upward("credit", "def f():\n    from mrtlib.prover import exact\n") == {"prover"}
    assert upward("credit", "from mrtlib import regret, trainer") == {"trainer"}
    assert upward("credit", "from . import models\nfrom .sampling import Sample") == {
        "models",
        "sampling",
    }
    assert upward("credit", "import mrtlib.figures as f, numpy") == {"figures"}
    assert upward("credit", "from mrtlib.unheard_of import x") == {"unheard_of"}
    assert upward("prover", "from mrtlib import credit\nfrom mrtlib.models import x") == set()
    assert loaded_by(["json", "torch"]) == {"json": [], "torch": ["torch"]}
