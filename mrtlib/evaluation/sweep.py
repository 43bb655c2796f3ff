"""Evaluation of one model: rollouts, J at every boundary, accuracy at budgets up to C0 and beyond.

Problems are measured in shards, so that a run that was cut off goes on from what it has.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from mrtlib.config import ALTERNATIVELY, BUT_WAIT, HOLD_ON, WAIT, Profile
from mrtlib.models.loading import check_context, let_read, load_policy, work_keys
from mrtlib.models.quantization import Twin
from mrtlib.models.sampling import Sample
from mrtlib.models.server import server_sampler
from mrtlib.models.tokens import load_tokenizer, prompt_ids
from mrtlib.prover.probes import BLANK_LINE
from mrtlib.prover.prover import TRACES, Drawn, J_of, Prover, progress_rows
from mrtlib.rollouts import Reader, Rollout
from mrtlib.shards import Shards, complete
from mrtlib.store import content_seed, read_json, write_json
from mrtlib.tasks.problems import Problem, as_record, load_problems

# Words that force the model to think on, in turn (the paper's budget-forced extrapolation).
EXTENSIONS = (WAIT, BUT_WAIT, ALTERNATIVELY, HOLD_ON)
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
        if profile.evaluation.context:
            let_read(model.config, profile.evaluation.context)
        model = Twin(model).model if profile.model.twin else model
        # Whatever the training reward is measured by, evaluation is exact where that is right.
        exact = replace(profile, prover=replace(profile.prover, estimator="exact"))
        prover = Prover(model, load_tokenizer(profile), exact, server_sampler(profile, adapter))
        return cls(profile, method, seed, prover)

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

        The comparison is written to `record`, or read from there.
        """
        rollouts = [] if record.is_file() else [group[0] for group in self.rollouts(problems)]
        self.prover.agree(rollouts, _seed(self.seed, "comparison"), record)

    def records(self, problems: list[Problem]) -> dict[str, list[dict]]:
        """Return the rows of all three tables for some problems."""
        groups = self.rollouts(problems)
        flat = [(r, sample) for group in groups for sample, r in enumerate(group)]
        budgets = self.profile.evaluation.budgets
        cuts = [sorted({*r.boundaries, *(b for b in budgets if b < r.trace_tokens)})
                for r, _ in flat]  # fmt: skip
        found = self.measured([r for r, _ in flat], cuts, problems[0].id)
        rows: dict[str, list[dict]] = {name: [] for name in TABLES}
        for (rollout, sample), cut, measured in zip(flat, cuts, found, strict=True):
            labels = rollout.labels(self.method, self.seed, sample)
            ends, J = [0, *cut], J_of(measured)
            rows["rollouts"].append(self.reader.row(rollout, self.method, self.seed, sample))
            places = [ends.index(t) for t in (0, *rollout.boundaries)]
            own = measured.at(places) if isinstance(measured, Drawn) else measured[places]
            rows["progress"] += progress_rows(labels, self.prover.probe(rollout), own)
            for budget in budgets:
                used = min(budget, rollout.trace_tokens)
                forced = budget < rollout.trace_tokens or not rollout.closed
                accuracy = J[ends.index(used)]
                rows["budgets"].append(_budget_row(labels, budget, accuracy, used, forced, False))
        rows["budgets"] += self._extrapolated([group[0] for group in groups])
        return rows

    def _extrapolated(self, rollouts: list[Rollout]) -> list[dict]:
        """Return budget rows beyond C0: J of the rollouts after each forced extension."""
        c0, step, rows = self.profile.thinking.budget, self.profile.evaluation.extension_tokens, []
        for turn, longer in enumerate(self.extensions(rollouts), start=1):
            place = f"{rollouts[0].problem.id}, extension {turn}"
            found = self.measured(longer, [[r.trace_tokens] for r in longer], place)
            rows += [
                _budget_row(r.labels(self.method, self.seed, 0), c0 + turn * step,
                            float(J_of(measured)[-1]), r.trace_tokens, True, True)
                for r, measured in zip(longer, found, strict=True)
            ]  # fmt: skip
        return rows

    def measured(
        self, rollouts: list[Rollout], cuts: list[list[int]], place: str
    ) -> list[np.ndarray | Drawn]:
        """Return J at t_0 = 0 and at the cuts (tokens, ascending) of each rollout's trace.

        Args:
            place: name of the place in the evaluation; answers that are drawn depend on it.
        """
        cut = [replace(r, boundaries=ends) for r, ends in zip(rollouts, cuts, strict=True)]
        return self.prover.measure(cut, _seed(self.seed, f"J {place}")).found

    def extensions(self, rollouts: list[Rollout]) -> list[list[Rollout]]:
        """Force the model to think on, again and again; return the traces after each extension.

        An extension removes the trace's ending, appends the next word of EXTENSIONS, and samples
        up to `extension_tokens` in all; an unfinished last paragraph is dropped.
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
        inside = self.prover.termination.inside_paragraph(trace)
        text = (BLANK_LINE if inside else "") + word
        read = [*rollout.prompt_ids, *trace]
        stay, new = self.reader.joiner.behind(read, text, len(trace))
        return [*read[len(rollout.prompt_ids) : stay], *new]

    def _extended(self, rollout: Rollout, start: list[int], sample: Sample) -> Rollout:
        """Return the rollout with a trace that begins with `start` and goes on as was sampled."""
        room = self.profile.evaluation.extension_tokens - (len(start) - rollout.trace_tokens)
        length, closed, ended = self.reader.trace(sample.token_ids)
        length, whole = min(length, room), (closed or ended) and length <= room
        trace = start + sample.token_ids[:length]
        inside = self.prover.termination.inside_paragraph
        while not whole and len(trace) > len(start) and inside(trace):
            trace = trace[:-1]
        return replace(
            rollout, token_ids=trace, trace_tokens=len(trace), closed=whole and closed,
            ended=whole and ended, boundaries=[], maker_ends=[],
        )  # fmt: skip


def _seed(seed: int, place: str) -> int:
    """Return a sampling seed for a training seed and a place in the evaluation."""
    return content_seed(seed=seed, at=place)


def _budget_row(labels: dict, *values: object) -> dict:
    """Return a row of the `budgets` schema."""
    names = ("budget", "accuracy", "tokens", "forced", "extrapolated")
    return labels | dict(zip(names, values, strict=True))


def evaluate(
    profile: Profile, method: str, seed: int, adapter: Path | None = None, split: str = "test"
) -> Path:
    """Measure one model on the problems of a split; return the folder of its tables.

    >>> from mrtlib import evaluate, load_profile
    >>> from mrtlib.evaluation.sweep import load_tables
    >>> tables = load_tables(evaluate(load_profile("smoke"), "base", seed=0))
    evaluate base, seed 0: part 1 of 1, 0 min left
    >>> accuracy = tables["budgets"].groupby("budget")["accuracy"].mean()
    >>> accuracy[[28, 112, 224]].round(1).tolist()  # more thinking, more right answers
    [0.2, 0.3, 0.4]

    Goes on from the shards that are there; says how far it is and how long it will take.
    Shards made with other settings, problems or models stay, but `load_tables` does not read them.
    """
    folder = profile.runs / ("evaluation" if split == "test" else split) / f"{method}-{seed}"
    count = getattr(profile.data, split, None)  # of each level; sets of other kinds are taken whole
    problems = load_problems(profile.problems / f"{split}.jsonl", count)
    size = profile.evaluation.shard
    parts = [problems[i : i + size] for i in range(0, len(problems), size)]
    settings = "model evaluation thinking prover"
    contents = [{"problems": [as_record(p) for p in part]} for part in parts]
    keys = work_keys(profile, settings, contents, adapter)

    @cache
    def evaluator() -> Evaluator:
        """Load the model when there is something to measure."""
        found = Evaluator.load(profile, method, seed, adapter)
        found.agree(parts[0][:TRACES], folder / f"comparison-{keys[0]}.json")
        return found

    complete(
        {name: Shards(folder / name, name) for name in TABLES}, keys,
        lambda i: evaluator().records(parts[i]), f"evaluate {method}, seed {seed}",
    )  # fmt: skip
    write_json(folder / "keys.json", keys)
    return folder


def load_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the three tables of one evaluated model, as the last `evaluate` left them."""
    keys = read_json(folder / "keys.json")
    return {name: Shards(folder / name, name).read(keys) for name in TABLES}


def recorded(profile: Profile) -> dict[str, pd.DataFrame]:
    """Read the tables of all models that were evaluated on the test problems, joined."""
    folders = [path.parent for path in (profile.runs / "evaluation").glob("*/keys.json")]
    found = [load_tables(folder) for folder in sorted(folders)]
    return {name: pd.concat([tables[name] for tables in found]) for name in TABLES}
