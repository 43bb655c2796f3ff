"""Folders of small Parquet files, one for each finished piece of work, and how work goes on there.

A file that was cut, zeroed or flipped is found by its hash before anything is built on it; it is
put aside, with a line that says so, and its part is made anew.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa

from mrtlib.locks import alone, holding
from mrtlib.store import (
    STALE_SECONDS,
    DamagedError,
    Row,
    StoreError,
    as_frame,
    read_arrow,
    schema,
    set_aside,
    write_table,
)


class Shards:
    """A folder of small Parquet files, one for each finished piece of work.

    A run asks `has(key)` before it works and calls `write(key, rows)` after, so one that was cut
    off goes on from what it has. Keys come from `content_key`: other settings, other shards.
    """

    def __init__(self, directory: str | Path, name: str) -> None:
        schema(name)
        self.directory, self.name = Path(directory), name
        for stray in self.directory.glob(".*.tmp"):
            with suppress(FileNotFoundError):  # another process has just put it in its place
                if time.time() - stray.stat().st_mtime > STALE_SECONDS:
                    stray.unlink()

    def path(self, key: str) -> Path:
        """Return the file of `key`."""
        if not re.fullmatch(r"\w[\w.-]*", key):
            raise StoreError(f"{key!r} cannot be a file name; make the key with content_key(...)")
        return self.directory / f"{key}.parquet"

    def has(self, key: str) -> bool:
        """Say whether the work behind `key` is done."""
        return self.path(key).is_file()

    def whole(self, key: str) -> bool:
        """Say whether the work behind `key` is done and can be read; put a damaged file aside."""
        try:
            read_arrow(self.path(key), self.name)
        except DamagedError:
            set_aside(self.path(key))
        except StoreError:  # there is none, or it is of another schema, which `read` explains
            pass
        return self.has(key)

    def write(self, key: str, rows: Sequence[Row]) -> None:
        """Write the records of `key`, whole or not at all."""
        write_table(self.path(key), self.name, rows)

    def keys(self) -> list[str]:
        """Return the keys that are there, in sorted order."""
        return sorted(path.stem for path in self.directory.glob("[!.]*.parquet"))

    def read(self, keys: Iterable[str]) -> pd.DataFrame:
        """Read the records of these keys in this order, as one table.

        Raises:
            StoreError: shards are missing or damaged; the message names every one of them. Damaged
                ones are put aside.
        """
        tables, errors = [schema(self.name).empty_table()], []
        for key in keys:
            try:
                tables.append(read_arrow(self.path(key), self.name))
            except DamagedError as error:
                set_aside(self.path(key))  # or it would count as done
                errors.append(str(error))
            except StoreError as error:
                errors.append(str(error))
        if errors:
            raise StoreError(
                f"{len(errors)} shards of {self.directory} cannot be used; run the command that "
                "made them again, which makes these anew:\n" + "\n".join(errors)
            )
        return as_frame(pa.concat_tables(tables))

    def read_all(self) -> pd.DataFrame:
        """Read every shard of the folder, whatever settings it was made with, sorted by key."""
        return self.read(self.keys())


def complete(
    tables: Mapping[str, Shards],
    keys: Sequence[str],
    make: Callable[[int], Mapping[str, Sequence[Row]]],
    name: str,
) -> None:
    """Make the parts of a piece of work that are not there yet, and say how long that will take.

    A part is there when all its tables are, whole. Several processes, here or on machines that
    share the folder, divide the parts among them: each takes one that nobody holds. A process that
    dies holds nothing, so the part that it was at is made by another.

    Args:
        tables: shards of each table.
        keys: of the parts.
        make: returns the rows of every table for the i-th part.
        name: of the work, as it is said.
    """
    left = _missing(tables, keys, range(len(keys)))
    folder, began, made = list(tables.values())[-1].directory, time.monotonic(), 0
    while left:
        free = next((i for i in left if _made(tables, keys[i], partial(make, i))), None)
        if free is None:  # others hold all that is left
            with alone(folder.parent, keys[left[0]]):
                pass
        left = _missing(tables, keys, left)
        if free is not None:
            made += 1
            minutes = (time.monotonic() - began) / made * len(left) / 60
            print(f"{name}: part {len(keys) - len(left)} of {len(keys)}, {minutes:.0f} min left",
                  flush=True)  # fmt: skip


def _made(
    tables: Mapping[str, Shards], key: str, make: Callable[[], Mapping[str, Sequence[Row]]]
) -> bool:
    """Make a part that is not there, unless another process holds it; say whether it was made."""
    folder = list(tables.values())[-1].directory
    with holding(folder.parent, key) as held:
        if not held or not _missing(tables, [key], [0]):  # or has just made it
            return False
        rows = make()
        for table, shards in tables.items():
            shards.write(key, rows[table])
    return True


def _missing(
    tables: Mapping[str, Shards], keys: Sequence[str], places: Iterable[int]
) -> list[int]:
    """Return those of some places whose part lacks a table."""
    return [i for i in places if not all(shards.whole(keys[i]) for shards in tables.values())]
