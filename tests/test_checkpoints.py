"""A run goes on from the newest checkpoint that is whole, and never trains a step too many."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mrtlib.config import Profile, load_profile
from mrtlib.models.loading import ADAPTER_FILES, HASHES, ModelError, load_policy
from mrtlib.schemas import SECONDS
from mrtlib.store import file_hashes, read_table
from mrtlib.training import checkpoints, runs
from mrtlib.training.trainer import MRTTrainer

METHOD = "episode_progress"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Profile, Path]:
    """The embedded reasoner after three steps, each saved; and the folder of runs."""
    smoke = load_profile("smoke")
    training = replace(smoke.training, tokens=10**6, most_steps=3, save_every=1)
    folder = tmp_path_factory.mktemp("trained")
    profile = replace(smoke, training=training)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRT_RUNS", str(folder))
        runs.train(profile, METHOD, 0)
    return profile, folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> tuple[Profile, Path]:
    """A copy of that run, and the folder of its adapter."""
    profile, folder = trained
    shutil.copytree(folder, tmp_path / "runs")
    monkeypatch.setenv("MRT_RUNS", str(tmp_path / "runs"))
    return profile, profile.runs / "adapters" / f"{METHOD}-0"


def outcome(folder: Path) -> tuple:
    """Return what a training leaves, but for the seconds it took."""
    steps = read_table(folder / "steps.parquet", "steps").drop(columns=[*SECONDS])
    assert steps["grad_norm"].max() > 0.01, "something was learned"
    return file_hashes([folder / file for file in ADAPTER_FILES], folder), steps.to_csv()


def work_of(folder: Path) -> Path:
    """Return the folder of a training's checkpoints."""
    return next(folder.parents[1].glob(f"checkpoints/{folder.name}-*"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "no mark": lambda folder: (folder / checkpoints.MARK).unlink(),
    "a cut mark": lambda folder: cut(folder / checkpoints.MARK),
    "a cut optimizer": lambda folder: cut(folder / "optimizer.pt"),
    "a flipped bit": lambda folder: flip(folder / "adapter_model.safetensors"),
    "a missing file": lambda folder: (folder / "scheduler.pt").unlink(),
    "an empty folder": lambda folder: [file.unlink() for file in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_is_taken(run, capsys, damage):
    work = work_of(run[1])
    assert checkpoints.newest(work) == work / "checkpoint-3"
    DAMAGES[damage](work / "checkpoint-3")
    assert checkpoints.newest(work) == work / "checkpoint-2"
    assert "checkpoint-3 is damaged or not whole: put aside" in capsys.readouterr().out
    assert (work / "damaged" / "checkpoint-3").is_dir()


def test_a_run_that_goes_on_from_the_checkpoint_before_ends_the_same(run, capsys):
    profile, folder = run
    whole = outcome(folder)
    cut(work_of(folder) / "checkpoint-3" / "optimizer.pt")
    (folder / runs.KEY).unlink()
    runs.train(profile, METHOD, 0)
    assert "step 1," not in capsys.readouterr().out
    assert outcome(folder) == whole


def test_a_run_with_no_whole_checkpoint_begins_anew(run, capsys):
    profile, folder = run
    whole = outcome(folder)
    for checkpoint in work_of(folder).glob("checkpoint-*"):
        cut(checkpoint / "trainer_state.json")
    (folder / runs.KEY).unlink()
    runs.train(profile, METHOD, 0)
    assert "step 1," in capsys.readouterr().out
    assert outcome(folder) == whole


@pytest.mark.parametrize("ended", ["by its steps", "by its tokens"])
def test_a_run_that_was_cut_behind_its_last_step_takes_no_further_one(run, monkeypatch, ended):
    profile, folder = run
    if ended == "by its tokens":
        short = replace(profile.training, tokens=100)
        profile = replace(profile, training=short)
        runs.train(profile, METHOD, 0)
    whole = outcome(folder)
    shutil.rmtree(folder)
    monkeypatch.setattr(MRTTrainer, "train", lambda *_, **__: pytest.fail("a step was taken"))
    assert runs.train(profile, METHOD, 0) == folder
    assert outcome(folder) == whole


def test_what_will_be_trained_is_said_before_it_is(run, capsys, monkeypatch):
    profile, folder = run
    asked = []
    monkeypatch.setattr(runs, "train", lambda _, method, seed: asked.append((method, seed)))
    runs.train_all(profile, [(METHOD, 0)], missing=False)
    assert capsys.readouterr().out == ""
    with pytest.raises(runs.TrainingError, match=rf"1 of 2 .* not there: {METHOD} seed 7"):
        runs.train_all(profile, [(METHOD, 0), (METHOD, 7)], missing=False)
    assert asked == [(METHOD, 0)]
    runs.train_all(profile, [(METHOD, 0), (METHOD, 7)])
    said = capsys.readouterr().out
    assert f"to be trained: {METHOD} seed 7; about 0 min" in said
    assert asked[1:] == [(METHOD, 0), (METHOD, 7)]


def test_a_damaged_adapter_is_put_aside_and_made_again(run, capsys):
    profile, folder = run
    whole = outcome(folder)
    flip(folder / ADAPTER_FILES[0])
    with pytest.raises(ModelError, match=f"damaged: its files differ from {HASHES}"):
        load_policy(profile, folder)
    runs.train(profile, METHOD, 0)
    assert "episode_progress-0 is damaged or not whole: put aside as" in capsys.readouterr().out
    assert outcome(folder) == whole


def test_an_adapter_of_other_settings_is_never_taken_for_one_of_these(run, monkeypatch):
    """Cut while a new adapter replaces an old one: the old key must not name the new weights."""
    profile, folder = run
    whole = outcome(folder)
    hotter = replace(profile, training=replace(profile.training, temperature=0.7))

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(runs, "write_table", full)
        runs.train(hotter, METHOD, 0)
    runs.train(profile, METHOD, 0)
    assert outcome(folder) == whole
