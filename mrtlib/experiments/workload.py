"""The work that the benchmark times: training steps, and a model of a given shape for them.

A step is the trainer's own, on the same problems with the same seed each time and at a learning
rate of 0, so that two steps differ only in what is compared.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from mrtlib.config import Data, Evaluation, Model, Profile
from mrtlib.models.loading import device
from mrtlib.models.packing import counted
from mrtlib.models.tokens import think_ids
from mrtlib.prover.prover import Prover
from mrtlib.reasoner.lessons import build_tokenizer
from mrtlib.rollouts import Rollout
from mrtlib.store import write_text
from mrtlib.tasks.countdown import countdown
from mrtlib.tasks.problems import as_record
from mrtlib.training.trainer import MRTTrainer

FEWEST = 5  # pairs of two things measured in turn


class BenchError(ValueError):
    """A benchmark that would say nothing."""


@dataclass(frozen=True)
class Shape:
    """A Qwen2 with random weights, and the traces that it is given to write."""

    hidden: int = 320
    layers: int = 7
    heads: int = 5
    key_value_heads: int = 1
    intermediate: int = 1280
    trace: int = 1024  # tokens: the budget, which it always uses up
    boundaries: int = 8
    answer: int = 16  # tokens of a sampled answer, which it always uses up as well
    rollouts: int = 8  # of one problem: a step
    vocabulary: int = 0  # more words than the tokenizer has, which are never written; 0: as many


@dataclass(frozen=True)
class Spent:
    """What some work took."""

    amount: float  # seconds, or bytes
    tokens: int  # through the model, padding included


Work = Callable[[], Spent]
Pairs = list[tuple[Spent, Spent]]  # ours and the other's, measured in turn


def endless_model(shape: Shape, vocabulary: int, never: list[int]) -> Qwen2ForCausalLM:
    """Build a random Qwen2 that never writes the tokens `never`: its traces have a known length.

    The first number of the residual stream is 10 behind every token, and no layer writes to it. In
    the last matrix its weight is -100 for the tokens that must not come, and 0 for the others.
    """
    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.intermediate, max_position_embeddings=2 * shape.trace,
        pad_token_id=0, bos_token_id=None, eos_token_id=never[0], tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
        model.model.embed_tokens.weight[:, 0] = 10.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[never, 0] = -100.0
    return model


def long_profile(base: Profile, shape: Shape, folder: Path) -> Profile:
    """Write the model of a shape and one problem with one reference; return a profile of them."""
    tokenizer = build_tokenizer()
    words = max(shape.vocabulary, len(tokenizer))
    never = [tokenizer.eos_token_id, *think_ids(tokenizer, base.thinking)[1],
             *range(len(tokenizer), words)]  # fmt: skip
    with torch.device(device()):
        model = endless_model(shape, words, never)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    problem = replace(countdown((3, 5, 7), 22, "three"), references=("3 * 5 + 7",))
    write_text(folder / "train.jsonl", json.dumps(as_record(problem)) + "\n")
    return replace(
        base,
        name="bench",
        model=Model(str(folder / "model")),
        data=Data(folder=str(folder), levels=("three",), train=1),
        thinking=replace(
            base.thinking, segmenter="tokens", episode_tokens=shape.trace // shape.boundaries,
            budget=shape.trace, answer_tokens=shape.answer,
        ),
        training=replace(
            base.training, problems_per_step=1, group_size=shape.rollouts,
            micro_batch=shape.rollouts,
        ),
        evaluation=Evaluation(batch_rows=512),
    )  # fmt: skip


def wider(profile: Profile, rollouts: int) -> Profile:
    """Return a `long_profile` with more rollouts in a step, of which half are sampled at a time."""
    return replace(profile, training=replace(
        profile.training, group_size=rollouts, micro_batch=rollouts, sampling_rows=rollouts // 2
    ))  # fmt: skip


def in_one_batch(profile: Profile) -> Profile:
    """Return the settings of a step that saves nothing: one batch, as TRL pads and masks it.

    Learning goes through PEFT's own passes; J has large passes, no caches from sampling, and
    equal beginnings are asked again for each rollout. The results are the same up to rounding.
    """
    prover = replace(
        profile.prover, pass_tokens=profile.prover.pack_tokens, keep_tokens=0, equal_once=False
    )
    return replace(
        profile, prover=prover, model=replace(profile.model, merged=False),
        training=replace(profile.training, part_tokens=0),
    )  # fmt: skip


class Stepper:
    """A trainer that can take a step again and again, each time with the same rollouts."""

    def __init__(self, profile: Profile, folder: Path) -> None:
        never = replace(profile.training, watch_every=10**9)  # GRPO alone does not look at J
        profile = replace(profile, training=never)
        self.profile, self.trainer = profile, MRTTrainer(profile, "outcome", 0, folder)
        trainer, size = self.trainer, profile.training.group_size
        trainer.compared = True  # the comparison of exact with sampled J is no part of a step
        trainer.create_optimizer()
        for group in trainer.optimizer.param_groups:
            group["lr"] = 0.0
        trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
        trainer.state.global_step = 1  # a step in which the outcome is not watched
        problems = range(profile.training.problems_per_step)
        self.inputs = [dict(trainer.train_dataset[i]) for i in problems for _ in range(size)]

    @property
    def model(self) -> torch.nn.Module:
        """The model that samples and probes."""
        return self.trainer.sampling_model(fresh=False)

    @property
    def rollouts(self) -> list[Rollout]:
        """The rollouts of the last step."""
        return self.trainer.rollouts

    def step(self, method: str, samples: int = 0, settings: Profile | None = None) -> Spent:
        """Sample, measure J as the method needs, learn; J from `samples` answers, 0 is exact.

        Args:
            settings: in place of the stepper's own, such as those of `in_one_batch`.
        """
        trainer, base = self.trainer, settings or self.profile
        changes = {"estimator": "sampled", "samples": samples} if samples else {}
        own = replace(base, prover=replace(base.prover, **changes))
        trainer.method, trainer.profile = method, own
        trainer.prover = Prover(self.model, trainer.tokenizer, own, reader=trainer.reader)
        models = {id(m): m for m in (trainer.accelerator.unwrap_model(trainer.model), self.model)}

        def run() -> None:
            trainer.model.train()
            for _ in range(trainer.args.gradient_accumulation_steps):
                trainer.training_step(trainer.model, self.inputs, None)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()

        return timed(run, *models.values())


def timed(run: Callable[[], object], *models: torch.nn.Module) -> Spent:
    """Run something; return its seconds, and the tokens through the models with padding."""
    with ExitStack() as stack:
        tokens = [stack.enter_context(counted(model)) for model in models]
        began = _now()
        run()
        return Spent(_now() - began, sum(map(sum, tokens)))


def _now() -> float:
    """Return the time in seconds when all work given to an accelerator so far is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def check_pairs(pairs: int) -> None:
    """Raise BenchError for too few pairs for a range."""
    if pairs < FEWEST:
        raise BenchError(f"{pairs} pairs say little about a ratio; take {FEWEST} or more")


def in_turn(ours: Work, other: Work, pairs: int) -> Pairs:
    """Run two works in turn, after one run of each; every second pair begins with the other.

    Raises:
        BenchError: fewer than five pairs.
    """
    check_pairs(pairs)
    ours(), other()
    found = []
    for pair in range(pairs):
        both = [work() for work in ((ours, other), (other, ours))[pair % 2]]
        found.append((both[pair % 2], both[1 - pair % 2]))
    return found
