"""Rollouts from stale prefixes, validation, token counts, and a method from outside the package."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mrtlib import credit
from mrtlib.config import ProfileError, load_profile
from mrtlib.models.compatibility import obstacle
from mrtlib.models.loading import load_policy
from mrtlib.models.packing import counted
from mrtlib.models.quantization import Twin
from mrtlib.models.sampling import Sample
from mrtlib.shards import Shards
from mrtlib.store import read_table
from mrtlib.training import runs, validation
from mrtlib.training.methods import METHODS, Less, Method
from mrtlib.training.schedule import THROUGH, spent
from mrtlib.training.starts import Start
from mrtlib.training.trainer import MRTTrainer


@pytest.fixture
def profile(short_training):
    return short_training


@pytest.fixture
def real(tmp_path, monkeypatch):
    """The embedded model, two problems a step."""
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    base = load_profile("smoke")
    small = replace(base.training, tokens=10**6, most_steps=2, group_size=6, micro_batch=12,
                    refresh_every=2, watch_every=1)  # fmt: skip
    return replace(base, training=small)


def one_batch(profile, method, folder, **replaced):
    """Return a trainer and what it makes of the first batch that TRL would ask for."""
    made = MRTTrainer(profile, method, 0, folder)
    vars(made).update(replaced)
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    [first, *_] = made._upcoming()
    index = {p.id: i for i, p in enumerate(made.source.problems)}
    size = profile.training.group_size * METHODS[method].wider
    inputs = [dict(made.train_dataset[index[p.id]]) for p in first for _ in range(size)]
    return made, made._generate_and_score_completions(inputs)


def test_half_of_a_mixed_group_answers_at_the_prefix_that_the_other_half_goes_on_from(
    real, tmp_path
):
    made, out = one_batch(real, "mixed_group", tmp_path / "a")
    termination, seen = made.prover.termination, []
    for first in (0, 6):
        starts, rollouts = made.step.starts[first : first + 6], made.rollouts[first : first + 6]
        assert [s.answers for s in starts] == [False] * 3 + [True] * 3
        assert len({s.prefix for s in starts}) == 1
        thought, prompt = list(starts[0].prefix), rollouts[0].prompt_ids
        seen.append(len(thought))
        assert starts[0].prompt_ids == [*prompt, *thought]
        end = made.tokenizer.encode(termination.forced(thought), add_special_tokens=False)
        assert starts[5].prompt_ids == [*prompt, *thought, *end]
        for row, rollout in enumerate(rollouts):
            mask = out["completion_mask"][first + row].bool()
            written = out["completion_ids"][first + row][mask].tolist()
            assert rollout.token_ids == [*thought, *written]
            assert rollout.trace_tokens <= real.thinking.budget
        for rollout in rollouts[3:]:
            answer = rollout.token_ids[len(thought) :]
            assert rollout.trace_tokens == len(thought) and len(answer) <= 32
            text = termination.answer(answer)
            assert rollout.grade.correct == any(
                f"{{{reference}}}" in text for reference in rollout.problem.references
            )
        rewards = np.array([float(r.grade.correct) for r in rollouts])
        expected = np.concatenate(credit.mixed_group(rewards[:3], rewards[3:]))
        found = out["advantages"][first : first + 6].numpy()
        assert np.allclose(found, expected[:, None], atol=1e-5)
    assert any(seen)


@pytest.mark.parametrize("method", ["mixed_group", "stale_outcome", "termination_baseline"])
def test_exact_and_sampled_J_are_compared_where_rollouts_begin_at_prefixes_too(
    real, tmp_path, method
):
    made, out = one_batch(real, method, tmp_path / "a")
    assert made.prover.compared.answers > 0 and made.comparison_file.is_file()
    other, again = one_batch(real, method, tmp_path / "b", _agree=lambda _: None)
    assert not other.comparison_file.is_file()  # and the rollouts do not hang on it
    for name in ("completion_ids", "advantages"):
        assert torch.equal(out[name], again[name])


def test_prefixes_are_records_of_an_older_policy_and_change_when_they_are_refreshed(
    real, tmp_path
):
    long = replace(real, training=replace(real.training, most_steps=4))
    made = MRTTrainer(long, "stale_outcome", 0, tmp_path / "run")
    seen, starts_of = [], made.starts_of

    def keep(problems):
        seen.append({s.prefix: p.question
                     for s, p in zip(starts_of(problems), problems, strict=True)})  # fmt: skip
        return starts_of(problems)

    made.starts_of = keep
    made.train()
    shards = Shards(tmp_path / "run" / "prefixes", "rollouts")
    assert shards.keys() == ["iteration-0000", "iteration-0001"]
    assert len(seen) == 4
    for step, starts in enumerate(seen):
        records = shards.read([f"iteration-{step // 2:04d}"])
        assert len(records) == 4  # two problems for each of two steps
        questions = {p.id: p.question for p in made.source.problems}
        for prefix, question in starts.items():
            own = records[records["problem"].map(questions) == question].iloc[0]
            ends = [0, *own["boundaries"][:-1]]
            assert len(prefix) in ends and list(own["token_ids"][: len(prefix)]) == list(prefix)


def test_the_termination_baseline_takes_off_J_at_the_prefix(real, tmp_path):
    made, out = one_batch(real, "termination_baseline", tmp_path)
    for first in (0, 6):
        rollout, start = made.rollouts[first], made.step.starts[first]
        size = len(start.prefix)
        cut = replace(rollout, boundaries=[size] if size else [], closed=False)
        J = made.prover.exact([cut])[0][-1]
        rewards = np.array([float(r.grade.correct) for r in made.rollouts[first : first + 6]])
        found = out["advantages"][first : first + 6].numpy()
        assert np.allclose(found, (rewards - J)[:, None], atol=1e-5)


def test_a_run_from_prefixes_that_was_cut_ends_like_one_that_was_not(real, tmp_path):
    own = replace(real.training, most_steps=3, save_every=1, refresh_every=3, group_size=4,
                  micro_batch=8)  # fmt: skip
    long = replace(real, training=own)

    def run(folder, steps):
        made = MRTTrainer(long, "mixed_group", 0, folder)
        made.args.max_steps = steps
        made.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")) or None)
        return torch.cat([p.detach().flatten() for p in made.model.parameters()
                          if p.requires_grad])  # fmt: skip

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    assert torch.allclose(whole, run(tmp_path / "cut", 3), atol=1e-5)


def test_traces_that_a_killed_run_left_behind_are_paid_for_by_the_one_that_goes_on(real, tmp_path):
    own = replace(real.training, most_steps=3, save_every=2, refresh_every=2, group_size=4,
                  micro_batch=8)  # fmt: skip
    long = replace(real, training=own)

    def run() -> list[tuple]:
        made = MRTTrainer(long, "stale_outcome", 0, tmp_path)
        made.train(resume_from_checkpoint=any(tmp_path.glob("checkpoint-*")) or None)
        return [tuple(log[name] for name in ("generated", *THROUGH))
                for log in made.state.log_history if "generated" in log]  # fmt: skip

    whole = run()
    shutil.rmtree(tmp_path / "checkpoint-3", ignore_errors=True)
    prefixes = Shards(tmp_path / "prefixes", "rollouts")
    assert len(whole) == 3 and prefixes.has("iteration-0001")  # drawn behind checkpoint 2
    assert run() == whole
    shutil.rmtree(tmp_path / "checkpoint-3", ignore_errors=True)
    (tmp_path / "prefixes" / "iteration-0001.json").unlink()  # the price alone is lost
    assert run() == whole


def test_what_is_behind_the_budget_does_not_count(real, tmp_path):
    made = MRTTrainer(real, "outcome", 0, tmp_path)
    start = Start([1, 2, 3, 4, 5], prefix=(3, 4, 5))
    words = made.tokenizer.encode("First, 7 + 5 = 12.\n\n", add_special_tokens=False)
    sample = Sample(words * 9, [0.0] * (9 * len(words)), True)
    cut = start.within(sample, made.reader, budget=20, answer_tokens=4)
    assert len(cut.token_ids) == 17 and cut.token_ids == sample.token_ids[:17]
    answer = replace(start, answers=True).within(sample, made.reader, 20, 4)
    assert answer.token_ids == sample.token_ids[:4] and not answer.finished
    assert start.room(20, 4) == 21 and replace(start, answers=True).room(20, 4) == 4


def test_a_curriculum_begins_with_half_of_the_budget(profile, tmp_path):
    made, _ = one_batch(profile, "budget_curriculum", tmp_path / "half")
    assert max(r.trace_tokens for r in made.rollouts) == 20
    made, _ = one_batch(profile, "outcome", tmp_path / "whole")
    assert max(r.trace_tokens for r in made.rollouts) == 40


def test_any_method_takes_the_curriculum_of_a_profile_and_a_method_its_own(profile, tmp_path):
    low = replace(profile, training=replace(profile.training, budgets=(0.25, 1.0)))
    made, _ = one_batch(low, "episode_progress", tmp_path / "quarter")
    assert max(r.trace_tokens for r in made.rollouts) == 10
    made.state.log_history.append({"generated": low.training.tokens // 2})
    assert made.present_budget == 40
    made, _ = one_batch(low, "budget_curriculum", tmp_path / "half")
    assert max(r.trace_tokens for r in made.rollouts) == 20
    assert runs.training_key(low, "outcome", 0) != runs.training_key(profile, "outcome", 0)


def test_the_outcome_of_budget_relative_is_paid_to_the_answer_alone(real, tmp_path):
    made, out = one_batch(real, "budget_relative", tmp_path)
    rewards = np.array([float(r.grade.correct) for r in made.rollouts]).reshape(2, 6)
    shared = credit.outcome(rewards).ravel()
    answered = [row for row, r in enumerate(made.rollouts) if r.closed]
    assert answered
    for row in answered:
        rollout = made.rollouts[row]
        behind = out["advantages"][row, rollout.trace_tokens + 1 : len(rollout.token_ids)]
        assert np.allclose(behind.numpy(), shared[row], atol=1e-5)
    assert len(made.found.J[0]) <= 1 + real.training.cuts


def test_all_tokens_through_the_model_are_in_the_log(profile, tmp_path):
    made = MRTTrainer(profile, "regret_to_go", 0, tmp_path)
    made.compared = True  # the comparison at the start is no part of a step
    policy, plain = made.accelerator.unwrap_model(made.model), made.twin.model
    obstacle(plain)  # as is the trial of a packed pass
    made.args.max_steps = 1
    with counted(policy) as first, counted(plain) as second:
        made.train()
    [log] = [log for log in made.state.log_history if "learned" in log]
    assert sum(log[name] for name in THROUGH) == sum(first) + sum(second)
    assert spent(made.state.log_history, "all") == sum(first) + sum(second)


def test_a_run_ends_by_all_tokens_where_these_are_counted(profile):
    every = replace(profile.training, most_steps=6, tokens=2500)
    by = {}
    for count in ("generated", "all"):
        own = replace(profile, training=replace(every, count=count))
        by[count] = read_table(runs.train(own, "regret_to_go", 0) / "steps.parquet", "steps")
    spent_ = by["all"][list(THROUGH)].sum(axis=1).cumsum()
    assert spent_.iloc[-1] >= 2500 and (spent_.iloc[:-1] < 2500).all()
    assert len(by["all"]) < len(by["generated"])


def test_the_best_on_validation_is_kept_apart_from_the_last(real, monkeypatch):
    marks = iter([0.2, 0.6, 0.6, 0.1])
    rows = {}

    def measure(self, prover, ranks):
        rows[len(rows) + 1] = prover.model.model.layers[3].mlp.down_proj.weight.clone()
        return validation.Validated(next(marks), 0.5, 0.7)

    monkeypatch.setattr(validation.Validator, "measure", measure)
    short = replace(real.training, most_steps=4, validate_every=1, group_size=4, micro_batch=8)
    own = replace(real, thinking=replace(real.thinking, budget=60), training=short,
                  evaluation=replace(real.evaluation, budgets=(28, 56)))  # fmt: skip
    folder = runs.train(own, "regret_to_go", 0)
    steps = read_table(folder / "steps.parquet", "steps")
    assert list(steps["validation"]) == [0.2, 0.6, 0.6, 0.1]
    assert (steps["validation_regret"] == 0.5).all()
    assert (steps["validation_forced"] == 0.7).all()
    for kept, step in ((folder / "best", 2), (folder, 4)):
        weight = Twin(load_policy(own, kept)).model.model.layers[3].mlp.down_proj.weight
        assert torch.allclose(weight, rows[step], rtol=0, atol=1e-6)
    assert (rows[2] - rows[4]).abs().max() > 1e-5


def saved(folder) -> torch.Tensor:
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def test_validation_is_no_part_of_the_run(profile):
    """Another rhythm gives the same adapter and key, and the same tokens."""
    adapters = []
    for every in (0, 1):
        own = replace(profile, training=replace(profile.training, validate_every=every))
        assert runs.training_key(own, "outcome", 0) == runs.training_key(profile, "outcome", 0)
        folder = runs.train(replace(own, name=f"every-{every}"), "outcome", 0)
        adapters.append(saved(folder))
        steps = read_table(folder / "steps.parquet", "steps")
        assert steps["validation"].notna().all() == bool(every)
    assert torch.equal(*adapters)


def test_learning_rates_warm_up_and_decay_by_the_tokens_spent(profile):
    own = replace(profile.training, most_steps=5, warmup_steps=1, schedule="linear", tokens=10**9,
                  max_grad_norm=0.5, beta=0.01)  # fmt: skip
    folder = runs.train(replace(profile, training=own), "outcome", 0)
    steps = read_table(folder / "steps.parquet", "steps")
    expected = [0.0, *(1e-2 * (1 - 0.9 * done / 5) for done in range(1, 5))]
    assert np.allclose(steps["learning_rate"], expected)
    assert steps["kl"].notna().all()


def test_a_method_from_outside_is_one_function_and_one_line(profile, monkeypatch):
    def first_episode(J, t, budget):
        """Pay the first episode alone."""
        return np.diff(J) * (np.arange(len(J) - 1) == 0)

    mine = Method(credit=Less(first_episode, credit.less_expected), to_maker=True)
    monkeypatch.setitem(METHODS, "mine", mine)
    with pytest.raises(ProfileError, match="no learning rate for 'mine'"):
        runs.train(profile, "mine", 0)
    rates = {**profile.training.learning_rate, "mine": 1e-2}
    own = replace(profile, training=replace(profile.training, learning_rate=rates))
    steps = read_table(runs.train(own, "mine", 0) / "steps.parquet", "steps")
    assert list(steps["step"]) == [1, 2] and steps["credit_square"].notna().all()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_by_its_name(profile, method):
    short = replace(profile.training, most_steps=1, watch_every=10**6)
    steps = read_table(runs.train(replace(profile, training=short), method, 0) / "steps.parquet",
                       "steps")  # fmt: skip
    assert list(steps["step"]) == [1] and steps[["validation", "learned"]].notna().all(axis=None)
    form = METHODS[method]
    assert steps["probed"].item() > 0 or not (form.credit or form.above_prefix)
