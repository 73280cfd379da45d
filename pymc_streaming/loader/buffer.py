"""Blocks of rows: skipping, shuffling within a bounded window, cutting into batches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np

from pymc_streaming.loader.order import Position
from pymc_streaming.sources import Block

__all__ = ["batches", "count_rows", "drop_rows", "shuffle_windows"]


def count_rows(block: Block) -> int:
    """Rows of a block."""
    return len(next(iter(block.values())))


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


def batches(
    blocks: Iterable[tuple[Position, Block]], size: int
) -> Generator[tuple[Position, Block]]:
    """Cut blocks into batches of `size` rows, whatever their boundaries.

    Parameters
    ----------
    blocks : iterable of (position, Block)
        Blocks, each with the position of its first row.
    size : int
        Rows in a batch.

    Yields
    ------
    position : (int, int)
        Where the rows after the batch begin.
    batch : Block
        Views of a block where one holds the whole batch. The last may be short.
    """
    parts: list[Block] = []
    held = 0
    position = (0, 0)
    for (epoch, row), block in blocks:
        count, start = count_rows(block), 0
        if held:
            start = min(size - held, count)
            parts.append(_rows(block, 0, start))
            held += start
            if held == size:
                yield (epoch, row + start), _concatenated(parts)
                parts, held = [], 0
        while count - start >= size:
            yield (epoch, row + start + size), _rows(block, start, start + size)
            start += size
        if start < count:
            parts.append(_rows(block, start, count))
            held += count - start
        position = (epoch, row + count)
    if held:
        yield position, _concatenated(parts)


def _rows(block: Block, start: int, stop: int) -> Block:
    return {name: array[start:stop] for name, array in block.items()}


def _permuted(block: Block, permutation: np.ndarray, piece: int) -> Iterator[Block]:
    # Few long calls: a thread that makes many short ones holds up the other.
    for start in range(0, len(permutation), piece):
        indices = permutation[start : start + piece]
        yield {name: np.take(array, indices, axis=0, mode="clip") for name, array in block.items()}


def _concatenated(parts: list[Block]) -> Block:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
