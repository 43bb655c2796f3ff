"""The plain twin computes what the policy computes, before and after the adapters change."""

import pytest
import torch
from transformers import Gemma3Config

from mrtlib.models import quantization
from mrtlib.models.loading import add_lora, load_base
from mrtlib.models.quantization import ModelError, Twin

IDS = torch.arange(40).reshape(2, 20)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def shake(policy) -> None:
    torch.manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_twin_equals_policy_and_follows_it(toy_profile, quantization):
    profile = toy_profile(quantization)
    policy = add_lora(load_base(profile), profile.lora, seed=0).eval()
    twin = Twin(policy)
    before = logits(policy)
    assert torch.allclose(logits(twin.model), before, atol=1e-4)
    shake(policy)
    assert (logits(policy) - before).abs().max() > 1e-2
    assert torch.allclose(logits(twin.model), before, atol=1e-4)  # not refreshed yet
    assert torch.allclose(logits(twin.refresh()), logits(policy), atol=1e-4)


def test_refreshing_often_does_not_drift(toy_profile):
    profile = toy_profile("nf4")
    policy = add_lora(load_base(profile), profile.lora, seed=0).eval()
    shake(policy)
    twin = Twin(policy)
    first = logits(twin.model)
    for _ in range(20):
        twin.refresh()
    assert torch.equal(logits(twin.model), first)


def test_twin_of_a_base_without_adapters(toy_profile):
    base = load_base(toy_profile("nf4"))
    assert torch.allclose(logits(Twin(base).model), logits(base), atol=1e-4)


def test_building_a_twin_leaves_the_random_state_alone(toy_profile):
    base = load_base(toy_profile("none"))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Twin(base)
    assert torch.equal(torch.rand(1), expected)


def test_a_nested_configuration_is_read_by_its_part_for_text():
    """Gemma 3 and others that read pictures keep the sizes of the language model one level down."""
    config = Gemma3Config(text_config={"hidden_size": 128, "intermediate_size": 256,
                                       "num_attention_heads": 4, "head_dim": 32})  # fmt: skip
    quantization.check_4bit_dimensions(config)
    config.text_config.intermediate_size = 100
    with pytest.raises(ModelError, match="intermediate_size = 100"):
        quantization.check_4bit_dimensions(config)
