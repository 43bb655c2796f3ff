"""Regret against the achievable comparator: areas by brute force, and cases with a known answer."""

import numpy as np
import pandas as pd
import pytest

from mrtlib.experiments.achievable import area_of_larger, areas, by_trace, regret_by_episodes


def table(problem: str, *points: tuple[float, ...]) -> pd.DataFrame:
    """Return the votes of a trace: at each boundary maj@1, maj@2, maj@4 and maj@8."""
    return pd.DataFrame([
        {"method": "base", "seed": 0, "level": "easy", "problem": problem, "sample": 0, "j": j,
         "rule": "likelihood", "votes": p, "accuracy": value}
        for j, row in enumerate(points) for p, value in zip((1, 2, 4, 8), row, strict=True)
    ])  # fmt: skip


def test_the_area_of_the_larger_line_is_that_of_a_fine_grid():
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = np.sort(rng.uniform(0, 3, 5))
        a, b = rng.uniform(size=(2, 5))
        fine = np.linspace(x[0], x[-1], 200_001)
        expected = np.trapezoid(np.maximum(np.interp(fine, x, a), np.interp(fine, x, b)), fine)
        assert area_of_larger(x, a, b) == pytest.approx(expected, abs=1e-6)


def test_where_thinking_on_is_best_there_is_no_regret():
    votes = table("p", (0.2, 0.2, 0.2, 0.2), (0.6, 0.6, 0.6, 0.6), (0.9, 0.9, 0.9, 0.9))
    assert regret_by_episodes(votes, [1, 2])["estimate"].tolist() == pytest.approx([0, 0])


def test_where_votes_are_best_the_regret_is_what_they_gain():
    """From 0.4 a vote of two is 0.8 right, and an episode brings nothing."""
    votes = table("p", (0.4, 0.8, 0.8, 0.8), (0.4, 0.8, 0.8, 0.8))
    best, own = areas(votes)
    assert best.tolist() == pytest.approx([0.6]) and own.tolist() == pytest.approx([0.4])
    assert regret_by_episodes(votes, [1])["estimate"][0] == pytest.approx(1 - 0.4 / 0.6)


def test_traces_with_nothing_to_reach_are_left_out_and_short_ones_count_as_far_as_they_go():
    votes = pd.concat([
        table("none", (0.0,) * 4, (0.0,) * 4),
        table("short", (0.4, 0.8, 0.8, 0.8), (0.4, 0.8, 0.8, 0.8)),
    ])  # fmt: skip
    found = regret_by_episodes(votes, [1, 5])
    assert found["problems"].tolist() == [1, 1]
    assert found["estimate"].tolist() == pytest.approx([1 / 3, 1 / 3])


def test_areas_of_a_trace_add_up_to_its_end_and_no_further():
    votes = table("p", (0.4, 0.8, 0.8, 0.8), (0.6, 0.6, 0.6, 0.6), (0.9, 0.9, 0.9, 0.9))
    best, own = areas(votes)
    found = by_trace(votes, [1, 2, 5]).set_index("budget")
    assert found["reachable"].tolist() == pytest.approx([best[0], best.sum(), best.sum()])
    missed = best - own
    assert found["missed"].tolist() == pytest.approx([missed[0], missed.sum(), missed.sum()])
