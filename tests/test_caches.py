"""Forks that copy their prefix, forks that point at it, and rows of their own: one result."""

import numpy as np
import pytest
import torch
from test_prover import CONFIGS, VOCAB, build

from mrtlib.models import compatibility
from mrtlib.models.caches import (
    Forks,
    PointedForks,
    RoomyLayer,
    SharedPrefixes,
    filling_gaps,
)
from mrtlib.models.sampling import TransformersSampler

SETTINGS = {"temperature": 1.0, "top_p": 1.0, "stop_ids": {1, 2, 3}, "seed": 5}


def forked_prompts():
    """Three traces cut at unequal numbers of places, and a prompt that shares nothing."""
    rng = np.random.default_rng(2)
    traces = [rng.integers(4, VOCAB, length).tolist() for length in (60, 44, 30)]
    cuts = [(0, 10), (0, 35), (0, 60), (1, 20), (1, 44), (2, 30)]
    return [traces[t][:cut] + [7, 8, 9] for t, cut in cuts] + [[5, 6]]


def drawn(model, way, monkeypatch, rows=64, n=4, max_tokens=12):
    """Sample with forks made one way, "gather" or "point"."""
    monkeypatch.setattr(SharedPrefixes, "fork", getattr(SharedPrefixes, way))
    found = TransformersSampler(model, 0, rows).sample(
        forked_prompts(), n, max_tokens, **SETTINGS
    )
    return [[(s.token_ids, s.finished) for s in group] for group in found]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_both_ways_give_the_same_samples(kind, attention, monkeypatch):
    model = build(kind, attention)
    copied = drawn(model, "gather", monkeypatch)
    for rows in (64, 5):
        assert drawn(model, "point", monkeypatch, rows) == copied
    lengths = {len(tokens) for group in copied for tokens, _ in group}
    assert len(lengths) > 4  # forks left at different steps


def test_a_pointed_step_is_a_full_pass():
    model, prompts = build("qwen3"), forked_prompts()
    owners = [2, 0, 5, 2, 4, 6, 1]
    forks = SharedPrefixes(model, prompts, 0).point(owners, 4)
    written = [list(prompts[i]) for i in owners]
    kept = list(range(len(owners)))
    for step in range(4):
        with torch.no_grad():
            logits = forks.step(model)
            for row, fork in enumerate(kept):
                full = model(torch.tensor([written[fork]])).logits[0, -1]
                torch.testing.assert_close(logits[row], full, atol=1e-4, rtol=1e-4)
        forks.last = torch.tensor([10 + step + fork for fork in kept])
        for row, fork in enumerate(kept):
            written[fork].append(int(forks.last[row]))
        if step == 1:  # two leave a row of several, and one its row for good
            kept = [fork for row, fork in enumerate(kept) if row not in (0, 2, 3)]
            forks.keep(torch.tensor([1, 4, 5, 6]))


def test_no_fork_has_a_copy_of_its_prefix():
    model, prompts = build(), forked_prompts()
    owners = [i for i in range(6) for _ in range(20)]
    shared = SharedPrefixes(model, prompts, 0)
    pointed, copied = shared.point(owners, 3), shared.gather(owners, 3)
    held = [sum(room.shape[0] * room.shape[2] for room in x.cache.layers[0]._room)
            for x in (pointed, copied)]  # fmt: skip
    # Three traces, the longest of 60 + 3 * 2 tokens, room for 3 tokens of at most 60 forks.
    assert held[0] == 2 * 3 * (66 + 60 * 3)
    assert held[1] > 2 * len(owners) * 60


def test_the_way_is_chosen_by_length():
    shared = SharedPrefixes(build(), forked_prompts(), 0)
    assert isinstance(shared.fork([0, 1, 2, 3], 20), PointedForks)  # 3 * 20 <= 66
    assert isinstance(shared.fork([0, 1, 2, 3], 30), Forks)


def test_self_check_compares_both_ways(monkeypatch):
    assert compatibility.shared_gap(build()) < 1e-4
    for way in ("gather", "point"):
        right = getattr(SharedPrefixes, way)

        def wrong(self, owners, max_tokens, right=right):
            forks = right(self, owners, max_tokens)
            forks.positions = forks.positions + 3
            return forks

        with monkeypatch.context() as patch:
            patch.setattr(SharedPrefixes, way, wrong)
            assert compatibility.shared_gap(build()) > 1e-2


def test_rows_that_stay_in_place_are_not_moved():
    for going in ([0, 2, 3, 5, 6], [4], [0, 1, 2], [3, 4, 5, 6], [1, 3, 5]):
        rows = filling_gaps(torch.tensor(going))
        assert sorted(rows.tolist()) == going
        stay = [row for row in going if row < len(going)]
        assert all(rows[row] == row for row in stay)


def test_a_layer_keeps_rows_in_any_order_and_goes_on():
    keys = torch.arange(7 * 2 * 3 * 4.0).reshape(7, 2, 3, 4)
    for rows in ([0, 5, 2, 3], [6, 1, 0], [1, 0, 3, 2, 5, 4, 6]):
        layer, order = RoomyLayer(keys, -keys, room=2), torch.tensor(rows)
        layer.batch_select_indices(order)
        new = torch.full((len(rows), 2, 1, 4), 9.0)
        for _ in range(3):  # within the room, and over it
            found = layer.update(new, -new)
        expected = torch.cat([keys[order], new, new, new], 2)
        assert torch.equal(found[0], expected) and torch.equal(found[1], -expected)
