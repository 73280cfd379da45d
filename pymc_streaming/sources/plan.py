"""What a person asks of a table's columns, checked against its schema: a `ColumnPlan`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.errors import ArgumentError, CategoryError, SchemaError
from pymc_streaming.sources.arrays import floating_dtype
from pymc_streaming.sources.base import SINGLE, ArraySpec
from pymc_streaming.sources.columns import (
    AUTO,
    Column,
    ColumnPlan,
    Transform,
    canonical_type,
    decoded,
    shortened,
)

__all__ = [
    "Categories",
    "Columns",
    "column_levels",
    "missing_column",
    "plan_columns",
]

#: Which columns: all of them, one 2-D array, or arrays by name.
Columns = Sequence[str] | Mapping[str, str | Sequence[str]] | None
#: The levels of categorical columns.
Categories = str | Mapping[str, str | Sequence[str] | Sequence[int]] | None

# Levels live in memory, all of them: a column with more is an identifier, not a category.
MAX_AUTO_LEVELS = 1_000_000


def plan_columns(
    schema: pa.Schema,
    columns: Columns,
    categories: Categories,
    transform: Transform | None,
    where: str,
    floating: np.dtype | None = None,
) -> ColumnPlan:
    """Check what is asked for against an Arrow schema.

    Parameters
    ----------
    schema : pyarrow.Schema
        Schema of the table.
    columns, categories, transform
        As for :func:`~pymc_streaming.parquet_source`.
    where : str
        The table in words, for messages.
    floating : numpy.dtype, optional
        Type of the floating arrays. Default: ``floatX``.

    Returns
    -------
    ColumnPlan
        Its ``auto`` columns, and the layout if there is a transform, are still to
        be filled in.

    Raises
    ------
    ArgumentError
        If the arguments contradict each other.
    SchemaError
        If a column is not there, is there twice, or has a type that is no number.
    """
    if transform is not None and not callable(transform):
        raise ArgumentError(f"transform must be callable, found {type(transform).__name__}.")
    arrays = _selected_arrays(schema, columns, where)
    if transform is not None and isinstance(columns, Mapping):
        raise ArgumentError(
            "With a transform, `columns` must be a list: the transform names the arrays."
        )
    names = [n for c in arrays.values() for n in ((c,) if isinstance(c, str) else c)]
    names = list(dict.fromkeys(names))
    types = {name: _readable_type(schema, name, where) for name in names}
    levels = _levels(schema, types, categories)
    plan = ColumnPlan(
        columns=tuple(Column(name, types[name], levels.get(name)) for name in names),
        arrays=arrays,
        floating=floating_dtype() if floating is None else floating,
        transform=transform,
    )
    if transform is not None:
        return replace(plan, arrays={})
    for column in plan.columns:
        if column.is_text:
            raise SchemaError(
                f"{where}: column {column.name!r} holds strings, expected numbers. Give its "
                f'levels, categories={{{column.name!r}: [...]}} or "auto", turn it into numbers '
                "in a transform, or leave it out of `columns`."
            )
    layout = {}
    for name, asked in arrays.items():
        parts = (asked,) if isinstance(asked, str) else asked
        shape = () if isinstance(asked, str) else (len(parts),)
        whole = isinstance(columns, Mapping) and all(plan.by_name[p].is_whole for p in parts)
        layout[name] = ArraySpec(shape, np.dtype(np.int64) if whole else plan.floating, parts)
    return replace(plan, layout=layout)


def column_levels(array: pa.Array, name: str, found: set[Any], where: str) -> None:
    """Add the distinct values of `array`, without null, to `found`."""
    found.update(decoded(pc.unique(array)).drop_null().to_pylist())
    if len(found) > MAX_AUTO_LEVELS:
        raise CategoryError(
            f"{where}: column {name!r} has more than {MAX_AUTO_LEVELS:,} levels, too many for "
            "categories found in the data: it looks like an identifier. Group them in a transform."
        )


def _selected_arrays(
    schema: pa.Schema, columns: Columns, where: str
) -> dict[str, str | tuple[str, ...]]:
    if columns is None:
        columns = schema.names
    asked: Any = columns
    if isinstance(asked, str) or not isinstance(asked, Sequence | Mapping):
        raise ArgumentError(
            "columns must be a list of column names, or a mapping from array names to columns, "
            f"found {columns!r}."
        )
    given: dict[Any, Any] = dict(columns) if isinstance(columns, Mapping) else {SINGLE: columns}
    arrays: dict[str, str | tuple[str, ...]] = {}
    for key, value in given.items():
        parts = (value,) if isinstance(value, str) else tuple(value)
        if not isinstance(key, str) or not all(isinstance(part, str) for part in parts):
            raise ArgumentError(f"columns must hold names as strings, found {key!r}: {value!r}.")
        if not parts:
            raise ArgumentError(f"columns: no column is selected for array {key!r}.")
        for part in parts:
            if part not in schema.names:
                raise SchemaError(missing_column(part, schema.names, where))
            if parts.count(part) > 1:
                raise SchemaError(
                    f"{where}: column {part!r} is selected {parts.count(part)} times for array "
                    f"{key!r}, expected once. The columns are: {shortened(schema.names)}."
                )
        arrays[key] = value if isinstance(value, str) else parts
    if not arrays:
        raise ArgumentError("columns: no array is asked for.")
    return arrays


def missing_column(name: str, available: Sequence[str], where: str) -> str:
    """The message for a column that is not there."""
    close = difflib.get_close_matches(name, available, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    parts = [part.strip() for part in name.split(",")]
    if len(parts) > 1 and set(parts) <= set(available):
        hint = f" Give the names one by one, without commas: {' '.join(parts)}."
    return f"{where}: there is no column {name!r}.{hint} The columns are: {shortened(available)}."


def _readable_type(schema: pa.Schema, name: str, where: str) -> pa.DataType:
    if len(schema.get_all_field_indices(name)) > 1:
        raise SchemaError(f"{where}: column {name!r} is there more than once; rename one of them.")
    kind = canonical_type(schema.field(name).type)
    readable = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_large_string(kind)
        or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
    )
    if not readable:
        raise SchemaError(
            f"{where}: column {name!r} has type {schema.field(name).type}, expected numbers, "
            "booleans, strings, dates or times. Leave it out of `columns`, or write it as "
            "columns of such types."
        )
    return kind


def _levels(
    schema: pa.Schema, types: Mapping[str, pa.DataType], categories: Categories
) -> dict[str, Any]:
    if categories is None:
        return {}
    if isinstance(categories, str):
        if categories != AUTO:
            raise ArgumentError(f'categories must be "auto" or a mapping, found {categories!r}.')
        return {
            name: AUTO
            for name, kind in types.items()
            if pa.types.is_large_string(kind)
            or (pa.types.is_dictionary(schema.field(name).type) and pa.types.is_integer(kind))
        }
    if not isinstance(categories, Mapping):
        raise ArgumentError(f'categories must be "auto" or a mapping, found {categories!r}.')
    resolved: dict[str, Any] = {}
    for name, levels in categories.items():
        if name not in types:
            raise ArgumentError(
                f"categories are given for {name!r}, which is not a selected column "
                f"({shortened(list(types))})."
            )
        expected: type = str if pa.types.is_large_string(types[name]) else int
        if expected is int and not pa.types.is_integer(types[name]):
            raise ArgumentError(
                f"categories are given for column {name!r} of type {types[name]}; only strings and "
                "integers have levels."
            )
        if isinstance(levels, str):
            if levels != AUTO:
                raise ArgumentError(
                    f'categories[{name!r}] must be "auto" or a list of levels, found {levels!r}.'
                )
            resolved[name] = AUTO
            continue
        given = [v.item() if isinstance(v, np.generic) else v for v in levels]
        for level in given:
            if not isinstance(level, expected) or isinstance(level, bool):
                raise ArgumentError(
                    f"categories[{name!r}] must hold {expected.__name__}, found {level!r}."
                )
        if not given or len(set(given)) < len(given):
            raise ArgumentError(f"categories[{name!r}] must be distinct and not empty: {levels!r}.")
        try:
            pa.array(given, types[name])
        except (pa.ArrowInvalid, OverflowError) as error:
            raise ArgumentError(
                f"categories[{name!r}] does not fit the column's type {types[name]}: {error}"
            ) from error
        resolved[name] = tuple(given)
    return resolved
