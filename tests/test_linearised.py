"""A stream in a window: what is dropped, what stays, what is counted, and that it can go on."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import LlamaConfig

from mrtlib.config import ANSWER, BACK, load_profile
from mrtlib.episodes import by_backtracking
from mrtlib.evaluation.linearised import (
    Comparer,
    Plan,
    episodes_of,
    lines_of,
    standing,
    tokens_of,
    window,
)
from mrtlib.models.sampling import Sample
from mrtlib.rollouts import Reader
from mrtlib.store import SCHEMAS, to_table
from mrtlib.tasks.countdown import countdown
from mrtlib.tasks.problems import ProblemError

PROFILE = load_profile("backtrack")
CLOSE, END = 256, 257  # behind the 256 letters


class Letters:
    """A tokenizer with a token a letter, one that opens the answer and one that ends the text."""

    eos_token_id, unk_token_id = END, None

    def encode(self, text, add_special_tokens=False):
        parts = [[ord(c) for c in part] for part in text.split(ANSWER)]
        return [*parts[0], *(i for part in parts[1:] for i in (CLOSE, *part))]

    def decode(self, ids, **_):
        return "".join({CLOSE: ANSWER, END: "<end>"}.get(i) or chr(i) for i in ids)

    def apply_chat_template(self, messages, **_):
        return f"{messages[0]['content']}|"


LETTERS = Letters()


def lines(text):
    return lines_of(LETTERS.encode(text), LETTERS.decode)


def text_of(found):
    return LETTERS.decode([i for line in found for i in line.ids])


def random_stream(rng, episodes):
    """Draw a stream: attempts of one to three steps, each but the first behind a return."""
    out, first = [], 1
    for turn in range(episodes):
        if turn % 2:
            first = int(rng.integers(1, 4))
            out.append(f"{BACK} {first}.\n\n")
        else:
            last = first + int(rng.integers(0, 3))
            out.append("".join(f"Step {n}: {'x' * int(rng.integers(1, 9))}.\n\n"
                               for n in range(first, last + 1)))  # fmt: skip
    return out


def test_lines_are_the_paragraphs_and_nothing_is_lost():
    text = f"Step 1: a.\n\nStep 2: b.\n\nso\n\n{BACK} 2.\n\nStep 2: c.\n\nStep 3"
    found = lines(text)
    assert text_of(found) == text.removesuffix("Step 3")
    assert [line.step for line in found] == [1, 2, None, None, 2]
    assert [line.back for line in found] == [None, None, None, 2, None]
    assert lines("") == [] and lines("Step 1") == []
    lost = lines("Step 1: a.\n\nWrong, all of it.\n\n")
    assert standing(lost) == lost[:1]  # it does not say what it takes back


def test_a_return_takes_its_step_and_the_later_ones():
    found = lines(f"Step 1: a.\n\nStep 2: b.\n\nStep 3: c.\n\n{BACK} 2.\n\nStep 2: d.\n\n")
    assert text_of(standing(found)) == "Step 1: a.\n\nStep 2: d.\n\n"
    assert standing(found[:4]) == found[:1]
    assert standing(lines(f"Step 1: a.\n\n{BACK} 1.\n\n")) == []
    assert standing(lines(f"Step 1: a.\n\n{BACK} 0.\n\n")) == []  # before the first
    twice = lines("Step 1: a.\n\nStep 2: b.\n\nso\n\nStep 1: c.\n\n")
    assert text_of(standing(twice)) == "Step 1: c.\n\n"


def test_episodes_are_those_of_the_segmenter():
    rng = np.random.default_rng(0)
    for count in range(1, 9):
        text = "".join(random_stream(rng, count))
        ends = np.cumsum([len(text_of(episode)) for episode in episodes_of(lines(text))])
        assert ends.tolist() == by_backtracking(text)
    twice = lines(f"{BACK} 1.\n\n{BACK} 1.\n\nStep 1: a.\n\nStep 2: b.\n\n")
    assert [len(episode) for episode in episodes_of(twice)] == [1, 1, 2]


def test_the_window_holds_whole_episodes_and_the_state_of_the_stream():
    rng = np.random.default_rng(1)
    for count in range(1, 8):
        texts = random_stream(rng, count)
        episodes = episodes_of(lines("".join(texts)))
        whole = [line for episode in episodes for line in episode]
        for room in range(0, tokens_of(whole) + 2, 3):
            dropped, seen = window(episodes, room)
            assert tokens_of(seen) <= room
            # By brute force: every number of episodes that could be dropped.
            tails = {n: standing(itertools.chain(*episodes[:n])) + list(itertools.chain(
                *episodes[n:])) for n in range(count + 1)}  # fmt: skip
            fitting = [n for n, left in tails.items() if tokens_of(left) <= room]
            assert (dropped, seen) == ((fitting[0], tails[fitting[0]]) if fitting else (count, []))
            newest = [line for episode in episodes[dropped:] for line in episode]
            assert seen[len(seen) - len(newest) :] == newest  # whole, and in order
            if seen:
                assert standing(seen) == standing(whole)  # the last state, which alone matters
        assert window(episodes, tokens_of(whole)) == (0, whole)


class Script:
    """A sampler that goes on by a script, and keeps what it was asked."""

    def __init__(self, texts):
        self.texts, self.asked = itertools.cycle(texts), []

    def sample(self, prompts, n, max_tokens, temperature, top_p, stop_ids, seed):
        self.asked += [LETTERS.decode(prompt) for prompt in prompts]
        out = []
        for _ in prompts:
            ids = [[*LETTERS.encode(next(self.texts)), END][:max_tokens] for _ in range(n)]
            out.append([Sample(own, [-0.5] * len(own), own[-1] == END) for own in ids])
        return out


def comparer(texts, plan, budget=60):
    thinking = replace(PROFILE.thinking, budget=budget, answer_tokens=40)
    profile = replace(PROFILE, thinking=thinking)
    model = SimpleNamespace(config=LlamaConfig(max_position_embeddings=400))
    prover = SimpleNamespace(sampler=Script(texts), model=model)
    evaluator = SimpleNamespace(
        profile=profile, reader=Reader(LETTERS, thinking), prover=prover, method="base", seed=0
    )
    return Comparer(evaluator, plan), prover.sampler


PROBLEM = countdown((3, 5, 7), 22, "three")
RIGHT = f"Step 1: 3 * 5 = 15.\n\nStep 2: 15 + 7 = 22.\n\n{ANSWER}\\boxed{{3 * 5 + 7}}"
WRONG_END = f"Step 1: 3 + 5 = 8.\n\nStep 2: 8 + 7 = 15.\n\n{ANSWER}\\boxed{{3 + 5 + 7}}"
TO_2 = f" 2.\n\nStep 2: 8 * 7 = 56.\n\n{ANSWER}\\boxed{{( 3 + 5 ) * 7}}"


def test_a_stream_without_a_window_is_plain_continuation():
    ours, script = comparer([WRONG_END, TO_2], Plan(window=10_000))
    [rows] = ours.linearised([PROBLEM], [LETTERS.encode("Q|")], [400])
    stream = "Q|"
    for asked, drawn in zip(script.asked, itertools.cycle([WRONG_END, TO_2]), strict=False):
        assert asked == stream  # all that was written so far, but for the answers
        stream += drawn.partition(ANSWER)[0] + BACK
    assert [row["dropped"] for row in rows] == [0] * len(rows)
    assert [row["correct"] for row in rows] == [False] * len(rows)
    assert rows[0]["answer"] == "3 + 5 + 7" and rows[1]["answer"] == "( 3 + 5 ) * 7"
    sizes = [len(LETTERS.encode(text)) + 1 for text in (WRONG_END, TO_2)]
    assert [row["tokens"] for row in rows[:3]] == [sizes[0], sum(sizes), sum(sizes) + sizes[0]]
    assert rows[-2]["tokens"] < 400 <= rows[-1]["tokens"]
    read = [len(LETTERS.encode(asked)) for asked in script.asked]
    assert [row["through"] for row in rows] == np.cumsum(
        [n + sizes[i % 2] for i, n in enumerate(read)]
    ).tolist()


def test_a_stream_goes_on_past_its_window_and_never_leaves_it():
    plan = Plan(window=200, tokens=2000, samples=4)
    long = " 2.\n\n" + "Step 2: 8 * 7 = 56.\n\n" * 9
    ours, script = comparer([WRONG_END, TO_2, f" 1.\n\n{RIGHT}", long], plan)
    rows = ours.rows([PROBLEM])
    assert to_table("attempts", rows, "here").schema == SCHEMAS["attempts"]
    stream = [row for row in rows if row["way"] == "linearised"]
    assert stream[-1]["tokens"] >= 2000 > plan.window
    assert max(row["read"] for row in rows) <= plan.window
    assert stream[-1]["dropped"] > 10
    assert all(asked.startswith(f"{PROBLEM.question}|") for asked in script.asked)
    behind = [asked.partition("|")[2] for asked in script.asked[1:]]
    assert all(text == "" or text.startswith(("Step 1", "Wrong")) for text in behind)
    cut = [row for row in stream if row["answer"] is None]
    assert cut and not any(row["correct"] for row in cut)  # longer than C0: no vote
    assert any(row["correct"] for row in stream)
    assert [row["k"] for row in stream] == list(range(len(stream)))


def test_what_is_cut_or_ends_without_an_answer_goes_on():
    open_end = "Step 1: 3 + 5 = 8.\n\nStep 2: 8 + 7 = 15.\n\nStep 3: " + "9" * 60
    ours, script = comparer([open_end, "Step 3: done.\n\n", RIGHT], Plan(window=10_000))
    ours.linearised([PROBLEM], [LETTERS.encode("Q|")], [200])
    whole = "Q|Step 1: 3 + 5 = 8.\n\nStep 2: 8 + 7 = 15.\n\n"
    assert script.asked[1] == whole  # no words are forced on an attempt that has not ended
    assert script.asked[2] == f"{whole}Step 3: done.\n\n{BACK}"


def test_parallel_samples_read_their_prompt_once():
    ours, _ = comparer([WRONG_END, RIGHT], Plan(samples=4))
    [rows] = ours.parallel([PROBLEM], [LETTERS.encode("Q|")])
    assert [row["correct"] for row in rows] == [False, True, False, True]
    assert [row["through"] - row["tokens"] for row in rows] == [2] * 4
    assert rows[-1]["tokens"] == 2 * (len(LETTERS.encode(WRONG_END + RIGHT)) + 2)


def test_a_window_must_hold_an_attempt():
    ours, _ = comparer([RIGHT], Plan(window=100))
    with pytest.raises(ProblemError, match="window of 100 tokens is too small"):
        ours.rows([PROBLEM])


def test_a_stream_whose_state_does_not_fit_starts_anew():
    long = f"Step 1: {'9' * 40}.\n\n{ANSWER}\\boxed{{1}}"
    ours, script = comparer([long], Plan(window=180))
    [rows] = ours.linearised([PROBLEM], [LETTERS.encode("Q" * 20 + "|")], [200])
    assert len(rows) > 2 and set(script.asked) == {"Q" * 20 + "|"}
    assert [row["dropped"] for row in rows] == list(range(len(rows)))
