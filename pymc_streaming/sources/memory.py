"""Arrays and data frames that are in memory already."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pymc_streaming.errors import (
    ArgumentError,
    ConsumedIteratorError,
    RowCountError,
    SchemaError,
)
from pymc_streaming.sources.arrays import block_dtype, floating_dtype, named_arrays, narrowed
from pymc_streaming.sources.base import (
    ArraySpec,
    Block,
    Fragment,
    IterableDataset,
    Rows,
    digest_of,
)
from pymc_streaming.sources.columns import Transform, decoded, described
from pymc_streaming.sources.identity import digest_of_arrays, digest_of_batches
from pymc_streaming.sources.plan import Categories, Columns, column_levels, plan_columns

__all__ = [
    "ArraySource",
    "RowRange",
    "TableSource",
    "array_source",
    "arrow_table",
    "is_table",
    "row_ranges",
    "table_source",
]

_FRAGMENT_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class RowRange(Fragment):
    """Consecutive rows of a table in memory.

    Parameters
    ----------
    start : int
        Number of the first row.
    """

    start: int


def row_ranges(n_rows: int, what: str) -> list[RowRange]:
    """All rows of a table, a fragment's worth at a time."""
    if not n_rows:
        raise RowCountError(f"The {what} has no rows, expected at least one.")
    ranges = []
    for start in range(0, n_rows, _FRAGMENT_ROWS):
        count = min(_FRAGMENT_ROWS, n_rows - start)
        ranges.append(RowRange(count, f"{what}, rows {start:,} to {start + count - 1:,}", start))
    return ranges


def array_source(arrays: np.ndarray | Mapping[str, np.ndarray]) -> ArraySource:
    """Read from NumPy arrays in memory, or memory-mapped.

    Parameters
    ----------
    arrays : numpy.ndarray or mapping of str to numpy.ndarray
        One array, or arrays by name with equally many rows. Floats become PyTensor's
        ``floatX``, integers and booleans int64; an array that has this type already
        is not copied.

    Returns
    -------
    ArraySource

    Raises
    ------
    SchemaError
        If an array holds no numbers or the numbers of rows differ.
    MissingValueError
        If a masked array has masked entries.
    RowCountError
        If there are no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_streaming import array_source
    >>> source = array_source({"X": np.zeros((5, 2)), "y": np.arange(5)})
    >>> source.n_rows, source.layout["X"].row_shape, source.layout["y"].dtype.name
    (5, (2,), 'int64')
    """
    return ArraySource(arrays)


class ArraySource(IterableDataset):
    """Arrays in memory; made by :func:`array_source`."""

    def __init__(self, arrays: np.ndarray | Mapping[str, np.ndarray]) -> None:
        floating = floating_dtype()
        self._arrays = named_arrays(arrays, floating, "array_source", SchemaError, convert=False)
        self.layout = {
            name: ArraySpec(array.shape[1:], _block_dtype(array, floating))
            for name, array in self._arrays.items()
        }
        self.fragments = row_ranges(len(next(iter(self._arrays.values()))), "array")
        self.is_in_memory = not any(_is_mapped(array) for array in self._arrays.values())

    def __repr__(self) -> str:
        return f"<ArraySource: {self.n_rows:,} rows; {described(self.layout)}>"

    @property
    def fingerprint(self) -> str:
        """By the numbers."""
        of_numbers = digest_of_arrays(self._arrays.values(), is_in_memory=self.is_in_memory)
        return digest_of([of_numbers, super().fingerprint])

    def read(self, fragment: Fragment) -> Iterator[Block]:
        """Yield the rows of a fragment in one block."""
        assert isinstance(fragment, RowRange)
        assert fragment.n_rows is not None
        rows = slice(fragment.start, fragment.start + fragment.n_rows)
        yield {
            name: narrowed(array[rows], self.layout[name].dtype, f"{fragment.origin}, {name!r}")
            for name, array in self._arrays.items()
        }


def _is_mapped(array: Any) -> bool:
    """Whether an array, or one that it is a view of, is in a file."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def _block_dtype(array: np.ndarray, floating: np.dtype) -> np.dtype:
    dtype = block_dtype(array.dtype, floating)
    assert dtype is not None  # named_arrays has refused anything else
    return dtype


def is_table(value: object) -> bool:
    """Whether `table_source` takes it: pandas, Polars, Arrow, and what speaks Arrow."""
    return (
        isinstance(value, pa.Table | pa.RecordBatch)
        or _is_pandas(value)
        or hasattr(value, "__arrow_c_stream__")
        or hasattr(value, "__arrow_c_array__")
    )


def table_source(
    table: Any,
    *,
    columns: Columns = None,
    categories: Categories = None,
    transform: Transform | None = None,
) -> TableSource:
    """Read from a data frame or an Arrow table in memory.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame, pyarrow.Table, pyarrow.RecordBatch
        Or any object with the Arrow PyCapsule interface. The index of a pandas frame
        is dropped; NaN in it counts as null.
    columns, categories, transform
        As for :func:`~pymc_streaming.parquet_source`.

    Returns
    -------
    TableSource
        Its ``categories`` are the levels of every categorical column.

    Raises
    ------
    ConsumedIteratorError
        If `table` is a stream that can be read only once.
    SourceError
        As for :func:`~pymc_streaming.parquet_source`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from pymc_streaming import table_source
    >>> table = pa.table({"airport": ["SFO", "ATL", "SFO"], "delay": [4.0, -2.5, 0.0]})
    >>> source = table_source(
    ...     table, columns={"airport": "airport", "y": "delay"}, categories="auto"
    ... )
    >>> source.categories
    {'airport': ('ATL', 'SFO')}
    >>> next(source.read(source.fragments[0]))["airport"]
    array([1, 0, 1])
    """
    return TableSource(table, columns=columns, categories=categories, transform=transform)


class TableSource(IterableDataset):
    """A data frame in memory; made by :func:`table_source`.

    Attributes
    ----------
    categories : dict of str to tuple
        The levels of every categorical column.
    """

    is_in_memory = True

    def __init__(
        self,
        table: Any,
        *,
        columns: Columns = None,
        categories: Categories = None,
        transform: Transform | None = None,
    ) -> None:
        arrow = arrow_table(table)
        plan = plan_columns(arrow.schema, columns, categories, transform, "table")
        self._table = arrow.select(plan.names)
        self.fragments = row_ranges(self._table.num_rows, "table")
        levels: dict[str, set[Any]] = {name: set() for name in plan.auto}
        for name, found in levels.items():
            for chunk in self._table.column(name).chunks:
                column_levels(chunk, name, found, "table")
        null_counts = {name: _null_count(self._table.column(name)) for name in plan.names}
        if transform is None:
            for column in plan.columns:
                column.refuse_nulls(null_counts[column.name], "table")
        nullable = [name for name, count in null_counts.items() if count]
        self._plan = plan.completed(levels=levels, nullable=nullable)
        if transform is not None:
            first = self.fragments[0]
            self._plan = self._plan.probed(next(self._batches(first)), first.origin)
        self.layout = self._plan.layout
        self.categories = self._plan.categories

    def __repr__(self) -> str:
        return f"<TableSource: {self.n_rows:,} rows; {described(self.layout)}>"

    @property
    def fingerprint(self) -> str:
        """By the columns."""
        return digest_of([digest_of_batches(self._table), self.categories, super().fingerprint])

    def read(self, fragment: Fragment) -> Iterator[Block]:
        """Yield the rows of a fragment, a block for every chunk of the table."""
        for rows in self.rows(fragment):
            yield rows.block(self.layout)

    def rows(self, fragment: Fragment) -> Iterator[Rows]:
        """The same, as columns."""
        for batch in self._batches(fragment):
            yield from self._plan.rows(batch, fragment.origin)

    def _batches(self, fragment: Fragment) -> Iterator[pa.RecordBatch]:
        assert isinstance(fragment, RowRange)
        for batch in self._table.slice(fragment.start, fragment.n_rows).to_batches():
            if batch.num_rows:
                yield batch


def _is_pandas(value: object) -> bool:
    pandas = sys.modules.get("pandas")  # an instance cannot exist before the import
    return pandas is not None and isinstance(value, pandas.DataFrame)


def arrow_table(table: Any) -> pa.Table:
    """A data frame, or whatever speaks Arrow, as an Arrow table."""
    if isinstance(table, Iterator):
        raise ConsumedIteratorError(
            f"table_source was given a {type(table).__name__}, which can be read only once; "
            "streaming inference reads the data many times. Give a table (reader.read_all()), or, "
            "if it does not fit in memory, write it to Parquet and use parquet_source."
        )
    if not is_table(table):
        raise ArgumentError(
            "table must be a pandas or Polars DataFrame, a pyarrow Table, or an object with the "
            f"Arrow PyCapsule interface, found {type(table).__name__}."
        )
    try:
        if _is_pandas(table):
            return pa.Table.from_pandas(table, preserve_index=False)
        if isinstance(table, pa.RecordBatch):
            return pa.Table.from_batches([table])
        return table if isinstance(table, pa.Table) else pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SchemaError(
            f"The {type(table).__name__} cannot be read as a table of Arrow columns: {error}"
        ) from error


def _null_count(column: pa.ChunkedArray) -> int:
    if pa.types.is_dictionary(column.type):  # whose levels may be null themselves
        return sum(decoded(chunk).null_count for chunk in column.chunks)
    return int(column.null_count)
