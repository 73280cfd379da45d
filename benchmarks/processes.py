"""Measuring in a process of its own, so that nothing that was measured before is in the way."""

from __future__ import annotations

import multiprocessing
import os
import resource
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import BenchmarkError


class ChildError(BenchmarkError):
    """What was raised in the other process, as text."""


def each_from_fresh(
    function: Callable[..., Iterator[Any]],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """What a generator yields in a fresh process, as it comes."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    with _environment(environment or {}):
        process = context.Process(target=_send_each, args=(send, function, arguments))
        process.start()
    send.close()
    try:
        while True:
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
) -> Any:
    """What a function returns in a fresh process."""
    return next(each_from_fresh(_once, function, arguments, environment=environment))


def peak_mib() -> float:
    """Largest resident memory of this process so far, and of the largest child that has ended.

    Pages of mapped files count as long as they are mapped. The two are added, so that what they
    share counts twice.
    """
    return sum(
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def float_environment(precision: str) -> dict[str, str]:
    """The settings that give every package this precision."""
    flags = [flag for flag in os.environ.get("PYTENSOR_FLAGS", "").split(",") if flag]
    return {
        "PYTENSOR_FLAGS": ",".join([*flags, f"floatX={precision}"]),
        "JAX_ENABLE_X64": str(int(precision == "float64")),
    }


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
