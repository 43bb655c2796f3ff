"""Profiles are checked before anything runs."""

import json
from dataclasses import replace

import pytest

from mrtlib.config import PROFILES, ROOT, ProfileError, as_json, check, key_texts, load_profile


def test_every_profile_is_sound_and_readable_as_json():
    for name in PROFILES:
        profile = load_profile(name)
        assert profile.name == name
        assert json.loads(as_json(profile))["thinking"]["budget"] == profile.thinking.budget


def test_an_unknown_profile_is_named_with_the_choices():
    with pytest.raises(ProfileError, match="unknown profile 'tinny'; choose one of smoke, tiny"):
        load_profile("tinny")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("training", {"methods": ("magic",)}, "methods: 'magic' is not known; choose from outcome"),
        ("training", {"learning_rate": {}}, "no learning rate"),
        ("training", {"group_size": 1}, "at least 2"),
        ("training", {"micro_batch": 7}, "micro_batch must divide"),
        ("evaluation", {"budgets": (0, 10)}, "budgets is 0; it must be at least 1"),
        ("evaluation", {"budgets": (10, 10_000)}, "between 1 and C0"),
        ("evaluation", {"samples": 3}, "at least 4"),
        ("thinking", {"budget": 0}, "at least 1"),
        ("training", {"watch_every": 0}, "at least 1"),
        ("model", {"quantization": "int3"}, "choose from nf4, none"),
        ("training", {"learning_rate": {"outcome": float("nan")}}, "rate is nan; it must be"),
        ("evaluation", {"top_p": 1.5}, "at least 0.001 and at most 1"),
        ("data", {"levels": ()}, "data.levels is empty"),
        ("training", {"max_grad_norm": float("inf")}, "is inf; it must be at least 1e-06 and fini"),
        ("training", {"seeds": (0, 1, 0)}, "training.seeds has 0 twice"),
        ("training", {"methods": ("outcome", "star", "outcome")}, "has 'outcome' twice"),
        ("evaluation", {"budgets": (112, 224, 224)}, "budgets has 224 twice"),
        ("model", {"engine": "server"}, "needs addresses in model.servers"),
        ("model", {"servers": ("localhost:8000",)}, "'localhost:8000' is no address"),
        ("training", {"report_to": "wandb"}, "pip install wandb"),
    ],
)
def test_contradictions_are_errors(part, change, message):
    profile = load_profile("tiny")
    with pytest.raises(ProfileError, match=message):
        check(replace(profile, **{part: replace(getattr(profile, part), **change)}))


def test_a_run_elsewhere_leaves_the_figures_of_the_repository_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("MRT_RUNS", raising=False)
    assert load_profile("tiny").figures == ROOT / "figures"
    assert load_profile("smoke").figures == ROOT / "data" / "runs" / "smoke" / "figures"
    monkeypatch.setenv("MRT_RUNS", str(ROOT / "data" / "runs"))  # as a batch run says it
    assert load_profile("tiny").figures == ROOT / "figures"
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    assert load_profile("tiny").figures == tmp_path / "tiny" / "figures"


def test_methods_must_be_measured_where_they_are_compared():
    profile = load_profile("tiny")
    longer = replace(profile, thinking=replace(profile.thinking, budget=300))
    with pytest.raises(ProfileError, match="budgets lacks 150 and 300"):
        check(longer)


def test_a_key_does_not_hang_on_the_order_of_a_table():
    profile = load_profile("tiny")
    one, other = (replace(profile.thinking, template=dict(pairs))
                  for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))  # fmt: skip
    assert key_texts(replace(profile, thinking=one), "thinking") == key_texts(
        replace(profile, thinking=other), "thinking")  # fmt: skip
