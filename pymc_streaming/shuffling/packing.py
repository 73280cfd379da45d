"""Columns of numbers to one floating type, side by side in one array or each for itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.errors import (
    ArgumentError,
    MissingValueError,
    PrecisionError,
    SchemaError,
    SourceError,
)
from pymc_streaming.sources.base import SINGLE, refuse_nan
from pymc_streaming.sources.columns import canonical_type, counted, decoded
from pymc_streaming.sources.packed import packed_schema
from pymc_streaming.sources.plan import plan_columns

__all__ = ["Packing"]


_ADVICE = (
    "Leave the column out with `columns`, change it in the table first, or shuffle without `dtype`."
)


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
        for field in schema:
            if pa.types.is_large_string(canonical_type(field.type)):
                raise SchemaError(
                    f"{where}: column {field.name!r} holds strings, expected numbers to convert to "
                    f"{kind}. {_ADVICE}"
                )
        self._dtype = kind
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
        self._refuse_large_decimals(batch, where)
        try:
            (rows,) = self._plan.rows(batch, where)
            matrix = rows.block(self._plan.layout)[SINGLE]
            refuse_nan(matrix, self._spec, SINGLE, where)
        except (MissingValueError, PrecisionError) as error:
            # Those that read a table have means to mend it that a shuffle does not have.
            raise self._refusal(batch, where) or error from error
        if self._together:
            values, kind = pa.array(matrix.reshape(-1)), self.schema.field(0).type
            arrays = [pa.FixedSizeListArray.from_arrays(values, type=kind)]
        else:
            arrays = [pa.array(column) for column in np.ascontiguousarray(matrix.T)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _refuse_large_decimals(self, batch: pa.RecordBatch, where: str) -> None:
        """Look at decimals as they are: as a float, 2**53 + 1 would be 2**53, which may be."""
        limit = 2 ** (np.finfo(self._dtype).nmant + 1)
        for column in self._plan.columns:
            if not pa.types.is_decimal(column.type):
                continue
            exact = decoded(batch.column(column.name)).cast(pa.decimal256(76, column.type.scale))
            for extreme in pc.min_max(exact).as_py().values():
                if extreme is not None and abs(extreme) > limit:
                    raise PrecisionError(
                        f"{where}: column {column.name!r} holds {extreme:,}, beyond ±{limit:,}: "
                        f"{self._dtype} cannot tell such numbers apart. {_ADVICE}"
                    )

    def _refusal(self, batch: pa.RecordBatch, where: str) -> SourceError | None:
        """What is wrong with a batch, in terms of the table as it is stored."""
        for column in self._plan.columns:
            array = decoded(batch.column(column.name))
            place = f"{where}: column {column.name!r} holds"
            if array.null_count:
                return MissingValueError(f"{place} {counted(array.null_count, 'null')}. {_ADVICE}")
            numbers = column.values(array, where)
            is_floating = pa.types.is_floating(column.type)
            if is_floating and np.isnan(numbers).any():
                return MissingValueError(f"{place} {np.isnan(numbers).sum():,} NaN. {_ADVICE}")
            limits = np.finfo(self._dtype)
            limit = float(limits.max) if is_floating else 2 ** (limits.nmant + 1)
            outside = (numbers > limit) | (numbers < -limit)
            if is_floating:
                outside &= np.isfinite(numbers)
            if outside.any():
                first = int(np.argmax(outside))
                what = f"{numbers[first]:,}"
                if pa.types.is_timestamp(column.type):  # in Python a year has four digits at most
                    what = f"{array[first].cast(pa.string())}, {what} seconds since 1970"
                beyond = f"±{limit:,}: {self._dtype} cannot tell such numbers apart"
                if is_floating:
                    beyond = f"±{limit:.3g}, the largest {self._dtype}"
                return PrecisionError(f"{place} {what}, beyond {beyond}. {_ADVICE}")
        return None
