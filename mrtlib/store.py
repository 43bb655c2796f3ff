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
import secrets
from collections.abc import Iterable, Mapping, Sequence
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


class DamagedError(StoreError):
    """A file that is not as it was written."""


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

SEAL = b"sha256 of all else:"
KEY = "key.json"  # in a folder, written last: the key of what it was made of
PROBE = 2**20  # bytes that a folder must have room for before hours are spent
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
    _replace(Path(path), _sealed(sink.getvalue().to_pybytes()))


def read_table(path: str | Path, name: str) -> pd.DataFrame:
    """Read a file that holds records of the schema `name`.

    What is missing comes back as None in a column of texts, and as NaN in one of numbers.

    Raises:
        StoreError: no such file, a damaged one, or one without the columns of the schema.
    """
    return as_frame(read_arrow(Path(path), name))


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
    return pd.read_csv(path, keep_default_na=False, na_values=[""], skip_blank_lines=False,
                       lineterminator="\n")  # fmt: skip


def content_key(**values: Any) -> str:
    """Return 32 hex digits of SHA-256 over plain JSON values: equal values, equal key."""
    return hashlib.sha256(_json(values, "a key").encode()).hexdigest()[:32]


def content_seed(**values: Any) -> int:
    """Return a seed of 48 bits for plain JSON values: equal values, equal seed."""
    return int(content_key(**values)[:12], 16)


def write_json(path: str | Path, value: Any) -> None:
    """Write a plain JSON value, keys sorted, whole or not at all."""
    _replace(Path(path), (_json(value, str(path), indent=1) + "\n").encode())


def is_of_key(folder: Path, key: str) -> bool:
    """Say whether a folder is marked as whole, and as made of what a key stands for."""
    return (folder / KEY).is_file() and read_json(folder / KEY) == key


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


def read_arrow(path: Path, name: str) -> pa.Table:
    """Read a file that holds records of the schema `name`; see `read_table`.

    Raises:
        DamagedError: it is not as it was written.
        StoreError: no such file, or one without the columns of the schema.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist; run the step that writes it first") from error
    except OSError as error:  # the disk, the network, a limit: the file may be whole
        raise StoreError(f"{path} cannot be read now ({error}); try again") from error
    try:
        _check_seal(data)
        # No threads: a process that ends while Arrow's still run may abort (apache/arrow 34314).
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read(use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedError(f"{path} is damaged ({error})") from error
    return conform(table, name, where=str(path))


def _footer(data: bytes) -> int:
    """Return where the footer of a Parquet file begins: its length stands before the last word."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def _sealed(data: bytes) -> bytes:
    """Return a Parquet file with a hash of it put before its footer.

    Readers find the pages by their places from the beginning and the footer by its length, so the
    file stays plain Parquet. The checksums of Parquet itself leave the footer out.
    """
    at = _footer(data)
    return data[:at] + SEAL + hashlib.sha256(data).digest() + data[at:]


def _check_seal(data: bytes) -> None:
    """Raise ValueError when a file does not fit its hash; files from before there was one pass."""
    at = _footer(data)
    begins = at - len(SEAL) - 32
    if begins > 0 and data[begins : at - 32] == SEAL:
        whole = hashlib.sha256(data[:begins] + data[at:]).digest()
        if whole != data[at - 32 : at]:
            raise ValueError("its hash is another one")


def check_folder(folder: Path) -> None:
    """Raise StoreError when a folder cannot be made or written to, or its disk is full."""
    probe = folder / f".probe-{os.getpid()}"
    _replace(probe, bytes(PROBE))
    probe.unlink()


def set_aside(path: Path) -> None:
    """Move a damaged file or folder into the folder `damaged` beside it, and say so."""
    there = path.parent / "damaged" / path.name
    while there.exists():
        there = there.with_name(f"again-{there.name}")
    there.parent.mkdir(exist_ok=True)
    os.replace(path, there)
    print(f"{path} is damaged or not whole: put aside as {there}", flush=True)


def as_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a frame. A text that is missing is None, where pandas makes it NaN.

    NaN is a value to whatever counts, groups or compares texts, and no text is not an answer.
    """
    frame = table.to_pandas(use_threads=False)  # see `read_arrow`
    for field in table.schema:
        if field.nullable and pa.types.is_string(field.type):
            frame[field.name] = pd.Series(table[field.name].to_pylist(), dtype=object)
    return frame


def _replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step; on failure the old file stays and no temporary one."""
    # Machines that share a folder may have equal process numbers.
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
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
