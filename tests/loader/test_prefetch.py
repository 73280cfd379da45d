from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from pymc_streaming.loader.prefetch import read_ahead, read_parallel


def size(_):
    return 10


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread for thread in threading.enumerate() if "pymc" in thread.name] == []


def test_items_come_in_order_from_another_thread():
    threads = set()

    def items():
        for i in range(100):
            threads.add(threading.current_thread())
            yield i

    assert list(read_ahead(items())) == list(range(100))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_the_error_is_the_one_that_was_raised_after_the_good_items():
    error = ValueError("broken")

    def items():
        yield 1
        yield 2
        raise error

    reader = read_ahead(items())
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(ValueError, match="broken") as caught:
        next(reader)
    assert caught.value is error
    assert "items" in [entry.name for entry in caught.traceback]


@pytest.mark.parametrize("how", ["close", "collect"])
def test_letting_go_closes_the_source_and_ends_the_thread(how):
    closed = threading.Event()

    def items():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    held = items()  # closed by the reader, not for want of references
    reader = read_ahead(held)
    next(reader)
    if how == "close":
        reader.close()
    del reader
    gc.collect()
    assert closed.is_set()


def test_parallel_delivers_in_order_whatever_finishes_first():
    def read(key):
        time.sleep(0.003 * (key % 3))
        for part in range(key % 4):
            yield key, part

    expected = [(key, part) for key in range(20) for part in range(key % 4)]
    for workers in 1, 2, 5:
        for max_bytes in 1, 1000:
            assert list(read_parallel(read, range(20), workers, max_bytes, size)) == expected


def test_parallel_reads_at_the_same_time():
    both = threading.Barrier(2, timeout=5)

    def read(key):
        both.wait()
        yield key

    assert list(read_parallel(read, range(2), 2, 100, size)) == [0, 1]


def test_parallel_raises_in_order():
    def read(key):
        if key == 1:
            raise ValueError("one")
        time.sleep(0.01)
        yield key

    reader = read_parallel(read, range(8), 4, 100, size)
    assert next(reader) == 0
    with pytest.raises(ValueError, match="one"):
        next(reader)


def test_parallel_bounds_what_waits_and_ends_when_closed():
    made = []

    def read(_):
        for part in range(100):
            made.append(part)
            yield part

    reader = read_parallel(read, range(50), 4, 80, size)
    next(reader)
    time.sleep(0.05)
    assert len(made) <= 1 + 8 + 4  # taken, waiting, one in the hands of each thread
    reader.close()


def test_a_read_that_hangs_does_not_keep_the_interpreter_from_exiting():
    program = """
        import time
        from pymc_streaming.loader.prefetch import read_ahead
        def items():
            yield 1
            time.sleep(60)
        reader = read_ahead(items())
        next(reader)
    """
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=40)
    assert time.monotonic() - start < 25
