"""The 4-bit base, its adapters and the tokenizer, on a random two-layer Llama."""

import os
from dataclasses import replace

import bitsandbytes.nn.modules as bnb_modules
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers import GPT2Config, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.trainer_utils import set_seed

from mrtlib.config import ROOT, Lora, Model, Thinking
from mrtlib.models import loading, quantization, tokens
from mrtlib.models.quantization import ModelError
from mrtlib.store import read_json

LORA = Lora(rank=4, alpha=8)
IDS = torch.arange(10, 34).reshape(2, 12)


def trained(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in policy.named_parameters() if p.requires_grad}


def gradients(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    policy.train().zero_grad()
    policy(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad.clone() for name, p in trained(policy).items() if p.grad is not None}


def disturb(policy: torch.nn.Module) -> None:
    """Move the adapters off B = 0, where they would change nothing."""
    generator = torch.Generator().manual_seed(3)
    for parameter in trained(policy).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


# --- tokenizer -------------------------------------------------------------------------------


def test_tokenizer_pads_left_and_knows_the_think_tags(toy_profile):
    profile = toy_profile()
    tokenizer = tokens.load_tokenizer(profile)
    opened, closed = tokens.think_ids(tokenizer, profile.thinking)
    assert tokenizer.decode(opened) == "<think>" and tokenizer.decode(closed) == "</think>"
    assert tokenizer.padding_side == "left" and tokenizer.pad_token_id is not None


def test_a_tokenizer_splits_text_by_its_own_file_whatever_the_architecture(
    toy_profile, toy_tokenizer, tmp_path
):
    """For Qwen2, AutoTokenizer takes that model's class and would lose words and spaces."""
    Qwen2Config(hidden_size=64).save_pretrained(tmp_path)
    toy_tokenizer.save_pretrained(tmp_path)
    profile = replace(toy_profile(), model=Model(str(tmp_path)))
    text = "Wait, 3 * 5 = 15.\n\nThe answer is \\boxed{3 * 5}"
    found = tokens.load_tokenizer(profile).encode(text, add_special_tokens=False)
    assert found == toy_tokenizer.encode(text, add_special_tokens=False)


def test_a_tokenizer_without_the_think_tags_is_refused(toy_profile):
    profile = toy_profile()
    thinking = replace(profile.thinking, close_tag="</reason>")
    with pytest.raises(ModelError, match="cannot write the think tag '</reason>'; name"):
        tokens.load_tokenizer(replace(profile, thinking=thinking))


@pytest.mark.parametrize(
    ("field", "says"), [("chat_template", "chat template"), ("eos_token", "end-of-text token")]
)
def test_a_tokenizer_without_template_or_end_is_refused(toy_profile, monkeypatch, field, says):
    real = PreTrainedTokenizerFast.from_pretrained

    def without(*args, **options):
        tokenizer = real(*args, **options)
        setattr(tokenizer, field, None)
        return tokenizer

    monkeypatch.setattr(PreTrainedTokenizerFast, "from_pretrained", without)
    with pytest.raises(ModelError, match=f"has no {says}"):
        tokens.load_tokenizer(toy_profile())


@pytest.mark.parametrize("ending", ["<think>\n", "<think>", ""])
def test_a_prompt_ends_with_one_open_tag_whatever_the_template(toy_tokenizer, ending):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=toy_tokenizer.backend_tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}\n" + ending
    thinking = Thinking(instruction=" user")
    ids = tokens.prompt_ids(tokenizer, "Reach 22 with 3, 5, 7.", thinking)
    opened, _ = tokens.think_ids(tokenizer, thinking)
    assert isinstance(ids, list) and ids.count(opened[0]) == 1
    text = tokenizer.decode(ids)
    assert text.startswith("Reach 22 with 3, 5, 7. user")
    assert text.rstrip().endswith("<think>")


def test_the_context_is_checked_to_the_token():
    config = LlamaConfig(max_position_embeddings=100)
    loading.check_context(config, prompt_tokens=60, new_tokens=40)
    with pytest.raises(ModelError, match="context of 100; lower thinking.budget"):
        loading.check_context(config, prompt_tokens=61, new_tokens=40)


def test_plain_rotary_positions_can_be_read_beyond_the_context_and_no_others(capsys):
    config = LlamaConfig(max_position_embeddings=100)
    loading.let_read(config, 100)
    assert capsys.readouterr().out == ""
    loading.let_read(config, 120)
    assert "positions from 100 to 120" in capsys.readouterr().out
    loading.check_context(config, prompt_tokens=80, new_tokens=40)
    scaled = LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    for other in (scaled, GPT2Config()):
        with pytest.raises(ModelError, match="plain rotary positions"):
            loading.let_read(other, 2048)


# --- base ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nf4_doubles_quantisation_and_computes_in_the_profile_type(toy_profile, dtype):
    model = loading.load_base(toy_profile("nf4", dtype))
    layers = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
    assert len(layers) == 2 * 7
    for layer in layers:
        state = layer.weight.quant_state
        assert (state.quant_type, state.nested) == ("nf4", True)
        assert layer.compute_dtype == loading.DTYPES[dtype]
    floating = {p.dtype for p in model.parameters() if p.is_floating_point()}
    assert floating == {loading.DTYPES[dtype]}
    assert not model.training and not trained(model)


def test_four_bits_stay_near_the_full_weights(toy_profile):
    full, four = (logits(loading.load_base(toy_profile(q))) for q in ("none", "nf4"))
    error = (full - four).norm() / full.norm()
    assert 0 < error < 0.3


def test_full_weights_are_loaded_unchanged(toy_profile):
    model = loading.load_base(toy_profile("none", "bfloat16"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(isinstance(layer, Linear4bit) for layer in model.modules())


def test_a_model_that_is_not_there_says_so(toy_profile, tmp_path):
    profile = toy_profile()
    profile = replace(profile, model=replace(profile.model, name=str(tmp_path)))
    for load in (loading.load_base, tokens.load_tokenizer):
        with pytest.raises(ModelError, match="neither a whole model folder"):
            load(profile)


def test_an_unknown_dtype_is_refused(toy_profile):
    with pytest.raises(ModelError, match="dtype 'float8' is not known"):
        loading.load_base(toy_profile("none", "float8"))


@pytest.mark.parametrize(
    ("sizes", "named"),
    [({"hidden_size": 96, "num_attention_heads": 4}, "hidden_size = 96"),
     ({"hidden_size": 64, "intermediate_size": 100}, "intermediate_size = 100"),
     ({"hidden_size": 64, "num_attention_heads": 4, "head_dim": 24}, "head_dim = 96")],
)  # fmt: skip
def test_sizes_that_four_bits_cannot_hold_are_refused_before_loading(tmp_path, toy_profile, sizes,
                                                                     named):  # fmt: skip
    config = LlamaConfig(**({"intermediate_size": 128, "num_hidden_layers": 1} | sizes))
    with pytest.raises(ModelError, match=f"{named} is not a multiple of 64"):
        quantization.check_4bit_dimensions(config)
    config.save_pretrained(tmp_path)  # no weights: loading them would fail in another way
    profile = toy_profile("nf4")
    with pytest.raises(ModelError, match="not a multiple of 64"):
        loading.load_base(replace(profile, model=replace(profile.model, name=str(tmp_path))))


# --- the guard -------------------------------------------------------------------------------


@pytest.fixture
def avx512bf16(monkeypatch):
    """Have bitsandbytes believe in a CPU with AVX512-BF16, on which it re-packs layers."""
    monkeypatch.setattr(bnb_modules, "has_avx512bf16", lambda: True)


def test_guard_keeps_adapter_gradients_after_an_evaluation(toy_profile, avx512bf16):
    policy = loading.add_lora(loading.load_base(toy_profile("nf4")), LORA, seed=0)
    layers = [layer for layer in policy.modules() if isinstance(layer, Linear4bit)]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    disturb(policy)
    before = gradients(policy)
    logits(policy)
    quantization.assert_unpacked(policy)
    after = gradients(policy)
    assert len(before) == 2 * 7 * 2
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_without_the_guard_the_layers_are_packed_and_that_is_noticed(toy_profile, avx512bf16):
    model = loading.load_base(toy_profile("nf4"), guard=False)
    layer = model.model.layers[0].mlp.up_proj
    original = layer.forward
    with torch.no_grad():
        try:
            original(torch.zeros(1, 64))  # re-packs, then needs instructions that may be absent
        except (RuntimeError, AttributeError, NotImplementedError):
            assert not bnb_modules.lib.has_avx512bf16_cpu()
    with pytest.raises(ModelError, match="1 4-bit layers are packed"):
        quantization.assert_unpacked(model)


# --- adapters --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_alone_learn_and_in_float32(toy_profile, dtype):
    base = loading.load_base(toy_profile("nf4", dtype))
    policy = loading.add_lora(base, LORA, seed=0)
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained(policy).items())
    frozen = {n: p.clone() for n, p in policy.named_parameters() if not p.requires_grad}
    optimiser = torch.optim.SGD(trained(policy).values(), lr=0.5)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = policy.train()(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in trained(policy).values())
    assert all(torch.equal(p, frozen[n]) for n, p in policy.named_parameters() if n in frozen)


def test_fresh_adapters_change_nothing(toy_profile):
    model = loading.load_base(toy_profile("nf4"))
    before = logits(model)
    assert torch.equal(logits(loading.add_lora(model, LORA, seed=0)), before)


def test_the_seed_alone_decides_the_adapters(toy_profile):
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        return trained(loading.add_lora(loading.load_base(toy_profile("nf4")), LORA, seed))

    set_seed(1)
    state = torch.get_rng_state()
    first, other = drawn(0), drawn(1)
    set_seed(2)
    again = drawn(0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)
    set_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_adding_adapters_leaves_the_random_state_alone(toy_profile):
    model = loading.load_base(toy_profile("none"))
    state = torch.get_rng_state()
    loading.add_lora(model, LORA, seed=5)
    assert torch.equal(torch.get_rng_state(), state)


def test_adapters_that_cannot_be_added_are_refused(toy_profile):
    model = loading.load_base(toy_profile("none"))
    with pytest.raises(ModelError, match="no layers qkv_proj; change lora.targets"):
        loading.add_lora(model, replace(LORA, targets=("q_proj", "qkv_proj")), seed=0)
    policy = loading.add_lora(model, LORA, seed=0)
    with pytest.raises(ModelError, match="already carries adapters"):
        loading.add_lora(policy, LORA, seed=0)


@pytest.mark.parametrize(
    ("quantization", "dtype"), [("nf4", "float32"), ("nf4", "bfloat16"), ("none", "bfloat16")]
)
def test_a_saved_adapter_gives_the_same_outputs(toy_profile, tmp_path, quantization, dtype):
    profile = toy_profile(quantization, dtype)
    policy = loading.add_lora(loading.load_base(profile), LORA, seed=0)
    disturb(policy)
    before = logits(policy)
    loading.save_adapter(policy, tmp_path / "adapter")
    loaded = loading.load_policy(profile, tmp_path / "adapter")
    assert torch.equal(logits(loaded), before)
    assert not torch.equal(logits(loading.load_policy(profile)), before)
    assert not trained(loaded) and not loaded.training


def test_a_saved_adapter_holds_no_pickle_and_no_path(toy_profile, tmp_path):
    folder = tmp_path / "adapter"
    policy = loading.add_lora(loading.load_base(toy_profile("nf4")), LORA, seed=0)
    for base, written in ((ROOT / "data" / "reasoner", "data/reasoner"), ("/far/model", "model"),
                          ("owner/model", "owner/model")):  # fmt: skip
        policy.peft_config["default"].base_model_name_or_path = str(base)
        loading.save_adapter(policy, folder)
        assert sorted(os.listdir(folder)) == sorted((*loading.ADAPTER_FILES, loading.HASHES))
        settings = read_json(folder / "adapter_config.json")
        assert settings["base_model_name_or_path"] == written


def test_what_a_killed_run_left_beside_an_adapter_is_cleared_up(toy_profile, tmp_path):
    stray = tmp_path / f"{loading.SAVING}abc"
    stray.mkdir()
    (stray / "README.md").write_text("half")
    loading.save_adapter(loading.add_lora(loading.load_base(toy_profile()), LORA, 0), tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted((*loading.ADAPTER_FILES, loading.HASHES))


def test_an_unusable_adapter_is_explained(toy_profile, tmp_path):
    profile = toy_profile("none")
    with pytest.raises(ModelError, match="holds no adapter_model.safetensors"):
        loading.load_policy(profile, tmp_path)
    loading.save_adapter(loading.add_lora(loading.load_base(profile), LORA, seed=0), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="is damaged"):
        loading.load_policy(profile, tmp_path)
    (tmp_path / loading.HASHES).unlink()
    with pytest.raises(ModelError, match="does not fit"):
        loading.load_policy(profile, tmp_path)
