"""What a step costs at the size that the paper trains: 1.5 billion weights, traces of 8,192 tokens.

`python -m mrtlib scale` builds a Qwen2 of that shape with random weights, loads it in 4 bits with
LoRA as any hub model is loaded, and measures what does not hang on what the weights are: exact J
in one packed pass, sampling, a training step; seconds and peak memory. Each row is written as it
comes.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mrtlib.config import Model, Profile
from mrtlib.experiments.benchmark import sampling, scoring
from mrtlib.experiments.workload import Shape, Stepper, long_profile, timed
from mrtlib.models.loading import device
from mrtlib.models.packing import evaluating
from mrtlib.models.sampling import Sample
from mrtlib.prover import exact
from mrtlib.prover.probes import Probe, references_of
from mrtlib.store import write_csv

# DeepSeek-R1-Distill-Qwen-1.5B's shape; ten boundaries of a trace as long as the paper's curves.
LARGE = Shape(hidden=1536, layers=28, heads=12, key_value_heads=2, intermediate=8960, trace=8192,
              boundaries=10, answer=32, rollouts=8, vocabulary=151_936)  # fmt: skip
ROWS, NEW = (8, 32, 64), 128  # sampled at once; new tokens of each
REPEATS = 3
GIB = 2**30
COLUMNS = ("row", "value", "low", "high", "unit", "n", "tokens", "device")


@dataclass(frozen=True)
class Measured:
    """One number of the table, of so many repetitions, and the tokens that it is of."""

    row: str
    values: list[float]
    unit: str
    tokens: int


class Written:
    """Stands in for the trainer's sampler: traces of random words, all as long, at no cost."""

    tokens = 0

    def __init__(self, stepper: Stepper, length: int) -> None:
        """Take the words that end no trace."""
        never = {stepper.trainer.tokenizer.eos_token_id, *stepper.trainer.reader.close_ids}
        self.words = [i for i in range(len(stepper.trainer.tokenizer)) if i not in never]
        self.length = length

    def sample(
        self, prompts: list[list[int]], n: int, max_tokens: int, temperature: float, top_p: float,
        stop_ids: set[int], seed: int, first: int = 0,
    ) -> list[list[Sample]]:  # fmt: skip
        """Return n traces for each prompt, the same whatever the prompts are."""
        drawn = np.random.default_rng(seed).choice(self.words, (len(prompts), n, self.length))
        return [[Sample(row.tolist(), [-5.0] * self.length, False) for row in rows]
                for rows in drawn]  # fmt: skip


def probe_of(stepper: Stepper, shape: Shape) -> Probe:
    """Return the probe of a random trace, cut evenly."""
    trainer, thinking = stepper.trainer, stepper.profile.thinking
    [problem, *_] = trainer.source.problems
    [[drawn]] = Written(stepper, shape.trace).sample([[]], 1, shape.trace, 1.0, 1.0, set(), 0)
    ends = [shape.trace * (j + 1) // shape.boundaries for j in range(shape.boundaries)]
    references = references_of(problem, trainer.reader.joiner, thinking)
    return Probe(trainer.source.prompts[problem.question], drawn.token_ids, ends, False, references)


def measured(row: str, work: Callable, repeats: int = REPEATS) -> Iterator[Measured]:
    """Yield the seconds of a work, after one run of it, and the most memory that it took.

    A work that runs out of memory says so in its unit.
    """
    cuda = device().type == "cuda"
    try:
        work()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        spent = [work() for _ in range(repeats)]
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        yield Measured(row, [], "out of memory", 0)
        return
    yield Measured(f"{row}: time", [s.amount for s in spent], "s", spent[0].tokens)
    if cuda:
        most = torch.cuda.max_memory_allocated() / GIB
        yield Measured(f"{row}: peak memory, weights included", [most], "GiB", spent[0].tokens)


def all_rows(stepper: Stepper, shape: Shape) -> Iterator[Iterator[Measured]]:
    """Yield the measurements; one is done when its rows are asked for."""
    probe = probe_of(stepper, shape)
    prompt, model = probe.prompt_ids, stepper.model
    ids = torch.tensor([[*prompt, *probe.trace_ids]], device=model.device)

    def forward() -> None:
        with evaluating(model):
            model(input_ids=ids, use_cache=False, logits_to_keep=1)

    trace = f"a trace of {shape.trace:,}"
    yield measured(f"{trace}, plain forward pass", partial(timed, forward, model))
    yield measured(f"{trace}, exact J at {shape.boundaries} boundaries, packed",
                   scoring(stepper, [probe]))  # fmt: skip
    yield measured(f"{trace}, exact J at {shape.boundaries} boundaries, a row each",
                   scoring(stepper, [probe], exact.unpacked))  # fmt: skip
    stepper.trainer.sampler = lambda rows: Written(stepper, shape.trace)
    for name, method in (("GRPO", "outcome"), ("exact J", "regret_to_go")):
        yield measured(f"a step of {shape.rollouts} such traces without their sampling, {name}",
                       partial(stepper.step, method))  # fmt: skip
    for rows in ROWS:
        yield measured(f"sampling {NEW} tokens of {rows} rows",
                       sampling(stepper, [prompt] * rows, 1, NEW, rows))  # fmt: skip


def scale(profile: Profile, shape: Shape = LARGE) -> pd.DataFrame:
    """Measure every row, print each as it comes, and write `scale.csv` into the runs folder."""
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as name:
        stepper = large_stepper(profile, shape, Path(name))
        for found in chain.from_iterable(all_rows(stepper, shape)):
            rows.append(_row(found))
            write_csv(profile.runs / "scale.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
            print("{row}: {value:.3g} {unit}".format(**rows[-1]), flush=True)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def large_stepper(profile: Profile, shape: Shape, folder: Path) -> Stepper:
    """Build the model of a shape in 4 bits with LoRA, and a trainer of it."""
    began = time.monotonic()
    cuda = device().type == "cuda"
    own = long_profile(profile, shape, folder)
    dtype = "bfloat16" if cuda else "float32"
    own = replace(own, model=Model(own.model.name, "nf4", dtype, twin=False, merged=False),
                  training=replace(own.training, micro_batch=1))  # fmt: skip
    stepper = Stepper(own, folder / "trainer")
    print(f"a model of {shape.layers} layers of {shape.hidden}, built and loaded in "
          f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
    return stepper


def _row(found: Measured) -> dict:
    values = np.array(found.values or [np.nan])
    numbers = np.median(values), values.min(), values.max()
    name = torch.cuda.get_device_name() if device().type == "cuda" else "CPU"
    return dict(zip(COLUMNS, (found.row, *numbers, found.unit, len(found.values), found.tokens,
                              name), strict=True))  # fmt: skip


def markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown: the median of the repetitions and their range."""
    lines = ["| what | seconds | peak memory, GiB | tokens |", "|:--|--:|--:|--:|"]
    rows = table.assign(what=table["row"].str.replace(r": (time|peak memory.*)$", "", regex=True))
    for what, part in rows.groupby("what", sort=False):
        time, memory = (part[part["unit"] == unit] for unit in ("s", "GiB"))
        seconds = [f"{t.value:.2f} [{t.low:.2f}, {t.high:.2f}]" for t in time.itertuples()]
        most = [f"{value:.1f}" for value in memory["value"]]  # none on a CPU
        lines.append(f"| {what} | {' '.join(seconds) or 'out of memory'} | {' '.join(most)} | "
                     f"{part['tokens'].max():,} |")  # fmt: skip
    return "\n".join(lines) + "\n"
