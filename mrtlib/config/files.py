"""Profiles in files: TOML that names the profile it starts from, and what it changes.

    base = "r1-distill-1.5b"

    [model]
    name = "Qwen/Qwen3-0.6B"

    [thinking]
    budget = 4096

Tables and keys are the dataclasses of `settings` and their fields. A path of a model or of problems
that exists beside the file is meant from there, else from the repository's root.
"""

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

from mrtlib.config.limits import check
from mrtlib.config.settings import ROOT, TRAINED_METHODS, Profile, ProfileError

SUFFIX = ".toml"
KEPT = "profile.json"  # the profile of a file, in the runs folder of its name
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PLACES = (("model", "name"), ("data", "folder"))
OWN = ("base", "name")  # keys of a file outside of its tables
KINDS = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}


def read_profile(path: Path, named: Mapping[str, Any]) -> Profile:
    """Return the profile of a TOML file, checked.

    Args:
        named: functions that return the profiles that a file may start from, by name.

    Raises:
        ProfileError: the file is not there or no TOML, or a key, a type or a value in it is wrong;
            the message says in which line, and what is allowed.
    """
    text = _text_of(path)
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{path} is no TOML: {error}") from error
    start = given.get("base")
    if not isinstance(start, str) or start not in named:
        raise _at(path, text, ("base",), f"base = {start!r}; name the profile that this one starts "
                  f"from, one of {', '.join(named)}")  # fmt: skip
    name = given.get("name", path.stem)
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in named:
        raise _at(path, text, ("name",), f"name = {name!r}; it names the folder of the results: "
                  f"letters, digits, '.', '_' and '-', and none of {', '.join(named)}")  # fmt: skip
    tables = {key: value for key, value in given.items() if key not in OWN}
    origin = named[start]()
    training = dataclasses.replace(origin.training, studies=False)  # they cost a training each
    profile = _changed(dataclasses.replace(origin, training=training), tables, path, text)
    profile = dataclasses.replace(_placed(profile, tables, path), name=name)
    try:
        check(profile)
    except ProfileError as error:
        raise _at(path, text, _key_in(str(error), tables), str(error)) from error
    return profile


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ProfileError(f"cannot read the profile {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path} is not in UTF-8: {error.reason}") from error


def _changed(profile: Profile, tables: dict, path: Path, text: str) -> Profile:
    """Return a profile with the values that a file gives, each of its field's type."""
    parts = {item.name for item in dataclasses.fields(Profile)} - {"name"}
    for part, values in tables.items():
        if part not in parts or not isinstance(values, dict):
            raise _at(path, text, (part,), f"{part!r} is no table of a profile; there are "
                      f"{', '.join(f'[{name}]' for name in sorted(parts))}")  # fmt: skip
        own = getattr(profile, part)
        kinds = get_type_hints(type(own))
        for key, value in values.items():
            where = f"{part}.{key}"
            if key not in kinds:
                raise _at(path, text, (part, key), f"there is no {where}; [{part}] has "
                          f"{', '.join(kinds)}")  # fmt: skip
            if where == "training.learning_rate" and isinstance(value, int | float):
                value = dict.fromkeys(TRAINED_METHODS, value)
            try:
                value = as_kind(value, kinds[key])
            except TypeError as error:
                words = f"{where} = {value!r}; it takes {error}"
                raise _at(path, text, (part, key), words) from None
            if isinstance(value, dict):  # what the file does not name stays
                value = {**getattr(own, key), **value}
            own = dataclasses.replace(own, **{key: value})
        profile = dataclasses.replace(profile, **{part: own})
    return profile


def as_kind(value: Any, kind: type | GenericAlias) -> Any:
    """Return a value of TOML or JSON as one of a field's type; TypeError says what that takes."""
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise TypeError(f"a list, each of it {KINDS[item]}")
        return tuple(as_kind(one, item) for one in value)
    if get_origin(kind) is dict:
        _, item = get_args(kind)
        if not isinstance(value, dict):
            raise TypeError("a table of names and values")
        return {str(key): value[key] if item is Any else as_kind(value[key], item) for key in value}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise TypeError(KINDS[kind])
    return value


def _placed(profile: Profile, tables: dict, path: Path) -> Profile:
    """Return a profile whose paths lead to what lies beside its file, where it is there."""
    for part, key in PLACES:
        if key in tables.get(part, {}):
            beside = path.absolute().parent / tables[part][key]
            if beside.exists():
                own = dataclasses.replace(getattr(profile, part), **{key: _short(beside)})
                profile = dataclasses.replace(profile, **{part: own})
    return profile


def _short(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _key_in(message: str, tables: dict) -> tuple[str, ...]:
    """Return the first key that a message names and a file gives."""
    for part, key in re.findall(r"\b(\w+)\.(\w+)\b", message):
        if key in tables.get(part, {}):
            return part, key
    return ()


def _at(path: Path, text: str, key: tuple[str, ...], words: str) -> ProfileError:
    line = line_of(text, key)
    return ProfileError(f"{path}{f', line {line}' if line else ''}: {words}")


def line_of(text: str, key: tuple[str, ...]) -> int | None:
    """Return the line of a TOML text in which a key stands, counted from 1, or None.

    The parser of the standard library keeps no lines; keys are plain words here.
    """
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if head := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = tuple(part.strip(" \"'") for part in head[1].split("."))
            if table == key:
                return number
        elif entry := re.match(r"\s*([\w.\"' -]+?)\s*=", line):
            names = tuple(part.strip(" \"'") for part in entry[1].split("."))
            if (*table, *names)[: len(key)] == key and key:
                return number
    return None


def keep_profile(profile: Profile) -> None:
    """Write a profile of a file into its runs folder, so that it is known by its name from now on.

    The folder says what was run with it, and notebooks need no path.

    Raises:
        ProfileError: the folder cannot be written.
    """
    path = profile.runs / KEPT
    text = json.dumps(dataclasses.asdict(profile), indent=1, sort_keys=True) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"cannot write {path}: {error.strerror}; name another folder in the "
                           "environment variable MRT_RUNS") from error  # fmt: skip


def kept_profile(name: str) -> Profile | None:
    """Return the profile that a file gave this name before, checked, or None.

    Raises:
        ProfileError: it is damaged, or of another version.
    """
    path = Profile(name).runs / KEPT
    if not NAME.fullmatch(name) or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    try:
        tables = json.loads(text)
        profile = _changed(Profile(tables.pop("name")), tables, path, "")
    except (ValueError, KeyError, AttributeError) as error:
        raise ProfileError(f"{path} cannot be read ({error}); give the profile's TOML file once "
                           "more") from error  # fmt: skip
    check(profile)
    return profile
