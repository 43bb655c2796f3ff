"""The trainer: one first batch for all methods, credit on the right tokens, resume, honest logs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mrtlib import credit
from mrtlib.config import ProverSettings
from mrtlib.models.quantization import ModelError, layers_4bit
from mrtlib.models.sampling import TransformersSampler
from mrtlib.models.tokens import Spelling
from mrtlib.prover import probes, prover
from mrtlib.prover.probes import ProverError
from mrtlib.store import read_table
from mrtlib.training import runs
from mrtlib.training.methods import METHODS, mean_square, running_scale
from mrtlib.training.runs import steps_of
from mrtlib.training.trainer import MRTTrainer


@pytest.fixture
def profile(short_training):
    return short_training


def run(profile, method, folder, seed=0, steps=None) -> MRTTrainer:
    made = MRTTrainer(profile, method, seed, folder)
    if steps:
        made.args.max_steps = steps
    made.train()
    return made


def first_batch(profile, method, folder):
    """Return a trainer, what it makes of its first two groups, and their GRPO advantages (8,)."""
    made = MRTTrainer(profile, method, 0, folder)
    made.model.train()
    inputs = [dict(made.train_dataset[i]) for i in (0, 1) for _ in range(4)]
    out = made._generate_and_score_completions(inputs)
    rewards = np.array([float(r.grade.correct) for r in made.rollouts]).reshape(2, 4)
    return made, out, credit.outcome(rewards).ravel()


def weights(made) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in made.model.parameters() if p.requires_grad])


def test_all_methods_sample_the_same_first_batch(profile, tmp_path):
    batches = {}
    plain = [name for name, form in METHODS.items()
             if not form.from_prefixes and form.wider == 1 and not form.budgets]  # fmt: skip
    assert len(plain) > 6
    for method in plain:
        made = MRTTrainer(profile, method, 0, tmp_path / method)
        seen = []
        score = made._generate_and_score_completions

        def keep(inputs, score=score, seen=seen):
            out = score(inputs)
            seen.append((out["prompt_ids"].clone(), out["completion_ids"].clone()))
            return out

        made._generate_and_score_completions = keep
        made.train()
        batches[method] = seen[0]
    for method in plain[1:]:
        for ours, other in zip(batches[method], batches["outcome"], strict=True):
            assert torch.equal(ours, other)


def test_advantages_are_outcome_plus_alpha_times_the_episode_s_credit(profile, tmp_path):
    made, out, base = first_batch(profile, "episode_progress", tmp_path)
    ends = [np.array([0, *r.boundaries]) for r in made.rollouts]
    curves = list(zip(made.found.J, ends, strict=True))
    form = METHODS["episode_progress"]
    values = form.credit(curves[:4], 40) + form.credit(curves[4:], 40)
    size = running_scale([mean_square(values)])
    width = out["completion_ids"].shape[1]
    for row, rollout in enumerate(made.rollouts):
        marks = [0, *rollout.boundaries]
        expected = base[row] + credit.per_token(values[row] / size, marks, width)
        assert np.allclose(out["advantages"][row].numpy(), expected, atol=1e-5)
        assert rollout.trace_tokens <= 40


def test_outcome_is_watched_and_its_advantages_are_those_of_grpo(profile, tmp_path):
    _, out, base = first_batch(profile, "outcome", tmp_path)
    assert np.allclose(out["advantages"].numpy(), base[:, None], atol=1e-6)
    watching = replace(profile, training=replace(profile.training, most_steps=3, watch_every=2))
    steps = read_table(runs.train(watching, "outcome", 0) / "steps.parquet", "steps")
    assert list(steps["regret"].notna()) == [True, False, True]


def test_the_reward_can_come_from_sampled_answers(profile, tmp_path):
    sampled = replace(profile, prover=ProverSettings(estimator="sampled", samples=3))
    made, out, base = first_batch(sampled, "episode_progress", tmp_path / "sampled")
    exact, other, _ = first_batch(profile, "episode_progress", tmp_path / "exact")
    assert torch.equal(out["completion_ids"], other["completion_ids"])  # one stream of rollouts
    shares = np.concatenate(made.found.J) * 3
    assert np.array_equal(shares, shares.round()) and made.found.drawn > 0
    boundaries = sum(len(J) for J in made.found.J)
    assert 3 * boundaries <= made.found.drawn <= 3 * 8 * boundaries
    assert exact.found.drawn == 0
    written = sum(len(r.token_ids) for r in made.rollouts)
    logged = made._metrics["train"]
    assert logged["generated"] == [written + made.found.drawn]
    assert logged["prover_read"] == [made.found.read]
    again, repeated, _ = first_batch(sampled, "episode_progress", tmp_path / "again")
    assert torch.equal(out["advantages"], repeated["advantages"])


def test_no_token_of_a_step_is_scored_twice(profile, tmp_path):
    """GRPO needs log-probabilities once, with gradients: there is no other pass to share."""
    made = MRTTrainer(profile, "episode_progress", 0, tmp_path)
    made.args.max_steps = 1
    made.train()
    [log] = [log for log in made.state.log_history if "learned" in log]
    real = sum(len(r.prompt_ids) + len(r.token_ids) for r in made.rollouts)
    assert real <= log["learned"] < 1.35 * real  # once, with little padding
    assert log["probed"] == made.found.read > 0


def keeping(profile, tokens):
    return replace(profile, prover=replace(profile.prover, keep_tokens=tokens, equal_once=False))


def test_caches_kept_from_sampling_change_no_advantage(profile, tmp_path):
    other, plain, _ = first_batch(keeping(profile, 0), "regret_to_go", tmp_path / "plain")
    made, spared, _ = first_batch(
        keeping(profile, 10**6), "regret_to_go", tmp_path / "spared"
    )
    assert torch.equal(plain["completion_ids"], spared["completion_ids"])
    assert torch.allclose(plain["advantages"], spared["advantages"], atol=1e-3)
    trace = sum(len(r.prompt_ids) + r.trace_tokens for r in made.rollouts)
    assert other.found.read - made.found.read > 0.8 * trace


def test_caches_are_kept_where_it_pays_and_where_they_fit(profile, tmp_path, monkeypatch):
    made = MRTTrainer(profile, "outcome", 0, tmp_path)
    limit = profile.prover.keep_tokens
    assert made.prover.uses_caches(limit)
    assert not made.prover.uses_caches(limit + 1)
    monkeypatch.setattr(prover, "obstacle", lambda model: "no")
    assert not made.prover.uses_caches(100)


def test_a_step_sampled_and_probed_in_batches_is_the_same_step(profile, tmp_path, monkeypatch):
    sizes, keep = [], TransformersSampler.sample_and_keep
    monkeypatch.setattr(
        TransformersSampler, "sample_and_keep",
        lambda self, prompts, *rest: (sizes.append(len(prompts)), keep(self, prompts, *rest))[1],
    )  # fmt: skip
    made, steps = MRTTrainer(profile, "regret_to_go", 0, tmp_path), []
    longest = max(map(len, made.source.prompts.values())) + profile.thinking.budget
    longest += profile.thinking.answer_tokens
    for rows, tokens in ((0, 10**6), (8, 8 * longest), (8, 7 * longest)):  # the last: no caches
        made.prover.profile = keeping(profile, tokens)
        made.profile = replace(profile, training=replace(profile.training, sampling_rows=rows))
        steps.append(made.collect([p.question for p in made.source.problems[:4] for _ in range(4)]))
    whole, parts, anew = steps
    assert sizes == [16, 8, 8]
    for other in (parts, anew):
        assert [s.token_ids for s in other.samples] == [s.token_ids for s in whole.samples]
        assert all(np.allclose(*pair, atol=1e-4)
                   for pair in zip(whole.found.J, other.found.J, strict=True))  # fmt: skip
    traces = sum(len(r.prompt_ids) + r.trace_tokens for r in whole.rollouts)
    assert anew.found.read - parts.found.read > 0.8 * traces  # none is read again


def test_bad_references_are_named_before_training(profile, tmp_path, monkeypatch):
    twice = [(Spelling((5, 6), (7,)),)] * 2
    monkeypatch.setattr(probes, "references_of", lambda *_: twice)
    with pytest.raises(ProverError, match="problem three.*prefix-free"):
        MRTTrainer(profile, "outcome", 0, tmp_path)


def test_adapters_are_trained_in_float32_and_the_base_is_not_trained(profile, tmp_path):
    made = run(profile, "regret_to_go", tmp_path)
    trained = {name: p for name, p in made.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert all(p.dtype == torch.float32 for p in trained.values())
    fresh = MRTTrainer(profile, "regret_to_go", 0, tmp_path / "fresh")
    assert not torch.equal(weights(made), weights(fresh))


def test_resumed_training_ends_like_one_that_was_not_cut(profile, tmp_path):
    long = replace(profile, training=replace(profile.training, most_steps=4, save_every=2))
    whole = run(long, "episode_progress", tmp_path / "whole")
    run(long, "episode_progress", tmp_path / "cut", steps=2)
    again = MRTTrainer(long, "episode_progress", 0, tmp_path / "cut")
    again.train(resume_from_checkpoint=True)
    assert torch.allclose(weights(whole), weights(again), atol=1e-4)
    ours, theirs = (steps_of(made.state.log_history, "m", 0) for made in (again, whole))
    assert [r["generated_tokens"] for r in ours] == [r["generated_tokens"] for r in theirs]


def test_train_writes_adapter_and_log_once(profile, capsys):
    folder = runs.train(profile, "regret_to_go", 1)
    steps = read_table(folder / "steps.parquet", "steps")
    assert list(steps["step"]) == [1, 2]
    assert steps[["regret", "progress", "sampling_s", "probing_s"]].notna().all(axis=None)
    assert "min left" in capsys.readouterr().out
    stamp = (folder / "steps.parquet").stat().st_mtime_ns
    assert runs.train(profile, "regret_to_go", 1) == folder
    assert (folder / "steps.parquet").stat().st_mtime_ns == stamp
    hotter = replace(profile, training=replace(profile.training, temperature=0.9))
    runs.train(hotter, "regret_to_go", 1)
    assert (folder / "steps.parquet").stat().st_mtime_ns != stamp


def test_a_run_ends_when_its_tokens_are_spent(profile):
    short = replace(profile, training=replace(profile.training, tokens=10, most_steps=50))
    steps = read_table(runs.train(short, "outcome", 0) / "steps.parquet", "steps")
    assert len(steps) == 1 and steps["generated_tokens"].iloc[0] >= 10


def test_prompts_that_leave_no_room_are_refused_before_training(profile, tmp_path):
    long = replace(profile, thinking=replace(profile.thinking, budget=240))
    with pytest.raises(ModelError, match="context"):
        MRTTrainer(long, "outcome", 0, tmp_path)


def test_twin_and_policy_give_the_same_rollouts(profile, tmp_path):
    lengths = []
    for twin in (True, False):
        own = replace(profile, model=replace(profile.model, twin=twin), prover=ProverSettings())
        made = run(own, "outcome", tmp_path / str(twin), steps=1)
        lengths.append([r.token_ids for r in made.rollouts])
    assert lengths[0] == lengths[1]


def test_a_base_that_was_packed_for_inference_is_not_trained(profile, tmp_path):
    """On some CPUs a pass without gradients packs 4-bit layers, which then give none."""
    made = MRTTrainer(profile, "outcome", 0, tmp_path)
    layers_4bit(made.model)[0].weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ModelError, match="1 4-bit layers are packed"):
        made.train()
