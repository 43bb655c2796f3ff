"""Training whose rollouts servers draw, from an adapter that they load anew after every step."""

from dataclasses import replace

import numpy as np
import pytest
from test_server import address_of, by_the_model, serving

from mrtlib.models.server import ServerError
from mrtlib.store import read_table
from mrtlib.training import runs
from mrtlib.training.methods import METHODS, Method


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as stub:
        yield stub


@pytest.fixture
def served(server, short_training):
    server.answer = by_the_model(short_training)
    model = replace(short_training.model, engine="server", servers=(address_of(server),),
                    served="the-base")  # fmt: skip
    training = replace(short_training.training, most_steps=3, validate_every=3)
    return replace(short_training, model=model, training=training)


def asked(server, path):
    return [body for where, body in server.asked if where == f"/v1/{path}"]


def test_a_run_draws_every_rollout_from_the_adapter_of_its_step(server, served, capsys):
    folder = runs.train(served, "regret_to_go", 0)
    loaded = [body["lora_name"] for body in asked(server, "load_lora_adapter")]
    gone = [body["lora_name"] for body in asked(server, "unload_lora_adapter")]
    # The first step's rate is 0, so that the second step's policy is the first's; a further one is
    # loaded behind the last step, for the validation problems.
    assert len(set(loaded)) == len(loaded) == 3 and gone == loaded
    requests = asked(server, "completions")
    assert [name for name in loaded if name in {body["model"] for body in requests}] == loaded
    steps = read_table(folder / "steps.parquet", "steps")
    assert (steps["server_difference"] < 1e-3).all()  # both have the same weights and arithmetic
    assert (steps["server_ratio"] - 1).abs().max() < 1e-3
    assert steps["validation"].notna().iloc[-1] and (steps["sampled"] > 0).all()
    assert not (served.runs / "served" / "regret_to_go-0").exists()
    # Tokens are counted wherever they were drawn; the correction reads the rollouts once more.
    generated = steps["generated_tokens"].diff().fillna(steps["generated_tokens"][0])
    assert (steps["sampled"] > generated).all() and (steps["learned"] > 1.9 * generated).all()
    assert steps["sampled"].sum() < sum(len(b["prompt"]) for b in requests) + generated.sum()
    assert "log-probabilities are" not in capsys.readouterr().out


def test_a_server_that_goes_on_with_an_old_adapter_is_noticed(
    server, served, capsys, monkeypatch
):
    # A random model solves nothing; so that it learns, every second rollout is called right.
    paid = Method(rollouts=lambda group: np.resize([1.0, -1.0], len(group.correct)))
    monkeypatch.setitem(METHODS, "outcome", paid)
    server.answer = by_the_model(served, loads=False)
    long = replace(served, training=replace(served.training, most_steps=5))
    folder = runs.train(long, "outcome", 0)
    steps = read_table(folder / "steps.parquet", "steps")["server_difference"]
    assert steps[0] < 1e-3 and steps.iloc[-1] > 0.02
    assert "do they serve the adapter that was loaded last?" in capsys.readouterr().out


def test_stale_prefixes_are_drawn_by_the_servers_too(server, served):
    runs.train(served, "mixed_group", 0)
    [name] = {body["lora_name"] for body in asked(server, "load_lora_adapter")}  # it learns nothing
    requests = asked(server, "completions")
    assert {body["model"] for body in requests} == {name}
    problems = {tuple(body["prompt"]) for body in requests if body["max_tokens"] > 8}
    assert len(requests) > 3 * 8 and len(problems) > 2 * 3


def test_rounds_of_fine_tuning_are_drawn_by_the_servers(server, served):
    long = replace(served, training=replace(served.training, most_steps=4, rounds=2))
    folder = runs.train(long, "star", 0)
    requests = asked(server, "completions")
    [after, _] = [body["lora_name"] for body in asked(server, "load_lora_adapter")][:2]
    models = list(dict.fromkeys(body["model"] for body in requests))
    assert models[:2] == ["the-base", after]  # the first round's policy, then the second's
    steps = read_table(folder / "steps.parquet", "steps")
    assert (steps["sampled"] > steps["generated_tokens"].diff().fillna(0)).all()


def test_a_server_that_loads_no_adapters_is_an_error_before_any_step(server, served):
    server.replies = [(404, {"detail": "Not Found"})]
    with pytest.raises(ServerError, match="load_lora_adapter refused a request.*404"):
        runs.train(served, "outcome", 0)


def test_a_sampled_reward_is_drawn_by_the_servers_too(server, served):
    few = replace(served, prover=replace(served.prover, estimator="sampled", samples=2))
    steps = read_table(runs.train(few, "regret_to_go", 0) / "steps.parquet", "steps")
    assert (steps["probed"] > steps["prover_tokens"]).all() and (steps["prover_tokens"] > 0).all()
