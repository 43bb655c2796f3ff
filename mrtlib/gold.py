"""The same progress measured by every estimator, against a gold standard of many answers.

On some recorded traces of the base: K answers at each boundary for several K, each drawn anew, and
256 more that stand for the truth. J comes exact from the evaluation's records.
"""

import time

import numpy as np
import pandas as pd

from mrtlib import prover
from mrtlib.answers import LABELS, probe_of, problems_by_id
from mrtlib.config import Profile
from mrtlib.estimators import EXACT, sampled_name
from mrtlib.evaluate import Evaluator
from mrtlib.findings import TRACE, by_problem
from mrtlib.passes import counted
from mrtlib.problems import Problem, grade
from mrtlib.self_check import obstacle
from mrtlib.stats import root_mean_square
from mrtlib.store import Shards, read_json, work_key, write_json

ANSWERS = (1, 2, 4, 8, 16)
GOLD = 256


def measure(profile: Profile, rollouts: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, dict]:
    """Measure J of recorded rollouts of the base with each number of answers; or read it.

    Args:
        rollouts: records of the base, as `answers.subset` gives them.

    Returns:
        Rows of the `progress` schema, `answers` telling the estimators apart; and the tokens that
        a trace cost each way, by number of answers, "0" being exact.
    """
    folder = profile.runs / "estimators"
    shards, key = Shards(folder / "progress", "progress"), _key(profile, rollouts, seed)
    if not shards.has(key):
        evaluator = Evaluator.load(profile, "base", 0, None)
        obstacle(evaluator.model)  # tried once; its tokens are no part of the cost
        rows, cost, began = [], {}, time.monotonic()
        for k in (0, *ANSWERS, GOLD):
            found, cost[str(k)] = _measure(evaluator, rollouts, k, seed)
            rows += found
            print(f"J with {k or 'no'} answers a boundary: {time.monotonic() - began:.0f} s",
                  flush=True)  # fmt: skip
        write_json(folder / f"cost-{key}.json", cost)
        shards.write(key, rows)
    return shards.read([key]), read_json(folder / f"cost-{key}.json")


def _measure(
    evaluator: Evaluator, rollouts: pd.DataFrame, k: int, seed: int
) -> tuple[list[dict], float]:
    """Return the rows of one estimator, and the tokens through the model for a trace."""
    profile, known = evaluator.profile, problems_by_id(evaluator.profile)
    records = rollouts.to_dict("records")
    problems = [known[row["problem"]] for row in records]
    probes = [probe_of(evaluator.reader, row, problem)
              for row, problem in zip(records, problems, strict=True)]  # fmt: skip
    settings, ending = profile.prover, evaluator.termination
    with counted(evaluator.model) as fed:
        if k:
            measured = _sampled(evaluator, probes, problems, k, seed)
        else:
            measured = prover.exact_for(evaluator.model)(
                evaluator.model, probes, ending, settings.temperature, settings.pack_tokens
            )
    rows = [
        record
        for row, probe, values in zip(records, probes, measured, strict=True)
        for record in prover.records({name: row[name] for name in LABELS}, probe, values)
    ]
    return rows, sum(fed) / len(probes)


def _sampled(
    evaluator: Evaluator, probes: list[prover.Probe], problems: list[Problem], k: int, seed: int
) -> list[prover.Counts]:
    profile, reader = evaluator.profile, evaluator.reader
    return prover.sampled(
        evaluator.sampler, probes, problems, evaluator.termination, grade,
        answers=k, max_tokens=profile.thinking.answer_tokens,
        temperature=profile.prover.temperature, top_p=1.0,
        stop_ids=reader.end_ids, seed=1000 * seed + k,
    )  # fmt: skip


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return progress by the gold standard beside each estimator's: TRACE, j, answers, ...

    Columns also: gold, progress (the estimator's), doubt (the variance that the gold standard's own
    draws leave in it) and spread (the variance that K answers must show).
    """
    table = table.sort_values([*TRACE, "answers", "j"])
    part = table.assign(noise=table["J"] * (1 - table["J"]))
    part["both"] = part["noise"] + part.groupby([*TRACE, "answers"])["noise"].shift()
    part = part[part["j"] > 0]
    gold = part[part["answers"] == GOLD].rename(columns={"progress": "gold"})
    exact = part[part["answers"] == 0].rename(columns={"both": "true"})
    found = part[part["answers"] != GOLD].merge(gold[[*TRACE, "j", "gold"]], on=[*TRACE, "j"])
    found = found.merge(exact[[*TRACE, "j", "true"]], on=[*TRACE, "j"])
    return found.assign(
        doubt=found["true"] / GOLD, spread=found["true"] / found["answers"].clip(lower=1)
    )[[*TRACE, "j", "answers", "gold", "progress", "doubt", "spread"]]


def errors(table: pd.DataFrame, cost: dict[str, float]) -> pd.DataFrame:
    """Return what each estimator's progress is off by, and its price: a row an estimator.

    Columns: way, answers, tokens (through the model, of a trace), error (root mean square from the
    gold standard) with low and high over problems, floor (what the gold standard's own draws make
    of it), predicted (floor and K draws together), correlation with the gold standard.
    """
    rows = []
    for k, part in compared(table).groupby("answers"):
        off = part.assign(square=(part["progress"] - part["gold"]) ** 2)
        error, low, high = vars(root_mean_square(*by_problem(off, "square"))).values()
        # Each problem counts once, as in the error, however many boundaries its trace has.
        doubt, spread = part.groupby("problem")[["doubt", "spread"]].mean().mean()
        rows.append({
            "way": sampled_name(k) if k else EXACT, "answers": k, "tokens": cost[str(k)],
            "error": error, "low": low, "high": high, "floor": float(np.sqrt(doubt)),
            "predicted": float(np.sqrt(doubt + (spread if k else 0.0))),
            "correlation": part["progress"].corr(part["gold"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def needed(table: pd.DataFrame, cost: dict[str, float]) -> tuple[float, float]:
    """Return what sampled J takes to be as good as exact J: answers, and times exact J's tokens.

    Both are lower bounds at 97.5 %: what the gold standard cannot tell from its own noise is
    counted as an error of exact J, up to the end of its interval, and no more than the answers of
    the gold standard are ever said to be needed. Tokens are a straight line in the answers.

    Args:
        table: from `errors`.
    """
    rows = table.set_index("answers")
    one = rows.loc[1, "predicted"] ** 2 - rows.loc[1, "floor"] ** 2
    left = max(rows.loc[0, "high"] ** 2 - rows.loc[0, "floor"] ** 2, one / GOLD)
    each = (cost[str(GOLD)] - cost["1"]) / (GOLD - 1)
    return one / left, (cost["1"] + each * (one / left - 1)) / cost["0"]


def words(table: pd.DataFrame, cost: dict[str, float]) -> str:
    """Return what the comparison says, with its numbers: Markdown."""
    rows = table.set_index("answers")
    exact, (answers, times) = rows.loc[0], needed(table, cost)
    near = min(ANSWERS, key=lambda k: abs(rows.loc[k, "tokens"] - exact["tokens"]))
    other = rows.loc[near]
    own = "an error of its own" if exact["low"] > exact["floor"] else "no error of its own"
    limit = ", the most that this gold standard could show" if answers >= GOLD - 0.5 else ""
    return (
        f"Exact progress lies {exact['error']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}] from "
        f"the gold standard of {GOLD} answers, whose noise alone makes {exact['floor']:.3f}: {own} "
        f"is seen (correlation {exact['correlation']:.3f}). Sampled progress at about its cost, "
        f"K = {near} with {other['tokens'] / exact['tokens']:.2f} times the tokens, lies "
        f"{other['error']:.2f} [{other['low']:.2f}, {other['high']:.2f}] from it (correlation "
        f"{other['correlation']:.2f}). To be as good as exact, sampling takes at least "
        f"{answers:.0f} answers a boundary, and {times:.0f} times the tokens of exact J{limit}."
    )


def claims(table: pd.DataFrame, cost: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """Return what notebook 02 claims of the instruments on `tiny`, as rows for `checked`."""
    rows = table.set_index("answers")
    return [
        ("exact progress off by more than the gold standard's noise, lower end",
         rows.loc[0, "low"] - rows.loc[0, "floor"], -np.inf, 0.0),
        ("correlation of exact progress with the gold standard",
         rows.loc[0, "correlation"], 0.98, 1.0),
        ("times the tokens of exact J that sampling takes for its error",
         needed(table, cost)[1], 5.0, np.inf),
    ]  # fmt: skip


def _key(profile: Profile, rollouts: pd.DataFrame, seed: int) -> str:
    return work_key(
        rollouts=[[int(i) for i in ids] for ids in rollouts["token_ids"]],
        problems=rollouts["problem"].tolist(), thinking=repr(profile.thinking),
        prover=repr(profile.prover), model=profile.model.name, seed=seed,
        answers=[*ANSWERS, GOLD],
    )  # fmt: skip
