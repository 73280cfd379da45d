"""Moving rows, compiled: without the interpreter's lock, so that the steps go on meanwhile.

Everything that Numba compiles to its cache is in this file, because the cache follows the file's
own changes but not those of others.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["permute", "place"]


@numba.njit(nogil=True)
def random_bits(seed: np.uint64, number: int) -> np.uint64:
    """Random bits number `number` of the sequence that `seed` stands for.

    The generator SplitMix64: three times as fast here as to draw an array beforehand.

    References
    ----------
    Steele, G. L., Lea, D. and Flood, C. H. (2014). Fast splittable pseudorandom number
    generators. *OOPSLA '14*, 453-472.
    """
    bits = seed + np.uint64(number + 1) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def permute(seed: np.uint64, out: np.ndarray) -> None:
    """A permutation of 0 to n - 1 into `out`, whole numbers of shape (n,), all equally likely.

    For n up to 2**32.

    References
    ----------
    Durstenfeld, R. (1964). Algorithm 235: Random permutation. *Communications of the ACM* 7(7),
    420; in the form that needs no identity to begin with.
    Lemire, D. (2019). Fast random integer generation in an interval. *ACM Transactions on Modeling
    and Computer Simulation* 29(1), 3; without the rejection, which one in 2**32 numbers would meet.
    """
    low = np.uint64(2**32 - 1)
    for i in range(len(out)):
        bits, count = random_bits(seed, i), np.uint64(i + 1)
        # The upper 64 bits of bits * count: a number from 0 to i.
        upper = (bits >> np.uint64(32)) * count + (((bits & low) * count) >> np.uint64(32))
        j = np.int64(upper >> np.uint64(32))
        out[i] = out[j]
        out[j] = i


@numba.njit(nogil=True, cache=True)
def place(rows: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    """Put every row in its place.

    Rows are written all over memory, for which a processor does not wait; to read them from all
    over takes longer, and so do two passes that each stay in its cache.

    Parameters
    ----------
    rows : ndarray of records, shape (n,)
        Rows.
    places : ndarray of int, shape (n,)
        Where in `out` each of them goes.
    out : ndarray of records, shape (m,)
        Changed.
    """
    for i in range(len(rows)):
        out[places[i]] = rows[i]
