"""Whether two mathematical answers are equal: integers directly, the rest by math-verify.

math-verify parses with sympy, which takes seconds on hostile input (`9^{9^9}`), so it runs in a
worker process that is ended when its time is up.
"""

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from functools import cache

SECONDS = 5.0
START_SECONDS = 120.0  # importing sympy and compiling the grammar, once, on a slow machine
_INTEGER = re.compile(r"[-+]?\d{1,30}")


def equivalent(reference: str, answer: str) -> bool:
    """Return whether an answer equals the reference; False when that takes over 5 s."""
    reference, answer = _plain(reference), _plain(answer)
    if reference == answer:
        return True
    if _INTEGER.fullmatch(reference) and _INTEGER.fullmatch(answer):
        return int(reference) == int(answer)
    if _hostile(answer):
        return False
    try:
        return _worker().submit(_verify, reference, answer).result(timeout=SECONDS)
    except Late:
        _end_worker()
        return False


def _plain(text: str) -> str:
    text = text.strip().strip("$").replace("\\!", "").replace("\\,", "").replace(" ", "")
    return re.sub(r"(?<=\d),(?=\d{3}(\D|$))", "", text)


def _hostile(text: str) -> bool:
    """Towers of powers and deep nesting never end well, and no reference holds them."""
    return text.count("^") + text.count("**") > 4 or sum(map(text.count, "({[")) > 20


def _verify(reference: str, answer: str) -> bool:
    from math_verify import parse, verify

    gold = parse(f"\\boxed{{{reference}}}", parsing_timeout=None)
    mine = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    # Two texts that both failed to parse would compare as equal.
    return bool(gold) and bool(mine) and bool(verify(gold, mine, timeout_seconds=None))


@cache
def _worker() -> ProcessPoolExecutor:
    # spawn: forking a process that holds torch threads can hang.
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    pool.submit(_verify, "\\frac{1}{2}", "0.5").result(timeout=START_SECONDS)
    return pool


def _end_worker() -> None:
    pool = _worker()
    for process in list(pool._processes.values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)
    _worker.cache_clear()
