"""Table 1: our gains by hand on a small case, the paper's as printed, and the two kept apart."""

import numpy as np
import pandas as pd
import pytest

from mrtlib.experiments import table_one

PLACE = ("natural_accuracy", 224)
INDEX = pd.MultiIndex.from_product([["easy", "hard"], list("abcd")], names=["level", "problem"])


def measured(*values: float) -> dict:
    """Return the measures of one model, a value for each of eight problems."""
    return {PLACE: pd.Series([np.array([v]) for v in values], INDEX)}


MODELS = {
    ("base", 0): measured(1, 1, 0, 0, 0, 0, 0, 0),
    ("outcome", 0): measured(1, 1, 1, 0, 0, 0, 0, 0),
    ("outcome", 1): measured(1, 1, 0, 0, 1, 0, 0, 0),
    ("regret_to_go", 0): measured(1, 1, 1, 1, 1, 0, 0, 0),
    ("regret_to_go", 1): measured(1, 1, 1, 1, 1, 1, 0, 0),
}


def test_our_numbers_are_means_by_level_and_paired_gains():
    table = table_one.ours(MODELS, 224).set_index(["method", "column"])["estimate"]
    assert table["base", "easy"] == 0.5 and table["base", "average"] == 0.25
    assert table["outcome", "easy"] == 0.625 and table["outcome", "gain"] == pytest.approx(1 / 8)
    assert table["regret_to_go", "gain"] == pytest.approx((3 + 4) / 2 / 8)
    assert ("base", "gain") not in table.index


def test_an_interval_holds_its_estimate():
    table = table_one.ours(MODELS, 224)
    assert ((table["low"] <= table["estimate"]) & (table["estimate"] <= table["high"])).all()


def test_the_paper_s_numbers_are_as_printed():
    table = table_one.theirs()
    benchmarks = ["AIME24", "AIME25", "AMC23", "MinervaMATH", "MATH500"]
    # Averages are printed with one or two digits, of numbers with as many.
    assert (table[benchmarks].mean(axis=1) - table["average"]).abs().max() < 0.11
    mrt = table[(table["method"] == "MRT") & table["source"].str.contains("table 1")]
    assert mrt["gain"].round(1).tolist() == [1.4, 2.2]
    grpo = table[table["method"].str.contains("GRPO") & table["source"].str.contains("table 1")]
    assert grpo["gain"].round(1).tolist() == [0.5, 1.1]


def test_ours_and_theirs_stand_apart():
    text = table_one.markdown(table_one.ours(MODELS, 224), "toy")
    mine, paper = text.split("**The paper's**")
    assert "AIME" not in mine and "MATH500" in paper
    assert "regret-to-go" in mine and "+43.8 [" in mine
    assert "regret-to-go" not in paper and "arXiv 2503.07572" in paper
