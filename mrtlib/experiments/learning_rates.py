"""A small search for the learning rate of every method, on the validation problems.

Every run is recorded in `tuning.csv`. A method gets the rate with the least regret at half the
budget. That is a measure that the comparison of the methods reports.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from mrtlib.config import Profile
from mrtlib.evaluation.results import by_seed_and_problem, level_of_each, metrics_of
from mrtlib.evaluation.sweep import evaluate, load_tables
from mrtlib.stats import proportion
from mrtlib.store import read_csv, write_csv
from mrtlib.training.runs import train


def with_rate(profile: Profile, rate: float, tokens: int) -> Profile:
    """Return the profile with one learning rate and total of tokens for all methods.

    It has a folder of its own.
    """
    rates = dict.fromkeys(profile.training.methods, rate)
    training = replace(profile.training, learning_rate=rates, tokens=tokens)
    return replace(profile, name=f"{profile.name}/tuning/{rate:g}", training=training)


def search(
    profile: Profile, rates: tuple[float, ...], seeds: tuple[int, ...], tokens: int
) -> pd.DataFrame:
    """Train and validate every method at every rate and seed; return and write the table.

    Columns: method, learning_rate, seed, generated (tokens of the run), accuracy (at C0), regret,
    low, high (at C0 / 2), tokens (of a trace). What is trained and measured already is read.

    Args:
        tokens: generated in one run of the search; fewer than the profile's make it cheaper.
    """
    rows, c0 = [], profile.thinking.budget
    for rate in rates:
        own = with_rate(profile, rate, tokens)
        for seed in seeds:
            for method in profile.training.methods:
                folder = evaluate(own, method, seed, train(own, method, seed), "validation")
                found = metrics_of(load_tables(folder), own)
                half = found["regret", c0 // 2]
                regret = proportion(by_seed_and_problem([half], half, "all"), level_of_each(half))
                accuracy, length = (np.mean([v.mean() for v in found[name, c0]])
                                    for name in ("accuracy", "tokens"))  # fmt: skip
                rows.append((method, rate, seed, tokens, accuracy, *vars(regret).values(), length))
                table = _write(rows, profile)
    return table


def _write(rows: list[tuple], profile: Profile) -> pd.DataFrame:
    """Write the rows beside those of other runs that are in the file; return the rows alone."""
    run = ["method", "learning_rate", "seed", "generated"]
    table = pd.DataFrame(rows, columns=[*run, "accuracy", "regret", "low", "high", "tokens"])
    path = profile.runs / "tuning.csv"
    before = [read_csv(path)] if path.is_file() else []
    write_csv(path, pd.concat([*before, table]).drop_duplicates(run, keep="last"))
    return table


def best(table: pd.DataFrame) -> dict[str, float]:
    """Return the learning rate of each method with the least mean regret over the seeds."""
    means = table.groupby(["method", "learning_rate"])["regret"].mean()
    return {method: float(part.idxmin()[1]) for method, part in means.groupby("method")}
