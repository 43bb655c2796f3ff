"""Rounds of fine-tuning: what is kept and learned, token for token; resume; equal tokens."""

from dataclasses import replace
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mrtlib import credit
from mrtlib.config import Lora, ProverSettings, load_profile
from mrtlib.models.loading import ADAPTER_FILES, HASHES, add_lora, load_base
from mrtlib.models.quantization import ModelError, layers_4bit
from mrtlib.models.sampling import Sample
from mrtlib.models.tokens import load_tokenizer
from mrtlib.prover.prover import Prover
from mrtlib.rollouts import Reader, of_record
from mrtlib.store import read_table
from mrtlib.tasks.problems import load_problems
from mrtlib.training import runs
from mrtlib.training.finetuning import FORMS, FineTuning, fine_tune, make_trainer, to_read
from mrtlib.training.selection import Sampling, Step, closed_prefix
from mrtlib.training.source import Source
from mrtlib.training.trainer import MRTTrainer
from mrtlib.training.validation import SEED, Validator

SIZE, ROWS, ROUNDS, TOKENS = 4, 16, 2, 5000  # rollouts of a group and of a step
CLOCKS = {"sampling_s", "probing_s", "learning_s"}


def small(profile, **changes):
    """Two rounds, of three steps in all: groups of four, four problems a step."""
    training = replace(profile.training, tokens=TOKENS, most_steps=50, rounds=ROUNDS,
                       problems_per_step=ROWS // SIZE, group_size=SIZE, micro_batch=8)  # fmt: skip
    return replace(profile, training=replace(training, **changes))


@pytest.fixture(scope="module")
def profile():
    base = load_profile("smoke")
    return small(replace(base, thinking=replace(base.thinking, budget=112)))


@pytest.fixture(scope="module")
def done(profile, tmp_path_factory):
    """Every form's run: its folder and its rows."""
    found = {}
    for method in FORMS:
        work = tmp_path_factory.mktemp(method)
        found[method] = work, fine_tune(profile, method, 0, work)[1]
    return found


@pytest.fixture
def toy(toy_profile):
    """A random model, which is never right."""
    base = toy_profile("nf4")
    thinking = replace(base.thinking, budget=40, answer_tokens=8)
    return small(replace(base, lora=Lora(rank=4, alpha=8), thinking=thinking), tokens=1200)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / ADAPTER_FILES[0])


def equal(first: dict, second: dict) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def recorded(profile, work, table: str, number: int):
    """Return a round's records as rollouts, and as they are."""
    problems = {p.id: p for p in load_problems(profile.problems / "train.jsonl")}
    rows = read_table(work / table / f"round-{number:03d}.parquet", "rollouts")
    return [of_record(row, problems[row["problem"]]) for _, row in rows.iterrows()], rows


def prover_of(profile) -> Prover:
    return Prover(load_base(profile), load_tokenizer(profile), profile)


@pytest.mark.parametrize("method", FORMS)
def test_rows_say_what_was_done(profile, done, method):
    work, rows = done[method]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["method"] for row in rows} == {method}
    sampled = [recorded(profile, work, "sampled", n)[0] for n in range(ROUNDS)]
    steps = [r for part in sampled for r in part]
    assert len(steps) == len(rows) * ROWS
    for i, row in enumerate(rows):
        own = steps[i * ROWS : (i + 1) * ROWS]
        assert row["reward"] == np.mean([r.grade.correct for r in own])
        assert row["sampled"] >= sum(len(r.token_ids) - 1 for r in own)
        before = rows[i - 1]["generated_tokens"] if i else 0
        written = row["generated_tokens"] - before - sum(len(r.token_ids) for r in own)
        assert written == 0 or (method == "mrt_star_cut" and 0 < written <= ROWS * 32)
    watched = [FORMS[method].needs_J or i % profile.training.watch_every == 0
               for i in range(len(rows))]  # fmt: skip
    assert [row["regret"] is not None for row in rows] == watched
    assert [row["probed"] > 0 for row in rows] == watched
    ends = np.cumsum([len(part) // ROWS for part in sampled])
    assert [i + 1 for i, row in enumerate(rows) if row["learned"]] == ends.tolist()


def test_all_forms_generate_as_many_tokens_and_a_round_ends_with_its_share(profile, done):
    for method, (work, rows) in done.items():
        spent = np.array([row["generated_tokens"] for row in rows])
        assert spent[-1] >= TOKENS > spent[-2], method
        sizes = [len(recorded(profile, work, "sampled", n)[0]) // ROWS for n in range(ROUNDS)]
        first = sizes[0]
        assert spent[first - 1] >= TOKENS / ROUNDS > (spent[first - 2] if first > 1 else 0)


def test_the_first_step_is_that_of_the_trainer(profile, done, tmp_path):
    made = MRTTrainer(profile, "outcome", 0, tmp_path)
    made._generate_and_score_completions(next(iter(made.get_train_dataloader())))
    theirs = [(r.problem.id, r.token_ids) for r in made.rollouts]
    for method, (work, _) in done.items():
        first, _ = recorded(profile, work, "sampled", 0)
        assert [(r.problem.id, r.token_ids) for r in first[: ROWS]] == theirs, method


def test_star_learns_every_right_rollout_as_it_was_sampled(profile, done):
    for number in range(ROUNDS):
        sampled, _ = recorded(profile, done["star"][0], "sampled", number)
        learned, _ = recorded(profile, done["star"][0], "learned", number)
        right = [r.token_ids for r in sampled if r.grade.correct]
        assert right and [r.token_ids for r in learned] == right


def test_keep_learns_of_each_group_the_right_ones_with_the_largest_J(profile, done):
    sampled, _ = recorded(profile, done["mrt_star_keep"][0], "sampled", 0)
    learned, _ = recorded(profile, done["mrt_star_keep"][0], "learned", 0)
    J = prover_of(profile).exact(sampled)
    expected = []
    for first in range(0, len(sampled), SIZE):
        right = [i for i in range(first, first + SIZE) if sampled[i].grade.correct]
        best = max((J[i][-1] for i in right), default=0)
        expected += [sampled[i].token_ids for i in right if J[i][-1] >= best - credit.TIE]
    assert expected and [r.token_ids for r in learned] == expected


def test_cut_learns_traces_that_end_where_they_gained_most_and_are_right(profile, done):
    sampled, _ = recorded(profile, done["mrt_star_cut"][0], "sampled", 0)
    learned, rows = recorded(profile, done["mrt_star_cut"][0], "learned", 0)
    prover, wholes, cuts = prover_of(profile), 0, 0
    starts = {}
    for rollout, J in zip(sampled, prover.exact(sampled), strict=True):
        J = J[:-1] if rollout.truncated and len(J) > 1 else J
        j = next(j for j in range(len(J)) if J[j] >= J.max() - credit.TIE)
        if J[j] - J[0] > credit.TIE:
            starts[tuple(rollout.trace_ids[: rollout.boundaries[j - 1]])] = rollout
    for rollout, text in zip(learned, rows["text"], strict=True):
        source = starts[tuple(rollout.trace_ids)]
        whole = rollout.token_ids == source.token_ids
        wholes, cuts = wholes + whole, cuts + (not whole)
        again = prover.reader.read(source.problem, source.prompt_ids,
                                   Sample(rollout.token_ids, [], True))  # fmt: skip
        assert again.closed and again.grade.correct and again.boundaries == rollout.boundaries
        assert rollout.token_ids[-1] in prover.reader.end_ids
        assert text.count("</think>\n\nThe answer is \\boxed{") == 1 and "Time is up" not in text
        assert prover.reader.joiner.encode(text) == rollout.token_ids
    assert cuts and wholes + cuts == len(learned) <= len(sampled)


def test_a_trace_that_ends_wrongly_may_be_cut_where_it_was_right(profile):
    source = Source(profile, 0)
    problem = next(p for p in source.problems if p.level == "three")
    prompt = source.prompts[problem.question]
    found = f"So {problem.references[0]} works.\n\n"
    text = found + "But wait, 1 + 1 = 2.\n\n</think>\n\nThe answer is \\boxed{1}<|end|>"
    encode = source.reader.joiner.encode
    rollout = source.reader.read(problem, prompt, Sample(encode(text), [], True))
    assert rollout.closed and not rollout.grade.correct
    rollout = replace(rollout, boundaries=[len(encode(found)), rollout.trace_tokens])
    sampling = Sampling(source, FORMS["mrt_star_cut"], load_base(profile), profile.runs)

    def kept(*J):
        return sampling._kept([rollout] * SIZE, [(np.array(J), np.arange(3))] * SIZE, 0)

    learned, drawn = kept(0.0, 1.0, 0.2)
    assert 0 < drawn <= SIZE * profile.thinking.answer_tokens
    assert learned and all(r.grade.correct for r in learned)
    assert {tuple(r.trace_ids) for r in learned} == {tuple(encode(found))}
    assert kept(0.0, 0.2, 1.0) == ([], 0)  # cut at its own end, where its own answer is wrong


@pytest.mark.parametrize("method", ["star", "mrt_star_cut"])
def test_a_run_that_was_killed_goes_on_to_the_same_end(profile, done, method, tmp_path):
    work, whole = done[method]
    copytree(work, tmp_path / "cut")
    cut = tmp_path / "cut"
    (cut / "steps" / "round-001.parquet").unlink()  # killed just before the round was whole
    (cut / "adapter-1" / ADAPTER_FILES[0]).write_bytes(b"torn")
    policy, rows = fine_tune(profile, method, 0, cut)
    assert [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows] == [
        {k: v for k, v in row.items() if k not in CLOCKS} for row in whole
    ]
    for number in range(ROUNDS):
        assert equal(weights(cut / f"adapter-{number}"), weights(work / f"adapter-{number}"))
    stamps = {path: path.stat().st_mtime_ns for path in cut.rglob("*.parquet")}
    again, same = fine_tune(profile, method, 0, cut)  # nothing is left to do
    assert len(same) == len(rows)
    assert stamps == {path: path.stat().st_mtime_ns for path in cut.rglob("*.parquet")}
    for (name, ours), theirs in zip(policy.named_parameters(), again.parameters(), strict=True):
        if "lora_" in name:
            assert ours.dtype == torch.float32 and torch.equal(ours, theirs)


def test_rounds_behind_one_that_is_lost_are_not_counted(profile, done, tmp_path):
    work, rows = done["star"]
    copytree(work, tmp_path, dirs_exist_ok=True)
    run = FineTuning(profile, "star", 0, tmp_path)
    assert run.rounds_done == ROUNDS and len(run.finished()) == len(rows)
    (tmp_path / "steps" / "round-000.parquet").unlink()
    assert run.rounds_done == 0 and run.finished() == []
    run._record(0, rows[:1], [], [])  # what was sampled behind the lost round is another run's
    assert run.rounds_done == 1 and run.steps.keys() == ["round-000"]


def test_each_round_starts_from_the_base_with_the_same_adapters(profile, done):
    """What a round leaves depends on what it kept alone: learn it again from the base."""
    work, _ = done["star"]
    learned, _ = recorded(profile, work, "learned", 1)
    policy = add_lora(load_base(profile), profile.lora, 0)
    trainer = make_trainer(policy, load_tokenizer(profile), learned, profile, "star", 0, work)
    trainer.train()
    last = weights(work / "adapter-1")
    ours = {name.replace(".default", ""): p for name, p in policy.named_parameters()
            if p.requires_grad}  # fmt: skip
    assert equal(ours, last)
    assert not equal(last, weights(work / "adapter-0"))


def test_the_loss_is_that_of_the_completions_tokens_alone(profile, done):
    learned, _ = recorded(profile, done["star"][0], "learned", 0)
    learned, tokenizer = learned[:4], load_tokenizer(profile)
    policy = add_lora(load_base(profile), profile.lora, 0)
    trainer = make_trainer(policy, tokenizer, learned, profile, "star", 0, done["star"][0])
    assert all(p.dtype == torch.float32 for p in policy.parameters() if p.requires_grad)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    for row, rollout in enumerate(learned):
        n, m = len(rollout.prompt_ids), len(rollout.token_ids)
        assert batch["input_ids"][row, : n + m].tolist() == rollout.prompt_ids + rollout.token_ids
        expected = [-100] * n + rollout.token_ids
        expected += [-100] * (batch["labels"].shape[1] - n - m)
        assert batch["labels"][row].tolist() == expected
    logp, count, base = 0.0, 0, load_base(profile)
    with torch.no_grad():
        for rollout in learned:
            ids = torch.tensor([rollout.prompt_ids + rollout.token_ids])
            rows = torch.log_softmax(base(ids).logits[0, :-1], -1)
            chosen = rows.gather(1, ids[0, 1:, None])[len(rollout.prompt_ids) - 1 :, 0]
            logp, count = logp + float(chosen.sum()), count + len(chosen)
        loss = trainer.compute_loss(policy, batch)
    assert float(loss) == pytest.approx(-logp / count, rel=1e-3)
    assert count == sum(len(r.token_ids) for r in learned)


def test_the_policy_is_trained(profile, done):
    """It finds what it learned more probable than the base does."""
    work, rows = done["star"]
    learned, _ = recorded(profile, work, "learned", 1)
    policy, base = FineTuning(profile, "star", 0, work).policy(ROUNDS), load_base(profile)
    gained = []
    with torch.no_grad():
        for rollout in learned:
            ids = torch.tensor([rollout.prompt_ids + rollout.token_ids])
            rows = [torch.log_softmax(m(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])
                    for m in (policy, base)]  # fmt: skip
            gained.append(float((rows[0] - rows[1])[len(rollout.prompt_ids) - 1 :].sum()))
    assert np.mean(gained) > 0


def test_each_round_is_validated_and_the_best_is_kept(profile, done, tmp_path):
    for method, (work, rows) in done.items():
        found = [row["validation"] for row in rows if row["learned"]]
        assert len(found) == ROUNDS and all(0 <= value <= 1 for value in found), method
        assert [row["validation"] is None for row in rows] == [not row["learned"] for row in rows]
        best = work / f"adapter-{int(np.argmax(found))}"
        assert equal(weights(work / "best"), weights(best))
    run = FineTuning(profile, "star", 0, done["star"][0])
    sampling = run.sampling(1)
    again = Validator(profile, run.source.reader).measure(sampling.prover)
    first = next(row for row in done["star"][1] if row["learned"])
    assert again.validation == first["validation"]
    assert again.validation_regret == pytest.approx(first["validation_regret"], abs=1e-6)
    rollouts = Validator(profile, run.source.reader).rollouts(sampling.prover.sampler)
    ends = [j[-1] for j in sampling.prover.measure(rollouts, SEED).J]
    assert first["validation_forced"] == pytest.approx(np.mean(ends), abs=1e-6)


@pytest.mark.parametrize("method", FORMS)
def test_a_round_that_keeps_nothing_says_so_and_leaves_the_policy(toy, method, tmp_path, capsys):
    policy, rows = fine_tune(toy, method, 0, tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if "none of" in line]
    assert len(said) == ROUNDS and "stays as it was" in said[0]
    assert all(row["learned"] is None and row["reward"] == 0 for row in rows)
    fresh = add_lora(load_base(toy), toy.lora, 0)
    for (name, ours), theirs in zip(policy.named_parameters(), fresh.parameters(), strict=True):
        if "lora_" in name:
            assert torch.equal(ours, theirs)


def test_answers_that_are_drawn_count_as_generated(toy, tmp_path):
    sampled = replace(toy, prover=ProverSettings(estimator="sampled", samples=3))
    source = Source(sampled, 0)
    sampling = Sampling(source, FORMS["mrt_star_keep"], load_base(sampled), tmp_path / "x.json")
    step = sampling.step(0, source.order()[0])
    written = sum(len(r.token_ids) for r in step.rollouts)
    boundaries = sum(len(r.boundaries) + 1 for r in step.rollouts)
    assert written + 3 * boundaries <= step.generated <= written + 3 * 8 * boundaries
    assert step.columns["prover_tokens"] + step.generated - written == step.columns["probed"]


def test_tokens_can_bound_what_is_read_as_well(toy, tmp_path):
    every = replace(toy, training=replace(toy.training, count="all"))
    run = FineTuning(every, "mrt_star_keep", 0, tmp_path)
    rows = [{"generated_tokens": 100, "sampled": 90.0, "probed": 30.0, "learned": None},
            {"generated_tokens": 200, "sampled": 90.0, "probed": 50.0, "learned": 400.0}]
    assert run.share(rows) == 660 / 1200
    assert FineTuning(toy, "mrt_star_keep", 0, tmp_path).share(rows) == 200 / 1200
    assert run.share([]) == 0


def test_what_a_round_will_learn_is_in_its_share(profile, done, tmp_path, monkeypatch):
    """Else the first round learns with the tokens of the second, which has next to none left."""
    training = replace(profile.training, count="all", tokens=60_000, rounds=3, validate_every=0)
    run = FineTuning(replace(profile, training=training), "star", 0, tmp_path)
    kept = recorded(profile, done["star"][0], "learned", 0)[0][:2]  # of each step
    columns = {"sampled": 800.0, "probed": 100.0, "prover_tokens": 100, "reward": 0.5,
               "length": 100.0}  # fmt: skip
    step = Step(columns, 800, kept, kept)
    monkeypatch.setattr(run, "sampling", lambda _: SimpleNamespace(step=lambda *_: step))
    monkeypatch.setattr(run, "_learn", lambda _, kept, of: {"learned": float(to_read(kept, 8))})
    rows, rounds = [], []
    for number in range(3):
        rows += run.round(number, rows)
        rounds.append(run.share(rows))
    assert np.diff([0, *rounds]) == pytest.approx([1 / 3] * 3, rel=0.15)


def test_what_learning_reads_is_foreseen(profile, done):
    for number in range(ROUNDS):
        work, rows = done["star"]
        kept, _ = recorded(profile, work, "learned", number)
        [learned] = [row["learned"] for row in rows if row["learned"]][number : number + 1]
        assert to_read(kept, profile.training.micro_batch) == pytest.approx(learned, rel=0.1)
    assert to_read([], 8) == 0


def test_few_steps_end_a_run_as_well(toy, tmp_path):
    short = replace(toy, training=replace(toy.training, tokens=10**6, most_steps=4))
    _, rows = fine_tune(short, "star", 0, tmp_path)
    assert len(rows) == 4
    assert len(read_table(tmp_path / "steps" / "round-000.parquet", "steps")) == 2


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_end_at_a_tenth(profile, done, schedule):
    learned, _ = recorded(profile, done["star"][0], "learned", 0)
    own = replace(profile, training=replace(profile.training, schedule=schedule))
    policy = add_lora(load_base(own), own.lora, 0)
    trainer = make_trainer(policy, load_tokenizer(own), learned, own, "star", 0, done["star"][0])
    trainer.create_optimizer_and_scheduler(20)
    rates = []
    for _ in range(21):
        rates.append(trainer.lr_scheduler.get_last_lr()[0] / own.training.learning_rate["star"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert rates[0] == pytest.approx(1 / 3)  # a tenth of the updates warms up
    middle, last = {"constant": (1, 1), "linear": (0.55, 0.1), "cosine": (0.55, 0.1)}[schedule]
    assert rates[10] == pytest.approx(middle) and rates[20] == pytest.approx(last)


def test_a_closing_is_written_as_the_model_ends_by_itself(profile):
    prover, tokenizer = prover_of(profile), load_tokenizer(profile)
    reader = Reader(tokenizer, profile.thinking)
    problem = load_problems(profile.problems / "train.jsonl", 1)[0]
    for text, ending in (
        ("2 + 3 = 5.\n\n", "2 + 3 = 5.\n\n</think>\n\nThe answer is \\boxed{"),
        ("2 + 3", "2 + 3\n\n</think>\n\nThe answer is \\boxed{"),
    ):
        ids = reader.joiner.encode(text)
        rollout = reader.read(problem, [7, 8], Sample(ids, [], False))
        start = closed_prefix(prover, replace(rollout, boundaries=[len(ids)]), 1)
        assert start[:2] == [7, 8] and reader.decode(start[2:]) == ending
        assert start[2 : 2 + len(ids)] == ids


def test_train_dispatches_and_writes_what_the_trainer_writes(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    folder = runs.train(toy, "star", 1)
    steps = read_table(folder / "steps.parquet", "steps")
    assert set(steps["method"]) == {"star"} and set(steps["seed"]) == {1}
    assert {path.name for path in folder.iterdir()} == {
        *ADAPTER_FILES, HASHES, "best", "comparison.json", "key.json", "steps.parquet"
    }
    assert (folder / ADAPTER_FILES[0]).is_file()
    stamp = (folder / "steps.parquet").stat().st_mtime_ns
    assert runs.train(toy, "star", 1) == folder
    assert (folder / "steps.parquet").stat().st_mtime_ns == stamp


def test_a_base_that_was_packed_for_inference_is_not_trained(profile, done):
    learned, _ = recorded(profile, done["star"][0], "learned", 0)
    policy = add_lora(load_base(profile), profile.lora, 0)
    layers_4bit(policy)[0].weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ModelError, match="1 4-bit layers are packed"):
        make_trainer(policy, load_tokenizer(profile), learned, profile, "star", 0, done["star"][0])
