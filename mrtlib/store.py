"""Records of a run as Parquet files with written schemas, and how they survive being cut off.

Every file is written whole or not at all: to a temporary file beside it, flushed to the disk,
then renamed. So what a killed run or a full disk leaves behind is always readable.
"""

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mrtlib.records import SCHEMAS as SCHEMAS  # read here by the rest of the library
from mrtlib.records import Row, StoreError, conform, schema, to_table

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


def work_key(**values: Any) -> str:
    """Return the key of a piece of work: `content_key` of what decides it, and of `MEASURE`."""
    return content_key(measure=MEASURE, **values)


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
    seeds: tuple[int, ...]
    versions: dict[str, str]  # package -> version
    hashes: dict[str, str]  # file, relative to the repository -> SHA-256
    command: str

    def write(self, path: str | Path) -> None:
        """Write the manifest as JSON."""
        write_json(path, asdict(self))


def manifest(
    config: str, seeds: Sequence[int], files: Iterable[Path], root: Path, command: str
) -> Manifest:
    """Collect a manifest; `config` is `config.as_json(profile)`, a folder counts as its files."""
    return Manifest(
        config=json.loads(config), seeds=tuple(seeds), versions=package_versions(),
        hashes=file_hashes(files, root), command=command,
    )  # fmt: skip


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide results."""
    found = {name: version(name) for name in PACKAGES if find_spec(name)}
    return {"python": platform.python_version(), **found}


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
