"""Text behind tokens, in a byte-pair vocabulary whose merges cross every joint of the project."""

import copy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mrtlib import hub
from mrtlib.config import Thinking, load_profile
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.models import tokens
from mrtlib.models.quantization import ModelError
from mrtlib.models.sampling import TransformersSampler
from mrtlib.models.tokens import Joiner, Spelling
from mrtlib.prover import exact, prover
from mrtlib.prover.probes import Probe, Termination, references_of
from mrtlib.prover.prover import Prover, _cause, _chance
from mrtlib.rollouts import Rollout
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import Grade, Problem

CHARACTERS = "0123457abWit.{}\n"
MERGES = [("\n", "\n"), (".", "\n\n"), ("}", "}"), ("}", "."), ("7", "}"), ("{", "4"),
          ("\n\n", "W")]  # fmt: skip
THINKING = Thinking(stop_text="ab.", close_text="\n</think>\n\n", answer_open="{", budget=16)
PROBLEM = Problem("p", "math", "math", "Seven and forty?", ("47",))


@pytest.fixture(scope="module")
def tokenizer():
    pieces = ["<pad>", "<end>", *CHARACTERS, *("".join(pair) for pair in MERGES)]
    core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, MERGES))
    core.add_tokens(["<think>", "</think>"])
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def joiner(tokenizer):
    return Joiner(tokenizer)


@pytest.fixture(scope="module")
def ending(joiner):
    return Termination(joiner, THINKING)


def pieces(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


def test_a_merge_across_the_joint_replaces_the_last_token(joiner, tokenizer):
    written = joiner.encode("aab.")
    stay, new = joiner.behind(written, "\n\nab", len(written))
    assert stay == len(written) - 1 and pieces(tokenizer, new) == [".\n\n", "a", "b"]
    assert [*written[:stay], *new] == joiner.encode("aab.\n\nab")


def test_what_may_not_be_replaced_stays(joiner, tokenizer):
    written = joiner.encode("aab.")
    stay, new = joiner.behind(written, "\n\nab", 0)
    assert stay == len(written) and pieces(tokenizer, new) == ["\n\n", "a", "b"]


def test_tokens_of_a_trace_stay_as_they_were_sampled(joiner, tokenizer):
    odd = tokenizer.convert_tokens_to_ids([".", "\n", "\n", "a", "}", "}", "a", "b"])
    assert odd != joiner.encode(joiner.decode(odd))
    stay, new = joiner.behind(odd, "a.", len(odd))
    assert stay == len(odd) and new == joiner.encode("a.")


def test_the_ending_is_one_text_behind_the_prefix(ending, joiner, tokenizer):
    trace = joiner.encode("aba.")
    probe = Probe(joiner.encode("ab\n"), trace, [2, 4], False, [])
    inside, behind = (pieces(tokenizer, ending.prompt(probe, j)[3:]) for j in (1, 2))
    assert inside == [*"ab", "\n\n", *"ab.", "\n", "</think>", "\n\n", "{"]
    assert behind == [*"aba", ".\n\n", *"ab.", "\n", "</think>", "\n\n", "{"]


def test_the_word_that_extends_a_trace_is_put_behind_it(joiner, tokenizer, ending):
    profile = replace(load_profile("smoke"), thinking=THINKING)
    evaluator = Evaluator(profile, "base", 0, Prover(None, tokenizer, profile))
    trace, wrong = joiner.encode("ab."), Grade(False, None, "truncated")
    rollout = Rollout(PROBLEM, [5], trace, 3, False, False, [3], [3], wrong)
    assert pieces(tokenizer, evaluator._start(rollout, "Wait")) == [
        "a", "b", ".\n\n", "W", "a", "i", "t"
    ]  # fmt: skip
    after_line = replace(rollout, token_ids=joiner.encode("ab\n"))
    assert pieces(tokenizer, evaluator._start(after_line, "Wait")) == ["a", "b", "\n", *"Wait"]


def test_an_answer_is_spelled_in_every_way_that_ends_it(joiner, tokenizer):
    ways = joiner.spellings("{", "47", "}")
    written = {
        tuple(pieces(tokenizer, way.tokens)): sorted(pieces(tokenizer, way.ends)) for way in ways
    }
    assert written == {("4", "7"): ["}", "}.", "}}"], ("4",): ["7}"]}


def test_a_leading_space_belongs_to_no_answer():
    """Some tokenizers put a space before a text that stands alone."""
    vocabulary = {"<unk>": 0, "\u2581": 1, "\u25817": 2, "7": 3, "}": 4, "{": 5, "\u2581{": 6}
    core = Tokenizer(models.BPE(vocabulary, [("\u2581", "7"), ("\u2581", "{")], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    joiner = Joiner(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>"))
    assert joiner.encode("7") == [2]
    assert joiner.spellings("{", "7", "}") == (Spelling((3,), (4,)),)


@pytest.fixture(scope="module")
def model(tokenizer):
    """A model that has learned three answers, two of them right, behind one trace.

    Behind another it writes `047}`, and without a trace `47}.`.
    """
    joiner = Joiner(tokenizer)
    ending = Termination(joiner, THINKING)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(found.parameters(), 3e-3)
        rows = []
        for trace, answers in (
            ("ab.", ("47}.", "47}}", "40}.")), ("ba.", ("047}",)), ("", ("47}.",))
        ):  # fmt: skip
            ids = joiner.encode(trace)
            read = ending.prompt(Probe([5], ids, [len(ids)] if ids else [], False, []), bool(ids))
            rows += [[*read, *joiner.encode(answer), 1] for answer in answers]
        width = max(map(len, rows))
        ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
        for _ in range(120):
            found(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return found.eval()


def probe_of(tokenizer, trace):
    joiner = Joiner(tokenizer)
    ids = joiner.encode(trace)
    return Probe([5], ids, [len(ids)], False, references_of(PROBLEM, joiner, THINKING))


def enumerated(model, tokenizer, read, length=4):
    """Return the probability that the graded answer is right: over all outputs of a length."""
    vocabulary = range(len(tokenizer))
    joiner, right, level = Joiner(tokenizer), 0.0, [((), 1.0)]
    for _ in range(length):
        rows = torch.tensor([[*read, *ids] for ids, _ in level])
        with torch.no_grad():
            p = torch.softmax(model(rows).logits[:, -1].double(), -1).numpy()
        grown = [((*ids, v), w * p[i, v]) for i, (ids, w) in enumerate(level) for v in vocabulary]
        right += sum(w for ids, w in grown if joiner.decode(ids).startswith("47}"))
        level = [(ids, w) for ids, w in grown
                 if w > 1e-7 and not joiner.decode(ids).startswith("47}")]  # fmt: skip
    return right


def test_exact_J_is_that_of_every_output_that_is_right(model, tokenizer, ending):
    probe = probe_of(tokenizer, "ab.")
    [J] = exact.packed(model, [probe], ending)
    expected = enumerated(model, tokenizer, ending.prompt(probe, 1))
    assert expected > 0.4 and J[1] == pytest.approx(expected, abs=1e-5)
    # Scored with the bare closing alone, as if the text were tokenised apart, nothing is left.
    apart = [(Spelling(tuple(tokenizer.convert_tokens_to_ids(list("47"))),
                       tuple(tokenizer.convert_tokens_to_ids(["}"]))),)]  # fmt: skip
    [bare] = exact.packed(model, [replace(probe, references=apart)], ending)
    assert bare[1] < 0.05


def rollouts(tokenizer, trace, count=4):
    ids = Joiner(tokenizer).encode(trace)
    wrong = Grade(False, None, "truncated")
    return [Rollout(PROBLEM, [5], ids, len(ids), False, False, [len(ids)], [len(ids)], wrong)
            for _ in range(count)]  # fmt: skip


@pytest.fixture
def prover_of(tokenizer, monkeypatch):
    """Make a prover that grades what stands in its small brackets."""
    profile = replace(load_profile("smoke"), thinking=replace(THINKING, answer_tokens=6))

    def graded(problem, text):
        return grade(problem, text.replace("{", "\\boxed{", 1))

    monkeypatch.setattr(prover, "grade", graded)
    return lambda model: Prover(model, tokenizer, profile, TransformersSampler(model, 0, 64))


def test_exact_J_that_agrees_with_sampled_J_is_kept(model, tokenizer, prover_of, tmp_path, capsys):
    mu = prover_of(model)
    mu.agree(rollouts(tokenizer, "ab."), 0, tmp_path / "c.json")
    found = mu.compared
    assert mu.is_exact and found.cause == "" and capsys.readouterr().out == ""
    assert found.answers == 64 and abs(found.exact - found.sampled) < 0.2


def test_exact_J_that_misses_right_answers_gives_way(
    model, tokenizer, prover_of, tmp_path, capsys
):
    some, mu = rollouts(tokenizer, "ba."), prover_of(model)
    mu.agree(some, 0, tmp_path / "c.json")
    said = capsys.readouterr().out
    assert not mu.is_exact and "no reference has, such as '047'" in said
    measured = mu.measure(some, 0)
    assert measured.drawn > 0 and measured.J[0][1] > 0.8
    again = prover_of(model)
    again.agree([], 0, tmp_path / "c.json")  # a run that goes on does not ask again
    assert not again.is_exact and capsys.readouterr().out == ""


def test_references_in_tokens_that_are_not_scored_are_named(
    model, tokenizer, prover_of, tmp_path, capsys, monkeypatch
):
    apart = [(Spelling(tuple(tokenizer.convert_tokens_to_ids(list("47"))),
                       tuple(tokenizer.convert_tokens_to_ids(["}"]))),)]  # fmt: skip
    monkeypatch.setattr(prover, "references_of", lambda *_: apart)
    mu = prover_of(model)
    mu.agree(rollouts(tokenizer, "ab."), 0, tmp_path / "c.json")
    assert not mu.is_exact and "thinking.answer_close" in capsys.readouterr().out


def test_the_bound_on_chance_is_one():
    """It is never below the share of honest draws that are as far off, and falls fast."""
    rng = np.random.default_rng(0)
    J = np.array([0.02, 0.3, 0.9, 0.5])
    drawn = rng.binomial(8, J, size=(20_000, 4))
    bounds = np.array([_chance(J, row, 8) for row in drawn])
    for level in (0.05, 0.2, 0.5):
        assert (bounds < level).mean() <= level
    assert _chance(J, np.array([8, 8, 8, 8]), 8) < 1e-3
    assert _chance(np.zeros(4), np.array([1, 0, 0, 0]), 8) == 0.0
    assert _chance(np.zeros(4), np.zeros(4), 8) == 1.0


def test_a_disagreement_that_cancels_out_is_named_too():
    assert "thinking.answer_close" in _cause(0.0, [(PROBLEM, Grade(True, "47", "correct"))])


def test_sampled_answers_are_read_behind_their_opening(model, tokenizer, ending, monkeypatch):
    probe, seen = probe_of(tokenizer, "ab."), []

    def graded(problem, text):
        seen.append(text)
        return Grade(text.startswith("{47}"), text, "")

    prompts = [ending.prompt(probe, j) for j in range(2)]
    drawn = TransformersSampler(model, 0, 64).sample(prompts, 400, 4, 1.0, 1.0, {1}, seed=0)
    monkeypatch.setattr(prover, "grade", graded)
    [found] = prover.graded([probe], [PROBLEM], drawn, ending)
    [J] = exact.packed(model, [probe], ending)
    assert abs(found.J[1] - J[1]) < 0.1 and all(text.startswith("{") for text in seen)
    assert len(set(product(seen))) > 1


QUESTION = "{{ messages[0].content }}"
BLOCK = QUESTION + "{% if enable_thinking %}<think>\n{% else %}<think></think>{% endif %}"


@pytest.mark.parametrize(
    ("template", "prompt"),
    [(BLOCK, "7<think>\n"), (f"{QUESTION}<think>", "7<think>"), (QUESTION, "7<think>\n")],
)
def test_the_think_block_is_open_at_the_end_of_a_prompt(template, prompt, toy_tokenizer):
    made = copy.deepcopy(toy_tokenizer)
    made.chat_template = template
    thinking = load_profile("tiny").thinking
    ids = tokens.prompt_ids(made, "7", thinking)
    assert ids == made.encode(prompt, add_special_tokens=False)


def test_a_template_that_never_thinks_is_refused(toy_tokenizer):
    made = copy.deepcopy(toy_tokenizer)
    made.chat_template = f"{QUESTION}<think></think>"
    with pytest.raises(ModelError, match="enable_thinking=True"):
        tokens.prompt_ids(made, "7", load_profile("tiny").thinking)


def test_a_hub_that_does_not_answer_is_one_clear_line_within_seconds(monkeypatch):
    """The hub's own library tries for a minute; what it had downloaded is used if there is any."""

    class Silent:
        def head(self, *_, timeout):
            assert timeout <= 10
            raise OSError("no route")

    asked = {}

    class Loader:
        @staticmethod
        def from_pretrained(name, **options):
            asked.update(options, name=name)
            raise OSError("not in the cache")

    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_session", Silent)
    hub.hub_answers.cache_clear()
    tiny = load_profile("tiny")
    remote = replace(tiny, model=replace(tiny.model, name="owner/model", revision="v2"))
    with pytest.raises(ModelError, match="cannot load owner/model: .*hub"):
        tokens.fetch(Loader, remote)
    assert asked == {"name": "owner/model", "revision": "v2", "trust_remote_code": False,
                     "local_files_only": True}  # fmt: skip
    hub.hub_answers.cache_clear()
