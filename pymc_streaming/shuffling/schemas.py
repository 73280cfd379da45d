"""One schema for all files of a table to shuffle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pymc_streaming.errors import ArgumentError, SchemaError
from pymc_streaming.sources.columns import canonical_type
from pymc_streaming.sources.packed import refuse_other_packing
from pymc_streaming.sources.plan import missing_column

__all__ = ["columns_with_nulls", "common_schema", "has_empty_lists", "names_of_columns"]


def common_schema(
    schemas: Sequence[pa.Schema], paths: Sequence[str], columns: list[str] | None
) -> pa.Schema:
    """The columns to read, with types that those of all files can be read as.

    Parameters
    ----------
    schemas : sequence of pyarrow.Schema
        Of all files.
    paths : sequence of str
        Their names, for messages.
    columns : list of str or None
        Names of the columns, in this order; None for all of the first file.

    Raises
    ------
    ArgumentError
        If there are no columns.
    SchemaError
        If a column is missing, there twice, or has types that are not one.
    """
    first, several = schemas[0], len(schemas) > 1
    names = first.names if columns is None else columns
    if not names:
        raise ArgumentError(f"{paths[0]}: there are no columns to shuffle.")
    _unambiguous(first, names, paths[0])
    fields = {name: first.field(name) for name in names}
    for schema, path in zip(schemas[1:], paths[1:], strict=True):
        there = _unambiguous(schema, names, path, f" It is in {paths[0]}.")
        for name in names:
            field, other = fields[name], schema.field(name).type
            kind = canonical_type(other)
            if kind != canonical_type(field.type):
                raise SchemaError(
                    f"{path}: column {name!r} has type {other}, but {field.type} in {paths[0]}. "
                    "Write all files with the same types, or leave the column out with `columns`."
                )
            if other != field.type:
                fields[name] = field.with_type(kind)
        extra = there - fields.keys()
        if columns is None and extra:
            raise SchemaError(
                f"{path}: column {min(extra)!r} is not in {paths[0]}. Select the columns you want "
                "with `columns`."
            )
        refuse_other_packing(schema, first, path, paths[0])
    # A file without nulls may say so, another may have some.
    stored = [f.with_nullable(True).with_type(_stored_as(f.type, several)) for f in fields.values()]
    return pa.schema(stored, _metadata(first) if columns is None else None)


def columns_with_nulls(batch: pa.RecordBatch) -> set[str]:
    """Names of the columns that hold a null, or may within their values."""
    return {
        field.name
        for field, column in zip(batch.schema, batch.columns, strict=True)
        if column.null_count
        or pa.types.is_nested(field.type)
        or pa.types.is_run_end_encoded(field.type)
    }


def has_empty_lists(kind: pa.DataType) -> bool:
    """Whether a type is of lists of the fixed length 0, or has such within."""
    if pa.types.is_fixed_size_list(kind) and not kind.list_size:
        return True
    return any(has_empty_lists(kind.field(i).type) for i in range(kind.num_fields))


def _metadata(schema: pa.Schema) -> dict[bytes, bytes] | None:
    """Without what pandas notes of an index that counts the rows: they are others now."""
    metadata: dict[bytes, bytes] | None = schema.metadata
    if not metadata or b"pandas" not in metadata:
        return metadata
    pandas = json.loads(metadata[b"pandas"])
    columns = [index for index in pandas["index_columns"] if isinstance(index, str)]
    noted = json.dumps(pandas | {"index_columns": columns})
    return metadata | {b"pandas": noted.encode()}


def names_of_columns(columns: Any) -> list[str]:
    """A list of names, or `ArgumentError`."""
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        raise ArgumentError(f"columns must be a list of column names, found {columns!r}.")
    if not all(isinstance(name, str) for name in columns):
        raise ArgumentError(f"columns must hold names as strings, found {columns!r}.")
    return list(columns)


def _unambiguous(schema: pa.Schema, names: list[str], path: str, more: str = "") -> set[str]:
    there = Counter(schema.names)
    asked = Counter(names)
    for name in names:
        if not there[name]:
            raise SchemaError(missing_column(name, schema.names, path) + more)
        if there[name] > 1 or asked[name] > 1:
            raise SchemaError(f"{path}: column {name!r} is there more than once.")
    return set(there)


def _stored_as(kind: pa.DataType, several: bool) -> pa.DataType:
    """A type of the same values that rows can be taken from, and dictionaries united in."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind):
        # Together, files have more levels than each of them.
        narrow = several and kind.index_type.bit_width < 32
        index = pa.int32() if narrow else kind.index_type
        return pa.dictionary(index, _stored_as(kind.value_type, several), kind.ordered)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = kind.value_field.with_type(_stored_as(kind.value_type, several))
        return pa.list_(item) if pa.types.is_list(kind) else pa.large_list(item)
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_stored_as(f.type, several)) for f in kind])
    return kind
