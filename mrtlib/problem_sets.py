"""How the Countdown problem sets in `data/problems/` are made: one command, one seed.

Two levels: `three` and `four` numbers from 1 to 20, target 10 to 50. A problem is kept when it has
a solution whose every result lies between 1 and 60, its target is not one of its numbers, and its
accepted answers are few (so that all of them can be scored). Splits are disjoint by (sorted
numbers, target); `warmup` is what is left over: the reasoner learns from it and no file holds it.
"""

import itertools
import json
from pathlib import Path
from random import Random

from mrtlib.countdown import accepted
from mrtlib.problems import Problem, as_record, countdown
from mrtlib.searchers import reachable

LARGEST = 20
TARGETS = range(10, 51)
NUMBERS = {"three": 3, "four": 4}
MOST_REFERENCES = {"three": 6, "four": 8}
CHOICES = {"three": None, "four": 1500}  # sets of numbers that are looked at; None: all of them
SPLITS = {"test": 500, "validation": 250, "train": 1500}


def candidates(level: str, rng: Random) -> list[Problem]:
    """List every problem of a level over the chosen sets of numbers, shuffled."""
    sets = list(itertools.combinations(range(1, LARGEST + 1), NUMBERS[level]))
    if CHOICES[level] is not None:
        sets = rng.sample(sets, CHOICES[level])
    out = []
    for numbers in sets:
        answers = accepted(numbers)
        out += [
            countdown(numbers, target, level)
            for target in sorted(reachable(numbers))
            if target in TARGETS
            and target not in numbers
            and len(answers[target]) <= MOST_REFERENCES[level]
        ]
        accepted.cache_clear()  # thousands of expressions for each set of four numbers
    rng.shuffle(out)
    return out


def make_splits(seed: int) -> dict[str, list[Problem]]:
    """Make all problems and divide them: test, validation, train, and the rest as warmup."""
    splits: dict[str, list[Problem]] = {name: [] for name in (*SPLITS, "warmup")}
    for level in NUMBERS:
        left = candidates(level, Random(f"{seed}/{level}"))
        for name, count in SPLITS.items():
            splits[name] += left[:count]
            left = left[count:]
        splits["warmup"] += left
    return splits


def write_splits(folder: Path, seed: int) -> dict[str, int]:
    """Write `train`, `validation` and `test` as JSONL into a folder and return the counts."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = make_splits(seed)
    for name in SPLITS:
        lines = [json.dumps(as_record(problem)) + "\n" for problem in splits[name]]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {name: len(problems) for name, problems in splits.items()}
