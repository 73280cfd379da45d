"""Blocks of rows: skipping, shuffling within a bounded window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pymc_streaming.sources import Block

__all__ = ["count_rows", "drop_rows", "nth_batch", "shuffle_windows"]


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
    permutation: Callable[[int, int], np.ndarray],
    first: int,
    piece: int,
) -> Iterator[Block]:
    """Permute the rows within consecutive windows of `size` rows.

    Parameters
    ----------
    blocks : iterable of Block
        Rows, beginning at the first row of a window.
    size : int
        Rows in a window; the last may be short.
    permutation : callable
        From the number of a window and its rows to a permutation.
    first : int
        Number of the first window.
    piece : int
        Most rows that are yielded at once.

    Yields
    ------
    Block
        Pieces of one window after the other, in arrays of their own.
    """
    scratch: Block = {}
    filled, window = 0, first
    for block in blocks:
        count, start = count_rows(block), 0
        if not scratch:
            scratch = {
                name: np.empty((size, *array.shape[1:]), array.dtype)
                for name, array in block.items()
            }
        while start < count:
            taken = min(size - filled, count - start)
            for name, array in block.items():
                scratch[name][filled : filled + taken] = array[start : start + taken]
            filled += taken
            start += taken
            if filled == size:
                yield from _permuted(scratch, permutation(window, filled), piece)
                filled, window = 0, window + 1
    if filled:
        yield from _permuted(scratch, permutation(window, filled), piece)


def _rows(block: Block, start: int, stop: int) -> Block:
    return {name: array[start:stop] for name, array in block.items()}


def _permuted(block: Block, permutation: np.ndarray, piece: int) -> Iterator[Block]:
    # Few long calls: a thread that makes many short ones holds up the other.
    for start in range(0, len(permutation), piece):
        indices = permutation[start : start + piece]
        yield {name: np.take(array, indices, axis=0, mode="clip") for name, array in block.items()}
