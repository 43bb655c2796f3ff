"""Every form of the method, one seed each: does it train, and how does its learning curve look?

The runs have a folder of their own, with validation of every method alike. One seed says nothing
about which form is better: that takes the seeds and the test problems of notebook 04.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from mrtlib.config import LABELS, TRAINED_METHODS, Profile
from mrtlib.models.loading import load_policy, work_key
from mrtlib.models.quantization import Twin
from mrtlib.models.tokens import load_tokenizer
from mrtlib.prover.prover import Prover
from mrtlib.shards import Shards
from mrtlib.stats import wilson
from mrtlib.store import file_hashes, read_json, write_json
from mrtlib.tasks.problems import load_problems
from mrtlib.training.methods import METHODS
from mrtlib.training.runs import train, training_key
from mrtlib.training.schedule import THROUGH
from mrtlib.training.validation import Validator

# Forms that are looked at together; outcome RL is drawn with each.
FAMILIES = {
    "credit of episodes": ("episode_progress", "episode_progress_centred", "regret_to_go",
                           "final_progress", "budget_relative"),
    "outcome alone": ("length_penalty", "budget_curriculum", "outcome_wide"),
    "stale prefixes": ("mixed_group", "termination_baseline", "stale_outcome"),
    "fine-tuning": ("star", "mrt_star_keep", "mrt_star_cut"),
}  # fmt: skip
QUANTITIES = {"validation": "validation accuracy", "validation_regret": "validation regret"}


def study(profile: Profile, seed: int) -> pd.DataFrame:
    """Train every method with one seed, or read what is on record; return their `steps`.

    The records are the logs alone: adapters stay on the machine that trained them. Rates decay, as
    with a constant one a run can break down late (see `settings_of`).
    """
    own = settings_of(profile)
    shards, keys = Shards(own.runs / "steps", "steps"), []
    for method in TRAINED_METHODS:
        keys.append(f"{method}-{seed}-{training_key(own, method, seed)[:16]}")
        if not shards.has(keys[-1]):
            folder = train(own, method, seed)
            steps = Shards(folder, "steps").read(["steps"])
            rows = steps.astype(object).where(steps.notna(), None).to_dict("records")
            shards.write(keys[-1], rows)
    return shards.read(keys)


def base(profile: Profile) -> dict[str, float]:
    """Return what the columns of validation are before the first step, the same for every form."""
    own = settings_of(profile)
    problems = file_hashes([own.problems / "validation.jsonl"], own.problems)
    key = work_key(own, "model thinking data training prover", problems=problems)
    record = own.runs / f"base-{key[:16]}.json"
    if not record.is_file():
        model = load_policy(own)
        model = Twin(model).model if own.model.twin else model
        prover = Prover(model, load_tokenizer(own), own)
        found = Validator(own, prover.reader).measure(prover)
        write_json(record, vars(found))
    return read_json(record)


def settings_of(profile: Profile) -> Profile:
    """Return the profile of the study's runs: half of the tokens, rates that decay, a folder.

    At the constant 0.003 of `tiny` a run of outcome RL fell from 45 % of right answers to 1 % in
    its last five steps, where the same run with other rounding errors did not: so rates decay.
    `mixed_group` broke down all the same: steps from prefixes are smaller and more. So these forms
    begin at a third of the rate.
    """
    stale = {method for method, form in METHODS.items() if form.from_prefixes}
    rates = {method: rate / 3 if method in stale else rate
             for method, rate in profile.training.learning_rate.items()}  # fmt: skip
    training = replace(profile.training, tokens=profile.training.tokens // 2, schedule="cosine",
                       learning_rate=rates)  # fmt: skip
    return replace(profile, name=f"{profile.name}/forms", training=training)


def validated(steps: pd.DataFrame, start: dict[str, float], count: int) -> pd.DataFrame:
    """Return what `plotting.forms_curves` draws: a panel for each family and quantity.

    Args:
        start: from `base`; every curve begins there.
        count: validation problems.

    Returns:
        family, method, tokens (generated, in thousands), quantity, estimate; of accuracies also
        Wilson's low and high, of one run on these problems.
    """
    steps, parts = steps.dropna(subset="validation"), []
    first = [{"method": method, "generated_tokens": 0, **start} for method in TRAINED_METHODS]
    steps = pd.concat([pd.DataFrame(first), steps])
    for family, methods in FAMILIES.items():
        own = steps[steps["method"].isin(("outcome", *methods))]
        own = own.assign(family=family, tokens=own["generated_tokens"] / 1000)
        parts.append(own.melt(["family", "method", "tokens"], list(QUANTITIES), "quantity",
                              "estimate"))  # fmt: skip
    table = pd.concat(parts, ignore_index=True)
    low, high = wilson((table["estimate"] * count).round(), count)
    share = table["quantity"] == "validation"
    return table.assign(
        quantity=table["quantity"].map(QUANTITIES),
        low=np.where(share, low, np.nan), high=np.where(share, high, np.nan),
    )  # fmt: skip


def validation_problems(profile: Profile) -> int:
    """Return how many validation problems a profile has."""
    return len(load_problems(profile.problems / "validation.jsonl", profile.data.validation))


def ends(steps: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return each method at its end: accuracy, the interval of its problems, regret, and cost.

    `low` and `high` are Wilson's, of one run on these problems: other seeds are not in them.
    `through` counts all tokens through the model, in millions; `best` is the best accuracy on the
    way, which is too good by the luck of its choice.
    """
    rows = []
    for method, run in steps.groupby("method", sort=False):
        known = run.dropna(subset="validation")
        last = known.iloc[-1]
        low, high = wilson(round(last["validation"] * count), count)
        rows.append({
            "method": LABELS[method], "steps": len(run), "accuracy": last["validation"],
            "low": low, "high": high, "best": known["validation"].max(),
            "regret": last["validation_regret"], "length": run["length"].tail(5).mean(),
            "generated": run["generated_tokens"].max() / 1e6,
            "through": run[list(THROUGH)].sum().sum() / 1e6,
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("method")
