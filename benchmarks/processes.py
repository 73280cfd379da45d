"""Measuring in a process of its own, so that nothing that was measured before is in the way."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from benchmarks import BenchmarkError

WATCH_SECONDS = 0.02


class ChildError(BenchmarkError):
    """What was raised in the other process, as text."""


def each_from_fresh(
    function: Callable[..., Iterator[Any]],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Iterator[Any]:
    """What a generator yields in a fresh process, as it comes; `watch` has its number meanwhile."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    with _environment(environment or {}):
        process = context.Process(target=_send_each, args=(send, function, arguments))
        process.start()
    send.close()
    try:
        while True:
            while watch is not None and not receive.poll(WATCH_SECONDS):
                watch(process.pid or 0)
            try:
                kind, value = receive.recv()
            except EOFError:
                process.join()
                raise ChildError(
                    f"{function.__name__} ended with exit code {process.exitcode}; -9 is what the "
                    "system does when memory runs out."
                ) from None
            if kind == "end":
                break
            if kind == "error":
                raise ChildError(value)
            yield value
        process.join()
    finally:
        if process.is_alive():
            process.terminate()
            process.join()


def from_fresh(
    function: Callable[..., Any],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Any:
    """What a function returns in a fresh process."""
    return next(each_from_fresh(_once, function, arguments, environment=environment, watch=watch))


def peak_mib() -> float:
    """Largest resident memory of this process so far.

    Pages of mapped files count while they are mapped and in memory.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Children:
    """Largest resident memory of all children of a process together, looked at now and then.

    The system's own figure, RUSAGE_CHILDREN, cannot be used: a child that runs another program is
    a copy of its parent for a moment, and counts as large. Here it counts from the second look on.
    """

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._seen: set[int] = set()

    def __call__(self, process: int) -> None:
        """Look at the children of a process."""
        total, seen = 0, set()
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process).children(recursive=True):
                seen.add(child.pid)
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    total += child.memory_info().rss if child.pid in self._seen else 0
        self._seen = seen
        self.peak_mib = max(self.peak_mib, total / 2**20)


def quiet() -> None:
    """No warnings of fits that are too short to converge, and no log of them."""
    warnings.simplefilter("ignore")
    logging.getLogger("pymc").setLevel(logging.ERROR)


def float_environment(precision: str) -> dict[str, str]:
    """The settings that give every package this precision."""
    flags = [flag for flag in os.environ.get("PYTENSOR_FLAGS", "").split(",") if flag]
    return {
        "PYTENSOR_FLAGS": ",".join([*flags, f"floatX={precision}"]),
        "JAX_ENABLE_X64": str(int(precision == "float64")),
    }


def own_caches(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The same settings, and folders of their own for what PyTensor and Numba compile."""
    flags = f"{environment['PYTENSOR_FLAGS']},base_compiledir={folder / 'pytensor'}"
    return {**environment, "PYTENSOR_FLAGS": flags, "NUMBA_CACHE_DIR": str(folder / "numba")}


def _once(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Iterator[Any]:
    yield function(*arguments)


def _send_each(
    send: Connection, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]
) -> None:
    try:
        for value in function(*arguments):
            send.send(("value", value))
        send.send(("end", None))
    except KeyboardInterrupt:
        pass  # the parent has it too
    except Exception:  # noqa: BLE001 - whatever it is, it is shown by the parent
        send.send(("error", traceback.format_exc()))


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
