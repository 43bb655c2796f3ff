r"""Tables for papers, as LaTeX that needs the package booktabs alone.

An estimate stands over its interval, `\stacked{47.6}{[41.1, 54.2]}`. A paper that defines this
command before has it another way, as side by side: `\newcommand{\stacked}[2]{#1 #2}`.
"""

import re
from collections.abc import Sequence
from itertools import groupby

import pandas as pd

from mrtlib.config import LABELS
from mrtlib.evaluation.tables import in_order, number, results_rows, table_lines, written

Cell = str | tuple[str, str]  # a text, or one over another
HEAD = r"""% needs \usepackage{booktabs}; narrower with \setlength{\tabcolsep}{3pt}
\providecommand{\stacked}[2]{\begin{tabular}{@{}c@{}}#1\\[-3pt]{\scriptsize #2}\end{tabular}}"""
WRITTEN = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "\u2212": "$-$", "\u2013": "--",
}  # fmt: skip


def tabular(headings: Sequence[Cell], rows: Sequence[Sequence[Cell] | str]) -> str:
    """Return a table as LaTeX.

    Args:
        rows: of cells, as many as headings; or a text, which heads the rows below it.
    """
    width = len(headings)
    body = [
        [rf"\midrule \multicolumn{{{width}}}{{l}}{{\emph{{{_cell(row)}}}}}", *[""] * (width - 1)]
        if isinstance(row, str) else list(map(_cell, row))
        for row in rows
    ]  # fmt: skip
    table = pd.DataFrame(body, columns=list(map(_cell, headings)))
    text = table.to_latex(index=False, escape=False, column_format="l" + "c" * (width - 1))
    text = text.replace("\\midrule\n\\midrule", "\\midrule")  # a text is the first row
    return f"{HEAD}\n" + re.sub(r"(\\multicolumn.*?)[ &]+\\\\", r"\1 \\\\", text)


def _cell(cell: Cell) -> str:
    """Return a text with all that LaTeX reads otherwise written out; J, K and C0 are symbols."""
    if isinstance(cell, tuple):
        over, under = map(_cell, cell)
        return rf"\stacked{{{over}}}{{{under}}}" if under else over
    text = "".join(WRITTEN.get(char, char) for char in cell)
    return re.sub(r"\b([JK])\b", r"$\1$", text).replace("C0", "$C_0$")


def of_results(table: pd.DataFrame, c0: int) -> str:
    """Return the results table: methods by measures, then the differences to outcome RL."""
    numbers, rows = results_rows(table, c0), []
    for block, lines in groupby(table_lines(numbers), key=lambda line: line[0]):
        if block == "difference":
            rows.append(f"difference to {LABELS['outcome']}, paired")
        rows += [(label, *cells) for _, label, cells in lines]
    headings = [name.partition(" ")[::2] for name in numbers["heading"].unique()]
    return tabular(["method", *headings], rows)


def of_regret_removed(table: pd.DataFrame) -> str:
    """Return `comparison.regret_removed`: methods by budgets, then the same on each level."""
    budgets, rows = table["budget"].unique(), []
    for level, part in table.groupby("level", sort=False):
        if level != "all":
            rows.append(f"level {level}")
        for method in in_order(part["method"]):
            found = part[part["method"] == method].set_index("budget")
            cells = (written(*found.loc[b, ["estimate", "low", "high"]], 1, 100) for b in budgets)
            rows.append((LABELS[method], *cells))
    return tabular(["regret removed (%)", *(f"at {budget} tokens" for budget in budgets)], rows)


def of_tokens_at_equal_accuracy(table: pd.DataFrame) -> str:
    """Return `comparison.tokens_at_equal_accuracy`, a row a method."""
    best = "accuracy (%)", f"best of {LABELS['outcome']}"
    headings = ["method", best, ("tokens", "to reach it"), ("times fewer", "tokens")]
    return tabular(headings, [
        (LABELS[row.method], number(row.accuracy, 1, 100), number(row.tokens, 1),
         written(row.times_fewer, row.low, row.high, 2))
        for row in table.itertuples()
    ])  # fmt: skip


def of_estimator_errors(table: pd.DataFrame) -> str:
    """Return `estimators.errors`: what each estimator of progress costs and is off by."""
    headings = [
        "estimator of progress", ("tokens", "a trace"), ("error", "root mean square"),
        ("expected", "of the draws alone"), ("correlation", "with gold standard"),
    ]  # fmt: skip
    return tabular(headings, [
        (row.way, number(row.tokens, 0), written(row.error, row.low, row.high, 3),
         number(row.predicted, 3), number(row.correlation, 3))
        for row in table.itertuples()
    ])  # fmt: skip


def of_means(table: pd.DataFrame, heading: str) -> str:
    """Return a table of name, estimate, low and high, a row a name."""
    return tabular([heading, ("mean", "95 % interval")], [
        (row.name, written(row.estimate, row.low, row.high, 3)) for row in table.itertuples()
    ])  # fmt: skip


def of_votes(table: pd.DataFrame) -> str:
    """Return `voting.contests`: votes against thinking on, by bucket and place."""
    headings = [
        "votes", ("accuracy (%)", "of the vote"), ("accuracy (%)", "thinking on"),
        ("difference", "points, paired"), ("tokens", "difference"),
    ]  # fmt: skip
    rows = []
    for (bucket, place), part in table.groupby(["bucket", "place"], sort=False):
        rows.append(f"{bucket}, {place}")
        rows += [
            (str(row.votes), number(row.vote, 1, 100), number(row.end, 1, 100),
             written(row.estimate, row.low, row.high, 1, 100, "+"), number(row.tokens, 0, 1, "+"))
            for row in part.itertuples()
        ]  # fmt: skip
    return tabular(headings, rows)
