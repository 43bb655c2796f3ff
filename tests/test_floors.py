"""Rooms import only downward; light ones pull in nothing heavy; pictures stay in one room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mrtlib

PACKAGE = Path(mrtlib.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "sympy")

# The house: a floor holds rooms (folders and top-level modules) that do not import each other.
FLOORS = (
    ("hub", "locks", "notices", "pace", "schemas"),
    ("config", "credit", "regret", "stats", "store", "tasks"),
    ("episodes", "shards"),
    ("models", "reasoner"),
    ("rollouts",),
    ("prover",),
    ("training", "evaluation"),
    ("experiments",),
    ("plotting", "batch"),
    ("__main__", "__init__"),
)
LIGHT = ("hub", "locks", "notices", "pace", "schemas", "config", "credit", "regret", "stats",
         "store", "shards", "episodes", "tasks", "plotting")  # fmt: skip
ALONE = {  # libraries that one room alone may import
    "plotting": ("matplotlib", "seaborn", "ipywidgets"), "training": ("trl",),
    "batch": ("papermill", "nbformat"),
}  # fmt: skip


def name_of(path: Path) -> str:
    """Return a file's module below mrtlib, such as `models.packing`; a room for its __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path.read_text(encoding="utf-8") for path in FILES}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def floor_of(module: str) -> int:
    """Return the floor of a module's room, from 0; IndexError without one."""
    return [room_of(module) in floor for floor in FLOORS].index(True)


def imports_of(source: str) -> set[str]:
    """Return every module or name that a source imports, dotted, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write imports out: from mrtlib.room import module"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(source: str) -> set[str]:
    """Return the modules of mrtlib that a source imports."""
    found = set()
    for name in imports_of(source):
        parts = name.split(".")
        if parts[0] == "mrtlib":
            longest = [".".join(parts[1:n]) for n in range(len(parts), 1, -1)]
            found.add(next((name for name in longest if name in MODULES), parts[-1]))
    return found


def climbing(module: str, source: str) -> set[str]:
    """Return the imports that do not go down: to a higher floor, or to another room of its own."""
    return {
        other for other in own_imports(source)
        if room_of(other) != room_of(module) and floor_of(other) >= floor_of(module)
    }  # fmt: skip


def astray(module: str, source: str) -> set[str]:
    """Return the libraries that a module imports although they belong to another room."""
    used = {name.partition(".")[0] for name in imports_of(source)}
    return {
        library for room, libraries in ALONE.items() for library in libraries
        if library in used and room_of(module) != room
    }  # fmt: skip


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


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    assert not climbing(module, MODULES[module])
    assert not astray(module, MODULES[module])


def test_no_module_imports_itself_through_others():
    # Imports within a room are allowed, so a cycle has to be ruled out on its own.
    graph = {module: own_imports(source) for module, source in MODULES.items()}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_light_rooms_are_light():
    names = [f"mrtlib.{name}" for name in MODULES if room_of(name) in LIGHT]
    assert {name: heavy for name, heavy in loaded_by(names).items() if heavy} == {}


def test_every_room_says_what_it_holds():
    rooms = [name for name in MODULES if (PACKAGE / name.replace(".", "/")).is_dir()]
    assert len(rooms) == 10
    for room in rooms:
        assert len(ast.get_docstring(ast.parse(MODULES[room])).splitlines()) >= 3, room


def test_modules_hold_one_idea():
    assert max(len(source.splitlines()) for source in MODULES.values()) <= 400


def test_the_checks_can_fail():
    assert climbing("credit", "def f():\n    from mrtlib.prover import exact\n") == {"prover.exact"}
    assert climbing("credit", "from mrtlib import regret") == {"regret"}  # beside it
    assert climbing("training.runs", "import mrtlib.evaluation.sweep") == {"evaluation.sweep"}
    assert climbing("models.loading", "from mrtlib.models.tokens import x") == set()
    down = "from mrtlib import credit\nfrom mrtlib.models.x import y"
    assert climbing("prover.exact", down) == set()
    with pytest.raises(ValueError):
        climbing("credit", "from mrtlib.unheard_of import x")
    assert astray("stats", "import matplotlib.pyplot as plt") == {"matplotlib"}
    assert astray("plotting.style", "from matplotlib.axes import Axes") == set()
    assert loaded_by(["json", "torch"]) == {"json": [], "torch": ["torch"]}
