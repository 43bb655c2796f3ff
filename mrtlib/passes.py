"""Forward passes without gradients: several sequences packed in a row, or each in a row of its own.

B rows of a pass, L tokens of its longest row, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from mrtlib import packing


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
    fed: list[int] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, arguments: fed.append(arguments[0].numel())
    )
    try:
        yield fed
    finally:
        hook.remove()


def takes_custom_mask(model: PreTrainedModel) -> bool:
    """Say whether every layer is full attention, computed by a kernel that takes any mask."""
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    return plain and model.config._attn_implementation in ("sdpa", "eager")


def for_attention(seen: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """Return what each query sees (B, L, T) as the model's mask for all heads (B, 1, L, T)."""
    mask = seen[:, None]
    if model.config._attn_implementation == "eager":  # which adds its mask to the scores
        mask = torch.where(mask, 0.0, torch.finfo(model.dtype).min).to(model.dtype)
    return mask


def forward_packed(
    model: PreTrainedModel,
    tries: Sequence[packing.Trie],
    cache: Cache | None = None,
    logits_to_keep: int | torch.Tensor = 1,
    pad_id: int = 0,
    cached: Sequence[int] | None = None,
) -> torch.Tensor:
    """Run tries as the rows of one pass; return the logits kept, and fill the cache if given.

    The mask holds B L^2 entries. `logits_to_keep` is that of transformers: the last so many
    positions, or a boolean (B, L) that picks positions and flattens them. `cached`: how many
    first nodes of each trie the cache holds already; only the others are run.
    """
    rows = packing.collate(tries, pad_id, cached)
    mask = for_attention(torch.from_numpy(rows.seen).to(model.device), model)
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
