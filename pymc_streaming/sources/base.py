"""The contract of a source: a list of fragments, each readable on its own."""

from __future__ import annotations

import abc
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pymc_streaming.errors import (
    MissingValueError,
    PrecisionError,
    RowCountError,
    SchemaError,
)
from pymc_streaming.sources.skipped import SkippedFile

__all__ = [
    "SINGLE",
    "ArraySpec",
    "Block",
    "Fragment",
    "InMemory",
    "IterableDataset",
    "Rows",
    "digest_of",
    "read_checked",
]

#: The key of the one array of a source that has no names of its own.
SINGLE = "batch"

#: Some rows: arrays by name, all with the same number of rows.
Block = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """What one named array looks like, apart from its number of rows.

    Parameters
    ----------
    row_shape : tuple of int
        Shape of one row: ``()`` for a vector of observations, ``(14,)`` for a
        matrix with 14 columns.
    dtype : numpy.dtype
        Type of the elements, in native byte order.
    columns : tuple of str, default ()
        Names of the columns the array was made of, for messages.
    """

    row_shape: tuple[int, ...]
    dtype: np.dtype
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))  # from "float64", say

    @property
    def row_nbytes(self) -> int:
        """Bytes that one row takes."""
        return self.dtype.itemsize * math.prod(self.row_shape)

    def zeros(self, n_rows: int) -> np.ndarray:
        """An array of zeros with `n_rows` rows."""
        return np.zeros((n_rows, *self.row_shape), self.dtype)

    def empty(self, n_rows: int) -> np.ndarray:
        """An array of `n_rows` rows that hold anything."""
        return np.empty((n_rows, *self.row_shape), self.dtype)


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a source that can be read on its own.

    Parameters
    ----------
    n_rows : int or None
        Rows in the fragment, exactly; None when only reading it can tell.
    origin : str
        Where it is, in words, for messages: ``"part-0.parquet, row group 3"``.
    """

    n_rows: int | None
    origin: str


class Rows(abc.ABC):
    """Consecutive rows of a source: still in a file, or in columns, or where not.

    They are laid down, as the layout of the source says, in memory that whoever wants them has
    ready; so rows go from a file to where the batches are in one move.

    Attributes
    ----------
    stay : bool
        Whether they can still be written when the next have been asked for.
    """

    stay = False

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many."""

    @abc.abstractmethod
    def write(self, start: int, out: Block) -> bool:
        """Write the rows from number `start` on into the arrays `out`, as many as those hold.

        Returns
        -------
        bool
            False if it is known that there is no NaN among them.
        """

    def looked_at(self, start: int, stop: int) -> None:  # noqa: B027 - few need to know
        """Hear that rows `start` to `stop` (excluded) were written, and there was no NaN."""

    def block(self, layout: Mapping[str, ArraySpec]) -> Block:
        """All of them, in arrays of their own."""
        out = {name: spec.empty(len(self)) for name, spec in layout.items()}
        self.write(0, out)
        return out


class InMemory(Rows):
    """Rows that are in arrays of the layout already."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def __len__(self) -> int:
        return len(next(iter(self._block.values())))

    def write(self, start: int, out: Block) -> bool:
        """Copy."""
        for name, array in out.items():
            array[:] = self._block[name][start : start + len(array)]
        return True


class IterableDataset(abc.ABC):
    """A table that can be read in pieces, as often as needed.

    A source says what it holds (`layout`), in which pieces (`fragments`), and
    reads a piece when asked (`read`). All three are fixed when it is made; order,
    shuffling, batching and reading ahead are the business of
    :class:`~pymc_streaming.DataLoader`.

    Attributes
    ----------
    layout : Mapping[str, ArraySpec]
        The arrays of every block, by name. A source of one unnamed array calls it
        ``"batch"``.
    fragments : Sequence[Fragment]
        The pieces, in the order of the rows.
    is_shuffled : bool
        True when the rows are known to be in uniformly random order.
    is_in_memory : bool
        True when the rows are in memory already, so that nothing is won by keeping them.
    skipped : Sequence[SkippedFile]
        Damaged files that were left out, because that was wished.
    is_quick : bool
        True when the rows lie in local files as batches need them: the system keeps such files in
        its own memory while there is room, and reading them again costs hardly more than copying.

    Examples
    --------
    A source that makes its rows up, ten fragments of a hundred:

    >>> import numpy as np
    >>> from pymc_streaming import ArraySpec, DataLoader, Fragment, IterableDataset
    >>> class Squares(IterableDataset):
    ...     layout = {"x": ArraySpec((), np.dtype("float64"))}
    ...     fragments = [Fragment(100, f"squares, part {i}") for i in range(10)]
    ...
    ...     def read(self, fragment):
    ...         start = 100 * self.fragments.index(fragment)
    ...         yield {"x": np.arange(start, start + 100, dtype="float64") ** 2}
    >>> len(DataLoader(Squares(), batch_size=32))
    1000
    """

    layout: Mapping[str, ArraySpec]
    fragments: Sequence[Fragment]
    is_shuffled: bool = False
    is_in_memory: bool = False
    is_quick: bool = False
    skipped: Sequence[SkippedFile] = ()

    @abc.abstractmethod
    def read(self, fragment: Fragment) -> Iterator[Block]:
        """Yield the rows of `fragment`, in order, in blocks of any bounded size.

        It may be called from several threads at a time for different fragments. A block has been
        copied when the next one is asked for, so its arrays may be used again.
        """

    def rows(self, fragment: Fragment) -> Iterator[Rows]:
        """The same for the loader: a source may have a quicker way to where the batches are."""
        seen = 0
        blocks: Any = self.read(fragment)
        if not isinstance(blocks, Iterable) or isinstance(blocks, Mapping):
            raise SchemaError(
                f"{fragment.origin}: read should yield blocks, but it returned "
                f"{type(blocks).__name__}."
            )
        for block in blocks:
            rows = InMemory(
                conforming(block, self.layout, f"{fragment.origin}, rows from {seen:,}")
            )
            seen += len(rows)
            yield rows

    def at_epoch(self, epoch: int) -> IterableDataset:  # noqa: ARG002 - few depend on it
        """The source as it is in a pass, for those that have an order of their own for each."""
        return self

    @property
    def n_rows(self) -> int | None:
        """Rows in the whole source, or None when a fragment does not know its own."""
        counts = [fragment.n_rows for fragment in self.fragments]
        return None if None in counts else sum(counts)  # type: ignore[arg-type]

    @property
    def fingerprint(self) -> str:
        """What is another for another table, as far as that is known without reading its rows.

        Where the files lie says nothing.
        """
        return digest_of((fragment.origin, fragment.n_rows) for fragment in self.fragments)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in the order of the arrays they went into."""
        return tuple(column for spec in self.layout.values() for column in spec.columns)

    @property
    def row_nbytes(self) -> int:
        """Bytes that one row takes in memory, over all arrays."""
        return sum(spec.row_nbytes for spec in self.layout.values())


def digest_of(facts: Iterable[object]) -> str:
    """A short hash of things whose ``repr`` says what they are."""
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(repr(fact).encode())
    return digest.hexdigest()[:16]


def read_checked(source: IterableDataset, fragment: Fragment) -> Iterator[Rows]:
    """Read a fragment, and hold it to what the source says of it.

    Parameters
    ----------
    source : IterableDataset
        The source.
    fragment : Fragment
        One of its fragments.

    Yields
    ------
    Rows
        To be written somewhere before the next is asked for. Writing them raises
        `MissingValueError` if they hold NaN.

    Raises
    ------
    SchemaError
        If a block has other arrays, row shapes, kinds of numbers, or arrays of
        unequal length.
    RowCountError
        If the fragment had more or fewer rows than it announced.
    """
    seen = 0
    for rows in source.rows(fragment):
        first, seen = seen, seen + len(rows)
        if fragment.n_rows is not None and seen > fragment.n_rows:
            break
        yield _WithoutNaN(rows, source.layout, fragment.origin, first)
    if fragment.n_rows is not None and seen != fragment.n_rows:
        found = "more" if seen > fragment.n_rows else f"{seen:,}"
        raise RowCountError(
            f"{fragment.origin}: expected {fragment.n_rows:,} rows, found {found}. "
            "Did the data change since the source was made? Make it anew."
        )


class _WithoutNaN(Rows):
    """Rows that are looked at when they have been written: they are in the cache then."""

    def __init__(
        self, rows: Rows, layout: Mapping[str, ArraySpec], origin: str, first: int
    ) -> None:
        self._rows, self._layout, self._origin, self._first = rows, layout, origin, first
        self.stay = rows.stay

    def __len__(self) -> int:
        return len(self._rows)

    def write(self, start: int, out: Block) -> bool:
        """Write, and refuse NaN."""
        if self._rows.write(start, out):
            where = f"{self._origin}, rows from {self._first + start:,}"
            for name, spec in self._layout.items():
                refuse_nan(out[name], spec, name, where)
        self._rows.looked_at(start, start + len(next(iter(out.values()))))
        return False


def check_source(source: IterableDataset) -> None:
    """Raise `SchemaError` if a source does not say of itself what the loader needs."""
    name = type(source).__name__
    layout = getattr(source, "layout", None)
    if not (
        isinstance(layout, Mapping)
        and layout
        and all(isinstance(spec, ArraySpec) for spec in layout.values())
    ):
        raise SchemaError(
            f"{name}.layout should be a dict of names and ArraySpec, at least one, found {layout!r}"
        )
    fragments = getattr(source, "fragments", None)
    if not (
        isinstance(fragments, Sequence)
        and fragments
        and all(isinstance(fragment, Fragment) for fragment in fragments)
    ):
        raise SchemaError(
            f"{name}.fragments should be a list of Fragment, at least one, found {fragments!r}"
        )


def conforming(block: Block, layout: Mapping[str, ArraySpec], where: str) -> Block:
    """A block held to the layout.

    Raises
    ------
    SchemaError
        If it has other arrays, row shapes, kinds of numbers, or arrays of unequal length.
    PrecisionError
        If it holds a number that the layout's type cannot.
    """
    if not isinstance(block, Mapping):
        raise SchemaError(
            f"{where}: read should yield dicts of arrays by name, found {type(block).__name__}."
        )
    if set(block) != set(layout):
        raise SchemaError(f"{where}: expected the arrays {sorted(layout)}, found {sorted(block)}.")
    conformed = {name: _conform(block[name], spec, name, where) for name, spec in layout.items()}
    lengths = {name: len(array) for name, array in conformed.items()}
    if len(set(lengths.values())) > 1:
        raise SchemaError(f"{where}: the arrays have different numbers of rows: {lengths}.")
    return conformed


def _conform(array: np.ndarray, spec: ArraySpec, name: str, where: str) -> np.ndarray:
    array = np.asarray(array)
    if array.shape[1:] != spec.row_shape or array.ndim == 0:
        raise SchemaError(
            f"{where}: rows of array {name!r} should have shape {spec.row_shape}, found an array "
            f"of shape {array.shape}."
        )
    if array.dtype == spec.dtype:
        return array
    if not np.can_cast(array.dtype, spec.dtype, casting="same_kind"):
        raise SchemaError(f"{where}: array {name!r} should hold {spec.dtype}, found {array.dtype}.")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(spec.dtype)
        if array.dtype.kind in "iu":  # there and back, since a comparison would round as well
            lost = (converted.astype(array.dtype) != array) | ((converted < 0) & (array >= 0))
        else:
            lost = np.isinf(converted) & np.isfinite(array)
    if lost.any():
        raise PrecisionError(
            f"{where}: array {name!r} holds {array[lost][0]}, which {spec.dtype} cannot. Give the "
            "array another dtype in the layout, or rescale it."
        )
    return converted


def refuse_nan(array: np.ndarray, spec: ArraySpec, name: str, where: str) -> None:
    """Raise `MissingValueError`, naming the column, if `array` holds NaN."""
    # NaN survives a minimum: one pass over memory and no temporary, on the path that is clean.
    if array.dtype.kind != "f" or not array.size or not np.isnan(array.min()):
        return
    missing = np.isnan(array)
    first = tuple(int(i) for i in np.argwhere(missing)[0])
    if len(first) == 2 and len(spec.columns) == spec.row_shape[0]:
        column = repr(spec.columns[first[1]])
    else:
        column = repr(name) if len(first) == 1 else f"number {first[1]} from 0"
    raise MissingValueError(
        f"{where}: {int(missing.sum()):,} NaN in array {name!r}, the first in column {column} at "
        f"row {first[0]:,} of the block. Drop those rows beforehand (for Parquet, with "
        "filters=), or fill them in (in a transform=, where there is one; a missing-indicator "
        "column keeps the information)."
    )
