"""Does a model give the same result with shared prefixes as without? Tried on a short input.

A model may accept a custom mask and ignore it, or have a cache that cannot be forked. Code that
shares prefixes asks here first, and computes each prompt on its own where the answer is no.
"""

import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedModel

from mrtlib.models import caches, packing
from mrtlib.models.quantization import ModelError

# Most total variation between the next-token distributions of two passes of one model: in
# float32, in 16 bits, or ROUNDING times that of plain rows, each run alone and all in a batch. A
# mask that is ignored makes far more.
ALLOWED, ALLOWED_SHORT, ROUNDING = 1e-3, 0.05, 5.0

_sharing: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()
_stepping: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()


def obstacle(model: PreTrainedModel) -> str:
    """Return why this model cannot share prefixes, "" if it can; tried once for each model."""
    if model not in _sharing:
        name = type(model).__name__
        refused = (
            f"{name} with {model.config._attn_implementation!r} attention takes no custom mask "
            "(sliding-window or hybrid layers, or a kernel other than sdpa and eager)"
        )
        takes = packing.takes_custom_mask(model)
        _sharing[model] = _fault(model, shared_gap, "a packed pass") if takes else refused
    return _sharing[model]


def can_share(model: PreTrainedModel, instead: str) -> bool:
    """Say whether the model can share prefixes; if not, warn of what is done `instead`."""
    if reason := obstacle(model):
        warnings.warn(f"{reason}; {instead}: the same result, more slowly", stacklevel=2)
    return not reason


def require_steps(model: PreTrainedModel) -> None:
    """Raise ModelError for a model that cannot be sampled here, even with a plain prefill."""
    if model not in _stepping:
        _stepping[model] = _fault(model, plain_gap, "a cache of padded prompts")
    if _stepping[model]:
        raise ModelError(
            f"{_stepping[model]}; sample from a server instead (mrtlib.models.server), or use a "
            "model that transformers can decode with a DynamicCache"
        )


def _fault(model: PreTrainedModel, gap_of: Callable[..., float], what: str) -> str:
    """Return how a model fails a trial, "" if it passes."""
    name = type(model).__name__
    try:
        gap, rounding = gap_of(model), rounding_gap(model)
    except torch.OutOfMemoryError:
        raise  # says nothing about the model
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        return f"{name} fails on {what} ({error})"
    allowed = max(ALLOWED if model.dtype == torch.float32 else ALLOWED_SHORT, ROUNDING * rounding)
    if gap <= allowed:
        return ""
    return (
        f"{name} does not give the same with {what}: next-token distributions differ by "
        f"{gap:.2g} (total variation) from a plain pass, and {allowed:.2g} is allowed"
    )


def rounding_gap(model: PreTrainedModel) -> float:
    """Compare plain rows that are run alone and in a batch, as in `shared_gap`: rounding."""
    prompts = _prompts(model)
    with packing.evaluating(model):
        alone = torch.cat([_plain(model, [prompt]) for prompt in prompts])
        return _largest([alone], _plain(model, prompts))


def shared_gap(model: PreTrainedModel) -> float:
    """Compare forks of a shared cache, and a packed row, with a plain row for each sequence.

    Returns:
        The largest total variation between next-token distributions, in [0, 1], over five
        sequences of which three share a prefix; NaN where a model gives NaN. Not the largest
        difference of logits: in 16 bits that of some unlikely token is always large.
    """
    prompts = _prompts(model)
    owners = list(range(len(prompts)))
    with packing.evaluating(model):
        found = [_packed(model, prompts)]
        for forked in (caches.SharedPrefixes.gather, caches.SharedPrefixes.point):
            prefixes = caches.SharedPrefixes(model, prompts, pad_id=0)
            found.append(forked(prefixes, owners, 1).step(model))
        return _largest(found, _plain(model, prompts))


def plain_gap(model: PreTrainedModel) -> float:
    """Compare a step behind the cache of padded prompts with a plain row for each prompt."""
    prompts = _prompts(model)
    with packing.evaluating(model):
        forks = caches.PaddedPrompts(model, prompts, 0).fork(list(range(len(prompts))), 1)
        step = forks.step(model)
        return _largest([step], _plain(model, prompts))


def policy_gap(policy: PreTrainedModel, other: PreTrainedModel) -> float:
    """Compare plain rows of two models, as in `shared_gap`: a policy and its stand-in."""
    prompts = _prompts(policy)
    with packing.evaluating(policy), packing.evaluating(other):
        return _largest([_plain(other, prompts)], _plain(policy, prompts))


def _prompts(model: PreTrainedModel) -> list[list[int]]:
    size = model.config.get_text_config().vocab_size
    ids = np.random.default_rng(0).integers(0, size, 60).tolist()
    return [ids[:12], ids[:20] + ids[30:36], ids[:16] + ids[36:41], ids[41:50], ids[50:]]


def _largest(found: list[torch.Tensor], plain: torch.Tensor) -> float:
    """Return the largest total variation of log-probabilities or logits (B, V) from `plain`."""
    p = torch.softmax(plain.double(), -1)
    far = [(torch.softmax(one.double(), -1) - p).abs().sum(-1) / 2 for one in found]
    return float(torch.stack(far).max())  # which passes NaN on


def _plain(model: PreTrainedModel, prompts: list[list[int]]) -> torch.Tensor:
    """Return the log-probabilities behind each prompt, from a plain row for each (B, V)."""
    tries = [packing.chain(prompt) for prompt in prompts]
    keep = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.bool)
    keep[range(len(prompts)), [len(prompt) - 1 for prompt in prompts]] = True
    logits = packing.forward_plain(model, tries, keep.to(model.device))
    return torch.log_softmax(logits.float(), -1)


def _packed(model: PreTrainedModel, prompts: list[list[int]]) -> torch.Tensor:
    """Return the logits behind each prompt, all prompts in one packed row (B, V)."""
    trie = packing.Trie()
    last = [trie.extend(packing.ROOT, prompt)[-1] for prompt in prompts]
    logits = packing.forward_packed(model, [trie], logits_to_keep=len(trie))
    return logits[0, last].float()
