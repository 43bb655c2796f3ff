"""Cut a trace into episodes without losing a character or a token.

A segmenter works on text and returns the END offset of every episode. The separator between
two episodes stays with the earlier one, so the slices `text[end_{j-1}:end_j]` joined are the
trace, and a token such as ".\\n\\n" ends its episode instead of straddling the cut.
`token_boundaries` then turns offsets into the boundaries t_j: indices into the token ids that
were sampled. The text is never tokenised again: a second tokenisation can differ from the
sampled one, and every J_j would then be measured on a prefix that the model never wrote.
"""

import bisect
import itertools
import re
from collections.abc import Callable, Sequence

from mrtlib.config import BACK, MARKERS, WRONG, Thinking

Decode = Callable[[list[int]], str]  # ids to text, special tokens kept
_ERROR_LINE = re.compile(re.escape(BACK) + r" ([0-9]{1,6})\.\s*")


def official(
    text: str,
    max_cuts: int = 49,
    group_size: int = 1,
    min_paragraphs: int = 3,
    markers: Sequence[str] = MARKERS,
) -> list[int]:
    """Segment by the rule of the authors' notebooks.

    Paragraphs are split on "\\n\\n". One that starts with a marker (case-sensitive, nothing
    stripped, "Waiting" counts) opens an episode if the current episode has `min_paragraphs`
    already; a skipped marker does not restart the count. After `max_cuts` cuts the rest is one
    episode. `group_size` consecutive episodes are then merged into one.

    Returns:
        End offset of each episode, in characters; the last is len(text). [] for "".

    Source: analysis/code/break_into_meta_steps*.ipynb of github.com/CMU-AIRe/MRT.
    """
    starts = _paragraph_starts(text)
    opens = [text.startswith(tuple(markers), start) for start in starts]
    return _ends(len(text), starts, opens, min_paragraphs, max_cuts, group_size)


def by_markers(
    text: str,
    markers: Sequence[str] = MARKERS,
    min_paragraphs: int = 1,
    max_cuts: int = 49,
    group_size: int = 1,
) -> list[int]:
    """Segment at every paragraph that opens with a marker as a whole word.

    More tolerant of spacing than `official` and stricter about words: any run of blank lines
    parts two paragraphs, white space before a marker is ignored, "Waiting" does not count.

    Returns:
        End offset of each episode, in characters; the last is len(text). [] for "".
    """
    gaps = re.finditer(r"\n[^\S\n]*\n\s*", text)
    starts = [0, *(gap.end() for gap in gaps if gap.end() < len(text))]
    opening = re.compile(r"\s*(?:" + "|".join(map(re.escape, markers)) + r")(?!\w)")
    opens = [bool(markers) and opening.match(text, start) is not None for start in starts]
    return _ends(len(text), starts, opens, min_paragraphs, max_cuts, group_size)


def by_backtracking(
    text: str, max_cuts: int = 49, group_size: int = 1, min_paragraphs: int = 1
) -> list[int]:
    """Segment backtracking search before and behind each paragraph that names an error.

    z_0 is the first attempt, z_1 the line that names its error and returns to a step, z_2 the next
    attempt, and so on. A paragraph names an error if it starts with the word `config.WRONG`,
    however it goes on; `returns_to` says which step it returns to.

    Returns:
        End offset of each episode, in characters; the last is len(text). [] for "".

    Source: arXiv 2503.07572, figure 13.
    """
    starts = [start for start in _paragraph_starts(text) if start < len(text)]
    errors = [text.startswith(WRONG, start) for start in starts]
    opens = [error or before for before, error in itertools.pairwise([False, *errors])]
    return _ends(len(text), starts, opens, min_paragraphs, max_cuts, group_size)


def _decided(text: str, end: int) -> int:
    """Return the character behind which it is decided that an episode ends at `end`.

    Behind a line that names an error that is so whatever follows; before one, with its first word.
    """
    before = text.rfind("\n\n", 0, end - 2)
    errs = text.startswith(WRONG, before + 2 if before >= 0 else 0)
    return end if errs else end + len(WRONG)


def returns_to(line: str) -> int | None:
    """Return the step to which a line of backtracking search returns, or None.

    >>> returns_to("Wrong, back to step 2.")
    2
    """
    match = _ERROR_LINE.fullmatch(line)
    return int(match[1]) if match else None


def _paragraph_starts(text: str) -> list[int]:
    """Return where the paragraphs of a text start; the last may be empty."""
    paragraphs = text.split("\n\n")
    return list(itertools.accumulate((len(p) + 2 for p in paragraphs[:-1]), initial=0))


def _ends(
    length: int, starts: list[int], opens: list[bool], min_paragraphs: int, max_cuts: int,
    group_size: int,
) -> list[int]:  # fmt: skip
    """Return the episodes' ends, given where paragraphs start and which open an episode."""
    if min(min_paragraphs, group_size) < 1 or max_cuts < 0:
        raise ValueError("min_paragraphs and group_size must be 1 or more, max_cuts 0 or more")
    if length == 0:
        return []
    cuts, first = [], 0
    for i, (start, opening) in enumerate(zip(starts, opens, strict=True)):
        # i > 0: with no paragraph before it, a marker opens the first episode and cuts nothing.
        if opening and len(cuts) < max_cuts and i - first >= min_paragraphs and i > 0:
            cuts.append(start)
            first = i
    return [*cuts[group_size - 1 :: group_size], length]


def official_texts(text: str, max_cuts: int = 49, group_size: int = 1) -> list[str]:
    """Return the episodes by `official` as the authors' notebooks keep them.

    Each raw episode loses its trailing newlines, and those of a group are joined by a blank line:
    where more than two newlines stood between them, the text is not the trace's.
    """
    ends = official(text, max_cuts)
    raw = [text[a:b].rstrip("\n") for a, b in itertools.pairwise([0, *ends])]
    return ["\n\n".join(raw[i : i + group_size]) for i in range(0, len(raw), group_size)]


def by_token_budget(n_tokens: int, size: int) -> list[int]:
    """Return boundaries every `size` tokens; the last is n_tokens. [] for no tokens.

    t_j = min(j · size, n_tokens): the control, which ignores the text. AnytimeReasoner (arXiv
    2505.13438) truncates its traces like this.
    """
    if size < 1:
        raise ValueError(f"an episode needs at least one token, not {size}")
    return [*range(size, n_tokens, size), n_tokens] if n_tokens else []


def token_boundaries(
    token_ids: Sequence[int], decode: Decode, char_ends: Sequence[int]
) -> list[int]:
    """Return the boundaries t_1 < ... < t_k of the episodes that end at `char_ends`.

    t_j = min{n : decode(token_ids[:n]) starts with text[:char_ends[j-1]]}, t_k = T. A token
    that reaches across a cut stays whole, in the earlier episode; a token that holds part of a
    UTF-8 character covers a cut behind it only together with the tokens that complete it.
    Cuts that fall into one token give one boundary.

    Longer prefixes cover more, so each cut is found by binary search, with O(k log T) decodes.
    Texts of parts are never joined: with SentencePiece, or where a part ends inside a character,
    they are not the text of the whole.

    Args:
        token_ids: (T,) the trace as it was sampled.
        decode: ids to text, special tokens kept and no clean-up of spaces.
        char_ends: ends of the episodes in decode(token_ids), ascending.
    """
    ids = list(token_ids)
    located = _located(ids, decode, decode(ids), char_ends)
    return [*(t for t, _ in located), len(ids)] if ids else []


def _located(
    ids: list[int], decode: Decode, text: str, char_ends: Sequence[int]
) -> list[tuple[int, int]]:
    """Return (t_j, end in characters) of every boundary inside the trace."""
    if list(char_ends) != sorted(set(char_ends)) or (char_ends and char_ends[-1] > len(text)):
        raise ValueError(
            "char_ends must ascend and end within the decoded text; segment decode(token_ids)"
        )
    found: list[tuple[int, int]] = []
    for end in char_ends[:-1]:
        covers = _covers(ids, decode, text[:end])
        low = found[-1][0] if found else 0
        t = low + bisect.bisect_left(range(low, len(ids) + 1), True, key=covers)
        if low < t < len(ids):
            found.append((t, end))
    return found


def _covers(ids: list[int], decode: Decode, prefix: str) -> Callable[[int], bool]:
    """Return the test whether the text of the first n tokens begins with the prefix."""
    return lambda n: decode(ids[:n]).startswith(prefix)


def segment(token_ids: Sequence[int], decode: Decode, thinking: Thinking) -> list[int]:
    r"""Return the boundaries [t_1, ..., t_k] of a sampled trace, by the profile's segmenter.

    Here a token is a byte; a tokenizer's `decode` takes its place. A marker after fewer than three
    paragraphs (`thinking.min_paragraphs`) cuts nothing:

    >>> from mrtlib import load_profile, segment
    >>> text = "First, 7 + 5 = 12.\n\nWait, no.\n\n12 + 3 = 15.\n\nWait, 5 * 3 = 15."
    >>> thinking = load_profile("tiny").thinking
    >>> segment(text.encode(), lambda ids: bytes(ids).decode(), thinking)
    [45, 62]
    >>> text[45:62]
    'Wait, 5 * 3 = 15.'

    Raises:
        ValueError: no such segmenter.
    """
    return segment_with_makers(token_ids, decode, thinking)[0]


def segment_with_makers(
    token_ids: Sequence[int], decode: Decode, thinking: Thinking
) -> tuple[list[int], list[int]]:
    """Return the boundaries t_1 ... t_k of a trace, and for each the place behind its maker.

    The maker of a boundary is the token that decides that there is one: token n_j of the output,
    counted from 1. Inside the trace it completes the next episode's marker, so n_j = t_j + 1 for a
    marker of one token. With episodes of equal length, and behind a line that names an error, it is
    the token that follows, for the trace could have ended there. The last boundary is made by what
    follows the trace: n_k = T + 1. That token also shows whether the letters at the trace's end are
    a whole word, a marker.

    Returns:
        [t_1, ..., t_k] and [n_1, ..., n_k].

    Raises:
        ValueError: no such segmenter.
    """
    ids = list(token_ids)
    if thinking.segmenter == "tokens":
        bounds = by_token_budget(len(ids), thinking.episode_tokens)
        return bounds, [t + 1 for t in bounds]
    by_text = {
        "official": official, "markers": by_markers, "backtrack": by_backtracking
    }.get(thinking.segmenter)  # fmt: skip
    if by_text is None:
        raise ValueError(
            f"unknown segmenter {thinking.segmenter!r}; choose official, markers, backtrack or "
            "tokens"
        )
    text = decode(ids)
    ends = by_text(text, max_cuts=thinking.max_cuts, group_size=thinking.group_size,
                   min_paragraphs=thinking.min_paragraphs)  # fmt: skip
    bounds, makers = [], []
    for t, end in _located(ids, decode, text, ends):
        if by_text is by_backtracking:
            complete = _decided(text, end)
        else:
            sizes = [len(marker) for marker in MARKERS if text.startswith(marker, end)]
            # A marker is complete with its letters, a whole word with one character more.
            complete = end + min(sizes, default=0) + (by_text is by_markers)
        covers = _covers(ids, decode, text[:complete])
        inside = range(t + 1, len(ids) + 1) if complete <= len(text) else ()
        bounds.append(t)
        makers.append(next((n for n in inside if covers(n)), len(ids) + 1))
    return ([*bounds, len(ids)], [*makers, len(ids) + 1]) if ids else ([], [])


def find_trace(token_ids: Sequence[int], close_ids: Sequence[int]) -> tuple[int, bool]:
    """Return (tokens before the closing tag, True), or (all tokens, False) if it never closes.

    Args:
        token_ids: (T,) the whole rollout.
        close_ids: the tokens of the closing tag, one or several.
    """
    ids, close = list(token_ids), list(close_ids)
    if not close:
        raise ValueError("close_ids is empty; give the token ids of the closing tag")
    for n in range(len(ids) - len(close) + 1):
        if ids[n : n + len(close)] == close:
            return n, True
    return len(ids), False


def find_tag(token_ids: Sequence[int], decode: Decode, tag: str) -> tuple[int, int]:
    """Return (tokens before a tag of several tokens, tokens up to its end), both T without one.

    The tag is found in the text, however it is put into tokens. A token that reaches across its
    beginning stands before it, as at the cuts between episodes.
    """
    ids = list(token_ids)
    before, found, _ = decode(ids).partition(tag)
    if not found:
        return len(ids), len(ids)
    places = range(len(ids) + 1)
    end = bisect.bisect_left(places, True, key=_covers(ids, decode, before + tag))
    start = bisect.bisect_left(places, True, key=_covers(ids, decode, before))
    return min(start, end - 1), end
