"""Validation while a method trains, and the best of its checkpoints.

Every so many steps the policy writes a rollout for each validation problem, with the same random
numbers each time. Methods differ in the rollouts they train on; these are alike for all of them.
The tokens of validation are no part of a run's.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, TrainerCallback

from mrtlib import regret
from mrtlib.config import Profile
from mrtlib.models.loading import save_adapter
from mrtlib.models.sampling import TransformersSampler
from mrtlib.models.tokens import prompt_ids
from mrtlib.prover.prover import Prover
from mrtlib.rollouts import Reader, Rollout
from mrtlib.tasks.problems import load_problems

SEED = 77_000_003  # of the validation rollouts, whatever the training seed
BEST = "best"  # folder of the best checkpoint's adapter, in that of the run


@dataclass(frozen=True)
class Validated:
    """What the columns `validation` to `validation_forced` of the `steps` schema hold."""

    validation: float  # natural accuracy: answers that the model gives by itself within C0
    validation_regret: float  # normalised, at C0
    validation_forced: float  # J at the end of the thinking, cut at C0 if it has not ended by then


class Validator:
    """The validation problems of a profile, ready to be answered."""

    def __init__(self, profile: Profile, reader: Reader) -> None:
        """Read the problems."""
        self.profile, self.reader = profile, reader
        self.problems = load_problems(profile.problems / "validation.jsonl",
                                      profile.data.validation)  # fmt: skip
        self.prompts = [prompt_ids(reader.tokenizer, p.question, profile.thinking)
                        for p in self.problems]  # fmt: skip

    def measure(self, model: PreTrainedModel, prover: Prover) -> Validated:
        """Return accuracy and regret of a model, with a prover of the same weights."""
        rollouts = self.rollouts(model)
        budget, J = self.profile.thinking.budget, prover.measure(rollouts, SEED).J
        ends = [np.array([0, *r.boundaries]) for r in rollouts]
        left = [float(regret.normalised_regret(j, t, budget)) for j, t in zip(J, ends, strict=True)]
        right = [r.grade.correct for r in rollouts]
        forced = float(np.mean([j[-1] for j in J]))
        return Validated(float(np.mean(right)), float(np.mean(left)), forced)

    def rollouts(self, model: PreTrainedModel) -> list[Rollout]:
        """Return a rollout for each problem."""
        profile, tokenizer = self.profile, self.reader.tokenizer
        sampler = TransformersSampler(model, tokenizer.pad_token_id, profile.evaluation.batch_rows)
        most = profile.thinking.budget + profile.thinking.answer_tokens
        drawn = sampler.sample(self.prompts, 1, most, profile.training.temperature, 1.0,
                               self.reader.end_ids, SEED)  # fmt: skip
        return [self.reader.read(problem, prompt, samples[0]) for problem, prompt, samples
                in zip(self.problems, self.prompts, drawn, strict=True)]  # fmt: skip


class Validation(TrainerCallback):
    """Validate what an `MRTTrainer` trains; keep the adapter of the best accuracy, the first."""

    def __init__(self, trainer, folder: Path) -> None:
        """Keep the trainer; the best adapter goes to `folder`."""
        self.trainer, self.folder = trainer, folder
        self.validator = Validator(trainer.profile, trainer.reader)

    def on_step_end(self, args, state, control, **_) -> None:
        """Validate where it is time, and after the last step."""
        every, last = self.trainer.profile.training.validate_every, self.trainer.share_done() >= 1
        if not every or (state.global_step % every and not last):
            return
        model = self.trainer.sampling_model(fresh=True)
        found = self.validator.measure(model, self.trainer.prover)
        self.trainer.note(**vars(found))
        known = [log["validation"] for log in state.log_history if "validation" in log]
        if found.validation > max(known, default=-1.0):
            save_adapter(self.trainer.model, self.folder)
