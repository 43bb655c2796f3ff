"""Tables come out the same on every machine, and those for papers compile."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from mrtlib import regret
from mrtlib.config import load_profile
from mrtlib.evaluation import comparison, latex, results, tables
from mrtlib.evaluation.sweep import load_tables
from mrtlib.experiments import episode_analysis, estimators
from mrtlib.shards import Shards
from mrtlib.store import read_csv, write_csv

TINY = load_profile("tiny")
C0 = TINY.thinking.budget
RUNS = [("base", 0)] + [(m, s) for m in ("outcome", "regret_to_go") for s in (0, 1, 2)]


@pytest.fixture(scope="module")
def kept(records):
    """What seven committed models did on the first 30 problems."""
    found = {(m, s): load_tables(records / "evaluation" / f"{m}-{s}") for m, s in RUNS}
    few = found["base", 0]["rollouts"].groupby("level")["problem"].unique().str[:15].explode()
    return {
        run: {name: rows[rows["problem"].isin(few)] for name, rows in model.items()}
        for run, model in found.items()
    }


def all_tables(kept, order=lambda frame: frame) -> dict[str, pd.DataFrame]:
    """Return the tables of a run by name, computed from rows in another order."""
    found = {
        run: {key: order(values).sort_index(level="level", sort_remaining=False)
              for key, values in metrics.items()}
        for run, metrics in (
            (run, results.metrics_of({n: order(rows) for n, rows in model.items()}, TINY))
            for run, model in kept.items()
        )
    }  # fmt: skip
    return {
        "results": results.results(found),
        "regret_removed": comparison.regret_removed(found, (C0 // 2, C0)),
        "tokens_at_equal_accuracy": comparison.tokens_at_equal_accuracy(found, C0),
        "waste": episode_analysis.waste(order(kept["base", 0]["progress"])),
    }


def texts(made: dict[str, pd.DataFrame], folder) -> dict[str, str]:
    """Return all that is written of the tables, and said, by name."""
    out = {}
    for name, table in made.items():
        write_csv(folder / f"{name}.csv", table)
        out[name] = (folder / f"{name}.csv").read_text()
    return out | papers(made) | {
        "markdown": tables.results_markdown(made["results"], C0),
        "regret": "\n".join(map(comparison.regret_in_words, made["regret_removed"].itertuples())),
        "tokens": "\n".join(
            map(comparison.tokens_in_words, made["tokens_at_equal_accuracy"].itertuples())
        ),
        "shown": "\n".join(tables.rounded(table).to_string() for table in made.values()),
    }


def papers(made: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Return the tables as LaTeX."""
    return {
        "results.tex": latex.of_results(made["results"], C0),
        "regret_removed.tex": latex.of_regret_removed(made["regret_removed"]),
        "tokens_at_equal_accuracy.tex":
            latex.of_tokens_at_equal_accuracy(made["tokens_at_equal_accuracy"]),
        "waste.tex": latex.of_means(made["waste"], "of traces"),
    }  # fmt: skip


def exact_area(J, t, budgets):
    """Return `regret.area` by sums without rounding."""
    def one(budget: float) -> float:
        left = np.maximum(0.0, budget - np.asarray(t)[1:])
        return math.fsum([budget * J[0], *(left * np.diff(J))])

    return np.vectorize(one)(budgets)


def exact_cells(series, index, level):
    """Return `results.by_seed_and_problem` by sums without rounding."""
    rows = (values if level == "all" else values.xs(level, level="level") for values in series)
    return np.array([[math.fsum(v) / len(v) for v in row.reindex(index.index)] for row in rows])


def test_summands_in_another_order_give_the_same_text(kept, tmp_path, monkeypatch):
    here = all_tables(kept)
    pairs = comparison.paired_seeds
    for room in (results, comparison):
        monkeypatch.setattr(room, "paired_seeds", lambda *a: pairs(*a)[::-1])
        monkeypatch.setattr(room, "by_seed_and_problem", exact_cells)
    monkeypatch.setattr(regret, "area", exact_area)
    there = all_tables(kept, lambda frame: frame.sample(frac=1, random_state=0))
    # The numbers do differ: all their digits would show it.
    moved = {name for name in here if here[name].to_csv() != there[name].to_csv()}
    assert moved >= {"results", "regret_removed"}
    assert texts(here, tmp_path) == texts(there, tmp_path)


@pytest.fixture(scope="module")
def written(records, kept):
    """The tables for papers of the committed run, and one with names that LaTeX reads otherwise."""
    made = {name: read_csv(records / f"{name}.csv")
            for name in ("results", "regret_removed", "tokens_at_equal_accuracy")}  # fmt: skip
    made["waste"] = episode_analysis.waste(kept["base", 0]["progress"])
    progress = Shards(records / "estimators" / "progress", "progress").read_all()
    errors = estimators.errors(progress, {str(k): 100.0 * k for k in progress["answers"]})
    nasty = made["regret_removed"].replace({"level": {"four": "a_b & 50 % {#1} ~ ^ \\ $"}})
    never = made["tokens_at_equal_accuracy"].assign(tokens=math.inf, times_fewer=0.0, low=math.nan)
    return papers(made) | {
        "errors": latex.of_estimator_errors(errors),
        "votes": latex.of_votes(read_csv(records / "tables" / "votes.csv")),
        "nasty": latex.of_regret_removed(nasty), "never": latex.of_tokens_at_equal_accuracy(never),
    }  # fmt: skip


def faults(text: str) -> list[str]:
    """Return what plain LaTeX with booktabs would stumble over in a table."""
    found = [] if text.isascii() else ["a letter that plain LaTeX lacks"]
    comment, command, begin, *lines, end = text.splitlines()
    [form] = re.findall(r"^\\begin\{tabular\}\{([lc]+)\}$", begin)
    if (comment[0], end) != ("%", r"\end{tabular}") or "providecommand{\\stacked}" not in command:
        found.append("head or foot")
    bare = re.sub(r"\\[&%$#_{}\\]", "", "\n".join(lines))  # without what is written out
    if bare.count("{") != bare.count("}") or bare.count("$") % 2:
        found.append("something is left open")
    if re.search(r"[%#_~^]", re.sub(r"\$[^$]*\$", "", bare)):
        found.append("a character that means something else")
    rows = [line for line in lines if not re.fullmatch(r"\\(top|mid|bottom)rule", line)]
    for row in rows:
        cells = len(re.findall(r"(?<!\\)&", row)) + 1
        whole = row.startswith(rf"\midrule \multicolumn{{{len(form)}}}{{l}}")
        if not row.endswith(r" \\") or cells != (1 if whole else len(form)):
            found.append(f"cells of {row}")
    return found


def test_tables_for_papers_have_the_form_of_latex(written):
    assert {name: faults(text) for name, text in written.items()} == dict.fromkeys(written, [])
    assert r"level a\_b \& 50 \% \{\#1\} \textasciitilde{}" in written["nasty"]
    assert written["never"].count("& -- & 0.00 ") == 3  # neither tokens nor an interval


def test_the_check_of_the_form_can_fail(written):
    text = written["regret_removed.tex"]
    for old, new in ((r"\%", "%"), ("$-$", "\u2212"), ("{[", "{{["), (r"} \\", "}"), (" & ", " "),
                     ("level four", "level_four"), ("\n\\end{tabular}", "")):  # fmt: skip
        assert old in text and faults(text.replace(old, new, 1)), old


def test_the_paper_says_what_the_table_says(records, written):
    rows = tables.results_rows(read_csv(records / "results.csv"), C0)
    own, paired = written["results.tex"].split("difference to outcome RL, paired")
    for row in rows.itertuples():
        cell = rf"\stacked{{{row.text}}}{{{row.interval}}}".replace("\u2212", "$-$")
        assert cell in (own if row.block == "method" else paired)
    assert rows["text"].isin(["+5.8"]).any() == (r"\stacked{+5.8}" in paired)


def test_an_end_that_is_not_zero_is_not_written_as_zero():
    ends = [tables.written(-2.9, -5.7, -0.02, 1)[1], tables.written(2.9, 0.0, 5.9, 1)[1]]
    assert ends == ["[\u22125.70, \u22120.02]", "[0.0, 5.9]"]
    assert tables.said({"estimate": 0.0052, "low": 0.004, "high": 0.0064}) == "0.005 [0.004, 0.006]"
    assert tables.said({"estimate": 0.5, "low": float("nan"), "high": 1.0}) == "0.50 [nan, 1.00]"


def test_a_table_of_objects_is_rounded():
    table = pd.DataFrame({"low": pd.Series([0.12345, 0.5], dtype=object), "name": ["a", "b"]})
    assert tables.rounded(table, 2)["low"].tolist() == [0.12, 0.5]


def test_what_rounds_to_zero_has_no_sign():
    assert tables.said({"estimate": -0.004, "low": -1.0, "high": -0.0}) == "0.00 [-1.00, 0.00]"
    assert tables.written(-4e-6, -1e-17, 4e-6, 1, 100) == ("0.000", "[0.000, 0.000]")
    assert tables.number(-0.5, 2) == "\u22120.50"
    shown = tables.rounded(pd.DataFrame({"x": [-4e-4, -1e-17], "name": ["a", "b"], "n": [1, 0]}))
    assert "-" not in shown.to_string() and shown["n"].dtype == int
    assert tables.small(3e-16, 1e-9) == "below 1e-09" and tables.small(2e-9, 1e-9) == "2.0e-09"


def test_levels_stand_side_by_side(records):
    table = read_csv(records / "results.csv")
    shown = tables.by_level(table, ["natural_accuracy", "regret"], C0)
    assert list(shown.columns)[-1] == "all"
    level = shown.columns[0]
    rows = table.set_index(["metric", "method", "budget", "seed", "level"])
    row = rows.loc[("regret", "outcome", C0, "all", level)]
    assert shown.loc[("regret", "outcome"), level] == tables.said(row)
    metrics = list(dict.fromkeys(metric for metric, _ in shown.index))
    assert metrics == ["natural_accuracy", "diff_to_outcome_natural_accuracy",
                       "regret", "diff_to_outcome_regret"]  # fmt: skip


def test_differences_stand_in_one_table_in_the_order_in_which_they_come():
    rows = [("long", "b", 56, 0.04, 0.02, 0.06), ("long", "b", 224, -0.032, -0.055, -0.0004),
            ("long", "a", 56, 0.1, -0.2, 0.4)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["part", "method", "budget", "estimate", "low", "high"])
    shown = tables.in_points(table, ["part", "method"], ["budget"])
    assert shown.index.tolist() == [("long", "b"), ("long", "a")]
    assert shown.columns.tolist() == [56, 224]
    assert shown.loc[("long", "b"), 224] == "\u22123.20 [\u22125.50, \u22120.04]"
    assert shown.loc[("long", "a"), 224] == ""
    one = tables.in_points(table[table["method"] == "a"], ["method"], ["part", "budget"])
    assert one.to_dict() == {("long", 56): {"a": "+10.0 [\u221220.0, 40.0]"}}
