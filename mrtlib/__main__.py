"""The command line: `python -m mrtlib reproduce | train | evaluate | bench | tune | ...`.

`train` runs unchanged under `accelerate launch -m mrtlib train ...`. Libraries are imported by
the command that needs them, so that a mistyped option is answered at once.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mrtlib.config import PROFILES, ROOT, TRAINED_METHODS, Profile, ProfileError, load_profile
from mrtlib.store import StoreError, check_folder


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each names its function as `run`."""
    top = argparse.ArgumentParser(prog="python -m mrtlib", description="MRT, from data to figures.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    command = _add(commands, "reproduce", reproduce, "run the notebooks and print the results")
    command.add_argument("--seeds", type=_count, default=1, help="how many training seeds")
    command.add_argument("--cell-hours", type=_hours, default=24.0, help="that a cell may take")
    command = _add(commands, "train", train, "train one adapter")
    command.add_argument("--method", required=True, help=", ".join(TRAINED_METHODS))
    command = _add(commands, "evaluate", evaluate, "measure the base or a trained adapter")
    command.add_argument("--method", required=True, help=", ".join(("base", *TRAINED_METHODS)))
    command = _add(commands, "export", export, "write a trained adapter, or the model it makes")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="new, or empty")
    command.add_argument("--method", required=True, help=", ".join(TRAINED_METHODS))
    command.add_argument("--merged", action="store_true", help="the whole model, in 16 bits")
    command.add_argument("--push", metavar="NAME", help="upload it to the hub, as a private model")
    command = commands.add_parser("bench", help="measure what information gain costs")
    command.add_argument("--profile", default="tiny", help=", ".join(PROFILES))
    command.set_defaults(run=bench)
    command.add_argument("--pairs", type=_count, default=5, help="pairs of each row, 5 or more")
    command = commands.add_parser("scale", help="measure a step at the size that the paper trains")
    command.add_argument("--profile", default="tiny", help=", ".join(PROFILES))
    command.set_defaults(run=scale)
    command = _add(commands, "tune", tune, "search the learning rate of every method")
    command.add_argument("--rates", type=_rate, nargs="+", default=[1e-3, 3e-3, 1e-2])
    command.add_argument("--tokens", type=_count, help="generated in one run; the profile's if not")
    command.add_argument("--seeds", type=_count, default=1, help="how many training seeds")
    command = commands.add_parser("study", help="work off the long study, here and on any machine")
    command.add_argument("--profile", default="study", help=", ".join(PROFILES))
    command.add_argument("--stage", default="all",
                         help="search, train, evaluate, vote, reach or ablate; all if not said")
    command.add_argument("--workers", type=_count, help="processes; one for each core if not said")
    command.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    command.set_defaults(run=study)
    command = commands.add_parser("problems", help="make the Countdown problem sets anew")
    command.add_argument("--seed", type=_seed, default=0)
    command.set_defaults(run=problems)
    own = command.add_subparsers(metavar="fetch | spread")
    _add_fetch(own)
    command = own.add_parser("spread", help="choose training problems whose groups have spread")
    command.add_argument("--profile", default="tiny", help=", ".join(PROFILES))
    command.add_argument("--name", required=True, help="of the file, without .jsonl")
    command.add_argument("--seed", type=_seed, default=argparse.SUPPRESS, help="of the rollouts")
    command.set_defaults(run=spread)
    command = commands.add_parser("reasoner", help="make the embedded reasoner anew")
    command.add_argument("--seed", type=_seed, default=0)
    command.set_defaults(run=reasoner)
    command = commands.add_parser("backtracker", help="make base and warm start of search anew")
    command.add_argument("--seed", type=_seed, default=0)
    command.set_defaults(run=backtracker)
    return top


def _add_fetch(commands) -> None:
    command = commands.add_parser("fetch", help="turn benchmarks, or a data set, into problems")
    command.add_argument("names", nargs="*", metavar="NAME", help="aime24, math500, ...")
    command.add_argument("--into", type=Path, required=True, help="folder of the problem files")
    command.add_argument("--dataset", help="one of your own: on the hub, a folder or a file")
    command.add_argument("--split", default="train", help="of it")
    for field in ("question", "answer", "level"):
        command.add_argument(f"--{field}", help=f"its field with the {field}")
    command.add_argument("--revision", help="commit of it; the newest if not said")
    command.add_argument("--validation", type=_count, default=100, help="problems of each level")
    command.add_argument("--test", type=_count, default=100, help="the same, of a set of your own")
    command.add_argument("--seed", type=_seed, default=argparse.SUPPRESS)
    command.set_defaults(run=fetch)


def _add(commands, name: str, run, words: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=words)
    command.add_argument("--profile", default="tiny", help=", ".join(PROFILES))
    command.add_argument("--seed", type=_seed, default=0, help="training seed, or the first")
    command.set_defaults(run=run)
    return command


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"needs a whole number from 1 on, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 1e-12 <= rate <= 1:  # as in a profile; a nan is in no range
        raise argparse.ArgumentTypeError(f"needs a rate from 1e-12 to 1, got {text!r}")
    return rate


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0.01 <= hours <= 10_000:  # a nan is in no range
        raise argparse.ArgumentTypeError(f"needs hours from 0.01 to 10,000, got {text!r}")
    return hours


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"needs a whole number from 0 to 2^32 - 1, got {text!r}")
    return int(text)


def reproduce(options: argparse.Namespace) -> None:
    """Run all notebooks, then print the results table and where the figures are."""
    profile = load_profile(options.profile)
    from mrtlib import batch

    batch.reproduce(profile, options.seed, options.seeds, cell_hours=options.cell_hours)
    print("\n" + batch.summary(profile))


def train(options: argparse.Namespace) -> None:
    """Train one method with one seed, from its last checkpoint on."""
    profile = load_profile(options.profile)
    _known(options.method, TRAINED_METHODS)
    check_folder(profile.runs)
    from mrtlib.training import runs

    folder = runs.train(profile, options.method, options.seed)
    if os.environ.get("RANK", "0") == "0":  # of several processes, one says so
        print(folder)


def evaluate(options: argparse.Namespace) -> None:
    """Measure the base or one trained adapter on the test problems."""
    profile = load_profile(options.profile)
    _known(options.method, ("base", *TRAINED_METHODS))
    adapter = None if options.method == "base" else _adapter(profile, options)
    check_folder(profile.runs)
    from mrtlib.evaluation import sweep

    print(sweep.evaluate(profile, options.method, options.seed, adapter))


def export(options: argparse.Namespace) -> None:
    """Write a trained adapter, or the merged model, with a card; prints where it is."""
    profile = load_profile(options.profile)
    _known(options.method, TRAINED_METHODS)
    from mrtlib.experiments import export as leaving

    print(leaving.export(profile, options.method, options.seed, options.folder, options.merged))
    if options.push:
        print(leaving.push(options.folder, options.push))


def bench(options: argparse.Namespace) -> None:
    """Measure what information gain costs; prints the table and which goals it reaches."""
    profile = load_profile(options.profile)
    from mrtlib.experiments import benchmark, workload

    workload.check_pairs(options.pairs)
    table = benchmark.benchmark(profile, options.pairs, workload.Shape())
    goals = benchmark.reached(table).map({True: "yes", False: "NO"})
    print("\n" + table.assign(reached=goals).to_string(index=False, float_format="{:.2f}".format))


def scale(options: argparse.Namespace) -> None:
    """Measure a model of 1.5 billion weights in 4 bits; prints each row as it comes."""
    profile = load_profile(options.profile)
    from mrtlib.experiments import scale as large

    print("\n" + large.scale(profile).to_string(index=False, float_format="{:.3g}".format))


def study(options: argparse.Namespace) -> None:
    """Work off a stage of the study; what is on record is not done again."""
    profile = load_profile(options.profile)
    from mrtlib.experiments import queue, stages

    _known_stage(options.stage, (stages.ALL, *stages.STAGES))
    check_folder(profile.runs)
    tasks = stages.tasks_of(profile, options.stage)
    if options.worker:
        sys.exit(3 if queue.work_off(tasks, profile.runs) else 0)
    command = [sys.executable, "-m", "mrtlib", "study", "--profile", options.profile,
               "--stage", options.stage, "--worker"]  # fmt: skip
    queue.run_workers(command, options.workers or len(queue.own_cores()), tasks, profile.runs)
    print(queue.state(tasks, profile.runs, 0.0, 0.0))


def problems(options: argparse.Namespace) -> None:
    """Write the problem sets of a seed into data/problems; prints how many."""
    from mrtlib.tasks.countdown import write_splits

    for name, count in write_splits(ROOT / "data" / "problems", options.seed).items():
        print(f"{name}: {count} problems")


def spread(options: argparse.Namespace) -> None:
    """Write the training problems whose groups have spread; prints how many of each level."""
    profile = load_profile(options.profile)
    from mrtlib.experiments.spread import write_with_spread

    for level, count in write_with_spread(profile, options.seed, options.name).items():
        print(f"{options.name}: {count} problems of level {level}")


def reasoner(options: argparse.Namespace) -> None:
    """Make the embedded reasoner from nothing and put it in place of the committed one."""
    profile = load_profile("tiny")
    from mrtlib.reasoner.lessons import Recipe
    from mrtlib.reasoner.making import make

    make(Recipe(seed=options.seed), profile.runs / "reasoner", ROOT / profile.model.name)


def backtracker(options: argparse.Namespace) -> None:
    """Make the model of backtracking search from nothing and put it in place of the committed."""
    from mrtlib.experiments import warm_start

    table = warm_start.make_backtracker(load_profile("backtrack"), options.seed)
    print(table.to_string(index=False))


def tune(options: argparse.Namespace) -> None:
    """Search the learning rate of every method; prints the table and the rates it chooses."""
    profile = load_profile(options.profile)
    check_folder(profile.runs)
    from mrtlib.experiments import learning_rates

    seeds = tuple(range(options.seed, options.seed + options.seeds))
    tokens = options.tokens or profile.training.tokens
    table = learning_rates.search(profile, tuple(options.rates), seeds, tokens)
    print(table.to_string(index=False))
    for method, rate in learning_rates.best(table).items():
        print(f"{method}: {rate:g}")


def fetch(options: argparse.Namespace) -> None:
    """Write problem files of benchmarks or of a data set; prints what was taken and what not."""
    from mrtlib.tasks import fetching
    from mrtlib.tasks.fetching import SOURCES, Source
    from mrtlib.tasks.problems import ProblemError

    for name in options.names:
        if name not in SOURCES:
            raise ProblemError(f"unknown benchmark {name!r}; choose from {', '.join(SOURCES)}")
    chosen = {name: SOURCES[name] for name in options.names}
    if options.dataset:
        if not options.question or not options.answer:
            raise ProblemError("name the fields of the data set with --question and --answer")
        chosen["own"] = Source(options.dataset, options.split, options.question, options.answer,
                               options.level, trains=True, revision=options.revision)  # fmt: skip
    elif options.revision:
        raise ProblemError("--revision is of --dataset; the benchmarks have theirs")
    if not chosen:
        raise ProblemError(f"name a benchmark ({', '.join(SOURCES)}), or --dataset PATH")
    record = fetching.fetch(chosen, options.into, options.validation, options.test, options.seed)
    print(fetching.in_words(record, options.into))


def _known_stage(stage: str, stages: tuple[str, ...]) -> None:
    if stage not in stages:
        raise ProfileError(f"unknown stage {stage!r}; choose one of {', '.join(stages)}")


def _known(method: str, methods: tuple[str, ...]) -> None:
    if method not in methods:
        raise ProfileError(f"unknown method {method!r}; choose one of {', '.join(methods)}")


def _adapter(profile: Profile, options: argparse.Namespace) -> Path:
    folder = profile.adapter(options.method, options.seed)
    if not (folder / "adapter_model.safetensors").is_file():
        raise StoreError(
            f"no trained adapter in {folder}; train it first: python -m mrtlib train "
            f"--profile {profile.name} --method {options.method} --seed {options.seed}"
        )
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return 0, 2 after an error of ours, 130 or 143 after a signal to stop."""
    options = parser().parse_args(arguments)
    try:
        with _stopping():
            options.run(options)
    except ValueError as error:
        if not type(error).__module__.startswith("mrtlib."):
            raise  # a fault that we did not foresee: its traceback is the news
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("\nstopped; the same command goes on from what is done", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    return 0


@contextmanager
def _stopping() -> Iterator[None]:
    """Let a signal to end stop a command as an interrupt does: kernels and workers end with it."""
    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
