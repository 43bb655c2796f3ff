"""Evaluation tables agree with each other, resume, and the results table is their mean."""

from dataclasses import replace

import numpy as np
import pytest

from mrtlib import regret
from mrtlib.evaluation.results import COLUMNS, metrics_of, relative_regret, results
from mrtlib.evaluation.sweep import Evaluator, evaluate, load_tables, recorded
from mrtlib.models.loading import made_of
from mrtlib.models.sampling import Sample
from mrtlib.prover.prover import Comparison, Prover
from mrtlib.tasks.problems import load_problems

PLACE = ["level", "problem", "sample"]


@pytest.fixture
def profile(toy_profile, tmp_path, monkeypatch):
    """Four problems a level on the toy model, written to a temporary folder."""
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    base = toy_profile("none")
    return replace(
        base,
        data=replace(base.data, test=4),
        thinking=replace(base.thinking, budget=48, answer_tokens=8, segmenter="tokens",
                         episode_tokens=16),
        evaluation=replace(base.evaluation, budgets=(12, 24, 36, 48), extension_tokens=12,
                           extensions=2),
    )  # fmt: skip


@pytest.fixture
def tables(profile):
    return load_tables(evaluate(profile, "base", 0))


def test_tables_are_complete(tables, profile):
    assert len(tables["rollouts"]) == 2 * 4 * 4
    inside = tables["budgets"][~tables["budgets"]["extrapolated"]]
    assert (inside.groupby(PLACE)["budget"].count() == 4).all()
    beyond = tables["budgets"][tables["budgets"]["extrapolated"]]
    assert sorted(beyond["budget"].unique()) == [60, 72]
    assert (beyond["sample"] == 0).all() and beyond["accuracy"].between(0, 1).all()
    longer = beyond.sort_values("budget").groupby(PLACE)["tokens"].apply(np.diff)
    assert all((step > 0).all() for step in longer)


def test_j_at_a_boundary_is_the_accuracy_at_that_budget(tables):
    joined = tables["progress"].merge(
        tables["budgets"], left_on=[*PLACE, "tokens"], right_on=[*PLACE, "budget"]
    )
    assert np.allclose(joined["J"], joined["accuracy"], atol=1e-6)
    ended = tables["budgets"].query("budget == 48 and not extrapolated").set_index(PLACE)
    last = tables["progress"].sort_values("j").groupby(PLACE)["J"].last()
    assert np.allclose(ended["accuracy"].loc[last.index], last, atol=1e-6)


def test_where_exact_J_is_wrong_the_evaluation_goes_on_with_sampled(
    profile, monkeypatch, capsys
):
    found = Comparison(64, 0.0, 0.9, 0.0, "so many right answers are missed")
    monkeypatch.setattr(Prover, "compare", lambda *_: found)
    folder = evaluate(profile, "base", 0)
    assert "so many right answers" in capsys.readouterr().out
    tables = load_tables(folder)
    progress, samples = tables["progress"], profile.prover.samples
    assert (progress["estimator"] == "sampled").all() and (progress["answers"] == samples).all()
    assert np.allclose(progress["J"] * samples, progress["right"])
    assert (progress["low"] <= progress["J"]).all() and (progress["high"] >= progress["J"]).all()
    test_j_at_a_boundary_is_the_accuracy_at_that_budget(tables)
    monkeypatch.setattr(Prover, "compare", None)  # a run that goes on keeps to it
    for shard in (folder / "budgets").glob("*.parquet"):
        shard.unlink()
    evaluate(profile, "base", 0)
    assert load_tables(folder)["progress"].equals(progress)


def test_evaluation_is_exact_whatever_the_training_reward_comes_from(profile):
    sampled = replace(profile, prover=replace(profile.prover, estimator="sampled"))
    progress = load_tables(evaluate(sampled, "base", 0))["progress"]
    assert (progress["estimator"] == "exact").all() and (progress["answers"] == 0).all()


def test_an_extension_that_ends_leaves_its_end_token_behind(profile):
    evaluator = Evaluator.load(profile, "base", 0, None)
    [problem, *_] = load_problems(profile.problems / "test.jsonl", 1)
    reader, end = evaluator.reader, evaluator.reader.tokenizer.eos_token_id
    start = reader.read(problem, [5], Sample([9, 10, end], [0.0] * 3, True))
    assert start.ended
    asked = []

    class Ending:
        def sample(self, prompts, n, max_tokens, temperature, top_p, stop_ids, seed):
            asked.append(stop_ids)
            return [[Sample([11, end], [0.0] * 2, True)] for _ in prompts]

    evaluator.prover.sampler = Ending()
    steps = evaluator.extensions([start])
    assert all(end in stop_ids for stop_ids in asked)
    for [longer] in steps:
        assert longer.ended and end not in longer.trace_ids and longer.trace_ids[-1] == 11


def test_an_adapter_may_be_moved(profile, tmp_path):
    found = []
    for name in ("here", "there/deep"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        (folder / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{name}"}}')
        found.append(made_of(profile, folder))
    assert found[0] == found[1] and found[0] != made_of(profile, None)


def test_progress_telescopes(tables):
    for _, trace in tables["progress"].sort_values("j").groupby(PLACE):
        J = trace["J"].to_numpy()
        assert np.nansum(trace["progress"]) == pytest.approx(J[-1] - J[0], abs=1e-9)


def test_a_second_run_reads_and_other_settings_do_not_mix(profile, tables, capsys):
    capsys.readouterr()
    evaluate(profile, "base", 0)
    assert capsys.readouterr().out == ""
    other = replace(profile, evaluation=replace(profile.evaluation, samples=2))
    with pytest.raises(ValueError, match="pass@4"):
        metrics_of(load_tables(evaluate(other, "base", 0)), other)
    again = load_tables(evaluate(profile, "base", 0))
    assert len(again["rollouts"]) == len(tables["rollouts"])


def test_what_was_recorded_is_found_for_every_model(profile, tables):
    evaluate(profile, "outcome", 1)
    found = recorded(profile)
    assert set(found["rollouts"]["method"]) == {"base", "outcome"}
    for name, table in tables.items():
        assert len(found[name][found[name]["method"] == "base"]) == len(table)


def test_results_are_means_with_intervals(profile, tables):
    found = metrics_of(tables, profile)
    table = results({("base", 0): found})
    assert list(table.columns) == list(COLUMNS)
    assert (table["low"] <= table["estimate"] + 1e-9).all()
    assert (table["estimate"] <= table["high"] + 1e-9).all()
    row = table.query("seed == 'all' and level == 'all' and metric == 'tokens'").iloc[0]
    assert row["estimate"] == pytest.approx(tables["rollouts"]["trace_tokens"].mean())
    assert (row["problems"], row["samples"]) == (8, 32)


def test_regret_in_the_table_is_that_of_the_curves(profile, tables):
    found = metrics_of(tables, profile)["regret", 24]
    expected = [
        regret.normalised_regret(trace["J"], trace["tokens"], 24)
        for _, trace in tables["progress"].sort_values("j").groupby(PLACE)
    ]
    assert np.mean(np.concatenate(found.tolist())) == pytest.approx(np.mean(expected))


def test_official_regret_counts_prompt_and_answer_and_ramps(profile, tables):
    found = metrics_of(tables, profile)
    rollouts = tables["rollouts"].set_index(PLACE)
    behind = [len(r.token_ids) - r.trace_tokens for r in rollouts.itertuples() if r.closed]
    expected, with_slips = [], []
    for key, trace in tables["progress"].sort_values("j").groupby(PLACE):
        at = len(rollouts.loc[key, "prompt_ids"]) + trace["tokens"] + np.mean(behind or [0.0])
        expected.append(regret.ramped_regret(trace["J"], at, 24))
        answer = np.mean(behind or [0.0])
        with_slips.append(regret.ramped_regret_with_quirks(trace["J"], at, answer, 24))
    ours = np.concatenate(found["official_regret", 24].tolist())
    assert np.mean(ours) == pytest.approx(np.mean(expected))
    plain = np.concatenate(found["regret", 24].tolist())
    assert np.mean(ours) > np.mean(plain)  # the first tokens are charged
    slips = np.concatenate(found["official_regret_with_quirks", 24].tolist())
    assert np.mean(slips) == pytest.approx(np.mean(with_slips))


def test_differences_are_paired(profile, tables):
    found = metrics_of(tables, profile)
    better = {k: v.map(lambda a: a - 0.1) if k[0] == "regret" else v for k, v in found.items()}
    models = {("outcome", s): found for s in (0, 1)} | {("regret_to_go", s): better for s in (0, 1)}
    table = results(models)
    rows = table[table["metric"] == "diff_to_outcome_regret"]
    assert np.allclose(rows[["estimate", "low", "high"]], -0.1)  # no noise is left in a pair
    share, low, high = vars(relative_regret(models, "regret_to_go", 24)).values()
    assert low <= share <= high and share > 0
