"""A claim's verdict follows from its interval and its bound, and from nothing else."""

import math

import numpy as np
import pandas as pd
import pytest
from test_study_reach import reached
from test_study_results import C0, made
from test_study_votes import voted

from mrtlib.config import load_profile
from mrtlib.experiments import study_reach, verdicts
from mrtlib.experiments.study_results import Found
from mrtlib.stats import fieller, ratio

PLACES = ("tokens", C0), ("regret", 4 * C0)


def models(shift: float) -> dict:
    """Return measures in which MRT is better than outcome RL by a shift, for good or ill."""
    found = made({"base": -0.1, "outcome": 0.0, "mixed_group": shift})
    for metrics in found.values():
        regret = metrics["regret", C0]
        metrics["tokens", C0], metrics["regret", 4 * C0] = regret.map(lambda v: 100 * v), regret
    return found


@pytest.mark.parametrize(
    ("low", "high", "bound", "expected"),
    [
        (0.1, 0.3, 0.0, "reproduced"),
        (-0.3, -0.1, 0.0, "not reproduced"),
        (-0.1, 0.3, 0.0, "not decided"),
        (1.1, 1.5, 1.6, "not reproduced"),
        (0.0, 0.3, 0.0, "not decided"),
        (math.nan, 0.3, 0.0, "cannot be tested at this scale"),
    ],
)
def test_a_verdict_is_that_of_the_interval(low, high, bound, expected):
    assert verdicts.verdict(low, high, bound) == expected


@pytest.mark.parametrize(("shift", "expected"), [(0.15, "reproduced"), (-0.15, "not reproduced")])
def test_the_study_is_read_whichever_way_it_came_out(shift, expected):
    rows = pd.DataFrame(verdicts.of_study(Found("long", "test", models(shift)), C0))
    said = rows.set_index(rows["claim"].str.partition(" (")[0])["verdict"]
    assert said["less regret than outcome RL at C0"] == expected
    assert said["less regret than outcome RL at 4 C0, by extrapolation"] == expected
    assert said["thinking is not longer than outcome RL's"] == expected
    assert said["outcome RL has more regret than the base at C0"] == "not reproduced"
    assert rows["claim"].str.contains("long runs").all()


@pytest.mark.parametrize(
    ("without", "verdict"),
    [([], "4 seeds, reproduced"), ([("outcome", 2)], "3 seeds, reproduced"),
     ([("outcome", 2), ("outcome", 3)], "not run yet"),
     ([("outcome", 2), ("mixed_group", 3)], "not run yet")],  # three each, and two pairs
)  # fmt: skip
def test_what_lies_beyond_the_budget_is_of_the_pairs_measured_there(without, verdict):
    found = models(0.15)
    for run in without:  # of four seeds
        del found[run]["regret", 4 * C0]
    rows = pd.DataFrame(verdicts.of_study(Found("long", "test", found), C0))
    rows = rows.set_index(rows["claim"].str.partition(" (")[0])
    row = rows.loc["less regret than outcome RL at 4 C0, by extrapolation"]
    assert row["verdict"] == verdict.rpartition(", ")[2]
    assert verdict.rpartition(", ")[0] in row["claim"]
    assert rows.loc["less regret than outcome RL at C0", "verdict"] == "reproduced"


def test_length_and_regret_while_training_are_ratios_to_the_base():
    found = models(0.15)
    for metrics in found.values():
        metrics["tokens", C0] = metrics["tokens", C0].map(lambda v: v + 50)
    found["mixed_group", 9] = found["base", 0]  # a seed without its pair
    regret, long = verdicts.while_training(found, "mixed_group", C0, "here")
    for row, name in ((regret, "regret"), (long, "tokens")):
        own, base = (np.array([[float(v[0]) for v in found[m, s][name, C0]] for s in seeds])
                     for m, seeds in (("mixed_group", range(4)), ("base", [0] * 4)))  # fmt: skip
        want = ratio(own, base, np.array(["three"] * 3 + ["four"] * 3))
        ends = (1 - want.estimate, 1 - want.high, 1 - want.low) if name == "regret" else (
            want.estimate, want.low, want.high)  # fmt: skip
        assert [row[n] for n in ("measured", "low", "high")] == pytest.approx(list(ends))
    assert regret["verdict"] == "reproduced" and long["bound"] == 0.95


def test_gains_over_the_base_are_a_ratio_of_paired_means():
    found = models(0.15)
    place = "natural_accuracy", C0
    values = {m: np.array([[float(v[0]) for v in found[m, s][place]]
                           for s in range(1 if m == "base" else 4)])
              for m in ("base", "outcome", "mixed_group")}  # fmt: skip
    want = fieller(values["mixed_group"] - values["base"], values["outcome"] - values["base"],
                 np.array(["three"] * 3 + ["four"] * 3))  # fmt: skip
    assert verdicts.gains(found, "mixed_group", C0) == pytest.approx(
        (want.estimate, want.low, want.high))  # fmt: skip
    assert verdicts.gains(found, "outcome", C0)[0] == pytest.approx(1.0)


def test_every_claim_has_a_row_whatever_is_on_record():
    profile = load_profile("study")
    none = verdicts.claims(profile, [])
    assert tuple(none.columns) == verdicts.COLUMNS
    assert (none["verdict"] == "not run yet").sum() == len(verdicts.REST)
    assert none["claim"].is_unique and none["command"].str.len().min() > 5
    some = verdicts.claims(profile, [
        Found("short", "test", models(-0.15)), Found("long", "test", models(0.15)),
        Found("long", "five", models(-0.15)),
    ])  # fmt: skip
    assert len(some) > len(none) and some["claim"].is_unique
    said = some.set_index("claim")["verdict"]  # each length of run by itself, on the test problems
    name = "less regret than outcome RL at C0 (share removed; {} runs, 4 seeds, mixed_group)"
    assert said[name.format("long")] == "reproduced"
    assert said[name.format("short")] == "not reproduced"
    left = verdicts.without_short(some)["claim"]
    assert name.format("long") in set(left) and not left.str.contains("short runs").any()
    assert len(left) < len(some) and len(verdicts.without_short(none)) == len(none)


def test_a_constant_bonus_is_read_from_the_checks_of_its_notebook(monkeypatch):
    real = verdicts._table
    claimed = "a constant bonus for right answers leaves GRPO as it is"
    [row] = [r for r in verdicts.of_tiny() if r["claim"].startswith(claimed)]
    assert row["verdict"] == "reproduced" and 0 < row["measured"] <= 0.001

    def worse(profile: str, name: str) -> pd.DataFrame:
        table = real(profile, name)
        return table.assign(value=0.1) if "claims" in name else table

    monkeypatch.setattr(verdicts, "_table", worse)
    [row] = [r for r in verdicts.of_tiny() if r["claim"].startswith(claimed)]
    assert row["verdict"] == "not reproduced"


def test_claims_of_votes_are_of_the_forms_of_mrt():
    votes = voted({"base": 0.1, "outcome": 0.3, "mixed_group": 0.65, "final_progress": 0.5})
    [row] = verdicts.of_votes("long", votes)
    assert "long runs, 3 seeds, mixed_group" in row["claim"] and row["verdict"] == "reproduced"
    assert verdicts.of_votes("", {}) == []


def test_a_method_of_the_rest_is_compared_where_its_rival_is_beside_it():
    runs = {"base": -0.1, "outcome": 0.0, "length_penalty": -0.15, "star": 0.0}
    found = made({**runs, "mrt_star_keep": 0.15, "mrt_star_cut": -0.15})
    del found["mrt_star_cut", 0], found["star", 1]  # of four seeds each: two pairs are left
    rows = pd.DataFrame(verdicts.of_rest([Found("middle", "test", found)], C0))
    penalty, curriculum, kept, cut = rows.itertuples()
    assert penalty.verdict == "reproduced" and "(middle runs, 4 seeds)" in penalty.claim
    assert curriculum.verdict == cut.verdict == "not run yet"
    assert kept.verdict == "reproduced" and "(middle runs, 3 seeds)" in kept.claim
    ours = verdicts.difference(found, "mrt_star_keep", "regret", C0, other="star")
    assert kept.measured == pytest.approx(-ours["estimate"])


@pytest.mark.parametrize(("share", "expected"), [(0.1, "reproduced"), (0.5, "not reproduced")])
def test_what_could_be_reached_is_claimed_of_the_papers_form_at_the_largest_budget(share, expected):
    models = reached({"base": 0.1, "outcome": 0.3, "mixed_group": share})
    table = study_reach.differences(models)
    [claim] = verdicts.of_reach(table)
    last = table[(table["method"] == "mixed_group") & (table["budget"] == 8)].iloc[0]
    assert claim["verdict"] == expected and "3 seeds, mixed_group" in claim["claim"]
    assert [claim[name] for name in ("measured", "low", "high")] == [
        -last["estimate"], -last["high"], -last["low"]]  # fmt: skip
    assert verdicts.of_reach(study_reach.differences({})) == []
