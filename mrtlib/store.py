"""Records of a run: Parquet files with written schemas, content keys, and whole-file writes.

A record of `progress`, say, is one boundary of one rollout: method "outcome", seed 0, problem
"three-0007", sample 2, j 3, tokens 41 (t_3), J 0.62. No NaN is stored: what was not measured
is null, and only where the schema allows it.

Every file is written whole or not at all: to a temporary file beside it, flushed to the disk,
then renamed. So what a killed run or a full disk leaves behind is always readable.
"""

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mrtlib.schemas import SCHEMAS

Row = Mapping[str, Any]


class StoreError(ValueError):
    """A record that does not fit its schema, or a file that cannot be written or read."""


def schema(name: str) -> pa.Schema:
    """Return the schema `name`; StoreError names the choices when there is none."""
    if name not in SCHEMAS:
        raise StoreError(f"unknown schema {name!r}; choose one of {', '.join(SCHEMAS)}")
    return SCHEMAS[name]


def to_table(name: str, rows: Sequence[Row], where: str) -> pa.Table:
    """Turn rows into a table of the schema `name`, every value checked.

    Raises:
        StoreError: a column is missing, unknown or of another type; the message names it.
    """
    fields = schema(name)
    for at, row in enumerate(rows):
        for column in sorted(row.keys() ^ set(fields.names)):
            fault = "unknown" if column in row else "missing"
            raise StoreError(f"{where}: row {at} of {name!r}: column {column!r} is {fault}")
    columns = [
        pa.array([_cell(row[field.name], field, f"{where}: row {at} of {name!r}")
                  for at, row in enumerate(rows)], field.type)
        for field in fields
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=fields)


def conform(table: pa.Table, name: str, where: str) -> pa.Table:
    """Return the columns of the schema `name` from a table that was read, checked and in order.

    A column that may be null and is not there, as in records older than it, is null.

    Raises:
        StoreError: a column is missing or of another type; the message names it.
    """
    fields = schema(name)
    for field in fields:
        if field.nullable and field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    found = {field.name: field.type for field in table.schema}
    for field in fields:
        if field.type != (has := found.get(field.name, "no such column")):
            raise StoreError(f"{where}: column {field.name!r} needs {field.type}, has {has}")
    return table.select(fields.names).cast(fields)


def _cell(value: Any, field: pa.Field, where: str) -> Any:
    """Return a value fit for its column; by hand, as pyarrow turns 1.5 into 1 and True into 1.0."""
    kind, is_bool = field.type, isinstance(value, bool | np.bool_)
    if field.nullable and (value is None or (isinstance(value, Real) and np.isnan(value))):
        return None
    if pa.types.is_list(kind):
        fits = isinstance(value, list | tuple | np.ndarray) and all(map(_is_id, value))
    elif pa.types.is_boolean(kind):
        fits = is_bool
    elif pa.types.is_integer(kind):
        fits = isinstance(value, Integral) and not is_bool
    elif pa.types.is_floating(kind):
        fits = isinstance(value, Real) and not is_bool and not np.isnan(value)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise StoreError(f"{where}: column {field.name!r} needs {field.type}, got {value!r:.60}")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and -1 < value < 2**31

STALE_SECONDS = 3600  # a temporary file this old belongs to no writer that still lives
# Raised when the same settings and weights give other records, so that old ones are not read.
# 2: end tokens inside unclosed thinking are stripped; answers are scored in all their spellings.
MEASURE = 2
PACKAGES = ("numpy", "pandas", "pyarrow", "torch", "transformers", "trl", "peft", "bitsandbytes")


def write_table(path: str | Path, name: str, rows: Sequence[Row]) -> None:
    """Write rows as one Parquet file of the schema `name`, whole or not at all.

    Raises:
        StoreError: a column is missing, unknown or of another type; the disk refuses the file.
    """
    table = to_table(name, rows, where=str(path))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    _replace(Path(path), sink.getvalue().to_pybytes())


def read_table(path: str | Path, name: str) -> pd.DataFrame:
    """Read a file that holds records of the schema `name`.

    What is missing comes back as None in a column of texts, and as NaN in one of numbers.

    Raises:
        StoreError: no such file, a damaged one, or one without the columns of the schema.
    """
    return _frame(_read(Path(path), name))


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all, and the same text on every machine.

    Numbers have six significant digits: processors add up in different orders, and sums differ in
    the last of their sixteen. What a sum leaves of 0 (less than 1e-12) is written as 0.
    """
    numbers = table.select_dtypes("floating")
    table = table.assign(**numbers.mask(numbers.abs() < 1e-12, 0.0))
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a CSV table of ours. Only an empty cell is missing: a level may be called `NA`."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


class Shards:
    """A folder of small Parquet files, one for each finished piece of work.

    A run asks `has(key)` before it works and calls `write(key, rows)` after, so one that was cut
    off goes on from what it has. Keys come from `content_key`: other settings, other shards.
    """

    def __init__(self, directory: str | Path, name: str) -> None:
        schema(name)
        self.directory, self.name = Path(directory), name
        for stray in self.directory.glob(".*.tmp"):
            if time.time() - stray.stat().st_mtime > STALE_SECONDS:
                stray.unlink(missing_ok=True)

    def path(self, key: str) -> Path:
        """Return the file of `key`."""
        if not re.fullmatch(r"\w[\w.-]*", key):
            raise StoreError(f"{key!r} cannot be a file name; make the key with content_key(...)")
        return self.directory / f"{key}.parquet"

    def has(self, key: str) -> bool:
        """Say whether the work behind `key` is done."""
        return self.path(key).is_file()

    def write(self, key: str, rows: Sequence[Row]) -> None:
        """Write the records of `key`, whole or not at all."""
        write_table(self.path(key), self.name, rows)

    def keys(self) -> list[str]:
        """Return the keys that are there, in sorted order."""
        return sorted(path.stem for path in self.directory.glob("[!.]*.parquet"))

    def read(self, keys: Iterable[str]) -> pd.DataFrame:
        """Read the records of these keys in this order, as one table.

        Raises:
            StoreError: shards are missing or damaged; the message names every one of them.
        """
        tables, errors = [schema(self.name).empty_table()], []
        for key in keys:
            try:
                tables.append(_read(self.path(key), self.name))
            except StoreError as error:
                errors.append(str(error))
        if errors:
            raise StoreError(
                f"{len(errors)} shards of {self.directory} cannot be used; delete the damaged "
                "ones and run the same command again to make them anew:\n" + "\n".join(errors)
            )
        return _frame(pa.concat_tables(tables))

    def read_all(self) -> pd.DataFrame:
        """Read every shard of the folder, whatever settings it was made with, sorted by key."""
        return self.read(self.keys())


def content_key(**values: Any) -> str:
    """Return 32 hex digits of SHA-256 over plain JSON values: equal values, equal key."""
    return hashlib.sha256(_json(values, "a key").encode()).hexdigest()[:32]


def complete(
    tables: Mapping[str, Shards],
    keys: Sequence[str],
    make: Callable[[int], Mapping[str, Sequence[Row]]],
    name: str,
) -> None:
    """Make the parts of a piece of work that are not there yet, and say how long that will take.

    Args:
        tables: shards of each table; those of the last one are written last, and say that a part
            is whole.
        keys: of the parts.
        make: returns the rows of every table for the i-th part.
        name: of the work, as it is said.
    """
    last = list(tables.values())[-1]
    missing = [i for i, key in enumerate(keys) if not last.has(key)]
    began = time.monotonic()
    for done, i in enumerate(missing, start=1):
        rows = make(i)
        for table, shards in tables.items():
            shards.write(keys[i], rows[table])
        left = (time.monotonic() - began) / done * (len(missing) - done) / 60
        print(f"{name}: part {done} of {len(missing)}, {left:.0f} min left", flush=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write a plain JSON value, keys sorted, whole or not at all."""
    _replace(Path(path), (_json(value, str(path), indent=1) + "\n").encode())


def write_text(path: str | Path, text: str) -> None:
    """Write text (a CSV table, say) whole or not at all."""
    _replace(Path(path), text.encode())


def read_json(path: str | Path) -> Any:
    """Read a JSON file; StoreError when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist; run the step that writes it first") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as JSON ({error}); delete it and run") from error


@dataclass(frozen=True)
class Manifest:
    """What a run was made from; nothing in it depends on the machine, the path or the time."""

    config: dict[str, Any]  # the profile
    key: str  # of all that decides the run but its seeds
    seeds: tuple[int, ...]
    versions: dict[str, str]  # package -> version
    hashes: dict[str, str]  # file, relative to the repository -> SHA-256
    command: str


def manifest(
    config: str, key: str, seeds: Sequence[int], files: Iterable[Path], root: Path, command: str
) -> Manifest:
    """Collect a manifest; `config` is `config.as_json(profile)`, a folder counts as its files."""
    return Manifest(json.loads(config), key, tuple(seeds), package_versions(),
                    file_hashes(files, root), command)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Return the versions of Python (major and minor) and of the packages that decide results."""
    found = {name: version(name) for name in PACKAGES if find_spec(name)}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def file_hashes(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Return SHA-256 by path relative to `root` (by name alone when outside it)."""
    hashes = {}
    for item in files:
        for path in sorted(item.rglob("*")) if item.is_dir() else [item]:
            if path.is_file():
                name = path.relative_to(root) if path.is_relative_to(root) else path.name
                with open(path, "rb") as stream:
                    hashes[str(name)] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def _json(value: Any, what: str, indent: int | None = None) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, indent=indent)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{what} takes plain JSON values without NaN: {error}") from error


def _read(path: Path, name: str) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist; run the step that writes it first") from error
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} is damaged ({error}); delete it and run again") from error
    return conform(table, name, where=str(path))


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a frame. A text that is missing is None, where pandas makes it NaN.

    NaN is a value to whatever counts, groups or compares texts, and no text is not an answer.
    """
    frame = table.to_pandas()
    for field in table.schema:
        if field.nullable and pa.types.is_string(field.type):
            frame[field.name] = pd.Series(table[field.name].to_pylist(), dtype=object)
    return frame


def _replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step; on failure the old file stays and no temporary one."""
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write {path}: {error.strerror}. Free space there or make the folder "
            "writable, then run the same command again; what was written before is whole"
        ) from error

TRACE = ["method", "seed", "level", "problem", "sample"]  # the columns that name one trace
