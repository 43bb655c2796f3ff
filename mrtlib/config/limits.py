"""What is checked of any profile before hours are spent: ranges, choices, and contradictions."""

import math
import re
from importlib.util import find_spec
from typing import Any

from mrtlib.config.settings import TRAINED_METHODS, Profile, ProfileError

# Least and most value of a number; every number of a tuple or a table is held to it.
AT_LEAST_1 = (
    "lora.rank", "lora.alpha", "thinking.min_paragraphs", "thinking.max_cuts",
    "thinking.group_size", "thinking.episode_tokens", "thinking.budget", "thinking.answer_tokens",
    "data.train", "data.validation", "data.test", "prover.samples", "prover.pack_tokens",
    "prover.pass_tokens",
    "training.tokens", "training.most_steps", "training.problems_per_step", "training.micro_batch",
    "training.save_every", "training.watch_every", "training.refresh_every", "training.cuts",
    "training.rounds", "evaluation.budgets", "evaluation.extension_tokens", "evaluation.batch_rows",
    "evaluation.shard",
)  # fmt: skip
AT_LEAST_0 = (
    "prover.keep_tokens", "training.alpha", "training.beta", "training.warmup_steps",
    "training.part_tokens", "training.validate_every", "training.sampling_rows",
    "evaluation.extensions", "evaluation.context",
)  # fmt: skip
RANGES = {
    **dict.fromkeys(AT_LEAST_1, (1, math.inf)), **dict.fromkeys(AT_LEAST_0, (0, math.inf)),
    "lora.dropout": (0, 0.99), "prover.temperature": (0.01, 100), "training.seeds": (0, 2**32 - 1),
    "training.group_size": (2, math.inf),  # a group is its own baseline
    "training.learning_rate": (1e-12, 1), "training.temperature": (0.01, 100),
    "training.max_grad_norm": (1e-6, math.inf), "training.length_weight": (0, 0.999),
    "training.budgets": (0.001, 1),  # shares of C0
    "evaluation.samples": (4, math.inf),  # pass@4 and maj@4 need them
    "evaluation.temperature": (0, 100), "evaluation.top_p": (0.001, 1),
}  # fmt: skip
CHOICES = {
    "model.quantization": ("nf4", "none"), "model.dtype": ("float32", "bfloat16", "float16"),
    "model.engine": ("transformers", "server"), "model.twin_dtype": ("same", "bfloat16"),
    "data.family": ("countdown", "math"),
    "thinking.segmenter": ("official", "markers", "backtrack", "tokens"),
    "prover.estimator": ("exact", "sampled"), "training.methods": TRAINED_METHODS,
    "training.schedule": ("constant", "linear", "cosine"), "training.count": ("generated", "all"),
    "training.correction": (
        "token_truncate", "token_mask", "sequence_truncate", "sequence_mask",
    ),
    "training.report_to": ("none", "tensorboard", "trackio", "wandb"),
}  # fmt: skip
NOT_EMPTY = (
    "model.name", "thinking.close_tag", "thinking.close_text", "data.levels", "lora.targets",
    "training.methods", "training.seeds", "training.budgets", "evaluation.budgets",
    "data.train_files",
)  # fmt: skip
NO_REPEATS = (  # each of them is done, or counted, once
    "training.methods", "training.seeds", "data.levels", "data.train_files", "evaluation.budgets",
)  # fmt: skip


def check(profile: Profile) -> None:
    """Raise ProfileError for a value out of its range, or values that contradict each other."""
    for key in NOT_EMPTY:
        if not _value(profile, key):
            raise ProfileError(f"{key} is empty; give one or more")
    for key in NO_REPEATS:
        value = _value(profile, key)
        if twice := [one for i, one in enumerate(value) if one in value[:i]]:
            raise ProfileError(f"{key} has {twice[0]!r} twice; name each once")
    for key, ends in RANGES.items():
        _check_range(key, _value(profile, key), *ends)
    for key, known in CHOICES.items():
        value = _value(profile, key)
        for one in value if isinstance(value, tuple) else (value,):
            if one not in known:
                raise ProfileError(f"{key}: {one!r} is not known; choose from {', '.join(known)}")
    _check_together(profile)
    report_to = profile.training.report_to
    if report_to != "none" and find_spec(report_to) is None:
        raise ProfileError(f"training.report_to = {report_to!r} needs a package that is not there; "
                           f"install it with pip install {report_to}")  # fmt: skip


def _value(profile: Profile, key: str) -> Any:
    part, _, name = key.partition(".")
    return getattr(getattr(profile, part), name)


def _check_range(key: str, value: Any, least: float, most: float) -> None:
    many = value.values() if isinstance(value, dict) else value
    for one in many if isinstance(value, dict | tuple) else (value,):
        if not least <= one <= most or math.isinf(one):  # nor is a nan
            until = " and finite" if most == math.inf else f" and at most {most:g}"
            raise ProfileError(f"{key} is {one}; it must be at least {least:g}{until}")


def _check_together(profile: Profile) -> None:
    """Raise ProfileError for values that are each allowed, and not together."""
    training, thinking = profile.training, profile.thinking
    for method in training.methods:
        training.rate(method)
    model = profile.model
    if model.engine == "server" and not model.servers:
        raise ProfileError("model.engine = 'server' needs addresses in model.servers")
    if bad := [url for url in model.servers if not re.match(r"https?://[^/]", url)]:
        raise ProfileError(f"model.servers: {bad[0]!r} is no address; http://localhost:8000 is one")
    rows = training.problems_per_step * training.group_size
    if rows % training.micro_batch:
        raise ProfileError(
            f"training.micro_batch must divide problems_per_step * group_size ({rows})"
        )
    if list(training.budgets) != sorted(training.budgets):
        raise ProfileError(
            f"training.budgets = {list(training.budgets)} falls; shares of C0 must ascend, for "
            "prefixes that were thought within a larger budget do not fit a smaller one"
        )
    if max(profile.evaluation.budgets) > thinking.budget:
        raise ProfileError(
            "evaluation.budgets must lie between 1 and C0, which is thinking.budget = "
            f"{thinking.budget}"
        )
    wanted = {thinking.budget // 2, thinking.budget} - {0, *profile.evaluation.budgets}
    if wanted:
        raise ProfileError(
            f"evaluation.budgets lacks {' and '.join(map(str, sorted(wanted)))}: methods are "
            f"compared at C0 (thinking.budget = {thinking.budget}) and at half of it; add what is "
            "missing"
        )
