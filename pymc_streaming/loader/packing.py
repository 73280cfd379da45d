"""Whole batches, one after the other in memory."""

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
    batch_size : int
        Rows of a batch.
    n_rows : int
        Rows of the arrays: whole batches.
    """

    def __init__(self, layout: Mapping[str, ArraySpec], batch_size: int, total_size: int) -> None:
        self._layout, self.batch_size = layout, batch_size
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

    def give_back(self, packed: Packed) -> None:
        """Let what `get` gave be written to again."""
        if packed.is_lent:
            self._free.append(packed.arrays)


@dataclass(frozen=True, slots=True)
class Packed:
    """Batches that lie in memory one after the other.

    Parameters
    ----------
    arrays : Block
        From `Memory`, or those of the source.
    n_rows : int
        Rows that are filled.
    origins : list of (int, Position)
        For each stretch of consecutive rows of the table: where it begins here, and there.
    is_lent : bool
        Whether the arrays are from `Memory`, and will be written to again.
    """

    arrays: Block
    n_rows: int
    origins: list[tuple[int, Position]]
    is_lent: bool

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


def pack(
    blocks: Iterable[tuple[Position, Block]], memory: Memory, *, in_place: bool
) -> Generator[Packed]:
    """Whole batches, whatever the boundaries of the blocks.

    Parameters
    ----------
    blocks : iterable of (position, Block)
        Blocks, each with the position of its first row.
    memory : Memory
        For what is copied; what is yielded has to be given back.
    in_place : bool
        Whether blocks stay as they are once they were yielded. Then only batches across their
        boundaries are copied, else all are.

    Yields
    ------
    Packed
        Whole batches; and what is left at the end, or before an error of `blocks`.
    """
    size = memory.batch_size
    capacity = size if in_place else memory.n_rows
    arrays, filled, origins = memory.get(), 0, []
    try:
        for (epoch, row), block in blocks:
            count, start = count_rows(block), 0
            while start < count:
                origin = filled, (epoch, row + start)
                if in_place and not filled and count - start >= size:
                    whole = (count - start) // size * size
                    views = {name: array[start : start + whole] for name, array in block.items()}
                    yield Packed(views, whole, [origin], is_lent=False)
                    start += whole
                    continue
                taken = min(capacity - filled, count - start)
                for name, array in arrays.items():
                    array[filled : filled + taken] = block[name][start : start + taken]
                origins.append(origin)
                filled, start = filled + taken, start + taken
                if filled == capacity:
                    yield Packed(arrays, filled, origins, is_lent=True)
                    arrays, filled, origins = memory.get(), 0, []
            del block  # not held while waiting for the next
    except Exception:
        if filled:
            yield Packed(arrays, filled, origins, is_lent=True)
        raise
    if filled:
        yield Packed(arrays, filled, origins, is_lent=True)
