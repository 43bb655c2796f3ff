"""A plain twin of a quantised policy with adapters: the same function, cheaper to run.

A small 4-bit model spends most of a decoding step on unpacking weights and on adapters. The twin
holds, for each layer, the dequantised base weight plus the adapter's (alpha/r) B A in one matrix.
Nothing is quantised again and every refresh starts from the base, so nothing drifts: outputs
differ from the policy's by rounding alone. It costs the memory of the unquantised model.
"""

import copy

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from mrtlib.fourbit import ModelError


def plain_weight(layer: nn.Module) -> torch.Tensor:
    """Return a linear layer's weight (out, in), dequantised if it is held in 4 bits."""
    weight = layer.weight
    if hasattr(weight, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state)
    return weight.data


class Twin:
    """Keeps a plain model equal to a policy (PEFT-wrapped or not, quantised or not)."""

    def __init__(self, policy: PreTrainedModel) -> None:
        """Build the plain model; `refresh` brings it up to date.

        Raises:
            ModelError: the plain model would lack, or have more, weights than the policy.
        """
        self.policy = policy
        inner = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        config = copy.deepcopy(inner.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        dtype = next(inner.parameters()).dtype
        dtype = dtype if dtype.is_floating_point else inner.config.dtype
        with torch.random.fork_rng(devices=[]):  # building draws weights that are then replaced
            self.model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        self.model.to(inner.device).requires_grad_(False).eval()
        self.layers: dict[str, tuple[nn.Module, torch.Tensor]] = {}
        theirs = dict(inner.named_modules())
        for name, module in self.model.named_modules():
            self._adopt(name, module, theirs)
        self.refresh()

    def _adopt(self, name: str, module: nn.Module, theirs: dict[str, nn.Module]) -> None:
        """Copy a module's own weights from the policy, and remember layers with adapters."""
        if name not in theirs:
            raise ModelError(f"the policy has no module {name}; set model.twin = False")
        source = theirs[name]
        if hasattr(source, "get_delta_weight"):
            weight = plain_weight(source.get_base_layer()).to(module.weight.dtype)
            self.layers[name] = (module, weight.clone())
            source = source.get_base_layer()
        for key, parameter in module.named_parameters(recurse=False):
            value = plain_weight(source) if key == "weight" else getattr(source, key).data
            parameter.data.copy_(value)

    @torch.no_grad()
    def refresh(self) -> PreTrainedModel:
        """Bring the adapters' present weights into the twin and return it."""
        if self.layers:
            theirs = dict(self.policy.get_base_model().named_modules())
            for name, (module, base) in self.layers.items():
                delta = theirs[name].get_delta_weight("default")
                module.weight.data.copy_(base + delta.to(base.dtype))
        return self.model
