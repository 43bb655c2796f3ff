"""What cannot share prefixes is found on a short input, named, and sent the plain way."""

import numpy as np
import pytest
import torch
from test_prover import CONFIGS, GivenIds, build, some_probes
from transformers import AutoModelForCausalLM, MambaConfig, Qwen3NextConfig

from mrtlib.models import compatibility, packing
from mrtlib.models.quantization import ModelError
from mrtlib.models.sampling import TransformersSampler
from mrtlib.prover import exact


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_full_attention_shares(kind, attention):
    model = build(kind, attention)
    assert compatibility.obstacle(model) == "" and compatibility.shared_gap(model) < 1e-4


def large(scale):
    """A deep model with a large vocabulary and logits as far apart as those of real ones."""
    model = build("qwen2", vocab=20_000, layers=16)
    with torch.no_grad():
        model.lm_head.weight *= scale / model.lm_head.weight.std() / 8  # 64 = 8 * 8 terms a logit
    return model.to(torch.bfloat16)


@pytest.mark.parametrize("scale", [0.5, 2.5, 6.0])
def test_rounding_to_sixteen_bits_is_no_obstacle(scale, monkeypatch):
    model = large(scale)
    with torch.no_grad():
        assert abs(float(model(torch.tensor([[5, 6, 7]])).logits.std()) / scale - 1) < 0.3
    assert compatibility.obstacle(model) == ""
    compatibility.require_steps(model)
    monkeypatch.setattr(packing, "ancestors", lambda parents: np.tri(len(parents), dtype=bool))
    assert "does not give the same" in compatibility.obstacle(large(scale))


def test_layers_and_kernels_without_masks_are_named():
    model = build("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert "sliding-window" in compatibility.obstacle(model)
    model = build()
    model.config._attn_implementation = "flash_attention_2"
    assert "'flash_attention_2' attention takes no custom mask" in compatibility.obstacle(model)


def test_a_mask_that_is_ignored_is_seen(monkeypatch):
    monkeypatch.setattr(packing, "ancestors", lambda parents: np.tri(len(parents), dtype=bool))
    assert "does not give the same with a packed pass" in compatibility.obstacle(build())


def test_a_model_that_fails_on_a_mask_is_not_asked_again(monkeypatch):
    model, calls = build(), []
    right = model.forward

    def forward(*args, attention_mask=None, **kwargs):
        calls.append(1)
        if attention_mask is not None and attention_mask.dim() == 4:
            raise ValueError("two dimensions at most")
        return right(*args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    assert "fails on a packed pass (two dimensions" in compatibility.obstacle(model)
    tried = len(calls)
    with pytest.warns(UserWarning, match="more slowly"):
        assert not compatibility.can_share(model, "a row each")
    assert len(calls) == tried
    packed = exact.packed(build(), some_probes(), GivenIds())
    rows = exact.unpacked(model, some_probes(), GivenIds())
    for ours, plain in zip(packed, rows, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4)


def test_a_model_that_gives_nan_does_not_pass():
    model = build()
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    assert "by nan" in compatibility.obstacle(model)
    plain = torch.zeros(2, 4)
    broken = torch.full((2, 4), float("nan"))
    assert np.isnan(compatibility._largest([plain, broken], plain))  # whichever way it comes from


def test_a_full_memory_says_nothing_about_a_model(monkeypatch):
    def full(model):
        raise torch.OutOfMemoryError("too large")

    model = build()
    monkeypatch.setattr(compatibility, "shared_gap", full)
    with pytest.raises(torch.OutOfMemoryError):
        compatibility.obstacle(model)
    monkeypatch.undo()
    assert compatibility.obstacle(model) == ""


def hybrid():
    """Half of the layers are recurrent; their cache has no rows to pick."""
    config = Qwen3NextConfig(
        vocab_size=50, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_experts=2,
        num_experts_per_tok=1, moe_intermediate_size=32, shared_expert_intermediate_size=32,
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=16,
        linear_value_head_dim=16, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.filterwarnings("ignore:.*takes no custom mask")
def test_a_cache_that_cannot_be_forked_is_filled_for_each_row():
    model, prompts = hybrid(), [[5, 6, 7], [5, 6, 7, 8, 9], [4]]
    assert "hybrid layers" in compatibility.obstacle(model)
    assert compatibility.plain_gap(model) < 1e-4
    settings = {"temperature": 1.0, "top_p": 1.0, "stop_ids": {1, 2, 3, 4, 5}, "seed": 0}
    found = [TransformersSampler(model, 0, rows).sample(prompts, 3, 9, **settings)
             for rows in (9, 1)]  # fmt: skip
    together, alone = [[[s.token_ids for s in group] for group in one] for one in found]
    assert together == alone
    assert len({len(tokens) for group in alone for tokens in group}) > 3
    [J, *_] = exact.unpacked(model, some_probes(), GivenIds())
    assert ((J > 0) & (J < 1)).all()


@pytest.mark.filterwarnings("ignore:.*takes no custom mask")
def test_a_model_that_ignores_the_cache_is_refused():
    config = MambaConfig(vocab_size=50, hidden_size=64, num_hidden_layers=2, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    settings = {"temperature": 1.0, "top_p": 1.0, "stop_ids": {1}, "seed": 0}
    with pytest.raises(ModelError, match="sample from a server instead"):
        TransformersSampler(model, 0, 8).sample([[5, 6, 7], [5, 6]], 1, 4, **settings)


def test_the_sampler_goes_the_plain_way_and_says_so(monkeypatch):
    settings = {"temperature": 1.0, "top_p": 1.0, "stop_ids": {1}, "seed": 0}
    prompts = [[5, 6, 7, 8], [5, 6, 9]]
    expected = TransformersSampler(build(), 0, 8).sample(prompts, 3, 8, **settings)
    monkeypatch.setattr(compatibility.packing, "takes_custom_mask", lambda model: False)
    with pytest.warns(UserWarning, match="prefilled on its own"):
        plain = TransformersSampler(build(), 0, 8).sample(prompts, 3, 8, **settings)
    for one, other in zip(expected, plain, strict=True):
        assert [s.token_ids for s in one] == [s.token_ids for s in other]
