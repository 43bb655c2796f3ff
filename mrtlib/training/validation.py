"""Validation while a method trains, and the best of its checkpoints.

Every so many steps the policy writes a rollout for each validation problem, with the same random
numbers each time. Methods differ in the rollouts they train on; these are alike for all of them.
"""

from pathlib import Path

import numpy as np
from transformers import TrainerCallback

from mrtlib import regret
from mrtlib.models.loading import save_adapter
from mrtlib.models.sampling import TransformersSampler
from mrtlib.models.tokens import prompt_ids
from mrtlib.rollouts import Rollout
from mrtlib.tasks.problems import Problem, load_problems

SEED = 77_000_003  # of the validation rollouts, whatever the training seed
BEST = "best"  # folder of the best checkpoint's adapter, in that of the checkpoints


class Validation(TrainerCallback):
    """Log accuracy and regret on the validation problems; keep the adapter of the best accuracy.

    Natural accuracy: the answers that the model gives by itself within C0. Equal ones: the first.
    The tokens of validation are no part of the run's.
    """

    def __init__(self, trainer, folder: Path) -> None:
        """Validate what `trainer` (an `MRTTrainer`) trains; the best adapter goes to `folder`."""
        self.trainer, self.folder = trainer, folder
        data = trainer.profile.data
        self.problems = load_problems(trainer.profile.problems / "validation.jsonl",
                                      data.validation)  # fmt: skip

    def on_step_end(self, args, state, control, **_) -> None:
        """Validate where it is time, and after the last step."""
        training = self.trainer.profile.training
        every, last = training.validate_every, self.trainer.share_done() >= 1
        if not every or (state.global_step % every and not last):
            return
        rollouts = draw(self.trainer, self.problems)
        right = float(np.mean([r.grade.correct for r in rollouts]))
        self.trainer.note(validation=right, validation_regret=mean_regret(self.trainer, rollouts))
        known = [log["validation"] for log in state.log_history if "validation" in log]
        if right > max(known, default=-1.0):
            save_adapter(self.trainer.model, self.folder)


def draw(trainer, problems: list[Problem]) -> list[Rollout]:
    """Return a rollout of the present policy for each problem."""
    profile, reader = trainer.profile, trainer.reader
    model = trainer.sampling_model(fresh=True)
    sampler = TransformersSampler(model, trainer.tokenizer.pad_token_id,
                                  profile.evaluation.batch_rows)  # fmt: skip
    prompts = [prompt_ids(trainer.tokenizer, p.question, profile.thinking) for p in problems]
    most = profile.thinking.budget + profile.thinking.answer_tokens
    drawn = sampler.sample(prompts, 1, most, profile.training.temperature, 1.0, reader.end_ids,
                           SEED)  # fmt: skip
    return [reader.read(problem, prompt, samples[0])
            for problem, prompt, samples in zip(problems, prompts, drawn, strict=True)]  # fmt: skip


def mean_regret(trainer, rollouts: list[Rollout]) -> float:
    """Return the mean normalised regret at C0 of some rollouts."""
    budget = trainer.profile.thinking.budget
    J = trainer.prover.measure(rollouts, SEED).J
    ends = [np.array([0, *r.boundaries]) for r in rollouts]
    return float(np.mean([regret.normalised_regret(j, t, budget)
                          for j, t in zip(J, ends, strict=True)]))  # fmt: skip
