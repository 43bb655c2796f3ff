"""The pass with gradients: log-probabilities for TRL's loss, in parts without padding.

TRL pads the rollouts of a batch to one width, prompts on the left and completions on the right, and
runs them as one pass with a mask. Here rows of similar length make a part, each row moved to the
left edge. Then no real token has padding before it, so none can see any: a part needs no mask, and
attention takes its causal kernel. The numbers go back to their places in TRL's layout; the loss and
its log remain those of the whole batch. B rows, T tokens of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from mrtlib.config import Profile
from mrtlib.models.packing import by_length
from mrtlib.models.quantization import Twin

IGNORED = -100  # the label of a token that is not scored


def learner(policy: PreTrainedModel, twin: Twin | None, profile: Profile) -> Any:
    """Return what TRL may call in the policy's place: equal log-probabilities and gradients.

    `model.merged` computes them through the twin, where its gradients reach all that is trained;
    `training.part_tokens` = 0 leaves the batch to TRL, padded and masked.
    """
    model = policy
    if profile.model.merged and twin is not None and twin.learns:
        model = through(twin, profile.training.temperature)
    parts = profile.training.part_tokens
    return InParts(model, parts) if parts else model


def through(twin: Twin, temperature: float) -> PreTrainedModel:
    """Return the twin at the policy's weights and in its mode, with the head that TRL scores by."""
    model, policy = twin.refresh(), twin.policy
    if not hasattr(model, "scored_at"):
        add_fused_lm_head(model, temperature, outputs=("log_probs", "entropy"))
        model.scored_at = temperature
    if policy.is_activation_checkpointing and not model.is_activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train(policy.training)


@dataclass(frozen=True)
class InParts:
    """A model that is run on parts of a batch."""

    model: PreTrainedModel
    tokens: int  # of a part, padding included; a longer row is a part of its own

    def __call__(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor,
        **options: Any,
    ) -> FusedCausalLMOutput:  # fmt: skip
        """Return log-probabilities and entropies (B, T - 1), 0 where nothing is scored.

        Args:
            input_ids, attention_mask, labels: (B, T); a row's real tokens stand together.

        Raises:
            ValueError: a row with padding between real tokens.
        """
        places, scores, entropies = [], [], []
        for rows, columns, real in self._parts(attention_mask):
            if not attention_mask[rows, columns][real].all():
                raise ValueError("a row has padding between its tokens; set part_tokens to 0")
            label = labels[rows, columns].masked_fill(~real, IGNORED)
            found = self.model(input_ids=input_ids[rows, columns], labels=label, **options)
            scored = label[:, 1:] != IGNORED
            places.append((rows.expand_as(scored)[scored], columns[:, :-1][scored]))
            scores.append(found.log_probs[scored])
            entropies.append(found.entropy[scored])
        at = tuple(torch.cat(side) for side in zip(*places, strict=True))
        size = labels.shape[0], labels.shape[1] - 1
        spread = [torch.cat(x) for x in (scores, entropies)]
        log_probs, entropy = (x.new_zeros(size).index_put(at, x) for x in spread)
        return FusedCausalLMOutput(log_probs=log_probs, entropy=entropy)

    def _parts(self, mask: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield rows (n, 1) and columns (n, t) of each part, and which of them are tokens."""
        lengths, starts = mask.sum(1), mask.argmax(1)
        limit = max(self.tokens, int(lengths.max()))
        for part in by_length(lengths.tolist(), limit):
            rows = torch.tensor(part, device=mask.device)
            offsets = torch.arange(int(lengths[rows].max()), device=mask.device)
            real = offsets < lengths[rows, None]
            columns = (starts[rows, None] + offsets).clamp(max=mask.shape[1] - 1)
            yield rows[:, None], columns, real
