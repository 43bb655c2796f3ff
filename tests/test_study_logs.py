"""What the logs of a study say, from logs made by hand."""

import numpy as np
import pandas as pd
import pytest

from mrtlib.config import ROOT, load_profile
from mrtlib.experiments import claims, study, study_logs
from mrtlib.stats import over_seeds
from mrtlib.store import schema

ENDS = {"outcome": (0.40, 0.44, 0.42), "regret_to_go": (0.45, 0.46, 0.50)}


@pytest.fixture
def profile(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    return load_profile("study")


def logged(method: str, seed: int, end: float, steps: int) -> list[dict]:
    """Return a log that is validated at steps 2 and 4 and after the last one."""
    rows = []
    for step in range(1, steps + 1):
        look = step in (2, 4) or step == steps
        mark = end if step == steps else 0.3 + step / 100 if look else None
        rows.append(dict.fromkeys(schema("steps").names) | {
            "method": method, "seed": seed, "step": step,
            "generated_tokens": 100 * step, "prover_tokens": 0,
            "sampled": 5e4, "probed": 0.0 if method == "outcome" else 3e4, "learned": 5e4,
            "validation": mark, "validation_regret": mark and 1 - mark,
            "validation_forced": mark and mark + 0.1,
        })  # fmt: skip
    return rows


@pytest.fixture
def steps(profile):
    """Logs of short runs, on record; read back."""
    for run in study.trainings(profile, study.compared(profile)[:1]):
        if run.method in ENDS and run.seed < 3:
            length = (6 if run.method == "outcome" else 5) - (run.seed == 2)
            log = logged(run.method, run.seed, ENDS[run.method][run.seed], length)
            run.record.write(run.key, log)
    return study_logs.logs(profile)


def test_what_is_on_record_is_counted(profile, steps):
    found = study_logs.on_record(profile).set_index("part")
    assert found["done"].to_dict() == {"short": 6, "long": 0, "middle": 0}
    assert found.loc["short", ["planned", "tokens"]].tolist() == [50, 1.6]
    assert set(steps["part"]) == {"short"}
    last = steps[(steps["method"] == "regret_to_go") & (steps["seed"] == 0)]["through"].iloc[-1]
    assert last == pytest.approx(5 * 0.13)


def test_a_runs_folder_without_a_study_reads_the_committed_one(tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    assert study_logs.home(load_profile("study")) == ROOT / "data" / "runs" / "study"
    (tmp_path / "study" / "steps").mkdir(parents=True)
    assert study_logs.home(load_profile("study")) == tmp_path / "study"


def test_a_point_is_a_mean_over_all_runs_of_a_method_and_the_last_is_the_end_of_each(steps):
    curve = study_logs.validated(steps)
    mine = curve[(curve["method"] == "regret_to_go") & (curve["quantity"] == "natural accuracy")]
    # Step 4 is the last one of seed 2, so it is no point of the method; its end is.
    assert mine["through"].round(4).tolist() == [0.26, round((0.65 + 0.65 + 0.52) / 3, 4)]
    assert mine["estimate"].tolist() == pytest.approx([0.32, np.mean(ENDS["regret_to_go"])])
    assert mine["low"].iloc[-1] == pytest.approx(over_seeds(ENDS["regret_to_go"]).low)
    assert (mine["seeds"] == 3).all()
    two = study_logs.validated(steps[steps["seed"] < 2])
    assert two["estimate"].notna().all() and two[["low", "high"]].isna().all(axis=None)


def test_gaps_are_paired_by_seed(profile, steps):
    found = study_logs.gaps(steps).set_index("quantity")
    want = over_seeds(np.subtract(ENDS["regret_to_go"], ENDS["outcome"]))
    for quantity, sign in (("natural accuracy", 1), ("normalised regret", -1)):
        row = found.loc[quantity]
        assert row["estimate"] == pytest.approx(sign * want.estimate)
        assert sorted((sign * row["low"], sign * row["high"])) == pytest.approx(
            [want.low, want.high])  # fmt: skip
    cut = steps[(steps["method"] == "outcome") | (steps["seed"] < 2)]
    assert (study_logs.gaps(cut)["seeds"] == 2).all()
    words = study_logs.in_words(study_logs.on_record(profile), study_logs.gaps(steps))
    assert "6 of 50 *short*" in words and "`regret_to_go` natural accuracy +5.0 points" in words
    few = study_logs.in_words(study_logs.on_record(profile), study_logs.gaps(cut))
    assert "points" not in few  # two seeds are not compared


@pytest.mark.parametrize(("more", "same"), [(0, True), (0.5, True), (3, False)])
def test_first_batches_at_a_seed_are_the_same_but_for_rounding(profile, steps, more, same):
    """Runs may be made on several machines, whose processors round differently."""
    first = (steps["method"] == "outcome") & (steps["seed"] == 1) & (steps["step"] == 1)
    steps = steps.assign(generated_tokens=steps["generated_tokens"] + more * first)
    told = claims.of_study(steps, profile).set_index("claim")["holds"]
    assert told["largest gap of first batches, share of tokens"] == same


def test_the_last_quarter_of_a_curve():
    log = pd.DataFrame({
        "part": "long", "method": "outcome", "seed": 0, "step": [1, 2, 3],
        "through": [1.0, 3.0, 4.0], "validation": [0.30, 0.40, 0.46],
        "validation_forced": 0.5, "validation_regret": 0.5,
    })  # fmt: skip
    assert study_logs.last_quarter(log, "long") == pytest.approx(0.06)
    assert np.isnan(study_logs.last_quarter(log, "short"))
    assert "moved by +6.0 points: it is not flat" in study_logs.flat_in_words(log)
    still = log.assign(validation=[0.30, 0.458, 0.46])
    assert "+0.2 points: it is flat" in study_logs.flat_in_words(still)
    assert "No *short* run" in study_logs.flat_in_words(log, "short")


def test_without_records_there_are_no_rows_and_no_error(profile):
    (profile.runs / "steps").mkdir(parents=True)
    assert study_logs.logs(profile).empty
    assert study_logs.gaps(study_logs.logs(profile)).empty
    assert study_logs.rates(profile).empty
    unseen = pd.DataFrame({"part": ["short"], "method": ["outcome"], "seed": [0], "step": [1],
                           "validation": [np.nan]})  # fmt: skip
    assert study_logs.validated(unseen).empty


def test_the_search_is_read_from_its_logs(profile):
    for run in study.trainings(profile, study.searched(("outcome",))):
        rate = run.settings.training.learning_rate["outcome"]
        end = {5e-4: 0.33, 1e-3: 0.4, 2e-3: 0.5, 4e-3: 0.2}[rate]  # the last one has broken down
        run.record.write(run.key, logged("outcome", run.seed, end, 6))
    found = study_logs.rates(profile).set_index("learning_rate")
    assert found["broken"].to_dict() == {5e-4: False, 1e-3: False, 2e-3: False, 4e-3: True}
    assert found.index[found["chosen"]].tolist() == [1e-3]


def test_lengths_are_means_over_equal_shares_of_a_run():
    def run(seed: int, lengths: list[float]) -> pd.DataFrame:
        through = np.arange(1, len(lengths) + 1) / 4
        return pd.DataFrame({"part": "short", "method": "outcome", "seed": seed,
                             "through": through, "length": lengths})  # fmt: skip

    steps = pd.concat([run(0, [100, 120, 140, 160]), run(1, [90, 110, 130, 150]), run(2, [80, 70])])
    first, last = study_logs.lengths(steps, points=2).itertuples()
    assert first.estimate == pytest.approx(np.mean([110, 100, 80]))
    assert last.estimate == pytest.approx(np.mean([150, 140, 70]))
    want = over_seeds([150, 140, 70])
    assert (last.low, last.high) == pytest.approx((want.low, want.high))
    assert last.through == pytest.approx(np.mean([0.875, 0.875, 0.5]))
    two = study_logs.lengths(steps[steps["seed"] < 2], points=2)
    assert two["estimate"].notna().all() and two[["low", "high"]].isna().all(axis=None)


def test_the_rule_is_said_to_bind_where_it_takes_another_rate_than_the_best():
    table = pd.DataFrame([
        {"method": method, "regret": regret, "chosen": chosen}
        for method, rows in {"outcome": [(0.7, False), (0.6, True)],
                             "star": [(0.7, True), (0.6, False)]}.items()
        for regret, chosen in rows
    ])  # fmt: skip
    said = study_logs.rates_in_words(table)
    assert said.startswith("4 runs of 2 methods are on record. For 1 of these ")
    assert said.endswith(": `star`.")
    assert "No run" in study_logs.rates_in_words(table[:0])
