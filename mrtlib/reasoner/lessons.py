"""What the embedded reasoner learns from: its tokenizer, its recipe and its lessons.

A lesson is a problem, a searcher's trace and an answer. Some of the traces are cut, at a paragraph
or at any token, and continued with the forced termination, so that the model can answer wherever
its thinking is cut.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mrtlib.config import CHECK, Thinking
from mrtlib.reasoner.searchers import FILLERS, OPENERS, draw_habits, guess, write_trace
from mrtlib.tasks.problems import Problem

PAD, END, USER, ASSISTANT, UNKNOWN = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unk|>"
LARGEST_NUMBER = 99  # larger numbers are <|unk|>
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}"
)
# Words with the space behind them, numbers bare, signs with both spaces: the tokens of a text,
# joined, are the text again.
WORDS = r"\.\n\n|\n\n|\n|\\boxed\{| ?[A-Za-z]+(?:-[a-z]+)* ?|\d+| ?[-+*=] ?|\( ?| ?\)|[.,] ?|[}]|."


@dataclass(frozen=True)
class Recipe:
    """How the reasoner is made. Tokens count everything that goes through the model."""

    seed: int = 0
    width: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512
    context: int = 512
    tokens: int = 20_000_000
    rounded_share: float = 0.2  # of the training, at its end, with weights rounded to NF4
    batch_tokens: int = 2_048
    learning_rate: float = 5e-3
    warmup: float = 0.02
    weight_decay: float = 0.01
    cut_at_start: float = 0.08  # shares of traces that are cut and answered
    cut_at_paragraph: float = 0.25
    cut_anywhere: float = 0.15


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the word-level tokenizer with its chat template."""
    thinking = Thinking()
    texts = [f"{marker}, " for marker in (*OPENERS, CHECK, "First")] + list(FILLERS)
    texts += ["Not ( 1 + 2 ) * 3.\n\n", "So 1 * ( 2 - 3 ) works.\n\n", "1 - 2 = 3, need 4.\n\n"]
    texts += ["\n", "\n\n"]
    texts += ["Reach 22 with 3, 5, 7.", thinking.stop_text, thinking.answer_open, "}", "user"]
    return word_level(texts, WORDS, (thinking.open_tag, thinking.close_tag), TEMPLATE)


def word_level(
    texts: list[str], words: str, tags: tuple[str, ...], template: str
) -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer that knows the words of some texts.

    Args:
        words: a regular expression; its matches, joined, are the text.
        tags: further tokens, which text is split at first.
        template: of the chat.
    """
    split = pre_tokenizers.Split(Regex(words), behavior="isolated")
    pieces = [piece for text in texts for piece, _ in split.pre_tokenize_str(text)]
    special = [PAD, END, USER, ASSISTANT, UNKNOWN, *tags]
    known = sorted(set(pieces) - {str(n) for n in range(LARGEST_NUMBER + 1)})
    vocabulary = special + [str(n) for n in range(LARGEST_NUMBER + 1)] + known
    core = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN)
    )
    # Added tokens, so that text is split at them; not special ones, so that decoding keeps them.
    core.add_tokens(list(tags))
    core.pre_tokenizer = split
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, unk_token=UNKNOWN,
        extra_special_tokens=[USER, ASSISTANT], chat_template=template, padding_side="left",
        clean_up_tokenization_spaces=False, model_max_length=Recipe.context,
    )  # fmt: skip


def lesson(problem: Problem, recipe: Recipe, thinking: Thinking, rng: Random) -> list[tuple]:
    """Write one training text as (piece, learned) pairs; pieces that are not learned are given.

    Some traces are cut, and their answers forced. The words of the termination are given, so that
    the model never writes them by itself.
    """
    habits = draw_habits(problem.level, rng)
    trace = write_trace(problem, habits, rng)
    cut, draw = len(trace.text), rng.random()
    if draw < recipe.cut_at_start:
        cut = 0
    elif draw < recipe.cut_at_start + recipe.cut_at_paragraph:
        cut = rng.choice([match.end() for match in re.finditer("\n\n", trace.text)])
    elif draw < recipe.cut_at_start + recipe.cut_at_paragraph + recipe.cut_anywhere:
        cut = rng.choice([match.end() for match in re.finditer(WORDS, trace.text)])
    answer = trace.answer_at(cut) or guess(problem, habits, rng)
    kept, forced = trace.text[:cut], cut < len(trace.text)
    gap = "\n\n" if kept and not kept.endswith("\n") else ""
    close = thinking.close_text + thinking.answer_open
    given = [(gap + thinking.stop_text + close, False)] if forced else [(close, True)]
    prompt = f"{USER}{problem.question}{END}{ASSISTANT}{thinking.open_tag}\n"
    return [(prompt, False), (kept, True), *given, (answer + thinking.answer_close + END, True)]


def encode(lessons: list[list[tuple]], tokenizer) -> list[tuple[list[int], list[int]]]:
    """Turn lessons into (token ids, labels); a label of -100 is not learned."""
    flat = [piece for pieces in lessons for piece, _ in pieces]
    coded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    out = []
    for pieces in lessons:
        ids, labels = [], []
        for _, learned in pieces:
            piece = next(coded)
            ids += piece
            labels += piece if learned else [-100] * len(piece)
        out.append((ids, labels))
    return out


THINKING = Thinking()  # of the reasoner
Lesson = Callable[[Problem, Recipe, Thinking, Random], list[tuple]]  # writes one text


def batches(
    problems: list[Problem], recipe: Recipe, tokenizer, start: int, write: Lesson = lesson,
    thinking: Thinking = THINKING,
) -> Iterator[dict]:  # fmt: skip
    """Yield batches of texts of similar length without end, from batch `start` on.

    Each block of batches has a random generator of its own, so a resumed training gets the same
    batches as an uninterrupted one.
    """
    block = 32
    for number in itertools.count(start // block):
        rng = Random(f"{recipe.seed}/{number}")
        drawn: list[tuple] = []
        while sum(len(ids) for ids, _ in drawn) < block * recipe.batch_tokens:
            chosen = [rng.choice(problems) for _ in range(512)]
            drawn += encode([write(p, recipe, thinking, rng) for p in chosen], tokenizer)
        made = list(_by_length(drawn, recipe.batch_tokens, tokenizer.pad_token_id))
        rng.shuffle(made)
        yield from made[start - number * block if number == start // block else 0 : block]


def _by_length(drawn, batch_tokens: int, pad: int) -> Iterator[dict]:
    drawn = sorted(drawn, key=lambda pair: len(pair[0]))
    while drawn:
        rows = max(1, batch_tokens // len(drawn[-1][0]))
        chunk, drawn = drawn[-rows:], drawn[:-rows]
        width = len(chunk[-1][0])
        yield {
            "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in chunk]),
            "labels": torch.tensor([lab + [-100] * (width - len(lab)) for _, lab in chunk]),
        }
