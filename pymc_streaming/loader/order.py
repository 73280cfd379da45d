"""Which rows, in which order: a pure function of (seed, epoch).

The fragments are put in a random order that goes evenly over the table; their rows, in that order
of fragments, form one long stream; the stream is cut into windows of exactly the size of the
shuffle buffer; each window is permuted. Nothing depends on blocks, threads or reading ahead, so any
position can be sought.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Order", "Position", "even_permutation"]

#: Epoch, and rows already delivered in it.
Position = tuple[int, int]

# Ranges of so many numbers are not split on.
_FEW = 3


def even_permutation(n: int, generator: np.random.Generator) -> np.ndarray:
    """A random order of 0 to `n` - 1 in which every stretch comes from all over the range.

    Of two neighbours one is from either half, of four one from each quarter, and so on down to
    ranges of a few numbers, which come in any order; only where the end of the order was joined to
    its beginning the halves may miss their turn. Every number is equally likely at every place.
    Fragments of a sorted table, taken in this order, fill a shuffle buffer far more fairly than in
    an order in which all permutations are equally likely.

    Parameters
    ----------
    n : int
        How many numbers.
    generator : numpy.random.Generator
        Where the randomness comes from.

    Returns
    -------
    ndarray of int
        A permutation.

    Notes
    -----
    The van der Corput sequence, scrambled as by Owen, for any `n`, cut off at ranges of 3 numbers,
    and begun anywhere.

    References
    ----------
    Owen, A. B. (1995). Randomly permuted (t, m, s)-nets and (t, s)-sequences. *Monte Carlo and
    Quasi-Monte Carlo Methods in Scientific Computing*, 299-317.

    Examples
    --------
    >>> even_permutation(8, np.random.default_rng(1)) // 2  # quarters
    array([3, 0, 2, 1, 3, 0, 2, 1])
    """
    if n == 0:
        return np.zeros(0, dtype=int)
    # Every second place takes its numbers from one half of the range, the others from the other;
    # which from which is drawn; and so on in each half.
    start, size = np.zeros(1, dtype=int), np.array([n])
    while size[0] > _FEW:
        fewer, more = size // 2, size - size // 2
        upper_first = generator.integers(0, 2, size=len(start)) == 1
        start = np.concatenate(
            [start + upper_first * fewer, start + ~upper_first * more],
        )
        size = np.concatenate([more, fewer])
    # The few that are left of a range come in any order. Split on, the middle one of three would
    # always come among the first two: rows with a period of three would not be mixed.
    turns = np.arange(size[0])[:, np.newaxis]
    drawn = np.where(turns < size, generator.random((size[0], len(size))), np.inf)
    order = (start + drawn.argsort(axis=0)).ravel()[:n]
    return np.roll(order, generator.integers(n))


@dataclass(frozen=True)
class Order:
    """The order of all epochs.

    Parameters
    ----------
    counts : tuple of int or None
        Rows of each fragment; None where only reading it can tell.
    window : int or None
        Rows that are permuted together; None for the order of the source itself.
    seed : int
        Seed of both permutations.
    """

    counts: tuple[int | None, ...]
    window: int | None
    seed: int

    def fragments(self, epoch: int) -> np.ndarray:
        """Indices of the fragments in the order in which `epoch` reads them."""
        if self.window is None:
            return np.arange(len(self.counts))
        return even_permutation(len(self.counts), self._generator(epoch, 0))

    def window_generator(self, epoch: int, number: int) -> np.random.Generator:
        """What the rows within window `number` are permuted with."""
        return self._generator(epoch, 1, number)

    def seek(self, epoch: int, row: int) -> tuple[np.ndarray, int, int]:
        """Where to start reading so that row number `row` of `epoch` is not missed.

        Returns
        -------
        fragments : ndarray of int
            Fragments to read, in order.
        skip : int
            Rows to skip at the beginning of the first.
        base : int
            Row of the epoch, at the beginning of a window, that comes after those.
        """
        base = row if self.window is None else row - row % self.window
        fragments = self.fragments(epoch)
        passed = 0
        for place, fragment in enumerate(fragments):
            count = self.counts[fragment]
            # A fragment of unknown length can only be read and discarded.
            if count is None or passed + count > base:
                return fragments[place:], base - passed, base
            passed += count
        return fragments[len(fragments) :], 0, base

    def sources_of(self, epoch: int, start: int, stop: int) -> Iterator[int]:
        """Fragments that rows `start` to `stop` (excluded) of `epoch` can have come from."""
        if self.window is not None:
            start -= start % self.window
            stop += -stop % self.window
        passed = 0
        for fragment in self.fragments(epoch):
            count = self.counts[fragment]
            if count is None:
                yield int(fragment)
                return
            if passed < stop and passed + count > start:
                yield int(fragment)
            passed += count

    def _generator(self, epoch: int, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, *key)))
