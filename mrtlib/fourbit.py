"""What 4-bit layers (bitsandbytes) need to be trusted: sizes that fit, and a guard on the CPU."""

import logging

import torch
from transformers import PretrainedConfig

BLOCK = 64  # weights that share one scale in 4-bit NormalFloat (arXiv 2305.14314)


class ModelError(ValueError):
    """A model, tokenizer or adapter that cannot be used as the profile asks."""


def _no_kernel_notice(record: logging.LogRecord) -> bool:
    """Drop one notice of bitsandbytes: an optional speed-up, which we do not use, is absent."""
    return "Failed to load CPU gemm_4bit_forward" not in str(record.msg)


# Said once, while bitsandbytes is imported (by PEFT too), hence here and before PEFT.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_no_kernel_notice)


def guard_4bit(model: torch.nn.Module) -> None:
    """Forbid the in-place re-packing of 4-bit layers on CPUs with AVX512-BF16.

    There, one forward pass in eval mode without gradients re-packs every `Linear4bit` for a
    product that has no derivative, and `.train()` does not undo it: adapter gradients are then
    missing or wrong without an error (bitsandbytes 0.50.2, `Linear4bit.forward`).
    """
    for layer in layers_4bit(model):
        layer.support_avx512bf16_for_cpu = False


def assert_unpacked(model: torch.nn.Module) -> None:
    """Raise ModelError when a 4-bit layer has been re-packed, since it can train no adapter."""
    packed = [
        layer
        for layer in layers_4bit(model)
        if getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
    ]
    if packed:
        raise ModelError(
            f"{len(packed)} 4-bit layers are packed for inference and give no gradients; load "
            "the model again and call guard_4bit before its first forward pass"
        )


def check_4bit_dimensions(config: PretrainedConfig) -> None:
    """Raise ModelError when a linear layer's input size is no multiple of the 4-bit block."""
    heads = config.num_attention_heads
    width = (getattr(config, "head_dim", None) or config.hidden_size // heads) * heads
    sizes = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads * head_dim": width,
    }
    for name, size in sizes.items():
        if size % BLOCK:
            raise ModelError(
                f"{name} = {size} is not a multiple of {BLOCK}, which 4-bit kernels need; set "
                "model.quantization to 'none' or take another model"
            )


def layers_4bit(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return every 4-bit linear layer of a model, its adapters' base layers included."""
    from bitsandbytes.nn import Linear4bit  # costs seconds; a run without 4 bits is spared them

    return [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
