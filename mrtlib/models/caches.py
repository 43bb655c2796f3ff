"""Caches that fork, and caches that are kept.

The cache of a shared prefix is computed once. Forks are its continuations: each has a copy of it,
or points at it. The keys and values of rollouts are kept from sampling, so that the prover need not
compute them again; they are valid until the optimiser changes the weights.

B forks, R rows of a packed cache with Q forks each at most, T cached tokens, V vocabulary.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from mrtlib.models import packing
from mrtlib.models.packing import for_attention, forward_packed

GROWTH = 128  # tokens of room that a cache reserves at a time


@dataclass(frozen=True)
class Kept:
    """The cache of one sequence: `layers` holds keys and values, each (heads, T, size)."""

    token_ids: list[int]  # (T,) the tokens in the cache
    layers: list[tuple[torch.Tensor, torch.Tensor]]


def as_rows(kept: Sequence[Kept], lengths: Sequence[int], room: int) -> Cache:
    """Return the first `lengths` tokens of each cache as the rows of one, padded on the right.

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


class RoomyLayer(DynamicLayer):
    """A cache layer that writes into reserved room; `DynamicLayer` copies itself at every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int = GROWTH) -> None:
        """Take over keys and values, both (B, heads, T, size), with room for more tokens."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._adopt(keys, values, room)

    def _adopt(self, keys: torch.Tensor, values: torch.Tensor, extra: int) -> None:
        length = keys.shape[2]
        self._room = [x.new_empty(*x.shape[:2], length + extra, x.shape[3]) for x in (keys, values)]
        for room, x in zip(self._room, (keys, values), strict=True):
            room[:, :, :length] = x
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (room[:, :, :length] for room in self._room)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new keys and values (B, heads, new, size); return all, as `DynamicLayer` does."""
        start = self.keys.shape[2]
        stop = start + key_states.shape[2]
        if stop > self._room[0].shape[2]:
            self._adopt(self.keys, self.values, stop - start + GROWTH)
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:stop] = new
        self._show(stop)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the given rows only, in this order; rows that are in their place are not moved."""
        length = self.keys.shape[2]
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        for room in self._room:
            room[moved, :, :length] = room[indices[moved], :, :length]
        self._room = [room[: len(indices)] for room in self._room]
        self._show(length)


def filling_gaps(going: torch.Tensor) -> torch.Tensor:
    """Return the rows that go on (ascending indices), the last ones in the gaps of the others.

    So few rows of a cache are moved: as many as have left it, at most.

    >>> filling_gaps(torch.tensor([0, 2, 3, 5, 6]))
    tensor([0, 5, 2, 3, 6])
    """
    rows = torch.arange(len(going), device=going.device)
    gaps = ~torch.isin(rows, going)
    rows[gaps] = going[going >= len(going)]
    return rows


@dataclass
class Forks:
    """Forks with a row each: the cache holds each prompt but its last token."""

    cache: Cache
    mask: torch.Tensor  # (B, T) True where the cache holds a token, False at left padding
    last: torch.Tensor  # (B,) the token to feed next
    positions: torch.Tensor  # (B,) its position
    padded: bool
    fixed: bool = False  # the cache is of a class that cannot drop rows

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every fork but these (indices)."""
        self.cache.batch_select_indices(rows)
        self.mask, self.last = self.mask[rows], self.last[rows]
        self.positions = self.positions[rows]

    def states(self, row: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return copies of a fork's keys and values, each (heads, T, size), padding left out."""
        start = int((~self.mask[row]).sum())
        return [(x.keys[row, :, start:].clone(), x.values[row, :, start:].clone())
                for x in self.cache.layers]  # fmt: skip

    def step(self, model: PreTrainedModel) -> torch.Tensor:
        """Feed the last tokens; return the logits of the next ones (B, V) in float32."""
        if self.padded:
            self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=True)
        output = model(
            input_ids=self.last[:, None],
            attention_mask=self.mask if self.padded else None,
            position_ids=self.positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.positions = self.positions + 1
        return output.logits[:, -1].float()


@dataclass
class PointedForks:
    """Forks that read one packed cache through a mask: no fork has a copy of its prefix.

    The forks of a row are its Q queries. Each step puts their Q keys behind the row's cache, where
    a fork sees its own alone; so the row is a trie that goes on growing.
    """

    cache: Cache
    seen: torch.Tensor  # (B, T) what each fork attends to in its row's cache
    last: torch.Tensor  # (B,) the token to feed next
    positions: torch.Tensor  # (B,) its position
    rows: torch.Tensor  # (B,) the row that a fork reads
    fixed = False

    def keep(self, forks: torch.Tensor) -> None:
        """Drop every fork but these (indices), and the rows that no fork reads any more."""
        self.seen, self.last = self.seen[forks], self.last[forks]
        self.positions = self.positions[forks]
        left, rows = self.rows[forks].unique(return_inverse=True)
        if len(left) < self.cache.layers[0].keys.shape[0]:
            self.cache.batch_select_indices(left)
        self.rows = rows

    def states(self, fork: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return copies of a fork's keys and values, each (heads, T, size), padding left out."""
        row, seen = self.rows[fork], self.seen[fork]
        return [(x.keys[row][:, seen], x.values[row][:, seen]) for x in self.cache.layers]

    def step(self, model: PreTrainedModel) -> torch.Tensor:
        """Feed the last tokens; return the logits of the next ones (B, V) in float32."""
        before = (self.rows[:, None] == self.rows[None, :]).tril(-1)
        columns = before.sum(1)  # (B,) numbers the forks of each row from 0
        shape = int(self.rows.max()) + 1, int(columns.max()) + 1  # R, Q
        at = self.rows, columns
        own = torch.nn.functional.one_hot(columns, shape[1]).bool()
        self.seen = torch.cat([self.seen, own], 1)
        ids, positions = (self.last.new_zeros(shape) for _ in range(2))
        ids[at], positions[at] = self.last, self.positions
        mask = self.seen.new_zeros(*shape, self.seen.shape[1])
        mask[..., 0] = True  # a query without a fork must see something, or it gives NaN
        mask[at] = self.seen
        output = model(
            input_ids=ids, attention_mask=for_attention(mask, model), position_ids=positions,
            past_key_values=self.cache, use_cache=True, logits_to_keep=shape[1],
        )  # fmt: skip
        self.positions = self.positions + 1
        return output.logits[at].float()


def _forks(cache: Cache, prompts: list[list[int]], device: torch.device) -> Forks:
    lengths = torch.tensor([len(prompt) - 1 for prompt in prompts])
    longest = int(lengths.max())
    mask = torch.arange(longest) >= longest - lengths[:, None]
    last = torch.tensor([prompt[-1] for prompt in prompts])
    padded = not bool(mask.all())
    return Forks(cache, mask.to(device), last.to(device), lengths.to(device), padded)


class SharedPrefixes:
    """Prompts prefilled together, a shared prefix once; forks copy their prefix or point at it."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int) -> None:
        """Compute the cache of every prompt (its last token excepted) in one packed pass."""
        self.model, self.prompts = model, prompts
        self.paths: dict[int, tuple[int, list[int]]] = {}  # prompt -> its row, its nodes
        tries = []
        for row, family in enumerate(packing.families(prompts)):
            tries.append(packing.Trie())
            for index in family:
                self.paths[index] = row, tries[-1].extend(packing.ROOT, prompts[index][:-1])
        self.length = max(len(trie) for trie in tries)
        self.cache = DynamicCache(config=model.config)
        if self.length:
            forward_packed(model, tries, self.cache, pad_id=pad_id)

    def fork(self, owners: list[int], max_tokens: int) -> Forks | PointedForks:
        """Return one fork for each entry of `owners`, a list of prompt indices.

        Forks point at a row that is longer than all that its forks may write: what they write, and
        cannot see of each other, then costs less than copies of the row.
        """
        busiest = max(Counter(self.paths[owner][0] for owner in owners).values())
        points = busiest * max_tokens <= self.length
        return (self.point if points else self.gather)(owners, max_tokens)

    def gather(self, owners: list[int], max_tokens: int) -> Forks:
        """Copy its prefix to each fork: for long continuations of short prefixes."""
        prompts = [self.prompts[i] for i in owners]
        longest = max(map(len, prompts)) - 1
        rows, nodes = (np.zeros((len(owners), longest), dtype=np.int64) for _ in range(2))
        for fork, owner in enumerate(owners):
            row, path = self.paths[owner]
            rows[fork] = row
            nodes[fork, longest - len(path) :] = path
        at = tuple(torch.from_numpy(x).to(self.model.device) for x in (rows, nodes))
        cache = DynamicCache(config=self.model.config)
        if longest:
            pairs = ((layer.keys, layer.values) for layer in self.cache.layers)
            # (R, heads, L, size) to (B, heads, T, size)
            copies = ([x.transpose(1, 2)[at].transpose(1, 2) for x in pair] for pair in pairs)
            cache = Cache(layers=[RoomyLayer(*pair) for pair in copies])
        return _forks(cache, prompts, self.model.device)

    def point(self, owners: list[int], max_tokens: int) -> PointedForks:
        """Let forks read the packed rows in place: for short continuations of long prefixes."""
        rows = torch.tensor([self.paths[owner][0] for owner in owners])
        left, rows = rows.unique(return_inverse=True)
        seen = torch.zeros(len(owners), self.length, dtype=torch.bool)
        for fork, owner in enumerate(owners):
            seen[fork, self.paths[owner][1]] = True
        device = self.model.device
        room, at = int(rows.bincount().max()) * max_tokens, left.to(device)
        layers = [RoomyLayer(x.keys[at], x.values[at], room) for x in self.cache.layers]
        prompts = [self.prompts[owner] for owner in owners]
        last = torch.tensor([prompt[-1] for prompt in prompts], device=device)
        positions = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        return PointedForks(Cache(layers=layers), seen.to(device), last, positions, rows.to(device))


class PaddedPrompts:
    """A plain prefill, padded on the left, for architectures that take no custom mask."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int) -> None:
        """Keep the prompts; they are computed when they are forked."""
        self.model, self.prompts, self.pad_id = model, prompts, pad_id

    def fork(self, owners: list[int], max_tokens: int) -> Forks:
        """Return one fork for each entry of `owners`, a list of prompt indices.

        A prompt is computed once and copied, where the class of the cache can select rows.
        """
        cache = DynamicCache(config=self.model.config)
        fixed = not all(hasattr(layer, "batch_select_indices") for layer in cache.layers)
        rows = owners if fixed else list(dict.fromkeys(owners))
        forks = _forks(cache, [self.prompts[i] for i in rows], self.model.device)
        longest = forks.mask.shape[1]
        if longest:
            bodies = [self.prompts[i][:-1] for i in rows]
            ids = torch.tensor([[self.pad_id] * (longest - len(body)) + body for body in bodies])
            self.model(
                input_ids=ids.to(self.model.device),
                attention_mask=forks.mask.long() if forks.padded else None,
                position_ids=(forks.mask.cumsum(1) - 1).clamp(min=0),
                past_key_values=forks.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        if fixed:
            return replace(forks, fixed=True)
        at = {owner: row for row, owner in enumerate(rows)}
        forks.keep(torch.tensor([at[i] for i in owners], device=self.model.device))
        return forks
