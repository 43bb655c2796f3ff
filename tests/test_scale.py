"""The table of cost at a large shape, on a small one."""

import numpy as np
import pytest
import torch

from mrtlib.config import load_profile
from mrtlib.experiments import scale
from mrtlib.experiments.workload import Shape

SMALL = Shape(hidden=64, layers=2, heads=2, key_value_heads=1, intermediate=128, trace=64,
              boundaries=4, answer=8, rollouts=2, vocabulary=256)  # fmt: skip


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    monkeypatch.setattr(scale, "ROWS", (2,))
    monkeypatch.setattr(scale, "NEW", 8)
    return load_profile("tiny")


def test_every_row_is_measured_and_written(profile, capsys):
    table = scale.scale(profile, SMALL)
    assert (profile.runs / "scale.csv").is_file()
    rows = table.set_index("row")
    assert len(rows) == 6 and (rows["unit"] == "s").all() and (rows["n"] == 3).all()
    packed, each = (rows.loc[f"a trace of 64, exact J at 4 boundaries, {way}: time", "tokens"]
                    for way in ("packed", "a row each"))  # fmt: skip
    plain = rows.loc["a trace of 64, plain forward pass: time", "tokens"]
    assert plain < packed < each
    grpo, exact = (rows.loc[f"a step of 2 such traces without their sampling, {name}: time",
                            "tokens"] for name in ("GRPO", "exact J"))  # fmt: skip
    assert 2 * 64 <= grpo < exact
    assert "plain forward pass: time" in capsys.readouterr().out


def test_a_row_without_memory_does_not_stop_the_others(profile, monkeypatch):
    real = scale.scoring

    def scoring(stepper, probes, *score):
        def none():
            raise torch.OutOfMemoryError("too much")

        return real(stepper, probes) if not score else none

    monkeypatch.setattr(scale, "scoring", scoring)
    table = scale.scale(profile, SMALL)
    assert len(table) == 6
    lost = table["unit"] == "out of memory"
    assert table.loc[lost, "row"].tolist() == ["a trace of 64, exact J at 4 boundaries, a row each"]
    assert np.isnan(table.loc[table["unit"] == "out of memory", "value"]).tolist() == [True]
    text = scale.markdown(table)
    assert "boundaries, a row each | out of memory |  | 0 |" in text
    assert text.count("\n") == 2 + 6 and "nan" not in text
