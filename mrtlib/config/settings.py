"""Every number of a run in one place: frozen dataclasses, and how keys of records name them.

Token counts are counts of the profile's own tokenizer. Names of methods and words of traces are
here too, as every room uses them.
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
    checkout = Path(__file__).resolve().parents[2]
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


COMMITTED = ("tiny", "backtrack", "study")  # profiles whose runs are in the repository

# Settings that are gone, behind the one that they followed: keys of records still name them.
GONE = {"extensions": "bootstrap=2000"}


def later(default: Any, before: Any) -> Any:
    """Declare a setting that came after records were kept: `name: type = later(0.1, before=0.0)`.

    Args:
        before: the value with which a run does what it did when there was no such setting. With it
            a key is what it was, so records stay valid.
    """
    metadata = {"before": before}
    if isinstance(default, dict):  # each instance has its own
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def place(default: Any) -> Any:
    """Declare a setting that says where something lies: `name: type = place("data/problems")`.

    What lies there is in a key, by its content; the place is not, as things may be moved. Nor is
    where a log goes, which changes no result.
    """
    return field(default=default, metadata={"place": True})


@dataclass(frozen=True)
class Model:
    """The base model and how it is loaded."""

    name: str = place("data/reasoner")  # a folder of this repository, or a hub id
    quantization: str = "nf4"  # "nf4" (4-bit NormalFloat, double quantisation) or "none"
    dtype: str = "float32"  # load = compute = autocast type; "bfloat16" on a GPU
    twin: bool = True  # sample and probe with a plain copy that holds the merged weights
    merged: bool = later(True, before=True)  # learn through the twin too, not through PEFT's passes
    twin_dtype: str = later("same", before="same")  # or "bfloat16", on hardware that computes in it
    revision: str = place("main")  # of a hub id: a branch, a tag or a commit
    # Who samples: this process, or servers that speak the OpenAI completions protocol ("server").
    # Exact J and learning stay with this process.
    engine: str = later("transformers", before="transformers")
    servers: tuple[str, ...] = place(())  # their addresses, such as http://localhost:8000
    served: str = place("")  # how they call the base; "" is its name here

    @property
    def title(self) -> str:
        """What it is called in text: the models of the repository have folders and no names."""
        known = {"data/reasoner": "the embedded reasoner",
                 "data/backtracker/warm": "the embedded backtracker"}  # fmt: skip
        return known.get(self.name, self.name)


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
    system: str = later("", before="")  # the system prompt; "": the template's own, or none
    # Arguments of the chat template, such as {"enable_thinking": True}.
    template: dict[str, Any] = later({}, before={})


@dataclass(frozen=True)
class Data:
    """Which problems are used, and how many of each level."""

    family: str = "countdown"
    folder: str = place("data/problems")
    levels: tuple[str, ...] = ("three", "four")
    train: int = 1500
    validation: int = 100
    test: int = 250
    # Files of the folder, without ".jsonl", with the training problems; `train` is how many of each
    # level are taken of each.
    train_files: tuple[str, ...] = later(("train",), before=("train",))


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
    # Of rollouts, as shares of C0, in equal parts of a run: (0.5, 1.0) is a budget curriculum for
    # any method of RL but `budget_curriculum`, which has its own. Credit and regret stay at C0.
    budgets: tuple[float, ...] = later((1.0,), before=(1.0,))
    cuts: int = later(4, before=4)  # budgets, evenly spaced up to C0, of `budget_relative`
    rounds: int = later(4, before=4)  # of sampling and fine-tuning, of the forms of STaR
    sampling_rows: int = later(0, before=0)  # rollouts sampled, and probed, at a time; 0: a step's
    # Of the difference between a server's probabilities and the trainer's, by TRL's names.
    correction: str = later("token_truncate", before="token_truncate")
    # Whether notebooks 02 and 03 also train with each estimator of J and every form of the method.
    studies: bool = place(False)
    report_to: str = place("none")  # or "tensorboard", "trackio", "wandb", in the runs folder

    def rate(self, method: str) -> float:
        """Return a method's peak learning rate.

        Raises:
            ProfileError: the profile has none for it.
        """
        if method not in self.learning_rate:
            raise ProfileError(
                f"no learning rate for {method!r} in training.learning_rate; it has one for "
                f"{', '.join(self.learning_rate) or 'no method'}"
            )
        return self.learning_rate[method]


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
    # Positions that a model with plain rotary ones is let read, beyond those it was made for.
    context: int = later(0, before=0)  # 0: as many as it was made for
    shard: int = later(64, before=64)  # problems that are measured together; what is kept when cut


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

    def adapter(self, method: str, seed: int) -> Path:
        """Return the folder of one training's adapter, whether it is trained or not."""
        return self.runs / "adapters" / f"{method}-{seed}"

    @property
    def figures(self) -> Path:
        """Folder of the figures: the repository's where the run is committed, else the run's.

        A run in another folder (MRT_RUNS) leaves the repository's figures alone.
        """
        here = self.runs == ROOT / "data" / "runs" / self.name
        return ROOT / "figures" if here and self.name in COMMITTED else self.runs / "figures"

    @property
    def model_path(self) -> str:
        """The model's folder as an absolute path when it is in the repository, else its hub id."""
        local = ROOT / self.model.name
        return str(local) if local.is_dir() else self.model.name

    @property
    def problems(self) -> Path:
        """Folder that holds the training problems, `validation.jsonl` and `test.jsonl`."""
        return ROOT / self.data.folder


def as_json(profile: Profile) -> str:
    """Return the profile as JSON with sorted keys: the manifest's record."""
    return json.dumps(dataclasses.asdict(profile), sort_keys=True)


def key_texts(profile: Profile, parts: str) -> dict[str, str]:
    """Return parts of a profile (words of a string) as the keys of records name them."""
    return {part: _key_text(part, getattr(profile, part)) for part in parts.split()}


def _key_text(part: str, settings: Any) -> str:
    words = []
    for item in dataclasses.fields(settings):
        if "place" in item.metadata:
            continue
        value = getattr(settings, item.name)
        if isinstance(value, dict):  # methods in their order, other names in the alphabet's
            place = {name: at for at, name in enumerate(LABELS)}
            names = sorted(value, key=lambda name: (place.get(name, len(place)), name))
            value = {name: value[name] for name in names}
        if "before" not in item.metadata or value != item.metadata["before"]:
            words.append(f"{item.name}={value!r}")
        if item.name in GONE:
            words.append(GONE[item.name])
    return f"{part.capitalize()}({', '.join(words)})"
