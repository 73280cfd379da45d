"""The endless stream of full batches."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType

from pymc_streaming.loader.buffer import batches
from pymc_streaming.loader.order import Position
from pymc_streaming.sources import Block

__all__ = ["BatchStream"]


class BatchStream:
    """Full batches without end; made by :meth:`DataLoader.stream`.

    Attributes
    ----------
    position : (int, int)
        Where the rows after the latest batch begin: ``loader.stream(position)`` goes on there.
    """

    def __init__(
        self, blocks: Generator[tuple[Position, Block]], batch_size: int, position: Position
    ) -> None:
        self._blocks = blocks
        self._batches = batches(blocks, batch_size)
        self.position = position

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Block:
        self.position, batch = next(self._batches)
        return batch

    def close(self) -> None:
        """Stop reading."""
        self._batches.close()
        self._blocks.close()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
