"""Keys of records: what changes them, and that the committed records are found by them."""

from dataclasses import fields, make_dataclass, replace

import pytest

from mrtlib import config
from mrtlib.config import Training, key_texts, later, load_profile
from mrtlib.models.loading import weights_of, work_key
from mrtlib.store import read_json
from mrtlib.training.runs import training_key

TINY = load_profile("tiny")


def test_a_setting_that_came_later_changes_no_key_until_it_is_used():
    more = make_dataclass(
        "More", [("decay", float, later(0.0, before=0.0))], bases=(Training,), frozen=True
    )
    plain, used = (replace(TINY, training=more(decay=decay)) for decay in (0.0, 0.1))
    assert key_texts(plain, "training") == key_texts(TINY, "training")
    assert "decay=0.1" in key_texts(used, "training")["training"]
    # Another default is another run, whatever it was when the setting came.
    bold = make_dataclass(
        "Bold", [("decay", float, later(0.2, before=0.0))], bases=(Training,), frozen=True
    )
    assert "decay=0.2" in key_texts(replace(TINY, training=bold()), "training")["training"]


def test_a_setting_that_is_gone_is_still_named():
    assert "extensions=4, bootstrap=2000, batch_rows=128" in key_texts(TINY, "evaluation")[
        "evaluation"
    ]


@pytest.mark.parametrize("part", ["model", "lora", "thinking", "data", "prover", "evaluation"])
def test_every_setting_of_a_part_is_in_its_text(part):
    settings, text = getattr(TINY, part), key_texts(TINY, part)[part]
    for item in fields(settings):
        value = getattr(settings, item.name)
        unused = item.metadata.get("before", ...) == value  # a later setting that changes nothing
        assert (f"{item.name}={value!r}" in text) != unused


def test_weights_settings_and_content_change_a_key_and_the_place_of_weights_does_not(tmp_path):
    adapter = config.ROOT / "data" / "runs" / "tiny" / "adapters" / "outcome-0"
    key = work_key(TINY, "model prover", adapter, problems=["a"])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    (moved / "adapter_model.safetensors").write_bytes(weights)
    assert work_key(TINY, "model prover", moved, problems=["a"]) == key
    (moved / "adapter_model.safetensors").write_bytes(weights + b"0")
    other = replace(TINY, prover=replace(TINY.prover, samples=9))
    keys = {
        key,
        work_key(TINY, "model prover", moved, problems=["a"]),
        work_key(TINY, "model prover", None, problems=["a"]),
        work_key(TINY, "model prover", adapter, problems=["b"]),
        work_key(other, "model prover", adapter, problems=["a"]),
    }
    assert len(keys) == 5
    assert set(weights_of(TINY, adapter)) == {"model.safetensors", "adapter_model.safetensors"}


@pytest.mark.parametrize("method", TINY.training.methods)
def test_the_committed_adapters_are_found(method):
    """A plain new field in a settings class would fail here: declare it with `config.later`."""
    for seed in range(5):
        folder = config.ROOT / "data" / "runs" / "tiny" / "adapters" / f"{method}-{seed}"
        assert read_json(folder / "key.json") == training_key(TINY, method, seed)
