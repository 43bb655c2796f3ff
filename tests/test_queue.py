"""The queue: each task is done once, whoever works; the dead hold nothing; faults are told."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from mrtlib import locks
from mrtlib.experiments import queue

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_queue import Toy, tasks
from mrtlib import locks
from mrtlib.experiments import queue
folder = Path(sys.argv[1])
sys.exit(3 if queue.work_off(tasks(folder, int(sys.argv[2]), float(sys.argv[3])), folder) else 0)
"""


@dataclass(frozen=True)
class Toy:
    """A task that writes down who did it."""

    folder: Path
    number: int
    seconds: float = 0.0
    size: float = 1.0

    @property
    def name(self) -> str:
        return f"toy-{self.number}"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.done"

    def done(self) -> bool:
        return self.record.is_file()

    def ready(self) -> bool:
        return self.number != 1 or (self.folder / "toy-2.done").is_file()  # 1 needs 2

    def do(self) -> None:
        with open(self.folder / "order", "a") as stream:
            stream.write(f"{self.number}\n")
        time.sleep(self.seconds)
        if self.number == 3:
            raise ValueError("a task that cannot be done")
        self.record.write_text(str(os.getpid()))


def tasks(folder: Path, count: int, seconds: float = 0.0) -> list[Toy]:
    return [Toy(folder, n, seconds) for n in range(count)]


def command(folder: Path, count: int, seconds: float) -> list[str]:
    script = WORKER.format(tests=str(Path(__file__).parent))
    return [sys.executable, "-c", script, str(folder), str(count), str(seconds)]


def order(folder: Path) -> list[str]:
    return (folder / "order").read_text().split()


def test_tasks_are_done_in_order_and_what_must_wait_comes_as_soon_as_it_can(tmp_path):
    assert queue.work_off(tasks(tmp_path, 3), tmp_path) == []
    assert order(tmp_path) == ["0", "2", "1"]
    assert queue.work_off(tasks(tmp_path, 3), tmp_path) == []
    assert order(tmp_path) == ["0", "2", "1"], "nothing is done twice"


def test_a_task_that_fails_is_told_and_the_others_are_done(tmp_path):
    assert queue.work_off(tasks(tmp_path, 5), tmp_path) == ["toy-3"]
    assert "cannot be done" in (tmp_path / "failed" / "toy-3.txt").read_text()
    assert sorted(order(tmp_path)) == ["0", "1", "2", "3", "4"]


def test_two_workers_share_one_folder_and_do_each_task_once(tmp_path):
    every = tasks(tmp_path, 3, 0.2)
    queue.run_workers(command(tmp_path, 3, 0.2), 2, every, tmp_path)
    assert sorted(order(tmp_path)) == ["0", "1", "2"]
    assert all(task.done() for task in every)


def test_workers_that_fail_are_an_error_that_names_the_tasks(tmp_path):
    with pytest.raises(queue.QueueError, match="toy-3"):
        queue.run_workers(command(tmp_path, 4, 0.0), 1, tasks(tmp_path, 4), tmp_path)


def test_a_worker_that_is_killed_is_an_error(tmp_path):
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(queue.QueueError, match="-9 if memory"):
        queue.run_workers([sys.executable, "-c", kill], 1, tasks(tmp_path, 1), tmp_path)


def test_a_held_task_is_left_to_its_holder_and_a_dead_one_holds_nothing(tmp_path, monkeypatch):
    holder = subprocess.Popen(command(tmp_path, 1, 60.0))
    deadline = time.monotonic() + 60
    while locks.held(tmp_path) != ["toy-0"] and time.monotonic() < deadline:
        time.sleep(0.05)
    monkeypatch.setattr(queue, "WAIT", 0.05)
    threading.Timer(1.0, holder.kill).start()
    assert queue.work_off(tasks(tmp_path, 1), tmp_path) == []  # it waits, and then does it
    holder.wait()
    assert tasks(tmp_path, 1)[0].record.read_text() == str(os.getpid())
    assert order(tmp_path) == ["0", "0"] and locks.held(tmp_path) == []


def test_what_hangs_on_a_task_that_another_holds_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "WAIT", 0.05)
    every = [Toy(tmp_path, 2, 1.0), Toy(tmp_path, 1)]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(queue.work_off, every[:1], tmp_path)
        while not locks.held(tmp_path):
            time.sleep(0.01)
        assert queue.work_off(every, tmp_path) == [] == first.result()
    assert order(tmp_path) == ["2", "1"]


def test_a_clock_that_is_ahead_of_the_file_systems_repeats_no_failure(tmp_path, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    monkeypatch.setattr(queue, "_now", lambda _: real() + 3600)
    assert queue.work_off(tasks(tmp_path, 4), tmp_path) == ["toy-3"]
    assert order(tmp_path).count("3") == 1


def test_as_many_workers_as_cores_that_may_be_used(monkeypatch):
    assert queue.own_cores() == sorted(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert queue.own_cores() == [0, 1, 2]


def test_a_task_that_failed_at_another_worker_is_not_tried_again_in_this_queue(tmp_path):
    queue.work_off(tasks(tmp_path, 4), tmp_path)
    failure, later = tmp_path / "failed" / "toy-3.txt", time.time() + 3600
    os.utime(failure, (later, later))  # as if another had failed while this one works
    assert queue.work_off(tasks(tmp_path, 4), tmp_path) == []
    os.utime(failure, (1, 1))
    assert queue.work_off(tasks(tmp_path, 4), tmp_path) == ["toy-3"]
    assert order(tmp_path).count("3") == 2


def test_tasks_that_nothing_makes_ready_are_an_error(tmp_path):
    with pytest.raises(queue.QueueError, match="1 of 1 tasks are not done, toy-1 first"):
        queue.run_workers(["true"], 1, [Toy(tmp_path, 1)], tmp_path)


def test_the_state_says_what_is_done_and_how_long_the_rest_takes(tmp_path):
    every = tasks(tmp_path, 3)
    every[0].do()
    every[2].do()
    said = queue.state(every, tmp_path, 1.0, 3600.0)  # one more task in an hour
    assert said == "2 of 3 tasks done, at work: nothing, about 1.0 h left"
