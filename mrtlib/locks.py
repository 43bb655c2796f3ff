"""Who works where: locks of the operating system on files, which a process that dies lets go of.

Beside each lock lies a sign that names its holder, to be shown. A sign may outlive its process; a
lock does not.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

LOCKS = "locks"  # folder of the files, in the one where the work is done


@contextmanager
def holding(folder: Path, name: str) -> Iterator[bool]:
    """Hold a name in a folder; yields False where another process holds it."""
    lock, sign = _files(folder, name)
    free = _taken(lock)
    with _signed(lock, sign) if free else nullcontext():
        yield free


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Hold a name in a folder; where another process holds it, say which one, and wait for it."""
    lock, sign = _files(folder, name)
    if not _taken(lock):
        print(f"{holder(sign)} is at work on {name} in {folder}; waiting for it", flush=True)
        lock.acquire()
    with _signed(lock, sign):
        yield


def held(folder: Path) -> list[str]:
    """Return the names that are held, or were by a process that died: to be shown, no more.

    To try the locks would be to hold them for a moment, and a worker might then pass by.
    """
    return sorted(sign.stem for sign in (folder / LOCKS).glob("*.held"))


def holder(sign: Path) -> str:
    """Return who wrote a sign, in words."""
    try:
        return sign.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"


def _files(folder: Path, name: str) -> tuple[FileLock, Path]:
    (folder / LOCKS).mkdir(parents=True, exist_ok=True)
    return FileLock(folder / LOCKS / f"{name}.lock"), folder / LOCKS / f"{name}.held"


def _taken(lock: FileLock) -> bool:
    """Take a lock if it is free; say whether it was."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


@contextmanager
def _signed(lock: FileLock, sign: Path) -> Iterator[None]:
    """Leave a sign while a lock is held; then let go of it."""
    try:
        sign.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        sign.unlink(missing_ok=True)
        lock.release()
