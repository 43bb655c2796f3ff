"""The embedded reasoner: a small language model that this repository makes from a seed.

A stock Llama with a word-level tokenizer learns next-token prediction on `lessons`. In the last
part of the training its weights are rounded as 4-bit loading will round them (`round_to_nf4`), so
that the model is as good in NF4.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.utils import parametrize
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mrtlib.config import Thinking
from mrtlib.reasoner.lessons import THINKING, Lesson, Recipe, batches, build_tokenizer, lesson
from mrtlib.tasks.countdown import make_splits
from mrtlib.tasks.problems import Problem

NF4 = torch.tensor(
    [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
)  # fmt: skip
# What Muon and AdamW keep of each parameter.
STATE = (("momentum_buffer",), ("step", "exp_avg", "exp_avg_sq"))
LOGGED = 50  # steps from one line of the log to the next


@dataclass(frozen=True)
class Course:
    """What a model learns: its tokenizer, how a lesson is written, and from which model it starts.

    Without a `parent`, a folder with a model of the same shape, it starts from nothing. `dtype` is
    what the trained weights are written in.
    """

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    lesson: Lesson
    thinking: Thinking
    parent: Path | None = None
    dtype: torch.dtype = torch.float32


REASONER = Course(build_tokenizer, lesson, THINKING)


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Build the untrained model; hidden sizes are multiples of 64, as 4-bit kernels need."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=64 * math.ceil(len(tokenizer) / 64),
        hidden_size=recipe.width,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


@torch.no_grad()
def adopt(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, parent: Path) -> None:
    """Give a model the weights of another one; of embeddings, those of the words that both know."""
    older = LlamaForCausalLM.from_pretrained(parent, dtype=torch.float32)
    theirs = PreTrainedTokenizerFast.from_pretrained(parent).get_vocab()
    model.model.layers.load_state_dict(older.model.layers.state_dict())
    model.model.norm.load_state_dict(older.model.norm.state_dict())
    both = [(ours, theirs[word]) for word, ours in tokenizer.get_vocab().items() if word in theirs]
    new, old = zip(*both, strict=True)
    model.model.embed_tokens.weight[list(new)] = older.model.embed_tokens.weight[list(old)]


def round_to_nf4(weight: torch.Tensor, block: int = 64) -> torch.Tensor:
    """Round a weight to 4-bit NormalFloat in blocks (arXiv 2305.14314); gradients pass through."""
    flat = weight.detach().reshape(-1, block)
    scale = flat.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    middles = (NF4[1:] + NF4[:-1]) / 2
    rounded = NF4[torch.bucketize(flat / scale, middles)] * scale
    return weight + (rounded.reshape(weight.shape) - weight.detach())


class _Rounded(torch.nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return round_to_nf4(weight)


def round_linears(model: LlamaForCausalLM, on: bool) -> None:
    """Let every linear layer of the blocks use rounded weights, or its own again."""
    for module in model.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            if on and not parametrize.is_parametrized(module):
                parametrize.register_parametrization(module, "weight", _Rounded())
            elif not on and parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


def learning_rate(recipe: Recipe, done: float) -> float:
    """Return the learning rate after a share `done` of the tokens: warm-up, then cosine to 2 %."""
    if done < recipe.warmup:
        return recipe.learning_rate * (done + 1e-3) / (recipe.warmup + 1e-3)
    part = (done - recipe.warmup) / (1 - recipe.warmup)
    return recipe.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1, part))) / 2)


def build_optimizers(
    model: LlamaForCausalLM, recipe: Recipe
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks and AdamW for embeddings and norms.

    Muon orthogonalises the momentum of a matrix; its updates are scaled to the size of AdamW's, so
    that both have one learning rate. It needs a fraction of the tokens of AdamW alone.

    Source: arXiv 2502.16982.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in known]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    muon = torch.optim.Muon(matrices, rate, decay, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(rest, rate, betas=(0.9, 0.98), weight_decay=decay)


class ReasonerTraining:
    """The training of the reasoner: resumable, with progress and an estimate of the time left."""

    def __init__(
        self, recipe: Recipe, problems: list[Problem], folder: Path, course: Course = REASONER
    ) -> None:
        self.recipe, self.problems, self.folder = recipe, problems, Path(folder)
        self.course, self.tokenizer = course, course.tokenizer()
        self.model = build_model(recipe, self.tokenizer)
        if course.parent is not None:
            adopt(self.model, self.tokenizer, course.parent)
        self.optimizers = build_optimizers(self.model, recipe)
        self.step = self.tokens = 0
        self.log: list[dict] = []

    def run(self, seconds_between_saves: float = 120.0) -> LlamaForCausalLM:
        """Train to the end, from the last checkpoint if there is one, and return the model."""
        self._resume()
        began, before, saved = time.monotonic(), self.tokens, time.monotonic()
        lessons = batches(
            self.problems, self.recipe, self.tokenizer, self.step, self.course.lesson,
            self.course.thinking,
        )  # fmt: skip
        for batch in lessons:
            if self.tokens >= self.recipe.tokens:
                break
            self._learn(batch)
            if self.step % LOGGED == 0:
                rate = (self.tokens - before) / (time.monotonic() - began)
                left = (self.recipe.tokens - self.tokens) / max(rate, 1e-9) / 60
                print(
                    f"step {self.step}: {self.tokens / 1e6:.2f} of {self.recipe.tokens / 1e6:.1f} "
                    f"million tokens, loss {self.log[-1]['loss']:.4f}, {rate:.0f} tokens/s, "
                    f"{left:.0f} min left",
                    flush=True,
                )
            if time.monotonic() - saved > seconds_between_saves:
                self._save()
                saved = time.monotonic()
        self._save()
        round_linears(self.model, False)
        return self.model.eval()

    def _learn(self, batch: dict) -> None:
        done = self.tokens / self.recipe.tokens
        if done >= 1 - self.recipe.rounded_share:
            round_linears(self.model, True)
        for group in (g for o in self.optimizers for g in o.param_groups):
            group["lr"] = learning_rate(self.recipe, done)
        mask = batch["input_ids"] != self.tokenizer.pad_token_id
        # Rows are padded on the right, so causal attention needs no mask.
        loss = self.model(batch["input_ids"], labels=batch["labels"], use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += int(mask.sum())
        if self.step % LOGGED == 0:
            self.log.append({"step": self.step, "tokens": self.tokens, "loss": loss.item()})

    def _save(self) -> None:
        """Write a checkpoint: weights and optimiser as safetensors, the rest as JSON."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"weight/{name}": p.detach() for name, p in self._parameters()}
        for name, p in self._parameters():
            for state in (o.state[p] for o in self.optimizers if p in o.state):
                tensors |= {f"{key}/{name}": v.clone() for key, v in state.items()}
        facts = {"recipe": asdict(self.recipe), "step": self.step, "tokens": self.tokens}
        temporary = self.folder / "checkpoint.tmp"
        state = {"state": json.dumps(facts | {"log": self.log})}
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, temporary, state)
        temporary.replace(self.folder / "checkpoint.safetensors")

    def _parameters(self):
        """Yield the parameters under the names they have without rounding."""
        for name, p in self.model.named_parameters():
            yield name.replace("parametrizations.weight.original", "weight"), p

    def _resume(self) -> None:
        path = self.folder / "checkpoint.safetensors"
        if not path.is_file():
            return
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["state"])
        if facts["recipe"] != json.loads(json.dumps(asdict(self.recipe))):
            raise ValueError(f"{path} is of another recipe; move it away to start afresh")
        tensors = load_file(path)
        for name, p in self._parameters():
            p.data.copy_(tensors[f"weight/{name}"])
            for optimizer, keys in zip(self.optimizers, STATE, strict=True):
                if any(p is own for group in optimizer.param_groups for own in group["params"]):
                    optimizer.state[p] = {key: tensors[f"{key}/{name}"] for key in keys}
        self.step, self.tokens, self.log = facts["step"], facts["tokens"], facts["log"]

    def export(self, folder: Path) -> None:
        """Write the trained model, its tokenizer, the recipe and the loss curve to a folder."""
        self.model.to(self.course.dtype)
        self.model.generation_config.pad_token_id = self.tokenizer.pad_token_id
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        facts = {"recipe": asdict(self.recipe), "log": self.log}
        (Path(folder) / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def make(recipe: Recipe, work: Path, folder: Path, course: Course = REASONER) -> None:
    """Make a model and write it to a folder; goes on from the last checkpoint in `work`."""
    training = ReasonerTraining(recipe, make_splits(0)["warmup"], work, course)
    training.run()
    training.export(folder)
