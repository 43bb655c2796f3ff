"""MRT on TRL: rollouts by our sampler, and one override that turns credit into advantages.

Every private name of TRL that the project touches is in this file. The trainer samples through
`rollout_func`, so that a rollout depends on (seed, step, row) alone: all methods see the same
first batch, and probing for J cannot disturb the stream. B rollouts, G of them a group, T tokens.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from mrtlib import credit, regret
from mrtlib.config import Profile
from mrtlib.credit import Curve
from mrtlib.models.caches import Kept
from mrtlib.models.loading import adapters_to_float32, add_lora, check_context, device, load_base
from mrtlib.models.precision import twin_of
from mrtlib.models.quantization import assert_unpacked
from mrtlib.models.sampling import TransformersSampler
from mrtlib.models.tokens import load_tokenizer, prompt_ids
from mrtlib.prover.probes import check_problems
from mrtlib.prover.prover import Measurement, Prover
from mrtlib.rollouts import Reader, Rollout
from mrtlib.tasks.problems import load_problems
from mrtlib.training.learning import learner
from mrtlib.training.methods import METHODS, largest_share, mean_square, running_spread

# `rollout_func` is public but marked experimental; the version is pinned and its use is tested.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

ANSWERS = 500_000  # from the seed of a step's rollouts to that of its sampled answers
COMPARISON = 750_000  # ... and of those that exact J is compared with at the start


class MRTTrainer(GRPOTrainer):
    """GRPO for the outcome plus alpha times the information gain of each episode (Eq. 2).

    `train` makes one and ends it in time. By hand, to look inside a step (TRL prints its log):

    >>> from mrtlib import MRTTrainer, load_profile
    >>> profile = load_profile("smoke")
    >>> trainer = MRTTrainer(profile, "regret_to_go", seed=0, folder=profile.runs / "by-hand")
    >>> output = trainer.train()
    {'loss': ...
    >>> len(trainer.rollouts)  # of the last step: 2 problems, 4 rollouts each
    8
    >>> J = trainer.found.J[0]  # of the first of them, J_0 ... J_k
    >>> len(J) == 1 + len(trainer.rollouts[0].boundaries)
    True
    """

    def __init__(self, profile: Profile, method: str, seed: int, folder: Path) -> None:
        """Build base, adapters and data from the profile; `folder` takes the checkpoints."""
        self.profile, self.method, self.mrt_seed = profile, method, seed
        self.problem_list = load_problems(profile.problems / "train.jsonl", profile.data.train)
        self.tokenizer = load_tokenizer(profile)
        self.reader = Reader(self.tokenizer, profile.thinking)
        if profile.prover.estimator == "exact":
            check_problems(self.problem_list, self.reader.joiner, profile.thinking)
        self.prompts = {p.question: prompt_ids(self.tokenizer, p.question, profile.thinking)
                        for p in self.problem_list}  # fmt: skip
        policy = add_lora(load_base(profile), profile.lora, seed)
        longest = max(len(ids) for ids in self.prompts.values())
        check_context(policy.config, longest, profile.thinking.budget + _answer_room(profile))
        rows = [{"prompt": p.question, "index": i} for i, p in enumerate(self.problem_list)]
        self.rollouts: list[Rollout] = []
        self.found = Measurement([], 0, 0)  # J of the step's rollouts, where it was needed
        self.kept: list[Kept] | None = None  # their caches, until J is measured
        self.seconds = {"sampling_s": 0.0, "probing_s": 0.0}
        self.compared = False  # exact with sampled J, once in a run
        self.comparison_file = folder / "comparison.json"
        super().__init__(
            model=policy,
            reward_funcs=[self._outcome],
            args=grpo_settings(profile, method, seed, folder),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer,
            rollout_func=_sample_rollouts,
        )
        adapters_to_float32(self.model)  # TRL casts them to bfloat16 on a 4-bit base
        plain = self.accelerator.unwrap_model(self.model)
        record = folder / "precision.json"
        self.twin = twin_of(plain, profile, record) if profile.model.twin else None
        model = self.sampling_model(fresh=False)
        self.prover = Prover(model, self.tokenizer, profile, reader=self.reader)

    def sampling_model(self, fresh: bool) -> torch.nn.Module:
        """Return the model to sample and probe with; `fresh` after a change of weights."""
        if self.twin is None:
            return self.accelerator.unwrap_model(self.model)
        return self.twin.refresh() if fresh else self.twin.model

    def _outcome(self, prompts, completions, index, sample, log_metric, **_) -> list[float]:
        """Grade the rollouts of the step: 1 for a right answer within the budget, else 0.

        `sample` is a further field of `_sample_rollouts`, which TRL passes on a row each.
        """
        self.rollouts = [
            self.reader.read(self.problem_list[i], self.prompts[p], own)
            for i, p, own in zip(index, prompts, sample, strict=True)
        ]
        log_metric("length", np.mean([r.trace_tokens for r in self.rollouts]))
        log_metric("episodes", np.mean([len(r.boundaries) for r in self.rollouts]))
        log_metric("truncated", np.mean([r.truncated for r in self.rollouts]))
        log_metric("ended", np.mean([r.ended for r in self.rollouts]))
        return [float(r.grade.correct) for r in self.rollouts]

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        """Let TRL sample, grade and normalise; then add the credit of each episode's tokens."""
        self.found = Measurement([], 0, 0)
        out = super()._generate_and_score_completions(inputs)
        began = time.perf_counter()
        shared = out["advantages"][:, None]
        gains = torch.from_numpy(self._gains(out["completion_ids"].shape[1])).to(shared)
        self.seconds["probing_s"] = time.perf_counter() - began
        out["advantages"] = shared + self.profile.training.alpha * gains
        self._log_cost()
        assert_unpacked(self.model)  # what was sampled and probed with is trained next
        return out

    def _compute_loss(self, model: torch.nn.Module, inputs: dict) -> torch.Tensor:
        """Let TRL compute its loss; a model wrapped for several devices stays as it is."""
        plain = model is self.accelerator.unwrap_model(model)
        faster = learner(model, self.twin, self.profile) if plain else model
        return super()._compute_loss(faster, inputs)

    def _gains(self, width: int) -> np.ndarray:
        """Return each token's credit (B, width); J is measured where credit or log needs it."""
        gains = np.zeros((len(self.rollouts), width))
        if not self.needs_J:
            return gains
        curves = self._curves()
        self._log_curves(curves)
        ends = [np.array([0, *self._paid(rollout)]) for rollout in self.rollouts]
        values = self._credit(curves)
        for row, (value, end) in enumerate(zip(values, ends, strict=True)):
            gains[row] = credit.per_token(value, end, width)
        self._log(largest_share=largest_share(values, [np.diff(end) for end in ends]))
        return gains

    def _paid(self, rollout: Rollout) -> list[int]:
        """Return where the tokens that an episode's credit goes to end, for each episode."""
        return rollout.maker_ends if METHODS[self.method].to_maker else rollout.boundaries

    @property
    def needs_J(self) -> bool:
        """Whether J is measured in this step."""
        watched = self.state.global_step % self.profile.training.watch_every == 0
        return watched or self.method != "outcome"

    def _credit(self, curves: list[Curve]) -> list[np.ndarray]:
        """Return the credit of each episode of each rollout, groups one after the other."""
        size, method = self.profile.training.group_size, METHODS[self.method]
        groups = [curves[first : first + size] for first in range(0, len(curves), size)]
        values = [v for group in groups for v in method.credit(group, self.budget)]
        # From the log, which a checkpoint holds: a run that was cut goes on with the same spread.
        known = [log["credit_square"] for log in self.state.log_history if "credit_square" in log]
        known.append(mean_square(values))
        self._log(credit_square=known[-1])
        return [v / running_spread(known) for v in values]

    @property
    def budget(self) -> int:
        """C0 in tokens."""
        return self.profile.thinking.budget

    def _curves(self) -> list[Curve]:
        """Measure J at every boundary of the step's rollouts, under the current weights."""
        if not self.compared:
            self.prover.agree(self.rollouts, self.draw_seed + COMPARISON, self.comparison_file)
            self.compared = True
        self.found = self.prover.measure(self.rollouts, self.draw_seed + ANSWERS, self.kept)
        self.kept = None  # it is of no use after the next change of weights
        ends = [np.array([0, *r.boundaries]) for r in self.rollouts]
        return list(zip(self.found.J, ends, strict=True))

    @property
    def draw_seed(self) -> int:
        """The seed of the step's rollouts: the same for every method."""
        return 1_000_003 * self.mrt_seed + self.state.global_step

    def _log_curves(self, curves: list[Curve]) -> None:
        left = [float(regret.normalised_regret(J, t, self.budget)) for J, t in curves]
        gained = [J[-1] - J[0] for J, _ in curves]
        self._log(progress=np.mean(gained), regret=np.mean(left))

    def _log_cost(self) -> None:
        written = sum(len(r.token_ids) for r in self.rollouts)
        self._log(generated=written + self.found.drawn, prover_read=self.found.read, **self.seconds)

    def _log(self, **values: float) -> None:
        """Log what is known only when J is: TRL offers `log_metric` to reward functions alone."""
        for name, value in values.items():
            self._metrics["train"][name].append(float(value))


def _answer_room(profile: Profile) -> int:
    return profile.thinking.answer_tokens + 32  # the termination text stands before the answer


def _sample_rollouts(questions: list[str], trainer: MRTTrainer) -> dict:
    """Sample one rollout for each row. TRL repeats a question for each member of its group."""
    began, profile = time.perf_counter(), trainer.profile
    prompts = [trainer.prompts[q] for q in questions]
    model = trainer.sampling_model(fresh=True)
    sampler = TransformersSampler(model, trainer.tokenizer.pad_token_id, len(prompts))
    most = profile.thinking.budget + profile.thinking.answer_tokens
    settings = (
        most, profile.training.temperature, 1.0, trainer.reader.end_ids, trainer.draw_seed
    )
    tokens = sum(len(prompt) + most for prompt in prompts)
    if trainer.needs_J and trainer.prover.uses_caches(tokens):
        drawn, trainer.kept = sampler.sample_and_keep(prompts, *settings)
    else:
        drawn = [samples[0] for samples in sampler.sample(prompts, 1, *settings)]
    samples = [trainer.reader.within_budget(sample) for sample in drawn]
    trainer.seconds["sampling_s"] = time.perf_counter() - began
    return {
        "prompt_ids": prompts,
        "completion_ids": [sample.token_ids for sample in samples],
        "logprobs": [sample.logprobs for sample in samples],
        "sample": samples,
    }


def grpo_settings(profile: Profile, method: str, seed: int, folder: Path) -> GRPOConfig:
    """Return TRL's settings; `folder` takes the checkpoints."""
    training, cuda = profile.training, device().type == "cuda"
    rows = training.problems_per_step * training.group_size
    return GRPOConfig(
        output_dir=str(folder),
        seed=seed,
        use_cpu=not cuda,
        bf16=cuda and profile.model.dtype == "bfloat16",
        per_device_train_batch_size=training.micro_batch,
        gradient_accumulation_steps=rows // training.micro_batch,
        num_generations=training.group_size,
        max_completion_length=profile.thinking.budget + profile.thinking.answer_tokens,
        max_steps=training.most_steps,
        learning_rate=training.learning_rate[method],
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=training.warmup_steps,
        beta=training.beta,
        temperature=training.temperature,
        loss_type="dapo",
        scale_rewards="group",
        gradient_checkpointing=cuda,
        logging_steps=1,
        save_strategy="steps",
        save_steps=training.save_every,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
    )
