"""Validation while a method trains, and the best of its checkpoints.

Every so many steps the policy writes a rollout for each validation problem, with the same random
numbers each time. Methods differ in the rollouts they train on; these are alike for all of them.
The tokens of validation are no part of a run's.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import TrainerCallback

from mrtlib import regret
from mrtlib.config import Profile
from mrtlib.models.loading import save_adapter
from mrtlib.models.sampling import Sampler
from mrtlib.models.tokens import prompt_ids
from mrtlib.prover.prover import Prover
from mrtlib.rollouts import Reader, Rollout
from mrtlib.tasks.problems import load_problems
from mrtlib.training.ranks import ALONE, Ranks

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

    def measure(self, prover: Prover, ranks: Ranks = ALONE) -> Validated:
        """Return accuracy and regret of the prover's model.

        Several processes share the problems; each gets what was found on all of them.
        """
        rollouts, budget = self.rollouts(prover.sampler, ranks), self.profile.thinking.budget
        first = ranks.before(sum(1 + len(r.boundaries) for r in rollouts))
        J = prover.measure(rollouts, SEED, first=first).J
        ends = [np.array([0, *r.boundaries]) for r in rollouts]
        left = [float(regret.normalised_regret(j, t, budget)) for j, t in zip(J, ends, strict=True)]
        own = zip((float(r.grade.correct) for r in rollouts), left, (float(j[-1]) for j in J),
                  strict=True)  # fmt: skip
        return Validated(*np.mean(ranks.joined(list(own)), axis=0).tolist())

    def rollouts(self, sampler: Sampler, ranks: Ranks = ALONE) -> list[Rollout]:
        """Return a rollout for each problem of this process."""
        profile = self.profile
        most = profile.thinking.budget + profile.thinking.answer_tokens
        first, own = ranks.own(list(zip(self.problems, self.prompts, strict=True)))
        drawn = sampler.sample([prompt for _, prompt in own], 1, most,
                               profile.training.temperature, 1.0, self.reader.end_ids, SEED,
                               first)  # fmt: skip
        return [self.reader.read(*pair, samples[0])
                for pair, samples in zip(own, drawn, strict=True)]  # fmt: skip


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
        trainer = self.trainer
        trainer.sampling_model(fresh=True)
        if trainer.served:
            trainer.served.sync_weights()
        known = [log["validation"] for log in state.log_history if "validation" in log]
        with trainer.gathered():
            found = self.validator.measure(trainer.prover, trainer.ranks)
            if found.validation > max(known, default=-1.0) and trainer.ranks.writes:
                save_adapter(trainer.model, self.folder)
        trainer.note(**vars(found))
