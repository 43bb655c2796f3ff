"""Exact J scored by a server, which teacher-forces the references: `prompt_logprobs`.

A server takes no packed rows: it reads the prefix anew for each boundary and spelling, and keeps no
caches for it. So the trainer's own pass is the default, and by far the cheaper one
(`make test-server` measures by how much); this is there to check one against the other.
"""

from collections.abc import Sequence

import numpy as np

from mrtlib.models.server import ServerSampler
from mrtlib.prover.probes import Probe, Termination


def served(
    sampler: ServerSampler, probes: Sequence[Probe], termination: Termination
) -> list[np.ndarray]:
    """Return what `exact.packed` returns, at temperature 1, from the probabilities of a server.

    Raises:
        ServerError: it failed for good, or does not know `prompt_logprobs`.
    """
    rows, places = [], []
    for index, probe in enumerate(probes):
        for j in range(len(probe.ends)):
            read = termination.prompt(probe, j)
            for spelling in (one for reference in probe.references for one in reference):
                for end in spelling.ends:
                    rows.append([*read, *spelling.tokens, end])
                    places.append((index, j, len(spelling.tokens) + 1))
    totals = [np.zeros(len(probe.ends)) for probe in probes]
    for (index, j, size), logp in zip(places, sampler.score(rows), strict=True):
        totals[index][j] += np.exp(logp[-size:].sum())
    return totals
