"""The study: every form of the method, trained for long, with several seeds, and then measured.

Its protocol is in notebook 06. It is a queue of tasks (`experiments.queue`) that any number of
processes and machines with one folder work off. What is kept of a run is small: its log (`steps`)
and a number for each test problem, measure and budget (`measures`); adapters lie beside them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from mrtlib.config import TRAINED_METHODS, Profile
from mrtlib.shards import Shards
from mrtlib.store import is_of_key
from mrtlib.training.runs import train, training_key

# Compared with ten seeds and at two lengths; the rest with five, at one.
MAIN = ("outcome", "final_progress", "mixed_group", "episode_progress", "regret_to_go")
REST = tuple(method for method in TRAINED_METHODS if method not in MAIN)
BESIDE = ("outcome", "mixed_group")  # what the rest is compared with, at its length
# Tokens through the model (sampled, probed, learned) in a run: about 60, 120 and 240 steps of
# `outcome`. A step of the others has more of them or fewer, so they take fewer steps, or more.
LENGTHS = {"short": 1_600_000, "middle": 3_200_000, "long": 6_400_000}
RATES = (5e-4, 1e-3, 2e-3, 4e-3)  # peak rates of the search, which decay as they do in the study
SEARCH_TOKENS, SEARCH_SEED = 1_300_000, 100
BROKEN = 0.05  # a run has broken down where its validation accuracy ends so far below its best


@dataclass(frozen=True)
class Part:
    """Runs of the study that have their settings in common, in a folder of that name."""

    name: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    change: Callable[[Profile], Profile]  # of the study's profile

    def settings(self, profile: Profile) -> Profile:
        """Return the profile of these runs."""
        return replace(self.change(profile), name=f"{profile.name}/{self.name}")


def trained_for(tokens: int) -> Callable[[Profile], Profile]:
    """Return the change of a profile to a number of tokens through the model."""
    return lambda profile: replace(profile, training=replace(profile.training, tokens=tokens))


def at_rate(rate: float) -> Callable[[Profile], Profile]:
    """Return the change of a profile to the search's tokens, and to one rate for all methods."""
    def change(profile: Profile) -> Profile:
        rates = dict.fromkeys(TRAINED_METHODS, rate)
        training = replace(profile.training, learning_rate=rates, tokens=SEARCH_TOKENS)
        return replace(profile, training=training)

    return change


def searched(methods: Sequence[str] = TRAINED_METHODS) -> list[Part]:
    """Return the search for the peak learning rate: the same for every method, one seed."""
    return [Part(f"search/{rate:g}", tuple(methods), (SEARCH_SEED,), at_rate(rate))
            for rate in RATES]  # fmt: skip


def compared(profile: Profile) -> list[Part]:
    """Return the runs of the comparison; the short ones first, as they are whole soonest."""
    seeds = profile.training.seeds
    few = seeds[: len(seeds) // 2]
    return [
        Part("short", MAIN, seeds, trained_for(LENGTHS["short"])),
        Part("long", MAIN, seeds, trained_for(LENGTHS["long"])),
        Part("middle", (*BESIDE, *REST), few, trained_for(LENGTHS["middle"])),
    ]


@dataclass(frozen=True)
class Training:
    """One run of a part, as a task of the queue; its record is its log."""

    profile: Profile  # the study's
    part: Part
    method: str
    seed: int

    @cached_property
    def settings(self) -> Profile:
        """Return the settings of the run."""
        return self.part.settings(self.profile)

    @property
    def name(self) -> str:
        """Return part, method and seed."""
        return f"train-{self.part.name.replace('/', '-')}-{self.method}-{self.seed}"

    @property
    def size(self) -> float:
        """Return the tokens through the model."""
        return float(self.settings.training.tokens)

    @cached_property
    def key(self) -> str:
        """Return the name of its log among the records."""
        return f"{self.method}-{self.seed}-{self.full_key[:16]}"

    @cached_property
    def full_key(self) -> str:
        """Return what decides the run, as it stands beside the adapter."""
        return training_key(self.settings, self.method, self.seed)

    @property
    def adapter(self) -> Path:
        """Return the folder that the adapter lies in once it is trained."""
        return self.settings.adapter(self.method, self.seed)

    def trained(self) -> bool:
        """Say whether the adapter is there, whole, and of these settings."""
        return is_of_key(self.adapter, self.full_key)

    def made(self) -> Path:
        """Return the folder of the adapter, trained again where its log alone is on record."""
        if not self.trained():
            train(self.settings, self.method, self.seed)
        return self.adapter

    @property
    def record(self) -> Shards:
        """Return the logs of all runs of the study."""
        return Shards(self.profile.runs / "steps", "steps")

    def done(self) -> bool:
        """Say whether its log is on record."""
        return self.record.has(self.key)

    def ready(self) -> bool:
        """Return True: a run needs no other."""
        return True

    def do(self) -> None:
        """Train, or go on from the last checkpoint; put the log on record."""
        folder = train(self.settings, self.method, self.seed)
        steps = Shards(folder, "steps").read(["steps"])
        rows = steps.astype(object).where(steps.notna(), None).to_dict("records")
        self.record.write(self.key, rows)


def trainings(profile: Profile, parts: Sequence[Part]) -> list[Training]:
    """Return the runs of some parts: seed by seed, so that a study that is cut short is paired."""
    return [
        Training(profile, part, method, seed)
        for part in parts
        for seed in part.seeds
        for method in part.methods
    ]


RATE_COLUMNS = ("method", "seed", "steps", "learning_rate", "accuracy", "regret", "best", "broken")


def rates_tried(runs: Sequence[Training], record: Shards) -> pd.DataFrame:
    """Return how each run of the search ended, of those that are on record.

    Columns: method, seed, steps, learning_rate, accuracy, regret (on the validation problems, after
    the last step), best (accuracy on the way), broken, chosen.
    """
    rows = []
    for run in [run for run in runs if record.has(run.key)]:
        steps = record.read([run.key])
        known = steps.dropna(subset="validation")
        last, best = known.iloc[-1], float(known["validation"].max())
        rows.append({
            "method": run.method, "seed": run.seed, "steps": len(steps),
            "learning_rate": run.settings.training.rate(run.method),
            "accuracy": last["validation"], "regret": last["validation_regret"], "best": best,
            "broken": bool(last["validation"] < best - BROKEN),
        })  # fmt: skip
    table = pd.DataFrame(rows, columns=RATE_COLUMNS)
    table = table.sort_values(["method", "learning_rate"], kind="stable", ignore_index=True)
    chosen = table["method"].map(best_rates(table))
    return table.assign(chosen=table["learning_rate"] == chosen)


def best_rates(table: pd.DataFrame) -> dict[str, float]:
    """Return the rate of each method: the least regret, but never next below a run that broke down.

    Among the rates whose run did not break down, and whose next higher one was tried and did not
    either, the one that ends with the least regret at C0 on the validation problems; so the highest
    rate is tried to see that the next lower one is safe. Where no rate is left, the lowest.
    """
    found = {}
    for method, runs in table.groupby("method"):
        runs = runs.groupby("learning_rate")[["regret", "broken"]].mean().sort_index()
        broken = runs["broken"] > 0
        safe = runs[~broken & ~broken.shift(-1, fill_value=True)]
        found[method] = float(safe["regret"].idxmin() if len(safe) else runs.index[0])
    return found
