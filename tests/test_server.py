"""The server engine against a stub on localhost that answers as vLLM does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mrtlib.models.sampling import Sample
from mrtlib.models.server import ServerError, ServerSampler


class Stub(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        status, answer = self.server.replies.pop(0) if self.server.replies else (200, None)
        data = json.dumps(good(body) if answer is None else answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def good(body):
    """Say the prompt's sum and the sample's index; odd samples end with the stop token."""
    choices = []
    for index in reversed(range(body["n"])):  # the order of choices is not promised
        ids = [sum(body["prompt"]), index] + body["stop_token_ids"][:1] * (index % 2)
        choices.append({
            "index": index, "text": "", "token_ids": ids,
            "finish_reason": "stop" if index % 2 else "length",
            "logprobs": {"tokens": [f"token_id:{i}" for i in ids],
                         "token_logprobs": [-0.5] * len(ids)},
        })  # fmt: skip
    return {"choices": choices}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    stub = HTTPServer(("127.0.0.1", 0), Stub)
    stub.asked, stub.replies = [], []
    thread = threading.Thread(target=stub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield stub
    stub.shutdown()
    stub.server_close()
    thread.join()


def ask(server, prompts, n=2, **changes):
    address = f"http://127.0.0.1:{server.server_port}"
    settings = {"workers": 1, "pause": 0.0, "timeout": 5.0} | changes
    return ServerSampler(address + "/v1/", "a-model", **settings).sample(
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
    sampler = ServerSampler("http://127.0.0.1:9", "m", timeout=1.0, retries=1, pause=0.0)
    with pytest.raises(ServerError, match="127.0.0.1:9.*failed 2 times"):
        sampler.sample([[1]], 1, 1, 1.0, 1.0, set(), 0)


def test_an_empty_prompt_is_refused_before_anything_is_sent(server):
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        ask(server, [[]])
    assert server.asked == []
