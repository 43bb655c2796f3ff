"""J by packed teacher forcing against plain rows, enumeration of all answers, and sampling."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from mrtlib.config import Thinking, load_profile
from mrtlib.models.compatibility import obstacle
from mrtlib.models.packing import counted
from mrtlib.models.quantization import assert_unpacked, guard_4bit
from mrtlib.models.sampling import TransformersSampler
from mrtlib.models.tokens import Joiner, Spelling
from mrtlib.prover import exact, prover
from mrtlib.prover.probes import Probe, ProverError, Termination
from mrtlib.rollouts import Rollout
from mrtlib.stats import wilson
from mrtlib.store import SCHEMAS
from mrtlib.tasks.countdown import countdown
from mrtlib.tasks.problems import Grade

VOCAB = 50
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
LABELS = {"method": "base", "seed": 0, "level": "three", "problem": "p", "sample": 1}


def build(kind="llama", attention="sdpa", vocab=VOCAB, layers=2, **changes):
    config = CONFIGS[kind](
        vocab_size=vocab, hidden_size=64, intermediate_size=128, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        pad_token_id=0, bos_token_id=None, eos_token_id=1, **changes,
    )  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        for name, parameter in model.named_parameters():  # far from uniform
            if "proj" in name or "lm_head" in name:
                parameter *= 4
    return model


@dataclass(frozen=True)
class GivenIds(Termination):
    """An ending of given ids; tokens for which `ends_line` is true end a line."""

    stop: tuple[int, ...] = (30, 31)
    blank: tuple[int, ...] = (32,)
    close: tuple[int, ...] = (5, 6)
    opening: tuple[int, ...] = (7,)
    ends_line: Callable[[int], bool] = lambda token: token % 2 == 0

    def prompt(self, probe, j):
        prefix = probe.trace_ids[: probe.ends[j]]
        read = [*probe.prompt_ids, *prefix]
        if probe.kind(j) == "natural":
            return [*read, *self.close, *self.opening]
        opened = prefix and not self.ends_line(prefix[-1])
        return [*read, *(self.blank if opened else ()), *self.stop, *self.close, *self.opening]

    def answer(self, ids):
        return " ".join(map(str, [*self.opening, *ids]))


def closed(references, close=(3,)):
    """References of one spelling each, ended by any of the tokens `close`."""
    return [(Spelling(tuple(ids), close),) for ids in references]


def some_probes(references=None):
    rng = np.random.default_rng(3)
    references = closed(references or [[10, 11, 12], [10, 11, 13], [10, 14], [15]])
    return [
        Probe(
            rng.integers(8, 30, 5 + length % 3).tolist(),
            rng.integers(8, 30, length).tolist(),
            cuts,
            natural,
            references,
        )
        for length, cuts, natural in (
            (21, [4, 9, 21], True), (12, [12], False), (0, [], False), (30, [3, 8, 20, 27], False),
        )
    ]  # fmt: skip


def bound(tokens):
    """Bound rows and passes alike."""
    return exact.Limits(row=tokens, joined=tokens)


def assert_close(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float64 and one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=1e-12)


def tokens_of(model, action):
    """Run an action; return the padded tokens of each forward pass."""
    obstacle(model)  # tried once, and not a part of the action
    with counted(model) as fed:
        return action(), fed


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_packed_is_unpacked(kind, attention):
    model = build(kind, attention)
    packed, fed = tokens_of(model, lambda: exact.packed(model, some_probes(), GivenIds()))
    plain, more = tokens_of(
        model, lambda: exact.unpacked(model, some_probes(), GivenIds())
    )
    assert_close(packed, plain)
    assert len(fed) <= 4 and 4 * sum(fed) < sum(more)
    assert min(J.min() for J in packed) > 0


def with_lora(model):
    """Put adapters on a model that change what it does."""
    settings = LoraConfig(r=4, target_modules=["q_proj", "o_proj"], lora_dropout=0.5)
    policy = get_peft_model(model, settings).eval()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    return policy


@pytest.mark.parametrize("kind", CONFIGS)
def test_packed_is_unpacked_with_lora(kind):
    policy = with_lora(build(kind))
    policy.train()
    packed = exact.packed(policy, some_probes(), GivenIds())
    assert_close(packed, exact.unpacked(policy, some_probes(), GivenIds()))
    with policy.disable_adapter():
        base = exact.packed(policy, some_probes(), GivenIds())
    assert max(abs(a - b).max() for a, b in zip(packed, base, strict=True)) > 1e-4
    assert policy.training


@pytest.mark.parametrize("lora", [False, True], ids=["bare", "lora"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_packed_is_unpacked_in_four_bits(kind, lora, tmp_path):
    build(kind).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        ),
        dtype=torch.float32,
    )
    guard_4bit(model)
    model = with_lora(model) if lora else model
    packed = exact.packed(model, some_probes(), GivenIds())
    assert_close(packed, exact.unpacked(model, some_probes(), GivenIds()))
    probes, kept = kept_traces(model, some_probes())
    assert_close(
        exact.packed(model, probes, GivenIds(), kept=kept),
        exact.unpacked(model, probes, GivenIds()),
    )
    assert_unpacked(model)


@pytest.mark.parametrize("limit", [25, 60, 90])
def test_split_passes_give_the_same(limit):
    model, cases = build(), some_probes()
    if limit == 25:  # the longest chain of the first three is 6 + 21 + 3 + 4 = 34
        with pytest.raises(ValueError, match="over the limit of 25"):
            exact.packed(model, cases, GivenIds(), limits=bound(limit))
        return
    whole = exact.packed(model, cases, GivenIds())
    split, fed = tokens_of(
        model, lambda: exact.packed(model, cases, GivenIds(), limits=bound(limit))
    )
    assert_close(split, whole)
    assert len(fed) > 2 and max(fed) <= limit
    assert_close(exact.unpacked(model, cases, GivenIds(), limits=bound(limit)), whole)


def test_what_is_read_twice_is_asked_once():
    """Rollouts of a problem share J_0, and what is behind a beginning that they have in common."""
    model, [first, *_] = build(), some_probes()
    other = replace(first, trace_ids=[*first.trace_ids[:9], 8, 9, 8], boundaries=[4, 9, 12])
    fewer = replace(first, references=first.references[:2])
    for score in (exact.packed, exact.unpacked):
        probes = [first, other, fewer, first]
        (shared, fed), (apart, more) = (
            tokens_of(model, lambda: score(model, probes, GivenIds(), 1.0, limits))  # noqa: B023
            for limits in (exact.Limits(), exact.Limits(equal_once=False))
        )
        assert_close(shared, apart, 1e-6)
        assert_close(shared, [score(model, [p], GivenIds())[0] for p in probes], 1e-6)
        assert sum(fed) < 0.7 * sum(more)
        assert (shared[0][:3] == shared[1][:3]).all() and shared[0][3] != shared[1][3]
        assert (shared[2] < shared[0]).all()  # the same prompts, but fewer answers are right


def kept_traces(model, probes):
    """Sample something behind each probe's prompt; all of it, or a part, is the new trace."""
    sampler = TransformersSampler(model, 0, 3)  # in several batches
    drawn, kept = sampler.sample_and_keep([p.prompt_ids for p in probes], 30, 1.0, 1.0, {1}, 1)
    cut = []
    for at, (probe, sample) in enumerate(zip(probes, drawn, strict=True)):
        trace = sample.token_ids[: None if at % 2 else 20]
        ends = sorted({t for t in probe.boundaries if t < len(trace)} | {len(trace)})
        cut.append(replace(probe, trace_ids=trace, boundaries=ends))
    return cut, kept


@pytest.mark.parametrize("limit", [60, 4096])
@pytest.mark.parametrize("kind", CONFIGS)
def test_kept_caches_give_the_same(kind, limit):
    model = build(kind)
    probes, kept = kept_traces(model, some_probes() * 2)
    missing = [len(p.prompt_ids) + len(p.trace_ids) - len(k.token_ids)
               for p, k in zip(probes, kept, strict=True)]  # fmt: skip
    assert max(missing) == 1  # of some traces all was drawn, and its last token is in no cache
    assert len({len(k.token_ids) for k in kept}) > 2  # rows left the batch at different steps
    whole, more = tokens_of(model, lambda: exact.packed(model, probes, GivenIds()))
    spared, fewer = tokens_of(
        model, lambda: exact.packed(model, probes, GivenIds(), 1.0, bound(limit), kept)
    )
    assert_close(spared, whole)
    assert sum(fewer) < 0.8 * sum(more)


def test_a_kept_cache_of_something_else_is_not_used():
    model = build()
    probes, kept = kept_traces(model, some_probes())
    whole = exact.packed(model, probes, GivenIds())
    mixed = [replace(k, token_ids=[t + 1 for t in k.token_ids]) for k in kept]
    assert_close(exact.packed(model, probes, GivenIds(), kept=mixed), whole)
    broken = [replace(k, layers=[(a * 2, b) for a, b in k.layers]) for k in kept]
    wrong = exact.packed(model, probes, GivenIds(), kept=broken)
    assert max(abs(a / b - 1).max() for a, b in zip(wrong, whole, strict=True)) > 0.1


def test_a_suffix_like_the_trace_is_not_taken_for_it():
    """A split row ends its trace early; what stands behind it is not the kept trace."""
    model, prompt, ends = build(), [25, 9, 11], [5, 15, 28]
    [sample], [kept] = TransformersSampler(model, 0, 1).sample_and_keep(
        [prompt], 30, 1.0, 1.0, set(), 0
    )
    trace = sample.token_ids[:28]
    probe = Probe(prompt, trace, ends, False, closed([[10, 11, 12], [10, 14], [15]]))
    # The stop text is how the trace goes on behind t_1, but stands behind t_0 and t_2 too.
    ending = GivenIds(blank=(), stop=tuple(trace[5:8]))
    whole = exact.packed(model, [probe], ending)
    assert_close(whole, exact.unpacked(model, [probe], ending))
    for limit in (45, 60, 4096):
        spared = exact.packed(model, [probe], ending, 1.0, bound(limit), [kept])
        assert_close(spared, whole)


def test_temperature_divides_the_logits():
    model, cases = build(), some_probes()
    cold = exact.packed(model, cases, GivenIds(), temperature=0.5)
    assert_close(cold, exact.unpacked(model, cases, GivenIds(), temperature=0.5))
    with torch.no_grad():
        model.lm_head.weight *= 2
    assert_close(cold, exact.packed(model, cases, GivenIds()))


def enumerated(model, probe, ending, accepted, length, close):
    """Return J by brute force: the probability of every sequence, if its answer is accepted."""
    every = torch.tensor(list(product(range(model.config.vocab_size), repeat=length)))
    right = [close in row and tuple(row[: row.index(close)]) in accepted for row in every.tolist()]
    totals = []
    for j, cut in enumerate([0, *probe.boundaries]):
        before = probe.prompt_ids + probe.trace_ids[:cut] + ending[j]
        rows = torch.cat([torch.tensor(before).expand(len(every), -1), every], dim=1)
        with torch.no_grad():
            logp = torch.log_softmax(model(rows).logits[:, len(before) - 1 : -1].double(), -1)
        logp = logp.gather(-1, every[:, :, None])[..., 0].sum(-1)
        totals.append(float(logp.exp()[torch.tensor(right)].sum()))
    return totals


@pytest.fixture(scope="module")
def tiny():
    """A model with six tokens, a probe, and answers of up to three tokens closed by token 5."""
    rng = np.random.default_rng(0)
    answers = [seq for size in (1, 2, 3) for seq in product(range(5), repeat=size)]
    accepted = {answers[i] for i in rng.choice(len(answers), 70, replace=False)}
    references = closed(sorted(accepted), close=(5,))
    probe = Probe([1, 2, 4], [0, 3, 3, 1, 2, 4, 0], [2, 5, 7], True, references)
    ending = GivenIds((4, 0), (2, 2), (1, 3), (0,), lambda token: token == 1)
    # By hand: t_0 empty, t_1 ends with 3 (open), t_2 with 2 (open), t_3 natural.
    by_hand = [[4, 0, 1, 3, 0], [2, 2, 4, 0, 1, 3, 0], [2, 2, 4, 0, 1, 3, 0], [1, 3, 0]]
    model = build(vocab=6)
    return model, probe, ending, by_hand, accepted


def test_exact_is_the_sum_over_all_answers(tiny):
    model, probe, ending, by_hand, accepted = tiny
    expected = enumerated(model, probe, by_hand, accepted, length=4, close=5)
    assert min(expected) > 0.05 and max(expected) < 0.95
    for J in (exact.packed(model, [probe], ending), exact.unpacked(model, [probe], ending)):
        np.testing.assert_allclose(J[0], expected, atol=1e-5)


def test_sampled_agrees_with_exact(tiny, monkeypatch):
    model, probe, ending, _, accepted = tiny
    [J] = exact.packed(model, [probe], ending)

    def grade(problem, text):
        answer = tuple(map(int, text.split()[1:-1])) if text.endswith("5") else None
        return Grade(answer in accepted, str(answer) if answer else None, "")

    prompts = [ending.prompt(probe, j) for j in range(4)]
    drawn = TransformersSampler(model, 0, 600).sample(prompts, 600, 4, 1.0, 1.0, {5}, seed=0)
    problem = countdown((1, 2, 3), 6, "three")
    monkeypatch.setattr(prover, "grade", grade)
    [found] = prover.graded([probe], [problem], drawn, ending)
    low, high = wilson(found.right, 600, level=0.99)
    assert ((low <= J) & (high >= J)).all()
    assert (found.right <= found.boxed).all() and (found.boxed < 600).all()
    assert (found.tokens >= 600).all() and (found.tokens <= 2400).all()
    rows = prover.progress_rows(LABELS, probe, found)
    assert [row["J"] for row in rows] == (found.right / 600).tolist()
    assert all(row["low"] < row["J"] < row["high"] for row in rows)
    assert [row["kind"] for row in rows] == ["forced"] * 3 + ["natural"]


def test_records_fit_the_schema():
    probe = some_probes()[0]
    rows = prover.progress_rows(LABELS, probe, np.array([0.1, 0.4, 0.3, 0.9]))
    assert all(list(row) and set(row) == set(SCHEMAS["progress"].names) for row in rows)
    assert [row["tokens"] for row in rows] == [0, 4, 9, 21]
    assert rows[0]["progress"] is None
    np.testing.assert_allclose([row["progress"] for row in rows[1:]], [0.3, -0.1, 0.6])
    assert all(row["estimator"] == "exact" and row["answers"] == 0 for row in rows)


def test_the_ending_closes_what_is_open():
    from mrtlib.reasoner.lessons import build_tokenizer

    tokenizer, thinking = build_tokenizer(), Thinking()
    ending = Termination(Joiner(tokenizer), thinking)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    prompt, trace = ids("Reach 22 with 3, 5, 7."), ids("First, 7 + 5 = 12.\n\n12 * 3 = 36.\n\n")
    cuts = [len(ids("First, 7 +")), len(ids("First, 7 + 5 = 12.\n\n")), len(trace)]
    probe = Probe(prompt, trace, cuts, True, [])
    read = [ending.prompt(probe, j) for j in range(4)]
    assert all(r[: len(prompt) + t] == prompt + trace[:t]
               for r, t in zip(read, probe.ends, strict=True))  # fmt: skip
    said = [ending.joiner.decode(r[len(prompt) + t :])
            for r, t in zip(read, probe.ends, strict=True)]  # fmt: skip
    forced = thinking.stop_text + thinking.close_text + thinking.answer_open
    assert said == [forced, "\n\n" + forced, forced, thinking.close_text + thinking.answer_open]
    again = replace(probe, natural=False)
    assert ending.joiner.decode(ending.prompt(again, 3)).endswith(forced)


def test_a_natural_end_does_not_repeat_what_the_trace_has_written():
    from mrtlib.reasoner.lessons import build_tokenizer

    tokenizer = build_tokenizer()
    thinking = Thinking(close_text="\n\n</think>\n\n")
    ending = Termination(Joiner(tokenizer), thinking)
    trace = tokenizer("12 * 3 = 36.\n\n", add_special_tokens=False)["input_ids"]
    said = ending.joiner.decode(ending.prompt(Probe([5], trace, [len(trace)], True, []), 1)[1:])
    assert said == "12 * 3 = 36.\n\n</think>\n\n" + thinking.answer_open


def test_a_model_that_takes_no_mask_is_told_so():
    model = build("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    with pytest.raises(ProverError, match="sliding-window.*exact.unpacked"):
        exact.packed(model, some_probes(), GivenIds())
    with pytest.warns(UserWarning, match="sliding-window.*more slowly"):
        [J] = measured_by(model)
    assert ((J > 0) & (J < 1)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [packed] = measured_by(build())
    assert J.shape == packed.shape


def measured_by(model):
    """Return exact J of a rollout by a Prover of the model."""
    from mrtlib.reasoner.lessons import build_tokenizer

    tokenizer, problem = build_tokenizer(), countdown((1, 2, 3), 6, "three")
    model.resize_token_embeddings(len(tokenizer))
    ids = tokenizer("First, 1 + 2 = 3.\n\n", add_special_tokens=False)["input_ids"]
    wrong = Grade(False, None, "truncated")
    rollout = Rollout(problem, [5], ids, len(ids), False, False, [len(ids)], [len(ids)], wrong)
    return prover.Prover(model, tokenizer, load_profile("smoke")).exact([rollout])


@pytest.mark.parametrize(
    "references",
    [[[10, 11], [10, 11]], [[10, 3, 4], [10]]],
    ids=["repeated", "prefix"],
)
def test_references_must_not_count_twice(references):
    with pytest.raises(ProverError, match="prefix-free"):
        exact.packed(build(), some_probes(references), GivenIds())


def test_references_need_an_end():
    probe = Probe([8], [9], [1], False, [()])
    with pytest.raises(ProverError, match="closes a reference"):
        exact.packed(build(), [probe], GivenIds())


def test_all_spellings_and_all_ends_of_a_reference_count():
    """Against one row for each sequence of tokens that writes an answer."""
    model, base = build(), some_probes()[0]
    ways = (Spelling((10, 11), (3, 4, 9)), Spelling((10,), (12, 13)), Spelling((), (20,)))
    other = (Spelling((14,), (3, 4, 9)),)
    [J] = exact.packed(model, [replace(base, references=[ways, other])], GivenIds())
    expected = np.zeros(len(base.ends))
    for way in (*ways, *other):
        for end in way.ends:
            single = [(Spelling((*way.tokens, end), tuple(range(VOCAB))),)]  # anything may follow
            [p] = exact.unpacked(model, [replace(base, references=single)], GivenIds())
            expected += p
    np.testing.assert_allclose(J, expected, rtol=1e-4)
    for clash in (Spelling((10, 11, 4), (8,)), Spelling((10,), (12,))):
        with pytest.raises(ProverError, match="prefix-free"):
            exact.packed(model, [replace(base, references=[ways, (clash,)])], GivenIds())


def test_bad_probes_are_refused():
    with pytest.raises(ProverError, match="must increase"):
        Probe([8], [9, 10], [1, 1], False, [])
    with pytest.raises(ProverError, match="behind 2 trace tokens"):
        Probe([8], [9, 10], [1, 3], False, [])
    with pytest.raises(ProverError, match="prompt is empty"):
        Probe([], [9, 10], [1], False, [])
    with pytest.raises(ProverError, match="temperature is 0"):
        exact.packed(build(), some_probes(), GivenIds(), temperature=0.0)


def test_no_references_no_success():
    probe = Probe([8], [9, 10], [1, 2], False, [])
    assert_close(exact.packed(build(), [probe], GivenIds()), [np.zeros(3)])
    assert exact.packed(build(), [], GivenIds()) == []


def test_logits_are_normalised_in_parts(monkeypatch):
    model = build()
    whole = exact.packed(model, some_probes(), GivenIds())
    monkeypatch.setattr(exact, "LOGIT_ROWS", 3)
    assert_close(exact.packed(model, some_probes(), GivenIds()), whole)


def test_probing_leaves_training_alone():
    model = build()
    model.train()
    state = torch.get_rng_state()
    exact.packed(model, some_probes(), GivenIds())
    assert model.training and torch.equal(torch.get_rng_state(), state)
    ids = torch.tensor([[8, 9, 10, 11]])
    model(ids, labels=ids).loss.backward()
    assert model.lm_head.weight.grad.abs().sum() > 0
