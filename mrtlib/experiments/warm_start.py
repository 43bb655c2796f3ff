"""What backtracking search is warm-started on: stitched traces against other data (figure 15).

From rollouts of the base on training problems three sets are made (`reasoner.stitching`), equal in
tokens. The base is fine-tuned on each; measured are the held-out loss of each kind over the
steps, and the accuracy on the validation problems before and after. Rollouts are stored, and a
fine-tuning that is done is read, so a run that was cut goes on from what it has.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import torch

from mrtlib.config import ROOT, Model, Profile
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.models.loading import work_key, work_keys
from mrtlib.models.tokens import load_tokenizer, prompt_ids
from mrtlib.reasoner import attempts, stitching
from mrtlib.reasoner.lessons import encode
from mrtlib.reasoner.making import make
from mrtlib.reasoner.stitching import KINDS, Attempts, Steps, Stitching
from mrtlib.rollouts import Rollout
from mrtlib.shards import Shards, complete
from mrtlib.store import KEY, content_seed, file_hashes, is_of_key, read_json, write_csv, write_json
from mrtlib.tasks.problems import Problem, as_record, load_problems
from mrtlib.training.warm_start import Coded, FineTuning, fine_tune

BASE = "data/backtracker/base"
SHARD = 250  # problems
ROLLOUTS = 8  # of the base on each training problem
BRANCHES = 4  # further ones from each good beginning of a wrong attempt
ROWS = 512  # rollouts that are drawn at a time
HELD_OUT = 300  # training problems whose traces are not learned, the last ones of the file
HELD_OUT_SHARE = 0.06  # tokens of a held-out set, as a share of what is learned
COLUMNS = ("step", "tokens", "learned", "train_loss", "loss")


def of_base(profile: Profile) -> Profile:
    """Return the profile with the base in place of the warm-started model."""
    return replace(profile, model=replace(profile.model, name=BASE))


def make_backtracker(profile: Profile, seed: int) -> pd.DataFrame:
    """Make base and warm start anew, in the folders of the committed ones; return the accuracy."""
    recipe = replace(attempts.RECIPE, seed=seed)
    course = attempts.course(profile.thinking, ROOT / Model().name)
    make(recipe, profile.runs / "reasoner", ROOT / BASE, course)
    folder = fine_tuned(profile, "joined", seed)
    target = ROOT / profile.model.name
    target.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("model/*"):
        shutil.copy(file, target)
    return study(profile, (seed,))


def study(profile: Profile, seeds: Sequence[int]) -> pd.DataFrame:
    """Fine-tune on every kind of data with every seed; write the two tables, return the second.

    `warm_start.csv` has the loss curves: kind, seed and what `fine_tune` returns.
    `warm_start_accuracy.csv` has a row for the base and for each fine-tuned model: see `measure`.
    """
    curves, rows = [], [{"kind": "base", "seed": 0, **measure(of_base(profile))}]
    for seed in seeds:
        for kind in KINDS:
            folder = fine_tuned(profile, kind, seed)
            facts = read_json(folder / "training.json")
            curves += [{"kind": kind, "seed": seed, **row} for row in facts["log"]]
            own = replace(profile, model=replace(profile.model, name=str(folder / "model")))
            rows.append({"kind": kind, "seed": seed, **facts["set"], **measure(own)})
            table = pd.DataFrame(rows)
            write_csv(profile.runs / "warm_start.csv", pd.DataFrame(curves))
            write_csv(profile.runs / "warm_start_accuracy.csv", table)
    return table


def base_attempts(profile: Profile) -> list[Attempts]:
    """Return the base's attempts at every training problem, sampled or read.

    Where a wrong attempt begins well, the base also goes on from there, so that there are right
    attempts that share the beginning.
    """
    own = of_base(profile)
    problems = load_problems(profile.problems / "train.jsonl")
    parts = [problems[i : i + SHARD] for i in range(0, len(problems), SHARD)]
    starts = {p.id: [()] * ROLLOUTS for p in problems}
    texts = _outputs(own, parts, starts, "rollouts of the base")
    found = {p.id: stitching.sort_attempts(p, texts[p.id]) for p in problems}
    good = {name: sorted(stitching.good_beginnings(each)) for name, each in found.items()}
    starts = {name: [begun for begun in some for _ in range(BRANCHES)]
              for name, some in good.items()}  # fmt: skip
    more = _outputs(own, parts, starts, "rollouts from good steps")
    return [stitching.sort_attempts(p, [*texts[p.id], *more.get(p.id, ())]) for p in problems]


def _outputs(
    profile: Profile, parts: Sequence[list[Problem]], starts: dict[str, list[Steps]], name: str
) -> dict[str, list[str]]:
    """Return outputs for each problem, one behind each of its starts, sampled or read."""
    contents = [{"starts": [(as_record(p), starts[p.id]) for p in part]} for part in parts]
    keys = work_keys(profile, "model thinking", json.loads(json.dumps(contents)))
    shards = Shards(profile.runs / "warm_start" / "rollouts", "rollouts")

    @cache
    def evaluator() -> Evaluator:
        """Load the model when there is something to sample."""
        wide = replace(profile.evaluation, batch_rows=ROWS)
        return Evaluator.load(replace(profile, evaluation=wide), "base", 0, None)

    def sample(i: int) -> dict[str, list[dict]]:
        reader, sampler = evaluator().reader, evaluator().prover.sampler
        wanted = [(p, n, steps) for p in parts[i] for n, steps in enumerate(starts[p.id])]
        prompts = [prompt_ids(reader.tokenizer, p.question, profile.thinking)
                   for p, _, _ in wanted]  # fmt: skip
        begun = [reader.joiner.encode(attempts.write_steps(steps, p)) for p, _, steps in wanted]
        most = profile.thinking.budget + profile.thinking.answer_tokens
        drawn = sampler.sample(
            [a + b for a, b in zip(prompts, begun, strict=True)], 1, most, 1.0, 1.0,
            reader.end_ids, content_seed(at=name, problem=parts[i][0].id),
        )  # fmt: skip
        rows = []
        for (p, n, _), prompt, start, (own,) in zip(wanted, prompts, begun, drawn, strict=True):
            whole = replace(own, token_ids=start + own.token_ids,
                            logprobs=[0.0] * len(start) + own.logprobs)  # fmt: skip
            rows.append(reader.row(reader.read(p, prompt, whole), "base", 0, n))
        return {"rollouts": rows}

    complete({"rollouts": shards}, keys, sample, name)
    return shards.read(keys).groupby("problem")["text"].agg(list).to_dict()


def build_set(
    profile: Profile, kind: str, found: Sequence[Attempts], settings: Stitching, tokens: int,
    seed: int,
) -> tuple[list[Coded], dict]:  # fmt: skip
    """Return texts of a kind with so many tokens in all, coded, and what they are like."""
    rng, tokenizer = Random(f"{seed}/{kind}"), load_tokenizer(profile)
    coded: list[Coded] = []
    drawn: list[stitching.Trace] = []
    while (left := tokens - sum(len(ids) for ids, _ in coded)) > 0:
        lessons, part = [], []
        for _ in range(max(1, left // 100)):
            trace = None
            while trace is None:
                trace = stitching.draw_trace(kind, rng.choice(found), settings, rng)
            part.append(trace)
            lessons.append(stitching.lesson(trace, settings, profile.thinking, rng))
        drawn += part
        coded += encode(lessons, tokenizer)
    kept = [k for trace in drawn for k in trace.kept]
    facts = {
        "examples": len(coded),
        "distinct": len({(t.problem.id, t.attempts, t.backs) for t in drawn}),
        "set_tokens": sum(len(ids) for ids, _ in coded),
        "set_learned": sum(label != -100 for _, labels in coded for label in labels),
        "errors": float(np.mean([len(t.backs) for t in drawn])),
        "deep": float(np.mean(np.array(kept) > 0)) if kept else 0.0,
    }
    return coded, facts


def fine_tuned(profile: Profile, kind: str, seed: int) -> Path:
    """Fine-tune the base on one kind of data; return the folder of `model/` and `training.json`."""
    settings, tuning, base = Stitching(), FineTuning(), of_base(profile)
    folder = profile.runs / "warm_start" / f"{kind}-{seed}"
    key = work_key(
        base, "model thinking", kind=kind, seed=seed, rollouts=[ROLLOUTS, BRANCHES],
        held_out=HELD_OUT, tuning=asdict(tuning),
        problems=file_hashes([base.problems / "train.jsonl"], base.problems),
        stitching=json.loads(json.dumps(asdict(settings))),
    )  # fmt: skip
    if is_of_key(folder, key):
        return folder
    found = base_attempts(profile)
    order = Random(0).sample(range(len(found)), len(found))
    known = [found[i] for i in order[:-HELD_OUT]]
    texts, facts = build_set(base, kind, known, settings, settings.tokens, seed)
    whole = replace(settings, cut=0.0)
    size = round(HELD_OUT_SHARE * settings.tokens)
    others, _ = build_set(base, kind, [found[i] for i in order[-HELD_OUT:]], whole, size, 0)
    print(f"warm start, {kind}, seed {seed}: {facts}", flush=True)
    model, log = fine_tune(base, texts, others, seed, folder / "trainer", tuning)
    (folder / KEY).unlink(missing_ok=True)  # of other settings, whose model is replaced now
    model.to(torch.bfloat16).save_pretrained(folder / "model", safe_serialization=True)
    load_tokenizer(base).save_pretrained(folder / "model")
    kept = {"kind": kind, "seed": seed, "stitching": asdict(settings), "tuning": asdict(tuning)}
    write_json(folder / "training.json", kept | {"set": facts, "log": log})
    shutil.copy(folder / "training.json", folder / "model")
    write_json(folder / KEY, key)  # last: it marks the model as whole
    return folder


def measure(profile: Profile, split: str = "validation") -> dict[str, float]:
    """Return what the profile's model does on a split's problems, by shares and means.

    Accuracy within C0, of each level too; first, of the first attempts; parsed, answers that are
    read; arithmetic, right steps; lines that name an error, thinking tokens, and truncated.
    """
    problems = load_problems(profile.problems / f"{split}.jsonl")
    profile = replace(profile, evaluation=replace(profile.evaluation, batch_rows=ROWS))
    evaluator = Evaluator.load(profile, "warm", 0, None)
    parts = [problems[i : i + SHARD] for i in range(0, len(problems), SHARD)]
    rollouts = [r for part in parts for group in evaluator.rollouts(part) for r in group]
    decode = evaluator.reader.decode
    texts = [decode(r.trace_ids) for r in rollouts]
    steps = [step for text in texts for step in attempts.read_steps(text)]
    ends = [attempts.first_result(text) for text in texts]
    shares = {
        "accuracy": [r.grade.correct for r in rollouts],
        **{level: [r.grade.correct for r in rollouts if r.problem.level == level]
           for level in profile.data.levels},
        "first": [end == r.problem.target for end, r in zip(ends, rollouts, strict=True)],
        "parsed": [_parsed(r) for r in rollouts if r.closed],
        "arithmetic": [attempts.is_right(step) for step in steps],
        "errors_named": [text.count(attempts.BACK) for text in texts],
        "thinking": [r.trace_tokens for r in rollouts],
        "truncated": [r.truncated for r in rollouts],
    }  # fmt: skip
    return {"n": len(rollouts)} | {name: float(np.mean(v)) for name, v in shares.items()}


def _parsed(rollout: Rollout) -> bool:
    return rollout.grade.reason in ("correct", "wrong")
