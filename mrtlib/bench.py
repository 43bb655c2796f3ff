"""The benchmark: what information gain costs, each row a ratio of two things measured in turn.

`python -m mrtlib bench` prints one table and writes `bench.csv`. A ratio of two times taken one
after the other survives a machine whose speed changes; the counts of tokens survive any machine.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib import ways
from mrtlib.config import Profile
from mrtlib.store import write_text
from mrtlib.workload import Shape, Spent, Stepper, check_pairs, in_turn, long_profile

COLUMNS = ("row", "goal", "median", "low", "high", "pairs", "tokens_ours", "tokens_other")


@dataclass(frozen=True)
class Goal:
    """What a row has to reach: at most a share of the other's time, or times as fast as it."""

    bound: float
    faster: bool = False
    fewer: float = 0.0  # times fewer tokens

    @property
    def words(self) -> str:
        """The goal as the table says it."""
        text = f"at least {self.bound:g}x as fast" if self.faster else f"at most {self.bound:g}x"
        return text + (f", {self.fewer:g}x fewer tokens" if self.fewer else "")

    def met(self, row: pd.Series) -> bool:
        """Say whether a row of the table reaches the goal, by its median."""
        good = row["median"] >= self.bound if self.faster else row["median"] <= self.bound
        return bool(good and row["tokens_other"] >= self.fewer * row["tokens_ours"])


GOALS = {
    "time of a step, exact / GRPO: embedded reasoner": Goal(1.5),
    "time of a step, exact / GRPO: traces of 1,024": Goal(1.15),
    "time of a step, sampled (K = 4) / GRPO: traces of 1,024": Goal(1.6),
    "exact, packed / a row each: embedded reasoner": Goal(3, True, 4),
    "exact, packed / a row each: traces of 1,024": Goal(3, True, 4),
    "sampled, shared prefix / generate: traces of 1,024": Goal(3, True, 8),
    "our sampling / generate: batch of 64": Goal(1, True),
    "our sampling / generate: batch of 128": Goal(1, True),
    "peak memory of a step, exact / GRPO: traces of 1,024": Goal(1.2),
    "exact, seconds a token: traces of 1,024 / of 128": Goal(1.5),
}


def row_of(name: str, goal: Goal, found: list[tuple[Spent, Spent]]) -> dict:
    """Return a row of the table from pairs of (ours, other): median and range of the ratio."""
    ratios = np.array([ours.amount / other.amount for ours, other in found])
    ratios = 1 / ratios if goal.faster else ratios
    tokens = np.median([[ours.tokens, other.tokens] for ours, other in found], axis=0)
    numbers = np.median(ratios), ratios.min(), ratios.max(), len(found), *tokens.astype(int)
    return dict(zip(COLUMNS, (name, goal.words, *numbers), strict=True))


def measure(profile: Profile, pairs: int, shape: Shape) -> pd.DataFrame:
    """Measure every row, print each as it comes, write `bench.csv` and `cost_by_boundaries.csv`.

    Raises:
        BenchError: fewer than five pairs.
    """
    check_pairs(pairs)
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        long = long_profile(profile, shape, folder)
        steppers = Stepper(profile, folder / "short"), Stepper(long, folder / "long")
        for (row, goal), found in zip(GOALS.items(), _all(*steppers, pairs), strict=True):
            rows.append(row_of(row, goal, found))
            _write(profile.runs / "bench.csv", rows)
            print("{row}: {median:.2f} [{low:.2f}, {high:.2f}]; {goal}".format(**rows[-1]),
                  flush=True)  # fmt: skip
        _write(profile.runs / "cost_by_boundaries.csv", ways.costs(steppers[1]))
    return pd.DataFrame(rows)


def reached(table: pd.DataFrame) -> pd.Series:
    """Say of each row of the table whether it reaches its goal, by its median."""
    return table.apply(lambda row: GOALS[row["row"]].met(row), axis=1)


def markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown: median [range], the goal, and whether it is reached."""
    lines = ["| ours / other | ratio | goal | reached | tokens, ours | tokens, other |",
             "|:--|--:|:--|:--|--:|--:|"]  # fmt: skip
    for row, good in zip(table.itertuples(), reached(table), strict=True):
        lines.append(
            f"| {row.row} | {row.median:.2f} [{row.low:.2f}, {row.high:.2f}] | {row.goal} | "
            f"{'yes' if good else '**no**'} | {row.tokens_ours:,} | {row.tokens_other:,} |"
        )
    return "\n".join(lines) + "\n"


def _all(embedded: Stepper, long: Stepper, pairs: int) -> Iterator[list[tuple[Spent, Spent]]]:
    """Yield the pairs of each row of GOALS, in its order."""
    for stepper, samples in ((embedded, 0), (long, 0), (long, ways.K)):
        yield in_turn(partial(stepper.step, "episode_progress", samples),
                      partial(stepper.step, "outcome"), pairs)  # fmt: skip
    for stepper in (embedded, long):
        yield ways.packed_against_rows(stepper, 8, pairs)
    yield ways.shared_against_generate(long, pairs)
    for rows in (64, 128):
        yield ways.sampling_against_generate(embedded, rows, pairs)
    yield ways.peaks(long.profile, pairs)
    yield ways.growth(long, pairs)


def _write(path: Path, rows: list[dict] | pd.DataFrame) -> None:
    write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.4g"))
