"""Arguments that several objects take, checked once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pymc_streaming.errors import ArgumentError, SchemaError
from pymc_streaming.sources import ArraySpec

__all__ = ["check_sample_shape", "parse_bytes", "seed_or_drawn", "whole_number"]


def seed_or_drawn(seed: int | None) -> int:
    """`seed`, or a drawn one that can be stored and given again."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    return whole_number("seed", seed, least=0)


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


def check_sample_shape(
    sample_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None,
    layout: Mapping[str, ArraySpec],
) -> None:
    """Hold the shape of a row that is expected against what a source has."""
    if sample_shape is None:
        return
    found = {name: spec.row_shape for name, spec in layout.items()}
    if isinstance(sample_shape, int):
        raise ArgumentError(
            f"sample_shape is the shape of a row, a tuple: ({sample_shape},) for "
            f"{sample_shape} columns."
        )
    if isinstance(sample_shape, Mapping):
        expected = {name: tuple(shape) for name, shape in sample_shape.items()}
    elif len(found) == 1:
        expected = dict.fromkeys(found, tuple(sample_shape))
    else:
        raise ArgumentError(
            f"The source has the arrays {sorted(found)}; sample_shape must be a mapping from "
            "their names to shapes."
        )
    if expected != found:
        columns = {name: spec.columns for name, spec in layout.items() if spec.columns}
        raise SchemaError(
            f"sample_shape says a row has the shape {_plain(expected)}, the source has "
            f"{_plain(found)}" + (f", of the columns {_plain(columns)}." if columns else ".")
        )


def _plain(by_name: Mapping[str, Any]) -> str:
    return str(next(iter(by_name.values())) if len(by_name) == 1 else dict(by_name))
