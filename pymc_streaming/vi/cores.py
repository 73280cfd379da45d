"""Which cores steps and passes may use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numba
from threadpoolctl import ThreadpoolController

__all__ = ["at_the_same_time", "leaving_cores", "n_cores"]

# The number of threads is one for the whole process, and so is what is known of it.
_lock = threading.Lock()
_contexts = 0
_limit: Any = None


@contextmanager
def leaving_cores(n: int) -> Iterator[None]:
    """A context in which BLAS leaves `n` of this process's cores to others, if it can.

    Its threads spin while they wait for the next product. With as many of them as there are cores,
    those that read got half of one, and a fit of 200 columns took twice as long. Of contexts at the
    same time the first decides, and the last one out restores what was.
    """
    global _contexts, _limit
    with _lock:
        if not _contexts:
            _limit = _limited(n)
        _contexts += 1
    try:
        yield
    finally:
        with _lock:
            _contexts -= 1
            if not _contexts:
                _limit.restore_original_limits()


def n_cores() -> int:
    """Cores of this process; no more than NUMBA_NUM_THREADS, where a person has set that."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, int(numba.config.NUMBA_NUM_THREADS))


def at_the_same_time[T](function: Callable[[T], None], pieces: Sequence[T]) -> None:
    """Call a function that releases the interpreter's lock on each of some pieces, in threads."""
    if len(pieces) == 1:
        function(pieces[0])
        return
    with ThreadPoolExecutor(len(pieces)) as pool:
        list(pool.map(function, pieces))


def _limited(n: int) -> Any:
    cores = n_cores()
    blas = ThreadpoolController().select(user_api="blas")
    wanted = [library["num_threads"] for library in blas.info()]  # a person may have chosen fewer
    return blas.limit(limits=min([max(1, cores - n), *wanted]))
