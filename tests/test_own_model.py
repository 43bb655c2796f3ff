"""A model and problems of one's own: what a run needs of them, and nothing more."""

import matplotlib as mpl

mpl.use("Agg")

import io
import json
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
from own_model import write_all, write_tokenizer
from tokenizers.processors import TemplateProcessing

from mrtlib import batch, plotting
from mrtlib.config import load_profile
from mrtlib.evaluation.sweep import evaluate, load_tables
from mrtlib.experiments import claims, reasoner_card
from mrtlib.models.sampling import Sample
from mrtlib.models.tokens import load_tokenizer, prompt_ids
from mrtlib.rollouts import Reader
from mrtlib.tasks.problems import load_problems
from mrtlib.training.runs import train


@pytest.fixture(scope="module", params=[True, False], ids=["tags are tokens", "tags are texts"])
def mine(request, tmp_path_factory):
    """The profile of a user's file, over a random Qwen2 with a byte-pair tokenizer."""
    folder = tmp_path_factory.mktemp("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRT_RUNS", str(folder / "runs"))
        yield load_profile(str(write_all(folder, request.param)))


def test_it_is_evaluated_and_trained(mine):
    tables = load_tables(evaluate(mine, "base", 0))
    assert tables["rollouts"]["problem"].nunique() == 8
    assert tables["progress"]["J"].between(0, 1).all()
    steps = pd.read_parquet(train(mine, "regret_to_go", 0) / "steps.parquet")
    assert steps["generated_tokens"].max() >= mine.training.tokens


def test_its_outputs_are_read(mine):
    tokenizer = load_tokenizer(mine)
    reader = Reader(tokenizer, mine.thinking)
    problem = load_problems(mine.problems / "test.jsonl")[0]
    prompt = prompt_ids(tokenizer, problem.question, mine.thinking)
    assert tokenizer.decode(prompt).endswith("<think>\n")
    for text, right in (("Hm.</think>\n\nThe answer is \\boxed{97}", True), ("Hm", False)):
        ids = reader.joiner.encode(text) + [tokenizer.eos_token_id] * right
        rollout = reader.read(problem, prompt, Sample(ids, [0.0] * len(ids), True))
        assert (rollout.closed, rollout.grade.correct) == (right, right)
        trace = reader.decode(rollout.trace_ids)
        assert trace.startswith("Hm") and len(trace) <= len("Hm.</")
        assert rollout.maker_ends[-1] <= len(ids) + 1


def test_tokens_that_end_an_output_are_also_those_of_the_generation_settings(tmp_path):
    profile = load_profile("tiny")
    folder = tmp_path / "model"
    write_tokenizer(folder)
    other = replace(profile, model=replace(profile.model, name=str(folder)))
    alone = load_tokenizer(other)
    assert alone.end_ids == {alone.eos_token_id}
    for ends in (0, [0, 2]):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
        assert load_tokenizer(other).end_ids == {2, 0}
    assert Reader(load_tokenizer(other), other.thinking).end_ids == {2, 0}


def test_a_model_without_a_record_of_its_making_has_a_page(mine):
    words = reasoner_card.origin_in_words(mine)
    assert "is not on record" in words and mine.model.name in words
    assert "Countdown" in reasoner_card.origin_in_words(load_profile("tiny"))
    losses = reasoner_card.loss_curve(mine)
    assert losses.empty and list(losses) == ["step", "tokens", "loss"]
    card = pd.DataFrame({"name": ["a"], "estimate": [0.5], "low": [0.4], "high": [0.6],
                         "at_least": [np.nan], "at_most": [np.nan]})  # fmt: skip
    fig = plotting.reasoner_page(card, losses, [])
    assert len(fig.axes) == 1
    assert set(plotting.page_rows(card, losses, [])["part"]) == {"measured"}


def test_a_claim_about_the_model_stops_nothing_and_one_about_the_code_does(mine, capsys):
    held = claims.checked([("a", 1, 0, 1)])
    poor = claims.checked([("reward", 0, 0.1, 1), ("slope", np.nan, 0, 1)], claims.MODEL)
    claims.report(pd.concat([held, poor]), mine, "03_x")
    said = capsys.readouterr().out
    assert "claim about the model: reward is 0, not in [0.1, 1]" in said and "slope is nan" in said
    assert batch.claims_that_fail([mine]) == [
        "03 | claim about the model: reward is 0, not in [0.1, 1]",
        "03 | claim about the model: slope is nan, not in [0, 1]",
    ]
    with pytest.raises(claims.ClaimError, match="claim about the code: a is 2"):
        claims.report(claims.checked([("a", 2, 0, 1)]), mine, "03_x")
    assert pd.read_csv(mine.runs / "claims" / "03_x.csv")["holds"].tolist() == [False]


def test_a_run_goes_on_behind_a_notebook_that_stops_and_lists_what_failed(mine, monkeypatch):
    folder = mine.runs.parent / "books"
    folder.mkdir()
    monkeypatch.setattr(batch, "NOTEBOOKS", folder)
    spec = {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
    for name, source in (("00_a", "1 / 0"), ("01_b", "print('here')"), ("02_c", "[][1]")):
        cell = nbformat.v4.new_code_cell(source)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=spec),
                       folder / f"{name}.ipynb")  # fmt: skip
    out = io.StringIO()
    with pytest.raises(batch.BatchError, match="2 of 3 notebooks failed:") as caught:
        batch.reproduce(mine, 0, 1, out)
    assert "00_a stopped" in str(caught.value) and "02_c stopped" in str(caught.value)
    assert "01 | here" in out.getvalue() and (mine.runs / "01_b.ipynb").is_file()
    assert not (mine.runs / "manifest.json").exists(), "not all of it was run"


def test_the_start_token_is_written_once(tmp_path):
    """By the template, where the tokenizer would add it too; and never in the middle of a text."""
    tokenizer = write_tokenizer(tmp_path)
    tokenizer.bos_token = "<|endoftext|>"
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", start)]
    )
    assert tokenizer.encode("x")[0] == start
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    thinking = load_profile("tiny").thinking
    assert prompt_ids(tokenizer, "x", thinking).count(start) == 1
    reader = Reader(tokenizer, thinking)
    assert start not in reader.joiner.encode("x")
    assert start not in reader.joiner.behind(prompt_ids(tokenizer, "x", thinking), " y")[1]
