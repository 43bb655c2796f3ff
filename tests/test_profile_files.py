"""Profiles in TOML files: read, checked with the wrong line, and known by name afterwards."""

import json
from dataclasses import replace

import pytest

from mrtlib.config import PROFILES, ROOT, Profile, ProfileError, key_texts, load_profile
from mrtlib.config.files import KEPT, line_of, read_profile

MINE = """\
# A study of my own.
base = "r1-distill-1.5b"

[model]
name = "Qwen/Qwen3-0.6B"
quantization = "none"

[thinking]
budget = 4096
template.enable_thinking = true
system = "Think first."

[evaluation]
budgets = [2048, 4096]

[training]
learning_rate = 1e-6
methods = ["outcome", "regret_to_go"]

[training.kept]
"""
TEXT = MINE.replace("\n[training.kept]\n", "")


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path / "runs"))

    def make(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return make


def test_a_file_says_what_it_starts_from_and_what_it_changes(write):
    profile = load_profile(str(write(TEXT)))
    start = load_profile("r1-distill-1.5b")
    assert profile.name == "mine" and profile.model.name == "Qwen/Qwen3-0.6B"
    assert profile.thinking == replace(
        start.thinking, budget=4096, template={"enable_thinking": True}, system="Think first."
    )
    assert set(profile.training.learning_rate.values()) == {1e-6}
    assert profile.training.methods == ("outcome", "regret_to_go")
    assert profile.evaluation.budgets == (2048, 4096)
    assert profile.lora == start.lora and profile.data == start.data


def test_a_profile_that_was_read_once_is_known_by_its_name(write):
    profile = load_profile(str(write(TEXT)))
    assert load_profile("mine") == profile
    kept = profile.runs / KEPT
    text = kept.read_text(encoding="utf-8").replace('"budget": 4096', '"budget": "x"')
    kept.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match="thinking.budget = 'x'; it takes a whole number"):
        load_profile("mine")
    kept.write_text("{", encoding="utf-8")
    with pytest.raises(ProfileError, match="give the profile's TOML file once more"):
        load_profile("mine")
    with pytest.raises(ProfileError, match="unknown profile"):
        load_profile("../mine")


def test_one_rate_for_a_method_leaves_the_others(write):
    text = 'base = "tiny"\n[training.learning_rate]\noutcome = 1'
    rates = load_profile(str(write(text))).training.learning_rate
    assert rates["outcome"] == 1.0 and rates["regret_to_go"] == 3e-3


def test_paths_are_meant_from_the_file_or_from_the_repository(write, tmp_path):
    (tmp_path / "problems").mkdir()
    text = 'base = "tiny"\n[data]\nfolder = "problems"\n[model]\nname = "data/reasoner"'
    profile = load_profile(str(write(text)))
    assert profile.problems == (tmp_path / "problems").resolve()
    assert profile.model.name == "data/reasoner"
    assert profile.model_path == str(ROOT / "data/reasoner")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("budget = 3", None, "base = None; name the profile.* one of smoke, tiny"),
        ('base = "tinny"', 1, "base = 'tinny'; name the profile that this one starts from"),
        ('base = "tiny"\n\nname = "tiny"', 3, "name = 'tiny'; it names the folder"),
        ('base = "tiny"\nname = "../x"', 2, "letters, digits"),
        ('base = "tiny"\nbudget = 3', 2, r"'budget' is no table of a profile; there are \[data\]"),
        ('base = "tiny"\n[thinkin]\nbudget = 3', 2, "'thinkin' is no table"),
        ('base = "tiny"\n[thinking]\n# it\nbudgets = 3', 4, "no thinking.budgets; .* open_tag"),
        ('base = "tiny"\n[thinking]\nbudget = "3"', 3, "budget = '3'; it takes a whole number"),
        ('base = "tiny"\n[thinking]\nbudget = 3.5', 3, "budget = 3.5; it takes a whole number"),
        ('base = "tiny"\n[thinking]\nbudget = true', 3, "budget = True; it takes a whole number"),
        ('base = "tiny"\n[model]\ntwin = 1', 3, "twin = 1; it takes true or false"),
        ('base = "tiny"\n[data]\nlevels = "x"', 3, "levels = 'x'; it takes a list, each .* text"),
        ('base = "tiny"\n[data]\nlevels = [1]', 3, r"levels = \[1\]; it takes a text in quotes"),
        ('base = "tiny"\nthinking.budget = 0', 2, "thinking.budget is 0; it must be at least 1"),
        ('base = "tiny"\n[prover]\n[evaluation]\nbudgets = [9999]', 4, "between 1 and"),
        ('base = "tiny"\n[model]\nquantization = "int3"', 3, "choose from nf4, none"),
        ('base = "tiny"\n[training]\nlearning_rate = "x"', 3, "a table of names and values"),
        ("base = ", None, "is no TOML"),
        ('base = "tiny"\nbase = "tiny"', None, "is no TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(write, text, line, words):
    path = write(text)
    with pytest.raises(ProfileError, match=words) as caught:
        load_profile(str(path))
    assert str(caught.value).startswith(f"{path}, line {line}: " if line else str(path))
    assert not (path.parent / "runs").exists(), "nothing is kept of a profile that is wrong"


def test_a_file_that_cannot_be_read(write, tmp_path):
    with pytest.raises(ProfileError, match="cannot read the profile.*No such file"):
        load_profile(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes('# ü\nbase = "tiny"'.encode("latin-1"))
    with pytest.raises(ProfileError, match="not in UTF-8"):
        load_profile(str(tmp_path / "latin.toml"))
    assert load_profile(str(write("\ufeff" + 'base = "tiny"'))).name == "mine"


def test_a_runs_folder_that_cannot_be_written_is_named(write, tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(ProfileError, match="cannot write .*profile.json: .*MRT_RUNS"):
        load_profile(str(write(TEXT)))


def test_lines_of_keys():
    assert line_of(TEXT, ("thinking", "template")) == 10
    assert line_of(TEXT, ("training", "methods")) == 18
    assert line_of(TEXT, ("training", "none")) is None and line_of(TEXT, ()) is None


def test_what_a_file_can_say_is_what_the_dataclasses_have(write):
    """Every setting survives the way through a file, so that none is left out of them."""
    for name in PROFILES:
        profile = load_profile(name)
        lines = ['base = "smoke"']
        for part, values in json.loads(json.dumps(vars_of(profile))).items():
            lines += [f"[{part}]", *(f"{key} = {as_toml(value)}" for key, value in values.items())]
        read = read_profile(write("\n".join(lines), "all.toml"), PROFILES)
        rates = {**load_profile("smoke").training.learning_rate, **profile.training.learning_rate}
        training = replace(profile.training, learning_rate=rates)
        assert replace(read, name=name) == replace(profile, training=training)


def vars_of(profile: Profile) -> dict:
    return {part: vars(values) for part, values in vars(profile).items() if part != "name"}


def as_toml(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def test_new_settings_left_as_they_are_change_no_key():
    tiny = load_profile("tiny")
    other = replace(tiny, training=replace(tiny.training, report_to="tensorboard"))
    assert key_texts(other, "training") == key_texts(tiny, "training")
    assert "template" not in key_texts(tiny, "thinking")["thinking"]
    spoken = replace(tiny, thinking=replace(tiny.thinking, system="x", template={"a": 1}))
    assert "system='x', template={'a': 1}" in key_texts(spoken, "thinking")["thinking"]


def test_the_examples_are_sound(monkeypatch, tmp_path):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    names = {path.stem: load_profile(str(path)) for path in (ROOT / "data/profiles").glob("*.toml")}
    assert names.keys() == {"smollm2-cpu", "gpu-24gb", "gpu-80gb"}
    assert names["gpu-24gb"].thinking.budget == 4096
