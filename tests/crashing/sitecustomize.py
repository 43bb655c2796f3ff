"""Kills a process in the middle of a write; for `crash.py`, which puts this folder on its path.

CRASH=SUFFIX:COUNT:WHEN kills it at the COUNT-th file of that name's end, before or after the file
is put in its place.
"""

import os
import signal

if plan := os.environ.get("CRASH"):
    suffix, count, when = plan.split(":")
    left, real = [int(count)], os.replace

    def replace(source, target, **options):
        """Put a file in its place, unless it is the one to be killed at."""
        left[0] -= str(target).endswith(suffix)
        if left[0] == 0 and str(target).endswith(suffix):
            if when == "after":
                real(source, target, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target, **options)

    os.replace = replace
