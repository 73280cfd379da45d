"""Laying columns side by side, compiled: without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["side_by_side"]

# Laid down a tile at a time: few enough columns that a processor foresees what is read of each,
# few enough rows that the tile is in its cache until all their columns are there.
_TILE_ROWS, _TILE_COLUMNS = 64, 16


def side_by_side(columns: Sequence[np.ndarray], start: int, out: np.ndarray) -> None:
    """Write elements `start` and on of each of `columns` into the columns of `out`.

    Parameters
    ----------
    columns : sequence of ndarray, shape (n,)
        Of the dtype of `out`.
    start : int
        First element.
    out : ndarray, shape (m, number of columns)
        C-contiguous.
    """
    whole = [np.ascontiguousarray(column) for column in columns]
    addresses = np.array([column.ctypes.data for column in whole], np.int64)
    # As whole numbers, so that it is compiled once for floats and integers.
    bits = out.view(np.dtype(f"u{out.dtype.itemsize}"))
    _side_by_side(addresses, start * out.dtype.itemsize, bits)


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@numba.njit(nogil=True, cache=True)
def _side_by_side(addresses: np.ndarray, offset: int, out: np.ndarray) -> None:
    n_rows, n_columns = out.shape
    for first_row in range(0, n_rows, _TILE_ROWS):
        for first_column in range(0, n_columns, _TILE_COLUMNS):
            for i in range(first_row, min(first_row + _TILE_ROWS, n_rows)):
                for j in range(first_column, min(first_column + _TILE_COLUMNS, n_columns)):
                    column: Any = numba.carray(_pointer(addresses[j] + offset), n_rows, out.dtype)
                    out[i, j] = column[i]
