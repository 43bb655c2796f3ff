"""4-bit layers (bitsandbytes): sizes that fit, a guard on the CPU, and a plain twin of the policy.

A small 4-bit model spends most of a decoding step on unpacking weights and on adapters. The twin
has one matrix for each layer: the dequantised base weight plus the adapter's (alpha/r) B A.
Nothing is quantised again, and every refresh starts from the base, so errors do not add up: outputs
differ from the policy's by rounding alone. With gradients on, they go to the policy's adapters (see
`merged`), so that one can learn through the twin as well. It costs the memory of the unquantised
model.
"""

import copy

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from mrtlib.models.attention import quicken
from mrtlib.models.merged import MergedLinear, is_plain_lora

BLOCK = 64  # weights that share one scale in 4-bit NormalFloat (arXiv 2305.14314)


class ModelError(ValueError):
    """A model, tokenizer or adapter that cannot be used as the profile asks."""


def guard_4bit(model: nn.Module) -> None:
    """Forbid the in-place re-packing of 4-bit layers on CPUs with AVX512-BF16.

    There, one forward pass in eval mode without gradients re-packs every `Linear4bit` for a
    product that has no derivative, and `.train()` does not undo it: adapter gradients are then
    missing or wrong without an error (bitsandbytes 0.50.2, `Linear4bit.forward`).
    """
    for layer in layers_4bit(model):
        layer.support_avx512bf16_for_cpu = False


def assert_unpacked(model: nn.Module) -> None:
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


def layers_4bit(model: nn.Module) -> list[nn.Module]:
    """Return every 4-bit linear layer of a model, its adapters' base layers included."""
    from bitsandbytes.nn import Linear4bit  # takes seconds, and is not needed without 4 bits

    return [layer for layer in model.modules() if isinstance(layer, Linear4bit)]


def check_4bit_dimensions(config: PretrainedConfig) -> None:
    """Raise ModelError when a linear layer's input size is no multiple of the 4-bit block."""
    config = config.get_text_config()  # of a model that reads pictures as well, its part for text
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


def plain_weight(layer: nn.Module) -> torch.Tensor:
    """Return a linear layer's weight (out, in), dequantised if it is in 4 bits."""
    weight = layer.weight
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state)
    return weight.data


class Twin:
    """Keeps a plain model equal to a policy (PEFT-wrapped or not, quantised or not)."""

    def __init__(self, policy: PreTrainedModel, dtype: torch.dtype | None = None) -> None:
        """Build the plain model with the policy's weights.

        Args:
            dtype: the twin's number type, the policy's if none is given. The merged weights are
                rounded to it once, from a sum in the policy's type.

        Raises:
            ModelError: the plain model has a module that the policy lacks.
        """
        self.policy = policy
        inner = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        config = copy.deepcopy(inner.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        own = next(inner.parameters()).dtype
        self.dtype = own if own.is_floating_point else inner.config.dtype
        with torch.random.fork_rng(devices=[]):  # building draws weights that are then replaced
            self.model = AutoModelForCausalLM.from_config(config, dtype=dtype or self.dtype)
        self.model.to(inner.device).requires_grad_(False).eval()
        quicken(self.model)
        self.layers: dict[str, tuple[nn.Module, torch.Tensor]] = {}
        theirs = dict(inner.named_modules())
        for name, module in list(self.model.named_modules()):
            self._adopt(name, module, theirs)
        self.refresh()

    def _adopt(self, name: str, module: nn.Module, theirs: dict[str, nn.Module]) -> None:
        """Copy a module's own weights from the policy, and remember layers with adapters."""
        if name not in theirs:
            raise ModelError(f"the policy has no module {name}; set model.twin = False")
        source = theirs[name]
        if hasattr(source, "get_delta_weight"):
            weight = plain_weight(source.get_base_layer()).to(self.dtype)
            if type(module) is nn.Linear and is_plain_lora(source):
                module = MergedLinear(module, source)
                self.model.set_submodule(name, module)
            self.layers[name] = (module, weight.clone())
            source = source.get_base_layer()
        for key, parameter in module.named_parameters(recurse=False):
            value = plain_weight(source) if key == "weight" else getattr(source, key).data
            parameter.data.copy_(value)

    @property
    def learns(self) -> bool:
        """Whether gradients through the twin reach all that the policy trains."""
        reached = [
            id(side["default"].weight)
            for module, _ in self.layers.values() if isinstance(module, MergedLinear)
            for side in (module.adapted.lora_A, module.adapted.lora_B)
        ]  # fmt: skip
        trained = [id(weight) for weight in self.policy.parameters() if weight.requires_grad]
        return bool(trained) and set(trained) <= set(reached)

    @torch.no_grad()
    def refresh(self) -> PreTrainedModel:
        """Bring the adapters' present weights into the twin and return it."""
        if self.layers:
            theirs = dict(self.policy.get_base_model().named_modules())
            for name, (module, base) in self.layers.items():
                delta = theirs[name].get_delta_weight("default")
                module.weight.data.copy_(base + delta.to(base.dtype))
        return self.model
