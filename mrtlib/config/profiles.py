"""The named profiles, and how a profile is found: by its name, or in a file."""

import dataclasses
from pathlib import Path

from mrtlib.config.files import SUFFIX, keep_profile, kept_profile, read_profile
from mrtlib.config.limits import check
from mrtlib.config.settings import (
    ANSWER,
    TRAINED_METHODS,
    Data,
    Evaluation,
    Model,
    Profile,
    ProfileError,
    ProverSettings,
    Thinking,
    Training,
)


def _smoke() -> Profile:
    return Profile(
        name="smoke",
        data=Data(train=32, validation=8, test=12),
        training=Training(tokens=1200, most_steps=4, problems_per_step=2, group_size=4,
                          warmup_steps=1, micro_batch=8, save_every=1, studies=True),
        evaluation=Evaluation(samples=4, extensions=2),
    )  # fmt: skip


def _tiny() -> Profile:
    return Profile("tiny", training=Training(studies=True))


def _backtrack() -> Profile:
    """The second parameterisation: labelled steps, errors that are named, returns to a step."""
    return Profile(
        name="backtrack",
        model=Model("data/backtracker/warm"),
        thinking=Thinking(
            open_tag="", close_tag=ANSWER, close_text=ANSWER, budget=128, answer_tokens=24,
            segmenter="backtrack", min_paragraphs=1, stop_text="I stop here.\n\n",
            answer_open="\\boxed{",
        ),
        training=Training(
            ("outcome", "mixed_group", "star", "mrt_star_cut"), tokens=120_000, schedule="cosine",
            learning_rate={"outcome": 1e-3, "mixed_group": 1e-3, "star": 3e-3,
                           "mrt_star_cut": 3e-3},
        ),
        # Its tokenizer does not know the words that force a model to think on: no extensions.
        evaluation=Evaluation(budgets=(16, 32, 48, 64, 80, 96, 112, 128), extensions=0),
    )  # fmt: skip


def _backtrack_smoke() -> Profile:
    whole, small, replace = _backtrack(), _smoke(), dataclasses.replace
    return replace(
        whole, name="backtrack-smoke", data=replace(small.data, test=6),
        training=replace(small.training, methods=whole.training.methods),
    )  # fmt: skip


def _study() -> Profile:
    """The long study of every form on the embedded reasoner; see notebook 06 for its protocol."""
    return Profile(
        name="study",
        training=Training(
            TRAINED_METHODS, tuple(range(10)), tokens=3_200_000, most_steps=2000, count="all",
            schedule="cosine", validate_every=20,
            learning_rate=dict.fromkeys(TRAINED_METHODS, 2e-3) | {"budget_relative": 1e-3},
        ),
        # Forced on to 4 C0, in steps of half a C0: further than the reasoner's 512 positions.
        evaluation=Evaluation(
            extension_tokens=112, extensions=6, batch_rows=500, context=1024, shard=250,
        ),
    )  # fmt: skip


def _r1_distill() -> Profile:
    return Profile(
        name="r1-distill-1.5b",
        model=Model("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "nf4", "bfloat16", False, False),
        thinking=Thinking(
            group_size=5,
            instruction="\nPut the final answer within \\boxed{}.",
            stop_text="Time is up. Considering the time spent and the approaches tried, I should "
            "stop thinking now and write the final answer from what I already have.",
            close_text="\n</think>\n\n",
            answer_open="**Step-by-step explanation and answer**\n\n1. **Answer:** \\boxed{",
            budget=8192, answer_tokens=1024,
        ),
        data=Data(family="math", folder="data/problems/math", levels=("math",),
                  train=4000, validation=100, test=200),
        # 16 rollouts are sampled at a time: their caches have 4.3 GB, and as much again when kept.
        prover=ProverSettings(pass_tokens=16384, keep_tokens=160_000),
        training=Training(
            tokens=150_000_000, most_steps=248, problems_per_step=16, group_size=8,
            micro_batch=1, part_tokens=16384, beta=0.001, save_every=20, warmup_steps=25,
            sampling_rows=16,
            learning_rate=dict.fromkeys(TRAINED_METHODS, 1e-5), temperature=0.9,
        ),
        evaluation=Evaluation(
            samples=16, temperature=0.6, top_p=0.95, extension_tokens=2048, batch_rows=16,
            budgets=(1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192),
        ),
    )  # fmt: skip


PROFILES = {
    "smoke": _smoke, "tiny": _tiny, "backtrack-smoke": _backtrack_smoke, "backtrack": _backtrack,
    "study": _study, "r1-distill-1.5b": _r1_distill,
}  # fmt: skip


def load_profile(name: str) -> Profile:
    """Return a profile, checked: a named one, that of a TOML file, or one that a file gave before.

    >>> from mrtlib import load_profile
    >>> profile = load_profile("tiny")
    >>> profile.thinking.budget  # C0 in tokens
    224
    >>> profile.training.methods
    ('outcome', 'episode_progress', 'episode_progress_centred', 'regret_to_go')

    A run that differs in one number is a copy with a name, and so a folder, of its own:

    >>> from dataclasses import replace
    >>> thinking = replace(profile.thinking, budget=448)
    >>> replace(profile, name="longer", thinking=thinking).runs.name
    'longer'

    Args:
        name: of `PROFILES`; a path that ends with ".toml" (see `files`), whose profile is then
            kept in its runs folder; or the name of a profile that was kept.

    Raises:
        ProfileError: no such profile, or something in it cannot be used.
    """
    if name.endswith(SUFFIX):
        profile = read_profile(Path(name), PROFILES)
        keep_profile(profile)
        return profile
    if name not in PROFILES:
        if kept := kept_profile(name):
            return kept
        known = ", ".join(PROFILES)
        raise ProfileError(f"unknown profile {name!r}; choose one of {known}, or name a TOML file")
    profile = PROFILES[name]()
    check(profile)
    return profile
