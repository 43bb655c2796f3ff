"""Many token sequences with shared prefixes in few rows of one forward pass.

The sequences become a trie. A token attends to itself and to its ancestors, and its position is
its depth. So every sequence has exactly the context that it would have in a row of its own, while
a shared prefix is computed once. Passes have no gradients. L tokens of a row, B rows of a pass,
V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from mrtlib.models.attention import KERNELS

ROOT = -1
SIMILAR = 0.75  # least length of a row in a pass, as a share of the pass's longest row


@dataclass
class Trie:
    """Token sequences, a shared prefix stored once; parents come before children."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)  # first nodes of pieces

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, node: int, tokens: Sequence[int]) -> list[int]:
        """Add a sequence below a node (`ROOT`, or one returned before); return its nodes."""
        path: list[int] = []
        for token in tokens:
            child = self._child(node, token)
            if child is None:
                return path + self._append(node, tokens[len(path) :])
            path.append(node := child)
        return path

    def _child(self, node: int, token: int) -> int | None:
        """Return the node of a token behind another, if there is one."""
        after = node + 1  # where a sequence was added in one piece
        if after < len(self) and self.parents[after] == node and self.tokens[after] == token:
            return after
        return self._children.get((node, token))

    def _append(self, node: int, tokens: Sequence[int]) -> list[int]:
        """Add a sequence of which not even the first token is there."""
        first, depth = len(self), 0 if node == ROOT else self.depths[node] + 1
        self._children[node, tokens[0]] = first
        path = list(range(first, first + len(tokens)))
        self.tokens += tokens
        self.parents += [node, *path[:-1]]
        self.depths += range(depth, depth + len(tokens))
        return path


def chain(tokens: Sequence[int]) -> Trie:
    """Return one sequence as a trie."""
    trie = Trie()
    trie.extend(ROOT, tokens)
    return trie


def ancestors(parents: Sequence[int]) -> np.ndarray:
    """Return what each token attends to, seen[i, j] = (j = i or j is an ancestor of i): (L, L).

    Filled in a block for each run of tokens that follow one another: a long trace has few of them.
    """
    size = len(parents)
    seen = np.zeros((size, size), dtype=bool)
    runs = [node for node, parent in enumerate(parents) if node == 0 or parent != node - 1]
    for first, end in pairwise([*runs, size]):
        seen[first:end, first:end] = np.tri(end - first, dtype=bool)
        if parents[first] != ROOT:
            seen[first:end, :first] = seen[parents[first], :first]
    return seen


def collate(
    tries: Sequence[Trie], pad_id: int = 0, cached: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay tries out as the rows of one pass. Padding sees only itself, and nothing sees it.

    Args:
        cached: how many of each trie's first nodes are in the row's cache already; T at most.

    Returns:
        ids and positions (B, L), padded on the right, and what each token sees, (B, L, T + L).
    """
    cached = cached or [0] * len(tries)
    before = max(cached)
    shape = len(tries), max(len(trie) - c for trie, c in zip(tries, cached, strict=True))
    ids = np.full(shape, pad_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    seen = np.zeros((*shape, before + shape[1]), dtype=bool)
    seen[:, :, before:] = np.eye(shape[1], dtype=bool)
    for row, (trie, c) in enumerate(zip(tries, cached, strict=True)):
        new = len(trie) - c
        ids[row, :new] = trie.tokens[c:]
        positions[row, :new] = trie.depths[c:]
        whole = ancestors(trie.parents)[c:]
        seen[row, :new, :c] = whole[:, :c]
        seen[row, :new, before : before + new] = whole[:, c:]
    return ids, positions, seen


def by_length(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Group rows of similar length so that no group holds more than `limit` padded tokens.

    Returns:
        Indices into `lengths`, longest first, so that a pass too large for memory fails at once.

    Raises:
        ValueError: one row alone is over the limit.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[index] > limit:
            raise ValueError(
                f"a row of {lengths[index]} tokens does not fit a pass of {limit}; "
                "raise the limit (prover.pack_tokens)"
            )
        longest = lengths[groups[-1][0]] if groups else 0
        similar = lengths[index] >= SIMILAR * longest
        if groups and similar and (len(groups[-1]) + 1) * longest <= limit:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def families(prompts: Sequence[Sequence[int]], small: int = 512) -> list[list[int]]:
    """Group prompts that share at least half of their tokens with a neighbour in sorted order.

    Attention over a packed row costs its length squared, so a family's trie has at most `small`
    tokens, or three times its longest prompt if that is more. In a family over `small` a prompt
    must also share half of itself, or as many tokens as the trie has beside its longest prompt: a
    short prompt between two long traces must not join them.

    Returns:
        Groups of indices, the one with the longest prompt first: the forks of one trace come
        together, and groups of similar length are neighbours.
    """
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    groups: list[list[int]] = []
    size = longest = 0
    for position, index in enumerate(order):
        length = len(prompts[index])
        shared = common(prompts[order[position - 1]], prompts[index]) if position else 0
        size, longest = size + length - shared, max(longest, length)
        shortest = min(length, len(prompts[order[position - 1]]))
        near = size <= small or shared >= min(length - shared, size - longest)
        if position and 2 * shared >= shortest and near and size <= max(small, 3 * longest):
            groups[-1].append(index)
        else:
            groups.append([index])
            size = longest = length
    return sorted(groups, key=lambda group: -max(len(prompts[i]) for i in group))


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens that two sequences have in common at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    different = (position for position, (a, b) in pairs if a != b)
    return next(different, min(len(first), len(second)))


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


@contextmanager
def counted(model: PreTrainedModel) -> Iterator[list[int]]:
    """Collect how many tokens each forward pass inside the block takes, padding included."""
    tokens: list[int] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, arguments: tokens.append(arguments[0].numel())
    )
    try:
        yield tokens
    finally:
        hook.remove()


def takes_custom_mask(model: PreTrainedModel) -> bool:
    """Say whether every layer is full attention, computed by a kernel that takes any mask."""
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    return plain and model.config._attn_implementation in KERNELS


def for_attention(seen: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """Return what each query sees (B, L, T) as the model's mask for all heads (B, 1, L, T).

    Numbers to add to the scores, 0 or -inf, which sdpa would else make of the mask in every layer;
    it takes them in the type of its queries alone, so a model that is not in float32 throughout
    has the boolean mask, unless its kernel casts them (`models.attention`). A query must see
    something.
    """
    mask = seen[:, None]
    if model.config._attn_implementation == "sdpa" and model.dtype != torch.float32:
        return mask
    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill_(
        ~mask, -torch.inf
    )


def forward_packed(
    model: PreTrainedModel,
    tries: Sequence[Trie],
    cache: Cache | None = None,
    logits_to_keep: int | torch.Tensor = 1,
    pad_id: int = 0,
    cached: Sequence[int] | None = None,
) -> torch.Tensor:
    """Run tries as the rows of one pass; return the logits kept, and fill the cache if given.

    The mask has B L^2 entries.

    Args:
        logits_to_keep: as in transformers: how many last positions, or a boolean (B, L) that picks
            positions and flattens them.
        cached: how many first nodes of each trie are in the cache already; only the others are run.
    """
    rows = collate(tries, pad_id, cached)
    ids, positions, seen = (torch.from_numpy(x).to(model.device) for x in rows)
    return model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=for_attention(seen, model),
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=logits_to_keep,
    ).logits


def forward_plain(
    model: PreTrainedModel, tries: Sequence[Trie], logits_to_keep: torch.Tensor
) -> torch.Tensor:
    """Run tries that are chains as plain rows, for any causal model; return the logits kept."""
    longest = max(len(trie) for trie in tries)
    ids = [trie.tokens + [0] * (longest - len(trie)) for trie in tries]
    mask = [[1] * len(trie) + [0] * (longest - len(trie)) for trie in tries]
    return model(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        use_cache=False,
        logits_to_keep=logits_to_keep,
    ).logits
