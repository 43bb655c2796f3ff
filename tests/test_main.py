"""The command line answers mistakes with one line and exit code 2, and starts what it names."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from mrtlib import __main__
from mrtlib.config import ROOT
from mrtlib.evaluation import sweep
from mrtlib.experiments import benchmark
from mrtlib.tasks import countdown
from mrtlib.training import runs


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("reproduce --profile huge", "unknown profile 'huge'; choose one of smoke, tiny"),
        ("train --profile huge --method outcome", "unknown profile"),
        ("train --profile smoke --method magic", "unknown method 'magic'; choose one of outcome"),
        ("train --profile smoke --method base", "unknown method 'base'"),
        ("bench --pairs 4", "4 pairs say little about a ratio; take 5 or more"),
        ("evaluate --profile smoke --method magic", "choose one of base, outcome"),
        ("evaluate --profile smoke --method outcome --seed 7", "train it first: python -m mrtlib"),
    ],
)
def test_mistakes_are_answered_in_one_line(command, words, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    assert __main__.main(command.split()) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    ["", "fly", "train", "reproduce --seeds 0", "reproduce --cell-hours nan",
     "reproduce --seeds x", "train --seed x",
     "evaluate --method base --seed -5", "problems --seed 4294967296"],
)  # fmt: skip
def test_malformed_commands(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(command.split())
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_unforeseen_fault_keeps_its_traceback(monkeypatch):
    def broken(options):
        raise ValueError("from some library")

    monkeypatch.setattr(__main__, "train", broken)
    with pytest.raises(ValueError, match="some library"):
        __main__.main(["train", "--method", "outcome"])


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "reproduce", interrupted)
    assert __main__.main(["reproduce"]) == 130
    assert "goes on from what is done" in capsys.readouterr().err


def test_commands_pass_their_options_on(monkeypatch, tmp_path, capsys):
    from mrtlib import batch

    table = pd.DataFrame({"row": list(benchmark.GOALS)[:2], "median": [0.1, 9.0], "tokens_ours": 1,
                          "tokens_other": 1})  # fmt: skip
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    calls = []
    monkeypatch.setattr(runs, "train", lambda *a: calls.append(a) or "folder")
    monkeypatch.setattr(sweep, "evaluate", lambda *a: calls.append(a) or "folder")
    monkeypatch.setattr(countdown, "write_splits", lambda *a: calls.append(a) or {"test": 3})
    monkeypatch.setattr(batch, "reproduce", lambda *a, cell_hours: calls.append((*a, cell_hours)))
    monkeypatch.setattr(benchmark, "benchmark", lambda *a: calls.append(a[:2]) or table)
    monkeypatch.setattr(batch, "summary", lambda profile: "the table")
    adapter = tmp_path / "smoke" / "adapters" / "outcome-2"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").touch()
    for command in (
        "train --profile smoke --method outcome --seed 2",
        "evaluate --profile smoke --method base",
        "evaluate --profile smoke --method outcome --seed 2",
        "problems --seed 5",
        "reproduce --profile smoke --seeds 3 --cell-hours 0.5",
        "bench --profile smoke --pairs 6",
    ):
        assert __main__.main(command.split()) == 0
    plain = [tuple(getattr(a, "name", a) if i == 0 else a for i, a in enumerate(c)) for c in calls]
    assert plain == [
        ("smoke", "outcome", 2),
        ("smoke", "base", 0, None),
        ("smoke", "outcome", 2, adapter),
        ("problems", 5),
        ("smoke", 0, 3, 0.5),
        ("smoke", 6),
    ]
    said = capsys.readouterr().out
    assert "the table" in said
    assert [line.split()[-1] for line in said.splitlines()[-2:]] == ["yes", "NO"]


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "mrtlib", "train", "--method", "magic"], cwd=ROOT,
        capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown method 'magic'")
