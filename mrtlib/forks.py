"""Shared prefixes inside a model: packed forward passes, and caches that fork without copying work.

B rows of a batch, L tokens of a packed row, T cached tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from mrtlib import packing

GROWTH = 128  # tokens of room that a cache reserves at a time


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Switch off dropout and gradients inside the block; every module gets its mode back.

    `no_grad`, not `inference_mode`: buffers made inside may be used again in training.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def takes_custom_mask(model: PreTrainedModel) -> bool:
    """Say whether every layer is full attention, computed by a kernel that takes any mask."""
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    return plain and model.config._attn_implementation in ("sdpa", "eager")


def forward_packed(
    model: PreTrainedModel,
    tries: Sequence[packing.Trie],
    cache: Cache | None = None,
    logits_to_keep: int | torch.Tensor = 1,
    pad_id: int = 0,
) -> torch.Tensor:
    """Run tries as the rows of one pass; return the logits kept, and fill the cache if given.

    The mask holds B L^2 entries. `logits_to_keep` is that of transformers: the last so many
    positions, or a boolean (B, L) that picks positions and flattens them.
    """
    rows = packing.collate(tries, pad_id)
    mask = torch.from_numpy(rows.seen).to(model.device)[:, None]  # (B, 1, L, L), for all heads
    if model.config._attn_implementation == "eager":  # which adds its mask to the scores
        mask = torch.where(mask, 0.0, torch.finfo(model.dtype).min).to(model.dtype)
    return model(
        input_ids=torch.from_numpy(rows.ids).to(model.device),
        position_ids=torch.from_numpy(rows.positions).to(model.device),
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=logits_to_keep,
    ).logits


def forward_plain(
    model: PreTrainedModel, tries: Sequence[packing.Trie], logits_to_keep: torch.Tensor
) -> torch.Tensor:
    """Run tries that are chains as ordinary rows, for any causal model; return the logits kept."""
    longest = max(len(trie) for trie in tries)
    ids = [trie.tokens + [0] * (longest - len(trie)) for trie in tries]
    mask = [[1] * len(trie) + [0] * (longest - len(trie)) for trie in tries]
    return model(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        use_cache=False,
        logits_to_keep=logits_to_keep,
    ).logits


class RoomyLayer(DynamicLayer):
    """A cache layer that writes into reserved room: `DynamicLayer` copies itself every token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Take over keys and values, both (B, heads, T, size)."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._adopt(keys, values)

    def _adopt(self, keys: torch.Tensor, values: torch.Tensor, extra: int = GROWTH) -> None:
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
        """Keep the given rows only."""
        self._adopt(self.keys[indices], self.values[indices])


@dataclass
class Forks:
    """Rows ready to be decoded: all of a prompt but its last token is in the cache."""

    cache: Cache
    mask: torch.Tensor  # (B, T) True where the cache holds a token, False at left padding
    last: torch.Tensor  # (B,) the token to feed next
    positions: torch.Tensor  # (B,) its position
    padded: bool

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every row but these (indices)."""
        self.cache.batch_select_indices(rows)
        self.mask, self.last = self.mask[rows], self.last[rows]
        self.positions = self.positions[rows]

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


def _forks(cache: Cache, prompts: list[list[int]], device: torch.device) -> Forks:
    lengths = torch.tensor([len(prompt) - 1 for prompt in prompts])
    longest = int(lengths.max())
    mask = torch.arange(longest) >= longest - lengths[:, None]
    last = torch.tensor([prompt[-1] for prompt in prompts])
    padded = not bool(mask.all())
    return Forks(cache, mask.to(device), last.to(device), lengths.to(device), padded)


class SharedPrefixes:
    """Prompts prefilled together, a shared prefix once; forks gather their part of the cache."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int) -> None:
        """Compute the cache of every prompt (its last token excepted) in one packed pass."""
        self.model, self.prompts = model, prompts
        self.paths: dict[int, tuple[int, list[int]]] = {}  # prompt -> its row, its nodes
        tries = []
        for row, family in enumerate(packing.families(prompts)):
            tries.append(packing.Trie())
            for index in family:
                self.paths[index] = row, tries[-1].extend(packing.ROOT, prompts[index][:-1])
        self.cache = DynamicCache(config=model.config)
        if any(len(trie) for trie in tries):
            forward_packed(model, tries, self.cache, pad_id=pad_id)

    def fork(self, owners: list[int]) -> Forks:
        """Return one row for each entry of `owners`, a list of prompt indices."""
        prompts = [self.prompts[i] for i in owners]
        longest = max(map(len, prompts)) - 1
        rows, nodes = (np.zeros((len(owners), longest), dtype=np.int64) for _ in range(2))
        for fork, owner in enumerate(owners):
            row, path = self.paths[owner]
            rows[fork] = row
            nodes[fork, longest - len(path) :] = path
        at = [torch.from_numpy(x).to(self.model.device) for x in (rows, nodes)]
        cache = DynamicCache(config=self.model.config)
        if longest:
            pairs = ((layer.keys, layer.values) for layer in self.cache.layers)
            cache = Cache(layers=[RoomyLayer(*(_gather(x, *at) for x in pair)) for pair in pairs])
        return _forks(cache, prompts, self.model.device)


def _gather(states: torch.Tensor, rows: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """Pick (B, T) places of packed states (R, heads, L, size): (B, heads, T, size)."""
    return states.transpose(1, 2)[rows, nodes].transpose(1, 2)


class PaddedPrompts:
    """The plain prefill, padded on the left, for architectures that take no mask of ours."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int) -> None:
        """Keep the prompts; they are computed when they are forked."""
        self.model, self.prompts, self.pad_id = model, prompts, pad_id

    def fork(self, owners: list[int]) -> Forks:
        """Return one row for each entry of `owners`, a list of prompt indices."""
        distinct = {owner: row for row, owner in enumerate(dict.fromkeys(owners))}
        forks = _forks(
            DynamicCache(config=self.model.config),
            [self.prompts[i] for i in distinct],
            self.model.device,
        )
        longest = forks.mask.shape[1]
        if longest:
            bodies = [self.prompts[i][:-1] for i in distinct]
            ids = torch.tensor([[self.pad_id] * (longest - len(body)) + body for body in bodies])
            self.model(
                input_ids=ids.to(self.model.device),
                attention_mask=forks.mask.long() if forks.padded else None,
                position_ids=(forks.mask.cumsum(1) - 1).clamp(min=0),
                past_key_values=forks.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        forks.keep(torch.tensor([distinct[i] for i in owners], device=self.model.device))
        return forks
