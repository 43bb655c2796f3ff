"""How far a loop is: a bar with the time left in JupyterLab, a line now and then in a batch run."""

import os
import re
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

T = TypeVar("T")
EVERY = 10.0  # seconds from one line to the next
SAID = re.compile(r".*: \d+ of \d+, \d+ s left")  # such a line, which tells of the hour alone


def paced(items: Collection[T], name: str) -> Iterator[T]:
    """Yield items, and show how many are done and how long the rest will take.

    In a batch run, which sets TQDM_DISABLE as each update of a bar would be a line there, nothing
    is said before ten seconds have passed.
    """
    if os.environ.get("TQDM_DISABLE", "") in ("", "0"):
        from tqdm.auto import tqdm

        yield from tqdm(items, desc=name, leave=False)
        return
    began = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= EVERY and done < len(items):
            said = now
            left = (now - began) / done * (len(items) - done)
            print(f"{name}: {done} of {len(items)}, {left:.0f} s left", flush=True)
