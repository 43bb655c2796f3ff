"""Log-probabilities of given answers by teacher forcing, in packed or in plain passes.

L tokens of a row, N positions of a pass whose logits are needed, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedModel

from mrtlib import packing, passes
from mrtlib.kept import Kept, joined
from mrtlib.probes import Probe, ProverError, Termination

Job = tuple[int, int]  # boundary j, reference
LOGIT_ROWS = 2048  # rows of logits turned into float32 at a time


@dataclass(frozen=True)
class _Plan:
    """One row of a pass: its trie, and for each job the nodes of the reference and its closing."""

    trie: packing.Trie
    paths: dict[Job, list[int]]
    chain: int  # first nodes of the trie: the prompt and the trace, as far as they are in it
    kept: Kept | None = None
    cached: int = 0  # first nodes of the trie that `kept` holds

    @property
    def nodes(self) -> list[int]:
        """The nodes of all answers."""
        return sorted({node for path in self.paths.values() for node in path})


def answer_logprobs(
    model: PreTrainedModel,
    probes: Sequence[Probe],
    termination: Termination,
    temperature: float,
    pack_tokens: int,
    packed: bool,
    kept: Sequence[Kept] | None = None,
) -> dict[tuple[int, int, int], float]:
    """Return log p(reference and closing | what mu reads), keyed (probe, boundary, reference).

    Args:
        pack_tokens: bound on the padded tokens of a pass.
        packed: all boundaries and references of a probe in one row (split when over the bound),
            or a row for each.
        kept: caches of the probes' traces under the model's present weights, for a packed pass;
            what they hold is not computed again.

    Raises:
        ProverError: a temperature of 0, or references that are not prefix-free.
        ValueError: one boundary with one reference alone exceeds `pack_tokens`.
    """
    if temperature <= 0:
        raise ProverError(f"temperature is {temperature}; a probability needs one above 0")
    owned: list[tuple[int, _Plan]] = []
    for index, probe in enumerate(probes):
        answers = termination.answers(probe)
        jobs = [(j, r) for j in range(len(probe.ends)) for r in range(len(answers))]
        groups = [jobs] if packed else [[job] for job in jobs]
        for group in groups:
            plans = _split(probe, termination, answers, group, pack_tokens) if group else []
            plans = [_behind(plan, kept[index]) for plan in plans] if kept else plans
            owned += [(index, plan) for plan in plans]
    found = {}
    with passes.evaluating(model):
        for rows in packing.by_length([len(plan.trie) for _, plan in owned], pack_tokens):
            scores = _score(model, [owned[row][1] for row in rows], temperature, packed)
            for row, logp in zip(rows, scores, strict=True):
                index, plan = owned[row]
                found |= {(index, *job): logp[path].sum() for job, path in plan.paths.items()}
    return found


def _split(
    probe: Probe, termination: Termination, answers: list[list[int]], jobs: list[Job], limit: int
) -> list[_Plan]:
    """Plan the jobs as one row, or as several when one would hold more than `limit` tokens."""
    trie, paths, openings = packing.Trie(), {}, {}
    longest = probe.ends[max(j for j, _ in jobs)]
    trace = trie.extend(packing.ROOT, [*probe.prompt_ids, *probe.trace_ids[:longest]])
    for j, r in jobs:
        if j not in openings:
            cut = trace[len(probe.prompt_ids) + probe.ends[j] - 1]
            openings[j] = [cut, *trie.extend(cut, termination.suffix(probe, j))][-1]
        paths[j, r] = trie.extend(openings[j], answers[r])
    if len(trie) <= limit or len(jobs) == 1:
        return [_Plan(trie, paths, len(trace))]
    halves = jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]
    return [plan for half in halves for plan in _split(probe, termination, answers, half, limit)]


def _behind(plan: _Plan, kept: Kept) -> _Plan:
    """Let a plan go on from a kept cache, but for the nodes whose logits are needed."""
    needed = min(plan.trie.parents[node] for node in plan.nodes)
    known = kept.shared(plan.trie.tokens[: plan.chain])
    return replace(plan, kept=kept, cached=min(known, needed))


def _score(
    model: PreTrainedModel, plans: list[_Plan], temperature: float, packed: bool
) -> list[np.ndarray]:
    """Return log p of every answer node given its ancestors: (L,) for each plan, 0 elsewhere."""
    width = max(len(plan.trie) - plan.cached for plan in plans)
    keep = np.zeros((len(plans), width), dtype=bool)
    nodes = [plan.nodes for plan in plans]
    parents = [[p.trie.parents[i] - p.cached for i in row]
               for p, row in zip(plans, nodes, strict=True)]  # fmt: skip
    for row, at in enumerate(parents):
        keep[row, at] = True
    logits = _logits(model, plans, torch.from_numpy(keep).to(model.device), packed)  # (N, V)
    norm = torch.cat(
        [torch.logsumexp(part.float() / temperature, -1) for part in logits.split(LOGIT_ROWS)]
    )  # (N,)
    slots = keep.cumsum().reshape(keep.shape) - 1  # where a kept position landed among the N
    scores = [np.zeros(len(plan.trie)) for plan in plans]
    for row, (plan, targets, at) in enumerate(zip(plans, nodes, parents, strict=True)):
        slot = torch.from_numpy(slots[row, at]).to(logits.device)
        token = torch.tensor([plan.trie.tokens[i] for i in targets], device=logits.device)
        logp = logits[slot, token].float() / temperature - norm[slot]
        scores[row][targets] = logp.double().cpu().numpy()
    return scores


def _logits(
    model: PreTrainedModel, plans: list[_Plan], picked: torch.Tensor, packed: bool
) -> torch.Tensor:
    """Return the logits at the picked positions (R, L) of the plans' new nodes."""
    tries = [plan.trie for plan in plans]
    if not packed:
        return passes.forward_plain(model, tries, logits_to_keep=picked)
    cached = [plan.cached for plan in plans]
    kept = [plan.kept for plan in plans if plan.kept is not None]
    cache = joined(kept, cached, picked.shape[1]) if any(cached) else None
    return passes.forward_packed(model, tries, cache, picked, cached=cached)
