"""Training logs as tables, on a log small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest

from mrtlib.evaluation import learning
from mrtlib.experiments import claims


def log(method: str, seed: int, rewards, tokens, regrets=None) -> pd.DataFrame:
    n = len(rewards)
    return pd.DataFrame({
        "method": method, "seed": seed, "step": np.arange(1, n + 1), "reward": rewards,
        "regret": regrets if regrets is not None else np.full(n, np.nan), "length": 10.0,
        "episodes": 2.0, "generated_tokens": np.cumsum(tokens), "grad_norm": 0.1,
        "prover_tokens": 0 if method == "outcome" else 40,
        "sampling_s": 2.0, "probing_s": 0.0 if method == "outcome" else 1.0, "learning_s": 1.0,
    })  # fmt: skip


@pytest.fixture
def steps() -> pd.DataFrame:
    return pd.concat([
        log("outcome", 0, [0.0, 0.5, 1.0], [10, 10, 10]),
        log("outcome", 1, [0.0, 0.1, 0.2], [10, 10, 10]),
        log("regret_to_go", 0, [0.0, 1.0, 1.0], [10, 5, 5], [0.9, 0.8, 0.7]),
        log("regret_to_go", 1, [0.0, 0.0, 0.4], [10, 5, 5], [0.9, 0.9, 0.9]),
    ])  # fmt: skip


def test_curves_are_means_over_seeds(steps):
    table, seeds = learning.smoothed(steps, window=1)
    found = table.set_index(["method", "step", "quantity"])
    assert found.loc[("outcome", 3, "reward"), "estimate"] == pytest.approx(0.6)
    assert (found["low"] <= found["estimate"]).all() and (found["estimate"] <= found["high"]).all()
    # Two seeds have t = 12.7 and say next to nothing: all that a share can be.
    assert found.loc[("outcome", 3, "reward"), "low"] == 0
    assert found.loc[("outcome", 3, "reward"), "high"] == 1
    narrow = found.loc[("regret_to_go", 2, "regret")]
    assert narrow["high"] - narrow["estimate"] == pytest.approx(min(12.706 * 0.05, 0.15))
    assert ("outcome", 1, "regret") not in found.index  # it is not measured there
    assert len(seeds) == 2 * 3 * 2 + 2 * 3 * 3


def test_steps_that_only_some_runs_reached_are_not_drawn(steps):
    longer = log("outcome", 2, [0.0, 0.1, 0.2, 1.0], [10, 10, 10, 10])
    table, seeds = learning.smoothed(pd.concat([steps, longer]))
    assert table.query("method == 'outcome'")["step"].max() == 3
    assert seeds.query("method == 'outcome'")["step"].max() == 4  # the run itself is


def test_window_looks_back_within_a_seed(steps):
    _, seeds = learning.smoothed(steps, window=2)
    row = seeds.query("method == 'outcome' and seed == 0 and step == 3 and quantity == 'reward'")
    assert row["estimate"].item() == pytest.approx(0.75)


def test_one_seed_has_no_interval(steps):
    table, _ = learning.smoothed(steps[steps["seed"] == 0])
    assert table["estimate"].notna().all()
    assert table[["low", "high"]].isna().all(axis=None)


def test_cost_divides_a_step(steps):
    table = learning.cost(steps)
    assert table.loc["regret_to_go", "step_s"] == pytest.approx(4.0)
    assert table.loc["regret_to_go", "probing_share"] == pytest.approx(0.25)
    assert table["read_for_one"].to_dict() == {"outcome": 0, "regret_to_go": 3 * 40 / 20}
    assert table.loc["regret_to_go", "tokens_to_outcome"] == pytest.approx(20 / 30)


def test_equal_tokens_reads_each_run_at_the_same_total(steps):
    table = learning.at_equal_tokens(steps, window=1)
    assert (table["tokens"] == 20).all()
    assert table.loc["outcome", "step"] == 2 and table.loc["regret_to_go", "step"] == 3
    assert table.loc["outcome", "reward"] == pytest.approx(0.3)


def test_rewards_at_equal_tokens_are_compared_seed_by_seed(steps):
    gaps = learning.reward_gaps(steps, window=1)
    assert list(gaps.index) == ["regret_to_go"]
    row = gaps.loc["regret_to_go"]
    assert row["estimate"] == pytest.approx(((1.0 - 0.5) + (0.4 - 0.1)) / 2)
    assert row["low"] < row["estimate"] < row["high"]
    assert "`regret_to_go`: reward 0.400 (+0.2" in learning.in_words(steps)
    alone = learning.in_words(steps[steps["seed"] == 0])  # one seed has no interval
    assert "to outcome RL" not in alone and "`regret_to_go`: reward 0.667, 10 thinking" in alone


def test_methods_keep_their_order_on_every_processor():
    """Sorts that are not stable leave equal steps in another order on each."""
    methods = ["e", "d", "c", "b", "a"]
    runs = [log(m, s, [0.5] * 40, [10] * 40) for m in methods for s in range(8)]
    assert list(learning.at_equal_tokens(pd.concat(runs)).index) == methods


def test_claims_hold_and_can_fail(steps):
    good = claims.of_training(steps, ("outcome", "regret_to_go"), 2, 20)
    assert good["holds"].all()
    other = steps.copy()
    first = (other["method"] == "outcome") & (other["step"] == 1) & (other["seed"] == 1)
    other.loc[first, "length"] = 11.0
    bad = claims.of_training(other, ("outcome", "regret_to_go"), 3, 40)
    assert list(bad.loc[~bad["holds"], "claim"]) == [
        "fewest tokens of a run",
        "runs, one of each method at each seed",
        "largest difference of first batches at a seed",
    ]
