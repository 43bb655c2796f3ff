"""The 4-bit base with its adapters: everything that is loaded from, and saved to, a folder.

Nothing here unpickles and no model code from outside is run: weights are safetensors and
`trust_remote_code` stays off. One number type, the profile's, serves as load and compute type.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from mrtlib.config import ROOT, Lora, Profile, key_texts
from mrtlib.models.quantization import ModelError, check_4bit_dimensions, guard_4bit
from mrtlib.models.tokens import fetch
from mrtlib.store import MEASURE, content_key, file_hashes, read_json, write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
# What of a model's folder decides what the model does.
MODEL_FILES = (
    "*.safetensors", "config.json", "generation_config.json", "tokenizer*", "chat_template*",
    "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model",
)  # fmt: skip
if not sys.stderr.isatty():  # in a notebook or a log each update of a bar is a line
    logging.disable_progress_bar()
FSDP, DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"  # set by `accelerate launch`
SAVING = ".saving-"  # how the folder begins that an adapter is written to before it is whole
HASHES = "hashes.json"  # of these files, beside them


def device() -> torch.device:
    """Return this process's accelerator when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def sharded() -> bool:
    """Say whether a launcher will shard the model's weights over devices, which then load it."""
    return any(os.environ.get(name) == "true" for name in (FSDP, DEEPSPEED))


def dtype_of(profile: Profile) -> torch.dtype:
    """Return the number type of a profile."""
    if profile.model.dtype not in DTYPES:
        raise ModelError(f"dtype {profile.model.dtype!r} is not known; use {', '.join(DTYPES)}")
    return DTYPES[profile.model.dtype]


def check_context(config: PretrainedConfig, prompt_tokens: int, new_tokens: int) -> None:
    """Raise ModelError when prompt and new tokens together exceed the model's context."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is not None and prompt_tokens + new_tokens > context:
        raise ModelError(
            f"a prompt of {prompt_tokens} tokens and {new_tokens} new ones do not fit into the "
            f"model's context of {context}; lower thinking.budget or leave out long problems"
        )


def let_read(config: PretrainedConfig, tokens: int) -> None:
    """Let a model read `tokens` positions, more than it was made for.

    Rotary positions are computed, not learned (arXiv 2104.09864), so the model can read them; what
    it makes of positions that it never saw in training is for the results to show.

    Raises:
        ModelError: its positions are of another kind, or scaled.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "default":
        raise ModelError(
            f"evaluation.context = {tokens} is for plain rotary positions; this model has "
            f"{rope.get('rope_type', 'none')}; set it to 0"
        )
    if config.max_position_embeddings < tokens:
        print(f"positions from {config.max_position_embeddings} to {tokens} are read, which the "
              "model was not made for", flush=True)  # fmt: skip
        config.max_position_embeddings = tokens


def load_base(profile: Profile, guard: bool = True) -> PreTrainedModel:
    """Load the base in eval mode on `device()`, in 4 bits when the profile says "nf4".

    4 bits means NormalFloat with double quantisation (QLoRA, arXiv 2305.14314). `guard` keeps
    the CPU from re-packing layers (see `guard_4bit`).

    Raises:
        ModelError: the model cannot be found, or its sizes do not suit 4-bit layers.
    """
    config, dtype, quantised = fetch(AutoConfig, profile), dtype_of(profile), None
    if profile.model.quantization == "nf4":
        check_4bit_dimensions(config)
        quantised = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # FSDP spreads weights of one type, so the packed bytes are stored as the rest is.
            bnb_4bit_quant_storage=dtype if os.environ.get(FSDP) == "true" else None,
        )  # fmt: skip
    model = fetch(
        AutoModelForCausalLM, profile, config=config, dtype=dtype, use_safetensors=True,
        quantization_config=quantised, device_map=None if sharded() else {"": device()},
    )  # fmt: skip
    if guard and quantised:
        guard_4bit(model)
    return model.requires_grad_(False).eval()


def add_lora(model: PreTrainedModel, lora: Lora, seed: int) -> PreTrainedModel:
    """Put freshly drawn float32 adapters on a base: W x + (α/r) B A x, with B = 0 (2106.09685).

    A depends on `seed` alone; the global random state is left as it was.

    Raises:
        ModelError: the model has adapters already, or lacks a layer that `lora` names.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        raise ModelError("the model already carries adapters; load the base again")
    layers = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := sorted(set(lora.targets) - layers):
        raise ModelError(f"the model has no layers {', '.join(missing)}; change lora.targets")
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
        target_modules=list(lora.targets), bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    cuda = [model.device.index] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        policy = get_peft_model(model, config)
    return adapters_to_float32(policy)


def adapters_to_float32(policy: PreTrainedModel) -> PreTrainedModel:
    """Cast what is trained to float32; TRL makes it bfloat16, where small steps round to none."""
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return policy


def save_adapter(policy: PreTrainedModel, folder: str | Path) -> None:
    """Write the adapters as safetensors with their settings, each file whole or not at all.

    The settings name the base relative to the repository, never a path of this machine.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stray in folder.glob(f"{SAVING}*"):  # of a run that was killed here
        shutil.rmtree(stray)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SAVING) as name:
        written = Path(name)
        policy.save_pretrained(written, safe_serialization=True, save_embedding_layers=False)
        settings = json.loads((written / ADAPTER_FILES[1]).read_text())
        base = Path(settings["base_model_name_or_path"] or "")
        if base.is_absolute():
            base = base.relative_to(ROOT) if base.is_relative_to(ROOT) else Path(base.name)
        settings["base_model_name_or_path"] = str(base)
        settings["target_modules"] = sorted(settings["target_modules"])  # PEFT writes a set
        write_json(written / ADAPTER_FILES[1], settings)
        hashes = file_hashes([written / file for file in ADAPTER_FILES], written)
        for file in ADAPTER_FILES:
            os.replace(written / file, folder / file)
        write_json(folder / HASHES, hashes)


def adapter_is_whole(folder: Path) -> bool:
    """Say whether an adapter's files are as they were written.

    Without hashes, as where only the log of a training is kept, there is nothing to compare.
    """
    files, marked = [folder / file for file in ADAPTER_FILES], folder / HASHES
    return not marked.is_file() or read_json(marked) == file_hashes(files, folder)


def load_policy(profile: Profile, adapter: str | Path | None = None) -> PreTrainedModel:
    """Load the base and, when a folder is given, the adapters saved there, in eval mode.

    Raises:
        ModelError: the folder lacks a file of `save_adapter`, or does not fit the base.
    """
    from peft import PeftModel

    base = load_base(profile)
    if adapter is None:
        return base
    for file in ADAPTER_FILES:
        if not (Path(adapter) / file).is_file():
            raise ModelError(f"{adapter} holds no {file}; write it with save_adapter, or train")
    if not adapter_is_whole(Path(adapter)):
        raise ModelError(f"{adapter} is damaged: its files differ from {HASHES}; train it again")
    try:
        policy = PeftModel.from_pretrained(base, str(adapter))
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"the adapter {adapter} does not fit {profile.model.name}: {error}"
        ) from error
    return policy.eval()


def made_of(profile: Profile, adapter: Path | None = None) -> dict[str, Any]:
    """Return what decides what a model does: its files' hashes, tokenizer and template included.

    Of a model on the hub the commit instead, and of an adapter its weights' hash and its settings.
    The paths of folders do not matter: a run may be moved, and its records stay valid.

    Raises:
        ModelError: the model is neither a folder nor in reach on the hub.
    """
    base = Path(profile.model_path)
    if base.is_dir():
        files = {path for pattern in MODEL_FILES for path in base.glob(pattern)}
        found: dict[str, Any] = dict(file_hashes(files, base))
    else:
        commit = fetch(AutoConfig, profile)._commit_hash
        found = {"hub": profile.model.name, "commit": commit or profile.model.revision}
    if adapter:
        found |= file_hashes([adapter / ADAPTER_FILES[0]], adapter)
        found["adapter"] = _settings_of(adapter)
    return found


def _settings_of(adapter: Path) -> dict[str, Any]:
    """Return an adapter's settings as far as they decide what it does."""
    settings = read_json(adapter / ADAPTER_FILES[1])
    return {
        name: sorted(value) if name == "target_modules" else value  # of other writers, as it came
        for name, value in settings.items()
        if name not in ("base_model_name_or_path", "peft_version", "revision", "inference_mode")
    }


def work_key(profile: Profile, parts: str, adapter: Path | None = None, **content: Any) -> str:
    """Return the key of a piece of work: its settings, the model's files, and content.

    Args:
        parts: the parts of the profile that decide the result (words of a string).
        adapter: of the model that does the work.
        content: plain JSON values: problems, seeds and the like.
    """
    return work_keys(profile, parts, [content], adapter)[0]


def work_keys(
    profile: Profile, parts: str, contents: Iterable[dict[str, Any]], adapter: Path | None = None
) -> list[str]:
    """Return the keys of pieces of work that differ in content; the model is read once."""
    shared = {"measure": MEASURE, "model files": made_of(profile, adapter)}
    shared |= key_texts(profile, parts)
    return [content_key(**shared, **content) for content in contents]
