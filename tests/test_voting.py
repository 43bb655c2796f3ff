"""Votes against further thinking: tables against brute force, and their intervals by simulation."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from mrtlib.evaluation import latex
from mrtlib.evaluation.tables import written
from mrtlib.experiments import claims, information_gain, voting
from mrtlib.store import TRACE


def answer_rows(problem, texts, level="three", logprobs=None):
    """Return answers at boundaries 0, 1, ...; "1" is right, None is no answer, 10 tokens each."""
    return [
        {"method": "base", "seed": 0, "level": level, "problem": problem, "sample": 0, "j": j,
         "tokens": 20 * j, "k": k, "answer": text, "correct": text == "1",
         "logprob": logprobs[j][k] if logprobs else 0.0, "kind": "forced", "answer_tokens": 10}
        for j, row in enumerate(texts) for k, text in enumerate(row)
    ]  # fmt: skip


def random_answers(count, seed=0, answers=4):
    """Return answers of `count` problems with 1 to 5 episodes, weights and empty answers too."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        size = (int(rng.integers(1, 6)) + 1, answers)
        texts = rng.choice(["1", "2", "3", ""], size).tolist()
        texts = [[text or None for text in row] for row in texts]
        logprobs = (-rng.exponential(1, size)).tolist()
        rows += answer_rows(f"p{i}", texts, "three" if i % 2 else "four", logprobs)
    return pd.DataFrame(rows)


def wins(rows, weights):
    """Return the chance that the heaviest answer of these rows is right, by hand."""
    heights = {}
    for row, weight in zip(rows, weights, strict=True):
        if isinstance(row.answer, str):
            heights[row.answer] = heights.get(row.answer, 0.0) + weight
    best = max(heights.values(), default=0.0)
    tied = [text for text, height in heights.items() if abs(height - best) <= 1e-9 * best]
    return ("1" in tied) / len(tied) if tied else 0.0


def test_votes_are_the_mean_over_all_subsets_by_every_rule():
    answers = random_answers(6)
    table = voting.vote_table(answers, "countdown", (1, 2, 3)).set_index(["problem", "j", "votes"])
    weigh = {"plain": lambda row: 1.0, "likelihood": lambda row: np.exp(row.logprob),
             "probability": lambda row: np.exp(row.logprob) ** row.answer_tokens}  # fmt: skip
    assert set(table["rule"]) == set(weigh)
    for (problem, j), spot in answers.groupby(["problem", "j"]):
        for p in (1, 2, 3):
            found = table.loc[(problem, j, p)].set_index("rule")
            assert (found["spent"] == 20 * j + 10 * p).all()
            for rule, weight in weigh.items():
                subsets = combinations(spot.itertuples(), p)
                by_hand = np.mean([wins(rows, map(weight, rows)) for rows in subsets])
                assert found.loc[rule, "accuracy"] == pytest.approx(by_hand), (problem, j, p, rule)
    assert table.groupby("rule")["accuracy"].mean().nunique() == 3  # the rules do differ


def test_buckets_are_of_whole_numbers_and_about_equal_size():
    counts = [1, 2, 2, 3, 3, 3, 4, 4, 5]
    rows = [answer_rows(f"p{i}", [["1"]] * (k + 1)) for i, k in enumerate(counts)]
    votes = voting.vote_table(pd.DataFrame(sum(rows, [])), "countdown", (1,))
    names = voting.buckets(votes)
    assert list(names.cat.categories) == [
        "1–2 episodes (n = 3)", "3 episodes (n = 3)", "4–5 episodes (n = 3)",
    ]  # fmt: skip
    assert votes.groupby(names, observed=True)["problem"].nunique().tolist() == [3, 3, 3]
    alike = votes[votes["problem"].isin(["p3", "p4", "p5"])]
    assert voting.buckets(alike).cat.categories.tolist() == ["3 episodes (n = 3)"]


def test_curves_hold_ended_traces_and_place_votes_by_their_cost():
    no, yes = ["2", "3", "4", "5"], ["1"] * 4
    rows = pd.DataFrame(answer_rows("a", [no, yes]) + answer_rows("b", [no, no, no]))
    votes = voting.vote_table(rows, "countdown", (1, 4))
    table = voting.scaling_curves(votes, rows, "episodes")
    assert list(table["rule"].unique()) == list(voting.RULES)
    one = table.query("curve == 'maj@1' and rule == 'plain'").groupby("x")["estimate"].mean()
    assert one.index.tolist() == [0, 1, 2]
    assert table.query("curve == 'maj@4'")["x"].min() == 3
    assert table.query("curve == 'direct'")["x"].max() == 3
    spent = voting.scaling_curves(votes, rows, "tokens").query("curve == 'maj@4'")["x"]
    assert spent.min() == 40 and spent.max() == 80
    with pytest.raises(ValueError, match="axis"):
        voting.scaling_curves(votes, rows, "flops")


def test_contests_pair_the_vote_with_the_end_of_the_same_trace():
    # Three episodes: half-way is boundary 2, and two votes at 1 cost 40 tokens, at 2 60 of 70.
    rows = answer_rows("a", [["2"] * 2, ["1", "3"], ["1"] * 2, ["2"] * 2])
    rows += answer_rows("b", [["2"] * 2, ["2"] * 2, ["1", "2"], ["1"] * 2])
    votes = voting.vote_table(pd.DataFrame(rows), "countdown", (1, 2))
    found = voting.contests(votes, "plain").set_index(["bucket", "place"]).loc[voting.ALL]
    half, equal, end = (found.loc[place] for place in ("half-way", "equal tokens", "the end"))
    assert (half["vote"], half["end"], half["estimate"]) == (0.75, 0.5, 0.25)
    assert half["tokens"] == equal["tokens"] == 60 - 70 and end["tokens"] == 10
    assert (equal["vote"], equal["n"]) == (half["vote"], 2)
    assert end["estimate"] == 0
    # Eight votes do not fit into what one episode costs: nothing is compared at equal tokens.
    short = pd.DataFrame(answer_rows("c", [["1"] * 8] * 2) + answer_rows("d", [["1"] * 8] * 2))
    places = voting.contests(voting.vote_table(short, "countdown", (1, 8)), "plain")["place"]
    assert set(places) == {"half-way", "the end"}


def test_votes_at_equal_tokens_stop_as_late_as_they_can_pay_for():
    """An episode is 20 tokens and an answer 10: 2 or 3 votes can pay at k - 1, 4 at k - 2."""
    votes = voting.vote_table(random_answers(40), "countdown", (1, 2, 3, 4))
    found = voting.contests(votes, "plain").set_index(["bucket", "place", "votes"])["vote"]
    own = voting.against_end(votes, "plain")
    for p, before in ((2, 1), (3, 1), (4, 2)):
        there = own[(own["votes"] == p) & (own["j"] == own["episodes"] - before)]
        assert found[voting.ALL, "equal tokens", p] == pytest.approx(there["accuracy"].mean())


def test_a_vote_at_a_boundary_is_compared_on_the_traces_that_go_on():
    answers = random_answers(40)
    table = voting.vote_or_think(voting.vote_table(answers, "countdown", (1, 4)), "plain")
    own = voting.against_end(voting.vote_table(answers, "countdown", (1, 4)), "plain")
    for row in table.itertuples():
        part = own[(own["bucket"] == row.bucket) & (own["votes"] == row.votes)
                   & (own["j"] == row.j) & (own["episodes"] > row.j)]  # fmt: skip
        assert (len(part), part["gain"].mean()) == (row.n, pytest.approx(row.estimate))
        share = row.n / own[own["bucket"] == row.bucket]["problem"].nunique()
        assert share >= voting.GOING
        beside = table[(table["bucket"] == row.bucket) & (table["votes"] == row.votes)]
        ends = voting.gain_interval(part["gain"], 1 - 0.05 / len(beside))
        assert (row.low, row.high) == (ends.low, ends.high)
    assert table.groupby(["bucket", "votes"], observed=True)["j"].min().eq(0).all()


def test_intervals_of_a_curve_hold_together():
    """All intervals of a curve cover at once, in 95 % of draws or more, with sparse differences."""
    rng, boundaries, repeats = np.random.default_rng(1), 5, 2000
    for count in (35, 140):
        lost = np.linspace(0.05, 0.3, boundaries)  # a share of traces is solved later, 2 % unlearn
        draws = rng.random((repeats, 1, count))
        gains = (draws > 0.98).astype(float) - (draws < lost[:, None])
        found = voting.gain_interval(gains, level=1 - 0.05 / boundaries)
        assert found.estimate == pytest.approx(gains.mean(-1))
        inside = (found.low <= 0.02 - lost) & (0.02 - lost <= found.high)
        assert inside.all(1).mean() >= 0.95, count
        single = voting.gain_interval(gains)
        inside = (single.low <= 0.02 - lost) & (0.02 - lost <= single.high)
        assert (inside.mean(0) >= 0.94).all() and inside.all(1).mean() < 0.95, count
        assert (single.high - single.low).mean() < 1.5 * np.mean(4 * gains.std(-1) / count**0.5)


def test_weights_are_compared_with_plain_votes_on_the_same_answers():
    answers = pd.DataFrame(
        answer_rows("a", [["1", "2"]], logprobs=[[-0.1, -2.0]])
        + answer_rows("b", [["1", "2"]], logprobs=[[-0.1, -2.0]])
    )
    votes = voting.vote_table(answers, "countdown", (1, 2))
    table = voting.rules_compared(votes).set_index("rule")
    assert table["accuracy"].tolist() == [1.0, 1.0] and table["estimate"].tolist() == [0.5, 0.5]


@pytest.fixture(scope="module")
def made():
    """Votes on random answers, and all tables of them."""
    answers = random_answers(60)
    votes = voting.vote_table(answers, "countdown", (1, 2, 4))
    exact = answers.groupby([*TRACE, "j"], as_index=False).agg(
        tokens=("tokens", "first"), J=("correct", "mean"))  # fmt: skip
    pairs = information_gain.paired(answers, exact)
    return answers, votes, pairs, voting.contests(votes), voting.vote_or_think(votes)


def test_words_and_papers_say_what_the_tables_say(made):
    _, votes, _, found, race = made
    text = voting.votes_in_words(found, race, voting.rules_compared(votes))
    row = found[(found["bucket"] == voting.ALL) & (found["place"] == "half-way")].iloc[-1]
    points = " ".join(written(row["estimate"], row["low"], row["high"], 1, 100, "+"))
    assert f"{points}, at" in text and "of 4 half-way" in text
    shown = voting.by_bucket(found)
    assert shown.loc[("half-way", 4), voting.ALL] == points
    assert list(shown.index.levels[0][shown.index.codes[0]].unique()) == [
        "half-way", "equal tokens", "the end",
    ]  # fmt: skip
    assert shown.shape == (6, 4)
    assert text.count("episodes (n = ") == 3
    paper = latex.of_votes(found)
    assert paper.count("half-way") == 4 and "\\midrule\n\\midrule" not in paper


def test_claims_of_votes_hold_and_can_fail(made):
    answers, votes, pairs, found, race = made
    told = claims.checked(claims.of_votes("smoke", answers, votes, pairs, found, race))
    assert len(told) == 2 and told["holds"].all()
    for wrong in (votes.assign(accuracy=1.0), votes.assign(accuracy=votes["accuracy"] + 0.01)):
        told = claims.checked(claims.of_votes("smoke", answers, wrong, pairs, found, race))
        assert not told["holds"].any()
    of_size = claims.checked(claims.of_votes("tiny", answers, votes, pairs, found, race))
    assert not of_size.set_index("claim").loc["test problems with answers put to a vote",
                                              "holds"]  # fmt: skip
    biased = pairs.assign(sampled=pairs["sampled"] + 0.02)
    of_size = claims.checked(claims.of_votes("tiny", answers, votes, biased, found, race))
    assert not of_size.set_index("claim").loc["share of right answers less exact J", "holds"]


def test_the_probability_of_a_long_answer_weighs():
    spot = pd.DataFrame({"logprob": [-0.9, -0.9, -1.0], "answer_tokens": [900, 900, 900]})
    weights = voting.probability(spot)  # e^-810 is 0 in floats
    assert weights.tolist() == pytest.approx([1.0, 1.0, np.exp(-90.0)])
