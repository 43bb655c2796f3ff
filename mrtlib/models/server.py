"""Draw continuations from a server that speaks the OpenAI completions protocol, such as vLLM.

A request is one prompt as token ids: POST base_url/v1/completions with {"prompt": [1, 15, 8],
"n": 4, "logprobs": 0, "return_token_ids": true, ...}. Only the standard library is used.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrtlib.models.sampling import Sample, check_request

BUSY = (408, 429, 500, 502, 503, 504)  # a later attempt may succeed


class ServerError(ValueError):
    """A server that cannot be reached, refuses a request, or answers with something else."""


@dataclass(frozen=True)
class ServerSampler:
    """Sample from a server. The seed is passed on; the server decides whether to use it.

    Log-probabilities are the server's: vLLM reports them at temperature 1 unless started with
    `--logprobs-mode processed_logprobs`.
    """

    base_url: str  # such as http://localhost:8000, with or without /v1
    model: str
    timeout: float = 600.0  # seconds that one request may take
    retries: int = 3  # further attempts when the server is away or busy
    workers: int = 16  # requests in flight
    pause: float = 1.0  # seconds before the first retry, doubled before each further one

    @property
    def url(self) -> str:
        """The address that requests go to."""
        return self.base_url.rstrip("/").removesuffix("/v1") + "/v1/completions"

    def sample(
        self, prompts: list[list[int]], n: int, max_tokens: int, temperature: float, top_p: float,
        stop_ids: set[int], seed: int,
    ) -> list[list[Sample]]:  # fmt: skip
        """Return n continuations for each prompt, in the order of the prompts.

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
            [{**shared, "prompt": list(prompts[i]), "seed": _prompt_seed(seed, i)} for i in order]
        )
        found: list[list[Sample]] = [[] for _ in prompts]
        for index, answer in zip(order, answers, strict=True):
            found[index] = _completed(answer, n)
        return found

    def _ask_all(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send requests side by side, in their order; the first failure cancels the rest."""
        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(self._ask, request) for request in requests]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request; try again, a bounded number of times, when that may help."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        reason = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1))
            request = urllib.request.Request(self.url, data, headers)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {error.read(2000).decode(errors='replace')}"
                if error.code not in BUSY:
                    raise ServerError(f"{self.url} refused a request: {reason}") from error
            except json.JSONDecodeError as error:
                raise ServerError(f"{self.url} did not answer with JSON: {error}") from error
            except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, ...
                reason = str(error)
        raise ServerError(
            f"{self.url} failed {self.retries + 1} times, at last with: {reason}. "
            "Is the server up, and is the address right?"
        )


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


def _sample(choice: Mapping[str, Any]) -> Sample:
    ids = choice.get("token_ids")
    if ids is None:
        ids = [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]
    logprobs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
    if len(ids) != len(logprobs):
        raise ValueError(f"{len(ids)} token ids with {len(logprobs)} log-probabilities")
    return Sample(list(ids), logprobs, choice["finish_reason"] == "stop")
