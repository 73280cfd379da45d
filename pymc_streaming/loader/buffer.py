"""Rows, shuffled within a bounded window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue

import numpy as np

from pymc_streaming.loader.kernels import deal, draw_piles, pick
from pymc_streaming.loader.order import Position
from pymc_streaming.sources import ArraySpec, Block

__all__ = ["Window", "Windows", "count_rows", "nth_batch", "rows_of"]

# A pile of rows that fits into a processor's cache.
_PILE_BYTES = 2**18


def count_rows(block: Block) -> int:
    """Rows of a block."""
    return len(next(iter(block.values())))


def nth_batch(batches: Block, number: int, batch_size: int) -> Block:
    """Batch `number`, from 0, of several that lie one after the other; not copied."""
    return rows_of(batches, number * batch_size, (number + 1) * batch_size)


def rows_of(block: Block, start: int, stop: int | None = None) -> Block:
    """Rows `start` to `stop` (excluded), not copied."""
    return {name: array[start:stop] for name, array in block.items()}


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
        self.filled = 0

    def begin(self, generator: np.random.Generator) -> None:
        """Forget all rows, and decide where the next go."""
        self.filled = 0
        seeds = generator.integers(2**64, size=1 + len(self._counts), dtype=np.uint64)
        draw_piles(seeds[0], self._pile_of, self._counts)
        self._seeds = seeds[1:]
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
        block = rows_of(block, start, start + n_rows)
        pile_of = self._pile_of[self.filled : self.filled + n_rows]
        for name, array in block.items():
            ends = self._ends.copy()
            deal(_records(array), pile_of, ends, _records(self._rows[name]))
        self._ends = ends
        self.filled += n_rows
        return n_rows

    @property
    def is_full(self) -> bool:
        """Whether there is room for no more."""
        return self.filled == self._size

    def copy(self, first: int, out: Block) -> None:
        """Write the rows from number `first` on of the permuted window into the arrays `out`."""
        for name, array in self._rows.items():
            pick(_records(array), self._starts, self._ends, self._seeds, first, _records(out[name]))


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
        self,
        blocks: Iterable[tuple[Position, Block]],
        generator: Callable[[int], np.random.Generator],
        first: int,
    ) -> Iterator[Window]:
        """Windows full of the rows of `blocks`, the last one perhaps not full.

        Parameters
        ----------
        blocks : iterable of (position, Block)
            Rows, beginning at the first row of a window.
        generator : callable
            From the number of a window to its randomness.
        first : int
            Number of the first window.
        """
        number, window = first, None
        for _, block in blocks:
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

    def give_back(self, window: Window | None) -> None:
        """Let `window` be filled again; None when no window will be given back any more."""
        self._free.put(window)


def _records(array: np.ndarray) -> np.ndarray:
    """The same memory, an element for each row: moved as one they take half as long."""
    nbytes = array.dtype.itemsize * math.prod(array.shape[1:])
    return array.reshape(-1).view(np.dtype([("row", np.uint8, (nbytes,))]))
