"""Run the numbered notebooks one after the other, say what they do, and keep executed copies.

A notebook that was cut off runs again from its first cell; the library calls in it skip what is
done, so a run goes on from what it has.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode

from mrtlib.config import ROOT, Profile, as_json, load_profile
from mrtlib.evaluation.comparison import regret_in_words, tokens_in_words
from mrtlib.evaluation.tables import results_markdown
from mrtlib.experiments import claims, study_logs, study_results
from mrtlib.experiments.backtracking import efficiency_in_words, progress_in_words, told
from mrtlib.locks import alone
from mrtlib.models.loading import work_key
from mrtlib.pace import SAID
from mrtlib.store import (
    StoreError,
    check_folder,
    file_hashes,
    manifest,
    read_csv,
    read_json,
    write_json,
    write_text,
)
from mrtlib.tasks.problems import check_splits

NOTEBOOKS = ROOT / "notebooks"
CELL_HOURS = 24.0  # that a cell may take
# A notebook about other runs than the pipeline's has a profile of its own. Its copy and manifest
# lie in that profile's runs folder. Its profiles, by those of the pipeline:
OWN = {"05_backtracking_search": {"tiny": "backtrack", "smoke": "backtrack-smoke"},
       "06_claims": {"tiny": "study"}}  # fmt: skip


class BatchError(ValueError):
    """A notebook that stopped, or one that does not exist."""


class Relay:
    """A stream that passes a kernel's printed lines on, each with the notebook's name."""

    def __init__(self, name: str, out: TextIO) -> None:
        self.name, self.out, self.rest = name, out, ""

    def write(self, text: str) -> int:
        """Pass whole lines on; keep the rest until its end comes."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.strip():
                self.out.write(f"  {self.name[:2]} | {line}\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind this one."""
        self.out.flush()


def numbered() -> list[Path]:
    """Return the numbered notebooks in order.

    Raises:
        BatchError: there are none.
    """
    if found := sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        return found
    raise BatchError(f"no notebooks in {NOTEBOOKS}; set MRT_ROOT to a checkout of the repository")


def profile_of(path: Path, profile: Profile) -> Profile | None:
    """Return the profile that a notebook runs with in a pipeline's; None where it has none.

    A profile of `OWN` runs the notebooks that it belongs to, and no others.
    """
    own = OWN.get(path.stem)
    if own is None:
        return None if profile.name in _names_of_own() else profile
    if profile.name in own.values():
        return profile
    return load_profile(own[profile.name]) if profile.name in own else None


def _names_of_own() -> set[str]:
    return {name for names in OWN.values() for name in names.values()}


def reproduce(
    profile: Profile, seed: int, seeds: int, out: TextIO = sys.stdout,
    cell_hours: float = CELL_HOURS,
) -> list[Path]:  # fmt: skip
    """Run every numbered notebook with a profile; return the paths of the executed copies.

    A notebook of `OWN` runs with its own profile, or not at all where it has none for this one.
    Writes NAME.ipynb and manifest.json into the runs folder of the profile that it ran with.

    Args:
        seed, seeds: first training seed, and how many there are from it on. Where more of them
            are on record, all of those are used: reading them costs nothing, and fewer would
            overwrite a better table.
        cell_hours: that a cell may take; one that takes longer is stopped.

    Raises:
        BatchError: notebooks stopped; the message names each with its cell and error. Those behind
            it were run nevertheless.
    """
    profiles = profiles_in(profile)
    for splits in {(own.problems, own.data.train_files) for own in profiles}:  # most share them
        check_splits(*splits)
    for own in profiles:
        check_folder(own.runs)
        check_folder(own.figures)
    with alone(profile.runs, "reproduce"):
        return _reproduce(profile, seed, seeds, out, cell_hours)


def _reproduce(
    profile: Profile, seed: int, seeds: int, out: TextIO, cell_hours: float
) -> list[Path]:
    if (known := seeds_on_record(profile, seed)) > seeds:
        print(f"{known} seeds are on record in {profile.runs}: all are used", file=out, flush=True)
        seeds = known
    copies, failed, books = [], [], numbered()
    for at, path in enumerate(books, start=1):
        own = profile_of(path, profile)
        if own is None:
            print(f"{path.stem}: left out, as it is about other runs than {profile.name!r}'s "
                  "(batch.OWN names its profiles)", file=out, flush=True)  # fmt: skip
            continue
        print(f"{path.stem}: started ({at} of {len(books)})", file=out, flush=True)
        began = time.monotonic()
        parameters = {"profile": own.name, "seed": seed, "interactive": False, "seeds": seeds}
        try:
            executed = execute(path, parameters, Relay(path.stem, out), own.runs, cell_hours)
        except BatchError as error:  # the next may need nothing of it
            failed.append(str(error))
            print(f"{path.stem}: FAILED: {error}", file=out, flush=True)
            continue
        copies.append(own.runs / path.name)
        write_text(copies[-1], nbformat.writes(executed) + "\n")
        print(f"{path.stem}: done in {time.monotonic() - began:.0f} s", file=out, flush=True)
    for line in claims_that_fail(profiles_in(profile)):
        print(line, file=out, flush=True)
    if failed:
        raise BatchError("\n  ".join([f"{len(failed)} of {len(books)} notebooks failed:", *failed]))
    command = f"python -m mrtlib reproduce --profile {profile.name} --seed {seed} --seeds {seeds}"
    for own in profiles_in(profile):
        count = seeds if own == profile else max(1, seeds_on_record(own, seed))
        write_manifest(own, seed, count, command)
    return copies


def claims_that_fail(profiles: Sequence[Profile]) -> list[str]:
    """Return the claims on record that do not hold, each with its notebook, in words."""
    tables = {path.stem: read_csv(path) for own in profiles
              for path in sorted((own.runs / claims.FOLDER).glob("*.csv"))}  # fmt: skip
    return [f"{name[:2]} | {line}" for name, table in sorted(tables.items())
            for line in claims.failing(table)]  # fmt: skip


def profiles_in(profile: Profile) -> list[Profile]:
    """Return the profiles that a pipeline's notebooks run with, its own first if it is one."""
    found = [own for path in numbered() if (own := profile_of(path, profile))]
    return [own for i, own in enumerate(found) if own not in found[:i]]


def write_manifest(profile: Profile, seed: int, seeds: int, command: str) -> None:
    """Write what the records and tables in a profile's runs folder were made from."""
    sources = [*profile.problems.glob("*"), *Path(profile.model_path).glob("*")]
    made_from = [path for path in sources if path.suffix != ".md"]  # words change no result
    made_from += sorted(profile.runs.glob("*.csv"))
    record = manifest(as_json(profile), _key(profile), range(seed, seed + seeds), made_from,
                      ROOT, command)  # fmt: skip
    write_json(profile.runs / "manifest.json", asdict(record))


def seeds_on_record(profile: Profile, seed: int) -> int:
    """Return how many training seeds, from `seed` on, a run with these settings has finished."""
    path = profile.runs / "manifest.json"
    if not path.is_file():
        return 0
    record = read_json(path)
    same = record.get("key") == _key(profile) and record["seeds"][0] == seed
    return len(record["seeds"]) if same else 0


def _key(profile: Profile) -> str:
    """Return what decides a run, but for its seeds: all settings, the base, and the problems."""
    parts = "model lora thinking data prover training evaluation"
    # The splits that runs read; the files of the study's further sets are in their own keys.
    names = dict.fromkeys(("train", *profile.data.train_files, "validation", "test"))
    problems = file_hashes([profile.problems / f"{n}.jsonl" for n in names], profile.problems)
    return work_key(profile, parts, name=profile.name, problems=problems)


def execute(
    path: Path, parameters: dict, stream: TextIO, runs: Path, cell_hours: float = CELL_HOURS
) -> NotebookNode:
    """Run one notebook in the notebooks folder and return it, cleaned for committing.

    Of the parameters, those that the notebook has are passed. No progress bars: in a batch run
    each of their updates is a line.

    Raises:
        BatchError: a cell raised; what it had printed by then went to the stream, the whole
            traceback is in NAME.error.txt in the runs folder. Or a cell took too long.
    """
    known = papermill.inspect_notebook(str(path))
    wanted = {name: value for name, value in parameters.items() if name in known}
    trouble = runs / f"{path.stem}.error.txt"
    try:
        with _environment(TQDM_DISABLE="1", MRT_RUNS=str(runs.parent)):
            book = papermill.execute_notebook(
                path, None, wanted, kernel_name="python3", cwd=path.parent,
                progress_bar=False, stdout_file=stream, execution_timeout=int(3600 * cell_hours),
                extra_arguments=["--IPKernelApp.log_level=50"],  # no notices at start and end
            )  # fmt: skip
    except KeyboardInterrupt:
        # Pending tasks of the client find the kernel dead; each would print a traceback at exit.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except CellTimeoutError as error:
        raise BatchError(
            f"{path.stem} was stopped: a cell took more than {cell_hours:g} h. What it had done is "
            "on record, and a new start goes on from there; give it more time with --cell-hours"
        ) from error
    except papermill.PapermillExecutionError as error:
        where = f" (all of it in {trouble})"
        try:
            write_text(trouble, "\n".join(error.traceback) + "\n")
        except StoreError:  # a full disk, say, which is what the cell stopped at
            where = ""
        raise BatchError(
            f"{path.stem} stopped in cell {error.cell_index}: {error.ename}: "
            f"{error.evalue.partition(chr(10))[0]}{where}"
        ) from error
    trouble.unlink(missing_ok=True)
    return cleaned(book, {str(runs): f"data/runs/{runs.name}", str(ROOT): ".", sys.prefix: "env"})


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables that the kernels inherit, and put the old ones back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def cleaned(book: NotebookNode, names: dict[str, str]) -> NotebookNode:
    """Return an executed notebook without what belongs to the machine and the hour.

    Removed are widget states (a viewer without the kernel cannot use them), papermill's and the
    kernel's records of paths and times, and library notices on stderr.

    Args:
        names: local paths in outputs and what to write instead, tried in this order.
    """
    book = nbformat.from_dict(book)
    for key in ("widgets", "papermill"):
        book.metadata.pop(key, None)
    book.metadata.get("language_info", {}).pop("version", None)  # of a Python, to the patch
    for cell in book.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.id = "injected-parameters"  # papermill draws one at random
        if not tags:
            cell.metadata.pop("tags", None)
        if cell.cell_type == "code":
            cell.outputs = [_portable(o, names) for o in cell.outputs if _lasts(o)]
    return book


def _lasts(output: NotebookNode) -> bool:
    """Take the lines that say how far a loop was out of an output; say whether anything is left."""
    if output.output_type != "stream":
        return True
    lines = output.text.splitlines(keepends=True)
    output.text = "".join(line for line in lines if not SAID.fullmatch(line.strip()))
    return output.name != "stderr" and bool(output.text)


def _portable(output: NotebookNode, names: dict[str, str]) -> NotebookNode:
    """Replace local paths in an output's texts; pictures are left as they are."""
    for holder in (output, output.get("data", {})):
        for key, value in holder.items():
            if isinstance(value, str) and (key == "text" or key.startswith("text/")):
                for local, name in names.items():
                    value = value.replace(local, name)
                holder[key] = value
    return output


def summary(profile: Profile) -> str:
    """Return the results of a finished run: tables, what was found in words, where the figures are.

    Raises:
        BatchError: the run has no results yet.
    """
    parts, profiles = [], profiles_in(profile)
    for own in profiles:
        tell = next((tell for name, tell in TOLD.items() if own.name in OWN[name].values()), None)
        parts += (tell or _of_methods)(own)
    figures = sorted({path for own in profiles for path in own.figures.glob("*.pdf")})
    title = "Figures (each also as PNG, and its numbers as CSV):"
    return "\n".join([*parts, title, *(f"  {path}" for path in figures)])


def _of_methods(profile: Profile) -> list[str]:
    """Return the results table of the methods, and what MRT removed and saved in words."""
    table, removed, equal = _tables(profile, "results", "regret_removed",
                                    "tokens_used_at_equal_accuracy")  # fmt: skip
    rows = [regret_in_words(row) for row in read_csv(removed).itertuples()]
    rows += [tokens_in_words(row) for row in read_csv(equal).itertuples()]
    return [
        results_markdown(read_csv(table), profile.thinking.budget), *(f"- {row}" for row in rows),
        f"Results: {table}", f"Tables in LaTeX: {profile.runs / 'tables'}", "",
    ]  # fmt: skip


def _of_search(profile: Profile) -> list[str]:
    """Return what was found of backtracking search, in words."""
    gaps, votes = _tables(profile, "progress_differences", "vote_efficiency")
    rows = [progress_in_words(row) for row in read_csv(gaps).itertuples()]
    rows += [efficiency_in_words(row) for row in told(read_csv(votes)).itertuples()]
    return [f"Backtracking search ({profile.name}):", *(f"- {row}" for row in rows), ""]


def _of_study(profile: Profile) -> list[str]:
    """Return the primary comparisons of the study in words, and how far it is."""
    first = study_results.primary(study_results.recorded(profile), profile.thinking.budget)
    record, gaps = study_logs.on_record(profile), study_logs.gaps(study_logs.logs(profile))
    return [f"Study ({profile.name}):", study_results.in_words(first, len(profile.training.seeds)),
            study_logs.in_words(record, gaps), ""]  # fmt: skip


# What is told of a notebook's own profile.
TOLD = {"05_backtracking_search": _of_search, "06_claims": _of_study}


def _tables(profile: Profile, *names: str) -> list[Path]:
    """Return the tables of a run by name; BatchError when one is missing."""
    paths = [profile.runs / f"{name}.csv" for name in names]
    for path in paths:
        if not path.is_file():
            raise BatchError(f"{path} does not exist; run reproduce with this profile first")
    return paths
