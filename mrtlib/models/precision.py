"""The number type of the twin: bfloat16 where the hardware computes in it and little changes.

Sampling, probing and learning through a twin in bfloat16 take about two thirds of the time on such
hardware. What is sampled then depends on the hardware, so the default is the policy's own type.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from mrtlib.config import Profile
from mrtlib.models.compatibility import ALLOWED_SHORT, policy_gap
from mrtlib.models.quantization import Twin
from mrtlib.store import write_json


@dataclass(frozen=True)
class Precision:
    """What was found at the start of a run that asks for another number type."""

    asked: str
    used: str  # as torch names it
    error: float | None  # largest total variation from the policy's next tokens; None: not tried
    cause: str  # why what was asked for is not used, "" where it is


def computes_bfloat16(device: torch.device) -> bool:
    """Say whether a device multiplies matrices in bfloat16, and not by way of float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def twin_of(policy: PreTrainedModel, profile: Profile, record: Path) -> Twin:
    """Return the twin in the type that the profile asks for, or in the policy's own.

    Where another type is asked for, the twin's next-token distributions are compared with the
    policy's on a short input. What was found is printed, and written to `record`.
    """
    if profile.model.twin_dtype == "same":
        return Twin(policy)
    twin, error, cause = None, None, "this hardware does not compute in bfloat16"
    if computes_bfloat16(policy.device):
        twin = Twin(policy, torch.bfloat16)
        error = policy_gap(policy, twin.model)
        cause = "" if error <= ALLOWED_SHORT else f"more than {ALLOWED_SHORT:g} is not allowed"
    if cause:
        twin = Twin(policy)
    used = str(twin.model.dtype).removeprefix("torch.")
    write_json(record, asdict(Precision(profile.model.twin_dtype, used, error, cause)))
    far = "" if error is None else f", at most {error:.2g} from the policy (total variation)"
    print(f"twin in {used}{far}" + (f": {cause}" if cause else ""), flush=True)
    return twin
