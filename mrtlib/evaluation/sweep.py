"""Evaluation of one model: rollouts, J at every boundary, accuracy at every budget, beyond C0.

Works problem by problem in shards, so that a run that was cut off goes on from what it has.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib.config import Profile
from mrtlib.models.loading import check_context, load_policy, work_key
from mrtlib.models.quantization import Twin
from mrtlib.models.sampling import Sample
from mrtlib.models.tokens import load_tokenizer, prompt_ids
from mrtlib.prover.probes import BLANK_LINE
from mrtlib.prover.prover import TRACES, Counts, J_of, Prover, progress_rows
from mrtlib.rollouts import Reader, Rollout
from mrtlib.store import Shards, complete, content_key, read_json, write_json
from mrtlib.tasks.problems import Problem, load_problems

# The cycle of words that make a model think on (the paper's budget-forced extrapolation).
EXTENSIONS = ("Wait", "But wait", "Alternatively", "But hold on")
SHARD = 64  # problems
TABLES = ("rollouts", "progress", "budgets")


@dataclass(frozen=True)
class Evaluator:
    """One model with its tokenizer and sampler, ready to be measured."""

    profile: Profile
    method: str
    seed: int
    prover: Prover

    @classmethod
    def load(cls, profile: Profile, method: str, seed: int, adapter: Path | None) -> "Evaluator":
        """Load the base, with an adapter when one is given."""
        model = load_policy(profile, adapter)
        model = Twin(model).model if profile.model.twin else model
        # Whatever the training reward comes from, evaluation is exact where that is right.
        exact = replace(profile, prover=replace(profile.prover, estimator="exact"))
        return cls(profile, method, seed, Prover(model, load_tokenizer(profile), exact))

    @property
    def reader(self) -> Reader:
        """What reads samples as rollouts."""
        return self.prover.reader

    def rollouts(self, problems: list[Problem]) -> list[list[Rollout]]:
        """Sample the profile's number of rollouts for each problem."""
        settings, thinking = self.profile.evaluation, self.profile.thinking
        prompts = [prompt_ids(self.reader.tokenizer, p.question, thinking) for p in problems]
        longest = max(map(len, prompts)) + settings.extensions * settings.extension_tokens
        check_context(self.prover.model.config, longest, thinking.budget + thinking.answer_tokens)
        drawn = self.prover.sampler.sample(
            prompts, settings.samples, thinking.budget + thinking.answer_tokens,
            settings.temperature, settings.top_p, self.reader.end_ids,
            seed=_seed(self.seed, problems[0].id),
        )  # fmt: skip
        return [
            [self.reader.read(problem, prompt, sample) for sample in samples]
            for problem, prompt, samples in zip(problems, prompts, drawn, strict=True)
        ]

    def agree(self, problems: list[Problem], record: Path) -> None:
        """Compare exact with sampled J on rollouts of some problems, before anything is measured.

        What was found is written to `record`, or read from there.
        """
        rollouts = [] if record.is_file() else [group[0] for group in self.rollouts(problems)]
        seed = _seed(self.seed, "comparison")
        self.prover.agree(rollouts, seed, record)

    def success(
        self, rollouts: list[Rollout], marks: list[list[int]], at: str
    ) -> list[np.ndarray | Counts]:
        """Return J at t_0 = 0 and at the marks (tokens, ascending) of each rollout's trace.

        Args:
            at: names the place in the evaluation; answers that are drawn depend on it.
        """
        cut = [replace(r, boundaries=m) for r, m in zip(rollouts, marks, strict=True)]
        return self.prover.measure(cut, _seed(self.seed, f"J {at}")).found

    def extensions(self, rollouts: list[Rollout]) -> list[list[Rollout]]:
        """Force thinking on, again and again; return the longer traces after each extension.

        Each extension takes off the ending, appends the next word of the cycle and samples up to
        `extension_tokens` more; an unfinished last paragraph is dropped.
        """
        settings, steps = self.profile.evaluation, []
        stop_ids = {*self.reader.close_ids, *self.reader.end_ids}
        for turn in range(settings.extensions):
            starts = [self._start(r, EXTENSIONS[turn % len(EXTENSIONS)]) for r in rollouts]
            drawn = self.prover.sampler.sample(
                [r.prompt_ids + start for r, start in zip(rollouts, starts, strict=True)],
                1, settings.extension_tokens, settings.temperature, settings.top_p, stop_ids,
                seed=_seed(self.seed, f"extension {turn}"),
            )  # fmt: skip
            rollouts = [
                self._extended(rollout, start, samples[0])
                for rollout, start, samples in zip(rollouts, starts, drawn, strict=True)
            ]
            steps.append(rollouts)
        return steps

    def _start(self, rollout: Rollout, word: str) -> list[int]:
        """Return a trace with the word that makes the model think on, in a paragraph of its own."""
        trace = rollout.trace_ids
        open_ = self.prover.termination.inside_paragraph(trace)
        text = (BLANK_LINE if open_ else "") + word
        read = [*rollout.prompt_ids, *trace]
        stay, new = self.reader.joiner.behind(read, text, len(trace))
        return [*read[len(rollout.prompt_ids) : stay], *new]

    def _extended(self, rollout: Rollout, start: list[int], sample: Sample) -> Rollout:
        room = self.profile.evaluation.extension_tokens - (len(start) - rollout.trace_tokens)
        length, closed, ended = self.reader.trace(sample.token_ids)
        length, whole = min(length, room), (closed or ended) and length <= room
        trace = start + sample.token_ids[:length]
        open_ = self.prover.termination.inside_paragraph
        while not whole and len(trace) > len(start) and open_(trace):
            trace = trace[:-1]
        return replace(
            rollout, token_ids=trace, trace_tokens=len(trace), closed=whole and closed,
            ended=whole and ended, boundaries=[], maker_ends=[],
        )  # fmt: skip


def _seed(seed: int, text: str) -> int:
    """Return a sampling seed for a training seed and a place in the evaluation."""
    return int(content_key(seed=seed, at=text)[:12], 16)


def _rows(evaluator: Evaluator, problems: list[Problem]) -> dict[str, list[dict]]:
    """Return the rows of all three tables for some problems."""
    rows: dict[str, list[dict]] = {name: [] for name in TABLES}
    groups = evaluator.rollouts(problems)
    flat = [(r, sample) for group in groups for sample, r in enumerate(group)]
    budgets = evaluator.profile.evaluation.budgets
    marks = [
        sorted({*r.boundaries, *(b for b in budgets if b < r.trace_tokens)}) for r, _ in flat
    ]
    found = evaluator.success([r for r, _ in flat], marks, problems[0].id)
    for (rollout, sample), at, values in zip(flat, marks, found, strict=True):
        key = _place(evaluator, rollout, sample)
        curve = dict(zip([0, *at], J_of(values), strict=True))
        rows["rollouts"].append(
            evaluator.reader.row(rollout, evaluator.method, evaluator.seed, sample)
        )
        rows["progress"] += _progress(evaluator, key, rollout, at, values)
        rows["budgets"] += [_budget(key, rollout, curve, b) for b in budgets]
    rows["budgets"] += _extrapolated(evaluator, [group[0] for group in groups])
    return rows


def _place(evaluator: Evaluator, rollout: Rollout, sample: int) -> dict:
    return {
        "method": evaluator.method, "seed": evaluator.seed, "level": rollout.problem.level,
        "problem": rollout.problem.id, "sample": sample,
    }  # fmt: skip


def _progress(
    evaluator: Evaluator, key: dict, rollout: Rollout, marks: list[int],
    found: np.ndarray | Counts,
) -> list[dict]:  # fmt: skip
    """Return the progress rows of a rollout, out of what was found at all its marks."""
    probe, measured = evaluator.prover.probe(rollout), [0, *marks]
    places = [measured.index(t) for t in probe.ends]
    at_ends = found.at(places) if isinstance(found, Counts) else found[places]
    return progress_rows(key, probe, at_ends)


def _budget(key: dict, rollout: Rollout, curve: dict[int, float], budget: int) -> dict:
    used = min(budget, rollout.trace_tokens)
    return key | {
        "budget": budget, "accuracy": curve[used], "tokens": used,
        "forced": budget < rollout.trace_tokens or not rollout.closed, "extrapolated": False,
    }  # fmt: skip


def _extrapolated(evaluator: Evaluator, rollouts: list[Rollout]) -> list[dict]:
    """Return budget rows beyond C0: J of the first rollouts after each forced extension."""
    settings, rows = evaluator.profile.evaluation, []
    for turn, longer in enumerate(evaluator.extensions(rollouts), start=1):
        place = f"{rollouts[0].problem.id}, extension {turn}"
        ends = evaluator.success(longer, [[r.trace_tokens] for r in longer], place)
        rows += [
            _place(evaluator, r, 0) | {
                "budget": evaluator.profile.thinking.budget + turn * settings.extension_tokens,
                "accuracy": float(J_of(J)[-1]), "tokens": r.trace_tokens, "forced": True,
                "extrapolated": True,
            }
            for r, J in zip(longer, ends, strict=True)
        ]  # fmt: skip
    return rows


def evaluate(
    profile: Profile, method: str, seed: int, adapter: Path | None = None, split: str = "test"
) -> Path:
    """Measure one model on the problems of a split; return the folder of its tables.

    Goes on from the shards that are there; says how far it is and how long it will take.
    Shards made with other settings or weights stay, but `load_tables` does not read them.
    """
    folder = profile.runs / ("evaluation" if split == "test" else split) / f"{method}-{seed}"
    problems = load_problems(profile.problems / f"{split}.jsonl", getattr(profile.data, split))
    parts = [problems[i : i + SHARD] for i in range(0, len(problems), SHARD)]
    settings = "model evaluation thinking prover"
    keys = [work_key(profile, settings, adapter, problems=[p.id for p in part]) for part in parts]

    @cache
    def evaluator() -> Evaluator:
        """Load the model when there is something to measure."""
        found = Evaluator.load(profile, method, seed, adapter)
        found.agree(parts[0][:TRACES], folder / f"comparison-{keys[0]}.json")
        return found

    complete(
        {name: Shards(folder / name, name) for name in TABLES}, keys,
        lambda i: _rows(evaluator(), parts[i]), f"evaluate {method}, seed {seed}",
    )  # fmt: skip
    write_json(folder / "keys.json", keys)
    return folder


def load_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the three tables of one evaluated model, as the last `evaluate` left them."""
    keys = read_json(folder / "keys.json")
    return {name: Shards(folder / name, name).read(keys) for name in TABLES}


def recorded(profile: Profile) -> dict[str, pd.DataFrame]:
    """Read the tables of every model evaluated so far on the test problems, joined."""
    folders = [path.parent for path in (profile.runs / "evaluation").glob("*/keys.json")]
    found = [load_tables(folder) for folder in sorted(folders)]
    return {name: pd.concat([tables[name] for tables in found]) for name in TABLES}
