"""A loop says how far it is: a line every ten seconds in a batch run, a bar elsewhere."""

import pytest

from mrtlib import pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def test_a_batch_run_has_a_line_every_ten_seconds_and_no_more(clock, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    for _ in pace.paced(range(10), "toy"):
        clock[0] += 4.0
    assert capsys.readouterr().out.splitlines() == [
        "toy: 3 of 10, 28 s left", "toy: 6 of 10, 16 s left", "toy: 9 of 10, 4 s left"
    ]  # fmt: skip


def test_what_is_quick_says_nothing(clock, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert list(pace.paced(["a", "b"], "toy")) == ["a", "b"]
    assert capsys.readouterr().out == ""


def test_elsewhere_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert list(pace.paced(["a", "b"], "toy")) == ["a", "b"]
    assert "toy" in capsys.readouterr().err
