"""An exported adapter or model: plain peft and transformers load it, and it does what ours does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mrtlib import __main__
from mrtlib.config import ROOT, load_profile
from mrtlib.experiments import export as leaving
from mrtlib.models.loading import load_policy

TINY = load_profile("tiny")
TEXT = "First, 7 + 5 = 12."


def logits(model, tokenizer) -> torch.Tensor:
    ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        return model(ids).logits.float()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "adapter"
    return leaving.export(TINY, "regret_to_go", 0, folder)


def test_plain_peft_loads_the_adapter_onto_the_base_that_it_names(adapter):
    from peft import AutoPeftModelForCausalLM

    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(ROOT / "data" / "reasoner")
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    plain = replace(TINY, model=replace(TINY.model, quantization="none"))
    ours = load_policy(plain, TINY.runs / "adapters" / "regret_to_go-0")
    theirs = AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32)
    torch.testing.assert_close(logits(theirs, tokenizer), logits(ours, tokenizer))
    words = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert "x" in words


def test_the_merged_model_is_the_base_with_the_adapter_in_16_bits(tmp_path):
    folder = leaving.export(TINY, "regret_to_go", 0, tmp_path / "whole", merged=True)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    assert whole.dtype == torch.bfloat16 and not list(folder.glob("adapter*"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = replace(TINY, model=replace(TINY.model, quantization="none"))
    ours = load_policy(plain, TINY.runs / "adapters" / "regret_to_go-0")
    got, wanted = (logits(m, tokenizer).softmax(-1) for m in (whole.float(), ours))
    assert (got - wanted).abs().max() < 0.02


def test_the_card_has_the_results_and_the_command(adapter):
    words = (adapter / "README.md").read_text(encoding="utf-8")
    assert "python -m mrtlib train --profile tiny --method regret_to_go --seed 0" in words
    assert "| outcome RL |" in words and "base_model: data/reasoner" in words
    assert "C0 | 224 tokens" in words


def test_a_hub_model_keeps_its_name_and_revision(adapter, tmp_path):
    remote = replace(TINY, model=replace(TINY.model, name="owner/model", revision="abc"))
    source = TINY.runs / "adapters" / "regret_to_go-0"
    leaving._write_adapter(remote, source, tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("owner/model", "abc")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("--method outcome --seed 77 NEW", "no adapter of these settings"),
        ("--method magic NEW", "unknown method"),
        ("--method outcome FULL", "is there already; name a new folder"),
    ],
)
def test_mistakes(command, says, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    words = command.replace("NEW", str(tmp_path / "new")).replace("FULL", str(tmp_path / "full"))
    assert __main__.main(["export", *words.split()]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_nothing_is_pushed_by_nobody(adapter, monkeypatch):
    monkeypatch.setattr(leaving, "get_token", lambda: None)
    with pytest.raises(leaving.ExportError, match="hf auth login"):
        leaving.push(adapter, "me/model")
    monkeypatch.setattr(leaving, "get_token", lambda: "x")
    with pytest.raises(leaving.ExportError, match="cannot be reached.*is written"):
        leaving.push(adapter, "me/model")
