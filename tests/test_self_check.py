"""What cannot share prefixes is found on a short input, named, and sent the plain way."""

import numpy as np
import pytest
import torch
from test_prover import CONFIGS, build, some_probes, termination

from mrtlib import packing, passes, prover, self_check
from mrtlib.sampling import TransformersSampler


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_full_attention_shares(kind, attention):
    model = build(kind, attention)
    assert self_check.obstacle(model) == "" and self_check.largest_gap(model) < 1e-4


def test_sixteen_bits_have_more_room():
    assert self_check.obstacle(build("qwen2").to(torch.bfloat16)) == ""


def test_layers_and_kernels_without_masks_are_named():
    model = build("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert "sliding-window" in self_check.obstacle(model)
    model = build()
    model.config._attn_implementation = "flash_attention_2"
    assert "'flash_attention_2' attention takes no custom mask" in self_check.obstacle(model)


def test_a_mask_that_is_ignored_is_seen(monkeypatch):
    monkeypatch.setattr(packing, "ancestors", lambda parents: np.tri(len(parents), dtype=bool))
    assert "does not keep to a custom mask" in self_check.obstacle(build())


def test_a_model_that_fails_on_a_mask_is_not_asked_again(monkeypatch):
    model, calls = build(), []
    right = model.forward

    def forward(*args, attention_mask=None, **kwargs):
        calls.append(1)
        if attention_mask is not None and attention_mask.dim() == 4:
            raise ValueError("two dimensions at most")
        return right(*args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    assert "fails on a packed pass (two dimensions" in self_check.obstacle(model)
    tried = len(calls)
    with pytest.warns(UserWarning, match="more slowly"):
        way = prover.exact_for(model)
    assert len(calls) == tried
    packed = prover.exact(build(), some_probes(), termination())
    for ours, plain in zip(packed, way(model, some_probes(), termination()), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4)


def test_a_model_that_gives_nan_does_not_pass():
    model = build()
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    assert "nan nats" in self_check.obstacle(model)


def test_the_sampler_goes_the_plain_way_and_says_so(monkeypatch):
    settings = {"temperature": 1.0, "top_p": 1.0, "stop_ids": {1}, "seed": 0}
    prompts = [[5, 6, 7, 8], [5, 6, 9]]
    expected = TransformersSampler(build(), 0, 8).sample(prompts, 3, 8, **settings)
    monkeypatch.setattr(passes, "takes_custom_mask", lambda model: False)
    with pytest.warns(UserWarning, match="prefilled on its own"):
        plain = TransformersSampler(build(), 0, 8).sample(prompts, 3, 8, **settings)
    for one, other in zip(expected, plain, strict=True):
        assert [s.token_ids for s in one] == [s.token_ids for s in other]
