"""The benchmark on a small shape: equal work on both sides, honest ratios, and what it writes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mrtlib.config import Lora, load_profile
from mrtlib.experiments import benchmark
from mrtlib.experiments.benchmark import COLUMNS, GOALS, Goal, ratio_row
from mrtlib.experiments.workload import (
    BenchError,
    Shape,
    Spent,
    Stepper,
    in_one_batch,
    in_turn,
    long_profile,
)

SMALL = Shape(hidden=64, layers=2, heads=2, key_value_heads=1, intermediate=64, trace=128,
              boundaries=4, answer=4, rollouts=4)  # fmt: skip


@pytest.fixture(scope="module")
def stepper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    base = replace(load_profile("smoke"), lora=Lora(rank=4, alpha=8))
    made = Stepper(long_profile(base, SMALL, folder), folder / "trainer")
    made.step("outcome")
    return made


def test_two_steps_differ_in_the_prover_alone(stepper):
    before = [p.clone() for p in stepper.trainer.model.parameters() if p.requires_grad]
    plain = stepper.step("outcome")
    ids = [r.token_ids for r in stepper.rollouts]
    with_j = stepper.step("episode_progress")
    assert [r.token_ids for r in stepper.rollouts] == ids
    assert with_j.tokens - plain.tokens == stepper.trainer.found.read > 0
    sampled = stepper.step("episode_progress", 3)
    measured = stepper.trainer.found
    assert sampled.tokens - plain.tokens == measured.read + measured.drawn
    assert measured.drawn == 4 * 5 * 3 * 4  # traces, boundaries with t_0, answers, tokens
    after = [p for p in stepper.trainer.model.parameters() if p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_step_in_one_batch_does_the_same_with_more_tokens(stepper):
    """Both are one step; that gradients are equal is tested where they are not 0, in learning."""
    found = []
    for settings in (None, in_one_batch(stepper.profile)):
        spent = stepper.step("regret_to_go", settings=settings)
        trainer = stepper.trainer
        found.append((spent.tokens, trainer.found.read, [r.token_ids for r in trainer.rollouts],
                      np.concatenate(trainer.found.J)))  # fmt: skip
    (ours, read, ids, J), (other, more, same, equal) = found
    assert ours < other and 2 * read < more and ids == same
    np.testing.assert_allclose(J, equal, rtol=1e-4)


def test_traces_are_as_long_as_the_shape_says(stepper):
    for rollout in stepper.rollouts:
        assert rollout.trace_tokens == 128 and rollout.truncated
        assert rollout.boundaries == [32, 64, 96, 128]


@pytest.mark.parametrize("most", [1, 4])
def test_both_ways_of_sampling_do_the_same_work(stepper, most):
    probes = benchmark.probes_of(stepper, 4)
    levels = benchmark.boundary_prompts(stepper, probes)
    ways = benchmark.shared, benchmark.generated
    ours, other = (way(stepper, probes, most)().tokens for way in ways)
    drawn = 5 * 4 * benchmark.K * (most - 1)
    # A cut inside a line needs a blank line more than one behind it, and the others are padded.
    padded = sum(len(level) * max(map(len, level)) for level in levels)
    assert other == benchmark.K * padded + drawn
    assert ours < other


def test_rows_of_the_ways(stepper):
    probes = benchmark.probes_of(stepper, 2)
    packed, plain = benchmark.packed_against_rows(stepper, 2, 5)[0]
    ending = stepper.trainer.prover.termination
    answer = len(probes[0].references[0][0].tokens)  # its end is read off the last logits
    rows = [len(ending.prompt(p, j)) + answer for p in probes for j in range(5)]
    rows.remove(rows[0])  # both traces begin with one prompt, and J_0 is measured once
    assert sum(rows) <= plain.tokens <= sum(rows) / 0.75 and packed.tokens < plain.tokens / 2
    for found in (
        benchmark.shared_against_generate(stepper, 5),
        benchmark.sampling_against_generate(stepper, 1, 5),
        benchmark.growth(stepper, 5),
    ):
        assert len(found) == 5
        assert all(s.amount > 0 and s.tokens > 0 for pair in found for s in pair)


def test_costs_of_all_ways(stepper):
    table = benchmark.costs(stepper, (1, 4), 2)
    tokens = table.set_index(["boundaries", "way"])["tokens"]
    assert table["way"].nunique() == 5 and (table["low"] <= table["high"]).all()
    assert tokens[4, "exact, kept caches"] < tokens[4, "exact, packed"]
    assert tokens[4, "exact, packed"] < tokens[4, "exact, a row each"]
    assert tokens[4, "sampled, shared prefix"] < tokens[4, "sampled, generate"]
    assert tokens[1, "exact, packed"] * 1.5 > tokens[4, "exact, packed"]  # but not so with rows
    assert tokens[1, "exact, a row each"] * 1.5 < tokens[4, "exact, a row each"]


def test_peak_memory_is_what_a_step_takes_in_a_process_of_its_own(stepper):
    [(ours, other)] = benchmark.peaks(stepper.profile, 1)
    assert ours.tokens > other.tokens  # the one measures J
    assert 1e6 < min(ours.amount, other.amount) <= max(ours.amount, other.amount) < 1e9


def test_pairs_alternate_and_the_first_run_does_not_count():
    calls = []

    def work(name, amount):
        def run():
            calls.append(name)
            return Spent(amount if len(calls) > 2 else 99.0, 7)

        return run

    found = in_turn(work("ours", 1.0), work("other", 2.0), 5)
    assert calls == ["ours", "other"] + ["ours", "other", "other", "ours"] * 2 + ["ours", "other"]
    assert found == [(Spent(1.0, 7), Spent(2.0, 7))] * 5
    with pytest.raises(BenchError, match="4 pairs"):
        in_turn(work("ours", 1.0), work("other", 2.0), 4)


def test_a_row_is_the_median_and_range_of_the_ratio():
    found = [(Spent(a, 10), Spent(2.0, 40)) for a in (1.0, 3.0, 2.0, 4.0, 1.0)]
    row = ratio_row("x", Goal(1.2), found)
    assert list(row) == list(COLUMNS)
    assert (row["median"], row["low"], row["high"], row["pairs"]) == (1.0, 0.5, 2.0, 5)
    fast = ratio_row("x", Goal(3, True, 4), found)
    assert (fast["median"], fast["low"], fast["high"]) == (1.0, 0.5, 2.0)
    assert fast["goal"] == "at least 3x as fast, 4x fewer tokens"


def test_goals_can_be_missed():
    row = pd.Series({"median": 1.3, "tokens_ours": 10, "tokens_other": 30})
    assert Goal(1.3).met(row) and not Goal(1.29).met(row)
    assert Goal(1.3, True, 3).met(row) and not Goal(1.31, True).met(row)
    assert not Goal(1.3, True, 4).met(row)


def test_rows_are_written_as_they_come(monkeypatch, tmp_path):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    monkeypatch.setattr(benchmark, "Stepper", lambda *a: None)
    monkeypatch.setattr(benchmark, "costs", lambda stepper: pd.DataFrame({"way": ["exact"]}))
    pairs = [(Spent(1.0, 10), Spent(1.25, 90))] * 5

    def cut_off(*_):
        yield pairs
        yield pairs
        raise KeyboardInterrupt

    profile = load_profile("smoke")
    monkeypatch.setattr(benchmark, "_all_rows", cut_off)
    with pytest.raises(KeyboardInterrupt):
        benchmark.benchmark(profile, 5, SMALL)
    assert len(pd.read_csv(profile.runs / "bench.csv")) == 2
    monkeypatch.setattr(benchmark, "_all_rows", lambda *_: [pairs] * len(GOALS))
    table = benchmark.benchmark(profile, 5, SMALL)
    assert list(table["row"]) == list(GOALS)
    assert list(benchmark.reached(table)) == [False] * 2 + [True] * 4 + [False] * 3 + [True] * 4
    assert benchmark.markdown(table).count("**no**") == 5
    assert (profile.runs / "cost_by_boundaries.csv").is_file()


def test_the_committed_table_has_every_row(records):
    table = pd.read_csv(records / "bench.csv")
    assert tuple(table.columns) == COLUMNS and (table["pairs"] >= 5).all()
    assert dict(zip(table["row"], table["goal"], strict=True)) == {
        name: goal.words for name, goal in GOALS.items()
    }
    assert (table["low"] <= table["median"]).all() and (table["median"] <= table["high"]).all()


def test_too_few_pairs_are_refused_at_once():
    with pytest.raises(BenchError, match="take 5 or more"):
        benchmark.benchmark(load_profile("smoke"), 3, SMALL)
