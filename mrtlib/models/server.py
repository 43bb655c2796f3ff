"""Draw continuations from a server that speaks the OpenAI completions protocol, such as vLLM.

A request is one prompt as token ids: POST base_url/v1/completions with {"prompt": [1, 15, 8],
"n": 4, "logprobs": 0, "return_token_ids": true, ...}. Only the standard library is used. An API key
is taken from the environment (MRT_API_KEY, or OPENAI_API_KEY), and written nowhere.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mrtlib.config import Profile
from mrtlib.models.sampling import Sample, check_request
from mrtlib.store import file_hashes

KEYS = ("MRT_API_KEY", "OPENAI_API_KEY")  # of the environment, the first that is set
LONGEST_PAUSE = 60.0  # seconds that a server may ask to be left alone for
BUSY = (408, 429, 500, 502, 503, 504)  # a later attempt may succeed


class ServerError(ValueError):
    """A server that cannot be reached, refuses a request, or answers with something else."""


class AwayError(ServerError):
    """A server that failed however often it was asked."""


@dataclass
class ServerSampler:
    """Sample from servers. The seed is passed on; a server decides whether to use it.

    Prompts are divided among the servers; those of one that fails for good go to the others.

    Log-probabilities are the server's: vLLM reports them at temperature 1 unless started with
    `--logprobs-mode processed_logprobs`.
    """

    base_urls: tuple[str, ...]  # such as http://localhost:8000, with or without /v1
    model: str
    timeout: float = 600.0  # seconds that one request may take
    retries: int = 3  # further attempts when the server is away or busy
    workers: int = 16  # requests in flight
    pause: float = 1.0  # seconds before the first retry, doubled before each further one
    dead: set[str] = field(default_factory=set, compare=False)  # addresses that failed for good
    # Through its model: each prompt once, and what was written. What a server reads again, or has
    # in its cache, it does not say.
    tokens: int = 0

    def sample(
        self, prompts: list[list[int]], n: int, max_tokens: int, temperature: float, top_p: float,
        stop_ids: set[int], seed: int, first: int = 0,
    ) -> list[list[Sample]]:  # fmt: skip
        """Return n continuations for each prompt, in the order of the prompts.

        Args:
            first: the index of the first prompt, where these are a part of more.

        Raises:
            ValueError: an empty prompt, or numbers out of range.
            ServerError: the server failed for good; its own message is in the text.
        """
        check_request(prompts, n, max_tokens, temperature, top_p)
        shared = {
            "model": self.model,
            "n": n,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop_token_ids": sorted(stop_ids),
            "logprobs": 0,  # of the sampled token alone
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,  # for servers without return_token_ids
        }
        # Sorted, so that prompts with a common prefix arrive while it is in the server's cache.
        order = sorted(range(len(prompts)), key=lambda i: prompts[i])
        answers = self._ask_all(
            [{**shared, "prompt": list(prompts[i]), "seed": _prompt_seed(seed, first + i)}
             for i in order]
        )  # fmt: skip
        found: list[list[Sample]] = [[] for _ in prompts]
        for index, answer in zip(order, answers, strict=True):
            found[index] = _completed(answer, n)
        written = sum(len(sample.token_ids) for samples in found for sample in samples)
        self.tokens += sum(map(len, prompts)) + written
        return found

    def score(self, rows: list[list[int]]) -> list[np.ndarray]:
        """Return log p of each row's tokens but the first, given those before: (T - 1,) each.

        Source: vLLM's `prompt_logprobs`; at temperature 1, whatever the server samples at.

        Raises:
            ServerError: the server failed for good, or does not know `prompt_logprobs`.
        """
        self.tokens += sum(map(len, rows))
        asked = {"model": self.model, "max_tokens": 1, "prompt_logprobs": 0, "temperature": 1.0}
        answers = self._ask_all([{**asked, "prompt": row} for row in rows])
        return [_scored(answer, row) for answer, row in zip(answers, rows, strict=True)]

    def _ask_all(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send requests side by side, in their order; the first failure cancels the rest.

        Neighbours go to the same server, as they may share a prefix.
        """
        homes = [i * len(self.base_urls) // len(requests) for i in range(len(requests))]
        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(self._ask, *pair) for pair in zip(requests, homes, strict=True)]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, body: Mapping[str, Any], home: int) -> dict[str, Any]:
        """Send one request to its server or, where that fails for good, to the next ones."""
        urls = [*self.base_urls[home:], *self.base_urls[:home]]
        failures = []
        for url in sorted(self._alive(), key=urls.index):
            try:
                return _as_json(self._ask_one(url, "completions", body), url)
            except AwayError as error:
                self.dead.add(url)
                failures.append(str(error))
        raise ServerError("; ".join(failures))

    def _ask_one(self, base_url: str, path: str, body: Mapping[str, Any]) -> bytes:
        """Send a request to one server; try again, a bounded number of times, when it may help.

        Returns:
            The body of its answer.

        Raises:
            AwayError: it failed each time.
            ServerError: it refuses the request.
        """
        url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), _headers())
        reason, pause = "", 0.0
        for attempt in range(self.retries + 1):
            time.sleep(pause)
            pause = self.pause * 2**attempt
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return response.read()
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {error.read(2000).decode(errors='replace')}"
                if error.code not in BUSY:
                    raise ServerError(f"{url} refused a request: {reason}") from error
                pause = max(pause, _asked_pause(error.headers.get("Retry-After")))
            except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, ...
                reason = str(error)
        raise AwayError(
            f"{url} failed {self.retries + 1} times, at last with: {reason}. "
            "Is the server up, and is the address right?"
        )

    def load_adapter(self, name: str, folder: Path) -> None:
        """Have every server load an adapter under a name, from a folder that it sees too.

        One that is away gets no more prompts, as it would not know the adapter.

        Source: vLLM's runtime LoRA updating (VLLM_ALLOW_RUNTIME_LORA_UPDATING=1).

        Raises:
            ServerError: a server refuses, or all are away.
        """
        failures = []
        for url in self._alive():
            try:
                self._ask_one(url, "load_lora_adapter",
                              {"lora_name": name, "lora_path": str(folder)})  # fmt: skip
            except AwayError as error:
                self.dead.add(url)
                failures.append(str(error))
            except ServerError as error:
                if "already" not in str(error):  # by this name, so with these weights
                    raise
        if self.dead >= set(self.base_urls):
            raise ServerError("; ".join(failures))

    def unload_adapter(self, name: str) -> None:
        """Have every server that still has an adapter let go of it."""
        for url in self._alive():
            with suppress(ServerError):
                self._ask_one(url, "unload_lora_adapter", {"lora_name": name})

    def _alive(self) -> list[str]:
        """Return the servers that have not failed for good, or all if all have."""
        return [url for url in self.base_urls if url not in self.dead] or list(self.base_urls)


def server_sampler(profile: Profile, adapter: Path | None) -> ServerSampler | None:
    """Return what samples from the servers: their base, or an adapter that they load now.

    None where the profile's engine is this process.
    """
    model = profile.model
    if model.engine != "server":
        return None
    if adapter is None:
        return ServerSampler(model.servers, model.served or model.name)
    sampler = ServerSampler(model.servers, served_name(adapter))
    sampler.load_adapter(sampler.model, adapter.absolute())
    return sampler


def served_name(adapter: Path) -> str:
    """Return what servers call an adapter: by its weights' hash, so that none serves older ones."""
    weights = file_hashes([adapter / "adapter_model.safetensors"], adapter)
    return f"{adapter.name}-{next(iter(weights.values()))[:12]}"


def _as_json(body: bytes, url: str) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ServerError(f"{url} did not answer with JSON: {error}") from error


def _headers() -> dict[str, str]:
    key = next(filter(None, map(os.environ.get, KEYS)), None)
    own = {"Authorization": f"Bearer {key}"} if key else {}
    return {"Content-Type": "application/json", **own}


def _asked_pause(text: str | None) -> float:
    """Return the seconds that a server asks to be left alone for; dates are not read."""
    return min(float(text), LONGEST_PAUSE) if text and text.isdigit() else 0.0


def _prompt_seed(seed: int, index: int) -> int:
    """Derive a prompt's seed; the two highest bits stay free, as servers add the sample index."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> 2)


def _completed(answer: Mapping[str, Any], n: int) -> list[Sample]:
    """Read the choices of one completed prompt."""
    try:
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        samples = [_sample(choice) for choice in choices]
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(
            f"the answer lacks what a sample needs ({error!r}): token ids and log-probabilities; "
            "use a server that knows return_token_ids, such as a recent vLLM"
        ) from error
    if len(samples) != n:
        raise ServerError(f"asked for {n} samples of a prompt, got {len(samples)}")
    return samples


def _scored(answer: Mapping[str, Any], row: list[int]) -> np.ndarray:
    """Read the log-probabilities of a prompt's tokens."""
    try:
        found = answer["choices"][0]["prompt_logprobs"][1:]
        return np.array([float(at[str(token)]["logprob"])
                         for at, token in zip(found, row[1:], strict=True)])  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ServerError(
            f"the answer lacks the log-probabilities of the prompt's tokens ({error!r}); use a "
            "server that knows prompt_logprobs, such as a recent vLLM"
        ) from error


def _sample(choice: Mapping[str, Any]) -> Sample:
    ids = choice.get("token_ids")
    if ids is None:
        ids = [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]
    logprobs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
    if len(ids) != len(logprobs):
        raise ValueError(f"{len(ids)} token ids with {len(logprobs)} log-probabilities")
    return Sample(list(ids), logprobs, choice["finish_reason"] == "stop")
