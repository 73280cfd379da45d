"""Blocks of rows: skipping, shuffling within a bounded window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pymc_streaming.loader.kernels import deal, draw_piles, shuffle
from pymc_streaming.sources import Block

__all__ = ["count_rows", "drop_rows", "nth_batch", "shuffle_windows"]

# A pile of rows that fits into a processor's cache.
_PILE_BYTES = 2**18


def count_rows(block: Block) -> int:
    """Rows of a block."""
    return len(next(iter(block.values())))


def nth_batch(batches: Block, number: int, batch_size: int) -> Block:
    """Batch `number`, from 0, of several that lie one after the other; not copied."""
    return _rows(batches, number * batch_size, (number + 1) * batch_size)


def drop_rows(blocks: Iterable[Block], n_rows: int) -> Iterator[Block]:
    """All but the first `n_rows` rows."""
    for block in blocks:
        count = count_rows(block)
        if n_rows >= count:
            n_rows -= count
            continue
        yield _rows(block, n_rows, count) if n_rows else block
        n_rows = 0


def shuffle_windows(
    blocks: Iterable[Block],
    size: int,
    generator: Callable[[int], np.random.Generator],
    first: int,
) -> Iterator[Block]:
    """Permute the rows within consecutive windows of `size` rows, uniformly.

    Every row is dealt to a random pile, and each pile is then permuted. A pile fits into a
    processor's cache; to pick the rows one by one from all over the window takes twice as long.

    Parameters
    ----------
    blocks : iterable of Block
        Rows, beginning at the first row of a window.
    size : int
        Rows in a window; the last may be short.
    generator : callable
        From the number of a window to its randomness.
    first : int
        Number of the first window.

    Yields
    ------
    Block
        One pile after the other. Its arrays are written to again when the next is asked for.

    References
    ----------
    Rao, C. R. (1961). Generation of random permutations of given number of elements using
    random sampling numbers. *Sankhya A* 23(3), 305-307.
    """
    piles: _Piles | None = None
    number = first
    for block in blocks:
        count, start = count_rows(block), 0
        if piles is None:
            piles = _Piles(block, size)
            piles.begin(generator(number))
        while start < count:
            taken = min(size - piles.filled, count - start)
            piles.deal(_rows(block, start, start + taken))
            start += taken
            if piles.filled == size:
                yield from piles
                number += 1
                piles.begin(generator(number))
    if piles is not None and piles.filled:
        yield from piles


class _Piles:
    """Memory for a window, divided at random.

    Parameters
    ----------
    block : Block
        Rows as all others will be.
    size : int
        Most rows of a window.

    Attributes
    ----------
    filled : int
        Rows that were dealt.
    """

    def __init__(self, block: Block, size: int) -> None:
        self._rows = {
            name: np.empty((size, *array.shape[1:]), array.dtype) for name, array in block.items()
        }
        nbytes = sum(array.nbytes for array in self._rows.values())
        # A power of two, so that random bits say which pile.
        self._counts = np.zeros(min(256, 1 << (nbytes // _PILE_BYTES).bit_length()), np.int64)
        self._pile_of = np.empty(size, np.uint8)
        self._size = size
        self._pile: Block = {}

    def begin(self, generator: np.random.Generator) -> None:
        """Decide where the rows of the next window go; the last ones are forgotten."""
        self.filled = 0
        seed, *self._seeds = generator.integers(2**64, size=1 + len(self._counts), dtype=np.uint64)
        draw_piles(seed, self._pile_of, self._counts)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]])
        self._ends = self._starts.copy()

    def deal(self, block: Block) -> None:
        """Put rows on their piles."""
        n_rows = count_rows(block)
        pile_of = self._pile_of[self.filled : self.filled + n_rows]
        for name, array in block.items():
            ends = self._ends.copy()
            deal(array.reshape(n_rows, -1), pile_of, ends, self._rows[name].reshape(self._size, -1))
        self._ends = ends
        self.filled += n_rows

    def __iter__(self) -> Iterator[Block]:
        largest = int((self._ends - self._starts).max())
        if not self._pile or count_rows(self._pile) < largest:
            self._pile, self._permuted = (
                {name: np.empty_like(array[:largest]) for name, array in self._rows.items()}
                for _ in range(2)
            )
        order = np.empty(largest, np.int64)
        for seed, start, end in zip(self._seeds, self._starts, self._ends, strict=True):
            n_rows = end - start
            shuffle(seed, order[:n_rows])
            for name, array in self._rows.items():
                # Into the cache from end to end first: picked from memory they take twice as long.
                pile, permuted = self._pile[name][:n_rows], self._permuted[name][:n_rows]
                pile[:] = array[start:end]
                np.take(pile, order[:n_rows], axis=0, out=permuted, mode="clip")
            yield _rows(self._permuted, 0, n_rows)


def _rows(block: Block, start: int, stop: int) -> Block:
    return {name: array[start:stop] for name, array in block.items()}
