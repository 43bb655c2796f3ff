"""Draw continuations of token-id prompts: the `Sampler` protocol and its transformers engine.

A prompt is a list of ids, so to continue a rollout is to sample from a longer prompt. The random
number of a draw is a function of (seed, prompt index, sample index, step) alone: the same seed
gives the same samples whatever the batch size, up to rounding in the model. Prompts may be sampled
in parts, here or in several processes: `first` is the place of a part among all of them. B rows,
V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from mrtlib.models import caches, compatibility, packing
from mrtlib.models.caches import Kept


@dataclass(frozen=True)
class Sample:
    """One continuation. `finished`: it ended with a stop token, which it includes."""

    token_ids: list[int]
    logprobs: list[float]  # natural log, at the sampling temperature, before top-p
    finished: bool


class Sampler(Protocol):
    """Anything that continues prompts: a model in this process, or a server."""

    tokens: int  # through its model so far

    def sample(
        self, prompts: list[list[int]], n: int, max_tokens: int, temperature: float, top_p: float,
        stop_ids: set[int], seed: int, first: int = 0,
    ) -> list[list[Sample]]:  # fmt: skip
        """Return n continuations for each prompt, in the order of the prompts."""
        ...


def noise(seed: int, prompt: int, sample: int, steps: int) -> np.ndarray:
    """Return the uniforms in [0, 1) that decide one sample's tokens: (steps,).

    From a counter-based generator (Philox), keyed by (seed, prompt, sample) with the step as its
    counter; fewer steps give the beginning of the same sequence.
    """
    key = np.array([seed, (prompt << 32) + sample], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(steps)


def draw(
    logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw tokens by inverting the distribution function: min { v : F(v) > u }.

    Args:
        logits: (B, V) float32.
        uniforms: (B,) float64 in [0, 1).
        temperature: 0 takes the most likely token.
        top_p: keep the fewest most likely tokens whose probability adds up to this
            (arXiv 1904.09751).

    Returns:
        Tokens (B,), and their log-probabilities (B,) at the temperature, before top-p.
    """
    logp = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
    if temperature == 0:
        tokens = logp.argmax(dim=-1)
    else:
        p = logp.exp().double()  # a float32 sum would lose unlikely tokens of a large vocabulary
        if top_p < 1:
            ranked, order = p.sort(dim=-1, descending=True)
            ranked[ranked.cumsum(dim=-1) - ranked >= top_p] = 0.0
            p = torch.zeros_like(p).scatter(-1, order, ranked)
        total = p.cumsum(dim=-1)
        tokens = torch.searchsorted(total, uniforms[:, None] * total[:, -1:], right=True)[:, 0]
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logp.gather(-1, tokens[:, None])[:, 0]


class TransformersSampler:
    """Sample from a causal language model in this process.

    Each distinct prefix is computed once and forked; finished rows leave the batch; the cache
    grows in reserved room. The model's training mode is restored.
    """

    def __init__(self, model: PreTrainedModel, pad_id: int, batch_rows: int) -> None:
        """Keep the model (LoRA-wrapped or not); `batch_rows` continuations are drawn at a time."""
        if batch_rows < 1:
            raise ValueError(f"batch_rows is {batch_rows}; give 1 or more")
        self.model, self.pad_id, self.batch_rows = model, pad_id, batch_rows
        self.tokens = 0

    def sample(
        self, prompts: list[list[int]], n: int, max_tokens: int, temperature: float, top_p: float,
        stop_ids: set[int], seed: int, first: int = 0, kept: dict[int, Kept] | None = None,
    ) -> list[list[Sample]]:  # fmt: skip
        """Return n continuations for each prompt, in the order of the prompts.

        Args:
            first: the index of the first prompt, where these are a part of more.
            kept: where it is given, the cache of each prompt's last continuation is put there, by
                the prompt's index.

        Raises:
            ValueError: an empty prompt, or numbers out of range.
            ModelError: a model that gives another result with a cache than without.
        """
        check_request(prompts, n, max_tokens, temperature, top_p)
        places: dict[tuple[int, ...], list[int]] = {}
        for index, prompt in enumerate(prompts):
            places.setdefault(tuple(prompt), []).append(index)
        found: list[list[Sample]] = [[] for _ in prompts]
        stop = torch.tensor(sorted(stop_ids), dtype=torch.long, device=self.model.device)
        compatibility.obstacle(self.model)  # tries the model once, uncounted
        with packing.evaluating(self.model), packing.counted(self.model) as through:
            for wave in _waves(places, n, self.batch_rows):
                prefixes = self._prefill(wave)
                rows = [
                    (owner, index, sample)
                    for owner, prompt in enumerate(wave)
                    for index in places[tuple(prompt)]
                    for sample in range(n)
                ]
                for part in np.array_split(np.array(rows), -(-len(rows) // self.batch_rows)):
                    owners, indices, numbers = part.T.tolist()
                    keys = zip((first + i for i in indices), numbers, strict=True)
                    uniforms = np.array([noise(seed, *key, max_tokens) for key in keys])
                    forks = prefixes.fork(owners, max_tokens)
                    states = None if kept is None else {}
                    drawn = self._decode(forks, uniforms, temperature, top_p, stop, states)
                    for row, (index, sample) in enumerate(zip(indices, drawn, strict=True)):
                        found[index].append(sample)
                        if kept is not None:
                            known = [*prompts[index], *sample.token_ids[:-1]]
                            kept[index] = Kept(known, states[row])
        self.tokens += sum(through)
        return found

    def sample_and_keep(
        self, prompts: list[list[int]], *settings: Any
    ) -> tuple[list[Sample], list[Kept]]:
        """Return one continuation for each prompt, and the cache of prompt and continuation.

        The caches lack the last token, and take as much memory again as the sampling's own.

        Args:
            settings: those of `sample` from `max_tokens` to `first`.
        """
        kept: dict[int, Kept] = {}
        found = self.sample(prompts, 1, *settings, kept=kept)
        return [samples[0] for samples in found], [kept[i] for i in range(len(prompts))]

    def _prefill(self, prompts: list[list[int]]) -> caches.SharedPrefixes | caches.PaddedPrompts:
        if compatibility.can_share(self.model, "each prompt is prefilled on its own"):
            return caches.SharedPrefixes(self.model, prompts, self.pad_id)
        compatibility.require_steps(self.model)
        return caches.PaddedPrompts(self.model, prompts, self.pad_id)

    def _decode(
        self, forks: caches.Forks | caches.PointedForks, uniforms: np.ndarray, temperature: float,
        top_p: float, stop: torch.Tensor, states: dict[int, list] | None,
    ) -> list[Sample]:  # fmt: skip
        """Draw until every row has ended or the uniforms (rows, steps) are used up.

        Where `states` is given, each row's keys and values are put there when it leaves the batch.
        """
        u = torch.from_numpy(uniforms).to(self.model.device)
        tokens = torch.zeros(u.shape, dtype=torch.long, device=u.device)
        logprobs = torch.zeros(u.shape, device=u.device)
        lengths = torch.full(u.shape[:1], u.shape[1], device=u.device)
        finished = torch.zeros(u.shape[:1], dtype=torch.bool, device=u.device)
        alive = torch.arange(u.shape[0], device=u.device)  # rows of the batch -> rows of the result
        for step in range(u.shape[1]):
            logits = forks.step(self.model)
            forks.last, logp = draw(logits, u[alive, step], temperature, top_p)
            tokens[alive, step], logprobs[alive, step] = forks.last, logp
            ended = alive[torch.isin(forks.last, stop) & ~finished[alive]]
            lengths[ended], finished[ended] = step + 1, True
            going = (~finished[alive]).nonzero()[:, 0]
            if len(going) == 0:
                break
            if len(going) < len(alive) and not forks.fixed:
                if states is not None:
                    ended = finished[alive].nonzero()[:, 0].tolist()
                    states |= {int(alive[row]): forks.states(row) for row in ended}
                stay = caches.filling_gaps(going)
                alive = alive[stay]
                forks.keep(stay)
        if states is not None:
            states |= {place: forks.states(row) for row, place in enumerate(alive.tolist())}
        columns = tokens.tolist(), logprobs.tolist(), lengths.tolist(), finished.tolist()
        return [Sample(t[:k], p[:k], f) for t, p, k, f in zip(*columns, strict=True)]


def check_request(
    prompts: list[list[int]], n: int, max_tokens: int, temperature: float, top_p: float
) -> None:
    """Raise ValueError for an empty prompt or a number out of range."""
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {index} is empty; a prompt needs at least one token")
    if n < 1 or max_tokens < 1:
        raise ValueError(f"n is {n} and max_tokens is {max_tokens}; both must be 1 or more")
    if temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"temperature is {temperature} and top_p is {top_p}; "
            "give a temperature of 0 or more and a top_p in (0, 1]"
        )


def _waves(
    places: dict[tuple[int, ...], list[int]], n: int, batch_rows: int
) -> Iterator[list[list[int]]]:
    """Yield prompts to prefill together: whole families, about one batch of rows."""
    prompts = [list(prompt) for prompt in places]
    rows = [n * len(indices) for indices in places.values()]
    wave: list[int] = []
    for family in packing.families(prompts):
        if wave and sum(rows[i] for i in wave + family) > batch_rows:
            yield [prompts[i] for i in wave]
            wave = []
        wave = wave + family
    if wave:
        yield [prompts[i] for i in wave]
