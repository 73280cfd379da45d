"""Laying columns side by side, compiled: without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
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
    columns : sequence of ndarray, shape (n,)
        All of one dtype.
    """

    def __init__(self, columns: Sequence[np.ndarray]) -> None:
        self._columns = [np.ascontiguousarray(column) for column in columns]
        self._addresses = np.array([column.ctypes.data for column in self._columns], np.int64)

    @staticmethod
    def converts(columns: Sequence[np.ndarray], dtype: np.dtype) -> bool:
        """Whether such columns can be written into an array of `dtype`, and lose nothing."""
        first, *others = {column.dtype for column in columns}
        return first in _COMPILED and not others and np.can_cast(first, dtype)

    def __len__(self) -> int:
        return len(self._columns[0])

    def write(self, start: int, out: np.ndarray) -> bool:
        """Write rows `start` and on into `out`, C-contiguous.

        Returns
        -------
        bool
            Whether there is NaN among them.
        """
        dtype = self._columns[0].dtype
        one = np.empty(1, dtype)  # says which, to a compiler
        return bool(_side_by_side(self._addresses, start * dtype.itemsize, one, out))


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


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
