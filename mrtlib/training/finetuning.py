"""The fine-tuning forms: sample, keep what was right and gained most, and imitate it; in rounds.

A round samples rollouts of train problems with the policy of the round before, in groups, and
fine-tunes the *base* anew, with fresh adapters, on what was kept of this round alone. That is STaR
(arXiv 2203.14465), which starts from the base each time so as not to overfit, and takes what its
last model generated: traces of earlier, worse policies would be learned as well otherwise. G
rollouts a group.

The loss is -Σ log π over the tokens of completions, divided by their number in an optimiser step:
one positive factor for all of them. So it fits π to the distribution q of what is kept, and its
gradient is that of -KL(q || π). `mrtlib.credit` says what that follows where π is the policy that
was sampled, as it is at the beginning of the first round; from there on it is imitation.

A whole trace has the tokens that were sampled. A trace that is cut has those before the cut, the
closing and the opening of the answer as the model writes them when it ends its thinking by itself,
and one answer that was drawn behind them. All tokens drawn count as generated.
"""

import bisect
import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig, SFTTrainer

from mrtlib import credit
from mrtlib.config import Profile, ProfileError
from mrtlib.models.loading import (
    adapters_to_float32,
    add_lora,
    device,
    load_base,
    load_policy,
    save_adapter,
)
from mrtlib.models.packing import counted
from mrtlib.models.quantization import assert_unpacked
from mrtlib.rollouts import Rollout
from mrtlib.shards import Shards
from mrtlib.store import schema
from mrtlib.training.schedule import THROUGH, rate_factor
from mrtlib.training.selection import Form, Sampling, Step
from mrtlib.training.source import Source
from mrtlib.training.validation import BEST, Validator

EPOCHS = 3  # over what was kept: as in the paper (table 2)
WARMUP = 0.1  # share of a round's updates: as in the paper (table 2)
EVERY = 5  # sampled steps from one line of progress to the next

FORMS: dict[str, Form] = {
    "star": Form(credit.star, False),
    "mrt_star_keep": Form(credit.mrt_star_keep, True),
    "mrt_star_cut": Form(credit.mrt_star_cut, True),
}


def fine_tune(
    profile: Profile, method: str, seed: int, work: Path
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Run the rounds of a form; return the trained policy and the rows of its `steps`.

    A round stops sampling when its share of the profile's tokens is spent; where all tokens through
    the model are counted, those of learning what it has kept are in that share. A row is one
    sampled step of `problems_per_step` groups; the last one of a round has what learning took.
    What was sampled and kept, and each round's adapter, are written to `work`, and the adapter that
    was best on the validation problems to its folder `best`; a run that was cut goes on behind the
    last round that is whole. Each round is validated, unless `validate_every` is 0: the policy does
    not change in between.

    Raises:
        ProfileError, ProblemError, ModelError, ProverError: before any sampling.
    """
    if profile.training.budgets != (1.0,):
        raise ProfileError(f"{method} samples within C0 alone; training.budgets is for RL")
    run = FineTuning(profile, method, seed, work)
    rows = run.finished()
    for number in range(run.rounds_done, profile.training.rounds):
        if run.share(rows) >= 1:
            break
        rows += run.round(number, rows)
    run.save_best()
    return run.policy(run.rounds_done), rows


def round_name(number: int) -> str:
    """Return what a round's records are called."""
    return f"round-{number:03d}"


class FineTuning:
    """One run: what lasts from round to round."""

    def __init__(self, profile: Profile, method: str, seed: int, work: Path) -> None:
        """Read problems and tokenizer; no weights yet."""
        self.profile, self.method, self.seed, self.work = profile, method, seed, work
        self.source = Source(profile, seed)
        self.sampled = Shards(work / "sampled", "rollouts")
        self.learned = Shards(work / "learned", "rollouts")
        self.steps = Shards(work / "steps", "steps")  # written last: a round is whole

    @property
    def rounds_done(self) -> int:
        """The number of rounds that are whole, up to the first that is not."""
        return len(self._whole())

    def _whole(self) -> list[str]:
        """Return the rounds up to the first that is missing: behind it another policy sampled."""
        count = itertools.count()
        return list(itertools.takewhile(self.steps.has, map(round_name, count)))

    def adapter(self, number: int) -> Path:
        """Return the folder of a round's adapters, rounds counted from 0."""
        return self.work / f"adapter-{number}"

    def policy(self, rounds: int) -> PreTrainedModel:
        """Load the policy after so many rounds; the base after none."""
        return load_policy(self.profile, self.adapter(rounds - 1) if rounds else None)

    def sampling(self, rounds: int) -> Sampling:
        """Load the policy after so many rounds, to sample and measure with."""
        record = self.work / "comparison.json"
        adapter = self.adapter(rounds - 1) if rounds else None
        return Sampling(self.source, FORMS[self.method], self.policy(rounds), record, adapter)

    def finished(self) -> list[dict[str, Any]]:
        """Return the rows of the rounds that are whole."""
        table = self.steps.read(self._whole())
        return table.astype(object).where(table.notna(), None).to_dict("records")

    def share(self, rows: Sequence[dict[str, Any]], kept: Sequence[Rollout] = ()) -> float:
        """Return which share of the run is done: tokens, or steps where they are bounded.

        Args:
            kept: what the round will learn, and has not yet.
        """
        training = self.profile.training
        spent = rows[-1]["generated_tokens"] if rows else 0
        if training.count == "all":
            spent = sum(row[name] or 0 for row in rows for name in THROUGH)
            spent += to_read(kept, training.micro_batch)
        return max(spent / training.tokens, len(rows) / training.most_steps)

    def round(self, number: int, before: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Sample, keep and learn one round behind the rows of those before; return its rows."""
        rows, rollouts, kept, began = list(before), [], [], time.monotonic()
        start = self.share(rows)
        sampling = self.sampling(number)
        for indices in self.source.order()[len(before) :]:
            step = sampling.step(len(rows), indices)
            rows.append(self._row(step, rows))
            rollouts += step.rollouts
            kept += step.kept
            done = self.share(rows, kept)
            if done >= (number + 1) / self.profile.training.rounds:
                break
            if len(rows) % EVERY == 1:
                pace = (time.monotonic() - began) / (done - start)
                self._say(number, f"step {len(rows)}, {rows[-1]['generated_tokens']} tokens, "
                          f"reward {rows[-1]['reward']:.2f}, {rows[-1]['length']:.0f} thinking "
                          f"tokens, {pace * max(0.0, 1 - done) / 60:.0f} min left")  # fmt: skip
        del sampling  # its model goes before the base is loaded again
        rows[-1] |= self._learn(number, kept, len(rollouts))
        if self.profile.training.validate_every:
            rows[-1] |= self._validate(self.sampling(number + 1))
        self._record(number, rows[len(before) :], rollouts, kept)
        return rows[len(before) :]

    def _row(self, step: Step, before: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return a step's row of the `steps` schema, behind those before."""
        spent = before[-1]["generated_tokens"] if before else 0
        names = schema("steps").names
        return dict.fromkeys(names) | step.columns | {
            "method": self.method, "seed": self.seed, "step": len(before) + 1,
            "generated_tokens": spent + step.generated,
        }  # fmt: skip

    def _learn(self, number: int, kept: list[Rollout], of: int) -> dict[str, Any]:
        """Fine-tune the base on what was kept and save its adapters; return columns of the row.

        Where nothing was kept the policy stays what it was.
        """
        began = time.perf_counter()
        if not kept:
            self._say(number, f"none of {of} rollouts is kept; the policy stays as it was")
            save_adapter(self.policy(number) if number else self._fresh(), self.adapter(number))
            return {}
        policy = self._fresh()
        trainer = make_trainer(
            policy, self.source.tokenizer, kept, self.profile, self.method, self.seed, self.work
        )
        with counted(policy) as tokens:
            trainer.train()
        save_adapter(trainer.accelerator.unwrap_model(trainer.model), self.adapter(number))
        logs = [log for log in trainer.state.log_history if "grad_norm" in log]
        self._say(number, f"{len(kept)} of {of} rollouts kept, {len(logs)} updates, "
                  f"loss {logs[0]['loss']:.3f} to {logs[-1]['loss']:.3f}")  # fmt: skip
        return {
            "learning_rate": max(log["learning_rate"] for log in logs),
            "grad_norm": float(np.mean([log["grad_norm"] for log in logs])),
            "learning_s": time.perf_counter() - began,
            "learned": float(sum(tokens)),
        }

    def _validate(self, sampling: Sampling) -> dict[str, float]:
        """Return the columns of validation, which spends no tokens of the run."""
        sampling.agree([], 0)  # as it was found at the start
        found = Validator(self.profile, self.source.reader)
        return asdict(found.measure(sampling.prover))

    def save_best(self) -> None:
        """Write the adapter of the best validation accuracy, the first of several, to `best`."""
        rounds = [self.steps.read([key]) for key in self._whole()]
        found = np.array([table["validation"].iloc[-1] for table in rounds], dtype=float)
        if np.isfinite(found).any():
            copytree(self.adapter(int(np.nanargmax(found))), self.work / BEST, dirs_exist_ok=True)

    def _fresh(self) -> PreTrainedModel:
        """Load the base with fresh adapters, the same ones in every round."""
        return add_lora(load_base(self.profile), self.profile.lora, self.seed)

    def _record(
        self, number: int, rows: list[dict], rollouts: list[Rollout], kept: list[Rollout]
    ) -> None:
        """Write a round's rollouts, those that were learned, and at last its rows."""
        size, name = self.profile.training.group_size, round_name(number)
        label = self.method, self.seed
        self.sampled.write(name, [self.source.reader.row(r, *label, i % size)
                                  for i, r in enumerate(rollouts)])  # fmt: skip
        self.learned.write(name, [self.source.reader.row(r, *label, i) for i, r in enumerate(kept)])
        known = self.steps.keys()
        for key in known[bisect.bisect(known, name) :]:  # behind a round that was lost
            self.steps.path(key).unlink()
        self.steps.write(name, rows)

    def _say(self, number: int, words: str) -> None:
        of = self.profile.training.rounds
        print(f"{self.method}, seed {self.seed}: round {number + 1} of {of}: {words}", flush=True)


class Imitator(SFTTrainer):
    """TRL's trainer with the profile's schedule, over the updates of a round."""

    schedule = "constant"

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return the schedule times a warm-up, which does not begin at 0: updates are few."""
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)

            def factor(step: int) -> float:
                falls = rate_factor(self.schedule, min(1.0, step / num_training_steps))
                return falls * min(1.0, (step + 1) / (warmup + 1))

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler


def as_dataset(kept: Sequence[Rollout]) -> Dataset:
    """Return the tokens to learn, prompt and completion as they are; the loss skips prompts."""
    return Dataset.from_list([
        {"input_ids": [*r.prompt_ids, *r.token_ids],
         "labels": [*[-100] * len(r.prompt_ids), *r.token_ids]}
        for r in kept
    ])  # fmt: skip


def to_read(kept: Sequence[Rollout], batch: int) -> int:
    """Return how many tokens learning from rollouts will send through the model, padding included.

    Batches are shuffled as the trainer's are, but not into the same order: it is an estimate.
    """
    lengths = np.array([len(r.prompt_ids) + len(r.token_ids) for r in kept], dtype=int)
    orders = np.random.default_rng(0).permuted(np.tile(lengths, (EPOCHS, 1)), axis=1)
    parts = [order[i : i + batch] for order in orders for i in range(0, len(kept), batch)]
    return int(sum(len(part) * part.max() for part in parts))


def make_trainer(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kept: Sequence[Rollout],
    profile: Profile, method: str, seed: int, folder: Path,
) -> Imitator:  # fmt: skip
    """Return TRL's trainer of a policy with fresh adapters on what was kept."""
    training, cuda = profile.training, device().type == "cuda"
    rows = training.problems_per_step * training.group_size  # as many as an RL step has rollouts
    settings = SFTConfig(
        output_dir=str(folder),
        seed=seed,
        use_cpu=not cuda,
        bf16=cuda and profile.model.dtype == "bfloat16",
        per_device_train_batch_size=training.micro_batch,
        gradient_accumulation_steps=rows // training.micro_batch,
        num_train_epochs=EPOCHS,
        learning_rate=training.rate(method),
        warmup_steps=WARMUP,
        max_grad_norm=training.max_grad_norm,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},  # tokens are learned as they were sampled
        gradient_checkpointing=cuda,
        logging_steps=1,
        save_strategy="no",
        report_to=profile.training.report_to,
        disable_tqdm=True,
    )
    trainer = Imitator(
        model=policy, args=settings, train_dataset=as_dataset(kept), processing_class=tokenizer
    )
    trainer.schedule = training.schedule
    trainer.remove_callback(PrinterCallback)
    adapters_to_float32(trainer.model)  # TRL casts them to bfloat16 on a 4-bit base
    assert_unpacked(trainer.model)
    return trainer
