"""The endless stream of full batches."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType

from pymc_streaming.loader.order import Position
from pymc_streaming.loader.packing import Packed
from pymc_streaming.sources import Block

__all__ = ["BatchStream"]


class BatchStream:
    """Full batches without end; made by :meth:`DataLoader.stream`.

    Iterating it gives one batch at a time, to keep; `take` gives several, to use at once.
    """

    def __init__(self, packed: Generator[Packed], batch_size: int, position: Position) -> None:
        self._packed, self._batch_size = packed, batch_size
        self._current: Packed | None = None
        self._latest = slice(0, 0)  # rows of the current one that were taken last
        self._start = position

    def take(self, most: int) -> Block:
        """The next batches, one after the other in memory.

        Parameters
        ----------
        most : int
            Batches wanted, 1 or more.

        Returns
        -------
        Block
            At least one batch. Its arrays may be written to again after the next call.
        """
        current, size = self._next(), self._batch_size
        start = self._latest.stop
        stop = min(start + most * size, len(current) // size * size)
        self._latest = slice(start, stop)
        return current.rows(start, stop)

    def peek(self) -> Block:
        """The next batch, which `take` gives again."""
        current, start = self._next(), self._latest.stop
        return current.rows(start, start + self._batch_size)

    @property
    def position(self) -> Position:
        """Where the rows begin that follow: ``loader.stream(position)`` goes on there."""
        return self._position(self._latest.stop)

    def position_after(self, n_batches: int) -> Position:
        """The same, had only the first so many of the batches taken last been taken."""
        return self._position(self._latest.start + n_batches * self._batch_size)

    def _position(self, row: int) -> Position:
        return self._current.position(row) if self._current and row else self._start

    def _next(self) -> Packed:
        """What has a batch that was not taken."""
        # Less than a batch is left only before an error, which comes next.
        while self._current is None or len(self._current) - self._latest.stop < self._batch_size:
            if self._current is not None:
                self._start = self.position
                self._current.give_back()
            self._current, self._latest = next(self._packed), slice(0, 0)
        return self._current

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Block:
        return {name: array.copy() for name, array in self.take(1).items()}

    def close(self) -> None:
        """Stop reading."""
        self._packed.close()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
