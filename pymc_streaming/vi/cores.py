"""Which cores the step may use."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController

__all__ = ["leaving_cores"]


def leaving_cores(n: int) -> AbstractContextManager[object]:
    """A context in which BLAS leaves `n` of this process's cores to others, if it can.

    Its threads spin while they wait for the next product. With as many of them as there are cores,
    those that read got half of one, and a fit of 200 columns took twice as long.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    blas = ThreadpoolController().select(user_api="blas")
    wanted = [library["num_threads"] for library in blas.info()]  # a person may have chosen fewer
    limit: AbstractContextManager[object] = blas.limit(limits=min([max(1, cores - n), *wanted]))
    return limit
