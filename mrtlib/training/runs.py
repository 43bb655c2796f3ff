"""One training from its settings to its adapter: resumed, said while it runs, and recorded."""

import time
from dataclasses import asdict, replace
from pathlib import Path

from transformers import PrinterCallback, TrainerCallback

from mrtlib.config import Profile
from mrtlib.models.loading import save_adapter, work_key
from mrtlib.store import file_hashes, read_json, write_json, write_table
from mrtlib.training.trainer import MRTTrainer


def train(profile: Profile, method: str, seed: int) -> Path:
    """Train one adapter, from its last checkpoint if there is one; return its folder.

    >>> from mrtlib import load_profile, train
    >>> folder = train(load_profile("smoke"), "regret_to_go", seed=0)
    regret_to_go, seed 0: step 1, ...
    >>> sorted(path.name for path in folder.glob("*.parquet"))
    ['steps.parquet']

    Writes the adapter and `steps.parquet`. What was trained with the same settings is not
    trained again.

    Raises:
        ProfileError, ProblemError, ModelError: before any training.
    """
    folder = profile.runs / "adapters" / f"{method}-{seed}"
    key = training_key(profile, method, seed)
    if (folder / "key.json").is_file() and read_json(folder / "key.json") == key:
        return folder
    work = profile.runs / "checkpoints" / f"{method}-{seed}-{key[:8]}"
    trainer = MRTTrainer(profile, method, seed, work)
    trainer.remove_callback(PrinterCallback)
    few = "" if trainer.prover.is_exact else f", {profile.prover.samples} answers a boundary"
    trainer.add_callback(Progress(f"{method}, seed {seed}{few}", profile.training.tokens, 5))
    trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")) or None)
    save_adapter(trainer.model, folder)
    rows = steps_of(trainer.state.log_history, method, seed)
    write_table(folder / "steps.parquet", "steps", rows)
    if trainer.prover.compared:
        write_json(folder / "comparison.json", asdict(trainer.prover.compared))
    if (work / "precision.json").is_file():
        write_json(folder / "precision.json", read_json(work / "precision.json"))
    write_json(folder / "key.json", key)  # last: it marks the adapter as whole
    return folder


def training_key(profile: Profile, method: str, seed: int) -> str:
    """Return what decides a training: settings, base weights, problems, method, seed."""
    rate = profile.training.learning_rate[method]
    alpha = 0.0 if method == "outcome" else profile.training.alpha  # it has no use for one
    training = replace(
        profile.training, methods=(), seeds=(), learning_rate={method: rate}, alpha=alpha
    )
    problems = file_hashes([profile.problems / "train.jsonl"], profile.problems)
    return work_key(
        replace(profile, training=training), "model lora thinking data prover training",
        problems=problems, method=method, seed=seed,
    )  # fmt: skip


class Progress(TrainerCallback):
    """End a training when its tokens are spent; say what it does and how long is left."""

    def __init__(self, name: str, tokens: int, every: int) -> None:
        self.name, self.tokens, self.every = name, tokens, every
        self.began = self.before = self.step = None

    def on_step_begin(self, args, state, control, **_) -> None:
        if self.began is None:
            self.began, self.before = time.monotonic(), _generated(state.log_history)
            self.step = state.global_step

    def on_log(self, args, state, control, logs=None, **_) -> None:
        if "reward" not in (logs or {}):
            return
        spent = _generated(state.log_history)
        control.should_training_stop = control.should_training_stop or spent >= self.tokens
        if state.global_step > 1 and state.global_step % self.every and spent < self.tokens:
            return
        each = max(1.0, (spent - self.before) / (state.global_step - self.step))  # tokens of a step
        ahead = min((self.tokens - spent) / each, state.max_steps - state.global_step)
        pace = (time.monotonic() - self.began) / (state.global_step - self.step)
        print(
            f"{self.name}: step {state.global_step}, {spent} tokens, "
            f"reward {logs['reward']:.2f}, {logs['length']:.0f} thinking tokens, "
            f"{pace * max(0.0, ahead) / 60:.0f} min left",
            flush=True,
        )


def _generated(history: list[dict]) -> int:
    """Return the tokens that a training has generated, from TRL's log."""
    return sum(int(log["generated"]) for log in history if "generated" in log)


def steps_of(history: list[dict], method: str, seed: int) -> list[dict]:
    """Return a trainer's log history as rows of the `steps` schema."""
    rows, generated = [], 0
    for log in history:
        if "reward" not in log:
            continue
        generated += int(log["generated"])
        spent = log["sampling_s"] + log["probing_s"]
        rows.append({
            "method": method, "seed": seed, "step": log["step"], "generated_tokens": generated,
            "prover_tokens": int(log["prover_read"]),
            "learning_s": log["step_time"] - spent, "kl": log.get("kl"),
            **{name: log.get(name) for name in (
                "reward", "progress", "regret", "length", "episodes", "truncated", "ended",
                "credit_square", "largest_share",
                "learning_rate", "grad_norm", "sampling_s", "probing_s",
            )},
        })  # fmt: skip
    return rows
