"""Whole batches, one after the other in memory that is used again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass

from pymc_streaming.loader.buffer import count_rows
from pymc_streaming.loader.order import Position
from pymc_streaming.sources import ArraySpec, Block

__all__ = ["Memory", "Packed", "pack"]

# As much as stays in a processor's cache between the thread that fills it and the one that reads
# it; and not more batches than make the cost of handing them on disappear.
_BYTES = 2 * 2**20
_BATCHES = 64


class Memory:
    """Arrays for several batches, made when none are free.

    Parameters
    ----------
    layout : Mapping[str, ArraySpec]
        The arrays of a batch.
    batch_size : int
        Rows of a batch.
    total_size : int
        Rows of the table.

    Attributes
    ----------
    n_rows : int
        Rows of the arrays: whole batches.
    """

    def __init__(self, layout: Mapping[str, ArraySpec], batch_size: int, total_size: int) -> None:
        self._layout = layout
        nbytes = batch_size * sum(spec.row_nbytes for spec in layout.values())
        most = min(_BATCHES, _BYTES // max(1, nbytes), total_size // batch_size)
        self.n_rows = batch_size * max(1, most)
        self._free: deque[Block] = deque()

    def get(self) -> Block:
        """Arrays that nobody uses."""
        try:
            return self._free.pop()
        except IndexError:
            return {name: spec.zeros(self.n_rows) for name, spec in self._layout.items()}

    def give_back(self, arrays: Block) -> None:
        """Let `arrays` be written to again."""
        self._free.append(arrays)


@dataclass(frozen=True, slots=True)
class Packed:
    """Batches that lie in memory one after the other.

    Parameters
    ----------
    arrays : Block
        From `Memory`.
    n_rows : int
        Rows that are filled.
    origins : list of (int, Position)
        For each stretch of consecutive rows of the table: where it begins here, and there.
    """

    arrays: Block
    n_rows: int
    origins: list[tuple[int, Position]]

    def rows(self, start: int, stop: int) -> Block:
        """Rows `start` to `stop` (excluded), not copied."""
        return {name: array[start:stop] for name, array in self.arrays.items()}

    def position(self, n_rows: int) -> Position:
        """Where the rows after the first `n_rows` begin."""
        for start, (epoch, row) in reversed(self.origins):
            if start < n_rows:
                return epoch, row + n_rows - start
        raise AssertionError("unreachable")

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def pack(blocks: Iterable[tuple[Position, Block]], memory: Memory) -> Generator[Packed]:
    """Lay blocks end to end, whatever their boundaries.

    Parameters
    ----------
    blocks : iterable of (position, Block)
        Blocks, each with the position of its first row.
    memory : Memory
        Where to; what is yielded has to be given back.

    Yields
    ------
    Packed
        Full ones, and what is left at the end. An error of `blocks` comes after the rows before it.
    """
    arrays, filled, origins = memory.get(), 0, []
    try:
        for (epoch, row), block in blocks:
            count, start = count_rows(block), 0
            while start < count:
                taken = min(memory.n_rows - filled, count - start)
                for name, array in arrays.items():
                    array[filled : filled + taken] = block[name][start : start + taken]
                origins.append((filled, (epoch, row + start)))
                filled, start = filled + taken, start + taken
                if filled == memory.n_rows:
                    yield Packed(arrays, filled, origins)
                    arrays, filled, origins = memory.get(), 0, []
    except Exception:
        if filled:
            yield Packed(arrays, filled, origins)
        raise
    if filled:
        yield Packed(arrays, filled, origins)
