"""Every number of a run in one place: frozen dataclasses and the named profiles.

One dial selects them all: the profile's name (`smoke`, `tiny`, `backtrack`, `r1-distill-1.5b`).
Nothing else in the library branches on size. Token counts are counts of the profile's own
tokenizer.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _root() -> Path:
    """Return the folder of data/, notebooks/ and figures/, as an absolute path.

    The environment variable MRT_ROOT, where it is set; else the checkout that this package lies
    in; else, for a package that was installed alone, the current folder.
    """
    checkout = Path(__file__).resolve().parents[1]
    here = checkout if (checkout / "data" / "problems").is_dir() else Path.cwd()
    return Path(os.environ.get("MRT_ROOT") or here).absolute()


ROOT = _root()

# How methods are named in tables and figures, and their order there.
LABELS = {
    "base": "base",
    "outcome": "outcome RL",
    "episode_progress": "episode progress",
    "episode_progress_centred": "centred progress",
    "regret_to_go": "regret-to-go",
    "final_progress": "final progress",
    "budget_relative": "budget relative",
    "length_penalty": "length penalty",
    "budget_curriculum": "budget curriculum",
    "outcome_wide": "outcome, wide groups",
    "mixed_group": "mixed group",
    "termination_baseline": "termination baseline",
    "stale_outcome": "outcome, stale prefixes",
    "star": "STaR",
    "mrt_star_keep": "MRT (STaR), kept whole",
    "mrt_star_cut": "MRT (STaR), cut",
}
TRAINED_METHODS = tuple(LABELS)[1:]
COMPARED = TRAINED_METHODS[:4]  # trained with every seed, and evaluated on the test problems

# What opens a new episode in the authors' analysis notebooks (github.com/CMU-AIRe/MRT).
WAIT, BUT_WAIT, ALTERNATIVELY, HOLD_ON = "Wait", "But wait", "Alternatively", "But hold on"
CHECK = "But let me double-check"
ANOTHER_WAY = "Is there another way to think about this?"
MARKERS = (WAIT, BUT_WAIT, ALTERNATIVELY, ANOTHER_WAY, CHECK, HOLD_ON)
# Backtracking search: a labelled step, and the line that names an error and returns to a step.
STEP, WRONG = "Step", "Wrong"
BACK = f"{WRONG}, back to step"
ANSWER = "The answer is "  # where no tag closes the thinking, the words that open the answer do


class ProfileError(ValueError):
    """A profile that does not exist, or values in one that contradict each other."""


# Settings that are gone, behind the one that they followed: keys of records still name them.
GONE = {"extensions": "bootstrap=2000"}


def later(default: Any, before: Any) -> Any:
    """Declare a setting that came after records were kept: `name: type = later(0.1, before=0.0)`.

    Args:
        before: the value with which a run does what it did when there was no such setting. With it
            a key is what it was, so records stay valid.
    """
    return field(default=default, metadata={"before": before})


@dataclass(frozen=True)
class Model:
    """The base model and how it is loaded."""

    name: str = "data/reasoner"  # a folder of this repository, or a hub id
    quantization: str = "nf4"  # "nf4" (4-bit NormalFloat, double quantisation) or "none"
    dtype: str = "float32"  # load = compute = autocast type; "bfloat16" on a GPU
    twin: bool = True  # sample and probe with a plain copy that holds the merged weights
    merged: bool = later(True, before=True)  # learn through the twin too, not through PEFT's passes
    twin_dtype: str = later("same", before="same")  # or "bfloat16", on hardware that computes in it


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685); always trained in float32."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip


@dataclass(frozen=True)
class Thinking:
    """How a trace is delimited, cut into episodes and brought to an end."""

    open_tag: str = "<think>"
    close_tag: str = "</think>"
    segmenter: str = "official"  # "official", "markers", "backtrack" or "tokens"
    min_paragraphs: int = 3  # paragraphs an episode needs before it can be cut
    max_cuts: int = 49
    group_size: int = 1  # raw episodes merged into one point of a curve
    episode_tokens: int = 32  # episode length of the "tokens" segmenter
    instruction: str = ""  # put behind the question in the user's turn
    stop_text: str = "Time is up. I answer now.\n\n"  # said when thinking is cut
    close_text: str = "</think>\n\n"  # ends the thinking, forced or natural
    answer_open: str = "The answer is \\boxed{"  # the answer up to where the reference begins
    answer_close: str = "}"  # what must follow the reference
    budget: int = 224  # C0: thinking tokens
    answer_tokens: int = 32  # at most so many tokens for the closing text and the answer


@dataclass(frozen=True)
class Data:
    """Which problems are used, and how many of each level."""

    family: str = "countdown"
    folder: str = "data/problems"
    levels: tuple[str, ...] = ("three", "four")
    train: int = 1500
    validation: int = 100
    test: int = 250


@dataclass(frozen=True)
class ProverSettings:
    """How J is measured at a boundary."""

    estimator: str = "exact"  # of the training reward: "exact" or "sampled"; evaluation is exact
    samples: int = 8  # answers drawn at each boundary by "sampled"
    temperature: float = 1.0
    pack_tokens: int = 16384  # most tokens of one row of a pass; bounds its memory
    pass_tokens: int = later(2048, before=2048)  # of a pass of several rows, padding included
    keep_tokens: int = later(32_768, before=32_768)  # most tokens whose caches sampling hands on
    equal_once: bool = later(True, before=True)  # J of equal beginnings is measured once in a step


@dataclass(frozen=True)
class Training:
    """One reinforcement fine-tuning run. A group is the rollouts of one problem in one step."""

    methods: tuple[str, ...] = COMPARED
    seeds: tuple[int, ...] = (0,)
    tokens: int = 320_000  # generated in one run: the same for every method
    most_steps: int = 200  # bound, in case rollouts become very short
    problems_per_step: int = 8
    group_size: int = 8
    learning_rate: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(TRAINED_METHODS, 3e-3)
    )
    alpha: float = 1.0  # weight of the information gain beside the outcome (paper, Eq. 2)
    beta: float = 0.0  # weight of the KL term to the base
    temperature: float = 1.0
    warmup_steps: int = 2
    micro_batch: int = 64  # rows in one forward and backward pass
    part_tokens: int = later(2048, before=2048)  # of a part of it, padding included; 0: no parts
    save_every: int = 10
    watch_every: int = 5  # steps from one look at J to the next where the method needs none
    schedule: str = later("constant", before="constant")  # or "linear", "cosine": to a tenth
    max_grad_norm: float = later(1.0, before=1.0)  # longer gradients are cut to this length
    count: str = later("generated", before="generated")  # what `tokens` bounds; or "all": read too
    validate_every: int = later(10, before=10)  # steps between validations; 0 for none
    refresh_every: int = later(10, before=10)  # steps that use one set of stale prefixes
    length_weight: float = later(0.2, before=0.2)  # of the length penalty, in [0, 1)
    cuts: int = later(4, before=4)  # budgets, evenly spaced up to C0, of `budget_relative`
    rounds: int = later(4, before=4)  # of sampling and fine-tuning, of the forms of STaR


@dataclass(frozen=True)
class Evaluation:
    """Budget sweeps on the test problems."""

    samples: int = 4  # rollouts a problem
    temperature: float = 1.0
    top_p: float = 1.0
    budgets: tuple[int, ...] = (28, 56, 84, 112, 140, 168, 196, 224)
    extension_tokens: int = 56  # thinking tokens of one forced continuation
    extensions: int = 4  # 4 x 56 = another C0
    batch_rows: int = 128


@dataclass(frozen=True)
class Profile:
    """Everything that decides what a run does."""

    name: str
    model: Model = Model()
    lora: Lora = Lora()
    thinking: Thinking = Thinking()
    data: Data = Data()
    prover: ProverSettings = ProverSettings()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @property
    def runs(self) -> Path:
        """Folder of everything that a run of this profile writes.

        The environment variable MRT_RUNS, where it is set, stands for data/runs: for a larger
        disk, or for a run that shall leave the repository alone.
        """
        return Path(os.environ.get("MRT_RUNS") or ROOT / "data" / "runs").absolute() / self.name

    @property
    def figures(self) -> Path:
        """Folder of the figures: the repository's where the run is committed, else the run's."""
        return ROOT / "figures" if self.name in ("tiny", "backtrack") else self.runs / "figures"

    @property
    def model_path(self) -> str:
        """The model's folder as an absolute path when it is in the repository, else its hub id."""
        local = ROOT / self.model.name
        return str(local) if local.is_dir() else self.model.name

    @property
    def problems(self) -> Path:
        """Folder that holds `train.jsonl`, `validation.jsonl` and `test.jsonl`."""
        return ROOT / self.data.folder


def _smoke() -> Profile:
    return Profile(
        name="smoke",
        data=Data(train=32, validation=8, test=12),
        training=Training(tokens=1200, most_steps=4, problems_per_step=2, group_size=4,
                          warmup_steps=0, micro_batch=8, save_every=1),
        evaluation=Evaluation(samples=4, extensions=2),
    )  # fmt: skip


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
        training=Training(("outcome", "mixed_group", "star", "mrt_star_cut"), tokens=120_000),
        # Its tokenizer does not know the words that force a model to think on: no extensions.
        evaluation=Evaluation(budgets=(16, 32, 48, 64, 80, 96, 112, 128), extensions=0),
    )  # fmt: skip


def _backtrack_smoke() -> Profile:
    whole, small, replace = _backtrack(), _smoke(), dataclasses.replace
    return replace(
        whole, name="backtrack-smoke", data=replace(small.data, test=6),
        training=replace(small.training, methods=whole.training.methods),
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
        prover=ProverSettings(pass_tokens=16384, keep_tokens=16384),
        training=Training(
            tokens=150_000_000, most_steps=248, problems_per_step=16, group_size=8,
            micro_batch=1, part_tokens=16384, beta=0.001, save_every=20, warmup_steps=25,
            learning_rate=dict.fromkeys(TRAINED_METHODS, 1e-5), temperature=0.9,
        ),
        evaluation=Evaluation(
            samples=16, temperature=0.6, top_p=0.95, extension_tokens=2048, batch_rows=16,
            budgets=(1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192),
        ),
    )  # fmt: skip


PROFILES = {
    "smoke": _smoke, "tiny": lambda: Profile("tiny"), "backtrack-smoke": _backtrack_smoke,
    "backtrack": _backtrack, "r1-distill-1.5b": _r1_distill,
}  # fmt: skip


def load_profile(name: str) -> Profile:
    """Return the named profile, checked.

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

    Raises:
        ProfileError: no such profile, or its values contradict each other.
    """
    if name not in PROFILES:
        raise ProfileError(f"unknown profile {name!r}; choose one of {', '.join(PROFILES)}")
    profile = PROFILES[name]()
    check(profile)
    return profile


def check(profile: Profile) -> None:
    """Raise ProfileError when values of a profile contradict each other."""
    training, evaluation, thinking = profile.training, profile.evaluation, profile.thinking
    for method in training.methods:
        if method not in TRAINED_METHODS:
            raise ProfileError(
                f"unknown method {method!r}; choose from {', '.join(TRAINED_METHODS)}"
            )
        if method not in training.learning_rate:
            raise ProfileError(f"no learning rate for {method!r} in training.learning_rate")
    if training.group_size < 2:
        raise ProfileError("training.group_size must be 2 or more: a group is its own baseline")
    if (training.problems_per_step * training.group_size) % training.micro_batch:
        raise ProfileError(
            "training.micro_batch must divide problems_per_step * group_size "
            f"({training.problems_per_step * training.group_size})"
        )
    _check_training(training)
    if profile.prover.estimator not in ("exact", "sampled") or profile.prover.samples < 1:
        raise ProfileError("prover.estimator must be 'exact' or 'sampled', with 1 sample or more")
    if thinking.budget < 1:
        raise ProfileError(f"thinking.budget is {thinking.budget}; it must be at least 1 token")
    if evaluation.samples < 4:
        raise ProfileError("evaluation.samples must be 4 or more: pass@4 and maj@4 need them")
    if min(evaluation.budgets) < 1 or max(evaluation.budgets) > thinking.budget:
        raise ProfileError(f"evaluation.budgets must lie between 1 and C0 = {thinking.budget}")
    if profile.model.twin_dtype not in ("same", "bfloat16"):
        raise ProfileError(
            f"twin_dtype {profile.model.twin_dtype!r} is not known; use 'same' or 'bfloat16'"
        )
    if profile.model.quantization not in ("nf4", "none"):
        raise ProfileError(
            f"quantization {profile.model.quantization!r} is not known; use 'nf4' or 'none'"
        )


def _check_training(training: Training) -> None:
    """Raise ProfileError for a number or a name of the training that cannot be used."""
    for name in ("watch_every", "refresh_every", "cuts", "rounds"):
        if getattr(training, name) < 1:
            raise ProfileError(f"training.{name} must be 1 or more")
    if training.schedule not in ("constant", "linear", "cosine"):
        raise ProfileError(
            f"training.schedule {training.schedule!r} is not known; use constant, linear or cosine"
        )
    if training.count not in ("generated", "all"):
        raise ProfileError(f"training.count is {training.count!r}; use 'generated' or 'all'")
    if training.max_grad_norm <= 0 or not 0 <= training.length_weight < 1:
        raise ProfileError(
            "training.max_grad_norm must be above 0, and training.length_weight lie in [0, 1)"
        )
    if training.validate_every < 0 or training.beta < 0:
        raise ProfileError("training.validate_every and training.beta must be 0 or more")


def as_json(profile: Profile) -> str:
    """Return the profile as JSON with sorted keys: the manifest's record."""
    return json.dumps(dataclasses.asdict(profile), sort_keys=True)


def key_texts(profile: Profile, parts: str) -> dict[str, str]:
    """Return parts of a profile (words of a string) as the keys of records name them."""
    return {part: _key_text(part, getattr(profile, part)) for part in parts.split()}


def _key_text(part: str, settings: Any) -> str:
    words = []
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if "before" not in item.metadata or value != item.metadata["before"]:
            words.append(f"{item.name}={value!r}")
        if item.name in GONE:
            words.append(GONE[item.name])
    return f"{part.capitalize()}({', '.join(words)})"
