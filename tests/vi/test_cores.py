from __future__ import annotations

import os
import threading

import numba
import pytest
import scipy.linalg  # noqa: F401 - brings a BLAS of its own
from threadpoolctl import ThreadpoolController, threadpool_limits

from pymc_streaming.vi import cores


def blas_threads() -> set[int]:
    return {info["num_threads"] for info in ThreadpoolController().select(user_api="blas").info()}


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 99)


@pytest.mark.parametrize(("leave", "left"), [(0, 8), (1, 7), (2, 6), (8, 1), (99, 1)])
def test_cores_are_left(leave, left, eight_cores):
    with threadpool_limits(8, user_api="blas"):
        before = blas_threads()
        with cores.leaving_cores(leave):
            assert blas_threads() <= {min(left, n) for n in before}
        assert blas_threads() == before


def test_no_more_than_a_person_wants(eight_cores):
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


def test_a_person_can_say_how_many_threads(eight_cores, monkeypatch):
    assert cores.n_cores() == 8
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    assert cores.n_cores() == 3


def test_pieces_are_looked_at_at_the_same_time():
    everybody = threading.Barrier(3, timeout=10)
    seen = []
    cores.at_the_same_time(lambda piece: seen.append((everybody.wait() >= 0, piece)), [1, 2, 3])
    assert sorted(seen) == [(True, 1), (True, 2), (True, 3)]


def test_what_fails_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        cores.at_the_same_time(lambda piece: 1 / piece, [1, 0])
