"""The profile's training as settings of TRL's GRPO."""

from pathlib import Path

from trl import GRPOConfig

from mrtlib.config import Profile
from mrtlib.models import device


def grpo_settings(profile: Profile, method: str, seed: int, folder: Path) -> GRPOConfig:
    """Return TRL's settings; `folder` takes the checkpoints."""
    training, cuda = profile.training, device().type == "cuda"
    rows = training.problems_per_step * training.group_size
    return GRPOConfig(
        output_dir=str(folder),
        seed=seed,
        use_cpu=not cuda,
        bf16=cuda and profile.model.dtype == "bfloat16",
        per_device_train_batch_size=training.micro_batch,
        gradient_accumulation_steps=rows // training.micro_batch,
        num_generations=training.group_size,
        max_completion_length=profile.thinking.budget + profile.thinking.answer_tokens,
        max_steps=training.most_steps,
        learning_rate=training.learning_rate[method],
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=training.warmup_steps,
        beta=training.beta,
        temperature=training.temperature,
        loss_type="dapo",
        scale_rewards="group",
        gradient_checkpointing=cuda,
        logging_steps=1,
        save_strategy="steps",
        save_steps=training.save_every,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
    )
