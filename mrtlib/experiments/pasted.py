"""A trace from elsewhere: a pasted text, cut into episodes and, with a model, measured.

The text is put into tokens anew, by the profile's tokenizer, since the tokens that it was sampled
in are not known. A small tokenizer has no tokens for most texts; these are cut and not measured.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from mrtlib.episodes import segment
from mrtlib.experiments.episode_analysis import TraceView
from mrtlib.models.loading import check_context
from mrtlib.models.sampling import Sample
from mrtlib.models.tokens import prompt_ids
from mrtlib.prover.prover import Prover
from mrtlib.rollouts import Reader, Rollout
from mrtlib.tasks.countdown import asked
from mrtlib.tasks.grading import grade
from mrtlib.tasks.problems import MAX_ANSWER, Grade, Problem, ProblemError

ID, LEVEL = "pasted", "pasted"
MOST = 200_000  # characters of a text, as many as a trace of some 50,000 tokens has


@dataclass(frozen=True)
class PastedReader:
    """Reads pasted texts with one tokenizer, and measures them with a model that it loads once."""

    problems: Sequence[Problem]  # whose right answers are known
    reader: Reader
    family: str  # of other questions, `data.family`
    load: Callable[[], Prover]  # called when J is first asked for

    @cached_property
    def prover(self) -> Prover:
        """The model."""
        return self.load()

    def __call__(self, question: str, text: str, answers: str, measure: bool) -> TraceView:
        """Return a text as a trace to look at: its episodes and, where it is wanted, J.

        Raises:
            ProblemError, ValueError, ModelError: what cannot be read or measured, and why.
        """
        problem = problem_of(question, answers, self.problems, self.family)
        if not measure:
            return unmeasured(problem, text, self.reader)
        rollout = read(problem, text, self.reader)
        return view(rollout, self.reader, measured(rollout, self.prover))


def problem_of(question: str, answers: str, known: Sequence[Problem], family: str) -> Problem:
    """Return the problem that a pasted trace is about.

    Args:
        question: one of a known problem, or of Countdown: these bring their right answers along.
        answers: the right ones of any other question, one a line; without any, nothing can be
            graded or measured, but episodes are still found.
        family: of other questions, `data.family`.

    Raises:
        ProblemError: no question, or an answer of more than 200 characters.
    """
    question = question.strip()
    if not question:
        raise ProblemError("a trace needs its question: J is the chance of answering it right")
    for problem in known:
        if problem.question.strip() == question:
            return problem
    if family == "countdown" and (problem := asked(question, LEVEL)):
        return problem
    lines = tuple(dict.fromkeys(filter(None, map(str.strip, answers.splitlines()))))
    if long := [line for line in lines if len(line) > MAX_ANSWER]:
        raise ProblemError(
            f"an answer has {len(long[0])} characters; at most {MAX_ANSWER} are read"
        )
    return Problem(ID, family, LEVEL, question, lines)


def thought_of(text: str, reader: Reader) -> str:
    """Return a text without its opening tag and what stands before it.

    Raises:
        ValueError: there is no thinking in it, or it has more than 200,000 characters.
    """
    if len(text) > MOST:
        raise ValueError(f"the text has {len(text)} characters; at most {MOST} are read")
    text = text.encode("utf-8", errors="replace").decode()  # half of a pair is no letter
    opening, closing = reader.thinking.open_tag, reader.thinking.close_tag
    thought = (text.partition(opening)[2] if opening and opening in text else text).strip()
    if not thought.partition(closing)[0].strip():
        raise ValueError("there is no thinking in the text; paste the whole trace")
    return thought


def read(problem: Problem, text: str, reader: Reader) -> Rollout:
    """Read a text as a rollout of any length: the thinking with its tags or without, and an answer.

    Raises:
        ValueError: no thinking in it, too long, or the tokenizer has no token for a part of it.
    """
    ids = reader.joiner.encode(thought_of(text, reader))
    if not known(ids, reader):
        raise ValueError("the model's tokenizer has no tokens for some of this text, so the model "
                         "cannot read it; without J it can be cut into episodes")  # fmt: skip
    own = Reader(reader.tokenizer, replace(reader.thinking, budget=len(ids)))
    prompt = prompt_ids(reader.tokenizer, problem.question, reader.thinking)
    return own.read(problem, prompt, Sample(ids, [0.0] * len(ids), finished=True))


def known(ids: Sequence[int], reader: Reader) -> bool:
    """Say whether the tokenizer has put a whole text into tokens."""
    return reader.tokenizer.unk_token_id not in ids


def measured(rollout: Rollout, prover: Prover) -> list[float]:
    """Return J_0 ... J_k of a rollout, exactly.

    Raises:
        ValueError: no right answer is known.
        ModelError: the trace does not fit into the model's context.
    """
    if not rollout.problem.references:
        raise ValueError("J needs the right answers: give them, one a line")
    room = prover.profile.thinking.answer_tokens
    check_context(prover.model.config, len(rollout.prompt_ids) + rollout.trace_tokens, room)
    return prover.exact([rollout])[0].tolist()


def view(rollout: Rollout, reader: Reader, J: Sequence[float]) -> TraceView:
    """Return a read text as a trace to look at, with its J (k + 1,) as from `measured`."""
    prefixes = [reader.decode(rollout.token_ids[:t]) for t in rollout.boundaries]
    return _view(rollout.problem, prefixes, rollout.boundaries, J, rollout.grade)


def unmeasured(problem: Problem, text: str, reader: Reader) -> TraceView:
    """Return any text as a trace to look at: its letters are cut, whatever its tokens.

    Raises:
        ValueError: no thinking in it, or too long.
    """
    trace, closing, answer = thought_of(text, reader).partition(reader.thinking.close_tag)
    letters = trace.encode()  # a token each, as the segmenters take them
    ends = segment(letters, lambda ids: bytes(ids).decode(errors="replace"), reader.thinking)
    prefixes = [letters[:end].decode() for end in ends]
    tokens = [len(reader.joiner.encode(prefix)) for prefix in prefixes]
    given = grade(problem, answer) if closing else Grade(False, None, "truncated")
    return _view(problem, prefixes, tokens, [math.nan] * (len(ends) + 1), given)


def _view(
    problem: Problem, prefixes: list[str], tokens: list[int], J: Sequence[float], given: Grade
) -> TraceView:
    return TraceView(
        question=problem.question, method="pasted trace", problem=problem.id, sample=None,
        episodes=[after[len(before):] for before, after in pairwise(["", *prefixes])],
        tokens=[0, *tokens], J=list(J), correct=given.correct, answer=given.answer,
    )  # fmt: skip
