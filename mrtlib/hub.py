"""Is the model hub in reach?"""

from functools import cache

from huggingface_hub import constants
from huggingface_hub.utils import get_session

SECONDS = 5.0


@cache
def hub_answers() -> bool:
    """Say whether the hub answers within a few seconds; its library would try for a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # whatever the network and its library make of it
        return False
    return True
