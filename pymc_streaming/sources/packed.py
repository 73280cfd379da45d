"""Rows stored side by side: one column whose values are whole rows of numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pymc_streaming.errors import ArgumentError, MissingValueError, SchemaError
from pymc_streaming.sources.arrays import floating_dtype, narrowed
from pymc_streaming.sources.base import SINGLE, ArraySpec, Block, InMemory, Rows
from pymc_streaming.sources.columns import shortened
from pymc_streaming.sources.plan import missing_column

__all__ = ["PackedPlan", "is_packed", "packed_schema", "refuse_other_packing"]

_NAMES = b"columns"


def packed_schema(names: Sequence[str], dtype: np.dtype) -> pa.Schema:
    """The schema of a table whose rows have the columns `names`, side by side."""
    values = pa.field("item", pa.from_numpy_dtype(dtype), nullable=False)
    metadata = {_NAMES: json.dumps(list(names)).encode()}
    return pa.schema(
        [pa.field(SINGLE, pa.list_(values, len(names)), nullable=False, metadata=metadata)]
    )


def is_packed(schema: pa.Schema) -> bool:
    """Whether it is such a schema."""
    return schema.names == [SINGLE] and _NAMES in (schema.field(0).metadata or {})


def refuse_other_packing(schema: pa.Schema, expected: pa.Schema, path: str, first: str) -> None:
    """Raise `SchemaError` if the numbers in rows that are side by side mean other columns.

    Parameters
    ----------
    schema, expected : pyarrow.Schema
        Those of a file, and of the first one.
    path, first : str
        Their names, for the message.
    """
    found, known = (_packed_names(s) if is_packed(s) else None for s in (schema, expected))
    if found != known:
        raise SchemaError(
            f"{path}: the rows hold the columns {shortened(found or schema.names)}, but "
            f"{shortened(known or expected.names)} in {first}. Read them as separate sources."
        )


def _packed_names(schema: pa.Schema) -> tuple[str, ...]:
    return tuple(json.loads(schema.field(0).metadata[_NAMES]))


@dataclass(frozen=True)
class PackedPlan:
    """Which of the columns that are stored side by side to read; in the manner of `ColumnPlan`.

    Parameters
    ----------
    schema : pyarrow.Schema
        From `packed_schema`.
    columns : sequence of str or None
        Names of columns, in the order to deliver them; None for all.
    where : str
        The table in words, for messages.
    """

    schema: pa.Schema
    columns: Sequence[str] | None
    where: str

    def __post_init__(self) -> None:
        asked: Any = self.columns
        if asked is not None and (isinstance(asked, str) or not isinstance(asked, Sequence)):
            raise ArgumentError(
                f"{self.where}: the rows are stored as one array, so columns must be a list of "
                f"names, found {asked!r}. To have several arrays, shuffle without dtype."
            )
        names = list(self.stored if asked is None else asked)
        if not names or not all(isinstance(name, str) for name in names):
            raise ArgumentError(f"columns must hold names as strings, found {asked!r}.")
        for name in names:
            if name not in self.stored:
                raise SchemaError(missing_column(name, self.stored, self.where))
            if names.count(name) > 1:
                raise SchemaError(f"{self.where}: column {name!r} is selected more than once.")

    @cached_property
    def stored(self) -> tuple[str, ...]:
        """Names of the columns in the order in which they are stored."""
        return _packed_names(self.schema)

    @cached_property
    def layout(self) -> dict[str, ArraySpec]:
        """One array of ``floatX``."""
        names = self.stored if self.columns is None else tuple(self.columns)
        return {SINGLE: ArraySpec((len(names),), floating_dtype(), names)}

    @property
    def is_verbatim(self) -> bool:
        """Whether rows are stored as the layout wants them."""
        spec, kind = self.layout[SINGLE], self.schema.field(SINGLE).type.value_type
        return spec.columns == self.stored and kind == pa.from_numpy_dtype(spec.dtype)

    def rows(self, batch: pa.RecordBatch, where: str) -> Iterator[Rows]:
        """The rows of a batch."""
        yield InMemory(self.block(batch, where))

    def block(self, batch: pa.RecordBatch, where: str) -> Block:
        """The rows of a batch; a view of its memory if nothing has to be converted."""
        column = batch.column(SINGLE)
        if column.null_count:
            raise MissingValueError(f"{where}: {column.null_count:,} rows are null.")
        spec = self.layout[SINGLE]
        width = len(self.stored)
        values = column.values.slice(column.offset * width, len(column) * width)  # not a copy
        rows = values.to_numpy().reshape(len(column), width)
        if spec.columns != self.stored:
            rows = rows[:, [self.stored.index(name) for name in spec.columns]]
        return {SINGLE: narrowed(rows, spec.dtype, where)}
