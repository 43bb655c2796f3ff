"""A layer with LoRA as one matrix, W + (alpha/r) B A, with the gradients of A and B.

PEFT computes W x and (alpha/r) B (A x) in passes of their own, forward and backward, and unpacks a
4-bit W in each. Here x goes through the merged matrix alone. Backward, neither does the gradient of
the whole matrix have to be formed: with g the gradient of the output, those of B and A are
(alpha/r) g^T (x A^T) and (alpha/r) (g B)^T x, as in PEFT (arXiv 2106.09685). N tokens, r the rank.
"""

import torch
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional


class _Merged(torch.autograd.Function):
    """y = x (W + s B A)^T + bias, given the sum; its derivatives by x, A and B."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: torch.Tensor, merged: torch.Tensor, bias: torch.Tensor | None,
        A: torch.Tensor, B: torch.Tensor, scaling: float,
    ) -> torch.Tensor:  # fmt: skip
        ctx.save_for_backward(x, merged, A, B)
        ctx.scaling = scaling
        return functional.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, merged, A, B = ctx.saved_tensors
        of_x = (g @ merged.to(g.dtype)).to(x.dtype) if ctx.needs_input_grad[0] else None
        g, x = g.flatten(0, -2), x.flatten(0, -2).to(g.dtype)  # (N, out), (N, in)
        of_A = ctx.scaling * (g @ B.to(g.dtype)).T.mm(x).to(A.dtype)  # (r, in)
        of_B = ctx.scaling * g.T.mm(x @ A.T.to(g.dtype)).to(B.dtype)  # (out, r)
        return of_x, None, None, of_A, of_B, None


class MergedLinear(nn.Linear):
    """Takes a plain layer's place in a twin; the gradients go to the policy's own adapter."""

    def __init__(self, plain: nn.Linear, adapted: nn.Module) -> None:
        """Take over the plain layer's weight and bias.

        Args:
            adapted: PEFT's layer of the policy. Its adapter stays there, and is no parameter here.
        """
        super().__init__(plain.in_features, plain.out_features, False, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        self._adapted = (adapted,)  # in a tuple, which `nn.Module` does not look into

    @property
    def adapted(self) -> nn.Module:
        """PEFT's layer."""
        return self._adapted[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y (..., out) of x (..., in)."""
        if not torch.is_grad_enabled():
            return functional.linear(x, self.weight, self.bias)
        A, B = (side["default"].weight for side in (self.adapted.lora_A, self.adapted.lora_B))
        return _Merged.apply(x, self.weight, self.bias, A, B, self.adapted.scaling["default"])


def is_plain_lora(layer: nn.Module) -> bool:
    """Say whether PEFT's layer computes W x + (alpha/r) B A x and nothing more, on a `Linear`.

    Dropout acts on the input of A alone, and variants (DoRA and others) compute something else:
    one merged matrix has not their gradients.
    """
    name = "default"
    return (
        layer.active_adapters == [name]
        and not layer.merged
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
        and type(layer.lora_A[name]) is nn.Linear
        and not getattr(layer, "fan_in_fan_out", False)
    )
