"""Columns of numbers to one floating type, side by side in one array or each for itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pymc_streaming.errors import ArgumentError
from pymc_streaming.sources.base import SINGLE, refuse_nan
from pymc_streaming.sources.packed import packed_schema
from pymc_streaming.sources.plan import plan_columns

__all__ = ["Packing"]


class Packing:
    """Converts the batches of a table to one floating type.

    Parameters
    ----------
    schema : pyarrow.Schema
        Schema of the table.
    dtype : str or numpy.dtype
        ``"float32"`` or ``"float64"``.
    together : bool
        True for one column that holds, for every row, the values of all columns one after the
        other; False for as many columns as there are.
    where : str
        The table in words, for messages.

    Attributes
    ----------
    schema : pyarrow.Schema
        Schema of the converted batches.
    """

    def __init__(self, schema: pa.Schema, dtype: object, together: bool, where: str) -> None:
        try:
            kind = np.dtype(dtype)  # type: ignore[call-overload]
            known = kind in (np.dtype(np.float32), np.dtype(np.float64))
        except TypeError:
            known = False  # None would not do: NumPy takes it for float64
        if not known:
            raise ArgumentError(f'dtype must be "float32" or "float64", found {dtype!r}.')
        self._plan = plan_columns(schema, schema.names, None, None, where, floating=kind)
        self._spec = self._plan.layout[SINGLE]
        if together:
            self.schema = packed_schema(schema.names, kind)
        else:
            arrow = pa.from_numpy_dtype(kind)
            self.schema = pa.schema([pa.field(name, arrow) for name in schema.names])
        self._together = together

    def __call__(self, batch: pa.RecordBatch, where: str) -> pa.RecordBatch:
        """`batch` converted; null and NaN are refused."""
        matrix = self._plan.block(batch, where)[SINGLE]
        refuse_nan(matrix, self._spec, SINGLE, where)
        if self._together:
            values, kind = pa.array(matrix.reshape(-1)), self.schema.field(0).type
            arrays = [pa.FixedSizeListArray.from_arrays(values, type=kind)]
        else:
            arrays = [pa.array(column) for column in np.ascontiguousarray(matrix.T)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)
