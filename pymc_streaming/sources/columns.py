"""Arrow columns to named NumPy arrays: one plan, made once, applied to every batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.errors import (
    CategoryError,
    MissingValueError,
    TransformError,
)
from pymc_streaming.sources.arrays import named_arrays, narrowed, refuse_large
from pymc_streaming.sources.base import ArraySpec, Block, InMemory, Rows
from pymc_streaming.sources.kernels import SideBySide

__all__ = [
    "AUTO",
    "Column",
    "ColumnPlan",
    "Transform",
    "canonical_type",
    "counted",
    "decoded",
    "described",
    "shortened",
    "units_per_second",
]

#: From the columns of a block to its arrays.
Transform = Callable[[dict[str, np.ndarray]], Any]

#: Find the levels in the data.
AUTO = "auto"

# A transform is given so many rows at a time: what it makes on its way is then in a processor's
# cache, and in memory that is used again, which halves its time.
_TRANSFORMED_ROWS = 4_096

_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def canonical_type(arrow_type: pa.DataType) -> pa.DataType:
    """The type without its encoding: dictionaries are decoded, all strings are one type."""
    if pa.types.is_dictionary(arrow_type):
        return canonical_type(arrow_type.value_type)
    if (
        pa.types.is_string(arrow_type)
        or pa.types.is_large_string(arrow_type)
        or pa.types.is_string_view(arrow_type)
    ):
        return pa.large_string()
    return arrow_type


def decoded(array: pa.Array) -> pa.Array:
    """The values of a dictionary array; any other array as it is."""
    if not pa.types.is_dictionary(array.type):
        return array
    # Cast first: Arrow cannot take from every kind of string.
    dictionary = array.dictionary.cast(canonical_type(array.type))
    return dictionary.take(array.indices)


def units_per_second(kind: pa.DataType) -> int:
    """Stored units of a time in a second; 1 for any other type."""
    is_time = pa.types.is_temporal(kind) and not pa.types.is_date(kind)
    return _UNITS_PER_SECOND[kind.unit] if is_time else 1


@dataclass(frozen=True, slots=True)
class Column:
    """How one Arrow column becomes numbers.

    Parameters
    ----------
    name : str
        Its name in the table.
    type : pyarrow.DataType
        Its canonical type.
    levels : tuple, "auto" or None, default None
        The levels that its integer codes stand for; None when it is not categorical.
    nullable : bool, default False
        Whether a null may turn up, which makes a transform receive float64 with NaN.
    """

    name: str
    type: pa.DataType
    levels: tuple[str, ...] | tuple[int, ...] | str | None = None
    nullable: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it holds strings and nothing says which numbers they are."""
        return self.levels is None and pa.types.is_large_string(self.type)

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers: an array of its own is int64."""
        return (
            self.levels is not None
            or pa.types.is_integer(self.type)
            or pa.types.is_boolean(self.type)
            or pa.types.is_date(self.type)
        )

    def values(self, array: pa.Array, where: str) -> np.ndarray:
        """The numbers in an Arrow array without nulls, in the type nearest to the stored one."""
        kind = self.type
        if self.levels is not None:
            return self._codes(array, where)
        array = decoded(array)
        if pa.types.is_decimal(kind):
            return _numpy(array.cast(pa.float64()))
        if pa.types.is_date32(kind) or pa.types.is_time32(kind):
            array = array.view(pa.int32())
        elif pa.types.is_temporal(kind):
            array = array.view(pa.int64())
        numbers = _numpy(array)
        if pa.types.is_date64(kind):
            return numbers // 86_400_000
        if pa.types.is_temporal(kind) and not pa.types.is_date(kind):
            return numbers / units_per_second(kind)
        return numbers

    def _codes(self, array: pa.Array, where: str) -> np.ndarray:
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        dictionary = array.dictionary.cast(self.type)
        code_of = pc.fill_null(pc.index_in(dictionary, pa.array(self.levels, self.type)), -1)
        codes: np.ndarray = _numpy(code_of).astype(np.int64)[_numpy(array.indices)]
        if len(codes) and codes.min() < 0:
            first = int(np.argmin(codes))
            raise CategoryError(
                f"{where}: column {self.name!r} holds {array[first].as_py()!r}, which is not among "
                f"its {len(self.levels or ())} levels ({shortened(self.levels or ())}). Add it to "
                f'categories[{self.name!r}], or write "auto" there to find all levels.'
            )
        return codes

    def transform_input(self, array: pa.Array, where: str) -> np.ndarray:
        """A writable array of its own for the transform, of the same dtype in every block."""
        if self.is_text:
            return _numpy(decoded(array).cast(self.type))
        if self.nullable:
            numbers = self.values(array.drop_null(), where)
            if self.is_whole:
                refuse_large(numbers, np.dtype(np.float64), f"{where}: column {self.name!r}")
            filled = np.full(len(array), np.nan)
            filled[_numpy(array.is_valid())] = numbers
            return filled
        self.refuse_nulls(array.null_count, where)
        numbers = self.values(array, where)
        if numbers.dtype.kind in "iu":  # int64, so that arithmetic on int8 cannot wrap around
            place = f"{where}: column {self.name!r}"
            return narrowed(numbers, np.dtype(np.int64), place, copy=True)
        return numbers if numbers.flags.writeable else numbers.copy()

    def refuse_nulls(self, count: int, where: str) -> None:
        """Raise `MissingValueError` unless `count` is 0."""
        if count:
            raise MissingValueError(
                f"{where}: column {self.name!r} holds {count:,} null{'s' * (count > 1)}, expected "
                "a value in every row. Drop those rows (for Parquet, with "
                f"filters=pc.field({self.name!r}).is_valid()), or fill them in a transform=, "
                "which receives NaN in their place (a missing-indicator column keeps the "
                "information)."
            )


@dataclass(frozen=True)
class ColumnPlan:
    """Which columns of a table become which arrays.

    Made by `plan_columns`; `completed` adds what only the data can tell.

    Parameters
    ----------
    columns : tuple of Column
        Every column needed, each once.
    arrays : Mapping[str, str or tuple of str]
        The column of a 1-D array, or the columns of a 2-D array, by array name;
        empty with a transform.
    floating : numpy.dtype
        ``floatX`` at the time the plan was made.
    transform : callable or None, default None
        From the columns of a block to its arrays.
    layout : Mapping[str, ArraySpec]
        The arrays of every block.
    """

    columns: tuple[Column, ...]
    arrays: Mapping[str, str | tuple[str, ...]]
    floating: np.dtype
    transform: Transform | None = None
    layout: Mapping[str, ArraySpec] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the columns to read."""
        return [column.name for column in self.columns]

    @property
    def auto(self) -> list[str]:
        """Names of the columns whose levels are still to be found."""
        return [column.name for column in self.columns if column.levels == AUTO]

    @property
    def categories(self) -> dict[str, tuple[Any, ...]]:
        """The levels of every categorical column."""
        return {c.name: tuple(c.levels) for c in self.columns if c.levels is not None}

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Every column by its name."""
        return {column.name: column for column in self.columns}

    @cached_property
    def _plain(self) -> set[str]:
        """Names of the columns of floats, which need no more than to be taken."""
        return {column.name for column in self.columns if pa.types.is_floating(column.type)}

    @cached_property
    def _stored_alike(self) -> dict[str, np.dtype]:
        """The type of floats that all columns of an array are stored in, if it is one."""
        found = {}
        for name, columns in self.arrays.items():
            if isinstance(columns, str) or not self._plain.issuperset(columns):
                continue
            kinds = {np.dtype(self.by_name[column].type.to_pandas_dtype()) for column in columns}
            if SideBySide.converts(kinds, self.layout[name].dtype):
                found[name] = kinds.pop()
        return found

    def completed(
        self, *, levels: Mapping[str, Iterable[Any]] | None = None, nullable: Collection[str] = ()
    ) -> ColumnPlan:
        """The plan with levels found in the data and the columns that may hold a null."""
        columns = []
        for column in self.columns:
            found = column.levels
            if found == AUTO:
                found = tuple(sorted((levels or {})[column.name]))
            columns.append(replace(column, levels=found, nullable=column.name in nullable))
        return replace(self, columns=tuple(columns))

    def probed(self, batch: pa.RecordBatch, where: str) -> ColumnPlan:
        """The plan with the layout that its transform gives `batch`."""
        layout = {
            name: ArraySpec(array.shape[1:], array.dtype)
            for name, array in next(self._transformed(batch, where)).items()
        }
        return replace(self, layout=layout)

    def rows(self, batch: pa.RecordBatch, where: str) -> Iterator[Rows]:
        """The rows of one Arrow batch; `where` says in words where it is from."""
        if self.transform is None:
            yield _Columns({name: self._array(name, batch, where) for name in self.arrays})
            return
        for block in self._transformed(batch, where):
            found = {name: ArraySpec(array.shape[1:], array.dtype) for name, array in block.items()}
            if found != self.layout:
                raise TransformError(
                    f"{where}: the transform returned {described(found)}, but for the first block "
                    f"{described(self.layout)}. It must return the same arrays for every block."
                )
            yield InMemory(block)

    def _array(self, name: str, batch: pa.RecordBatch, where: str) -> np.ndarray | SideBySide:
        """The column that is an array, or those that make one side by side."""
        names, dtype = self.arrays[name], self.layout[name].dtype
        if isinstance(names, str):
            numbers = self._numbers(names, dtype, batch, where)
            return narrowed(numbers, dtype, f"{where}: column {names!r}")
        stored = self._stored_alike.get(name)
        if stored is not None:
            there = {column: i for i, column in enumerate(batch.schema.names)}
            positions = np.array([there[column] for column in names])
            together = SideBySide.of_batch(batch, positions, stored)
            if together is not None:
                return together
        columns = [self._numbers(column, dtype, batch, where) for column in names]
        if not SideBySide.converts([numbers.dtype for numbers in columns], dtype):
            columns = [
                narrowed(numbers, dtype, f"{where}: column {column!r}")
                for column, numbers in zip(names, columns, strict=True)
            ]
        return SideBySide.of_arrays(columns)

    def _numbers(self, name: str, dtype: np.dtype, batch: pa.RecordBatch, where: str) -> np.ndarray:
        """One column, in the type nearest to the stored one, for an array of `dtype`."""
        column, array = self.by_name[name], _without_null_levels(batch.column(name))
        column.refuse_nulls(array.null_count, where)
        numbers = column.values(array, where)
        if dtype.kind == "f" and name not in self._plain:
            refuse_large(numbers, dtype, f"{where}: column {name!r}")
        return numbers

    def _transformed(self, batch: pa.RecordBatch, where: str) -> Iterator[Block]:
        columns = {
            column.name: column.transform_input(
                _without_null_levels(batch.column(column.name)), where
            )
            for column in self.columns
        }
        for start in range(0, batch.num_rows, _TRANSFORMED_ROWS):
            stop = min(start + _TRANSFORMED_ROWS, batch.num_rows)
            inputs = {name: values[start:stop] for name, values in columns.items()}
            yield self._called(inputs, stop - start, where)

    def _called(self, inputs: dict[str, np.ndarray], n_rows: int, where: str) -> Block:
        """What the transform makes of its inputs, `n_rows` each."""
        assert self.transform is not None
        try:
            result = self.transform(inputs)
        except Exception as error:
            raise TransformError(
                f"{where}: the transform raised {type(error).__name__}: {error}. It was called "
                f"with {n_rows:,} rows of the columns {shortened(self.names)}."
            ) from error
        block = named_arrays(result, self.floating, f"{where}: the transform", TransformError)
        for name, array in block.items():
            if len(array) != n_rows:
                raise TransformError(
                    f"{where}: the transform returned {len(array):,} rows in array {name!r} for a "
                    f"block of {n_rows:,}. It must keep every row; to drop rows, use "
                    "`filters` (Parquet), or beforehand, so that N counts the rows that are left."
                )
        return block


class _Columns(Rows):
    """Rows as columns: each an array of its own, or several that belong side by side."""

    stay = True

    def __init__(self, arrays: Mapping[str, np.ndarray | SideBySide]) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def write(self, start: int, out: Block) -> bool:
        """Lay them side by side."""
        may_hold_nan = False
        for name, array in out.items():
            columns = self._arrays[name]
            if isinstance(columns, SideBySide):
                may_hold_nan |= columns.write(start, array)
            else:
                array[:] = columns[start : start + len(array)]
                may_hold_nan = True
        return may_hold_nan


def _numpy(array: pa.Array) -> np.ndarray:
    values: np.ndarray = array.to_numpy(zero_copy_only=False)
    return values


def _without_null_levels(array: pa.Array) -> pa.Array:
    # A null in the dictionary itself is one that null_count does not see.
    if pa.types.is_dictionary(array.type) and array.dictionary.null_count:
        return decoded(array)
    return array


def described(layout: Mapping[str, ArraySpec]) -> str:
    """The arrays in words."""
    return ", ".join(
        f"{name!r}: {spec.dtype} (rows{''.join(f', {n}' for n in spec.row_shape)})"
        for name, spec in layout.items()
    )


def counted(number: int, word: str) -> str:
    """The number and the word, with an s unless it is one."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def shortened(names: Sequence[Any], limit: int = 20) -> str:
    """The names in words, the first `limit` of them."""
    shown = ", ".join(map(str, names[:limit]))
    return shown + (f" and {len(names) - limit:,} more" if len(names) > limit else "")
