"""What a training says while it runs, and its log as records."""

import time

from transformers import TrainerCallback


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
