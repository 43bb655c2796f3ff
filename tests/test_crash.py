"""The short form of `crash.py`: three kills of a small run; and what a signal leaves behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import crash


def test_a_run_that_is_killed_ends_as_one_that_was_let_be(tmp_path):
    assert crash.attack(crash.SHORT, crash.SHORT_KINDS, tmp_path, 3, random.Random(1)) == 0


def test_a_difference_would_be_seen(tmp_path):
    for name, text in (("one", "a,b\n1,2\n"), ("other", "a,b\n1,3\n")):
        (tmp_path / name / "locks").mkdir(parents=True)
        (tmp_path / name / "results.csv").write_text(text)
        (tmp_path / name / "locks" / "work.lock").write_text(name)
    one, other = (crash.left(tmp_path / name) for name in ("one", "other"))
    assert one.keys() == other.keys() == {"results.csv"}
    assert crash._told(one, other, tmp_path) == 1


def test_what_a_notebook_prints_and_its_tables_of_seconds_make_no_difference(tmp_path):
    def book(seconds: str, table: str) -> str:
        def cell(text, kind, *tags):
            return {"metadata": {"tags": list(tags)}, "outputs": [
                {"output_type": kind, "text": text}]}  # fmt: skip

        timed = cell(seconds, "display_data", "clock")
        return json.dumps({"cells": [cell(seconds, "stream"), timed, cell(table, "display_data")]})

    texts = {"one": book("3 s", "a"), "other": book("4 s", "a"), "third": book("3 s", "b")}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.ipynb").write_text(text)
    one, other, third = (crash.left(tmp_path / name) for name in texts)
    assert one == other != third


def children(pid: int) -> set[int]:
    """Return the processes below a process, at any depth."""
    below: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        below.setdefault(int(fields[1]), set()).add(int(stat.parent.name))
    found, left = set(), [pid]
    while left:
        new = below.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def test_a_signal_ends_a_run_with_its_kernel_and_one_line(tmp_path):
    """SIGTERM to `reproduce` alone, while its first notebook is at work."""
    log = tmp_path / "log"
    run = crash.start(crash.REPRODUCE, tmp_path / "runs", None, log)
    deadline = time.monotonic() + 120
    while len(children(run.pid)) < 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    kernels = children(run.pid)
    assert kernels, log.read_text()
    time.sleep(2)
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait(60) == 128 + signal.SIGTERM
    while any(Path(f"/proc/{pid}").exists() for pid in kernels) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in kernels)
    said = log.read_text()
    assert "Traceback" not in said
    assert said.rstrip().endswith("stopped; the same command goes on from what is done")


def test_a_read_only_or_full_folder_is_found_before_anything_is_done(tmp_path):
    """The message names the cause, and not a file that could not be written for it."""
    file = tmp_path / "file"
    file.write_text("")
    script = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))\n"
        "from mrtlib import __main__\n"
        "sys.exit(__main__.main(['train', '--profile', 'smoke', '--method', 'outcome']))"
    )
    for runs, words in ((file, "Not a directory"), (tmp_path / "full", "File too large")):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False,
            cwd=crash.ROOT, env=os.environ | {"MRT_RUNS": str(runs)},
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and words in done.stderr, done.stderr
