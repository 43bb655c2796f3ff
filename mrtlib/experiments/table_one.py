"""The paper's Table 1 with our numbers, and the paper's own beside it, clearly apart.

Ours are of another model, other problems and another budget: what compares is the shape, not a
number.
"""

import numpy as np
import pandas as pd

from mrtlib.config import LABELS, ROOT
from mrtlib.evaluation.comparison import Models
from mrtlib.evaluation.results import by_seed_and_problem, level_names, level_of_each
from mrtlib.evaluation.tables import written
from mrtlib.stats import proportion, two_way
from mrtlib.store import read_csv

THEIRS = ROOT / "data" / "paper" / "table1.csv"
AVERAGE = "average"


def ours(models: Models, c0: int) -> pd.DataFrame:
    """Return natural accuracy at C0 by level and on average, and the average's gain over the base.

    Args:
        models: the measures of each (method, seed), the base among them.

    Returns:
        method, column (a level, "average" or "gain"), estimate, low, high. A gain is paired over
        problems; the base has no training seeds and stands against each of them.
    """
    place, rows = ("natural_accuracy", c0), []
    base = models["base", 0][place]
    for method in dict.fromkeys(method for method, _ in models):
        series = [models[key][place] for key in sorted(models) if key[0] == method]
        values = by_seed_and_problem(series, base, "all")
        levels = level_of_each(base)
        found = {level: proportion(values[:, levels == level]) for level in level_names(base)}
        found[AVERAGE] = proportion(values, levels)
        if method != "base":
            start = by_seed_and_problem([base] * len(series), base, "all")
            found["gain"] = two_way(values - start, levels)
        rows += [{"method": method, "column": name, **interval.row()}
                 for name, interval in found.items()]  # fmt: skip
    return pd.DataFrame(rows)


def theirs() -> pd.DataFrame:
    """Return the paper's numbers in percent, with the gain of each average over its base."""
    table = read_csv(THEIRS)
    first = table.groupby(["base", "source"], sort=False)[AVERAGE].transform("first")
    gain = np.where(table["method"] == "base", np.nan, table[AVERAGE] - first)
    return table.assign(gain=gain)


def markdown(table: pd.DataFrame, name: str) -> str:
    """Return our table and the paper's as Markdown, one below the other.

    Args:
        table: from `ours`.
        name: of our model and problems.
    """
    cells = table.set_index(["method", "column"])
    columns = list(dict.fromkeys(table["column"]))
    lines = [f"**Ours**: {name}; natural accuracy at C0 in percent, 95 % intervals.", "",
             _row(["", *columns]), _row([":--", *["--:"] * len(columns)])]  # fmt: skip
    for method in dict.fromkeys(table["method"]):
        shown = [_cell(cells.loc[(method, c)], c == "gain") if (method, c) in cells.index else ""
                 for c in columns]  # fmt: skip
        lines.append(_row([LABELS.get(method, method), *shown]))
    return "\n".join([*lines, "", *_theirs_in_words()]) + "\n"


def _theirs_in_words() -> list[str]:
    table = theirs()
    names = [c for c in table.columns if c not in ("base", "method", "source")]
    lines = ["**The paper's**: other models, problems and budgets; pass@1 in percent, without "
             "intervals, as printed.", "", _row(["base model", "", *names, "source"]),
             _row([":--", ":--", *["--:"] * len(names), ":--"])]  # fmt: skip
    for row in table.to_dict("records"):
        numbers = [f"{row[n]:.1f}" for n in names[:-1]]
        gain = "" if np.isnan(row["gain"]) else f"{row['gain']:+.1f}"
        lines.append(_row([row["base"], row["method"], *numbers, gain, row["source"]]))
    return lines


def _cell(found: pd.Series, signed: bool) -> str:
    return " ".join(written(*found[["estimate", "low", "high"]], 1, 100, "+" if signed else ""))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
