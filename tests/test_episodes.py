"""Episodes lose nothing, follow the notebooks' rule, and end on sampled tokens."""

import itertools
import random
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mrtlib import episodes
from mrtlib.config import Thinking
from mrtlib.episodes import (
    by_backtracking,
    by_markers,
    by_token_budget,
    find_tag,
    find_trace,
    official,
    token_boundaries,
)

THINKING = Thinking()
PIECES = [
    "Wait, no.", "Waiting.", " Wait", "But wait!", "Alternatively, 2.", "So 1.", "But", "", "\n",
    "Is there another way to think about this? Yes.", "But hold on.", "Hmm.",
    "Wrong, back to step 1.",
]  # fmt: skip
BYTES = [bytes([b]) for b in range(256)]  # a tokenizer of single bytes


def decode_bytes(ids):
    return b"".join(BYTES[i] for i in ids).decode("utf-8", errors="replace")


def notebook_rule(text, max_cuts):
    """The published procedure, step by step, as it keeps its episodes (stripped strings)."""
    paragraphs = text.split("\n\n")
    steps, prev = [], 0
    for i, paragraph in enumerate(paragraphs):
        if len(steps) == max_cuts:
            break
        if any(paragraph.startswith(m) for m in episodes.MARKERS) and i - prev not in (0, 1, 2):
            steps.append("\n\n".join(paragraphs[prev:i]).rstrip("\n"))
            prev = i
    steps.append("\n\n".join(paragraphs[prev:]).rstrip("\n"))
    return steps


def random_traces(count=300):
    rng = random.Random(0)
    return ["\n\n".join(rng.choices(PIECES, k=rng.randint(1, 30))) for _ in range(count)]


def texts(text, ends):
    """The text of each episode; joined they are the trace."""
    return [text[a:b] for a, b in itertools.pairwise([0, *ends])]


def notebook_merge(steps, group_size):
    """The notebook's groups of episodes."""
    return ["\n\n".join(steps[i : i + group_size]) for i in range(0, len(steps), group_size)]


@pytest.mark.parametrize("group_size", [1, 3])
@pytest.mark.parametrize("max_cuts", [0, 2, 49])
def test_official_is_the_notebooks_rule(max_cuts, group_size):
    several = 0
    for text in filter(None, random_traces()):
        ours = episodes.official_texts(text, max_cuts, group_size)
        assert ours == notebook_merge(notebook_rule(text, max_cuts), group_size)
        ends = official(text, max_cuts, group_size)
        kept = [t.rstrip("\n") for t in texts(text, ends)]
        assert len(kept) == len(ours)
        several += len(ours) > 1
    assert several > 0 or max_cuts < group_size


def test_each_episode_of_a_group_loses_its_newlines():
    text = "a\n\nb\n\nc\n\n\n\nWait d\n\ne\n\nf\n"
    assert episodes.official_texts(text, group_size=2) == ["a\n\nb\n\nc\n\nWait d\n\ne\n\nf"]


@pytest.mark.parametrize("segmenter", [official, by_markers, by_backtracking])
@pytest.mark.parametrize("group_size", [1, 3])
def test_joined_episodes_are_the_trace(segmenter, group_size):
    for text in random_traces():
        ends = segmenter(text, group_size=group_size)
        assert "".join(texts(text, ends)) == text
        assert ends == sorted(set(ends)) and all(ends)


def test_empty_trace_and_trace_without_markers():
    for segmenter in (official, by_markers, by_backtracking):
        assert segmenter("") == []
        assert segmenter("One.\n\nTwo.\n\nThree.\n\nFour.") == [25]


def test_official_by_hand():
    text = "a\n\nWait b\n\nc\n\nWait d\n\ne\n\nWaiting f\n\nWait g\n\nh"
    # The marker at paragraph 1 comes too early and does not restart the count: the cut is at 3;
    # "Waiting" at 5 comes too early as well, and 6 is three paragraphs on.
    assert texts(text, official(text)) == [
        "a\n\nWait b\n\nc\n\n", "Wait d\n\ne\n\nWaiting f\n\n", "Wait g\n\nh"
    ]  # fmt: skip


def test_grouping_merges_consecutive_episodes():
    text = "\n\n".join(f"Wait {i}" for i in range(7))
    single = official(text, min_paragraphs=1)
    assert len(single) == 7
    assert official(text, min_paragraphs=1, group_size=3) == [single[2], single[5], single[6]]
    assert official(text, min_paragraphs=1, group_size=7) == [len(text)]


def test_markers_are_words_behind_any_blank_line():
    text = "a\n \n  Wait b\n\n\nWaiting c\n\nBut wait, d\nWait e"
    assert texts(text, by_markers(text)) == [
        "a\n \n  ", "Wait b\n\n\nWaiting c\n\n", "But wait, d\nWait e"
    ]  # fmt: skip
    assert by_markers(text, min_paragraphs=2) == [
        len("a\n \n  Wait b\n\n\nWaiting c\n\n"),
        len(text),
    ]
    assert by_markers(text, markers=()) == [len(text)]
    question = "a\n\nIs there another way to think about this? Yes"
    assert by_markers(question) == [3, len(question)]


STEPS = "Step 1: 7 - 5 = 2.\n\nStep 2: 2 * 3 = 6.\n\n"


def test_backtracking_is_cut_before_and_behind_each_error():
    text = STEPS + "Wrong, back to step 2.\n\nStep 2: 3 + 2 = 5.\n\nWrong, back to step 1.\n\n"
    assert texts(text, by_backtracking(text)) == [
        STEPS, "Wrong, back to step 2.\n\n", "Step 2: 3 + 2 = 5.\n\n", "Wrong, back to step 1.\n\n",
    ]  # fmt: skip
    assert by_backtracking(STEPS) == [len(STEPS)] and by_backtracking("") == []
    twice = "Wrong, back to step 1.\n\n" * 2  # it opens the trace, and an error follows an error
    assert by_backtracking(twice) == [len(twice) // 2, len(twice)]
    cut = STEPS + "Wrong, back"
    assert by_backtracking(cut) == [len(STEPS), len(cut)]
    assert by_backtracking(text, max_cuts=1) == [len(STEPS), len(text)]
    assert by_backtracking(text, group_size=2)[0] == text.index("Step 2: 3 +")


def test_lines_that_return_say_where_to():
    assert episodes.returns_to("Wrong, back to step 2.") == 2
    assert episodes.returns_to("Wrong, back to step 12.\n\n") == 12
    for line in ("Wrong, back to step .", "Wrong, back to step 2", "Step 2: 3 + 2 = 5.", "",
                 "So: Wrong, back to step 2."):  # fmt: skip
        assert episodes.returns_to(line) is None


def test_makers_of_backtracking():
    pieces = ["Step.\n\n", "Wrong", "Wro", "ng", ", back to step 1.\n\n", "Wrong, back"]
    thinking = replace(THINKING, segmenter="backtrack", min_paragraphs=1)

    def made(*ids):
        return episodes.segment_with_makers(ids, lambda ids: "".join(pieces[i] for i in ids),
                                            thinking)  # fmt: skip

    # Before an error its first word decides; behind it whatever follows does.
    assert made(0, 1, 4, 0) == ([1, 3, 4], [2, 4, 5])
    assert made(0, 2, 3, 4, 0) == ([1, 4, 5], [3, 5, 6])
    assert made(0, 1, 4, 2, 3, 4) == ([1, 3, 6], [2, 4, 7])  # the second follows at once
    assert made(0, 1, 4) == ([1, 3], [2, 4])
    assert made(0, 2) == ([2], [3])
    assert made(0, 5) == ([1, 2], [2, 3])


def test_token_budget():
    assert by_token_budget(0, 4) == []
    assert by_token_budget(4, 4) == [4]
    assert by_token_budget(9, 4) == [4, 8, 9]
    with pytest.raises(ValueError, match="at least one token"):
        by_token_budget(9, 0)


@pytest.fixture(scope="module")
def bpe():
    """A byte-level BPE without pre-tokenisation, so merges cross blank lines and words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(
        ["1 + 2 = 3.\n\nWait, no.\n\nAlternatively, é ≠ ü.\n\n"] * 9, trainer
    )
    return tokenizer


def smallest_covering(ids, decode, text, end):
    return next(n for n in range(len(ids) + 1) if decode(ids[:n]).startswith(text[:end]))


def test_boundaries_where_merges_cross_the_cut(bpe):
    text = "1 + 2 = 3.\n\nWait, no.\n\nAlternatively, é ≠ ü.\n\nWait, no.\n\nSo 3."
    ids = bpe.encode(text).ids
    ends = official(text, min_paragraphs=1)
    assert len(ends) == 4
    bounds = token_boundaries(ids, bpe.decode, ends)
    expected = [smallest_covering(ids, bpe.decode, text, end) for end in ends[:-1]]
    assert bounds == [*sorted(set(expected) - {len(ids)}), len(ids)]
    # At least one token does reach across a cut, or this test shows nothing.
    assert any(len(bpe.decode(ids[:n])) > end for n, end in zip(expected, ends, strict=False))


def test_boundaries_index_the_sampled_tokens_not_a_second_tokenisation(bpe):
    text = "1 + 2 = 3.\n\nWait, no."
    sampled = [i for character in text for i in bpe.encode(character).ids]
    assert sampled != bpe.encode(text).ids  # a model can sample what no tokenizer would write
    ends = official(text, min_paragraphs=1)
    assert token_boundaries(sampled, bpe.decode, ends) == [12, len(sampled)]


def test_boundaries_where_tokens_split_a_character():
    text = "é ≠ \N{ROCKET}\n\nWait, ü\n\nWait."
    ids = list(text.encode())
    ends = official(text, min_paragraphs=1)
    expected = [len(text[:end].encode()) for end in ends]
    assert token_boundaries(ids, decode_bytes, ends) == expected
    # A cut right behind a split character needs all of its bytes, though not at its first.
    assert token_boundaries(ids, decode_bytes, [5, len(text)]) == [len("é ≠ \N{ROCKET}".encode()),
                                                                   len(ids)]  # fmt: skip
    # A trace cut off inside a character still ends at its last token.
    assert token_boundaries(ids[:-8], decode_bytes, [3, 5])[-1] == len(ids) - 8


def test_boundaries_when_text_itself_holds_the_replacement_character():
    text = "\N{REPLACEMENT CHARACTER}\n\nWait\n\nWait"
    ids = list(text.encode())
    assert token_boundaries(ids, decode_bytes, [3, 9, 13]) == [5, 11, 15]
    broken = [0xE2, 0x82, *b"\n\nWait"]  # sampled bytes that never become a character
    assert token_boundaries(broken, decode_bytes, [3, 7]) == [4, 8]


def test_cuts_inside_one_token_give_one_boundary():
    pieces = ["a", "\n\nWait\n\nWait\n\n", "b"]
    bounds = token_boundaries([0, 1, 2], lambda ids: "".join(pieces[i] for i in ids), [3, 9, 16])
    assert bounds == [2, 3]


def test_boundaries_refuse_ends_of_another_text():
    with pytest.raises(ValueError, match="segment decode"):
        token_boundaries(list(b"abc"), decode_bytes, [2, 9])
    assert token_boundaries([], decode_bytes, []) == []


def test_decodes_grow_with_the_logarithm_of_the_trace():
    calls = itertools.count()

    def counted(ids):
        next(calls)
        return decode_bytes(ids)

    ids = list(("Wait, one.\n\n" * 400).encode())
    ends = official(decode_bytes(ids), max_cuts=9)
    assert len(token_boundaries(ids, counted, ends)) == 10
    assert next(calls) <= 1 + 9 * 14  # 9 cuts, log2(4800) < 13; one for each token would be 4800


def test_segment_follows_the_profile():
    ids = list(b"a\n\nWait b\n\nc\n\nWait d")
    assert episodes.segment(ids, decode_bytes, THINKING) == [14, 20]
    markers = replace(THINKING, segmenter="markers", min_paragraphs=1)
    assert episodes.segment(ids, decode_bytes, markers) == [3, 14, 20]
    assert episodes.segment(ids, decode_bytes, replace(markers, group_size=2)) == [14, 20]
    tokens = replace(THINKING, segmenter="tokens", episode_tokens=8)
    assert episodes.segment(ids, decode_bytes, tokens) == [8, 16, 20]
    assert episodes.segment([], decode_bytes, THINKING) == []
    with pytest.raises(ValueError, match="unknown segmenter"):
        episodes.segment(ids, decode_bytes, replace(THINKING, segmenter="none"))


def test_a_tag_is_found_in_the_text_however_it_is_put_into_tokens():
    def found(*pieces):
        return find_tag(range(len(pieces)), lambda ids: "".join(pieces[i] for i in ids), "</t>")

    assert found("a", "b", "</", "t", ">", "c") == (2, 5)
    assert found("a", "b.</", "t", ">\n", "c") == (2, 4)  # neighbours are merged with its ends
    assert found("a", "</", "x", "</t>", "</t>") == (3, 4)  # a false start, and the first of two
    assert found("a", "b</t>c", "d") == (1, 2)  # inside of one token
    assert found("</", "t>") == (0, 2)
    assert found("a", "</", "t") == (3, 3) and found() == (0, 0)


def test_find_trace():
    assert find_trace([5, 6, 9, 7, 9], [9]) == (2, True)
    assert find_trace([5, 1, 1, 2, 7], [1, 2]) == (2, True)  # a false start before the tag
    assert find_trace([5, 6, 1], [1, 2]) == (3, False)
    assert find_trace([], [9]) == (0, False)
    assert find_trace([9], [9]) == (0, True)
    with pytest.raises(ValueError, match="close_ids"):
        find_trace([1], [])
