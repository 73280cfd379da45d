"""How much memory a process may take: what is given, or what machine and container leave."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from pymc_streaming.arguments import parse_bytes
from pymc_streaming.errors import ArgumentError

__all__ = ["ENVIRONMENT", "MemoryLimit", "check_fraction", "check_limit", "memory_limit"]

#: Environment variable with the memory that the process may take, such as ``"8GB"``.
ENVIRONMENT = "PYMC_STREAMING_MEMORY_LIMIT"

# No Python process takes less: such a number was meant in other units.
_LEAST = 2**20
# Version 1 of control groups writes a number of pages that no machine has for "no limit".
_UNLIMITED = 2**60
# What limits memory, and what is used of it, in version 2 and in version 1.
_FILES_2: tuple[tuple[str, ...], str] = ("memory.max", "memory.high"), "memory.current"
_FILES_1 = ("memory.limit_in_bytes",), "memory.usage_in_bytes"


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Memory that the process may take.

    Parameters
    ----------
    nbytes : int
        Bytes, with those that it has already.
    source : str
        Where the number comes from, in words.
    """

    nbytes: int
    source: str


def check_fraction(fraction: object) -> float:
    """`fraction` as a float; `ArgumentError` unless it is a number above 0 and at most 1."""
    if (
        isinstance(fraction, bool)
        or not isinstance(fraction, int | float | np.floating)
        or not 0 < fraction <= 1  # nor is NaN
    ):
        raise ArgumentError(
            f"memory_fraction must be a number above 0 and at most 1, found {fraction!r}."
        )
    return float(fraction)


def check_limit(name: str, given: int | str) -> int:
    """Bytes of a limit; `ArgumentError` for what is none, and for less than a process takes.

    Parameters
    ----------
    name : str
        Where it was given, for the message.
    given : int or str
        Bytes, or words such as ``"48GB"``.
    """
    # In the environment everything is text, and so is a plain number of bytes.
    if isinstance(given, str) and given.strip().isdecimal():
        given = int(given)
    nbytes = parse_bytes(name, given)
    if nbytes < _LEAST:
        raise ArgumentError(
            f'{name} must be bytes, or words such as "16GB", and more than any Python process '
            f"takes: found {given!r}, which is {nbytes:,} bytes."
        )
    return nbytes


def memory_limit(
    given: int | None = None,
    fraction: float = 0.75,
    *,
    environment: Mapping[str, str] = os.environ,
    free: int | None = None,
    groups: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> MemoryLimit:
    """The memory that this process may take, with what it has.

    What is given, else what the environment says, else a part of what can be had: the smaller of
    the memory that the machine has free, and of what the control groups of the process, which are
    how containers are limited, leave. More than can be had is not given to anybody.

    Parameters
    ----------
    given : int, optional
        Bytes.
    fraction : float, default 0.75
        Of what can be had, in (0, 1]. It does not count where a limit is given.
    environment : mapping, default os.environ
        Where `ENVIRONMENT` is looked up.
    free : int, optional
        Bytes that can be had without swapping. Default: what the system says.
    groups, membership : Path
        Where control groups are mounted; the file that says which ones the process is in.

    Raises
    ------
    ArgumentError
        If the limit in the environment is no number of bytes.

    Examples
    --------
    >>> memory_limit(8 * 10**9, free=64 * 10**9, groups=Path("none"))
    MemoryLimit(nbytes=8000000000, source='memory_limit')
    """
    own = psutil.Process().memory_info().rss
    can_be_had = psutil.virtual_memory().available if free is None else free
    whose = "free memory"
    if (left := min(_left(groups, membership), default=can_be_had)) < can_be_had:
        can_be_had, whose = left, "what the container leaves"
    can_be_had += own
    source = "memory_limit"
    if given is None and (words := environment.get(ENVIRONMENT, "").strip()):
        given, source = check_limit(ENVIRONMENT, words), ENVIRONMENT
    if given is None:
        return MemoryLimit(int(fraction * can_be_had), f"{fraction:.4g} of {whose}")
    if given > can_be_had:
        return MemoryLimit(can_be_had, f"{whose}, less than {source}")
    return MemoryLimit(given, source)


def _left(groups: Path, membership: Path) -> Iterator[int]:
    """What each control group that the process is in, or that holds one it is in, leaves it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            root, (limits, usage) = groups, _FILES_2
        elif "memory" in controllers.split(","):
            root, (limits, usage) = groups / "memory", _FILES_1
        else:
            continue
        group = root / path.lstrip("/")
        # In a container the path may be one of the host's, of which only the root is seen.
        for folder in [group, *group.parents]:
            for allowed in (_number(folder / limit) for limit in limits):
                if allowed is not None and allowed < _UNLIMITED:
                    used = (_number(folder / usage) or 0) - _cached(folder / "memory.stat")
                    yield max(0, allowed - max(0, used))
            if folder == root:
                break


def _number(file: Path) -> int | None:
    """The number in a file; None for no file, and for "max"."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _cached(file: Path) -> int:
    """Bytes of files that the system drops from memory when it needs the room."""
    try:
        entries = dict(line.split(maxsplit=1) for line in file.read_text().splitlines())
        # Version 1 counts the groups within only in the totals.
        return int(entries.get("total_inactive_file", entries.get("inactive_file", "0")))
    except (OSError, ValueError):
        return 0
