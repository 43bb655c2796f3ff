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
from mrtlib.findings import DRAWS, TRACE
from mrtlib.passes import counted
from mrtlib.problems import Problem, grade
from mrtlib.stats import bootstrap
from mrtlib.store import Shards, content_key, read_json, write_json

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
        evaluator.sampler, probes, problems, evaluator.termination, grade, reader.decode,
        answers=k, max_tokens=profile.thinking.answer_tokens,
        temperature=profile.prover.temperature, top_p=1.0,
        stop_ids={reader.tokenizer.eos_token_id}, seed=1000 * seed + k,
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


def errors(
    table: pd.DataFrame, cost: dict[str, float], rng: np.random.Generator
) -> pd.DataFrame:
    """Return what each estimator's progress is off by, and its price: a row an estimator.

    Columns: way, answers, tokens (through the model, of a trace), error (root mean square from the
    gold standard) with low and high over problems, floor (what the gold standard's own draws make
    of it), predicted (floor and K draws together), correlation with the gold standard.
    """
    rows = []
    for k, part in compared(table).groupby("answers"):
        off = part.assign(off=(part["progress"] - part["gold"]) ** 2).groupby("problem")["off"]
        groups = [values.to_numpy() for _, values in off]
        square = bootstrap(groups, rng, DRAWS)
        error, low, high = (float(np.sqrt(end)) for end in vars(square).values())
        floor = float(np.sqrt(part["doubt"].mean()))
        spread = part["spread"].mean() if k else 0.0
        rows.append({
            "way": sampled_name(k) if k else EXACT, "answers": k, "tokens": cost[str(k)],
            "error": error, "low": low, "high": high, "floor": floor,
            "predicted": float(np.sqrt(part["doubt"].mean() + spread)),
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
    exact, times = rows.loc[0], needed(table, cost)
    most = max((k for k in ANSWERS if rows.loc[k, "tokens"] <= exact["tokens"]), default=ANSWERS[0])
    at_cost = rows.loc[most]
    return (
        f"Exact progress lies {exact['error']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}] from "
        f"the gold standard of {GOLD} answers, whose own noise is {exact['floor']:.3f}: no error "
        f"of its own is seen (correlation {exact['correlation']:.3f}). Sampled progress that costs "
        f"no more tokens, K = {most}, lies {at_cost['error']:.2f} [{at_cost['low']:.2f}, "
        f"{at_cost['high']:.2f}] from it (correlation {at_cost['correlation']:.2f}). To be as good "
        f"as exact, sampling takes {times[0]:.0f} answers a boundary or more, and {times[1]:.0f} "
        "times the tokens of the exact way or more."
    )


def claims(table: pd.DataFrame, cost: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """Return what notebook 02 claims of the instruments on `tiny`, as rows for `checked`."""
    rows = table.set_index("answers")
    inside = [(rows["low"] <= rows["predicted"]) & (rows["predicted"] <= rows["high"])]
    return [
        ("correlation of exact progress with the gold standard",
         rows.loc[0, "correlation"], 0.98, 1.0),
        ("times the tokens of exact J that sampling takes for its error",
         needed(table, cost)[1], 5.0, np.inf),
        ("share of errors whose interval holds the predicted one", np.mean(inside), 0.6, 1.0),
    ]  # fmt: skip


def _key(profile: Profile, rollouts: pd.DataFrame, seed: int) -> str:
    return content_key(
        rollouts=[[int(i) for i in ids] for ids in rollouts["token_ids"]],
        problems=rollouts["problem"].tolist(), thinking=repr(profile.thinking),
        prover=repr(profile.prover), model=profile.model.name, seed=seed,
        answers=[*ANSWERS, GOLD],
    )  # fmt: skip
