"""A queue of long tasks that any number of processes and machines work off through one folder.

Whoever works takes the first task that is ready and that nobody holds. A task is held by a lock of
the operating system on a file, so a worker that dies holds nothing. What is done is known from
the records of the tasks themselves: a study that was stopped goes on with what is left.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mrtlib.locks import held, holding
from mrtlib.store import write_text

FAILED, LOGS = "failed", "logs"
SAY_EVERY = 30.0  # seconds from one line about the queue to the next
WAIT = 5.0  # seconds until a worker looks again whether what others hold is free


class QueueError(ValueError):
    """Tasks that failed, or a folder that is no place for a queue."""


class Task(Protocol):
    """A piece of work; whoever does it leaves a record by which `done` knows it."""

    @property
    def name(self) -> str:
        """Return what it is called, fit for a file name; no two tasks of a queue share one."""
        ...

    @property
    def size(self) -> float:
        """Return how much work it is, in a unit that all tasks of the queue share."""
        ...

    def done(self) -> bool:
        """Say whether its record is there."""
        ...

    def ready(self) -> bool:
        """Say whether what it needs of other tasks is there."""
        ...

    def do(self) -> None:
        """Do it, from where an earlier try was stopped."""
        ...


def work_off(tasks: Sequence[Task], folder: Path) -> list[str]:
    """Do the tasks that are not done, in their order, until none is left that can be taken.

    While others hold tasks it waits: they may die, and what hangs on their tasks comes after them.
    A task that raises is left out from then on by all who are at work, and its traceback is put in
    `failed/NAME.txt`; who starts later tries it again.

    Args:
        folder: of the queue; all workers of one queue name the same one.

    Returns:
        The names of the tasks that failed here.
    """
    failed: list[str] = []
    left, began = list(tasks), _now(folder)
    while True:
        left = [task for task in left if task.name not in failed
                and not task.done() and not _failed(task, folder, began)]  # fmt: skip
        others = False
        for task in left:
            if task.ready():
                taken = _taken(task, folder, failed, began)
                if taken:
                    break
                others = others or taken is None
        else:
            if not others:
                return failed
            time.sleep(WAIT)


def _now(folder: Path) -> float:
    """Return the time by the clock of the file system, which machines that share it share too."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _failed(task: Task, folder: Path, since: float) -> bool:
    """Say whether a task has failed, here or elsewhere, since a time."""
    try:
        return (folder / FAILED / f"{task.name}.txt").stat().st_mtime >= since
    except OSError:
        return False


def _taken(task: Task, folder: Path, failed: list[str], began: float) -> bool | None:
    """Do a task that nobody holds; say whether it was done here, or None where another holds it."""
    with holding(folder, task.name) as held:
        if not held:
            return None
        if task.done() or _failed(task, folder, began):  # by whoever has just let go of it
            return False
        try:
            task.do()
        except Exception:  # whatever it is, the other tasks do not hang on it
            failed.append(task.name)
            write_text(folder / FAILED / f"{task.name}.txt", traceback.format_exc())
        else:
            (folder / FAILED / f"{task.name}.txt").unlink(missing_ok=True)
    return True


def own_cores() -> list[int]:
    """Return the cores that this process may use; where the system does not say, all there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def run_workers(command: Sequence[str], count: int, tasks: Sequence[Task], folder: Path) -> None:
    """Start workers, say how far the queue is, and wait for them.

    Each worker has one core of its own and one thread, where there are as many cores; what it
    prints goes to a file in `logs`. An interrupt, or a signal to end, is passed on to them.

    Args:
        command: of one worker: it calls `work_off` with the same tasks and folder.

    Raises:
        QueueError: some tasks failed, or are left as they need what is not there.
    """
    cores = own_cores()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    workers: list[subprocess.Popen] = []
    try:
        for i in range(count):
            workers.append(_worker(command, cores[i % len(cores)], count <= len(cores), folder, i))
        _watch(workers, tasks, folder)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        signal.signal(signal.SIGTERM, before)
    left = [task for task in tasks if not task.done()]
    failed = [task.name for task in left if (folder / FAILED / f"{task.name}.txt").is_file()]
    codes = [worker.returncode for worker in workers if worker.returncode]
    if failed or codes:
        raise QueueError(
            f"{len(failed)} tasks failed: {', '.join(failed[:5]) or '-'}; workers ended with "
            f"{', '.join(map(str, codes)) or '-'} (below 0: killed by a signal, -9 if memory ran "
            f"out); tracebacks are in {folder / FAILED}, what was printed in {folder / LOGS}. The "
            "same command tries again"
        )
    if left:
        raise QueueError(
            f"{len(left)} of {len(tasks)} tasks are not done, {left[0].name} first: they need what "
            "another stage makes, trained runs say; `--stage all` does all stages in their order"
        )


def _worker(
    command: Sequence[str], core: int, pinned: bool, folder: Path, number: int
) -> subprocess.Popen:
    log = folder / LOGS / f"{socket.gethostname()}-{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as stream:
        worker = subprocess.Popen(
            list(command), stdout=stream, stderr=stream, stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    if pinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(worker.pid, {core})
    return worker


def _watch(workers: Sequence[subprocess.Popen], tasks: Sequence[Task], folder: Path) -> None:
    """Say every now and then how far the queue is, until all workers have ended."""
    began, start, said = time.monotonic(), _done(tasks), 0.0
    while any(worker.poll() is None for worker in workers):
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            print(state(tasks, folder, start, said - began), flush=True)
        time.sleep(0.5)


def _done(tasks: Sequence[Task]) -> float:
    return sum(task.size for task in tasks if task.done())


def state(tasks: Sequence[Task], folder: Path, start: float, seconds: float) -> str:
    """Return one line about a queue: what is done, who works at what, how long it will take.

    Args:
        start: size of what was done when this run began.
        seconds: since then.
    """
    open_ = [task for task in tasks if not task.done()]
    done, total = _done(tasks), sum(task.size for task in tasks)
    left = ""
    if done > start and seconds > 0:
        left = f", about {(total - done) * seconds / (done - start) / 3600:.1f} h left"
    working = ", ".join(held(folder)) or "nothing"
    return f"{len(tasks) - len(open_)} of {len(tasks)} tasks done, at work: {working}{left}"
