"""What was expected is read from intervals and bounds, whichever way the study came out."""

import numpy as np
import pytest
from test_study_results import C0, LEVELS, made
from test_verdicts import models

from mrtlib.evaluation.comparison import times_fewer
from mrtlib.experiments import expectations, verdicts
from mrtlib.experiments.study_results import Found
from mrtlib.stats import fieller, ratio

BUDGETS = (56, C0)  # at which accuracy is measured in `made`


def said(table) -> dict[str, str]:
    return dict(zip(table["expectation"], table["verdict"], strict=True))


@pytest.mark.parametrize(("shift", "verdict"), [(0.15, "confirmed"), (-0.15, "refuted")])
def test_expectations_are_confirmed_or_refuted_by_their_intervals(shift, verdict):
    table = expectations.expectations([Found("long", "test", models(shift))], C0)
    mine = said(table)
    assert mine["regret of outcome RL removed at C0"] == verdict
    assert mine["regret of outcome RL removed at C0, by a tenth"] == verdict
    assert mine["regret of outcome RL removed at 4 C0"] == verdict
    assert mine["regret of outcome RL removed at 2 C0"] == "not run yet"
    assert mine["regret of length_penalty removed at C0"] == "not run yet"
    own = table[(table["method"] == "mixed_group") & (table["verdict"] != "not run yet")]
    assert set(own["part"]) == {"long"} and set(own["seeds"]) == {4}
    assert tuple(table.columns) == expectations.COLUMNS
    lines = expectations.markdown(table).splitlines()
    assert len(lines) == 2 + len(table)
    row = next(line for line in lines if "removed at C0, by a tenth" in line)
    assert row.startswith("| long, 4 seeds | mixed_group |")
    assert row.endswith(f"| 0.1 | {verdict} |")
    assert "| regret of length_penalty removed at C0 |  |  | not run yet |" in lines[-2]


@pytest.mark.parametrize(("without", "seeds"), [([2], 3), ([1, 2], 0)])
def test_what_lies_beyond_the_budget_names_the_seeds_that_were_measured_there(without, seeds):
    found = models(0.15)
    for seed in without:  # of four
        del found["mixed_group", seed]["regret", 4 * C0]
    table = expectations.expectations([Found("long", "test", found)], C0)
    row = table.set_index("expectation").loc["regret of outcome RL removed at 4 C0"]
    assert row["seeds"] == seeds and row["verdict"] == ("confirmed" if seeds else "not run yet")


def test_a_rival_of_the_same_length_of_run_is_compared_seed_by_seed():
    both = made({"base": -0.1, "outcome": 0.0, "mixed_group": 0.1, "length_penalty": -0.1})
    for metrics in both.values():
        metrics["regret", 4 * C0] = metrics["regret", C0]
    table = expectations.expectations([Found("middle", "test", both)], C0)
    name = "regret of length_penalty removed at C0"
    row = table.set_index("expectation").loc[name]
    ours, rival = (np.array([[float(v[0]) for v in both[m, s]["regret", C0]] for s in range(4)])
                   for m in ("mixed_group", "length_penalty"))  # fmt: skip
    want = ratio(ours, rival, np.array(LEVELS))
    assert row["measured"] == pytest.approx(1 - want.estimate)
    assert (row["low"], row["high"]) == pytest.approx((1 - want.high, 1 - want.low))
    assert row["verdict"] == "confirmed"
    assert said(table)["regret of budget_relative removed at C0"] == "not run yet"
    assert f"{name}, by a tenth" in said(table)
    at = {budget: said(table)[f"regret of length_penalty removed at {budget}"]
          for budget in ("4 C0", "2 C0")}  # fmt: skip
    assert at == {"4 C0": "confirmed", "2 C0": "not run yet"}  # measured at one of them alone


def test_tokens_of_the_base_stand_against_every_seed():
    found = made({"base": -0.1, "outcome": 0.0, "mixed_group": 0.15})
    seeds, places = range(4), [("accuracy", b) for b in BUDGETS]
    ours, base = (
        np.array([[[float(v[0]) for v in found[m, 0 if m == "base" else s][place]] for s in seeds]
                  for place in places])
        for m in ("mixed_group", "base")
    )  # fmt: skip
    used = [b / 2 for b in BUDGETS]
    want = times_fewer(used, ours, base, np.array(LEVELS), used)
    got = expectations.fewer_tokens(found, "mixed_group", "base", C0)
    assert got == pytest.approx(tuple(vars(want).values())) and got[0] > 0
    worse = models(-0.3)
    assert expectations.fewer_tokens(worse, "mixed_group", "base", C0) == (0.0, 0.0, 0.0)


def test_gains_on_the_hard_level_are_of_its_problems_alone():
    found = made({"base": -0.3, "outcome": 0.0, "mixed_group": 0.15})
    place, hard = ("natural_accuracy", C0), [i for i, level in enumerate(LEVELS) if level == "four"]
    ours, other, base = (
        np.array([[float(v[0]) for v in found[m, s][place]] for s in seeds])[:, hard]
        for m, seeds in (("mixed_group", range(4)), ("outcome", range(4)), ("base", [0]))
    )
    want = fieller(ours - base, other - base, np.array(["four"] * len(hard)))
    table = expectations.expectations([Found("long", "test", found)], C0)
    row = table.set_index("expectation").loc["gain over the base to outcome RL's, on `four`"]
    assert row[["measured", "low", "high"]].tolist() == pytest.approx(list(vars(want).values()))
    assert row["measured"] != pytest.approx(verdicts.gains(found, "mixed_group", C0)[0])


def test_a_study_of_other_problems_has_no_expectation_of_its_levels():
    found = models(0.15)
    for metrics in found.values():
        for place, values in metrics.items():
            index = values.index.set_levels(["hard", "easy"], level="level")
            metrics[place] = values.set_axis(index)
    table = expectations.expectations([Found("long", "test", found)], C0)
    assert not table["expectation"].str.contains("four").any() and len(table) > 5


def test_there_is_no_ratio_of_gains_where_outcome_rl_may_have_gained_nothing():
    found = made({"base": 0.0, "outcome": 0.0, "mixed_group": 0.3})
    for metrics in found.values():
        metrics["regret", 4 * C0] = metrics["regret", C0]
    table = expectations.expectations([Found("long", "test", found)], C0)
    row = table.set_index("expectation").loc["gain over the base to outcome RL's, on `four`"]
    assert np.isnan(row["measured"]) and row["verdict"] == verdicts.UNTESTED


def test_without_records_nothing_is_claimed():
    table = expectations.expectations([], C0)
    assert set(table["verdict"]) == {"not run yet"} and len(table) == len(expectations.RIVALS)
