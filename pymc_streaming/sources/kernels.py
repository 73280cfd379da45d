"""Laying columns side by side, compiled: without the interpreter's lock."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["SideBySide"]

# What is not among these is converted beforehand: compiled code has no half precision, for one.
_COMPILED = {np.dtype(name) for name in ("f4", "f8", "i4", "i8")}

# Rows at a time: the processor's cache holds them until all their columns are there.
_TILE = 128


class SideBySide:
    """Columns that belong side by side in one array.

    Parameters
    ----------
    addresses : ndarray of int64
        Where each of them begins.
    dtype : numpy.dtype
        That of all.
    n_rows : int
        Rows of each.
    owner : object
        What keeps them in memory.
    """

    def __init__(self, addresses: np.ndarray, dtype: np.dtype, n_rows: int, owner: object) -> None:
        self._addresses, self._dtype, self._n_rows, self._owner = addresses, dtype, n_rows, owner

    @classmethod
    def of_arrays(cls, columns: Sequence[np.ndarray]) -> SideBySide:
        """Arrays of shape (n,), all of one dtype."""
        columns = [np.ascontiguousarray(column) for column in columns]
        addresses = np.array([column.ctypes.data for column in columns], np.int64)
        return cls(addresses, columns[0].dtype, len(columns[0]), columns)

    @classmethod
    def of_batch(
        cls, batch: pa.RecordBatch, positions: np.ndarray, dtype: np.dtype
    ) -> SideBySide | None:
        """Columns of an Arrow batch, numbers of `dtype`; None if one has a null or a dictionary.

        Without a Python object for each: there may be hundreds, and ten microseconds for each are
        as much as decoding some thousand numbers.

        References
        ----------
        The Arrow C data interface, https://arrow.apache.org/docs/format/CDataInterface.html.
        """
        _, owner = batch.__arrow_c_array__()
        addresses = np.empty(len(positions), np.int64)
        exported = _pointer_in_capsule(owner, b"arrow_array")
        if not _column_addresses(exported, positions, dtype.itemsize, addresses):
            return None
        return cls(addresses, dtype, batch.num_rows, owner)

    @staticmethod
    def converts(dtypes: Iterable[np.dtype], dtype: np.dtype) -> bool:
        """Whether columns of such types can be written into an array of `dtype` without loss."""
        first, *others = set(dtypes)
        return first in _COMPILED and not others and np.can_cast(first, dtype)

    def __len__(self) -> int:
        return self._n_rows

    def write(self, start: int, out: np.ndarray) -> bool:
        """Write rows `start` and on into `out`, C-contiguous.

        Returns
        -------
        bool
            Whether there is NaN among them.
        """
        one = np.empty(1, self._dtype)  # says which, to a compiler
        offset = start * self._dtype.itemsize
        return bool(_side_by_side(self._addresses, offset, one, out))


# One of its own: ctypes.pythonapi has one for all, whose types anybody may set.
_pointer_in_capsule = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@numba.njit
def _fields(address: int, count: int) -> Any:
    """So many fields of 8 bytes of a structure in memory."""
    return numba.carray(_pointer(address), count, np.int64)


@numba.njit(cache=True)
def _column_addresses(
    exported: int, positions: np.ndarray, itemsize: int, addresses: np.ndarray
) -> bool:
    """Where the values of columns begin, in a batch exported as a C structure."""
    batch = _fields(exported, 10)
    children = _fields(batch[6], batch[4])
    for i in range(len(positions)):
        # Length, null count (-1: not counted), offset, number of buffers and of children, buffers,
        # children, dictionary.
        column = _fields(children[positions[i]], 8)
        validity, values = _fields(column[5], 2)
        if (validity != 0 and column[1] != 0) or column[7] != 0:
            return False
        addresses[i] = values + (batch[2] + column[2]) * itemsize
    return True


@numba.njit(nogil=True, cache=True)
def _side_by_side(addresses: np.ndarray, offset: int, one: np.ndarray, out: np.ndarray) -> bool:
    n_rows, n_columns = out.shape
    numbers = True
    for first in range(0, n_rows, _TILE):
        rows = range(first, min(first + _TILE, n_rows))
        # Two columns at a time: one takes twice as long, many push each other out of the cache,
        # for those of a table are often a power of two of bytes apart.
        for j in range(0, n_columns, 2):
            k = min(j + 1, n_columns - 1)
            left: Any = numba.carray(_pointer(addresses[j] + offset), n_rows, one.dtype)
            right: Any = numba.carray(_pointer(addresses[k] + offset), n_rows, one.dtype)
            for i in rows:
                a, b = left[i], right[i]
                out[i, j], out[i, k] = a, b
                numbers &= (a == a) & (b == b)  # NaN is not equal to itself
    return not numbers
