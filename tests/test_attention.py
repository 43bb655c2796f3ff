"""A half-type twin attends as torch does, with gradients that are computed in float32."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from mrtlib.models import attention
from mrtlib.models.attention import FLOAT32_GRADIENTS
from mrtlib.models.loading import add_lora, load_base
from mrtlib.models.quantization import Twin

SIZE = 2, 3, 7, 8  # rows, heads, tokens, numbers of a head


def some(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(SIZE).to(dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_float32(masked):
    inputs, weights = some(torch.bfloat16), torch.randn(2, 7, 3, 8)
    mask = torch.zeros(2, 1, 7, 7).masked_fill_(torch.rand(2, 1, 7, 7) < 0.3, -torch.inf)
    mask = mask.masked_fill_(torch.eye(7).bool(), 0.0) if masked else None
    out, _ = attention._forward(torch.nn.Module(), *inputs, mask)
    assert out.dtype == torch.bfloat16 and out.shape == weights.shape
    (out.float() * weights).sum().backward()
    exact = [x.detach().float().requires_grad_() for x in inputs]
    whole = functional.scaled_dot_product_attention(*exact, attn_mask=mask, is_causal=not masked)
    (whole.transpose(1, 2).to(torch.bfloat16).float() * weights).sum().backward()
    for half, full in zip(inputs, exact, strict=True):
        assert torch.equal(half.grad, full.grad.to(torch.bfloat16))


def test_without_gradients_it_stays_in_the_type_of_the_queries(monkeypatch):
    seen, real = [], functional.scaled_dot_product_attention

    def watched(query, *others, **options):
        seen.append(query.dtype)
        return real(query, *others, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    with torch.no_grad():
        attention._forward(torch.nn.Module(), *some(torch.bfloat16), None)
    attention._forward(torch.nn.Module(), *some(torch.bfloat16), None)
    assert seen == [torch.bfloat16, torch.float32]


def test_a_twin_in_bfloat16_attends_so_and_one_in_float32_does_not(toy_profile):
    profile = toy_profile()
    policy = add_lora(load_base(profile), profile.lora, seed=0)
    assert Twin(policy, torch.bfloat16).model.config._attn_implementation == FLOAT32_GRADIENTS
    assert Twin(policy).model.config._attn_implementation == "sdpa"
    assert policy.get_base_model().config._attn_implementation == "sdpa"  # its own is as it was
    eager = load_base(replace(profile, name="other"))
    eager.set_attn_implementation("eager")
    assert Twin(eager, torch.bfloat16).model.config._attn_implementation == "eager"
