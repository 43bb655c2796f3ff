"""Training problems in several files, and those of which a group of the base has spread."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest

from mrtlib import __main__
from mrtlib.config import ProfileError, load_profile
from mrtlib.config.limits import check
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.experiments import spread
from mrtlib.tasks.problems import ProblemError, check_splits, load_problems, write_problems
from mrtlib.training.runs import training_key
from mrtlib.training.source import Source, training_problems
from mrtlib.training.trainer import MRTTrainer


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """The embedded model, with few training problems in a folder of its own."""
    base = load_profile("smoke")
    folder = tmp_path / "problems"
    folder.mkdir()
    for name in ("validation", "test"):
        shutil.copy(base.problems / f"{name}.jsonl", folder)
    write_problems(folder / "train.jsonl", load_problems(base.problems / "train.jsonl", 6))
    monkeypatch.setenv("MRT_RUNS", str(tmp_path / "runs"))
    return replace(base, data=replace(base.data, folder=str(folder), train=6),
                   evaluation=replace(base.evaluation, shard=4))  # fmt: skip


def trained_on(profile, *files):
    return replace(profile, data=replace(profile.data, train_files=files))


def test_training_problems_are_those_of_all_files(profile, tmp_path):
    more = load_problems(load_profile("smoke").problems / "larger.jsonl", 2)
    write_problems(profile.problems / "more.jsonl", more)
    both = trained_on(profile, "train", "more")
    train = load_problems(profile.problems / "train.jsonl")
    assert training_problems(profile) == train
    assert training_problems(both) == Source(both, 0).problems == train + more
    assert training_problems(trained_on(profile, "more")) == more
    assert MRTTrainer(both, "outcome", 0, tmp_path).source.problems == train + more
    keys = [training_key(own, "star", 0) for own in (profile, both, trained_on(profile, "more"))]
    write_problems(profile.problems / "more.jsonl", more[1:])  # what a file holds is in the key
    keys.append(training_key(both, "star", 0))
    assert len(set(keys)) == 4
    assert training_key(profile, "star", 0) == keys[0]  # of a file that is not trained on


def test_files_with_a_problem_in_common_or_missing_are_refused(profile):
    shutil.copy(profile.problems / "train.jsonl", profile.problems / "again.jsonl")
    with pytest.raises(ProblemError, match=r"again.jsonl has 12 problem\(s\) of the files before"):
        training_problems(trained_on(profile, "train", "again"))
    with pytest.raises(ProblemError, match="no problem file"):
        training_problems(trained_on(profile, "nothing"))
    with pytest.raises(ProfileError, match="data.train_files is empty"):
        check(trained_on(profile))
    train = load_problems(profile.problems / "train.jsonl")
    write_problems(profile.problems / "renamed.jsonl", [replace(train[3], id="other")])
    with pytest.raises(ProblemError, match="'other' first"):
        training_problems(trained_on(profile, "train", "renamed"))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_held_out_is_not_trained_on(profile, split):
    held = load_problems(profile.problems / f"{split}.jsonl")
    write_problems(profile.problems / "mine.jsonl", [replace(held[2], id="mine")])
    with pytest.raises(ProblemError, match=f"1 problem.* of {split}.jsonl are trained on"):
        training_problems(trained_on(profile, "train", "mine"))


def test_training_files_together_have_the_levels_that_are_asked(profile):
    train = load_problems(profile.problems / "train.jsonl")
    write_problems(profile.problems / "hard.jsonl", [p for p in train if p.level == "four"])
    write_problems(profile.problems / "five.jsonl", [replace(train[0], level="five")])
    check_splits(profile.problems, ["train"])
    with pytest.raises(ProblemError, match="hard.jsonl has none of three"):
        check_splits(profile.problems, ["hard"])
    with pytest.raises(ProblemError, match="hard and five.jsonl has none of three"):
        check_splits(profile.problems, ["hard", "five"])
    check_splits(profile.problems, ["hard", "train", "five"])  # five is learned beside


def test_problems_with_spread_are_those_whose_groups_are_neither_all_right_nor_all_wrong(
    profile, capsys
):
    own = spread.as_in_training(profile)
    assert own.evaluation.samples == profile.training.group_size
    assert own.evaluation.temperature == profile.training.temperature
    evaluator = Evaluator.load(own, "base", 3, None)
    problems = load_problems(profile.problems / "train.jsonl")
    right = {}
    for start in range(0, len(problems), 4):  # part by part, as rollouts depend on their part
        for group in evaluator.rollouts(problems[start : start + 4]):
            right[group[0].problem.id] = [r.grade.correct for r in group]
    want = [p for p in problems if any(right[p.id]) and not all(right[p.id])]
    assert 0 < len(want) < len(problems)
    assert spread.with_spread(profile, 3) == want
    assert "part 3 of 3" in capsys.readouterr().out
    assert spread.with_spread(profile, 3) == want
    assert "part" not in capsys.readouterr().out  # it is read


def test_the_command_writes_a_file_that_can_be_trained_on(profile, monkeypatch, capsys):
    monkeypatch.setattr(__main__, "load_profile", lambda name: profile)
    command = "problems {} spread --profile smoke --name mine {}"
    assert __main__.main(command.format("", "--seed 3").split()) == 0
    assert "problems of level" in capsys.readouterr().out
    mine = trained_on(profile, "mine")
    assert training_problems(mine) == spread.with_spread(profile, 3)
    assert __main__.main(command.format("--seed 3", "").split()) == 0  # the same again
    assert __main__.main(command.format("", "--seed 4").split()) == 2
    assert "is there with other problems" in capsys.readouterr().err
    assert training_problems(mine) == spread.with_spread(profile, 3)


def test_no_file_is_written_where_no_group_has_spread(profile, monkeypatch):
    monkeypatch.setattr(spread, "shares_right", lambda *_: dict.fromkeys(
        [p.id for p in load_problems(profile.problems / "train.jsonl")], 1.0))  # fmt: skip
    with pytest.raises(ProblemError, match="is the base right in some"):
        spread.write_with_spread(profile, 0, "mine")
    assert not (profile.problems / "mine.jsonl").exists()


@pytest.mark.parametrize("name", ["no/such", "../outside", "", ".hidden", "test", "train"])
def test_a_name_is_checked_before_anything_is_sampled(name, monkeypatch):
    monkeypatch.setattr(spread, "with_spread", lambda *_: pytest.fail("sampled"))
    with pytest.raises(ProblemError, match="cannot be the name"):
        spread.write_with_spread(load_profile("smoke"), 0, name)


def test_the_committed_problems_with_spread_are_training_problems_of_both_levels():
    folder = load_profile("study").problems
    train = {p.id: p for p in load_problems(folder / "train.jsonl")}
    chosen = load_problems(folder / "spread.jsonl")
    assert all(train[p.id] == p for p in chosen)
    counts = Counter(p.level for p in chosen)
    assert 0 < counts["four"] < counts["three"] < 1500
