"""The server engine against a stub on localhost that answers as vLLM does."""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mrtlib.evaluation.sweep import Evaluator, evaluate, load_tables
from mrtlib.models.loading import add_lora, load_base, load_policy, save_adapter
from mrtlib.models.sampling import Sample, TransformersSampler
from mrtlib.models.server import KEYS, ServerError, ServerSampler, server_sampler
from mrtlib.models.tokens import load_tokenizer
from mrtlib.rollouts import of_record
from mrtlib.tasks.problems import load_problems


class Stub(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        self.server.keys.append(self.headers.get("Authorization"))
        status, answer = self.server.replies.pop(0) if self.server.replies else (200, None)
        answer = self.server.answer(body) if answer is None else answer
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "2")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def good(body):
    """Say the prompt's sum and the sample's index; odd samples end with the stop token."""
    choices = []
    if "lora_name" in body:
        return "Success: LoRA adapter added or removed."
    for index in reversed(range(body["n"])):  # the order of choices is not promised
        ids = [sum(body["prompt"]), index] + body["stop_token_ids"][:1] * (index % 2)
        choices.append({
            "index": index, "text": "", "token_ids": ids,
            "finish_reason": "stop" if index % 2 else "length",
            "logprobs": {"tokens": [f"token_id:{i}" for i in ids],
                         "token_logprobs": [-0.5] * len(ids)},
        })  # fmt: skip
    return {"choices": choices}


@contextmanager
def serving():
    stub = HTTPServer(("127.0.0.1", 0), Stub)
    stub.asked, stub.replies, stub.keys, stub.answer = [], [], [], good
    thread = threading.Thread(target=stub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield stub
    stub.shutdown()
    stub.server_close()
    thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with serving() as stub:
        yield stub


def address_of(stub) -> str:
    return f"http://127.0.0.1:{stub.server_port}"


def ask(server, prompts, n=2, **changes):
    address = f"http://127.0.0.1:{server.server_port}"
    settings = {"workers": 1, "pause": 0.0, "timeout": 5.0} | changes
    return ServerSampler((address + "/v1/",), "a-model", **settings).sample(
        prompts, n, 4, 0.6, 0.9, {9, 8}, 3
    )


def test_samples_come_back_in_the_callers_order(server):
    prompts = [[5, 6], [1, 2, 3], [5], [1, 2]]
    for workers in (1, 4):
        found = ask(server, prompts, workers=workers)
        assert [group[0].token_ids for group in found] == [[11, 0], [6, 0], [5, 0], [3, 0]]
        assert found[0][1] == Sample([11, 1, 8], [-0.5] * 3, True)
        assert not found[0][0].finished


def test_requests_are_sorted_and_seeded_by_place(server):
    prompts = [[5, 6], [1, 2, 3], [5], [1, 2], [5]]
    ask(server, prompts)
    first = [body for _, body in server.asked]
    assert [body["prompt"] for body in first] == sorted(prompts)
    assert len({body["seed"] for body in first}) == 5  # equal prompts too get their own
    assert all(0 <= body["seed"] < 2**62 for body in first)
    ask(server, prompts)
    assert [body for _, body in server.asked[5:]] == first
    path, body = server.asked[0]
    assert path == "/v1/completions"
    sent = {k: body[k] for k in ("model", "n", "max_tokens", "temperature", "top_p")}
    assert sent == {"model": "a-model", "n": 2, "max_tokens": 4, "temperature": 0.6, "top_p": 0.9}
    assert body["stop_token_ids"] == [8, 9] and body["return_token_ids"]


def test_ids_are_read_from_log_probabilities_when_the_server_sends_no_others(server):
    answer = good({"prompt": [4], "n": 2, "stop_token_ids": [8]})
    for choice in answer["choices"]:
        del choice["token_ids"]
    server.replies = [(200, answer)]
    assert [s.token_ids for s in ask(server, [[4]])[0]] == [[4, 0], [4, 1, 8]]


def test_a_busy_server_is_asked_again_but_not_for_ever(server):
    server.replies = [(503, {}), (429, {})]
    assert len(ask(server, [[4]], retries=2)[0]) == 2
    server.asked.clear()
    server.replies = [(503, {"error": "loading"})] * 9
    with pytest.raises(ServerError, match="failed 3 times.*503.*loading"):
        ask(server, [[4]], retries=2)
    assert len(server.asked) == 3


def test_a_refusal_is_reported_at_once(server):
    server.replies = [(400, {"error": "prompt too long"})]
    with pytest.raises(ServerError, match="refused.*400.*prompt too long"):
        ask(server, [[4]])
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"text": "hello"}, "lacks"),
        ({"choices": [{"index": 0, "finish_reason": "stop", "token_ids": [1], "logprobs": None}]},
         "return_token_ids"),
        (good({"prompt": [4], "n": 1, "stop_token_ids": [8]}), "asked for 2 samples"),
    ],
)  # fmt: skip
def test_an_answer_of_another_kind_is_explained(server, answer, message):
    server.replies = [(200, answer)]
    with pytest.raises(ServerError, match=message):
        ask(server, [[4]])


def test_a_server_that_is_away_is_named():
    sampler = ServerSampler(("http://127.0.0.1:9",), "m", timeout=1.0, retries=1, pause=0.0)
    with pytest.raises(ServerError, match="127.0.0.1:9.*failed 2 times"):
        sampler.sample([[1]], 1, 1, 1.0, 1.0, set(), 0)


def test_an_empty_prompt_is_refused_before_anything_is_sent(server):
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        ask(server, [[]])
    assert server.asked == []


def test_a_server_that_asks_for_a_pause_gets_it(server):
    server.replies = [(429, {})]
    began = time.monotonic()
    assert len(ask(server, [[4]], retries=1)[0]) == 2
    assert time.monotonic() - began > 1.9


def test_a_key_comes_from_the_environment(server, monkeypatch):
    ask(server, [[4]])
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    ask(server, [[4]])
    monkeypatch.setenv("MRT_API_KEY", "first")
    ask(server, [[4]])
    assert server.keys == [None, "Bearer second", "Bearer first"]


def test_prompts_are_divided_and_a_server_that_dies_loses_nothing(server):
    prompts = [[i] for i in range(1, 9)]
    with serving() as other:
        both = (address_of(server), address_of(other))
        found = ServerSampler(both, "m").sample(prompts, 2, 4, 0.6, 0.9, {8}, 3)
        assert [group[0].token_ids[0] for group in found] == list(range(1, 9))
        assert (len(server.asked), len(other.asked)) == (4, 4)
    gone = ServerSampler(both, "m", retries=1, pause=0.0, timeout=2.0)  # the second is away now
    found = gone.sample(prompts, 2, 4, 0.6, 0.9, {8}, 3)
    assert [group[0].token_ids[0] for group in found] == list(range(1, 9))
    assert len(server.asked) == 4 + 8 and gone.dead == {both[1]}


def test_a_server_that_is_away_when_an_adapter_is_loaded_gets_no_more_prompts(server, tmp_path):
    with serving() as other:
        both = (address_of(server), address_of(other))
    sampler = ServerSampler(both, "m", retries=0, pause=0.0, timeout=2.0)
    sampler.load_adapter("m", tmp_path)
    assert sampler.dead == {both[1]} and len(server.asked) == 1
    assert len(sampler.sample([[1], [2]], 2, 4, 0.6, 0.9, {8}, 3)) == 2
    sampler.unload_adapter("m")
    assert [path.rpartition("/")[2] for path, _ in server.asked] == [
        "load_lora_adapter", "completions", "completions", "unload_lora_adapter"
    ]  # fmt: skip
    alone = ServerSampler(both[1:], "m", retries=0, pause=0.0, timeout=2.0)
    with pytest.raises(ServerError, match="failed 1 times"):
        alone.load_adapter("m", tmp_path)


def by_the_model(profile, loads=True):
    """Return answers as a server gives them that holds the profile's base, and its adapters.

    Without `loads` it says that it has loaded an adapter, and goes on with the base.
    """
    pad, lock, held = load_tokenizer(profile).pad_token_id, threading.Lock(), {}
    base = TransformersSampler(load_base(profile), pad, 8)

    def answer(body):
        name = body.get("lora_name")
        if name and "lora_path" not in body:
            del held[name]
            return f"Success: LoRA adapter '{name}' removed successfully."
        if name:
            policy = load_policy(profile, body["lora_path"]) if loads else base.model
            held[name] = TransformersSampler(policy, pad, 8)
            return f"Success: LoRA adapter '{name}' added successfully."
        sampler = held.get(body["model"], base)
        with lock:
            [group] = sampler.sample([body["prompt"]], body["n"], body["max_tokens"],
                                     body["temperature"], body["top_p"],
                                     set(body["stop_token_ids"]), body["seed"] % 2**32)  # fmt: skip
        return {"choices": [
            {"index": i, "token_ids": s.token_ids,
             "finish_reason": "stop" if s.finished else "length",
             "logprobs": {"tokens": [], "token_logprobs": s.logprobs}}
            for i, s in enumerate(group)
        ]}  # fmt: skip

    return answer


@pytest.fixture
def served(server, toy_profile, tmp_path, monkeypatch):
    monkeypatch.setenv("MRT_RUNS", str(tmp_path))
    profile = toy_profile()
    server.answer = by_the_model(profile)
    return replace(profile, model=replace(
        profile.model, engine="server", servers=(address_of(server),), served="the-base"
    ), data=replace(profile.data, test=2), thinking=replace(profile.thinking, budget=48),
        evaluation=replace(profile.evaluation, budgets=(24, 48), extensions=1))  # fmt: skip


def test_an_evaluation_samples_from_the_servers_of_the_profile(server, served):
    tables = load_tables(evaluate(served, "base", 0))
    assert {body["model"] for _, body in server.asked} == {"the-base"}
    rollouts, progress = tables["rollouts"], tables["progress"]
    assert len(rollouts) == 2 * 2 * served.evaluation.samples
    # J is this process's own: measured once more, of the same rollouts, it is the same.
    local = replace(served, model=replace(served.model, engine="transformers"))
    prover = Evaluator.load(local, "base", 0, None).prover
    row = rollouts.iloc[0]
    J = progress.query("problem == @row.problem and sample == @row['sample']")["J"]
    problem = next(p for p in load_problems(local.problems / "test.jsonl") if p.id == row.problem)
    assert prover.exact([of_record(row, problem)])[0] == pytest.approx(J.to_numpy(), abs=1e-4)


def test_an_adapter_is_loaded_under_a_name_that_its_weights_decide(server, served, tmp_path):
    names = []
    for seed in (0, 1):
        policy = add_lora(load_base(served), served.lora, seed)
        save_adapter(policy, tmp_path / "outcome-0")
        names.append(server_sampler(served, tmp_path / "outcome-0").model)
    assert names[0] != names[1] and all(name.startswith("outcome-0-") for name in names)
    loads = [body for path, body in server.asked if path == "/v1/load_lora_adapter"]
    assert [body["lora_name"] for body in loads] == names
    server.replies = [(400, {"error": "has already been loaded"})]
    assert server_sampler(served, tmp_path / "outcome-0").model == names[1]
    server.replies = [(404, {"error": "no such path"})]
    with pytest.raises(ServerError, match="refused.*no such path"):
        server_sampler(served, tmp_path / "outcome-0")
