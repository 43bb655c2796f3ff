"""Keys and values of rollouts, kept from sampling so that the prover need not compute them again.

They hold for the weights that wrote them: between two steps of the optimiser. T tokens of a
rollout, R rows of a pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache

from mrtlib.forks import RoomyLayer
from mrtlib.packing import common


@dataclass(frozen=True)
class Kept:
    """The cache of one sequence: `layers` holds keys and values, each (heads, T, size)."""

    token_ids: list[int]  # (T,) the tokens that they stand for
    layers: list[tuple[torch.Tensor, torch.Tensor]]

    def shared(self, tokens: Sequence[int]) -> int:
        """Count the first tokens of a sequence that are here."""
        return common(self.token_ids, tokens)


def joined(kept: Sequence[Kept], lengths: Sequence[int], room: int) -> Cache:
    """Return the first `lengths` tokens of each as the rows of one cache, padded on the right.

    Args:
        room: tokens that will be put behind them.
    """
    layers = []
    for pairs in zip(*(one.layers for one in kept), strict=True):
        sides = []
        for side in zip(*pairs, strict=True):
            heads, _, size = side[0].shape
            rows = side[0].new_zeros(len(kept), heads, max(lengths), size)
            for row, (states, length) in enumerate(zip(side, lengths, strict=True)):
                rows[row, :, :length] = states[:, :length]
            sides.append(rows)
        layers.append(RoomyLayer(*sides, room))
    return Cache(layers=layers)
