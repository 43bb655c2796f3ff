"""The benchmark: what information gain costs, each row a ratio of two works measured in turn.

`python -m mrtlib bench` prints one table and writes `bench.csv`. A ratio of two times, taken one
after the other, is valid even where the speed of the machine changes; counts of tokens do not
depend on the machine.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mrtlib.config import Profile
from mrtlib.experiments import workload
from mrtlib.experiments.workload import Pairs, Shape, Spent, Stepper, Work, in_turn, timed
from mrtlib.models.caches import Kept
from mrtlib.models.packing import evaluating
from mrtlib.models.sampling import TransformersSampler
from mrtlib.models.tokens import prompt_ids
from mrtlib.prover import exact
from mrtlib.prover.probes import Probe, references_of
from mrtlib.prover.prover import limits
from mrtlib.store import write_csv
from mrtlib.tasks.problems import load_problems

K = 4  # sampled answers at a boundary
BOUNDARIES = (1, 2, 4, 8, 16)
REPEATS = 3
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
    "time of a step, ours / as it was: embedded reasoner": Goal(0.5),
    "time of a step, ours with a bfloat16 twin / as it was: embedded reasoner": Goal(0.5),
    "time of a step, exact / GRPO: embedded reasoner": Goal(1.15),
    "time of a step, exact / GRPO: traces of 1,024": Goal(1.15),
    "time of a step, exact / GRPO: 32 traces of 1,024, 16 at a time": Goal(1.15),
    "time of a step, sampled (K = 4) / GRPO: traces of 1,024": Goal(1.6),
    "exact, packed / a row each: embedded reasoner": Goal(3, True, 4),
    "exact, packed / a row each: traces of 1,024": Goal(3, True, 4),
    "sampled, shared prefix / generate: traces of 1,024": Goal(3, True, 8),
    "our sampling / generate: batch of 64": Goal(1, True),
    "our sampling / generate: batch of 128": Goal(1, True),
    "peak memory of a step, exact / GRPO: traces of 1,024": Goal(1.2),
    "exact, seconds a token: traces of 1,024 / of 128": Goal(1.5),
}


def probes_of(stepper: Stepper, count: int) -> list[Probe]:
    """Return the probes of the last step's first rollouts."""
    return [stepper.trainer.prover.probe(r) for r in stepper.rollouts[:count]]


def boundary_prompts(stepper: Stepper, probes: list[Probe]) -> list[list[list[int]]]:
    """Return what mu reads, first index the boundary: prompts of all traces at one boundary."""
    ending = stepper.trainer.prover.termination
    return [[ending.prompt(p, j) for p in probes] for j in range(len(probes[0].ends))]


def scoring(
    stepper: Stepper, probes: list[Probe], score: Callable = exact.packed, **more: list[Kept]
) -> Work:
    """Return the work of measuring exact J of probes, `exact.packed` or `exact.unpacked`."""
    prover, settings = stepper.trainer.prover, stepper.profile.prover
    run = partial(score, stepper.model, probes, prover.termination, settings.temperature,
                  limits(settings), **more)  # fmt: skip
    return partial(timed, run, stepper.model)


def sampling(
    stepper: Stepper, prompts: list[list[int]], n: int, max_tokens: int, batch_rows: int
) -> Work:
    """Return the work of drawing n continuations of each prompt by our sampler."""
    tokenizer = stepper.trainer.tokenizer
    sampler = TransformersSampler(stepper.model, tokenizer.pad_token_id, batch_rows)
    stop = {tokenizer.eos_token_id}
    run = partial(sampler.sample, prompts, n, max_tokens, 1.0, 1.0, stop, 0)
    return partial(timed, run, stepper.model)


def generating(stepper: Stepper, batches: list[list[list[int]]], n: int, max_tokens: int) -> Work:
    """Return the same work by `generate`, with one call for each batch of prompts."""
    tokenizer, model = stepper.trainer.tokenizer, stepper.model
    padded = [tokenizer.pad({"input_ids": b}, return_tensors="pt").to(model.device)
              for b in batches]  # fmt: skip

    def run() -> None:
        with evaluating(model):
            for batch in padded:
                model.generate(
                    **batch, do_sample=True, temperature=1.0, top_p=1.0, top_k=0, use_cache=True,
                    max_new_tokens=max_tokens, num_return_sequences=n,
                    eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
                )  # fmt: skip

    return partial(timed, run, model)


def shared(stepper: Stepper, probes: list[Probe], max_tokens: int) -> Work:
    """Return the work of drawing K answers at every boundary from shared prefixes."""
    prompts = [prompt for level in boundary_prompts(stepper, probes) for prompt in level]
    return sampling(stepper, prompts, K, max_tokens, stepper.profile.evaluation.batch_rows)


def generated(stepper: Stepper, probes: list[Probe], max_tokens: int) -> Work:
    """Return the same work by `generate`, with one call for all traces at one boundary."""
    return generating(stepper, boundary_prompts(stepper, probes), K, max_tokens)


def against_one_batch(ours: Stepper, other: Stepper, pairs: int) -> Pairs:
    """Compare a step with exact J with one that saves nothing (`workload.in_one_batch`)."""
    saving = partial(ours.step, "regret_to_go")
    none = partial(other.step, "regret_to_go", settings=workload.in_one_batch(other.profile))
    return in_turn(saving, none, pairs)


def packed_against_rows(stepper: Stepper, count: int, pairs: int) -> Pairs:
    """Compare one packed row for each trace with a plain row for each boundary and reference."""
    probes = probes_of(stepper, count)
    return in_turn(scoring(stepper, probes), scoring(stepper, probes, exact.unpacked), pairs)


def growth(stepper: Stepper, pairs: int) -> Pairs:
    """Compare exact J of whole traces and of their first eighth, with as many boundaries."""
    whole = probes_of(stepper, 8)
    cut = [replace(p, trace_ids=p.trace_ids[: len(p.trace_ids) // 8],
                   boundaries=[t // 8 for t in p.boundaries]) for p in whole]  # fmt: skip
    found = in_turn(scoring(stepper, whole), scoring(stepper, cut * 4), pairs)
    return [tuple(Spent(s.amount / s.tokens, s.tokens) for s in pair) for pair in found]


def shared_against_generate(stepper: Stepper, pairs: int) -> Pairs:
    """Compare sampled J from shared prefixes with `generate`; tokens are those of the prefill.

    The prefill is counted in a run that draws a single token of each answer.
    """
    probes, long = probes_of(stepper, 8), stepper.profile.thinking.answer_tokens
    found = in_turn(shared(stepper, probes, long), generated(stepper, probes, long), pairs)
    ours, other = (work(stepper, probes, 1)().tokens for work in (shared, generated))
    return [(replace(a, tokens=ours), replace(b, tokens=other)) for a, b in found]


def sampling_against_generate(stepper: Stepper, rows: int, pairs: int) -> Pairs:
    """Compare rollouts of as many problems as rows, in one batch."""
    profile, tokenizer = stepper.profile, stepper.trainer.tokenizer
    problems = load_problems(profile.problems / "train.jsonl", rows)[:rows]
    prompts = [prompt_ids(tokenizer, p.question, profile.thinking) for p in problems]
    most = profile.thinking.budget + profile.thinking.answer_tokens
    ours = sampling(stepper, prompts, 1, most, rows)
    return in_turn(ours, generating(stepper, [prompts], 1, most), pairs)


def peaks(profile: Profile, pairs: int) -> Pairs:
    """Compare the bytes of memory that a step takes beyond what the trainer has before it.

    Each step is taken in a process of its own, as a process keeps the memory that it once had.
    """

    def alone(method: str) -> Spent:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(peak, profile, method).result()

    return [(alone("episode_progress"), alone("outcome")) for _ in range(pairs)]


def peak(profile: Profile, method: str) -> Spent:
    """Return the most bytes that the first step of a method took in this process."""
    with tempfile.TemporaryDirectory() as folder:
        stepper = Stepper(profile, Path(folder))
        cuda = stepper.model.device.type == "cuda"
        before = torch.cuda.memory_allocated() if cuda else _memory("VmRSS")
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        tokens = stepper.step(method).tokens
        most = torch.cuda.max_memory_allocated() if cuda else _memory("VmHWM")
        return Spent(float(most - before), tokens)


def _memory(name: str) -> int:
    """Return a line of the kernel's account of this process, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def _all_rows(
    embedded: Stepper, half: Stepper, long: Stepper, wide: Stepper, pairs: int
) -> Iterator[Pairs]:  # fmt: skip
    """Yield the pairs of each row of GOALS, in its order."""
    for stepper in (embedded, half):
        yield against_one_batch(stepper, embedded, pairs)
    for stepper, samples in ((embedded, 0), (long, 0), (wide, 0), (long, K)):
        yield in_turn(partial(stepper.step, "episode_progress", samples),
                      partial(stepper.step, "outcome"), pairs)  # fmt: skip
    for stepper in (embedded, long):
        yield packed_against_rows(stepper, 8, pairs)
    yield shared_against_generate(long, pairs)
    for rows in (64, 128):
        yield sampling_against_generate(embedded, rows, pairs)
    yield peaks(long.profile, pairs)
    yield growth(long, pairs)


def costs(stepper: Stepper, counts: Sequence[int] = BOUNDARIES, traces: int = 2) -> pd.DataFrame:
    """Return what J of some traces costs in five ways, by the number of boundaries.

    Returns:
        way, boundaries, tokens and seconds of one trace: the median of three runs, with low and
        high their range.
    """
    rows = []
    for count in counts:
        probes, kept = cut_evenly(stepper, count, traces)
        answer = stepper.profile.thinking.answer_tokens
        works = {
            "sampled, generate": generated(stepper, probes, answer),
            "sampled, shared prefix": shared(stepper, probes, answer),
            "exact, a row each": scoring(stepper, probes, exact.unpacked),
            "exact, packed": scoring(stepper, probes),
            "exact, kept caches": scoring(stepper, probes, kept=kept),
        }
        for way, work in works.items():
            found = [work() for _ in range(REPEATS + 1)][1:]
            seconds = np.array([spent.amount for spent in found]) / traces
            rows.append({
                "way": way, "boundaries": count, "tokens": found[0].tokens / traces,
                "seconds": np.median(seconds), "low": seconds.min(), "high": seconds.max(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def cut_evenly(stepper: Stepper, count: int, traces: int) -> tuple[list[Probe], list[Kept]]:
    """Return sampled traces, as long as the budget and cut evenly, with their caches."""
    trainer, budget = stepper.trainer, stepper.profile.thinking.budget
    [problem, *_] = trainer.source.problems
    sampler = TransformersSampler(stepper.model, trainer.tokenizer.pad_token_id, traces)
    prompt = trainer.source.prompts[problem.question]
    drawn, kept = sampler.sample_and_keep(
        [prompt] * traces, budget, 1.0, 1.0, {trainer.tokenizer.eos_token_id}, 0
    )
    ends = [budget * (j + 1) // count for j in range(count)]
    references = references_of(problem, trainer.reader.joiner, stepper.profile.thinking)
    return [Probe(prompt, d.token_ids, ends, False, references) for d in drawn], kept


def ratio_row(name: str, goal: Goal, found: Pairs) -> dict:
    """Return a row of the table from pairs of (ours, other): median and range of the ratio."""
    ratios = np.array([ours.amount / other.amount for ours, other in found])
    ratios = 1 / ratios if goal.faster else ratios
    tokens = np.median([[ours.tokens, other.tokens] for ours, other in found], axis=0)
    numbers = np.median(ratios), ratios.min(), ratios.max(), len(found), *tokens.astype(int)
    return dict(zip(COLUMNS, (name, goal.words, *numbers), strict=True))


def benchmark(profile: Profile, pairs: int, shape: Shape) -> pd.DataFrame:
    """Measure every row, print each as it comes, write `bench.csv` and `cost_by_boundaries.csv`.

    Raises:
        BenchError: fewer than five pairs.
    """
    workload.check_pairs(pairs)
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        long = workload.long_profile(profile, shape, folder)
        wide = workload.wider(long, 4 * shape.rollouts)
        half = replace(profile, model=replace(profile.model, twin_dtype="bfloat16"))
        steppers = [Stepper(own, folder / name)
                    for own, name in ((profile, "short"), (half, "half"), (long, "long"),
                                      (wide, "wide"))]  # fmt: skip
        for (row, goal), found in zip(GOALS.items(), _all_rows(*steppers, pairs), strict=True):
            rows.append(ratio_row(row, goal, found))
            write_csv(profile.runs / "bench.csv", pd.DataFrame(rows))
            print("{row}: {median:.2f} [{low:.2f}, {high:.2f}]; {goal}".format(**rows[-1]),
                  flush=True)  # fmt: skip
        write_csv(profile.runs / "cost_by_boundaries.csv", costs(steppers[2]))
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
