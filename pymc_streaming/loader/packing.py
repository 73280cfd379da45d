"""Whole batches, one after the other in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue

from pymc_streaming.loader.buffer import Window, copy, count_rows, rows_of
from pymc_streaming.loader.order import Position
from pymc_streaming.sources import ArraySpec, Block, Rows

__all__ = ["Memory", "Packed", "pack_rows", "pack_windows"]


class Memory:
    """Some arrays for rows, used again and again.

    That there are no more of them is what bounds reading ahead.

    Parameters
    ----------
    layout : Mapping[str, ArraySpec]
        The arrays of a batch.
    n_rows : int
        Rows of each.
    count : int
        How many there are. They are made when they are first needed.
    """

    def __init__(self, layout: Mapping[str, ArraySpec], n_rows: int, count: int) -> None:
        self._layout, self._unmade = layout, count
        self.n_rows, self.count = n_rows, count
        # Given back in the middle of anything, by whoever collects an iterator as garbage: so
        # nothing here has a lock that a thread could wait for while it holds it itself.
        self._free: deque[Block] = deque()
        self._counted: SimpleQueue[bool] = SimpleQueue()  # True for each that is free
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return self.count * self.n_rows * sum(spec.row_nbytes for spec in self._layout.values())

    def get(self) -> Block:
        """Arrays that nobody uses; waits until there are some."""
        if self._unmade and self._counted.empty():
            self._unmade -= 1
            return self.empty(self.n_rows)
        if not self._counted.get():
            raise _Abandoned
        return self._free.pop()  # the last one may be in a processor's cache still

    def empty(self, n_rows: int) -> Block:
        """Arrays of such rows that are not among those."""
        return {name: spec.empty(n_rows) for name, spec in self._layout.items()}

    def give_back(self, arrays: Block) -> None:
        """Let arrays from `get` be written to again."""
        self._free.append(arrays)
        self._counted.put(True)

    def close(self) -> None:
        """Nothing will be given back any more: end the thread that waits for it."""
        self._closed = True
        self._counted.put(False)

    def check_open(self) -> None:
        """End the thread that fills arrays for nobody."""
        if self._closed:
            raise _Abandoned


class _Abandoned(Exception):
    """Nobody reads any more; ends the thread that fills the memory."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Batches that lie in memory one after the other.

    Parameters
    ----------
    batches : Block
        Their rows.
    origins : list of (int, Position)
        For each stretch of consecutive rows of the table: where it begins here, and there.
    arrays : Block
        From the memory, to which they have to be given back: `batches` is in them.
    memory : Memory
        That memory.
    """

    batches: Block
    origins: list[tuple[int, Position]]
    arrays: Block
    memory: Memory

    def __len__(self) -> int:
        return count_rows(self.batches)

    def rows(self, start: int, stop: int) -> Block:
        """Rows `start` to `stop` (excluded), not copied."""
        return rows_of(self.batches, start, stop)

    def position(self, n_rows: int) -> Position:
        """Where the rows after the first `n_rows` begin."""
        for start, (epoch, row) in reversed(self.origins):
            if start < n_rows:
                return epoch, row + n_rows - start
        raise AssertionError("unreachable")

    def give_back(self) -> None:
        """Let the memory be written to again."""
        self.memory.give_back(self.arrays)


def pack_rows(
    stretches: Generator[tuple[Position, Rows, int]], memory: Memory
) -> Generator[Packed]:
    """Rows, written to where the batches are.

    Parameters
    ----------
    stretches : generator of (position, Rows, int)
        Rows, from the number that is given on, which is at the position. Closed at the end.
    memory : Memory
        For whole batches.

    Yields
    ------
    Packed
        Full memory; and what is left at the end, or before an error of `stretches`.
    """
    arrays: Block = {}
    filled = 0
    origins: list[tuple[int, Position]] = []

    def packed() -> Packed:
        return Packed(rows_of(arrays, 0, filled), origins, arrays, memory)

    try:
        with closing(stretches):
            for (epoch, row), rows, first in stretches:
                memory.check_open()
                start = first
                while start < len(rows):
                    arrays = arrays or memory.get()
                    taken = min(memory.n_rows - filled, len(rows) - start)
                    rows.write(start, rows_of(arrays, filled, filled + taken))
                    origins.append((filled, (epoch, row + start - first)))
                    start, filled = start + taken, filled + taken
                    if filled == memory.n_rows:
                        yield packed()
                        arrays, filled, origins = {}, 0, []
                del rows  # not held while waiting for the next
    except Exception:
        if filled:
            yield packed()
        raise
    if filled:
        yield packed()


def pack_windows(
    windows: Generator[tuple[Position, Window]], skip: int, memory: Memory, batch_size: int
) -> Generator[Packed]:
    """The rows of windows where they are.

    The rows that are no whole batch at the end of a window are written in front of the next.

    Parameters
    ----------
    windows : generator of (position, Window)
        Full ones, each with the position of its first row and room for rows in front of it.
        Closed at the end.
    skip : int
        Rows of the first one to leave out.
    memory : Memory
        Where they are.
    batch_size : int
        Rows of a batch.

    Yields
    ------
    Packed
        Whole batches; and what is left at the end, or before an error of `windows`.
    """
    rest, n_rest = memory.empty(batch_size), 0
    origins: list[tuple[int, Position]] = []
    try:
        with closing(windows):
            for (epoch, row), window in windows:
                origins.append((n_rest, (epoch, row + skip)))
                first, stop = window.front + skip, window.front + len(window)
                skip = 0
                if n_rest + stop - first < batch_size:
                    copy(rows_of(window.arrays, first, stop), rows_of(rest, n_rest, batch_size))
                    n_rest += stop - first
                    memory.give_back(window.arrays)
                    continue
                begin = first - n_rest
                copy(rows_of(rest, 0, n_rest), rows_of(window.arrays, begin, first))
                n_rest = (stop - begin) % batch_size
                end = stop - n_rest
                copy(rows_of(window.arrays, end, stop), rest)
                yield Packed(rows_of(window.arrays, begin, end), origins, window.arrays, memory)
                origins = [(0, (epoch, row + end - window.front))] if n_rest else []
    except Exception:
        if n_rest:
            yield Packed(rows_of(rest, 0, n_rest), origins, rest, memory)
        raise
    if n_rest:
        yield Packed(rows_of(rest, 0, n_rest), origins, rest, memory)
