"""Leave with the result: a trained adapter, or the model it makes, in a folder that plain `peft`
and `transformers` load, with a card that says what it is.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import HfApi, get_token

from mrtlib.config import LABELS, Profile
from mrtlib.evaluation.tables import results_markdown
from mrtlib.hub import hub_answers
from mrtlib.models.loading import ADAPTER_FILES, load_policy
from mrtlib.models.tokens import load_tokenizer
from mrtlib.store import check_folder, read_csv, read_json, write_json, write_text
from mrtlib.training.runs import is_trained, training_key

CARD = "README.md"
SETTINGS = ADAPTER_FILES[1]


class ExportError(ValueError):
    """Nothing to export, or no place for it."""


def export(profile: Profile, method: str, seed: int, folder: Path, merged: bool = False) -> Path:
    """Write a trained adapter, or the merged model, with tokenizer and card; return the folder.

    Merged means added to the base as it is without quantisation, in 16 bits: what was trained in
    4 bits then has another base below it, so its answers differ a little (arXiv 2305.14314).

    Args:
        folder: new, or empty.

    Raises:
        ExportError: the method is not trained with these settings, or the folder holds something.
    """
    source = profile.adapter(method, seed)
    if not is_trained(source, training_key(profile, method, seed)):
        raise ExportError(
            f"no adapter of these settings in {source}; train it first: python -m mrtlib train "
            f"--profile {profile.name} --method {method} --seed {seed}"
        )
    if not (source / SETTINGS).is_file():  # of some runs the log alone is kept
        raise ExportError(f"{source} holds a log and no adapter; train it again")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is there already; name a new folder")
    check_folder(folder)
    (_write_merged if merged else _write_adapter)(profile, source, folder)
    load_tokenizer(profile).save_pretrained(folder)
    write_text(folder / CARD, card(profile, method, seed, merged))
    return folder


def _write_adapter(profile: Profile, source: Path, folder: Path) -> None:
    """Copy an adapter; its settings name the base as it can be loaded, and its revision."""
    shutil.copy(source / ADAPTER_FILES[0], folder)
    settings = read_json(source / SETTINGS)
    settings["base_model_name_or_path"] = profile.model_path
    if not Path(profile.model_path).is_dir():
        settings["revision"] = profile.model.revision
    write_json(folder / SETTINGS, settings)


def _write_merged(profile: Profile, source: Path, folder: Path) -> None:
    """Write the base in 16 bits with the adapter added to its weights."""
    model = replace(profile.model, quantization="none", dtype="float32")
    policy = load_policy(replace(profile, model=model), source)  # added in 32 bits, rounded once
    whole = policy.merge_and_unload(safe_merge=True)
    whole.to(torch.bfloat16).save_pretrained(folder)


def card(profile: Profile, method: str, seed: int, merged: bool) -> str:
    """Return the model card: what it is, how it was made, how to load it, and its results."""
    kind = "AutoModelForCausalLM" if merged else "AutoPeftModelForCausalLM"
    library = "transformers" if merged else "peft"
    training, c0 = profile.training, profile.thinking.budget
    results = profile.runs / "results.csv"
    table = results_markdown(read_csv(results), c0) if results.is_file() else (
        "Not measured yet: `python -m mrtlib reproduce` does it.\n")  # fmt: skip
    name = profile.model.name
    return f"""---
base_model: {name}
library_name: {library}
tags: [meta-reinforcement-fine-tuning, mrt, lora]
---

# {name}, trained with {LABELS[method]}

Made with mrtlib, an implementation of *Optimizing Test-Time Compute via Meta Reinforcement
Fine-Tuning* (arXiv 2503.07572):

    python -m mrtlib train --profile {profile.name} --method {method} --seed {seed}

| | |
|:--|:--|
| base | `{name}` ({profile.model.revision}), {profile.model.quantization} while training |
| form of the method | `{method}`, weight of the gain {training.alpha:g} |
| tokens | {training.tokens:,} ({training.count}), in groups of {training.group_size} |
| peak learning rate | {training.rate(method):g}, {training.schedule} |
| LoRA | rank {profile.lora.rank}, alpha {profile.lora.alpha} |
| budget of thinking C0 | {c0:,} tokens |

## Use

    from {library} import {kind}
    model = {kind}.from_pretrained("THIS FOLDER")

The prompt is the chat template's{"" if not profile.thinking.open_tag else
    f", up to and with `{profile.thinking.open_tag}`"}.

## Results

Test problems, all seeds of the run together; differences are paired. Intervals are 95 %.

{table}"""


def push(folder: Path, name: str) -> str:
    """Upload an exported folder to the hub as NAME; return its address.

    Raises:
        ExportError: nobody is logged in, or the hub is not in reach.
    """
    if get_token() is None:
        raise ExportError("nobody is logged in on the hub; run: hf auth login")
    if not hub_answers():
        raise ExportError(f"the hub cannot be reached (offline?); {folder} is written")
    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except (OSError, ValueError) as error:  # its own errors are both
        raise ExportError(f"{folder} is written, and was not uploaded: {error}") from error
