"""Moving rows, compiled: without the interpreter's lock, so that the steps go on meanwhile.

Everything that Numba compiles to its cache is in this file, because the cache follows the file's
own changes but not those of others.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["deal", "shuffle"]


@numba.njit(nogil=True, cache=True)
def deal(rows: np.ndarray, piles: np.ndarray, ends: np.ndarray, out: np.ndarray) -> None:
    """Put every row at the end of its pile.

    Parameters
    ----------
    rows : ndarray, shape (n, k)
        Rows.
    piles : ndarray of uint8, shape (n,)
        Number of the pile that each goes to.
    ends : ndarray of int64
        Where in `out` the next row of each pile goes. Changed.
    out : ndarray, shape (m, k)
        All piles.
    """
    for i in range(len(rows)):
        place = ends[piles[i]]
        ends[piles[i]] += 1
        for j in range(rows.shape[1]):
            out[place, j] = rows[i, j]


@numba.njit(nogil=True, cache=True)
def shuffle(random: np.ndarray, out: np.ndarray) -> None:
    """A permutation, by the method of Fisher and Yates.

    Parameters
    ----------
    random : ndarray of uint64, shape (n,)
        Random bits, of which the upper 53 make a number between 0 and 1.
    out : ndarray of int64, shape (n,)
        The permutation of 0 to n - 1.
    """
    for i in range(len(out)):
        j = np.int64((random[i] >> np.uint64(11)) * 2.0**-53 * (i + 1))
        out[i] = out[j]
        out[j] = i
