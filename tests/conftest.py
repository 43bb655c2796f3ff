"""Shared fixtures: one thread, no network, and a random two-layer Llama in a folder."""

import os

# Before torch is imported: on few cores, more threads cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mrtlib.config import ROOT, TRAINED_METHODS, Lora, Model, Profile, load_profile


@pytest.fixture(scope="session")
def records() -> Path:
    """The folder of the committed run, wherever MRT_RUNS has this machine's runs."""
    return ROOT / "data" / "runs" / "tiny"


@pytest.fixture(scope="session")
def toy_tokenizer():
    """The embedded reasoner's own word-level tokenizer, built anew."""
    from mrtlib.reasoner.lessons import build_tokenizer

    return build_tokenizer()


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory, toy_tokenizer) -> Path:
    """A folder with a random Llama (width 64, two layers, context 256) and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("toy")
    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=len(toy_tokenizer), max_position_embeddings=256,
        pad_token_id=toy_tokenizer.pad_token_id, eos_token_id=toy_tokenizer.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    toy_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def toy_profile(toy_folder) -> Callable[..., Profile]:
    """Make the smoke profile over the toy model: `toy_profile("nf4", "bfloat16")`."""

    def make(quantization: str = "none", dtype: str = "float32") -> Profile:
        model = Model(str(toy_folder), quantization, dtype)
        return replace(load_profile("smoke"), model=model)

    return make


@pytest.fixture
def short_training(toy_profile, tmp_path, monkeypatch) -> Profile:
    """A few steps on the toy model, in 4 bits, written to a temporary folder."""
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    base = toy_profile("nf4")
    return replace(
        base,
        lora=Lora(rank=4, alpha=8),
        thinking=replace(base.thinking, budget=40, answer_tokens=8, min_paragraphs=1,
                         segmenter="tokens", episode_tokens=10),
        training=replace(base.training, tokens=10**6, most_steps=2, problems_per_step=2,
                         group_size=4, micro_batch=4, learning_rate=dict.fromkeys(
                             TRAINED_METHODS, 1e-2)),
    )  # fmt: skip
