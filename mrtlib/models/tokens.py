"""The tokenizer, the prompt, and the joint of two texts.

In a vocabulary of merged pieces `.\\n\\n`, `}}` or `7}` may be one token. Text that is tokenised
on its own and then put behind another has tokens at the joint that the model hardly ever writes;
what is measured behind them is not what the model does. So text is tokenised together with the end
of what stands before it.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from mrtlib.config import ROOT, Profile, Thinking
from mrtlib.hub import hub_answers
from mrtlib.models.quantization import ModelError
from mrtlib.store import read_json

# Tokens of context that a text is tokenised with: of these the most that come out as they were.
WINDOWS = (8, 4, 2, 1)
LOOKED_BACK = 2  # last tokens of the context that a merge may replace


@dataclass(frozen=True)
class Spelling:
    """One way to write an answer: some tokens, and then any one of the tokens that end it."""

    tokens: tuple[int, ...]
    ends: tuple[int, ...]  # each writes what is missing of the answer and its closing, or more


class Joiner:
    """Tokenises text behind given tokens, with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._pieces: list[tuple[str, int]] = []  # every token's text, sorted
        self._spelled: dict[tuple[str, str, str], tuple[Spelling, ...]] = {}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special tokens kept."""
        # As an array: of a list, transformers looks at the type of every id, for ten times as long.
        return self.tokenizer.decode(
            np.asarray(ids, dtype=np.int64), skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )  # fmt: skip

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text alone."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def behind(self, ids: Sequence[int], text: str, replaceable: int = 0) -> tuple[int, list[int]]:
        """Tokenise a text that follows some tokens.

        Where the tokenizer merges the last of these tokens with the beginning of the text, the
        merged tokens replace them, as far as that is allowed.

        Args:
            ids: (T,) the tokens before the text, as they were sampled.
            replaceable: how many of the last ones may be replaced; at most 2 ever are.

        Returns:
            How many of the tokens stay, and what follows them.
        """
        for window in WINDOWS:
            tail = list(ids[-window:])
            joint = self.encode(self.decode(tail) + text)
            for back in range(min(LOOKED_BACK, replaceable, len(tail) - 1) + 1):
                stay = len(tail) - back
                if joint[:stay] == tail[:stay]:
                    return len(ids) - back, joint[stay:]
        return len(ids), self.encode(text)

    def spellings(self, opening: str, answer: str, closing: str) -> tuple[Spelling, ...]:
        """Return the ways to write an answer and its closing behind an opening.

        All tokens but the last are those of the answer, tokenised behind the opening, with the
        closing or without it. The last is any token of the vocabulary that begins with what is then
        missing (`}`, `}}`, `}.\\n`; or `7}` where the answer ends in 7). The spellings exclude each
        other, so their probabilities add up.
        """
        key = opening, answer, closing
        if key not in self._spelled:
            self._spelled[key] = self._spell(self.encode(opening), answer, answer + closing)
        return self._spelled[key]

    def _spell(self, before: list[int], answer: str, whole: str) -> tuple[Spelling, ...]:
        skipped = len(self.decode(before))
        found: dict[tuple[int, ...], Spelling] = {}
        for text in (answer, whole):
            for tokens in (self.behind(before, text)[1], self.encode(text)):
                for size in range(len(tokens) + 1):
                    stem = tuple(tokens[:size])
                    written = self.decode([*before, *stem])[skipped:]
                    if whole.startswith(written) and written != whole and stem not in found:
                        ends = self._beginning_with(whole[len(written) :], before)
                        found[stem] = Spelling(stem, ends)
        return tuple(spelling for spelling in found.values() if spelling.ends)

    def _beginning_with(self, text: str, before: list[int]) -> tuple[int, ...]:
        """Return the tokens of the vocabulary whose text begins with this one, ascending."""
        if not self._pieces:
            # Behind a token, as some tokenizers drop a leading space at the start of a text.
            context = before[-1:]
            skipped = len(self.decode(context))
            rows = [[*context, token] for token in range(len(self.tokenizer))]
            texts = self.tokenizer.batch_decode(
                rows, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            self._pieces = sorted((t[skipped:], token) for token, t in enumerate(texts))
        first = bisect.bisect_left(self._pieces, (text, -1))
        last = bisect.bisect_left(self._pieces, (text + chr(0x10FFFF), -1))
        return tuple(sorted(token for _, token in self._pieces[first:last]))


def load_tokenizer(profile: Profile) -> PreTrainedTokenizerBase:
    """Load the tokenizer, padded on the left, and check that it has what a trace needs.

    Its attribute `end_ids` has every token that ends an output: its own, and those that the model's
    generation settings name.

    Raises:
        ModelError: it cannot be found, has no chat template, no end token or no think tags.
    """
    tokenizer = fetch(_tokenizer_class(profile), profile)
    if not tokenizer.chat_template or tokenizer.eos_token_id is None:
        missing = "end-of-text token" if tokenizer.chat_template else "chat template"
        raise ModelError(f"the tokenizer of {profile.model.name} has no {missing}; add one")
    think_ids(tokenizer, profile.thinking)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.end_ids = {tokenizer.eos_token_id, *_generation_ends(profile)}
    return tokenizer


def _generation_ends(profile: Profile) -> list[int]:
    """Return the tokens that end an output by the model's generation settings, if it has any."""
    try:
        found = fetch(GenerationConfig, profile).eos_token_id
    except ModelError:  # many models have none
        return []
    return found if isinstance(found, list) else [] if found is None else [found]


def _tokenizer_class(profile: Profile) -> type:
    """Return the class that loads the tokenizer: the plain one where the model's folder names it.

    For some architectures (Qwen2) AutoTokenizer takes their own class whatever the folder says,
    and then splits text by other rules than those of the folder's tokenizer.json.
    """
    settings = Path(profile.model_path) / "tokenizer_config.json"
    named = read_json(settings).get("tokenizer_class") if settings.is_file() else None
    plain = named in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return PreTrainedTokenizerFast if plain else AutoTokenizer


def think_ids(
    tokenizer: PreTrainedTokenizerBase, thinking: Thinking
) -> tuple[list[int], list[int]]:
    """Return the token ids of the opening and of the closing think tag, one or several each.

    Without an opening tag the thinking begins with the output, and there are no ids for it; its
    end is then what opens the answer. A tag of several tokens may be written in other ways too, so
    in outputs it is looked for in the text (`Reader`).

    Raises:
        ModelError: the tokenizer cannot write a tag, or there is no closing one.
    """
    found = []
    for tag in (thinking.open_tag, thinking.close_tag):
        ids = tokenizer.encode(tag, add_special_tokens=False)
        # Only the opening tag may be left out, which comes first.
        if tokenizer.unk_token_id in ids or (not ids and found):
            raise ModelError(
                f"the tokenizer cannot write the think tag {tag!r}; name the model's tags in "
                "thinking.open_tag and thinking.close_tag"
            )
        found.append(ids)
    return found[0], found[1]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str, thinking: Thinking) -> list[int]:
    """Return the prompt up to the opening think tag, and with it where there is one.

    Some chat templates end with the tag; where one does not, the tag and a newline are added, as
    in the authors' code. The template writes the start token itself, so none is added. A template
    that ends with an empty think block is asked again to leave it open.

    Raises:
        ModelError: it does not.
    """
    messages = [{"role": "user", "content": question + thinking.instruction}]
    if thinking.system:
        messages.insert(0, {"role": "system", "content": thinking.system})
    settings = {**thinking.template, "tokenize": False, "add_generation_prompt": True}
    text = tokenizer.apply_chat_template(messages, **settings)
    if text.rstrip().endswith(thinking.close_tag):  # an empty think block: thinking is off
        text = tokenizer.apply_chat_template(messages, **settings | {"enable_thinking": True})
        if text.rstrip().endswith(thinking.close_tag):
            raise ModelError(
                "the chat template closes the thinking before it begins, also with "
                "enable_thinking=True; take a template that leaves the think block open"
            )
    if thinking.open_tag and not text.rstrip().endswith(thinking.open_tag):
        text += thinking.open_tag + "\n"
    return tokenizer.encode(text, add_special_tokens=False)


def fetch(loader: Any, profile: Profile, **options: Any) -> Any:
    """Call a transformers loader on the profile's model; ModelError when that is not there.

    A hub that does not answer is found within seconds; what was downloaded before is then used.
    """
    if not Path(profile.model_path).is_dir() and not hub_answers():
        options["local_files_only"] = True
    try:
        return loader.from_pretrained(
            profile.model_path, revision=profile.model.revision, trust_remote_code=False, **options
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"cannot load {profile.model.name}: it is neither a whole model folder (below {ROOT}; "
            f"MRT_ROOT names another) nor in reach on the hub (offline?). {error}"
        ) from error
