"""Tries and masks on cases small enough to write down."""

import numpy as np
import pytest

from mrtlib.models.packing import ROOT, Trie, ancestors, by_length, collate, families


def test_a_shared_prefix_is_held_once():
    trie = Trie()
    assert trie.extend(ROOT, [5, 6, 7]) == [0, 1, 2]
    assert trie.extend(ROOT, [5, 6, 8]) == [0, 1, 3]
    assert trie.extend(1, [7, 9]) == [2, 4]
    assert trie.tokens == [5, 6, 7, 8, 9]
    assert trie.parents == [ROOT, 0, 1, 1, 2]
    assert trie.depths == [0, 1, 2, 2, 3]


def test_a_token_sees_itself_and_its_ancestors():
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1],
    ]
    np.testing.assert_array_equal(ancestors([ROOT, 0, 1, 1, 2]), np.array(expected, dtype=bool))


def test_ancestors_of_random_tries_are_those_found_by_walking_up():
    rng = np.random.default_rng(0)
    for size in range(30):
        # Mostly runs, as in a trace, with branches and further roots between them.
        parents = [i - 1 if rng.random() < 0.7 else int(rng.integers(ROOT, i)) if i else ROOT
                   for i in range(size)]  # fmt: skip
        expected = np.eye(size, dtype=bool)
        for node in range(size):
            up = parents[node]
            while up != ROOT:
                expected[node, up] = True
                up = parents[up]
        np.testing.assert_array_equal(ancestors(parents), expected)


def test_padding_neither_sees_nor_is_seen():
    long, short = Trie(), Trie()
    long.extend(ROOT, [4, 5, 6])
    short.extend(ROOT, [7])
    ids, positions, seen = collate([long, short], pad_id=9)
    np.testing.assert_array_equal(ids, [[4, 5, 6], [7, 9, 9]])
    np.testing.assert_array_equal(positions[0], [0, 1, 2])
    np.testing.assert_array_equal(seen[0], np.tril(np.ones((3, 3), dtype=bool)))
    np.testing.assert_array_equal(seen[1], np.eye(3, dtype=bool))


def test_groups_stay_within_the_limit():
    lengths = np.random.default_rng(0).integers(1, 40, 60).tolist()
    groups = by_length(lengths, 100)
    assert sorted(index for group in groups for index in group) == list(range(60))
    assert all(len(group) * max(lengths[i] for i in group) <= 100 for group in groups)
    assert lengths[groups[0][0]] == max(lengths)
    padded = sum(len(group) * lengths[group[0]] for group in groups)
    assert padded <= sum(lengths) / 0.75
    with pytest.raises(ValueError, match="39 tokens does not fit a pass of 38"):
        by_length(lengths, 38)


def test_families_are_forks_of_one_trace():
    rng = np.random.default_rng(0)
    traces = [rng.integers(0, 99, 50).tolist() for _ in range(3)]
    prompts = [trace[:cut] + [7] for cut in (20, 50, 30) for trace in traces]
    groups = families(prompts)
    assert sorted(map(sorted, groups)) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    alike = [[1, 2, 3, n, n + 1] for n in range(10)]
    assert len(families(alike)) == 1
    assert [len(group) for group in families(alike, small=12)] == [6, 4]  # 5 + 5 * 2 <= 3 * 5


def test_long_traces_do_not_join_over_a_short_prompt():
    rng = np.random.default_rng(0)
    start = [50] * 20
    traces = [start + rng.integers(0, 99, 1024).tolist() for _ in range(8)]
    # The suffix comes early or late in sorted order, so short prompts stand before long ones.
    prompts = [trace[:cut] + [50] * 9 for cut in range(20, 1100, 128) for trace in traces]
    held = []
    for group in families(prompts):
        trie = Trie()
        for index in group:
            trie.extend(ROOT, prompts[index])
        held.append(len(trie))
    assert len(held) == 8 and max(held) <= 1044 + 9 * 9  # one trace a row


def test_no_prompts_no_families():
    assert families([]) == []


def test_a_trie_is_the_same_however_its_sequences_are_cut_into_pieces():
    rng = np.random.default_rng(0)
    for _ in range(300):
        whole, single, nodes = Trie(), Trie(), [ROOT]
        for _ in range(rng.integers(1, 10)):
            at, tokens = int(rng.choice(nodes)), rng.integers(0, 3, rng.integers(0, 6)).tolist()
            path, node = whole.extend(at, tokens), at
            for token, child in zip(tokens, path, strict=True):
                [node] = single.extend(node, [token])
                assert node == child
            nodes += path
        assert (whole.tokens, whole.parents, whole.depths) == (
            single.tokens, single.parents, single.depths)  # fmt: skip
        pairs = list(zip(whole.parents, whole.tokens, strict=True))
        assert len(set(pairs)) == len(pairs)  # a shared prefix is stored once
        assert whole.depths == [0 if p == ROOT else whole.depths[p] + 1 for p in whole.parents]
