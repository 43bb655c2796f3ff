"""The sampler against model.generate, a full forward pass, and itself at other batch sizes."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mrtlib.models import compatibility
from mrtlib.models.sampling import TransformersSampler, draw, noise

VOCAB, STOP = 40, 1
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "pad_token_id": 0, "eos_token_id": STOP, "bos_token_id": None,
}  # fmt: skip


def sharpened(model):
    """Spread the logits: a fresh model is close to uniform, and would hide mistakes."""
    with torch.no_grad():
        model.lm_head.weight *= 20
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter *= 4
    return model


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sharpened(LlamaForCausalLM(LlamaConfig(**SIZES)))


@pytest.fixture(scope="module")
def sliding():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Qwen2Config(
            **SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=1
        )
        return sharpened(Qwen2ForCausalLM(config))


def some_prompts(*lengths):
    rng = np.random.default_rng(1)
    return [rng.integers(2, VOCAB, length).tolist() for length in lengths]


def sample(model, prompts, batch_rows=64, **changes):
    settings = {"n": 3, "max_tokens": 24, "temperature": 1.0, "top_p": 1.0,
                "stop_ids": {STOP, 2}, "seed": 7}  # fmt: skip
    return TransformersSampler(model, 0, batch_rows).sample(prompts, **(settings | changes))


def tokens(found):
    return [[one.token_ids for one in group] for group in found]


def counted(model, action):
    """Run an action; return the tokens fed to the model in passes longer than one token."""
    compatibility.obstacle(model)  # tried once, and not a part of the action
    fed = []
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda _, x: fed.append(x[0].shape))
    action()
    hook.remove()
    return sum(rows * length for rows, length in fed if length > 1)


def test_batch_size_does_not_change_a_sample(model):
    prompts = some_prompts(3, 9, 9, 1, 14, 6, 2)
    prompts.append(prompts[4] + [5, 6, 7])
    reference = sample(model, prompts)
    for rows in (1, 3):
        assert tokens(sample(model, prompts, rows)) == tokens(reference)
    assert tokens(sample(model, prompts, seed=8)) != tokens(reference)
    lengths = {len(one.token_ids) for group in reference for one in group}
    assert len(lengths) > 3  # rows left the batch at different steps


def test_fewer_samples_and_steps_are_the_beginning_of_more(model):
    prompts = some_prompts(4, 5)
    more, fewer = sample(model, prompts), sample(model, prompts, n=2, max_tokens=6)
    for long, short in zip(more, fewer, strict=True):
        assert [one.token_ids[:6] for one in long[:2]] == [one.token_ids for one in short]


def test_equal_prompts_get_different_samples(model):
    first, second = sample(model, some_prompts(6) * 2)
    assert tokens([first]) != tokens([second])


@pytest.mark.filterwarnings("ignore:.*takes no custom mask")
@pytest.mark.parametrize("kind", ["model", "sliding"])
def test_greedy_is_generate(kind, request):
    model = request.getfixturevalue(kind)
    for prompt, [ours] in zip(
        some_prompts(4, 12, 8),
        sample(model, some_prompts(4, 12, 8), n=1, temperature=0.0, stop_ids={STOP}),
        strict=True,
    ):
        theirs = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=24, eos_token_id=STOP
        )
        assert ours.token_ids == theirs[0, len(prompt) :].tolist()


@pytest.mark.filterwarnings("ignore:.*takes no custom mask")
def test_the_plain_prefill_gives_the_same_samples(model, sliding, monkeypatch):
    prompts = some_prompts(3, 9, 1, 14)
    reference = sample(model, prompts)
    monkeypatch.setattr(compatibility, "can_share", lambda model, instead: False)
    assert tokens(sample(model, prompts)) == tokens(reference)
    assert tokens(sample(sliding, prompts, 5)) == tokens(sample(sliding, prompts, 1))


def test_log_probabilities_are_those_of_a_full_pass(model):
    prompts = some_prompts(5, 11)
    for prompt, group in zip(prompts, sample(model, prompts, temperature=0.7), strict=True):
        for one in group:
            with torch.no_grad():
                logits = model(torch.tensor([prompt + one.token_ids])).logits[0, len(prompt) - 1 :]
            logp = torch.log_softmax(logits[:-1] / 0.7, -1)
            expected = logp[range(len(one.token_ids)), one.token_ids]
            np.testing.assert_allclose(one.logprobs, expected, atol=1e-4)


def test_samples_end_with_a_stop_token_or_at_the_limit(model):
    for group in sample(model, some_prompts(5, 6, 7, 8), n=8):
        for one in group:
            ends = [token in (STOP, 2) for token in one.token_ids]
            assert one.finished == ends[-1]
            assert not any(ends[:-1])
            assert one.finished or len(one.token_ids) == 24


def test_a_trace_is_computed_once_for_all_its_forks(model):
    trace = some_prompts(60)[0]
    prompts = [trace[:cut] + [3, 4, 5] for cut in (10, 25, 40, 60)]
    fed = counted(model, lambda: sample(model, prompts, batch_rows=5, n=4))
    assert fed == 60 + 4 * 2  # every token once; the last of each prompt is fed by its forks
    assert tokens(sample(model, prompts, 5)) == [
        tokens(sample(model, prompts[:i] + [prompts[i]], 1))[i] for i in range(4)
    ]


def test_draw_follows_the_probabilities():
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0, 1.0])
    p = torch.softmax(logits / 0.8, -1)
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000  # every part of [0, 1) alike
    drawn, logp = draw(logits.expand(4000, 5), u, 0.8, 1.0)
    torch.testing.assert_close(drawn.bincount(minlength=5) / 4000, p, atol=5e-4, rtol=0)
    torch.testing.assert_close(logp, p.log()[drawn])
    drawn, logp = draw(logits.expand(4000, 5), u, 0.8, 0.75)  # the first two make 0.84
    kept = torch.tensor([p[0], 0, 0, 0, p[4]]) / (p[0] + p[4])
    torch.testing.assert_close(drawn.bincount(minlength=5) / 4000, kept, atol=5e-4, rtol=0)
    torch.testing.assert_close(logp, p.log()[drawn])  # before top-p


def test_noise_depends_on_its_key_alone():
    np.testing.assert_array_equal(noise(1, 2, 3, 5), noise(1, 2, 3, 9)[:5])
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({noise(*key, 1)[0] for key in keys}) == 4
    many = np.array([noise(0, i, j, 10) for i in range(20) for j in range(20)])
    assert abs(many.mean() - 0.5) < 0.02 and abs(np.corrcoef(many[:-1, 0], many[1:, 0])[0, 1]) < 0.1


def test_training_goes_on_as_before(model):
    policy = get_peft_model(
        LlamaForCausalLM(LlamaConfig(**SIZES)),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.5),
    )
    policy.train()
    policy.model.model.layers[0].eval()  # a mode of its own survives as well
    before, state = [m.training for m in policy.modules()], torch.get_rng_state()
    prompts = some_prompts(5, 6)
    assert tokens(sample(policy, prompts)) == tokens(sample(policy, prompts))  # no dropout
    assert [m.training for m in policy.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    ids = torch.tensor(some_prompts(8))
    policy(ids, labels=ids).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())


@pytest.mark.parametrize(
    ("prompts", "changes", "message"),
    [
        ([[3], []], {}, "prompt 1 is empty"),
        ([[3]], {"n": 0}, "n is 0"),
        ([[3]], {"max_tokens": 0}, "max_tokens is 0"),
        ([[3]], {"temperature": -1.0}, "temperature is -1"),
        ([[3]], {"top_p": 0.0}, "top_p is 0"),
    ],
)
def test_a_bad_request_is_refused(model, prompts, changes, message):
    with pytest.raises(ValueError, match=message):
        sample(model, prompts, **changes)


def test_no_prompts_no_samples(model):
    assert sample(model, []) == []
