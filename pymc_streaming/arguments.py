"""Arguments that several objects take, checked once."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from pymc_streaming.errors import ArgumentError

__all__ = [
    "in_words",
    "one_of",
    "parse_bytes",
    "parse_seconds",
    "place_and_function",
    "random_generator",
    "seed_or_drawn",
    "whole_number",
]


def seed_or_drawn(seed: int | None) -> int:
    """`seed`, or a drawn one that can be stored and given again."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    return whole_number("seed", seed, least=0)


def random_generator(seed: object) -> np.random.Generator:
    """A generator for `random_seed`, or the one that it is."""
    try:
        return np.random.default_rng(seed)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"random_seed must be a whole number, a numpy.random.Generator or None, found {seed!r}."
        ) from error


def one_of(name: str, value: object, options: Sequence[str]) -> str:
    """`value`, refused if it is none of the `options`."""
    if not isinstance(value, str) or value not in options:
        *others, last = map(repr, options)
        raise ArgumentError(f"{name} must be {', '.join(others)} or {last}, found {value!r}.")
    return value


def whole_number(name: str, value: object, least: int = 1) -> int:
    """`value` as an int, refused if it is none or smaller than `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(f"{name} must be a whole number of at least {least}, found {value!r}.")
    return int(value)


def parse_bytes(name: str, value: int | str) -> int:
    """Bytes, given as a number or in words such as ``"64MB"`` or ``"32 MiB"``."""
    if not isinstance(value, str):
        return whole_number(name, value, least=0)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", value.strip(), re.IGNORECASE)
    if not match:
        raise ArgumentError(f'{name} must be bytes, or words such as "64MB", found {value!r}.')
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


def place_and_function(name: str, value: str) -> tuple[str, str]:
    """The two halves of ``"MODULE:FUNCTION"`` or ``"FILE.py:FUNCTION"``."""
    place, _, function = value.rpartition(":")
    if not place or not function.isidentifier():
        raise ArgumentError(
            f"{name} must be MODULE:FUNCTION, such as clicks.py:model, found {value!r}."
        )
    return place, function


def parse_seconds(name: str, value: str) -> float:
    """Seconds, given in words such as ``"5min"``, ``"90 s"`` or ``"1h 30min"``.

    Examples
    --------
    >>> parse_seconds("checkpoint_every", "1h 30min")
    5400.0
    """
    units = {"s": 1.0, "min": 60.0, "h": 3600.0}
    part = r"(\d+(?:\.\d+)?)\s*(s|min|h)"
    if not re.fullmatch(rf"\s*(?:{part}\s*)+", value):
        raise ArgumentError(f'{name} must be a time such as "5min" or "30s", found {value!r}.')
    seconds = sum(float(number) * units[unit] for number, unit in re.findall(part, value))
    if not seconds:
        raise ArgumentError(f"{name} must be more than nothing, found {value!r}.")
    return seconds


def in_words(nbytes: int) -> str:
    """Bytes for a reader: ``"64 MiB"``."""
    return f"{nbytes / 2**20:,.0f} MiB" if nbytes >= 2**20 else f"{nbytes:,} bytes"
