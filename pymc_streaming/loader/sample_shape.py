"""The shape of a row that a person expects, held against what a source has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymc_streaming.errors import ArgumentError, SchemaError
from pymc_streaming.sources import ArraySpec

__all__ = ["check_sample_shape"]


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
