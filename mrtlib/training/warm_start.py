"""The warm start of backtracking search: supervised fine-tuning with TRL, and its held-out loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from mrtlib.config import Profile
from mrtlib.models.loading import device, load_base
from mrtlib.models.tokens import load_tokenizer
from mrtlib.reasoner.making import round_linears

Coded = tuple[list[int], list[int]]  # token ids and labels of one text; -100 is not learned
IGNORED = -100


@dataclass(frozen=True)
class FineTuning:
    """The supervised fine-tuning of the warm start, the same for every kind of data."""

    epochs: int = 2
    step_tokens: int = 2_048  # about; batches have the number of texts that this gives on average
    learning_rate: float = 1e-3
    warmup: float = 0.05
    looks: int = 20  # at the held-out loss, evenly spaced, beside one before the first step


def fine_tune(
    profile: Profile, texts: Sequence[Coded], held_out: Sequence[Coded], seed: int, folder: Path,
    settings: FineTuning = FineTuning(),
) -> tuple[PreTrainedModel, list[dict]]:  # fmt: skip
    """Fine-tune all weights of the profile's model on texts.

    Where the profile loads in 4 bits, the weights are rounded to NF4 in each pass, as at the end
    of the pre-training, so that loading in 4 bits costs little.

    Args:
        texts: of these the labels are learned.
        held_out: of which the loss is measured.
        folder: TRL's own; nothing is saved there.

    Returns:
        The model, and a row for each look: step, tokens and learned (so far, padding left out),
        train_loss (since the look before, None at first) and loss (held out), in nats a token.
    """
    plain = Profile("plain", type(profile.model)(profile.model.name, "none", "float32", False))
    model = load_base(plain).requires_grad_(True)
    rows = max(1, round(settings.step_tokens * len(texts) / sum(len(ids) for ids, _ in texts)))
    steps = settings.epochs * math.ceil(len(texts) / rows)
    watch = HeldOut(held_out, max(1, steps // settings.looks))
    round_linears(model, profile.model.quantization == "nf4")
    trainer = SFTTrainer(
        model=model,
        args=sft_settings(settings, rows, seed, folder),
        train_dataset=Dataset.from_list(
            [{"input_ids": ids, "labels": labels} for ids, labels in texts]
        ),
        processing_class=load_tokenizer(profile),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    round_linears(model, False)
    return model.eval(), watch.with_tokens(texts, rows, trainer.state.log_history)


def sft_settings(settings: FineTuning, rows: int, seed: int, folder: Path) -> SFTConfig:
    """Return TRL's settings for batches of so many texts."""
    return SFTConfig(
        output_dir=str(folder),
        seed=seed,
        data_seed=seed,
        use_cpu=device().type != "cuda",
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=rows,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class HeldOut(TrainerCallback):
    """Measures the held-out loss before the first step and at equal distances from there on."""

    def __init__(self, texts: Sequence[Coded], every: int) -> None:
        self.texts, self.every = texts, every
        self.rows: list[dict] = []

    def on_train_begin(self, args, state, control, model=None, **_) -> None:
        self._look(state, model)

    def on_step_end(self, args, state, control, model=None, **_) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._look(state, model)

    def _look(self, state, model) -> None:
        self.rows.append({"step": state.global_step, "loss": held_out_loss(model, self.texts)})

    def with_tokens(self, texts: Sequence[Coded], rows: int, history: list[dict]) -> list[dict]:
        """Return the looks with the tokens spent by then, and the training loss since the last."""
        read = sum(len(ids) for ids, _ in texts) * rows / len(texts)
        learned = sum(_learned(labels) for _, labels in texts) * rows / len(texts)
        losses = {log["step"]: log["loss"] for log in history if "loss" in log}
        out, before = [], 0
        for row in self.rows:
            since = [losses[n] for n in range(before + 1, row["step"] + 1) if n in losses]
            mean = sum(since) / len(since) if since else None
            tokens = {"tokens": round(read * row["step"]), "learned": round(learned * row["step"])}
            out.append({"step": row["step"], **tokens, "train_loss": mean, "loss": row["loss"]})
            before = row["step"]
        return out


def _learned(labels: Sequence[int]) -> int:
    return sum(label != IGNORED for label in labels)


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, texts: Sequence[Coded], rows: int = 64) -> float:
    """Return the mean loss over all learned tokens of some texts, in nats."""
    training, total, count = model.training, 0.0, 0
    model.eval()
    texts = sorted(texts, key=lambda text: len(text[0]))
    for first in range(0, len(texts), rows):
        part = texts[first : first + rows]
        width = max(len(ids) for ids, _ in part)
        # Rows are padded on the right, so causal attention needs no mask.
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in part])
        labels = torch.tensor([own + [IGNORED] * (width - len(own)) for _, own in part])
        logits = model(ids.to(model.device), use_cache=False).logits[:, :-1].float()
        target = labels[:, 1:].to(model.device)
        total += float(cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum"))
        count += int((target != IGNORED).sum())
    model.train(training)
    return total / max(count, 1)
