"""Keys of records: what changes them, and that the committed records are found by them."""

import shutil
from dataclasses import fields, make_dataclass, replace
from pathlib import Path

import pytest
from transformers import LlamaConfig

from mrtlib import batch, config
from mrtlib.config import Profile, Training, key_texts, later, load_profile
from mrtlib.config.settings import COMMITTED
from mrtlib.evaluation import sweep
from mrtlib.models import loading
from mrtlib.models.loading import work_key
from mrtlib.store import read_json, write_json
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
        unused |= "place" in item.metadata  # what lies there is in a key, by its content
        assert (f"{item.name}={value!r}" in text) != unused


def test_weights_settings_and_content_change_a_key_and_the_place_of_weights_does_not(tmp_path):
    adapter = config.ROOT / "data" / "runs" / "tiny" / "adapters" / "outcome-0"
    key = work_key(TINY, "model prover", adapter, problems=["a"])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    (moved / "adapter_model.safetensors").write_bytes(weights)
    settings = read_json(adapter / "adapter_config.json")
    named = settings | {"base_model_name_or_path": "/elsewhere", "peft_version": "9"}
    named["target_modules"] = settings["target_modules"][::-1]
    write_json(moved / "adapter_config.json", named)
    assert work_key(TINY, "model prover", moved, problems=["a"]) == key
    write_json(moved / "adapter_config.json", settings | {"lora_alpha": 1})
    assert work_key(TINY, "model prover", moved, problems=["a"]) != key
    write_json(moved / "adapter_config.json", settings)
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


@pytest.fixture
def copied(tmp_path) -> Profile:
    """The smoke profile over copies of the embedded model and of the problems."""
    smoke = load_profile("smoke")
    shutil.copytree(config.ROOT / smoke.model.name, tmp_path / "model")
    shutil.copytree(config.ROOT / smoke.data.folder, tmp_path / "problems")
    return replace(
        smoke, model=replace(smoke.model, name=str(tmp_path / "model")),
        data=replace(smoke.data, folder=str(tmp_path / "problems")),
    )  # fmt: skip


def test_a_copy_of_model_and_problems_has_the_keys_of_the_original(copied):
    smoke = load_profile("smoke")
    assert work_key(copied, "model data") == work_key(smoke, "model data")
    assert training_key(copied, "outcome", 0) == training_key(smoke, "outcome", 0)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
             "config.json", "generation_config.json"],
)  # fmt: skip
def test_every_file_that_decides_what_a_model_does_is_in_the_key(copied, file):
    before = work_key(copied, "model"), training_key(copied, "outcome", 0)
    with open(f"{copied.model.name}/{file}", "ab") as stream:
        stream.write(b" ")
    after = work_key(copied, "model"), training_key(copied, "outcome", 0)
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_a_problem_file_that_a_run_does_not_read_changes_no_key_of_it(copied):
    before = batch._key(copied)
    shutil.copy(copied.problems / "larger.jsonl", copied.problems / "mine.jsonl")
    assert batch._key(copied) == before  # what is on record stays found
    for name in ("train", "validation", "test"):
        with open(copied.problems / f"{name}.jsonl", "ab") as stream:
            stream.write(b"\n")
        before, old = batch._key(copied), before
        assert before != old
    own = replace(copied, data=replace(copied.data, train_files=("train", "mine")))
    before = batch._key(own)
    shutil.copy(copied.problems / "five.jsonl", copied.problems / "mine.jsonl")
    assert batch._key(own) != before


@pytest.mark.parametrize("name", COMMITTED)
def test_the_manifest_of_a_committed_run_has_its_key(name):
    own = load_profile(name)
    assert read_json(own.runs / "manifest.json")["key"] == batch._key(own)


def test_a_budget_curriculum_is_in_the_keys_of_those_that_take_it():
    low = replace(TINY, training=replace(TINY.training, budgets=(0.5, 1.0)))
    same = [m for m in config.TRAINED_METHODS
            if training_key(low, m, 0) == training_key(TINY, m, 0)]  # fmt: skip
    assert same == ["budget_curriculum"]  # it has its own


def test_words_about_a_model_change_no_key(copied):
    before = work_key(copied, "model")
    for file in ("README.md", "training.json"):
        Path(copied.model.name, file).write_text("{}")
    assert work_key(copied, "model") == before


@pytest.mark.parametrize("split", ["train", "validation"])
def test_other_problems_of_the_same_ids_are_another_training(copied, split):
    before = training_key(copied, "outcome", 0)
    rewrite(copied, split)
    assert training_key(copied, "outcome", 0) != before


def test_other_problems_of_the_same_ids_are_measured_anew(copied, tmp_path, monkeypatch):
    """Keys held the ids alone, and a rewritten test set was answered with the old numbers."""
    monkeypatch.setenv("MRT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(sweep.Evaluator, "load", lambda *_: pytest.fail("measured"))
    asked, key = [], batch._key(copied)
    monkeypatch.setattr(sweep, "complete", lambda tables, keys, *_: asked.append(keys))
    sweep.evaluate(copied, "base", 0)
    sweep.evaluate(copied, "base", 0)
    rewrite(copied, "test")
    sweep.evaluate(copied, "base", 0)
    assert asked[0] == asked[1] and not set(asked[0]) & set(asked[2])
    assert batch._key(copied) != key


def test_another_commit_of_a_hub_model_is_another_key(monkeypatch):
    model = replace(TINY.model, name="someone/reasoner")
    remote = replace(TINY, model=model)
    keys = []
    for commit in ("a" * 40, "b" * 40):
        made = LlamaConfig()
        made._commit_hash = commit
        monkeypatch.setattr(loading, "fetch", lambda *_, made=made: made)
        keys.append(work_key(remote, "model"))
    assert keys[0] != keys[1]


def rewrite(profile: Profile, split: str) -> None:
    """Write other questions under the same ids."""
    path = profile.problems / f"{split}.jsonl"
    path.write_text(path.read_text().replace("Reach ", "Please reach "))


@pytest.mark.parametrize("method", TINY.training.methods)
def test_the_committed_adapters_are_found(method):
    """A plain new field in a settings class would fail here: declare it with `config.later`."""
    for seed in range(5):
        folder = config.ROOT / "data" / "runs" / "tiny" / "adapters" / f"{method}-{seed}"
        assert read_json(folder / "key.json") == training_key(TINY, method, seed)
