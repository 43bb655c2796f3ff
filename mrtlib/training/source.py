"""What a run asks: the training problems of a profile and their prompts.

All methods of a seed ask the same ones in the same order.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PretrainedConfig

from mrtlib.config import Profile
from mrtlib.models.loading import check_context
from mrtlib.models.tokens import load_tokenizer, prompt_ids
from mrtlib.prover.probes import check_problems
from mrtlib.rollouts import Reader
from mrtlib.tasks.problems import SPLIT_NAMES, Problem, ProblemError, asked_again, load_problems

HELD_OUT = SPLIT_NAMES[1:]
TERMINATION = 32  # tokens at most of the text that stands before an answer


def training_problems(profile: Profile) -> list[Problem]:
    """Return the problems that a profile trains on, file by file.

    Raises:
        ProblemError: a file is missing or has faults; two files ask the same, or have an id in
            common; or what is asked here is asked in validation or test, where those are there.
    """
    found: list[Problem] = []
    for name in profile.data.train_files:
        problems = load_problems(profile.problems / f"{name}.jsonl", profile.data.train)
        known = {p.id for p in found} | {p.question for p in found}
        if twice := [p.id for p in problems if p.id in known or p.question in known]:
            raise ProblemError(
                f"{name}.jsonl has {len(twice)} problem(s) of the files before it, {twice[0]!r} "
                "first; take them out of one, or leave one of data.train_files out"
            )
        found += problems
    _check_held_out(found, profile.problems)
    return found


def _check_held_out(problems: Sequence[Problem], folder: Path) -> None:
    for path in (folder / f"{name}.jsonl" for name in HELD_OUT):
        held = load_problems(path) if path.is_file() else []
        if shared := asked_again(held, problems):
            raise ProblemError(
                f"{len(shared)} problem(s) of {path.name} are trained on, {shared[0]!r} first; "
                "take them out of the files in data.train_files"
            )


class Source:
    """The training problems of a profile, with their prompts, in the order of a seed."""

    def __init__(self, profile: Profile, seed: int) -> None:
        """Read problems and tokenizer.

        Raises:
            ProblemError: as `training_problems`.
            ProverError: a problem has references that the exact estimator cannot score.
        """
        self.profile, self.seed, self.problems = profile, seed, training_problems(profile)
        self.tokenizer = load_tokenizer(profile)
        self.reader = Reader(self.tokenizer, profile.thinking)
        if profile.prover.estimator == "exact":
            check_problems(self.problems, self.reader.joiner, profile.thinking)
        self.of_question = {p.question: p for p in self.problems}
        self.prompts = {q: prompt_ids(self.tokenizer, q, profile.thinking)
                        for q in self.of_question}  # fmt: skip

    def check_room(self, config: PretrainedConfig) -> None:
        """Refuse a model whose context is too short for the longest prompt and its rollouts."""
        thinking = self.profile.thinking
        room = thinking.budget + thinking.answer_tokens + TERMINATION
        check_context(config, max(map(len, self.prompts.values())), room)

    def times(self) -> int:
        """Return how often the problems are repeated, so that they suffice for the most steps.

        A run that is resumed in a second epoch would shuffle anew.
        """
        training = self.profile.training
        return 1 + training.most_steps * training.problems_per_step // len(self.problems)

    def order(self) -> list[list[int]]:
        """Return the problems of each step, in the order in which TRL gives them to the trainer.

        As there, the list is repeated until it suffices, and shuffled once.
        """
        size, count = self.profile.training.problems_per_step, len(self.problems)
        generator = torch.Generator().manual_seed(self.seed)
        order = (torch.randperm(self.times() * count, generator=generator) % count).tolist()
        return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
