"""Attention of a twin in bfloat16 on a CPU: torch's own kernels, where each is fast.

There, the derivative of torch's attention takes twice as long in bfloat16 as in float32
(torch 2.13), more than all that bfloat16 saves in learning. So with gradients it is computed in
float32, and without them in the twin's type.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

FLOAT32_GRADIENTS = "sdpa_float32_gradients"  # its name among the kernels of transformers
KERNELS = ("sdpa", "eager", FLOAT32_GRADIENTS)  # those that take any mask


def _forward(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, **options: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Return what `sdpa_attention_forward` does, in the type of the queries."""
    own = query.dtype
    inner = torch.float32 if torch.is_grad_enabled() else own
    query, key, value = (x.to(inner) for x in (query, key, value))
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.to(inner)
    out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return out.to(own), None


AttentionInterface.register(FLOAT32_GRADIENTS, _forward)
AttentionMaskInterface.register(FLOAT32_GRADIENTS, sdpa_mask)


def quicken(model: PreTrainedModel) -> None:
    """Let a model in a half type on a CPU attend so, if it would use torch's kernels anyway."""
    half = model.dtype in (torch.bfloat16, torch.float16)
    if half and model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(FLOAT32_GRADIENTS)
