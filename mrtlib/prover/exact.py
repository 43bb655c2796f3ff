"""Exact J: the probabilities of reference answers by teacher forcing, in packed or plain passes.

L tokens of a row, N positions of a pass whose logits are needed, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from mrtlib.models import packing
from mrtlib.models.caches import Kept, as_rows
from mrtlib.models.compatibility import obstacle
from mrtlib.prover.probes import Probe, ProverError, Termination, check_references

Job = tuple[int, int]  # boundary j, reference
LOGIT_ROWS = 2048  # rows of logits turned into float32 at a time


@dataclass(frozen=True)
class Limits:
    """How probes share passes; see `config.ProverSettings`."""

    row: int = 16384  # tokens: a trace whose row would be longer is split
    joined: int = 2048  # most tokens of a pass of several rows, padding included
    equal_once: bool = True  # where mu reads the same at two boundaries, it is asked once


@dataclass(frozen=True)
class _Written:
    """One spelling of a reference in a row: the opening's last node, then those of its tokens."""

    path: list[int]
    ends: tuple[int, ...]  # the last token is read off the logits of the last node


@dataclass(frozen=True)
class _Plan:
    """One row of a pass: its trie, and for each job the spellings of the reference."""

    trie: packing.Trie
    spellings: dict[Job, list[_Written]]
    kept: Kept | None = None
    cached: int = 0  # first nodes of the trie that are in `kept`, and are not computed again

    @property
    def nodes(self) -> list[int]:
        """The nodes whose logits are needed, ascending."""
        return sorted({node for each in self.spellings.values() for one in each
                       for node in one.path})  # fmt: skip


def packed(
    model: PreTrainedModel, probes: Sequence[Probe], termination: Termination,
    temperature: float = 1.0, limits: Limits = Limits(), kept: Sequence[Kept] | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """Return the probability that mu writes a reference answer, at every boundary.

    J_j = Σ_y Π_i p(y_i | prompt, z_{0:j}, termination text, y_{<i}), y a spelling of a reference
    with its closing, p at the given temperature. All boundaries and references of a trace share
    one row of a packed pass.

    Args:
        kept: caches of the traces from sampling, one for each probe, under the same weights;
            then only the termination texts and references go through the model.

    Returns:
        For each probe J_0 ... J_k, float64 (k+1,).

    Raises:
        ProverError: a temperature of 0; references that are not prefix-free; a model that cannot
            share prefixes (use `unpacked`; `Prover.exact` chooses).
        ValueError: one boundary with one reference alone exceeds `limits.row`.
    """
    if reason := obstacle(model):
        raise ProverError(f"{reason}; use exact.unpacked")
    return _success(model, probes, termination, temperature, limits, True, kept)


def unpacked(
    model: PreTrainedModel, probes: Sequence[Probe], termination: Termination,
    temperature: float = 1.0, limits: Limits = Limits(),
) -> list[np.ndarray]:  # fmt: skip
    """Return what `packed` returns from one plain row per boundary and reference: any model."""
    return _success(model, probes, termination, temperature, limits, False)


def _success(
    model: PreTrainedModel, probes: Sequence[Probe], termination: Termination, temperature: float,
    limits: Limits, packed: bool, kept: Sequence[Kept] | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """Return J_0 ... J_k of each probe, its jobs in one packed row or in a plain row each."""
    if temperature <= 0:
        raise ProverError(f"temperature is {temperature}; a probability needs one above 0")
    read = [[termination.prompt(p, j) for j in range(len(p.ends))] for p in probes]
    first = _first_of_equals(probes, read) if limits.equal_once else {}
    owned: list[tuple[int, _Plan]] = []
    for index, probe in enumerate(probes):
        check_references(probe.references)
        own = [j for j in range(len(probe.ends)) if first.get((index, j), (index, j)) == (index, j)]
        jobs = [(j, r) for j in own for r in range(len(probe.references))]
        groups = [jobs] if packed else [[job] for job in jobs]
        cache = kept[index] if kept else None
        owned += [(index, plan) for group in groups if group
                  for plan in _plans(probe, read[index], group, limits.row, cache)]  # fmt: skip
    totals = [np.zeros(len(probe.ends)) for probe in probes]
    lengths = [len(plan.trie) - plan.cached for _, plan in owned]
    together = max([limits.joined, *lengths])
    with packing.evaluating(model):
        for rows in packing.by_length(lengths, together):
            scores = _log_probabilities(model, [owned[row][1] for row in rows], temperature, packed)
            for row, logp in zip(rows, scores, strict=True):
                for (j, _), value in logp.items():
                    totals[owned[row][0]][j] += np.exp(value)
    for (index, j), (other, i) in first.items():
        totals[index][j] = totals[other][i]
    return totals


def _first_of_equals(
    probes: Sequence[Probe], read: Sequence[Sequence[list[int]]]
) -> dict[tuple[int, int], tuple[int, int]]:
    """Return, for every probe and boundary, the first at which mu reads the same.

    J_0 is one number for all rollouts of a problem, and so is J behind any beginning that they
    have in common.

    Args:
        read: what mu reads at each boundary of each probe.
    """
    known: dict[tuple, tuple[int, int]] = {}
    return {
        (index, j): known.setdefault((tuple(prompt), tuple(probe.references)), (index, j))
        for index, (probe, prompts) in enumerate(zip(probes, read, strict=True))
        for j, prompt in enumerate(prompts)
    }


def _plans(
    probe: Probe, read: Sequence[list[int]], jobs: list[Job], limit: int, kept: Kept | None
) -> list[_Plan]:
    """Plan the jobs as one row, or as several when one would have more than `limit` tokens."""
    trie, spellings, openings = packing.Trie(), {}, {}
    longest = probe.ends[max(j for j, _ in jobs)]
    trace = trie.extend(packing.ROOT, [*probe.prompt_ids, *probe.trace_ids[:longest]])
    for j, r in jobs:
        if j not in openings:
            at = _parting(read[j], trie.tokens, len(probe.prompt_ids) + probe.ends[j])
            openings[j] = trie.extend(at - 1 if at else packing.ROOT, read[j][at:])[-1]
        spellings[j, r] = [
            _Written([openings[j], *trie.extend(openings[j], one.tokens)], one.ends)
            for one in probe.references[r]
        ]
    if len(trie) > limit and len(jobs) > 1:
        halves = jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]
        return [plan for half in halves for plan in _plans(probe, read, half, limit, kept)]
    if len(trie) > limit:
        raise ValueError(
            f"one boundary with one reference has {len(trie)} tokens, over the limit of {limit}; "
            "raise prover.pack_tokens"
        )
    if kept is None:
        return [_Plan(trie, spellings)]
    # A node whose logits are needed is computed even if it is in the cache.
    known = packing.common(kept.token_ids, trie.tokens[: len(trace)])
    return [_Plan(trie, spellings, kept, min(known, *openings.values()))]


def _parting(read: list[int], trace: list[int], end: int) -> int:
    """Return how many of the first tokens are the trace's: up to its cut, or just before."""
    return next((n for n in (end, end - 1, end - 2) if n > 0 and read[:n] == trace[:n]), 0)


def _log_probabilities(
    model: PreTrainedModel, plans: list[_Plan], temperature: float, packed: bool
) -> list[dict[Job, float]]:
    """Return log p of every job's reference for each plan."""
    width = max(len(plan.trie) - plan.cached for plan in plans)
    keep = np.zeros((len(plans), width), dtype=bool)
    for row, plan in enumerate(plans):
        keep[row, np.array(plan.nodes) - plan.cached] = True
    logits = _logits(model, plans, torch.from_numpy(keep).to(model.device), packed)  # (N, V)
    norm = torch.cat(
        [torch.logsumexp(part.float() / temperature, -1) for part in logits.split(LOGIT_ROWS)]
    )  # (N,)
    slots = keep.cumsum().reshape(keep.shape) - 1  # (R, L) the place of a position among the N

    def read(slot: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
        """Return log p of tokens given what stands at their slots."""
        at = torch.from_numpy(slot).to(logits.device)
        token = torch.tensor(tokens, device=logits.device)
        logp = logits[at, token].float() / temperature - norm[at]
        return logp.double().cpu().numpy()

    return [_summed(plan, slots[row], read) for row, plan in enumerate(plans)]


def _summed(
    plan: _Plan, slots: np.ndarray, read: Callable[[np.ndarray, Sequence[int]], np.ndarray]
) -> dict[Job, float]:
    """Return log p of each job's reference: spellings added, each the product of its tokens."""
    trie, every = plan.trie, [one for each in plan.spellings.values() for one in each]
    logp = np.zeros(len(trie))
    if nodes := sorted({node for one in every for node in one.path[1:]}):
        parents = np.array([trie.parents[node] for node in nodes])
        logp[nodes] = read(slots[parents - plan.cached], [trie.tokens[node] for node in nodes])
    endings = list({(one.path[-1], one.ends) for one in every})
    sizes = [len(ends) for _, ends in endings]
    last = np.repeat([node for node, _ in endings], sizes)
    ended = read(slots[last - plan.cached], [token for _, ends in endings for token in ends])
    starts = np.cumsum([0, *sizes[:-1]])
    closed = dict(zip(endings, np.logaddexp.reduceat(ended, starts), strict=True))
    return {
        job: float(np.logaddexp.reduce(
            [logp[one.path[1:]].sum() + closed[one.path[-1], one.ends] for one in each]
        ))
        for job, each in plan.spellings.items()
    }  # fmt: skip


def _logits(
    model: PreTrainedModel, plans: list[_Plan], picked: torch.Tensor, packed: bool
) -> torch.Tensor:
    """Return the logits at the picked positions (R, L) of the plans' new nodes."""
    tries = [plan.trie for plan in plans]
    if not packed:
        return packing.forward_plain(model, tries, logits_to_keep=picked)
    cached = [plan.cached for plan in plans]
    cache = as_rows([plan.kept for plan in plans], cached, picked.shape[1]) if any(cached) else None
    return packing.forward_packed(model, tries, cache, picked, cached=cached)
