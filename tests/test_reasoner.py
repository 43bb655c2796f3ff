"""The reasoner's tokenizer loses nothing, its lessons teach what they should, training resumes."""

from dataclasses import replace
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mrtlib.config import Thinking
from mrtlib.reasoner.lessons import Recipe, batches, encode, lesson
from mrtlib.reasoner.making import ReasonerTraining, learning_rate, round_to_nf4
from mrtlib.tasks.countdown import countdown
from mrtlib.tasks.grading import grade

PROBLEMS = [countdown((3, 5, 7), 22, "three"), countdown((2, 3, 4, 10), 25, "four")]
SMALL = Recipe(width=64, layers=1, feed_forward=64, tokens=3000, batch_tokens=512)


def lessons(count=300, recipe=SMALL):
    rng = Random(0)
    return [(p, lesson(p, recipe, Thinking(), rng)) for p in PROBLEMS for _ in range(count)]


def test_tokens_joined_are_the_text_and_none_is_unknown(toy_tokenizer):
    texts = [[piece for _, made in lessons(50) for piece in made]]
    for ids, _ in encode(texts, toy_tokenizer):
        assert toy_tokenizer.unk_token_id not in ids
        whole = "".join(piece for piece, _ in texts[0])
        assert toy_tokenizer.decode(ids, clean_up_tokenization_spaces=False) == whole


def test_a_lesson_answers_what_its_trace_found_and_guesses_otherwise():
    guesses = []
    for problem, made in lessons():
        result = grade(problem, "".join(piece for piece, _ in made))
        if " works." in made[1][0]:
            assert result.correct
        else:
            assert result.reason in ("correct", "wrong")
            guesses.append(result.correct)
    assert 0 < sum(guesses) < len(guesses) / 2


def test_words_of_the_forced_termination_are_given_never_learned():
    stop = Thinking().stop_text
    forced = [made for _, made in lessons() if any(stop in piece for piece, _ in made)]
    assert 0.3 < len(forced) / 600 < 0.6
    for made in forced:
        assert not any(stop in piece for piece, learned in made if learned)
        assert made[-1][1]  # the answer is learned


def test_labels_cover_what_is_learned_and_nothing_else(toy_tokenizer):
    (ids, labels), = encode([[("Reach ", False), ("22", True)]], toy_tokenizer)
    assert labels == [-100, ids[1]]


def test_numbers_and_think_tags_are_one_token(toy_tokenizer):
    for text in ("7", "60", "99", "<think>", "</think>"):
        assert len(toy_tokenizer.encode(text, add_special_tokens=False)) == 1


def test_batches_go_on_where_they_were(toy_tokenizer):
    def first(start, count):
        stream = batches(PROBLEMS, SMALL, toy_tokenizer, start)
        return [next(stream)["input_ids"] for _ in range(count)]

    whole = first(0, 40)
    for late in (3, 35):
        for again, once in zip(first(late, 40 - late), whole[late:], strict=True):
            assert torch.equal(again, once)


def test_learning_rate_warms_up_and_falls():
    rates = [learning_rate(SMALL, done / 100) for done in range(101)]
    assert max(rates) == pytest.approx(SMALL.learning_rate, rel=0.01)
    assert rates[0] < 0.1 * max(rates) and rates[-1] == pytest.approx(0.02 * SMALL.learning_rate)


def test_rounding_equals_what_4bit_loading_makes_of_a_weight():
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    theirs = dequantize_4bit(packed, state)
    ours = round_to_nf4(weight)
    # Double quantisation rounds the scale of a block too, by at most a few per mille.
    assert (ours - theirs).abs().max() < 0.02
    assert (ours - weight).abs().max() > 0.1


def test_gradients_pass_through_the_rounding():
    weight = torch.randn(64, 64, requires_grad=True)
    round_to_nf4(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones(64, 64))


def test_a_training_cut_off_ends_like_one_that_was_not(tmp_path, monkeypatch):
    whole = ReasonerTraining(SMALL, PROBLEMS, tmp_path / "whole").run()
    cut = ReasonerTraining(SMALL, PROBLEMS, tmp_path / "cut")
    learn, calls = cut._learn, []

    def stop_midway(batch):
        if len(calls) == 3:
            cut._save()
            raise KeyboardInterrupt
        calls.append(1)
        learn(batch)

    monkeypatch.setattr(cut, "_learn", stop_midway)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = ReasonerTraining(SMALL, PROBLEMS, tmp_path / "cut").run()
    theirs = dict(resumed.named_parameters())
    for name, parameter in whole.named_parameters():
        assert torch.allclose(parameter, theirs[name], atol=1e-5)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    ReasonerTraining(SMALL, PROBLEMS, tmp_path)._save()
    with pytest.raises(ValueError, match="another recipe"):
        ReasonerTraining(replace(SMALL, seed=1), PROBLEMS, tmp_path).run()


def test_an_exported_model_loads_as_a_stock_model(tmp_path):
    made = ReasonerTraining(SMALL, PROBLEMS, tmp_path / "work")
    model = made.run()
    made.export(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokenizer("Reach 22 with 3, 5, 7.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-5)
