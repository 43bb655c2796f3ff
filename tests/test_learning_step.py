"""Learning in parts and through merged weights: TRL's loss, log and gradients, by another way."""

from dataclasses import replace

import pytest
import torch

from mrtlib.config import TRAINED_METHODS, Lora
from mrtlib.models import precision
from mrtlib.models.merged import MergedLinear
from mrtlib.models.packing import counted
from mrtlib.training.learning import InParts, learner
from mrtlib.training.trainer import MRTTrainer


@pytest.fixture
def profile(toy_profile, tmp_path, monkeypatch):
    """Two groups of four rollouts of unequal length on the toy model, one micro-batch."""
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))

    def make(quantization="none", lora=Lora(rank=4, alpha=12), beta=0.0):  # noqa: B008
        base = toy_profile(quantization)
        return replace(
            base,
            lora=lora,
            thinking=replace(base.thinking, budget=60, answer_tokens=8, min_paragraphs=1,
                             segmenter="tokens", episode_tokens=15),
            training=replace(base.training, tokens=10**6, most_steps=2, problems_per_step=2,
                             group_size=4, micro_batch=8, part_tokens=150, beta=beta,
                             learning_rate=dict.fromkeys(TRAINED_METHODS, 1e-2)),
        )  # fmt: skip

    return make


def shake(policy) -> None:
    """Give the adapters an effect: B is 0 at first, and then A has no gradient."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def batch(made) -> dict:
    """Return a batch as TRL makes it, with rows cut so that their lengths differ."""
    made.model.train()
    shake(made.model)
    made.current_gradient_accumulation_steps = 1
    inputs = [dict(made.train_dataset[i]) for i in (0, 1) for _ in range(4)]
    out = made._generate_and_score_completions(inputs)
    for row, length in enumerate((5, 60, 33, 12, 41, 58, 7, 20)):
        out["completion_mask"][row, length:] = 0
    out["prompt_mask"][2, :3] = 0  # as a shorter prompt would be padded
    out["advantages"] = torch.randn(
        out["completion_ids"].shape, generator=torch.Generator().manual_seed(2)
    )
    return out


def step(made, inputs, **settings):
    """Return loss, gradient, and what TRL logs of a step under other settings of the profile."""
    kept = made.profile
    made.profile = replace(
        kept,
        model=replace(kept.model, merged=settings["merged"]),
        training=replace(kept.training, part_tokens=settings["part_tokens"]),
    )
    made._metrics["train"].clear()
    made.model.zero_grad()
    loss = made._compute_loss(made.model, inputs)
    loss.backward()
    made.profile = kept
    grads = [p.grad.flatten() for p in made.model.parameters() if p.requires_grad]
    logged = {name: values[0] for name, values in made._metrics["train"].items()}
    return loss.item(), torch.cat(grads), logged


def relative(a, b) -> float:
    return float((a - b).norm() / b.norm())


WAYS = [(False, 150), (True, 0), (True, 150), (True, 10**6)]


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_every_way_gives_trl_s_loss_gradient_and_log(profile, tmp_path, quantization, beta):
    made = MRTTrainer(profile(quantization, beta=beta), "regret_to_go", 0, tmp_path)
    inputs = batch(made)
    loss, grad, logged = step(made, inputs, merged=False, part_tokens=0)
    assert grad.norm() > 1e-3 and logged["entropy"] > 0
    assert (abs(logged["kl"]) > 1e-4) if beta else "kl" not in logged
    padded = logged.pop("learned")
    for merged, part_tokens in WAYS:
        ours = step(made, inputs, merged=merged, part_tokens=part_tokens)
        learned = ours[2].pop("learned")  # tokens through the model: fewer without padding
        assert learned < padded if part_tokens else learned == padded
        assert ours[0] == pytest.approx(loss, rel=1e-4, abs=1e-6)
        assert relative(ours[1], grad) < 1e-5
        assert ours[2] == pytest.approx(logged, rel=1e-4, abs=1e-6)


def test_learning_follows_the_weights(profile, tmp_path):
    """The twin is refreshed before it learns, not only before it samples."""
    made = MRTTrainer(profile(), "regret_to_go", 0, tmp_path)
    inputs = batch(made)
    for parameter in made.model.parameters():
        if parameter.requires_grad:
            parameter.data.mul_(1.5)
    grad = step(made, inputs, merged=False, part_tokens=0)[1]
    assert relative(step(made, inputs, merged=True, part_tokens=150)[1], grad) < 1e-5


def test_parts_hold_hardly_any_padding(profile, tmp_path):
    made = MRTTrainer(profile(), "regret_to_go", 0, tmp_path)
    inputs = batch(made)
    with counted(made.twin.model) as tokens:
        step(made, inputs, merged=True, part_tokens=150)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    assert len(tokens) > 3 and max(tokens) <= 150
    assert mask.sum() <= sum(tokens) <= mask.sum() / 0.75 < mask.numel()


@pytest.mark.parametrize(
    "change", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True},
               {"modules_to_save": ["lm_head"]}],
)  # fmt: skip
def test_adapters_that_one_matrix_cannot_stand_for_are_learned_by_peft(
    profile, tmp_path, change, monkeypatch
):
    from peft import LoraConfig

    made = MRTTrainer(profile(), "regret_to_go", 0, tmp_path)
    assert learner(made.model, made.twin, made.profile).model is made.twin.model
    plain = LoraConfig.__init__

    def changed(self, *arguments, **settings):
        plain(self, *arguments, **(settings | change))

    monkeypatch.setattr(LoraConfig, "__init__", changed)
    other = MRTTrainer(profile(), "regret_to_go", 0, tmp_path / "other")
    assert not other.twin.learns
    assert learner(other.model, other.twin, other.profile).model is other.model


def test_without_a_twin_the_policy_learns_in_parts(profile, tmp_path):
    base = profile()
    alone = replace(base, model=replace(base.model, twin=False))
    made = MRTTrainer(alone, "regret_to_go", 0, tmp_path)
    found = learner(made.model, made.twin, alone)
    assert isinstance(found, InParts) and found.model is made.model
    whole = replace(alone, training=replace(alone.training, part_tokens=0))
    assert learner(made.model, made.twin, whole) is made.model


def test_a_row_with_a_gap_is_refused():
    mask = torch.tensor([[1, 0, 1, 1]])
    with pytest.raises(ValueError, match="set part_tokens to 0"):
        InParts(None, 100)(input_ids=mask, attention_mask=mask, labels=mask)


def test_the_adapter_is_no_parameter_of_the_twin(profile, tmp_path):
    made = MRTTrainer(profile(), "regret_to_go", 0, tmp_path)
    assert sum(isinstance(m, MergedLinear) for m in made.twin.model.modules()) == 14
    assert not any("lora" in name for name, _ in made.twin.model.named_parameters())
    assert not any(p.requires_grad for p in made.twin.model.parameters())


def test_checkpoints_of_activations_are_taken_over_from_the_policy(profile, tmp_path):
    made = MRTTrainer(profile(), "regret_to_go", 0, tmp_path)
    inputs = batch(made)
    grad = step(made, inputs, merged=True, part_tokens=150)[1]
    made.model.activation_checkpointing_enable({"use_reentrant": False})
    passes = []
    made.twin.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    with counted(made.twin.model) as parts:
        again = step(made, inputs, merged=True, part_tokens=150)[1]
    assert relative(again, grad) < 1e-5
    assert len(passes) == 2 * len(parts)  # each was run again, backward


def test_a_twin_in_bfloat16_gives_nearly_the_same_gradient(profile, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)
    base = profile()
    own = replace(base, model=replace(base.model, twin_dtype="bfloat16"))
    made = MRTTrainer(own, "regret_to_go", 0, tmp_path)
    inputs = batch(made)
    _, grad, _ = step(made, inputs, merged=False, part_tokens=0)
    _, short, _ = step(made, inputs, merged=True, part_tokens=150)
    assert short.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(short, grad, dim=0) > 0.999
    assert 1e-4 < relative(short, grad) < 0.05
