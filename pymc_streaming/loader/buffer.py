"""Rows, shuffled within a bounded window."""

from __future__ import annotations

import functools
import math

import numpy as np

from pymc_streaming.loader.kernels import permute, place
from pymc_streaming.sources import Block, Rows

__all__ = ["Window", "copy", "count_rows", "nth_batch", "rows_of"]


def count_rows(block: Block) -> int:
    """Rows of a block."""
    return len(next(iter(block.values())))


def nth_batch(batches: Block, number: int, batch_size: int) -> Block:
    """Batch `number`, from 0, of several that lie one after the other; not copied."""
    return rows_of(batches, number * batch_size, (number + 1) * batch_size)


def rows_of(block: Block, start: int, stop: int) -> Block:
    """Rows `start` to `stop` (excluded), not copied."""
    return {name: array[start:stop] for name, array in block.items()}


def copy(block: Block, out: Block) -> None:
    """Write a block where `out` begins."""
    for name, array in block.items():
        out[name][: len(array)] = array


class Window:
    """Rows that are permuted together, uniformly: each is put in its place as it comes.

    Parameters
    ----------
    arrays : Block
        Where they go.
    on_the_way : Block
        Where they are on their way from their source to their places.
    front : int
        Rows of `arrays` that are left free in front of them.
    size : int
        How many there will be, at most.
    generator : numpy.random.Generator
        Where their order comes from.
    """

    def __init__(
        self,
        arrays: Block,
        on_the_way: Block,
        front: int,
        size: int,
        generator: np.random.Generator,
    ) -> None:
        self.arrays, self.front = arrays, front
        self._on_the_way = on_the_way
        self._places = np.empty(size, np.int32 if size < 2**31 else np.int64)
        permute(generator.integers(2**64, dtype=np.uint64), self._places)
        places = rows_of(arrays, front, front + size)
        self._out = {name: _records(rows) for name, rows in places.items() if rows.nbytes}
        self._filled = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def room(self) -> int:
        """How many are still to come."""
        return len(self) - self._filled

    def fill(self, rows: Rows, start: int) -> int:
        """Take `rows` from number `start` on, as many as there is room for; says how many."""
        stop = min(len(rows), start + self.room)
        most = count_rows(self._on_the_way)
        for first in range(start, stop, most):
            block = rows_of(self._on_the_way, 0, min(most, stop - first))
            rows.write(first, block)
            places = self._places[self._filled : self._filled + count_rows(block)]
            for name, out in self._out.items():
                place(_records(block[name]), places, out)
            self._filled += len(places)
        return stop - start

    def cut(self) -> None:
        """No more will come: close the gaps between those that are there."""
        # Any so many of the places are as likely as any others, and in any order.
        taken = np.sort(self._places[: self._filled])
        for rows in self._out.values():
            rows[: len(taken)] = rows[taken]
        self._places = self._places[: len(taken)]


def _records(array: np.ndarray) -> np.ndarray:
    """The same memory, an element for each row: moved as one they take half as long."""
    return array.reshape(-1).view(_record(array.dtype.itemsize * math.prod(array.shape[1:])))


@functools.cache
def _record(nbytes: int) -> np.dtype:
    return np.dtype([("row", np.uint8, (nbytes,))])
