"""Checkpoints that are whole: a mark with the hash of every file is written last.

A run that was killed while it saved leaves a folder without the mark, and a disk may damage one
that has it; the trainer would stop at either, although a good one lies beside it.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback

from mrtlib.store import StoreError, file_hashes, read_json, set_aside, write_json
from mrtlib.training.ranks import Ranks

MARK = "whole.json"
KEPT = 2  # checkpoints: the one before is there until the mark of the last is


class Marking(TrainerCallback):
    """Mark each checkpoint of TRL's as whole once it is on the disk."""

    def on_save(self, args, state, control, **_) -> None:
        """Write the mark, when all processes have written their parts."""
        Ranks.here().wait()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / MARK, file_hashes([folder], folder))


def newest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run; put those that are not whole aside."""
    for found in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        if is_whole(found):
            return found
        set_aside(found)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Say whether a checkpoint has all its files as they were written."""
    try:
        marked = read_json(checkpoint / MARK)
    except StoreError:
        return False
    found = file_hashes([checkpoint], checkpoint)
    return marked == {name: value for name, value in found.items() if name != MARK}


def history(checkpoint: Path) -> Sequence[dict]:
    """Return the log of a run up to a checkpoint."""
    return read_json(checkpoint / "trainer_state.json")["log_history"]


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
