"""Does a model give the same with shared prefixes as without? Tried on a short input.

A model may take a mask of ours and not keep to it, or hold its cache in a way that cannot be
forked. Whatever shares prefixes asks here first, and goes the plain way where the answer is no.
"""

import warnings
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedModel

from mrtlib import forks, packing, passes

ALLOWED = 1e-3  # nats between two float32 passes; a mask that is ignored shifts whole nats
ALLOWED_SHORT = 0.5  # ... and between two passes in 16 bits

_found: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()


def obstacle(model: PreTrainedModel) -> str:
    """Return why this model cannot share prefixes, "" if it can; tried once for each model."""
    if model not in _found:
        _found[model] = _obstacle(model)
    return _found[model]


def shares(model: PreTrainedModel, instead: str) -> bool:
    """Say whether the model can share prefixes; if not, warn that it goes `instead`."""
    reason = obstacle(model)
    if reason:
        warnings.warn(f"{reason}; {instead}: the same result, more slowly", stacklevel=2)
    return not reason


def _obstacle(model: PreTrainedModel) -> str:
    name = type(model).__name__
    if not passes.takes_custom_mask(model):
        return (
            f"{name} with {model.config._attn_implementation!r} attention takes no custom mask "
            "(sliding-window or hybrid layers, or a kernel other than sdpa and eager)"
        )
    try:
        gap = largest_gap(model)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        return f"{name} fails on a packed pass ({error})"
    allowed = ALLOWED if model.dtype == torch.float32 else ALLOWED_SHORT
    if gap <= allowed:
        return ""
    return (
        f"{name} does not keep to a custom mask: packed and plain passes differ by {gap:.2g} nats, "
        f"where {allowed} is expected at most"
    )


def largest_gap(model: PreTrainedModel, seed: int = 0) -> float:
    """Compare forks of a shared cache, and a packed row, with rows of their own.

    Returns:
        The largest difference of a log-probability, in nats, over five sequences of which three
        share a prefix; NaN where a model gives NaN.
    """
    ids = np.random.default_rng(seed).integers(0, model.config.vocab_size, 60).tolist()
    prompts = [ids[:12], ids[:20] + ids[30:36], ids[:16] + ids[36:41], ids[41:50], ids[50:]]
    with passes.evaluating(model):
        plain = _plain(model, prompts)
        found = [_packed(model, prompts)]
        for forked in (forks.SharedPrefixes.gather, forks.SharedPrefixes.point):
            prefixes = forks.SharedPrefixes(model, prompts, pad_id=0)
            found.append(forked(prefixes, list(range(len(prompts))), 1).step(model))
    return max(float((torch.log_softmax(one, -1) - plain).abs().max()) for one in found)


def _plain(model: PreTrainedModel, prompts: list[list[int]]) -> torch.Tensor:
    """Return the log-probabilities behind each prompt from a row of its own (B, V)."""
    tries = [packing.chain(prompt) for prompt in prompts]
    keep = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.bool)
    keep[range(len(prompts)), [len(prompt) - 1 for prompt in prompts]] = True
    logits = passes.forward_plain(model, tries, keep.to(model.device))
    return torch.log_softmax(logits.float(), -1)


def _packed(model: PreTrainedModel, prompts: list[list[int]]) -> torch.Tensor:
    """Return the logits behind each prompt, all prompts in one packed row (B, V)."""
    trie = packing.Trie()
    last = [trie.extend(packing.ROOT, prompt)[-1] for prompt in prompts]
    logits = passes.forward_packed(model, [trie], logits_to_keep=len(trie))
    return logits[0, last].float()
