"""The benchmark: what information gain costs, each row a ratio of two things measured in turn.

`python -m mrtlib bench` prints one table and writes `bench.csv`. A ratio of two times taken one
after the other survives a machine whose speed changes; the counts of tokens survive any machine.
"""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib import prover
from mrtlib.config import Profile
from mrtlib.models import prompt_ids
from mrtlib.passes import evaluating
from mrtlib.probes import Probe
from mrtlib.problems import load_problems
from mrtlib.sampling import TransformersSampler
from mrtlib.store import write_text
from mrtlib.workload import Shape, Spent, Stepper, long_profile, timed

COLUMNS = ("row", "goal", "median", "low", "high", "pairs", "tokens_ours", "tokens_other")
FEWEST = 5  # pairs
K = 4  # sampled answers at a boundary


@dataclass(frozen=True)
class Goal:
    """What a row has to reach. `times`: a share of the other's time, or times as fast as it."""

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
Work = Callable[[], Spent]


def in_turn(ours: Work, other: Work, pairs: int) -> list[tuple[Spent, Spent]]:
    """Run two works in turn, each once before it counts; every second pair begins with the other.

    Raises:
        ValueError: fewer than five pairs.
    """
    if pairs < FEWEST:
        raise ValueError(f"{pairs} pairs say little about a ratio; take {FEWEST} or more")
    ours(), other()
    found = []
    for pair in range(pairs):
        both = [work() for work in ((ours, other), (other, ours))[pair % 2]]
        found.append((both[pair % 2], both[1 - pair % 2]))
    return found


def row_of(name: str, found: list[tuple[Spent, Spent]], value=lambda spent: spent.seconds) -> dict:
    """Return a row of the table from pairs of (ours, other): median and range of the ratio."""
    goal = GOALS[name]
    ratios = np.array([value(ours) / value(other) for ours, other in found])
    ratios = 1 / ratios if goal.faster else ratios
    tokens = np.median([[ours.tokens, other.tokens] for ours, other in found], axis=0)
    numbers = np.median(ratios), ratios.min(), ratios.max(), len(found), *tokens.astype(int)
    return dict(zip(COLUMNS, (name, goal.words, *numbers), strict=True))


def measure(profile: Profile, pairs: int, shape: Shape = Shape()) -> pd.DataFrame:  # noqa: B008
    """Measure every row, print each as it comes, and write `bench.csv` and `cost.csv`."""
    with tempfile.TemporaryDirectory() as name:
        folder, names, rows = Path(name), iter(GOALS), []
        for found, *value in _all(profile, long_profile(profile, shape, folder), folder, pairs):
            rows.append(row_of(next(names), found, *value))
            _write(profile.runs / "bench.csv", rows)
            print("{row}: {median:.2f} [{low:.2f}, {high:.2f}]; {goal}".format(**rows[-1]),
                  flush=True)  # fmt: skip
    return pd.DataFrame(rows)


def _all(short: Profile, long: Profile, folder: Path, pairs: int) -> Iterator[tuple]:
    """Yield the pairs of each row of GOALS, in its order."""
    embedded, other = Stepper(short, folder / "short"), Stepper(long, folder / "long")
    plain, exact = "outcome", "episode_progress"
    yield (in_turn(lambda: embedded.step(exact), lambda: embedded.step(plain), pairs),)
    yield (in_turn(lambda: other.step(exact), lambda: other.step(plain), pairs),)
    yield (in_turn(lambda: other.step(exact, K), lambda: other.step(plain), pairs),)
    yield (packed_against_rows(embedded, 8, pairs),)
    yield (packed_against_rows(other, 8, pairs),)
    yield (shared_against_generate(other, pairs),)
    for rows in (64, 128):
        yield (sampling_against_generate(embedded, rows, pairs),)
    yield peaks(long, folder, pairs), lambda spent: spent.seconds
    yield growth(other, pairs), lambda spent: spent.seconds / spent.tokens


def probes_of(stepper: Stepper, count: int) -> list[Probe]:
    """Return the probes of the last step's first rollouts."""
    made, read = stepper.rollouts[:count], stepper.trainer.reader.references
    return [
        Probe(r.prompt_ids, r.trace_ids, r.boundaries, r.closed, read(r.problem)) for r in made
    ]


def scoring(stepper: Stepper, probes: list[Probe], way=prover.exact) -> Work:
    """Return the work of measuring exact J of probes one way."""
    settings, model = stepper.profile.prover, stepper.model

    def work() -> Spent:
        with timed(model) as spent:
            way(model, probes, stepper.trainer.estimator.termination, settings.temperature,
                settings.pack_tokens)  # fmt: skip
        return spent[0]

    return work


def packed_against_rows(stepper: Stepper, count: int, pairs: int) -> list[tuple[Spent, Spent]]:
    """Compare one packed row a trace with one plain row for each boundary and reference."""
    probes = probes_of(stepper, count)
    return in_turn(
        scoring(stepper, probes), scoring(stepper, probes, prover.exact_unpacked), pairs
    )


def growth(stepper: Stepper, pairs: int) -> list[tuple[Spent, Spent]]:
    """Compare exact J of whole traces with that of their first eighth, boundaries as many."""
    whole = probes_of(stepper, 8)
    cut = [replace(p, trace_ids=p.trace_ids[: len(p.trace_ids) // 8],
                   boundaries=[t // 8 for t in p.boundaries]) for p in whole]  # fmt: skip
    return in_turn(scoring(stepper, whole), scoring(stepper, cut * 4), pairs)


def boundary_prompts(stepper: Stepper, probes: list[Probe]) -> list[list[list[int]]]:
    """Return what mu reads, first index the boundary: forks of all traces at one boundary."""
    ending = stepper.trainer.estimator.termination
    return [[ending.prompt(p, j) for p in probes] for j in range(len(probes[0].ends))]


def shared(stepper: Stepper, probes: list[Probe], max_tokens: int, k: int = K) -> Work:
    """Return the work of drawing k answers at every boundary from shared prefixes."""
    prompts = [prompt for level in boundary_prompts(stepper, probes) for prompt in level]
    tokenizer, rows = stepper.trainer.tokenizer, stepper.profile.evaluation.batch_rows
    sampler = TransformersSampler(stepper.model, tokenizer.pad_token_id, rows)

    def work() -> Spent:
        with timed(stepper.model) as spent:
            sampler.sample(prompts, k, max_tokens, 1.0, 1.0, {tokenizer.eos_token_id}, 0)
        return spent[0]

    return work


def generated(stepper: Stepper, probes: list[Probe], max_tokens: int, k: int = K) -> Work:
    """Return the same work by `generate`, a call for the forks of all traces at one boundary."""
    levels = boundary_prompts(stepper, probes)
    return _generate(stepper, levels, max_tokens, num_return_sequences=k)


def _generate(stepper: Stepper, batches: list[list[list[int]]], max_tokens: int, **more) -> Work:
    tokenizer, model = stepper.trainer.tokenizer, stepper.model
    padded = [tokenizer.pad({"input_ids": b}, return_tensors="pt").to(model.device)
              for b in batches]  # fmt: skip

    def work() -> Spent:
        with timed(model) as spent, evaluating(model):
            for batch in padded:
                model.generate(
                    **batch, do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
                    max_new_tokens=max_tokens, eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id, **more,
                )  # fmt: skip
        return spent[0]

    return work


def shared_against_generate(stepper: Stepper, pairs: int) -> list[tuple[Spent, Spent]]:
    """Compare sampled J from shared prefixes with `generate`; tokens are those of the prefill.

    The prefill is counted in a run that draws a single token of each answer.
    """
    probes, long = probes_of(stepper, 8), stepper.profile.thinking.answer_tokens
    found = in_turn(shared(stepper, probes, long), generated(stepper, probes, long), pairs)
    ours, other = (way(stepper, probes, 1)().tokens for way in (shared, generated))
    return [(replace(a, tokens=ours), replace(b, tokens=other)) for a, b in found]


def sampling_against_generate(
    stepper: Stepper, rows: int, pairs: int
) -> list[tuple[Spent, Spent]]:
    """Compare rollouts of as many problems as rows, in one batch: seconds for all of them."""
    profile, trainer = stepper.profile, stepper.trainer
    problems = load_problems(profile.problems / "train.jsonl", rows)[:rows]
    prompts = [prompt_ids(trainer.tokenizer, p.question, profile.thinking) for p in problems]
    most = profile.thinking.budget + profile.thinking.answer_tokens
    sampler = TransformersSampler(stepper.model, trainer.tokenizer.pad_token_id, rows)

    def ours() -> Spent:
        with timed(stepper.model) as spent:
            sampler.sample(prompts, 1, most, 1.0, 1.0, {trainer.tokenizer.eos_token_id}, 0)
        return spent[0]

    return in_turn(ours, _generate(stepper, [prompts], most), pairs)


def peaks(profile: Profile, folder: Path, pairs: int) -> list[tuple[Spent, Spent]]:
    """Compare bytes of memory (as `seconds`) that a step takes over what the trainer holds.

    Each step is taken in a process of its own: a process keeps the memory that it once had.
    """
    found = []
    for pair in range(pairs):
        both = []
        for method in ("episode_progress", "outcome"):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                both.append(pool.submit(_peak, profile, method, folder / str(pair)).result())
        found.append((both[0], both[1]))
    return found


def _peak(profile: Profile, method: str, folder: Path) -> Spent:
    stepper = Stepper(profile, folder)
    held = _memory("VmRSS")
    tokens = stepper.step(method).tokens
    return Spent(float(_memory("VmHWM") - held), tokens)


def _memory(name: str) -> int:
    """Return a line of the kernel's account of this process, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def _write(path: Path, rows: list[dict]) -> None:
    write_text(path, pd.DataFrame(rows).to_csv(index=False, float_format="%.4g"))
