"""Credit of episodes against their group: scale, baselines, and what does not count."""

import numpy as np
import pytest

from mrtlib.advantages import CREDITS, episode_progress, outcome_alone, regret_to_go, scaled

EARLY = (np.array([0.1, 0.9, 0.9]), np.array([0, 20, 60]))
LATE = (np.array([0.1, 0.1, 0.9]), np.array([0, 40, 80]))
NEVER = (np.array([0.1, 0.1, 0.1]), np.array([0, 30, 90]))
EMPTY = (np.array([0.1]), np.array([0]))
GROUP = [EARLY, LATE, NEVER]


def test_outcome_gives_no_credit_of_its_own():
    assert all((v == 0).all() for v in outcome_alone(GROUP, 100))


def test_progress_is_centred_on_the_episodes_of_the_group():
    values = np.concatenate(episode_progress(GROUP, 100))
    assert values.mean() == pytest.approx(0, abs=1e-9)
    early, late, never = episode_progress(GROUP, 100)
    assert early[0] == pytest.approx(late[1]) and early[0] > 0 > never[0]


def test_regret_to_go_pays_for_being_early():
    early, late, never = regret_to_go(GROUP, 100)
    assert early[0] > late[0] > never[0]
    assert abs(early[1]) < abs(early[0]) / 3  # little doubt left: little to win or lose


def test_baseline_of_regret_to_go_by_hand():
    (value, *_), _ = regret_to_go([EARLY, NEVER], 100)[0], None
    gain = 0.8 * (1 - 0.2)
    # The other rollout removed nothing, so the baseline is 0; NEVER's is (1 - 0.1) * 0.64 / 0.9.
    never = regret_to_go([EARLY, NEVER], 100)[1][0]
    assert never / value == pytest.approx(-(0.9 * gain / 0.9) / gain)


def test_a_group_without_differences_moves_nothing():
    for credit in CREDITS.values():
        for values in credit([NEVER, NEVER], 100):
            assert np.allclose(values, 0)


def test_empty_traces_are_harmless():
    for credit in CREDITS.values():
        values = credit([EMPTY, EARLY], 100)
        assert [len(v) for v in values] == [0, 2]
        assert all(np.isfinite(v).all() for v in values)
        assert [len(v) for v in credit([EMPTY, EMPTY], 100)] == [0, 0]


def test_scale_is_that_of_the_step_so_that_noise_in_an_idle_group_stays_small():
    idle = (np.array([0.01, 0.012, 0.009]), np.array([0, 30, 60]))
    values = episode_progress([EARLY, LATE], 100) + episode_progress([idle, NEVER], 100)
    out = scaled(values)
    assert np.sqrt(np.mean(np.concatenate(out) ** 2)) == pytest.approx(1, abs=1e-3)
    assert np.abs(np.concatenate(out[2:])).max() < 0.02
    assert scaled([]) == [] and len(scaled([np.zeros(0)])[0]) == 0
