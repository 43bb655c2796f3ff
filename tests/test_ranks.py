"""Several processes that train one model compute what one does; a killed one ends them all."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file

from mrtlib.config import ROOT, ProfileError, Training
from mrtlib.models import loading
from mrtlib.store import read_table
from mrtlib.training.grpo import own_rows
from mrtlib.training.ranks import Ranks

TEXT = """
base = "smoke"
[thinking]
budget = 96
[training]
tokens = 3500
most_steps = 9
problems_per_step = 4
group_size = 4
micro_batch = 4
validate_every = 9
refresh_every = 2
save_every = 1
[evaluation]
budgets = [48, 96]
"""
ONE = [sys.executable]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture
def profile(tmp_path):
    """Steps on the embedded reasoner: a random model's draws would hang on the last digit."""
    path = tmp_path / "ranks.toml"
    path.write_text(TEXT)
    return path


def start(command, profile, runs, method) -> subprocess.Popen:
    environment = {**os.environ, "MRT_RUNS": str(runs), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, "-m", "mrtlib", "train", "--profile", str(profile), "--method", method],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(run) -> str:
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    return said


def left(runs, method):
    folder = runs / "ranks" / "adapters" / f"{method}-0"
    return load_file(folder / "adapter_model.safetensors"), read_table(
        folder / "steps.parquet", "steps"
    )


def same(first, second) -> None:
    """Compare adapters, and what the logs say of the rollouts."""
    (one, steps), (other, those) = first, second
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5
    assert max(float(one[name].abs().max()) for name in one if "lora_B" in name) > 1e-3
    for name in ("reward", "length", "episodes", "generated_tokens", "truncated", "validation"):
        assert steps[name].equals(those[name]), name
    for name in ("progress", "regret", "grad_norm", "credit_square", "validation_regret"):
        assert np.allclose(steps[name].astype(float), those[name].astype(float), rtol=1e-4,
                           equal_nan=True), name  # fmt: skip


def test_two_processes_equal_one(profile, tmp_path):
    alone = start(ONE, profile, tmp_path / "one", "regret_to_go")
    said = [finish(alone), finish(start(TWO, profile, tmp_path / "two", "regret_to_go"))]
    same(*(left(tmp_path / name, "regret_to_go") for name in ("one", "two")))
    lines = [[line for line in text.splitlines() if "step 1," in line] for text in said]
    assert len(lines[1]) == len(lines[0]) == 1  # one process speaks
    steps = left(tmp_path / "two", "regret_to_go")[1]
    assert 2 < len(steps) < 9 and steps["validation"].notna().tolist().index(True) == len(steps) - 1
    assert steps["generated_tokens"].iloc[-2] < 3500 <= steps["generated_tokens"].iloc[-1]


def children(run) -> dict[str, int]:
    """Return the processes of a launcher by their rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if parent == str(run.pid):
            found |= {w.removeprefix("RANK="): int(folder.name)
                      for w in words if w.startswith("RANK=")}  # fmt: skip
    return found


def test_a_killed_process_ends_the_others_and_the_run_goes_on(profile, tmp_path):
    profile.write_text(profile.read_text().replace("tokens = 3500", "tokens = 6000"))
    run, runs = start(TWO, profile, tmp_path / "two", "mixed_group"), tmp_path / "two"
    deadline = time.monotonic() + 200
    while not list(runs.glob("ranks/checkpoints/*/checkpoint-1/whole.json")):
        assert time.monotonic() < deadline and run.poll() is None, run.stdout.read()
        time.sleep(0.05)
    os.kill(children(run)["1"], signal.SIGKILL)
    said, _ = run.communicate(timeout=120)
    assert run.returncode != 0 and "the same command goes on" in said
    finish(start(TWO, profile, runs, "mixed_group"))
    finish(start(ONE, profile, tmp_path / "one", "mixed_group"))
    same(left(tmp_path / "one", "mixed_group"), left(runs, "mixed_group"))


def test_one_process_has_everything():
    ranks = Ranks.here()
    assert ranks.writes and ranks.own("abc") == (0, "abc") and ranks.joined([1, 2]) == [1, 2]
    assert ranks.before(7) == 0 and ranks.sums({"a": 2.0}) == ranks.means({"a": 2.0}) == {"a": 2.0}


def test_parts_are_whole_and_in_order():
    for count in (1, 2, 3, 5):
        parts = [Ranks(rank, count).own(list(range(7))) for rank in range(count)]
        assert [item for _, part in parts for item in part] == list(range(7))
        assert [first for first, part in parts if part] == [part[0] for _, part in parts if part]


def test_rows_are_divided_in_whole_groups_and_passes():
    training = Training(problems_per_step=8, group_size=4, micro_batch=16)
    assert [own_rows(training, 4, n) for n in (1, 2, 4, 8)] == [32, 16, 8, 4]
    with pytest.raises(ProfileError, match="cannot be divided among 3 processes"):
        own_rows(training, 4, 3)
    with pytest.raises(ProfileError, match="cannot be divided among 16 processes"):
        own_rows(training, 4, 16)
    with pytest.raises(ProfileError, match="24 rows.*micro_batch = 16"):
        own_rows(training, 6, 2)


@pytest.mark.parametrize(
    ("name", "kind", "setting"),
    [("ddp", "MULTI_GPU", {}), ("fsdp-nf4", "FSDP", {"fsdp_sharding_strategy": "FULL_SHARD"}),
     ("zero3", "DEEPSPEED", {"zero_stage": 3})],
)  # fmt: skip
def test_configurations_for_accelerate_are_read_by_it(name, kind, setting):
    path = ROOT / "data" / "profiles" / "accelerate" / f"{name}.yaml"
    found = load_config_from_file(str(path))
    assert found.distributed_type.value == kind and found.num_processes > 1
    own = {**getattr(found, "fsdp_config", {}), **getattr(found, "deepspeed_config", {})}
    assert setting.items() <= own.items()
    assert found.mixed_precision == "no"  # else it would overrule the profile
    words = ["--config_file", str(path), "-m", "mrtlib", "train", "--method", "outcome"]
    options = launch_command_parser().parse_args(words)
    assert options.training_script == "mrtlib" and options.module


def test_a_base_that_fsdp_spreads_is_stored_as_the_rest_is(monkeypatch, toy_profile):
    asked = {}
    monkeypatch.setattr(loading, "fetch", lambda kind, profile, **more: asked.update(more))
    monkeypatch.setattr(loading, "check_4bit_dimensions", lambda config: None)
    for name, stored, placed in ((None, "uint8", True), (loading.FSDP, "bfloat16", False),
                                 (loading.DEEPSPEED, "uint8", False)):  # fmt: skip
        with monkeypatch.context() as own, suppress(AttributeError):
            if name:
                own.setenv(name, "true")
            loading.load_base(toy_profile("nf4", "bfloat16"), guard=False)
        quantised = asked["quantization_config"]
        assert str(quantised.bnb_4bit_quant_storage) == f"torch.{stored}"
        assert (asked["device_map"] is not None) == placed
