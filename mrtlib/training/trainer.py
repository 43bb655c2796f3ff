"""MRT on TRL: rollouts by our sampler, and one override that turns credit into advantages.

Every private name of TRL that the project touches is in this file. The trainer samples through
`rollout_func`, so that a rollout depends on (seed, step, row) alone: all methods see the same
first batch, and probing for J cannot disturb the stream. Of several processes (`accelerate launch`)
each has a part of the rows. B rollouts of this process, G of them a group, T tokens.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from trl import GRPOTrainer

from mrtlib import regret
from mrtlib.config import Profile
from mrtlib.credit import Curve, Group
from mrtlib.models.loading import adapters_to_float32, add_lora, load_base
from mrtlib.models.packing import counted
from mrtlib.models.precision import twin_of
from mrtlib.models.quantization import assert_unpacked
from mrtlib.models.sampling import Sampler, TransformersSampler
from mrtlib.prover.prover import Measurement, Prover
from mrtlib.rollouts import Rollout
from mrtlib.tasks.problems import Problem
from mrtlib.training import payment
from mrtlib.training.collecting import ANSWERS, COMPARISON, STALE, Collected, Collector
from mrtlib.training.grpo import grpo_settings
from mrtlib.training.learning import learner
from mrtlib.training.methods import METHODS, Method, largest_share, mean_square
from mrtlib.training.ranks import Ranks
from mrtlib.training.schedule import rate_at, share_done, stage
from mrtlib.training.served import ServedPolicy
from mrtlib.training.source import Source
from mrtlib.training.starts import NOTHING, Spent, StalePrefixes, Start, group_starts

# `rollout_func` is public but marked experimental; the version is pinned and its use is tested.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


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
        self.source = Source(profile, seed)
        self.tokenizer, self.reader = self.source.tokenizer, self.source.reader
        policy = add_lora(load_base(profile), profile.lora, seed)
        self.source.check_room(policy.config)
        rows = [{"prompt": p.question, "index": i} for i, p in enumerate(self.source.problems)]
        rows *= self.source.times()
        self.step = Collected()
        # Tokens of the step: of stale prefixes, generated and through the model; of the correction.
        self.traces, self.scored = NOTHING, 0
        self.compared = False  # exact with sampled J, once in a run
        self.comparison_file = folder / "comparison.json"
        self.ranks = Ranks.here()
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
        self.served = ServedPolicy.of(self, plain)
        if self.served:  # TRL brings it up to date before rollouts, and corrects for it
            self.use_vllm, self._last_loaded_step = True, -1
            self.vllm_generation = self.served
        record = folder / "precision.json"
        self.twin = twin_of(plain, profile, record) if profile.model.twin else None
        model = self.sampling_model(fresh=False)
        drawing = self.served and self.served.sampler
        self.prover = Prover(model, self.tokenizer, profile, drawing, self.reader)
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
        known = self.source.problems
        return [[known[i % len(known)] for i in some] for some in steps]

    def sampling_model(self, fresh: bool) -> torch.nn.Module:
        """Return the model to sample and probe with; `fresh` after a change of weights."""
        if self.twin is None:
            return self.accelerator.unwrap_model(self.model)
        return self.twin.refresh() if fresh else self.twin.model

    @property
    def rollouts(self) -> list[Rollout]:
        """The rollouts of the step."""
        return self.step.rollouts

    @property
    def found(self) -> Measurement:
        """J of the step's rollouts, where it was measured."""
        return self.step.found

    def sampler(self, rows: int) -> Sampler:
        """Return what draws from the present policy, so many rows at a time."""
        if self.served:
            return self.served.sampler
        model = self.sampling_model(fresh=False)
        return TransformersSampler(model, self.tokenizer.pad_token_id, rows)

    def collector(self, rows: int) -> Collector:
        """Return what draws and measures rollouts of the present policy."""
        return Collector(self.profile, self.form, self.prover, self.sampler(rows), self.ranks)

    def collect(self, questions: list[str]) -> Collected:
        """Draw the rollouts of a step, one for each question, and measure J where it is wanted."""
        self.traces, began = NOTHING, time.perf_counter()
        self.sampling_model(fresh=True)
        problems = [self.source.of_question[q] for q in questions]
        starts = self.starts_of(problems)
        waited = time.perf_counter() - began
        self.step = self.collector(len(starts)).collect(
            problems, [self.source.prompts[q] for q in questions], starts,
            (self.draw_seed, self.draw_seed + ANSWERS), self.present_budget,
            self._agree if self.needs_J else None,
        )  # fmt: skip
        self.step.sampling_s += waited
        self.step.sampled += self.traces.sampled
        return self.step

    def _outcome(self, prompts, completions, **_) -> list[float]:
        """Return 1 for a right answer within the budget, else 0, of the step's rollouts."""
        rollouts = self.rollouts
        self.note(
            length=np.mean([r.trace_tokens for r in rollouts]),
            episodes=np.mean([len(r.boundaries) for r in rollouts]),
            truncated=np.mean([r.truncated for r in rollouts]),
            ended=np.mean([r.ended for r in rollouts]),
        )
        return [float(r.grade.correct) for r in rollouts]

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        """Let TRL sample and grade; then pay each token as the method says."""
        policy = self.accelerator.unwrap_model(self.model)
        with counted(policy) if self.served else nullcontext([]) as scored:  # TRL's correction
            out = super()._generate_and_score_completions(inputs)
        began, step = time.perf_counter(), self.step
        width = out["completion_ids"].shape[1]
        paid = payment.of_rollouts(self.form, self._groups(), step.rollouts, step.starts, width)
        if self.needs_J:
            paid += self.profile.training.alpha * self._gains(width)
        out["advantages"] = torch.from_numpy(paid).to(out["advantages"])
        self.note(sampling_s=step.sampling_s,
                  probing_s=step.probing_s + time.perf_counter() - began)  # fmt: skip
        found = step.found
        self.note_sums(
            generated=step.written + self.traces.generated + found.drawn, prover_read=found.read,
            sampled=step.sampled, probed=found.read + found.drawn,
        )  # fmt: skip
        self.scored = sum(scored)
        if self.served:
            self.served.watch(self._metrics["train"]["sampling/sampling_logp_difference/mean"][-1])
        assert_unpacked(self.model)  # what was sampled and probed with is trained next
        return out

    def _compute_loss(self, model, inputs: dict) -> torch.Tensor:
        """Return TRL's loss, and count the tokens that are learned.

        Each of several processes with a whole model learns its rows by itself; `training_step`
        brings their gradients together. A model whose parts are on several devices stays as it is.
        """
        policy = self.accelerator.unwrap_model(model)
        both = {id(m): m for m in (policy, self.sampling_model(fresh=False))}
        whole = model is policy or isinstance(model, DistributedDataParallel)
        faster = learner(policy, self.twin, self.profile) if whole else model
        with ExitStack() as stack:
            tokens = [stack.enter_context(counted(m)) for m in both.values()]
            loss = super()._compute_loss(faster, inputs)
        parts = self.current_gradient_accumulation_steps  # the log takes the mean over them
        self.note_sums(learned=parts * sum(map(sum, tokens)) + self.scored)
        return loss

    def training_step(self, model, *inputs) -> torch.Tensor:
        """Learn from a micro-batch; behind the last of a step, average gradients over processes."""
        loss = super().training_step(model, *inputs)
        if isinstance(model, DistributedDataParallel) and self.accelerator.sync_gradients:
            self.ranks.average_gradients(model)
        return loss

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Have all weights in each process, where they are spread over several (FSDP, ZeRO-3)."""
        with ExitStack() as stack:
            stack.enter_context(self._dist.gather_params(list(self.model.parameters())))
            stack.enter_context(self._dist.summon_full_params(self.model_wrapped, writeback=False))
            yield

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        """Return the schedule of the profile: a warm-up, then a decay by the tokens spent."""
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(
                optimizer or self.optimizer,
                lambda step: rate_at(step, self.share_done(), self.profile.training),
            )
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
            own, starts = (x[first : first + size] for x in (self.step.rollouts, self.step.starts))
            value = self._prefix_value(own[0], starts[0]) if self.form.above_prefix else 0.0
            out.append(payment.group_of(own, starts, value, weight))
        return out

    def _prefix_value(self, rollout: Rollout, start: Start) -> float:
        """Return J(mu | the prefix) that a group began with."""
        size = len(start.prefix)
        cut = replace(rollout, boundaries=[size] if size else [], closed=False)
        with self.gathered():
            found = self.prover.measure([cut], self.draw_seed + ANSWERS)
        self.step.add(replace(found, found=[]))
        return float(found.J[0][-1])

    def _gains(self, width: int) -> np.ndarray:
        """Return each token's credit (B, width); 0 where J is only watched."""
        form, step = self.form, self.step
        self._note_curves(step.curves)
        if form.credit is None:
            return np.zeros((len(step.rollouts), width))
        ends = [payment.ends_of(form, *row)
                for row in zip(step.rollouts, step.starts, step.places, strict=True)]  # fmt: skip
        values = self._credit(step.curves)
        every = self.ranks.joined(list(zip(values, [np.diff(end) for end in ends], strict=True)))
        self.note(largest_share=largest_share(*zip(*every, strict=True)))
        squares = self._squares([credit for credit, _ in every])
        return payment.of_episodes(values, ends, squares, width)

    def _credit(self, curves: list[Curve]) -> list[np.ndarray]:
        """Return the credit of each episode of each rollout, groups one after the other."""
        size = self.profile.training.group_size * self.form.wider
        groups = [curves[first : first + size] for first in range(0, len(curves), size)]
        return [v for group in groups for v in self.form.credit(group, self.budget)]

    def _squares(self, values: list[np.ndarray]) -> list[float]:
        """Return the mean square of the credit of every step so far, and note that of this one.

        From the log, which a checkpoint holds: a run that was cut goes on with the same scale.
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

    def _agree(self, rollouts: list[Rollout]) -> None:
        """Compare exact with sampled J on some rollouts, before J is measured for the first time.

        Of several processes, one compares.
        """
        if not self.compared:
            with self.ranks.first_alone():
                self.prover.agree(rollouts, self.draw_seed + COMPARISON, self.comparison_file)
            self.compared = True

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
        """Log the mean over all processes of what is known only after sampling."""
        for name, value in self.ranks.means(values).items():
            self._metrics["train"][name].append(value)

    def note_sums(self, **values: float) -> None:
        """Log the sum over all processes of what each of them spent."""
        for name, value in self.ranks.sums(values).items():
            self._metrics["train"][name].append(value)

    def starts_of(self, problems: list[Problem]) -> list[Start]:
        """Return where each row of a step begins; the rows of a problem stand together."""
        if not self.form.from_prefixes:
            return [Start(self.source.prompts[p.question]) for p in problems]
        self.traces = self.stale.refresh(
            self.state.global_step, self._stale_traces,
            lambda rollout: self.reader.row(rollout, self.method, self.mrt_seed, 0), self.ranks,
        )  # fmt: skip
        self._agree(list(self.stale.traces.values()))  # whole traces, as the other methods compare
        size, out = self.profile.training.group_size * self.form.wider, []
        answering = round(self.form.answering * size)
        for problem in problems[::size]:
            prefix = self.stale.prefix(problem, self.draw_seed)
            out += group_starts(prefix, size, answering, self._ending)
        return out

    def _stale_traces(self, problems: list[Problem]) -> tuple[list[Rollout], Spent]:
        """Sample a rollout of the present policy for each problem of an outer iteration."""
        first, own = self.ranks.own(problems)
        prompts = [self.source.prompts[p.question] for p in own]
        starts = [Start(prompt) for prompt in prompts]
        collector = self.collector(max(1, len(starts)))
        before = collector.sampler.tokens
        drawn, _ = collector.draw(starts, self.draw_seed + STALE, self.present_budget, first)
        spent = Spent(sum(len(sample.token_ids) for sample in drawn),
                      collector.sampler.tokens - before)  # fmt: skip
        return self.ranks.joined(collector.read(starts, own, prompts, drawn)), spent

    def _ending(self, prefix: Rollout) -> list[int]:
        """Return what the meta-prover reads behind a prefix."""
        return self.prover.termination.prompt(self.prover.probe(prefix), len(prefix.boundaries))

    @property
    def present_budget(self) -> int:
        """The thinking tokens that a rollout may have at this point of the run."""
        training = self.profile.training
        budgets = self.form.budgets or training.budgets
        share = stage(budgets, share_done(self.state.log_history, training))
        return max(1, int(share * self.budget))


def _sample_rollouts(questions: list[str], trainer: MRTTrainer) -> dict:
    """Draw one rollout for each row. TRL repeats a question for each member of its group."""
    with trainer.gathered():
        step = trainer.collect(questions)
    return {
        "prompt_ids": [start.prompt_ids for start in step.starts],
        "completion_ids": [sample.token_ids for sample in step.samples],
        "logprobs": [sample.logprobs for sample in step.samples],
    }
