"""Runs the parts of one call on some threads that sleep while there is nothing to do."""

import functools
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="segmodel")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def share(function: Callable[..., Any], tasks: Sequence[tuple], threads: int) -> None:
    """Call ``function(*task)`` for every task, on this thread and up to ``threads - 1`` others.

    ``function`` releases the interpreter's lock. Every thread takes the next task when it is done with one, and this
    one does not wait for a thread that has taken none: on a busy machine, where another thread may not run for
    milliseconds, two are not slower than one. torch's own threads (OpenMP) have equal shares, assigned in advance, and
    by default spin while they wait for the last: every small operator takes as long as its unluckiest thread is kept
    from running, and what spins is what keeps it (see ``segmodel/__init__.py``).
    """
    left = deque(tasks)

    def work() -> None:
        with suppress(IndexError):  # none is left
            while True:
                task = left.popleft()
                function(*task)

    helpers = min(threads, len(tasks)) - 1
    futures = [_pool(threads).submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        left.clear()
        for future in futures:
            if not future.cancel():
                future.result()
