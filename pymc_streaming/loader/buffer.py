"""Rows, shuffled within a bounded window."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from queue import SimpleQueue

import numpy as np

from pymc_streaming.loader.kernels import deal, draw_piles, shuffle
from pymc_streaming.loader.order import Position
from pymc_streaming.sources import ArraySpec, Block

__all__ = ["Window", "Windows", "count_rows", "nth_batch"]

# A pile of rows that fits into a processor's cache.
_PILE_BYTES = 2**18


def count_rows(block: Block) -> int:
    """Rows of a block."""
    return len(next(iter(block.values())))


def nth_batch(batches: Block, number: int, batch_size: int) -> Block:
    """Batch `number`, from 0, of several that lie one after the other; not copied."""
    return _rows(batches, number * batch_size, (number + 1) * batch_size)


class Window:
    """Memory for rows that are permuted together, uniformly.

    Every row is dealt to a random pile, and each pile is then permuted. A pile fits into a
    processor's cache; to pick the rows one by one from all over the window takes twice as long.

    Parameters
    ----------
    layout : Mapping[str, ArraySpec]
        The arrays of a block.
    size : int
        Most rows.

    Attributes
    ----------
    filled : int
        Rows that were dealt.

    References
    ----------
    Rao, C. R. (1961). Generation of random permutations of given number of elements using
    random sampling numbers. *Sankhya A* 23(3), 305-307.
    """

    def __init__(self, layout: Mapping[str, ArraySpec], size: int) -> None:
        self._rows = {
            name: np.empty((size, *spec.row_shape), spec.dtype) for name, spec in layout.items()
        }
        nbytes = sum(array.nbytes for array in self._rows.values())
        # A power of two, so that random bits say which pile.
        self._counts = np.zeros(min(256, 1 << (nbytes // _PILE_BYTES).bit_length()), np.int64)
        self._pile_of = np.empty(size, np.uint8)
        self._size = size
        self._pile: Block = {}
        self.filled = 0

    def begin(self, generator: np.random.Generator) -> None:
        """Forget all rows, and decide where the next go."""
        self.filled = 0
        seed, *self._seeds = generator.integers(2**64, size=1 + len(self._counts), dtype=np.uint64)
        draw_piles(seed, self._pile_of, self._counts)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]])
        self._ends = self._starts.copy()

    def deal(self, block: Block, start: int) -> int:
        """Put rows of `block` from `start` on on their piles, as many as there is room for.

        Returns
        -------
        int
            How many.
        """
        n_rows = min(count_rows(block) - start, self._size - self.filled)
        block = _rows(block, start, start + n_rows)
        pile_of = self._pile_of[self.filled : self.filled + n_rows]
        for name, array in block.items():
            ends = self._ends.copy()
            deal(array.reshape(n_rows, -1), pile_of, ends, self._rows[name].reshape(self._size, -1))
        self._ends = ends
        self.filled += n_rows
        return n_rows

    @property
    def is_full(self) -> bool:
        """Whether there is room for no more."""
        return self.filled == self._size

    def __iter__(self) -> Iterator[Block]:
        """One permuted pile after the other, in arrays that are written to again."""
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


class _Abandoned(Exception):
    """Nobody empties windows any more; ends the thread that fills them."""


class Windows:
    """Two windows: one is filled while the other is emptied.

    Parameters
    ----------
    layout : Mapping[str, ArraySpec]
        The arrays of a block.
    size : int
        Rows of a window.
    """

    def __init__(self, layout: Mapping[str, ArraySpec], size: int) -> None:
        self._free: SimpleQueue[Window | None] = SimpleQueue()
        for _ in range(2):
            self._free.put(Window(layout, size))

    def filled(
        self, blocks: Iterable[Block], generator: Callable[[int], np.random.Generator], first: int
    ) -> Iterator[Window]:
        """Windows full of the rows of `blocks`, the last one perhaps not full.

        Parameters
        ----------
        blocks : iterable of Block
            Rows, beginning at the first row of a window.
        generator : callable
            From the number of a window to its randomness.
        first : int
            Number of the first window.
        """
        number, window = first, None
        for block in blocks:
            start = 0
            while start < count_rows(block):
                if window is None:
                    window = self._free.get()
                    if window is None:
                        raise _Abandoned
                    window.begin(generator(number))
                start += window.deal(block, start)
                if window.is_full:
                    yield window
                    number, window = number + 1, None
        if window is not None:
            yield window

    def emptied(
        self, windows: Iterable[tuple[Position, Window]], skip: int
    ) -> Generator[tuple[Position, Block]]:
        """The rows of windows in their permuted order.

        Parameters
        ----------
        windows : iterable of (position, Window)
            From `filled`, each with the position of its first row.
        skip : int
            Rows of the first one to leave out.

        Yields
        ------
        position : (int, int)
            That of the first row.
        block : Block
            Its arrays are written to again when the next is asked for.
        """
        try:
            for (epoch, row), window in windows:
                for block in window:
                    count = count_rows(block)
                    if skip < count:
                        yield (epoch, row + skip), _rows(block, skip, count)
                    skip, row = max(0, skip - count), row + count
                self._free.put(window)
        finally:
            self._free.put(None)


def _rows(block: Block, start: int, stop: int) -> Block:
    return {name: array[start:stop] for name, array in block.items()}
