"""A twin in bfloat16: tried before it is used, and what was found is said and kept."""

from dataclasses import replace

import pytest
import torch

from mrtlib.models import precision
from mrtlib.models.loading import add_lora, load_base
from mrtlib.store import read_json


@pytest.fixture
def profile(toy_profile):
    base = toy_profile()
    return replace(base, model=replace(base.model, twin_dtype="bfloat16"))


def made(profile, record):
    policy = add_lora(load_base(profile), profile.lora, seed=0)
    return precision.twin_of(policy, profile, record)


def test_the_twin_is_in_bfloat16_where_the_hardware_is(profile, tmp_path, monkeypatch, capsys):
    record = tmp_path / "precision.json"
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)
    assert made(profile, record).model.dtype == torch.bfloat16
    found = read_json(record)
    assert found["used"] == "bfloat16" and found["cause"] == "" and 0 < found["error"] < 0.05
    assert "twin in bfloat16, at most 0.0" in capsys.readouterr().out
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: False)
    assert made(profile, record).model.dtype == torch.float32
    assert read_json(record)["used"] == "float32" and read_json(record)["error"] is None
    assert "does not compute in bfloat16" in capsys.readouterr().out


def test_a_twin_that_is_too_far_is_not_used(profile, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)
    monkeypatch.setattr(precision, "ALLOWED_SHORT", 1e-9)
    assert made(profile, tmp_path / "precision.json").model.dtype == torch.float32
    assert "not allowed" in read_json(tmp_path / "precision.json")["cause"]


def test_nothing_is_tried_or_written_where_nothing_else_is_asked(toy_profile, tmp_path, capsys):
    assert made(toy_profile(), tmp_path / "precision.json").model.dtype == torch.float32
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_the_hardware_is_asked_for_either_instruction(monkeypatch):
    cpu = torch.device("cpu")
    for able, expected in (({"amx_bf16": True}, True), ({"avx512_bf16": True}, True),
                           ({"avx512_f": True}, False), ({}, False)):  # fmt: skip
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert precision.computes_bfloat16(cpu) is expected
