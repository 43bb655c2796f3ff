"""Kill a run again and again, start it again each time, and compare what it leaves at the end.

    python tests/crash.py [--points 20] [--seed 0] [--short]

The run is `python -m mrtlib reproduce --profile smoke`: all notebooks, two trainings, every figure.
It is killed with its whole process group (`kill -9`), by turns after a time that is drawn, and in
the middle of the write of a shard, an adapter, a figure, a table, an executed notebook or the
manifest. What it leaves at the end must be what a run leaves that was let be, byte for byte, but
for the seconds that things took.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from mrtlib.schemas import SECONDS

ROOT = Path(__file__).parents[1]
REPRODUCE = [sys.executable, "-m", "mrtlib", "reproduce", "--profile", "smoke"]
# A training of two steps, and its evaluation: the short form, part of `make test`.
SHORT = [sys.executable, "-c", """
from dataclasses import replace
from mrtlib import evaluate, load_profile, train
smoke = load_profile("smoke")
smoke = replace(smoke, training=replace(smoke.training, most_steps=2),
                data=replace(smoke.data, test=2, validation=2),
                evaluation=replace(smoke.evaluation, samples=1, extensions=0))
evaluate(smoke, "episode_progress", 0, train(smoke, "episode_progress", 0))
"""]
KINDS = (".parquet", ".safetensors", ".png", ".csv", ".ipynb", "manifest.json", "keys.json")
SHORT_KINDS = (".parquet", ".safetensors", "keys.json", "hashes.json")
# What hangs on the hour or on the machine: how long things took, who was at work, what was put by.
CLOCK = "clock"  # tag of a cell that shows seconds
LEFT_OUT = ("locks", "logs", "checkpoints", "damaged")


@dataclass(frozen=True)
class Point:
    """A place to kill a run at: after some seconds, or in the middle of a write."""

    seconds: float | None
    write: str | None = None

    def __str__(self) -> str:
        return f"after {self.seconds:.1f} s" if self.write is None else f"at the write {self.write}"


def place(turn: int, seconds: float, kinds: tuple[str, ...], rng: random.Random) -> Point:
    """Draw a place: by turns a time, within that of a whole run, and a write."""
    if turn % 2 == 0:
        return Point(rng.uniform(0.02, 0.7) * seconds)
    when = rng.choice(("before", "after"))
    return Point(None, f"{rng.choice(kinds)}:{rng.randint(1, 2)}:{when}")


def start(command: list[str], runs: Path, point: Point | None, log: Path) -> subprocess.Popen:
    """Start a run into a folder, in a process group of its own."""
    crashing = str(Path(__file__).parent / "crashing")
    paths = os.pathsep.join(filter(None, (crashing, str(ROOT), os.environ.get("PYTHONPATH"))))
    more = {"CRASH": point.write} if point and point.write else {}
    with open(log, "a", encoding="utf-8") as stream:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True,
            env=os.environ | {"MRT_RUNS": str(runs), "PYTHONPATH": paths, **more},
        )  # fmt: skip


def kill(run: subprocess.Popen) -> None:
    """Kill a run and all that it started in its group."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def crashed(command: list[str], runs: Path, point: Point, log: Path) -> bool:
    """Start a run and kill it at a point; return False if it was done before it got there.

    A kernel that dies at a write ends the run with an error; any other error is a fault.
    """
    run = start(command, runs, point, log)
    try:
        run.wait(point.seconds)
    except subprocess.TimeoutExpired:
        kill(run)
    assert run.returncode in (0, -signal.SIGKILL) or point.write, f"it stopped by itself; see {log}"
    return run.returncode != 0


def whole(command: list[str], runs: Path, log: Path) -> float:
    """Run to the end; return the seconds it took.

    Raises:
        AssertionError: it stopped by itself.
    """
    began = time.monotonic()
    run = start(command, runs, None, log)
    assert run.wait() == 0, f"the run stopped by itself; what it said is in {log}"
    return time.monotonic() - began


def left(runs: Path) -> dict[str, str]:
    """Return what a run left: a hash of each file's content without seconds, by path."""
    found = {}
    for path in sorted(runs.rglob("*")):
        name = path.relative_to(runs)
        hidden = any(part.startswith(".") for part in name.parts)  # not put in its place yet
        if path.is_file() and not hidden and not set(name.parts) & set(LEFT_OUT):
            found[str(name)] = hashlib.sha256(_content(path, runs)).hexdigest()
    return found


def _content(path: Path, runs: Path) -> bytes:
    if path.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
        kept = [name for name in table.column_names if name not in SECONDS]
        return table.select(kept).to_pandas().to_json(double_precision=15).encode()
    if path.suffix == ".ipynb":
        book = json.loads(path.read_text(encoding="utf-8"))
        return json.dumps(_without_streams(book), sort_keys=True).encode()
    return path.read_bytes()


def _without_streams(book: dict) -> dict:
    """Return a notebook without what it printed on the way: how far it was, and for how long.

    Nor what a cell shows that is tagged with "clock", for a table of seconds.
    """
    for cell in book["cells"]:
        timed = CLOCK in cell["metadata"].get("tags", [])
        kept = [o for o in cell.get("outputs", []) if o["output_type"] != "stream" and not timed]
        cell["outputs"] = kept
    return book


def main() -> int:
    """Kill and compare; return 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a training and its evaluation alone")
    parser.add_argument("--folder", type=Path, help="of the two runs; a temporary one if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        what = (SHORT, SHORT_KINDS) if options.short else (REPRODUCE, KINDS)
        return attack(*what, folder, options.points, random.Random(options.seed))


def attack(
    command: list[str], kinds: tuple[str, ...], folder: Path, count: int, rng: random.Random
) -> int:
    """Make a run that is let be, and others that are killed at `count` points in all.

    Args:
        kinds: ends of the names of files that the run writes.

    Returns:
        How many files differ between these and that one.
    """
    log, runs, wrong, done = folder / "log", folder / "killed 1", 0, 0
    seconds = whole(command, folder / "let be", log)
    theirs = left(folder / "let be")
    print(f"a run that is let be takes {seconds:.0f} s and leaves {len(theirs)} files", flush=True)
    while True:
        point = place(done, seconds, kinds, rng)
        if done < count and crashed(command, runs, point, log):
            done += 1
            print(f"{runs.name}: killed {point} ({done} of {count})", flush=True)
            continue
        if done == count:
            whole(command, runs, log)
        wrong += _told(left(runs), theirs, runs)
        if done == count:
            return wrong
        runs = folder / f"killed {int(runs.name.split()[1]) + 1}"


def _told(mine: dict[str, str], theirs: dict[str, str], runs: Path) -> int:
    """Say which files differ; return how many."""
    differ = [n for n in sorted(mine.keys() | theirs.keys()) if mine.get(n) != theirs.get(n)]
    print(f"{runs.name}: done; {len(mine)} files, {len(differ)} differ", flush=True)
    for name in differ:
        print(f"  {name}", flush=True)
    return len(differ)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
