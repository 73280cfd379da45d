"""Whole batches, one after the other in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass

from pymc_streaming.loader.buffer import Window, Windows, count_rows, rows_of
from pymc_streaming.loader.order import Position
from pymc_streaming.sources import ArraySpec, Block

__all__ = ["Memory", "Packed", "pack_blocks", "pack_windows"]

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
        return rows_of(self.arrays, start, stop)

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


def pack_blocks(
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

    Returns
    -------
    generator of Packed
        Whole batches; and what is left at the end, or before an error of `blocks`.
    """
    size = memory.batch_size
    filling = _Filling(memory, size if in_place else memory.n_rows)

    def full() -> Generator[Packed]:
        for (epoch, row), block in blocks:
            count, start = count_rows(block), 0
            while start < count:
                if in_place and filling.is_empty and count - start >= size:
                    whole = (count - start) // size * size
                    views = rows_of(block, start, start + whole)
                    yield Packed(views, whole, [(0, (epoch, row + start))], is_lent=False)
                    start += whole
                    continue
                taken = min(filling.room, count - start)
                for name, array in filling.begin(taken, (epoch, row + start)).items():
                    array[:] = block[name][start : start + taken]
                start += taken
                if not filling.room:
                    yield filling.packed()
            del block  # not held while waiting for the next

    return _and_the_rest(full(), filling)


def pack_windows(
    filled: Generator[tuple[Position, Window]], skip: int, windows: Windows, memory: Memory
) -> Generator[Packed]:
    """The permuted rows of windows, written to where the batches are.

    Parameters
    ----------
    filled : generator of (position, Window)
        Windows, each with the position of its first row.
    skip : int
        Rows of the first one to leave out.
    windows : Windows
        To which they are given back.
    memory : Memory
        Where to; what is yielded has to be given back.

    Returns
    -------
    generator of Packed
        Whole batches; and what is left at the end, or before an error of `filled`.
    """
    filling = _Filling(memory, memory.n_rows)

    def full(skip: int) -> Generator[Packed]:
        try:
            for (epoch, row), window in filled:
                while skip < window.filled:
                    taken = min(filling.room, window.filled - skip)
                    window.copy(skip, filling.begin(taken, (epoch, row + skip)))
                    skip += taken
                    if not filling.room:
                        yield filling.packed()
                windows.give_back(window)
                skip = 0
        finally:
            windows.give_back(None)
            filled.close()

    return _and_the_rest(full(skip), filling)


def _and_the_rest(full: Generator[Packed], filling: _Filling) -> Generator[Packed]:
    """What is full, and then what is not, also before an error."""
    try:
        yield from full
    except Exception:
        if not filling.is_empty:
            yield filling.packed()
        raise
    if not filling.is_empty:
        yield filling.packed()


class _Filling:
    """Arrays on their way to be full."""

    def __init__(self, memory: Memory, n_rows: int) -> None:
        self._memory, self._n_rows = memory, n_rows
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._arrays: Block = {}
        self._filled = 0
        self._origins: list[tuple[int, Position]] = []

    @property
    def is_empty(self) -> bool:
        return not self._filled

    @property
    def room(self) -> int:
        return self._n_rows - self._filled

    def begin(self, n_rows: int, position: Position) -> Block:
        """Where the next `n_rows` rows go, which begin at `position`."""
        if not self._arrays:
            self._arrays = self._memory.get()
        start, self._filled = self._filled, self._filled + n_rows
        self._origins.append((start, position))
        return rows_of(self._arrays, start, self._filled)

    def packed(self) -> Packed:
        """What is there; the next rows go to other arrays."""
        packed = Packed(self._arrays, self._filled, self._origins, is_lent=True)
        self._begin_anew()
        return packed
