"""Notices of libraries that ask nothing of a user, kept off the screen and out of cells."""

import logging
import warnings

# What bitsandbytes says while it is imported, and what transformers says of a name that TRL uses.
KERNEL = "Failed to load CPU gemm_4bit_forward"  # an optional speed-up, which we do not use
RENAMED = "`is_gradient_checkpointing` is deprecated"


def _of_use(record: logging.LogRecord) -> bool:
    return KERNEL not in str(record.msg)


def hush() -> None:
    """Drop these notices, and no others."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_of_use)
    warnings.filterwarnings("ignore", message=RENAMED, category=FutureWarning)
