"""The study's tables, from measures made by hand, against brute force."""

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import load_profile
from mrtlib.experiments import study_results, verdicts
from mrtlib.experiments.measuring import measurings
from mrtlib.experiments.study_results import Found
from mrtlib.stats import two_way

C0, PROBLEMS, SEEDS = 224, 6, 4
LEVELS = ["three"] * 3 + ["four"] * 3
PLACES = [("natural_accuracy", C0),
          *((m, b) for m in ("accuracy", "regret", "tokens") for b in (56, C0))]  # fmt: skip


def made(methods: dict[str, float], seed: int = 0) -> dict:
    """Return measures with a shift of each method: accuracy up by it, regret down."""
    rng, models = np.random.default_rng(seed), {}
    index = pd.MultiIndex.from_arrays([LEVELS, range(PROBLEMS)], names=["level", "problem"])
    for method, shift in methods.items():
        for s in range(1 if method == "base" else SEEDS):
            models[method, s] = {}
            for measure, budget in PLACES:
                sign = -1 if measure == "regret" else 1
                values = 0.4 + sign * shift + 0.1 * rng.random(PROBLEMS)
                values = np.full(PROBLEMS, budget / 2) if measure == "tokens" else values
                models[method, s][measure, budget] = pd.Series(list(values[:, None]), index)
    return models


@pytest.fixture
def found():
    return [Found("short", "test", made({"base": -0.1, "outcome": 0.0, "mixed_group": 0.1})),
            Found("short", "five", made({"base": -0.1, "outcome": 0.0, "mixed_group": 0.0}))]


def values(models, method, place):
    return np.array([[float(v[0]) for v in models[method, s][place]] for s in range(SEEDS)])


def test_differences_are_paired_and_primary_ones_are_wider(found):
    table = study_results.differences(found, C0).set_index(["set", "measure"])
    models = found[0].models
    gap = values(models, "mixed_group", ("regret", C0)) - values(models, "outcome", ("regret", C0))
    want = two_way(gap, np.array(LEVELS))
    row = table.loc["test", "regret"]
    assert row[["estimate", "low", "high"]].tolist() == pytest.approx(list(vars(want).values()))
    assert row["seeds"] == SEEDS
    first = study_results.primary(found, C0)
    assert set(first["measure"]) == {"natural_accuracy", "regret"}
    wide = first.set_index("measure").loc["regret"]
    assert wide["estimate"] == pytest.approx(want.estimate)
    assert wide["low"] < want.low < want.high < wide["high"]
    assert pytest.approx(1 - 0.05 / 3) == study_results.FAMILY_LEVEL
    assert first["decided"].all()
    words = study_results.in_words(first, SEEDS)
    assert "Natural accuracy at $C_0$" in words and "`mixed_group` +" in words
    assert "not decided" not in words
    both = ("`mixed_group` has more natural accuracy than outcome RL; "
            "`mixed_group` has less normalised regret than outcome RL.")  # fmt: skip
    assert words.splitlines()[0] == (
        f"- Decided after *short* runs, of 2 secondary comparisons (6 are planned): {both}"
    )
    none = study_results.in_words(first.assign(decided=False), SEEDS)
    assert "(6 are planned): none." in none and none.count("not decided") == 2
    look = study_results.in_words(first.assign(part="long"), 10)
    assert "of 2 primary comparisons (6 are planned), an interim look at 4 of 10 seeds: " in look
    uneven = first.assign(part="long", seeds=[10, 3])
    assert "an interim look at 3 to 10 of 10 seeds: " in study_results.in_words(uneven, 10)
    six = pd.concat([first.assign(part="long", seeds=10)] * 3)
    assert "of 6 primary comparisons: " in study_results.in_words(six, 10)


def test_the_table_of_differences_holds_those_that_are_shown(found):
    table = study_results.all_differences(found, C0)
    assert set(table["method"]) == {"mixed_group"} and set(table["other"]) == {"outcome"}
    place = ["part", "set", "method", "level", "measure"]
    told = {0.95: table[table["confidence"] == 0.95].set_index(place).sort_index(),
            1: table[table["confidence"] > 0.95].set_index(place).sort_index()}  # fmt: skip
    ends = ["estimate", "low", "high"]
    first = study_results.primary(found, C0).assign(set="test", level="all").set_index(place)
    pd.testing.assert_frame_equal(told[1].loc[first.index, ends], first[ends])
    names = {words: measure for measure, words in study_results.DRAWN.items()}
    for shown in (study_results.differences(found, C0).assign(level="all"),
                  study_results.by_level(found, C0).assign(set="test")):  # fmt: skip
        shown = shown.assign(measure=shown["measure"].map(names)).set_index(place)
        pd.testing.assert_frame_equal(told[0.95].loc[shown.index, ends], shown[ends])


def test_rivals_are_compared_where_three_seeds_of_both_are_on_record():
    models = made(dict.fromkeys(
        ("base", "mixed_group", "mrt_star_cut", "star", "length_penalty", "budget_relative"), 0.0
    ))  # fmt: skip
    models = {key: own for key, own in models.items() if key[0] != "budget_relative" or key[1] < 2}
    assert study_results.pairs(models) == [
        ("mrt_star_cut", "star"), ("mixed_group", "length_penalty")
    ]  # fmt: skip
    table = study_results.all_differences([Found("middle", "test", models)], C0)
    row = table.set_index(["method", "level", "measure", "confidence"]).sort_index()
    got = row.loc[("mixed_group", "four", "regret", 0.95)]
    gap = (values(models, "mixed_group", ("regret", C0))
           - values(models, "length_penalty", ("regret", C0)))[:, 3:]  # fmt: skip
    want = two_way(gap, np.array(LEVELS[3:]))
    assert [got["low"], got["high"]] == pytest.approx([want.low, want.high])


def test_curves_of_every_method_are_of_its_longest_runs_beside_outcome_rl():
    table = study_results.whole_table([
        Found("short", "test", made({"base": -0.1, "outcome": 0.0, "mixed_group": 0.1,
                                     "regret_to_go": 0.2})),
        Found("long", "test", made({"base": -0.1, "outcome": 0.0, "mixed_group": 0.1}, 1)),
        Found("long", "five", made({"base": -0.1, "outcome": 0.0, "regret_to_go": 0.1}, 2)),
    ])  # fmt: skip
    found = study_results.by_budget(table, C0)
    assert dict(found.groupby("method")["part"].first()) == {
        "mixed_group": "long", "regret_to_go": "short"
    }  # fmt: skip
    sides = found.groupby(["method", "metric", "budget"])["series"].agg(list)
    assert all(tuple(names) == study_results.SIDES for names in sides)
    assert (found["used"] == found["budget"] / 2).all()
    [row] = found.query("method == 'mixed_group' and series == 'the method' and "
                        "metric == 'regret' and budget == @C0").itertuples()  # fmt: skip
    [want] = table.query("part == 'long' and method == 'mixed_group' and set == 'test' and "
                         "metric == 'regret' and budget == @C0 and level == 'all'").itertuples()
    assert (row.estimate, row.low, row.high) == (want.estimate, want.low, want.high)
    assert study_results.by_budget(study_results.whole_table([]), C0).empty


def test_the_rest_meets_the_papers_form_in_its_own_runs(found):
    middle = made({"base": -0.1, "outcome": 0.0, "mixed_group": 0.1, "length_penalty": 0.05})
    table = study_results.rivals([*found, Found("middle", "test", middle)], C0)
    assert set(table["method"]) == {"outcome", "length_penalty"}
    assert set(table["part"]) == {"middle"}
    want = study_results.difference(middle, "length_penalty", "regret", C0, other="mixed_group")
    [row] = table.query("method == 'length_penalty' and measure == 'regret'").itertuples()
    assert (row.estimate, row.low, row.high) == (want["estimate"], want["low"], want["high"])
    assert study_results.rivals(found, C0).empty


def test_what_stands_beside_the_rest_is_no_primary_comparison(found):
    assert set(study_results.primary(found, C0)["part"]) == {"short"}
    middle = [Found("middle", *rest) for _, *rest in found]
    assert study_results.primary(middle, C0).empty
    assert not study_results.differences(middle, C0).empty


def test_tokens_used_are_of_the_seeds_that_both_have(found):
    models = {key: dict(metrics) for key, metrics in found[0].models.items()}
    want = study_results.tokens([Found("short", "test", models)], C0)
    more = models["outcome", 0] | {
        ("tokens", b): models["outcome", 0]["tokens", b].map(lambda v: 9 * v) for b in (56, C0)
    }
    models["outcome", 99] = more  # a seed without its pair
    got = study_results.tokens([Found("short", "test", models)], C0)
    assert got["times_fewer"].tolist() == pytest.approx(want["times_fewer"].tolist())
    assert want["times_fewer"][0] > 0


def test_two_seeds_are_not_compared(found):
    few = {k: v for k, v in found[0].models.items() if k[0] == "base" or k[1] < 2}
    assert study_results.differences([Found("short", "test", few)], C0).empty
    assert study_results.primary([Found("short", "test", few)], C0).empty
    left = study_results.enough(found[0].models | {("regret_to_go", 0): few["outcome", 0]})
    assert {method for method, _ in left} == {"base", "outcome", "mixed_group"}


def test_tables_of_all_parts_and_sets(found):
    table = study_results.whole_table(found)
    assert set(table["set"]) == {"test", "five"} and set(table["seed"]) == {"all"}
    row = table[(table["set"] == "test") & (table["method"] == "mixed_group")
                & (table["level"] == "three") & (table["metric"] == "accuracy")
                & (table["budget"] == 56)].iloc[0]  # fmt: skip
    mine = values(found[0].models, "mixed_group", ("accuracy", 56))[:, :3]
    assert row["estimate"] == pytest.approx(mine.mean())
    removed = study_results.removed(found).set_index(["set", "budget"])
    models = found[0].models
    share = 1 - (values(models, "mixed_group", ("regret", C0)).mean()
                 / values(models, "outcome", ("regret", C0)).mean())  # fmt: skip
    assert removed.loc[("test", C0), "estimate"] == pytest.approx(share)
    equal = study_results.tokens(found, C0)
    assert equal["part"].tolist() == ["short"] and equal["times_fewer"].iloc[0] >= 1


def test_records_are_found_by_part_and_set(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    profile = load_profile("study")
    (profile.runs / "steps").mkdir(parents=True)
    assert study_results.recorded(profile) == []
    for task in measurings(profile):
        run = task.run
        if task.set == "test" and run.part.name in ("base", "short") and run.seed < 3 and (
            run.method in ("base", "outcome")
        ):  # fmt: skip
            labels = {"part": run.part.name, "method": run.method, "seed": run.seed, "set": "test"}
            task.record.write(task.key, [
                {**labels, "level": "three", "problem": f"p{i}", "measure": "regret", "budget": C0,
                 "value": i / 4, "n": 4} for i in range(3)
            ])  # fmt: skip
    (only,) = study_results.recorded(profile)
    assert (only.part, only.set) == ("short", "test")
    assert set(only.models) == {("base", 0), *(("outcome", s) for s in range(3))}
    assert only.models["base", 0]["regret", C0]["three", "p2"] == 0.5


def test_a_level_is_compared_by_its_own_problems(found):
    table = study_results.by_level(found, C0).set_index(["level", "measure"])
    assert set(table["part"]) == {"short"} and set(table["method"]) == {"mixed_group"}
    models, place = found[0].models, ("natural_accuracy", C0)
    gap = values(models, "mixed_group", place) - values(models, "outcome", place)
    for level, mine in (("three", gap[:, :3]), ("four", gap[:, 3:])):
        row = table.loc[level, "natural accuracy"]
        assert row[["estimate", "low", "high"]].tolist() == pytest.approx(
            list(vars(two_way(mine)).values()))  # fmt: skip


def test_a_study_under_way_has_claims_of_what_is_paired(found):
    models = found[0].models
    few = {key: own for key, own in models.items() if key[0] != "mixed_group" or key[1] < 2}
    late = {("mixed_group", s + 2) if m == "mixed_group" else (m, s): own
            for (m, s), own in models.items()}  # fmt: skip
    for models in (few, late):  # two pairs
        under_way = [Found("short", "test", models)]
        assert study_results.tokens(under_way, C0).empty
        claims = verdicts.of_study(under_way[0], C0)
        assert [row["claim"] for row in claims] == [
            "outcome RL has more regret than the base at C0 (short runs)"]  # fmt: skip
        assert {m for m, _ in study_results.comparable(models)} == {"base", "outcome"}
