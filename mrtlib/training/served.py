"""A policy in training, as servers know it: its adapter is loaded there anew after every step.

The base stays as it is in server and trainer, so a 4-bit base is never merged. What a server draws
comes from its own arithmetic and, where the trainer's base is in 4 bits and the server's is not,
from other weights. TRL's correction weighs each token by the trainer's probability over the
server's, bounded (`training.correction`; TRL's documentation of its vLLM integration).
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel

from mrtlib.models.loading import save_adapter
from mrtlib.models.server import ServerSampler, served_name
from mrtlib.training.ranks import Ranks

FURTHER, SLACK = 2.0, 0.02  # a difference that is so many times the first one's, and so much more


@dataclass
class ServedPolicy:
    """What stands where TRL has its own vLLM: servers that load the policy's adapter."""

    policy: PreTrainedModel
    sampler: ServerSampler
    folder: Path  # of the adapters on their way, which the servers see too
    ranks: Ranks
    gathered: Callable[[], AbstractContextManager]  # brings weights together that are spread
    differences: list[float] = field(default_factory=list)  # of log-probabilities, step by step
    loaded: str = ""  # what the servers call the present adapter

    @classmethod
    def of(cls, trainer, policy: PreTrainedModel) -> "ServedPolicy | None":
        """Return an `MRTTrainer`'s policy as its servers will know it; None where it has none."""
        profile = trainer.profile
        if profile.model.engine != "server":
            return None
        folder = profile.runs / "served" / f"{trainer.method}-{trainer.mrt_seed}"
        sampler = ServerSampler(profile.model.servers, "")
        return cls(policy, sampler, folder, trainer.ranks, trainer.gathered)

    def sync_weights(self) -> None:
        """Have the servers load the policy's present adapter, and let go of the one before.

        The name is TRL's, which calls this before the first rollouts of a step.

        Raises:
            ServerError: a server refuses, or is away; adapters must be allowed to be loaded.
        """
        with self.gathered():
            if self.ranks.writes:
                save_adapter(self.policy, self.folder)
        name = self.ranks.joined([served_name(self.folder) if self.ranks.writes else ""])[0]
        if name != self.loaded:
            if self.ranks.writes:
                self.sampler.load_adapter(name, self.folder.absolute())
                self._unload()
            self.sampler.dead.update(*self.ranks.joined([self.sampler.dead]))  # without it now
            self.sampler.model = self.loaded = name

    def watch(self, difference: float) -> None:
        """Say so when the servers' log-probabilities move away from the trainer's.

        That is so when they serve an older adapter than they say.

        Args:
            difference: the mean of | log p - log p of the server | over the step's tokens.
        """
        self.differences.append(difference)
        first = self.differences[0]
        if difference > FURTHER * first + SLACK and self.ranks.writes:
            print(
                f"the servers' log-probabilities are {difference:.3f} a token from the trainer's, "
                f"{first:.3f} in the first step: do they serve the adapter that was loaded last?",
                flush=True,
            )

    def close(self) -> None:
        """Have the servers let go of the adapter."""
        if self.ranks.writes:
            self._unload()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _unload(self) -> None:
        if self.loaded:
            self.sampler.unload_adapter(self.loaded)
