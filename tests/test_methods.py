"""Credit of episodes against their group: scale, baselines, and what does not count."""

import numpy as np
import pytest

from mrtlib.training.methods import (
    METHODS,
    RECENT,
    largest_share,
    mean_square,
    running_scale,
)

EARLY = (np.array([0.1, 0.9, 0.9]), np.array([0, 20, 60]))
LATE = (np.array([0.1, 0.1, 0.9]), np.array([0, 40, 80]))
NEVER = (np.array([0.1, 0.1, 0.1]), np.array([0, 30, 90]))
EMPTY = (np.array([0.1]), np.array([0]))
GROUP = [EARLY, LATE, NEVER]
CREDITED = [m for m in METHODS.values() if m.credit and not m.at_budgets]
regret_to_go = METHODS["regret_to_go"].credit
episode_progress = METHODS["episode_progress"].credit
episode_progress_centred = METHODS["episode_progress_centred"].credit


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


def test_what_others_lose_lowers_the_baseline_by_the_success_at_stake():
    falls = (np.array([0.8, 0.2]), np.array([0, 50]))
    own = (np.array([0.4, 0.4]), np.array([0, 100]))
    [value] = regret_to_go([own, falls], 100)[0]
    assert value == pytest.approx(0.4 * (0.6 * 0.5) / 0.8)  # it kept what the other lost half of


def test_centred_progress_expects_what_the_others_episode_there_made():
    own = (np.array([0.5, 0.5]), np.array([0, 30]))
    [value] = episode_progress_centred([own, EARLY], 100)[0]
    assert value == pytest.approx(-0.5 * 0.8 / 0.9)


def test_a_group_without_differences_moves_nothing():
    for method in CREDITED:
        for values in method.credit([NEVER, NEVER], 100):
            assert np.allclose(values, 0)


def test_empty_traces_are_harmless():
    """Ending at once is a choice too: where its token is paid, it is paid less the baseline."""
    for method in CREDITED:
        values = method.credit([EMPTY, EARLY], 100)
        assert [len(v) for v in values] == [int(method.to_maker), 2]
        assert all(np.isfinite(v).all() for v in values)
        idle = method.credit([EMPTY, EMPTY], 100)
        assert [len(v) for v in idle] == [int(method.to_maker)] * 2
        assert not np.concatenate(idle).any()
    assert regret_to_go([EMPTY, EARLY], 100)[0][0] == pytest.approx(-0.9 * 0.64 / 0.9)


def test_scale_is_that_of_whole_steps_so_that_noise_in_an_idle_group_stays_small():
    idle = (np.array([0.01, 0.012, 0.009]), np.array([0, 30, 60]))
    values = episode_progress([EARLY, LATE], 100) + episode_progress([idle, NEVER], 100)
    out = [v / running_scale([mean_square(values)]) for v in values]
    assert np.sqrt(np.mean(np.concatenate(out) ** 2)) == pytest.approx(1, abs=1e-3)
    assert np.abs(np.concatenate(out[2:])).max() < 0.02
    assert mean_square([]) == mean_square([np.zeros(0)]) == 0.0


def test_scale_is_that_of_recent_steps():
    old, new = [100.0] * 5, [0.25] * RECENT
    assert running_scale(old + new) == pytest.approx(0.5, abs=1e-3)
    assert running_scale([0.25, 1.75]) == pytest.approx(1.0, abs=1e-3)


def test_the_largest_share_of_a_step_counts_tokens():
    values = [np.array([1.0, -2.0]), np.array([0.5])]
    assert largest_share(values, [np.array([10, 10]), np.array([20])]) == pytest.approx(0.5)
    assert largest_share([np.zeros(2)], [np.array([3, 4])]) == 0.0
