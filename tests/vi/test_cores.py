from __future__ import annotations

import os

import pytest
import scipy.linalg  # noqa: F401 - brings a BLAS of its own
from threadpoolctl import ThreadpoolController, threadpool_limits

from pymc_streaming.vi import cores


def blas_threads() -> set[int]:
    return {info["num_threads"] for info in ThreadpoolController().select(user_api="blas").info()}


@pytest.mark.parametrize(("leave", "left"), [(0, 8), (1, 7), (2, 6), (8, 1), (99, 1)])
def test_cores_are_left(leave, left, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    with threadpool_limits(8, user_api="blas"):
        before = blas_threads()
        with cores.leaving_cores(leave):
            assert blas_threads() <= {min(left, n) for n in before}
        assert blas_threads() == before


def test_no_more_than_a_person_wants(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    with threadpool_limits(1, user_api="blas"), cores.leaving_cores(2):
        assert blas_threads() == {1}


def test_the_last_of_several_restores():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        first, second = cores.leaving_cores(99), cores.leaving_cores(99)
        assert blas_threads() == before
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before
