"""MRT on TRL: rollouts by our sampler, and one override that turns credit into advantages.

Every private name of TRL that the project touches is in this file. The trainer samples through
`rollout_func`, so that a rollout depends on (seed, step, row) alone: all methods see the same
first batch, and probing for J cannot disturb the stream. B rollouts, G of them a group, T tokens.
"""

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from trl import GRPOConfig, GRPOTrainer

from mrtlib import regret
from mrtlib.config import Profile
from mrtlib.credit import Curve, Group
from mrtlib.models.caches import Kept
from mrtlib.models.loading import adapters_to_float32, add_lora, check_context, device, load_base
from mrtlib.models.packing import counted
from mrtlib.models.precision import twin_of
from mrtlib.models.quantization import assert_unpacked
from mrtlib.models.sampling import Sample, TransformersSampler
from mrtlib.models.tokens import load_tokenizer, prompt_ids
from mrtlib.prover.probes import check_problems
from mrtlib.prover.prover import Measurement, Prover
from mrtlib.rollouts import Reader, Rollout
from mrtlib.tasks.problems import Problem, load_problems
from mrtlib.training import payment
from mrtlib.training.checkpoints import KEPT
from mrtlib.training.learning import learner
from mrtlib.training.methods import METHODS, Method, largest_share, mean_square
from mrtlib.training.schedule import rate_factor, share_done, stage
from mrtlib.training.starts import StalePrefixes, Start, group_starts

# `rollout_func` is public but marked experimental; the version is pinned and its use is tested.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

ANSWERS = 500_000  # from the seed of a step's rollouts to that of its sampled answers
COMPARISON = 750_000  # ... and of those that exact J is compared with at the start
STALE = 875_000  # ... and of the traces that later rollouts begin with


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
        # As often as the run may need: a run that is resumed in a second epoch would shuffle anew.
        needed = profile.training.most_steps * profile.training.problems_per_step
        rows *= 1 + needed // len(rows)
        self.problems_by_question = {p.question: p for p in self.problem_list}
        self.rollouts: list[Rollout] = []
        self.starts: list[Start] = []  # of the step's rollouts
        self.found = Measurement([], 0, 0)  # what was last measured
        self.sampled = self.refreshed = self.read = self.drawn = 0  # tokens of the step
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
        self.stale = StalePrefixes(folder / "prefixes", self._upcoming(),
                                   profile.training.refresh_every)  # fmt: skip

    @property
    def form(self) -> Method:
        """The line of the table that is trained."""
        return METHODS[self.method]

    def _upcoming(self) -> list[list[Problem]]:
        """Return the problems of every step, in the order in which TRL will ask for them."""
        order, batch = list(self._get_train_sampler()), self.args.generation_batch_size
        repeats = self.num_iterations * self.args.steps_per_generation
        steps = [order[i : i + batch : self.num_generations]
                 for i in range(0, len(order), batch * repeats)]  # fmt: skip
        known = self.problem_list
        return [[known[i % len(known)] for i in some] for some in steps]

    def sampling_model(self, fresh: bool) -> torch.nn.Module:
        """Return the model to sample and probe with; `fresh` after a change of weights."""
        if self.twin is None:
            return self.accelerator.unwrap_model(self.model)
        return self.twin.refresh() if fresh else self.twin.model

    def _outcome(self, prompts, completions, index, sample, start, log_metric, **_) -> list[float]:
        """Grade the rollouts of the step: 1 for a right answer within the budget, else 0.

        `sample` and `start` are further fields of `_sample_rollouts`, passed on a row each.
        """
        self.starts = start
        self.rollouts = [
            own.rollout(self.problem_list[i], self.prompts[p], drawn, self.reader,
                        self.prover.termination)
            for i, p, drawn, own in zip(index, prompts, sample, start, strict=True)
        ]  # fmt: skip
        log_metric("length", np.mean([r.trace_tokens for r in self.rollouts]))
        log_metric("episodes", np.mean([len(r.boundaries) for r in self.rollouts]))
        log_metric("truncated", np.mean([r.truncated for r in self.rollouts]))
        log_metric("ended", np.mean([r.ended for r in self.rollouts]))
        return [float(r.grade.correct) for r in self.rollouts]

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        """Let TRL sample and grade; then pay each token as the method says."""
        self.read = self.drawn = 0
        out = super()._generate_and_score_completions(inputs)
        began = time.perf_counter()
        width = out["completion_ids"].shape[1]
        paid = payment.of_rollouts(self.form, self._groups(), self.rollouts, self.starts, width)
        if self.needs_J:
            paid += self.profile.training.alpha * self._gains(width)
        self.seconds["probing_s"] = time.perf_counter() - began
        out["advantages"] = torch.from_numpy(paid).to(out["advantages"])
        written = sum(len(r.token_ids) - len(s.prefix)
                      for r, s in zip(self.rollouts, self.starts, strict=True))  # fmt: skip
        self.note(
            generated=written + self.refreshed + self.drawn, prover_read=self.read,
            sampled=self.sampled, probed=self.read + self.drawn, **self.seconds,
        )  # fmt: skip
        assert_unpacked(self.model)  # what was sampled and probed with is trained next
        return out

    def _compute_loss(self, model, inputs: dict) -> torch.Tensor:
        """Return TRL's loss, and count the tokens that are learned.

        A model that is wrapped for several devices stays as it is.
        """
        policy = self.accelerator.unwrap_model(model)
        both = {id(m): m for m in (policy, self.sampling_model(fresh=False))}
        faster = learner(model, self.twin, self.profile) if model is policy else model
        with ExitStack() as stack:
            tokens = [stack.enter_context(counted(m)) for m in both.values()]
            loss = super()._compute_loss(faster, inputs)
        parts = self.current_gradient_accumulation_steps  # the log takes the mean over them
        self.note(learned=parts * sum(map(sum, tokens)))
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        """Return the schedule of the profile: a warm-up, then a decay by the tokens spent."""
        training = self.profile.training
        if self.lr_scheduler is None:

            def factor(step: int) -> float:
                warm = min(1.0, step / max(1, training.warmup_steps))
                return warm * rate_factor(training.schedule, self.share_done())

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def share_done(self) -> float:
        """Return how much of the run is done, the present step's tokens included, in [0, 1]."""
        return share_done([*self.state.log_history, self.pending()], self.profile.training)

    def pending(self) -> dict[str, float]:
        """Return what was noted since TRL last wrote its log."""
        return {name: float(np.mean(v)) for name, v in self._metrics["train"].items() if v}

    def _groups(self) -> list[Group]:
        """Return what is known of the rollouts of each problem."""
        size = self.profile.training.group_size * self.form.wider
        weight, out = self.profile.training.length_weight, []
        for first in range(0, len(self.rollouts), size):
            own, starts = (x[first : first + size] for x in (self.rollouts, self.starts))
            value = self._prefix_value(own[0], starts[0]) if self.form.above_prefix else 0.0
            out.append(payment.group_of(own, starts, value, weight))
        return out

    def _prefix_value(self, rollout: Rollout, start: Start) -> float:
        """Return J(mu | the prefix) that a group began with."""
        size = len(start.prefix)
        cut = replace(rollout, boundaries=[size] if size else [], closed=False)
        return float(self._measure([cut])[0][-1])

    def _gains(self, width: int) -> np.ndarray:
        """Measure J, and return each token's credit (B, width); 0 where J is only watched."""
        form, cuts, places = self.form, self.profile.training.cuts, [None] * len(self.rollouts)
        if form.at_budgets:
            places = [payment.budget_places(r, self.budget, cuts) for r in self.rollouts]
            marks = [sorted({t for t in own if t}) for own in places]
            measured = [replace(r, boundaries=m)
                        for r, m in zip(self.rollouts, marks, strict=True)]  # fmt: skip
            curves = payment.at_budgets(self._compared_measure(measured), places)
        else:
            ends = [np.array([0, *r.boundaries]) for r in self.rollouts]
            curves = list(zip(self._compared_measure(self.rollouts), ends, strict=True))
        self._note_curves(curves)
        if form.credit is None:
            return np.zeros((len(self.rollouts), width))
        ends = [payment.ends_of(form, *row)
                for row in zip(self.rollouts, self.starts, places, strict=True)]  # fmt: skip
        values = self._credit(curves)
        self.note(largest_share=largest_share(values, [np.diff(end) for end in ends]))
        return payment.of_episodes(values, ends, self._squares(values), width)

    def _credit(self, curves: list[Curve]) -> list[np.ndarray]:
        """Return the credit of each episode of each rollout, groups one after the other."""
        size = self.profile.training.group_size * self.form.wider
        groups = [curves[first : first + size] for first in range(0, len(curves), size)]
        return [v for group in groups for v in self.form.credit(group, self.budget)]

    def _squares(self, values: list[np.ndarray]) -> list[float]:
        """Return the mean square of the credit of every step so far, and note that of this one.

        From the log, which a checkpoint holds: a run that was cut goes on with the same spread.
        """
        known = [log["credit_square"] for log in self.state.log_history if "credit_square" in log]
        known.append(mean_square(values))
        self.note(credit_square=known[-1])
        return known

    @property
    def needs_J(self) -> bool:
        """Whether J is measured in this step, along all its rollouts."""
        watched = self.state.global_step % self.profile.training.watch_every == 0
        return self.form.credit is not None or (watched and not self.form.from_prefixes)

    @property
    def budget(self) -> int:
        """C0 in tokens."""
        return self.profile.thinking.budget

    def _compared_measure(self, rollouts: list[Rollout]) -> list[np.ndarray]:
        """Measure J of the step's rollouts; before the first time, compare exact with sampled J."""
        if not self.compared:
            self.prover.agree(self.rollouts, self.draw_seed + COMPARISON, self.comparison_file)
            self.compared = True
        return self._measure(rollouts, self.kept)

    def _measure(self, rollouts: list[Rollout], kept: list[Kept] | None = None) -> list[np.ndarray]:
        """Measure J at every boundary of some rollouts, under the current weights."""
        self.found = self.prover.measure(rollouts, self.draw_seed + ANSWERS, kept)
        self.kept = None  # it is of no use after the next change of weights
        self.read, self.drawn = self.read + self.found.read, self.drawn + self.found.drawn
        return self.found.J

    @property
    def draw_seed(self) -> int:
        """The seed of the step's rollouts: the same for every method."""
        return 1_000_003 * self.mrt_seed + self.state.global_step

    def _note_curves(self, curves: list[Curve]) -> None:
        self.note(progress=np.mean([J[-1] - J[0] for J, _ in curves]))
        if not self.form.at_budgets:  # too few places for the area under the curve
            left = [float(regret.normalised_regret(J, t, self.budget)) for J, t in curves]
            self.note(regret=np.mean(left))

    def note(self, **values: float) -> None:
        """Log what is known only after grading: TRL offers `log_metric` to reward functions."""
        for name, value in values.items():
            self._metrics["train"][name].append(float(value))

    def starts_of(self, questions: list[str]) -> list[Start]:
        """Return where each row of a step begins; the rows of a problem stand together."""
        if not self.form.from_prefixes:
            return [Start(self.prompts[q]) for q in questions]
        self.refreshed = self.stale.refresh(
            self.state.global_step, self._stale_traces,
            lambda rollout: self.reader.row(rollout, self.method, self.mrt_seed, 0),
        )  # fmt: skip
        size, out = self.profile.training.group_size * self.form.wider, []
        answering = round(self.form.answering * size)
        for question in questions[::size]:
            prefix = self.stale.prefix(self.problems_by_question[question], self.draw_seed)
            out += group_starts(prefix, size, answering, self._ending)
        return out

    def _stale_traces(self, problems: list[Problem]) -> list[Rollout]:
        """Sample a rollout of the present policy for each problem of an outer iteration."""
        starts = [Start(self.prompts[p.question]) for p in problems]
        drawn = self.sample(starts, self.draw_seed + STALE)
        return [s.rollout(p, s.prompt_ids, sample, self.reader, self.prover.termination)
                for s, p, sample in zip(starts, problems, drawn, strict=True)]  # fmt: skip

    def _ending(self, prefix: Rollout) -> list[int]:
        """Return what the meta-prover reads behind a prefix."""
        return self.prover.termination.prompt(self.prover.probe(prefix), len(prefix.boundaries))

    def sample(self, starts: list[Start], seed: int) -> list[Sample]:
        """Draw one continuation of each start within the run's present budget."""
        thinking, temperature = self.profile.thinking, self.profile.training.temperature
        share = stage(self.form.budgets, share_done(self.state.log_history, self.profile.training))
        budget, answer = max(1, int(share * thinking.budget)), thinking.answer_tokens
        most = max(start.room(budget, answer) for start in starts)
        prompts = [start.prompt_ids for start in starts]
        sampler = TransformersSampler(self.sampling_model(fresh=False),
                                      self.tokenizer.pad_token_id, len(prompts))  # fmt: skip
        settings = most, temperature, 1.0, self.reader.end_ids, seed
        tokens = sum(len(prompt) + most for prompt in prompts)
        keeps = self.needs_J and self.prover.uses_caches(tokens)  # tries the model, uncounted
        with counted(sampler.model) as through:
            if keeps:
                drawn, self.kept = sampler.sample_and_keep(prompts, *settings)
            else:
                drawn = [samples[0] for samples in sampler.sample(prompts, 1, *settings)]
        self.sampled += sum(through)
        return [start.within(sample, self.reader, budget, answer)
                for start, sample in zip(starts, drawn, strict=True)]  # fmt: skip


def _answer_room(profile: Profile) -> int:
    return profile.thinking.answer_tokens + 32  # the termination text stands before the answer


def _sample_rollouts(questions: list[str], trainer: MRTTrainer) -> dict:
    """Sample one rollout for each row. TRL repeats a question for each member of its group."""
    began = time.perf_counter()
    trainer.sampled = trainer.refreshed = 0
    trainer.sampling_model(fresh=True)
    starts = trainer.starts_of(questions)
    samples = trainer.sample(starts, trainer.draw_seed)
    trainer.seconds["sampling_s"] = time.perf_counter() - began
    return {
        "prompt_ids": [start.prompt_ids for start in starts],
        "completion_ids": [sample.token_ids for sample in samples],
        "logprobs": [sample.logprobs for sample in samples],
        "sample": samples,
        "start": starts,
    }


def grpo_settings(profile: Profile, method: str, seed: int, folder: Path) -> GRPOConfig:
    """Return TRL's settings; `folder` takes the checkpoints."""
    training, cuda = profile.training, device().type == "cuda"
    size = training.group_size * METHODS[method].wider
    rows = training.problems_per_step * size
    return GRPOConfig(
        output_dir=str(folder),
        seed=seed,
        use_cpu=not cuda,
        bf16=cuda and profile.model.dtype == "bfloat16",
        per_device_train_batch_size=training.micro_batch,
        gradient_accumulation_steps=rows // training.micro_batch,
        num_generations=size,
        max_completion_length=profile.thinking.budget + profile.thinking.answer_tokens,
        max_steps=training.most_steps,
        learning_rate=training.learning_rate[method],  # its schedule: `create_scheduler`
        max_grad_norm=training.max_grad_norm,
        beta=training.beta,
        temperature=training.temperature,
        loss_type="dapo",
        scale_rewards="group",
        activation_checkpointing=cuda,
        logging_steps=1,
        save_strategy="steps",
        save_steps=training.save_every,
        save_total_limit=KEPT,
        report_to=training.report_to,
        disable_tqdm=True,
    )
