"""The processes that train one model together: which rows are whose, and what all of them know.

The rows of a step stand in one order, a part of it for each process, whole groups each. What is
drawn depends on a row's place among all of them, and what is logged is of all of them; so several
processes compute what one does, up to rounding. Objects go between processes of one run alone.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce

from mrtlib.models.loading import device

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run."""

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> "Ranks":
        """Return this process's place; of several, having found the others."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        state = PartialState(cpu=device().type == "cpu")
        return cls(state.process_index, state.num_processes)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and says what is done."""
        return self.rank == 0

    def own(self, items: Sequence[Item]) -> tuple[int, Sequence[Item]]:
        """Return this process's part of some items, and the place of the first of them."""
        ends = [len(items) * rank // self.count for rank in (self.rank, self.rank + 1)]
        return ends[0], items[slice(*ends)]

    def joined(self, own: Sequence[Item]) -> list[Item]:
        """Return the parts of all processes, one after the other."""
        return list(own) if self.count == 1 else gather_object(list(own))

    def before(self, own: int) -> int:
        """Return the sum of a number over the processes before this one."""
        return sum(self.joined([own])[: self.rank])

    def means(self, values: dict[str, float]) -> dict[str, float]:
        """Return the mean of each value over all processes."""
        every = self.joined([values])
        return {name: float(np.mean([one[name] for one in every])) for name in values}

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Return the sum of each value over all processes."""
        return {name: self.count * mean for name, mean in self.means(values).items()}

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the process that writes go first; the others find what it has left."""
        if self.count == 1:
            yield
        else:
            with PartialState().main_process_first():
                yield

    def average_gradients(self, model: torch.nn.Module) -> None:
        """Give every process the mean of all processes' gradients, of what is trained."""
        trained = [p for p in model.parameters() if p.requires_grad]
        joined = torch.cat([p.grad.flatten() for p in trained])
        joined = reduce(joined, "mean").split([p.numel() for p in trained])
        for p, own in zip(trained, joined, strict=True):
            p.grad.copy_(own.view_as(p))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


ALONE = Ranks()
