"""Backtracking search in the library's hands: read, forced to answer, fine-tuned, measured."""

from dataclasses import replace
from random import Random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mrtlib.config import ROOT, Model, load_profile
from mrtlib.experiments import warm_start as study
from mrtlib.models import tokens
from mrtlib.models.quantization import ModelError
from mrtlib.models.sampling import Sample
from mrtlib.prover.prover import Prover
from mrtlib.reasoner import attempts
from mrtlib.reasoner.lessons import Recipe, encode
from mrtlib.reasoner.making import REASONER, ReasonerTraining, adopt
from mrtlib.reasoner.stitching import KINDS
from mrtlib.rollouts import Reader
from mrtlib.store import read_csv
from mrtlib.tasks.countdown import countdown
from mrtlib.training import warm_start
from mrtlib.training.warm_start import FineTuning, fine_tune, held_out_loss

BACKTRACK = load_profile("backtrack")
THINKING = BACKTRACK.thinking
PROBLEMS = [countdown((3, 5, 7), 22, "three"), countdown((2, 3, 4, 10), 25, "four")]
WRONG = "Step 1: 7 - 5 = 2, left 3, 2.\n\nStep 2: 3 * 2 = 6, need 22.\n\n"
RIGHT = "Step 1: 5 * 3 = 15, left 7, 15.\n\nStep 2: 15 + 7 = 22, need 22.\n\n"
BACK = "Wrong, back to step 1.\n\n"
ANSWER = "The answer is \\boxed{5 * 3 + 7}<|end|>"


@pytest.fixture(scope="module")
def tokenizer():
    return attempts.build_tokenizer(THINKING)


@pytest.fixture(scope="module")
def profile(tmp_path_factory, tokenizer):
    """The profile over a random model of width 64."""
    folder = tmp_path_factory.mktemp("random")
    config = LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=192, max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(BACKTRACK, model=Model(str(folder), "none"))


def texts(tokenizer, count, seed=0):
    rng = Random(seed)
    return encode([attempts.lesson(PROBLEMS[0], attempts.RECIPE, THINKING, rng)
                   for _ in range(count)], tokenizer)  # fmt: skip


def test_without_an_opening_tag_the_prompt_ends_with_the_turn(tokenizer):
    assert tokens.think_ids(tokenizer, THINKING) == ([], tokenizer.encode("The answer is "))
    ids = tokens.prompt_ids(tokenizer, PROBLEMS[0].question, THINKING)
    assert tokenizer.decode(ids) == "<|user|>Reach 22 with 3, 5, 7.<|end|><|assistant|>"
    (lesson, _), = encode([attempts.pieces(PROBLEMS[0], "", "7", True, THINKING)], tokenizer)
    assert lesson[: len(ids)] == ids  # what was trained is what is prompted
    with pytest.raises(ModelError, match="cannot write the think tag ''"):
        tokens.think_ids(tokenizer, replace(THINKING, close_tag=""))


def test_a_trace_is_everything_before_the_answer(tokenizer):
    reader = Reader(tokenizer, THINKING)
    ids = tokenizer.encode(WRONG + BACK + RIGHT + ANSWER, add_special_tokens=False)
    rollout = reader.read(PROBLEMS[0], [0], Sample(ids, [0.0] * len(ids), True))
    assert rollout.closed and rollout.grade.correct
    parts = [0, *rollout.boundaries]
    found = [reader.decode(ids[a:b]) for a, b in zip(parts, parts[1:], strict=False)]
    assert found == [WRONG, BACK, RIGHT]
    assert reader.decode(ids[parts[-1] :]) == ANSWER


def test_the_prover_forces_and_scores_answers_at_every_boundary(profile, tokenizer):
    model = LlamaForCausalLM.from_pretrained(profile.model.name).eval()
    prover = Prover(model, tokenizer, profile)
    ids = tokenizer.encode(WRONG + BACK + RIGHT + ANSWER, add_special_tokens=False)
    rollout = prover.reader.read(PROBLEMS[0], [5], Sample(ids, [0.0] * len(ids), True))
    probe = prover.probe(rollout)
    ends = [prover.reader.decode(prover.termination.prompt(probe, j)) for j in range(4)]
    stop = THINKING.stop_text + "The answer is \\boxed{"
    assert ends[1].endswith(WRONG + stop) and ends[2].endswith(BACK + stop)
    assert ends[3].endswith(RIGHT + "The answer is \\boxed{") and stop not in ends[3]
    J, = prover.exact([rollout])
    assert J.shape == (4,) and (J > 0).all() and (J < 1).all()


def test_fine_tuning_lowers_the_held_out_loss(profile, tokenizer, tmp_path):
    settings = FineTuning(epochs=4, step_tokens=1024, learning_rate=5e-3, looks=4)
    known, others = texts(tokenizer, 120), texts(tokenizer, 30, seed=1)
    model, log = fine_tune(profile, known, others, 0, tmp_path, settings)
    losses = [row["loss"] for row in log]
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] == pytest.approx(held_out_loss(model, others), abs=1e-4)
    total = 4 * sum(len(ids) for ids, _ in known)
    assert log[0]["tokens"] == 0 and log[-1]["tokens"] == pytest.approx(total, rel=0.25)
    assert log[0]["train_loss"] is None and log[-1]["train_loss"] < log[1]["train_loss"]
    again, _ = fine_tune(profile, known, others, 0, tmp_path, settings)
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, dict(model.named_parameters())[name])


def test_the_held_out_loss_counts_tokens_and_not_texts(profile, tokenizer):
    model = LlamaForCausalLM.from_pretrained(profile.model.name).eval()
    some = texts(tokenizer, 5)
    total = count = 0
    for ids, labels in some:
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for n in range(1, len(ids)):
            if labels[n] != -100:
                total, count = total - float(logp[n - 1, labels[n]]), count + 1
    assert held_out_loss(model, some, rows=2) == pytest.approx(total / count, abs=1e-4)
    assert warm_start._learned(some[0][1]) == sum(label != -100 for label in some[0][1])


def test_a_model_that_starts_from_another_knows_its_words(tokenizer, tmp_path):
    small = Recipe(width=64, layers=1, feed_forward=64, tokens=100, batch_tokens=64)
    parent = ReasonerTraining(small, PROBLEMS, tmp_path / "work", REASONER)
    parent.export(tmp_path / "parent")
    course = attempts.course(THINKING, tmp_path / "parent")
    child = ReasonerTraining(replace(small, seed=1), PROBLEMS, tmp_path / "child", course)
    ours, theirs = child.tokenizer.get_vocab(), parent.tokenizer.get_vocab()
    new, old = child.model.model.embed_tokens.weight, parent.model.model.embed_tokens.weight
    for word in ("17", " + ", ".\n\n", "<|end|>"):
        assert torch.equal(new[ours[word]], old[theirs[word]])
    ids = parent.tokenizer.encode("7 + 5 = 12", add_special_tokens=False)
    same = child.tokenizer.encode("7 + 5 = 12", add_special_tokens=False)
    with torch.no_grad():
        a = parent.model(torch.tensor([ids])).logits[0, -1, ids]
        b = child.model(torch.tensor([same])).logits[0, -1, same]
    assert torch.allclose(a, b, atol=1e-5)
    other = ReasonerTraining(small, PROBLEMS, tmp_path / "alone", attempts.course(THINKING, None))
    adopt(other.model, other.tokenizer, tmp_path / "parent")
    for (name, p), q in zip(child.model.named_parameters(), other.model.parameters(), strict=True):
        assert "layers" not in name or torch.equal(p, q)


def test_the_committed_models_are_what_their_tables_say():
    accuracy = read_csv(ROOT / "data/runs/backtrack/warm_start_accuracy.csv")
    curves = read_csv(ROOT / "data/runs/backtrack/warm_start.csv")
    assert set(accuracy["kind"]) == {"base", *KINDS} and set(curves["kind"]) == set(KINDS)
    base = accuracy[accuracy["kind"] == "base"].iloc[0]
    assert 0.1 < base["accuracy"] < 0.5 and base["errors_named"] == 0
    assert (accuracy["arithmetic"] > 0.9).all()
    for folder in (study.BASE, BACKTRACK.model.name):
        loaded = tokens.load_tokenizer(replace(BACKTRACK, model=Model(folder)))
        assert loaded.get_vocab() == attempts.build_tokenizer(THINKING).get_vocab()
    size = sum(f.stat().st_size for f in (ROOT / "data/backtracker").rglob("*"))
    assert size < 12e6
