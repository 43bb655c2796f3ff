"""One training from its settings to its adapter: resumed, said while it runs, and recorded."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel, PrinterCallback, TrainerCallback

from mrtlib.config import Profile, Training
from mrtlib.locks import alone
from mrtlib.models.loading import adapter_is_whole, load_policy, save_adapter, work_key
from mrtlib.schemas import SECONDS
from mrtlib.store import (
    KEY,
    file_hashes,
    is_of_key,
    read_table,
    set_aside,
    write_json,
    write_table,
)
from mrtlib.training.checkpoints import Marking, history, newest
from mrtlib.training.methods import METHODS
from mrtlib.training.ranks import Ranks
from mrtlib.training.schedule import share_done, spent
from mrtlib.training.validation import BEST, Validation

# How the libraries say that a process of a run is gone, in the words of gloo and NCCL.
GONE = re.compile(r"(?i)closed by (remote )?peer|reset by peer|broken pipe|timed out|NCCL|gloo")
# What a run tries at its start, where it has a use: exact against sampled J, and short numbers.
FOUND = ("comparison.json", "precision.json")
LOG = "steps.parquet"  # beside the adapter
# A policy, the rows of its `steps`, and what brings its weights together where they are spread.
Trained = tuple[PreTrainedModel, list[dict], Callable[[], AbstractContextManager]]


def train(profile: Profile, method: str, seed: int) -> Path:
    """Train one adapter, from its last checkpoint if there is one; return its folder.

    >>> from mrtlib import load_profile, train
    >>> folder = train(load_profile("smoke"), "regret_to_go", seed=0)
    regret_to_go, seed 0: step 1, ...
    >>> sorted(path.name for path in folder.glob("*.parquet"))
    ['steps.parquet']

    Writes the adapter as it is after the last step, the one that was best on the validation
    problems (folder `best`), and `steps.parquet`. What was trained with the same settings is not
    trained again.

    Raises:
        ProfileError, ProblemError, ModelError: before any training.
    """
    folder = profile.adapter(method, seed)
    key = training_key(profile, method, seed)
    if _is_whole(folder, key):
        return folder
    ranks = Ranks.here()
    with ExitStack() as stack:
        if ranks.writes:  # several processes are one run
            stack.enter_context(alone(profile.runs, f"adapters-{method}-{seed}"))
        ranks.wait()
        if not _is_whole(folder, key):  # by whoever was waited for
            with _together(ranks):
                _train(profile, method, seed, folder, key, ranks)
    return folder


class TrainingError(ValueError):
    """Trainings that are not on record, where none shall be made."""


def train_all(
    profile: Profile, wanted: Sequence[tuple[str, int]], missing: bool = True
) -> list[Path]:
    """Train what is not on record, having said what that is and how long it will take.

    Args:
        wanted: methods and seeds.
        missing: whether what is not on record is trained.

    Returns:
        The folders of the adapters, in the order of `wanted`.

    Raises:
        TrainingError: something is not on record and shall not be trained.
    """
    folders = [profile.adapter(method, seed) for method, seed in wanted]
    keys = [training_key(profile, method, seed) for method, seed in wanted]
    there = [is_trained(*run) for run in zip(folders, keys, strict=True)]
    left = [run for run, known in zip(wanted, there, strict=True) if not known]
    if left:
        names = ", ".join(f"{method} seed {seed}" for method, seed in left)
        known = [folder for folder, known in zip(folders, there, strict=True) if known]
        words = f"{len(known)} of {len(wanted)} trainings are on record in {profile.runs}"
        if not missing:
            raise TrainingError(f"{words}; not there: {names}. With train_missing = True they are "
                                "trained; or choose seeds that are on record")  # fmt: skip
        print(f"{words}; to be trained: {names}{_estimate(known, len(left))}", flush=True)
    return [train(profile, *run) for run in wanted]


def _estimate(known: Sequence[Path], left: int) -> str:
    """Return how long some trainings will take, by those on record, in words."""
    if not known:
        return ""
    steps = [read_table(folder / LOG, "steps")[[*SECONDS]] for folder in known]
    minutes = sum(float(table.to_numpy().sum()) for table in steps) / len(known) / 60
    return f"; about {left * minutes:.0f} min, as those on record took {minutes:.1f} min each"


def is_trained(folder: Path, key: str) -> bool:
    """Say whether a folder has the adapter of a training; put one that is damaged aside."""
    if not is_of_key(folder, key):
        return False
    if adapter_is_whole(folder):
        return True
    set_aside(folder)
    return False


def _is_whole(folder: Path, key: str) -> bool:
    """Say whether a folder has all that a training leaves: adapters are handed on without logs."""
    return is_trained(folder, key) and (folder / LOG).is_file()


@contextmanager
def _together(ranks: Ranks) -> Iterator[None]:
    """Say in one line that another process of the run is gone, which the rest cannot do without."""
    try:
        yield
    except RuntimeError as error:
        if ranks.count == 1 or not GONE.search(str(error)):
            raise
        raise TrainingError(
            f"process {ranks.rank} of {ranks.count} lost another one of its run; the same command "
            "goes on from the last checkpoint"
        ) from error


def _train(
    profile: Profile, method: str, seed: int, folder: Path, key: str, ranks: Ranks
) -> None:
    work = profile.runs / "checkpoints" / f"{method}-{seed}-{key[:8]}"
    make = _reinforce if method in METHODS else _imitate
    policy, rows, gathered = make(profile, method, seed, work, ranks)
    with gathered():
        if ranks.writes:
            _keep(policy, rows, work, folder, key)
    ranks.wait()


def _keep(
    policy: PreTrainedModel, rows: list[dict], work: Path, folder: Path, key: str
) -> None:
    """Write what a training leaves: adapters, its log, what it tried, and last its key."""
    (folder / KEY).unlink(missing_ok=True)  # of another training, whose adapter is replaced now
    shutil.rmtree(folder / BEST, ignore_errors=True)
    for name in FOUND:
        (folder / name).unlink(missing_ok=True)
    save_adapter(policy, folder)
    for part in work.glob(BEST):
        shutil.copytree(part, folder / BEST, dirs_exist_ok=True)
    for name in FOUND:
        for part in work.glob(name):
            shutil.copy(part, folder)
    write_table(folder / LOG, "steps", rows)
    write_json(folder / KEY, key)  # last: it marks the adapter as whole


def _imitate(profile: Profile, method: str, seed: int, work: Path, ranks: Ranks) -> Trained:
    if ranks.count > 1:
        raise TrainingError(f"{method} is trained by one process; start it without a launcher")
    from mrtlib.training.finetuning import fine_tune  # brings TRL, as below

    return *fine_tune(profile, method, seed, work), nullcontext


def _reinforce(profile: Profile, method: str, seed: int, work: Path, ranks: Ranks) -> Trained:
    with ranks.first_alone():  # it puts aside what is damaged
        last = newest(work)
    if last and share_done(history(last), profile.training) >= 1:  # cut behind its last step
        return load_policy(profile, last), steps_of(history(last), method, seed), nullcontext
    # TRL and PEFT take seconds to import, and who only reads what is on record has no use for them.
    from mrtlib.training.trainer import MRTTrainer

    trainer = MRTTrainer(profile, method, seed, work)
    trainer.remove_callback(PrinterCallback)
    few = "" if trainer.prover.is_exact else f", {profile.prover.samples} answers a boundary"
    trainer.add_callback(Validation(trainer, work / BEST))
    name = f"{method}, seed {seed}{few}"
    trainer.add_callback(Progress(name, profile.training, 5 if ranks.writes else 0))
    trainer.add_callback(Marking())
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    finally:
        if trainer.served:
            trainer.served.close()
    return trainer.model, steps_of(trainer.state.log_history, method, seed), trainer.gathered


def training_key(profile: Profile, method: str, seed: int) -> str:
    """Return what decides a training: settings, base weights, problems, method, seed."""
    rate = profile.training.rate(method)
    alpha = 0.0 if method == "outcome" else profile.training.alpha  # it has no use for one
    own = method in METHODS and METHODS[method].budgets
    training = replace(  # without what changes no adapter
        profile.training, methods=(), seeds=(), learning_rate={method: rate},
        alpha=alpha, validate_every=Training.validate_every,
        budgets=Training.budgets if own else profile.training.budgets,
    )  # fmt: skip
    names = (*profile.data.train_files, "validation")
    files = [profile.problems / f"{name}.jsonl" for name in names]
    problems = file_hashes(files, profile.problems)
    return work_key(
        replace(profile, training=training), "model lora thinking data prover training",
        problems=problems, method=method, seed=seed,
    )  # fmt: skip


class Progress(TrainerCallback):
    """End a training when its tokens are spent; say what it does and how long is left.

    `every`: steps from one line to the next; 0 for no line.
    """

    def __init__(self, name: str, training: Training, every: int) -> None:
        self.name, self.tokens, self.every = name, training.tokens, every
        self.count, self.began = training.count, None

    def on_step_begin(self, args, state, control, **_) -> None:
        if self.began is None:
            self.began, self.before = time.monotonic(), spent(state.log_history, self.count)
            self.step = state.global_step

    def on_log(self, args, state, control, logs=None, **_) -> None:
        if "reward" not in (logs or {}):
            return
        done = spent(state.log_history, self.count)
        control.should_training_stop = control.should_training_stop or done >= self.tokens
        time_to_say = state.global_step <= 1 or state.global_step % (self.every or 1) == 0
        if not self.every or not (time_to_say or done >= self.tokens):
            return
        each = max(1.0, (done - self.before) / (state.global_step - self.step))  # tokens of a step
        ahead = min((self.tokens - done) / each, state.max_steps - state.global_step)
        pace = (time.monotonic() - self.began) / (state.global_step - self.step)
        print(
            f"{self.name}: step {state.global_step}, {done} tokens, "
            f"reward {logs['reward']:.2f}, {logs['length']:.0f} thinking tokens, "
            f"{pace * max(0.0, ahead) / 60:.0f} min left",
            flush=True,
        )


def steps_of(history: list[dict], method: str, seed: int) -> list[dict]:
    """Return a trainer's log history as rows of the `steps` schema."""
    rows, generated = [], 0
    for log in history:
        if "reward" not in log:
            continue
        generated += int(log["generated"])
        others = log["sampling_s"] + log["probing_s"]
        rows.append({
            "method": method, "seed": seed, "step": log["step"], "generated_tokens": generated,
            "prover_tokens": int(log["prover_read"]),
            "learning_s": log["step_time"] - others, "kl": log.get("kl"),
            "server_difference": log.get("sampling/sampling_logp_difference/mean"),
            "server_ratio": log.get("sampling/importance_sampling_ratio/mean"),
            **{name: log.get(name) for name in (
                "reward", "progress", "regret", "length", "episodes", "truncated", "ended",
                "credit_square", "largest_share", "learning_rate", "grad_norm", "sampling_s",
                "probing_s", "sampled", "probed", "learned", "validation", "validation_regret",
                "validation_forced",
            )},
        })  # fmt: skip
    return rows
