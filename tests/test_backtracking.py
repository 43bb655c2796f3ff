"""Progress of backtracks, votes at equal tokens and their efficiency, on records made by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import BACK
from mrtlib.evaluation.comparison import times_fewer
from mrtlib.experiments import backtracking, claims
from mrtlib.experiments.backtracking import ATTEMPT, LINE
from mrtlib.store import TRACE


def decode(ids):
    return "".join(map(chr, ids))


def a_rollout(episodes, J, method="base", problem="p1", sample=0, seed=0, level="three"):
    """Return the rows of one trace in the tables `rollouts` and `progress`, a letter a token."""
    labels = dict(zip(TRACE, (method, seed, level, problem, sample), strict=True))
    ends = np.cumsum([len(text) for text in episodes]).tolist()
    rollout = labels | {"token_ids": [ord(c) for c in "".join(episodes)], "boundaries": ends,
                        "correct": J[-1] > 0.5, "trace_tokens": ends[-1], "truncated": False}
    rows = [labels | {"j": j, "tokens": t, "J": value, "progress": value - J[j - 1] if j else None}
            for j, (t, value) in enumerate(zip([0, *ends], J, strict=True))]  # fmt: skip
    return rollout, rows


def tables_of(*rollouts):
    found = [a_rollout(*r[:2], **(r[2] if len(r) > 2 else {})) for r in rollouts]
    return {"rollouts": pd.DataFrame([r for r, _ in found]),
            "progress": pd.DataFrame([row for _, rows in found for row in rows])}  # fmt: skip


FIRST, SECOND = "Step 1: a.\n\nStep 2: b.\n\n", "Step 2: c.\n\n"
ERROR = f"{BACK} 2.\n\n"
TABLES = tables_of(
    ([FIRST, ERROR, SECOND, ERROR, SECOND], [0.1, 0.2, 0.5, 0.4, 0.45, 0.9]),
    ([FIRST, ERROR], [0.1, 0.3, 0.2], {"sample": 1}),
    ([FIRST], [0.1, 0.9], {"sample": 2}),
    ([FIRST, "Wrong, who knows.\n\n", ERROR, SECOND], [0.2, 0.2, 0.3, 0.4, 0.1], {"problem": "p2"}),
)


def test_progress_of_a_backtrack_is_J_behind_it_less_J_before():
    found = backtracking.backtracks(TABLES, decode)
    line, whole = (found[found["part"] == part] for part in (LINE, ATTEMPT))
    assert line["progress"].round(9).tolist() == [0.3, 0.05, -0.1, 0.1, 0.1]
    assert whole["progress"].round(9).tolist() == [0.2, 0.5, -0.2]  # the others have no attempt
    assert line["j"].tolist() == [2, 4, 2, 2, 3]
    assert line["back"].fillna(0).tolist() == [2, 2, 2, 0, 2]  # one does not say where to


def test_a_problem_counts_by_the_mean_of_its_backtracks():
    found = backtracking.backtracks(TABLES, decode)
    table = backtracking.progress_of_backtracks(found).set_index(["part", "quantity"])
    row = table.loc[(LINE, "progress")]
    assert row["estimate"] == pytest.approx(np.mean([np.mean([0.3, 0.05, -0.1]), 0.1]))
    assert (row["backtracks"], row["problems"]) == (5, 2)
    share = table.loc[(LINE, "share with progress")]
    assert share["estimate"] == pytest.approx((2 / 3 + 1) / 2)
    assert 0 <= share["low"] <= share["estimate"] <= share["high"] <= 1


def test_differences_are_paired_over_the_problems_that_both_have():
    rng = np.random.default_rng(0)
    gain = {f"p{i}": rng.normal(0, 0.2) for i in range(12)}
    rollouts = []
    for name, value in gain.items():
        rollouts.append(([FIRST, ERROR, SECOND], [0.5, 0.5, 0.5 + value, 0.5 + value],
                         {"problem": name, "method": "outcome"}))  # fmt: skip
        if name != "p3":
            rollouts.append(([FIRST, ERROR, SECOND], [0.5, 0.5, 0.6 + value, 0.6 + value],
                             {"problem": name, "method": "mixed_group"}))  # fmt: skip
    gaps = backtracking.progress_differences(backtracking.backtracks(tables_of(*rollouts), decode))
    assert gaps["method"].tolist() == ["mixed_group"] * 2  # the other pair was not measured
    assert np.allclose(gaps[["estimate", "low", "high"]], 0.1)  # no noise is left in a pair
    assert gaps["problems"].tolist() == [11, 11] and gaps["decided"].all()
    assert "makes more progress" in backtracking.progress_in_words(next(gaps.itertuples()))
    same = gaps.assign(low=-0.1, decided=False)
    assert "no significant" in backtracking.progress_in_words(next(same.itertuples()))


def test_histograms_hold_every_backtrack_once():
    found = backtracking.backtracks(TABLES, decode)
    shares = backtracking.progress_shares(found)
    assert np.allclose(shares.groupby("part")["share"].sum(), 1)
    at = shares[(shares["part"] == ATTEMPT) & (shares["share"] > 0)]
    assert at[["left", "right"]].round(1).values.tolist() == [[-0.3, -0.1], [0.1, 0.3], [0.5, 0.7]]
    edge = found.assign(progress=[1.0, -1.0] * (len(found) // 2))
    assert np.allclose(backtracking.progress_shares(edge).groupby("part")["share"].sum(), 1)


def test_how_a_model_searches():
    table = backtracking.search_table(TABLES, backtracking.backtracks(TABLES, decode))
    value = table.set_index("quantity")["estimate"]
    assert value["backtracks of a rollout"] == pytest.approx((3 / 3 + 2) / 2)
    assert value["rollouts with a backtrack"] == pytest.approx((2 / 3 + 1) / 2)
    assert value["accuracy"] == pytest.approx((2 / 3 + 0) / 2)


def test_the_nth_look_of_every_seed_is_one_point():
    rows = [("joined", seed, step + seed * (step > 0), 1.0 / (1 + step) + 0.1 * seed)
            for seed in range(3) for step in (0, 10, 20)]  # fmt: skip
    rows += [("random", 0, step, 2.0) for step in (0, 7)]
    curves = backtracking.warm_start_curves(
        pd.DataFrame(rows, columns=["kind", "seed", "step", "loss"])
    )
    joined = curves[curves["kind"] == "joined"]
    assert joined["step"].tolist() == [0, 11, 21] and joined["seeds"].tolist() == [3, 3, 3]
    assert joined["estimate"].tolist() == pytest.approx([1.1, 1 / 11 + 0.1, 1 / 21 + 0.1])
    assert curves[curves["kind"] == "random"]["low"].isna().all()


def some_attempts(seed=0, methods=("base", "outcome"), problems=6, n=4):
    """Draw attempts of both ways; the streams go on as long as their samples."""
    rng, rows = np.random.default_rng(seed), []
    for method, p in itertools.product(methods, range(problems)):
        for way, most in (("parallel", n), ("linearised", 3 * n)):
            tokens = through = k = 0
            while k < most:
                size = int(rng.integers(20, 60))
                tokens, through = tokens + size, through + size + (100 if way != "parallel" else 0)
                right = bool(rng.random() < 0.5)
                answer = [f"{rng.integers(1, 4)} + 2", None][int(rng.random() < 0.2)]
                rows.append({
                    "method": method, "seed": 0, "level": "three" if p % 2 else "four",
                    "problem": f"p{p}", "sample": k if way == "parallel" else 0, "way": way, "k": k,
                    "tokens": tokens, "through": through + 10 * (way == "parallel"), "read": 120,
                    "dropped": 0, "correct": right and answer is not None, "answer": answer,
                    "logprob": -float(rng.random()),
                })  # fmt: skip
                k += 1
    return pd.DataFrame(rows)


def vote(attempts):
    """Return by hand the chance that a weighted vote is right."""
    weights = {}
    for row in attempts.itertuples():
        if isinstance(row.answer, str):
            name = True if row.correct else row.answer
            weights[name] = weights.get(name, 0.0) + np.exp(row.logprob)
    best = [name for name, w in weights.items() if w == max(weights.values())]
    return (True in best) / len(best) if best else 0.0


def test_votes_are_counted_at_equal_tokens():
    attempts = some_attempts()
    points = backtracking.vote_points(attempts, "countdown")
    assert len(points) == 2 * 6 * 2 * 4
    for row in points.itertuples():
        own = attempts[(attempts["method"] == row.method) & (attempts["problem"] == row.problem)]
        samples, stream = (own[own["way"] == way] for way in ("parallel", "linearised"))
        spent = row.k * samples["tokens"].iloc[-1] / 4
        assert row.tokens == pytest.approx(spent)
        if row.way == "linearised":
            done = stream[stream["tokens"] <= spent + 1e-9]
            more = stream.iloc[: len(done) + 1]  # with the attempt that is under way
            before = done["tokens"].max() if len(done) else 0
            left = more["tokens"].max() - before
            share = (spent - before) / left if left else 0
            expected = (1 - share) * vote(done) + share * vote(more)
            assert row.accuracy == pytest.approx(expected)
            assert row.votes == pytest.approx(len(done) + share)
            sides = [side["through"].max() if len(side) else 0 for side in (done, more)]
            assert row.through == pytest.approx((1 - share) * sides[0] + share * sides[1])
        else:
            subsets = itertools.combinations(range(4), row.k)
            by_hand = np.mean([vote(samples.iloc[list(s)]) for s in subsets])
            assert row.accuracy == pytest.approx(by_hand)
            assert row.through == pytest.approx(10 + spent)


def test_curves_and_differences_are_means_over_problems():
    points = backtracking.vote_points(some_attempts(), "countdown")
    curves = backtracking.vote_curves(points).set_index(["method", "way", "k"])["estimate"]
    equal = backtracking.at_equal_tokens(points)
    for row in equal.itertuples():
        both = [curves[row.method, way, row.k] for way in ("parallel", "linearised")]
        assert [row.parallel, row.linearised] == pytest.approx(both)
        assert row.estimate == pytest.approx(both[1] - both[0])
        assert row.low <= row.estimate <= row.high


def test_a_side_that_needs_half_the_tokens_is_twice_as_efficient():
    attempts = some_attempts()
    points = backtracking.vote_points(attempts, "countdown")
    base = points[points["method"] == "base"]
    half = base.assign(method="outcome", tokens=base["tokens"] / 2, through=base["through"] / 2)
    both = pd.concat([base, half])
    for counted in backtracking.COUNTED:
        table = backtracking.efficiency(both, counted).set_index(["ours", "other"])
        row = table.loc[("outcome parallel", "base parallel")]
        assert row["times_fewer"] == pytest.approx(2)
        assert row["low"] <= 2 <= row["high"]
    assert ("base linearised", "base parallel") in table.index
    assert not any("mixed" in name for name, _ in table.index)
    words = [backtracking.efficiency_in_words(row) for row in table.reset_index().itertuples()]
    assert len(backtracking.told(table.reset_index())) == 0  # tokens through the model are counted
    first = backtracking.efficiency(both)
    assert backtracking.told(first)["ours"].tolist() == ["base linearised", "outcome linearised"]
    assert all("times fewer tokens" in text for text in words)
    alone = table.reset_index().assign(low=np.nan, high=np.nan, decided=False)
    for row in alone.itertuples():
        assert "nan" not in backtracking.efficiency_in_words(row)


def test_the_rivals_own_tokens_are_taken_where_they_differ():
    rng = np.random.default_rng(1)
    ours = np.clip(np.linspace(0.2, 0.8, 6)[:, None, None] + rng.normal(0, 0.1, (6, 1, 40)), 0, 1)
    x = np.arange(1, 7) * 100.0
    one = times_fewer(x, ours, ours)
    other = times_fewer(x, ours, ours, None, 3 * x)
    assert vars(other) == pytest.approx({name: 3 * end for name, end in vars(one).items()})


def test_a_base_with_one_seed_stands_beside_every_seed():
    points = backtracking.vote_points(some_attempts(), "countdown")
    base, own = (points[points["method"] == name] for name in ("base", "outcome"))
    seeds = pd.concat([own.assign(seed=s) for s in (0, 1, 2)])
    ours, theirs, levels = backtracking.paired(seeds, base, "accuracy")
    assert ours.shape == theirs.shape == (3, 6) and len(levels) == 6
    assert (theirs == theirs[0]).all()
    fewer = seeds[(seeds["seed"] != 2) | (seeds["problem"] != "p1")]
    assert backtracking.crossed(fewer, "accuracy")[0].shape == (3, 5)
    with pytest.raises(ValueError, match="no problem has a value of 'accuracy'"):
        backtracking.crossed(fewer[fewer["problem"] == "none"], "accuracy")


def test_the_story_of_a_stream():
    attempts = some_attempts()
    story = backtracking.stream_story(attempts, "base", "p2")
    own = attempts.query("method == 'base' and problem == 'p2' and way == 'linearised'")
    assert story["tokens"].tolist() == own["tokens"].tolist()
    assert story["vote"].tolist() == pytest.approx([vote(own[: n + 1]) for n in range(len(own))])
    with pytest.raises(ValueError, match="the stream of base at p99"):
        backtracking.stream_story(attempts, "base", "p99")


def claimed(**changes):
    found = backtracking.backtracks(TABLES, decode)
    attempts = some_attempts(methods=("base",))
    losses = pd.DataFrame({"kind": "joined", "seed": [0, 0, 1, 1], "step": [0, 9] * 2, "loss": 1.0})
    given = {
        "tables": TABLES, "found": found, "shares": backtracking.progress_shares(found),
        "attempts": attempts, "points": backtracking.vote_points(attempts, "countdown"),
        "losses": losses, "window": 120, "context": 200,
    }  # fmt: skip
    table = claims.of_backtracking(**given | changes).set_index("claim")
    return table["holds"]


def test_claims_hold_of_sound_records_and_fail_of_others():
    assert claimed().all()
    attempts = some_attempts(methods=("base",))
    short = attempts[(attempts["way"] == "parallel") | (attempts["k"] < 2)]
    broken = {
        "fewest tokens of a stream": claimed(context=10**6),
        "most tokens that a stream saw at once": claimed(window=119),
        "streams shorter than their problem's samples": claimed(attempts=short),
        "largest gap of progress to what it adds up to": claimed(tables=TABLES | {
            "progress": TABLES["progress"].assign(progress=0.1)}),
    }  # fmt: skip
    for claim, holds in broken.items():
        assert not holds[claim], claim
