"""TRL's settings, from a profile and a method."""

from pathlib import Path

from trl import GRPOConfig

from mrtlib.config import Profile, ProfileError, Training
from mrtlib.models.loading import device
from mrtlib.training.checkpoints import KEPT
from mrtlib.training.methods import METHODS
from mrtlib.training.ranks import Ranks


def grpo_settings(profile: Profile, method: str, seed: int, folder: Path) -> GRPOConfig:
    """Return TRL's settings; `folder` takes the checkpoints.

    Raises:
        ProfileError: the rows of a step cannot be divided among the processes of the run.
    """
    training, cuda = profile.training, device().type == "cuda"
    size = training.group_size * METHODS[method].wider
    rows, micro = own_rows(training, size, Ranks.here().count), training.micro_batch
    return GRPOConfig(
        output_dir=str(folder),
        seed=seed,
        use_cpu=not cuda,
        bf16=cuda and profile.model.dtype == "bfloat16",
        per_device_train_batch_size=min(rows, micro),
        gradient_accumulation_steps=max(1, rows // micro),
        num_generations=size,
        max_completion_length=profile.thinking.budget + profile.thinking.answer_tokens,
        max_steps=training.most_steps,
        learning_rate=training.rate(method),  # its schedule: `create_scheduler`
        max_grad_norm=training.max_grad_norm,
        beta=training.beta,
        temperature=training.temperature,
        loss_type="dapo",
        scale_rewards="group",
        vllm_importance_sampling_mode=training.correction,  # of rollouts that servers drew
        activation_checkpointing=cuda,
        logging_steps=1,
        save_strategy="steps",
        save_steps=training.save_every,
        save_total_limit=KEPT,
        report_to=training.report_to,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )


def own_rows(training: Training, size: int, processes: int) -> int:
    """Return how many rollouts of a step each process has: whole groups, and whole passes of them.

    Raises:
        ProfileError: they cannot be divided so.
    """
    problems, left = divmod(training.problems_per_step, processes)
    if left or not problems:
        raise ProfileError(
            f"training.problems_per_step = {training.problems_per_step} cannot be divided among "
            f"{processes} processes; start a number of processes that divides it"
        )
    rows = problems * size
    if rows > training.micro_batch and rows % training.micro_batch:
        raise ProfileError(
            f"each of {processes} processes has {rows} rows of a step, which training.micro_batch "
            f"= {training.micro_batch} does not divide; lower it"
        )
    return rows
