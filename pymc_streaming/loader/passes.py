"""One pass over a source after the other, read, shuffled and packed into batches."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from pymc_streaming.errors import RowCountError
from pymc_streaming.loader.buffer import Window
from pymc_streaming.loader.order import Order, Position
from pymc_streaming.loader.packing import Memory, Packed, pack_rows, pack_windows
from pymc_streaming.loader.prefetch import read_ahead, read_parallel
from pymc_streaming.sources import (
    Block,
    Fragment,
    InMemory,
    IterableDataset,
    Rows,
    read_checked,
)

__all__ = ["Footprint", "Passes"]

# Batches that are handed on together: as many as make the cost of handing them on, some tenths of
# a millisecond of Python in two threads, small beside the steps they are for.
_BYTES = 8 * 2**20
_BATCHES = 64

# Rows on their way to a window: few enough to be in a processor's cache still when they are moved.
_BYTES_ON_THE_WAY = 2 * 2**20


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory that reading takes, whatever the number of rows.

    Parameters
    ----------
    rows : int
        Rows that lie together in memory.
    blocks : int
        Bytes of what is read, and read ahead.
    shuffle_buffer : int
        Bytes of the rows that are permuted.
    """

    rows: int
    blocks: int
    shuffle_buffer: int


@dataclass(frozen=True)
class Passes:
    """Endless passes over a source.

    Parameters
    ----------
    source : IterableDataset
        Where the rows come from.
    order : Order
        In which order.
    total_size : int
        Rows of a pass; it is an error if there are more or fewer.
    batch_size : int
        Rows of a batch.
    num_workers : int
        Threads that read.
    prefetch : int
        Bytes that may be read ahead.
    """

    source: IterableDataset
    order: Order
    total_size: int
    batch_size: int
    num_workers: int
    prefetch: int

    def packed(self, position: Position, *, endless: bool) -> Generator[Packed]:
        """Batches from a position on: to the end of the epoch, or without end."""
        epoch, row = position
        if self.order.window is None:
            memory = self.memory()
            packed = pack_rows(self._passes(self._one_pass, epoch, row, endless), memory)
        else:
            memory = self.windows()
            most = max(1, _BYTES_ON_THE_WAY // max(1, self.source.row_nbytes))
            on_the_way = memory.empty(min(most, self.order.window))
            one_pass = partial(self._one_pass_in_windows, memory, on_the_way)
            windows = self._passes(one_pass, epoch, row, endless)
            packed = pack_windows(windows, row % self.order.window, memory, self.batch_size)
        if self.num_workers:
            packed = read_ahead(packed)
        try:
            for item in packed:  # noqa: UP028 - it would be closed before the memory
                yield item
        finally:
            memory.close()  # first: the thread may wait for it
            packed.close()

    def memory(self) -> Memory:
        """For whole batches: those in use, those on their way, and as many as are read ahead."""
        nbytes = self.batch_size * max(1, self.source.row_nbytes)
        most = min(_BATCHES, _BYTES // nbytes, self.total_size // self.batch_size)
        batches = max(1, most)
        ahead = self.prefetch // (batches * nbytes)
        return Memory(self.source.layout, batches * self.batch_size, count=2 + ahead)

    @property
    def footprint(self) -> Footprint:
        """The memory that these take, of which nothing is made yet."""
        # Of several threads that read, each has rows of a fragment waiting.
        waiting = self.prefetch if self.num_workers > 1 else 0
        if self.order.window is None:
            memory = self.memory()
            return Footprint(memory.n_rows, memory.nbytes + waiting, 0)
        # What is left of a window is put in front of the next; and each row has a place.
        rest = self.batch_size * self.source.row_nbytes
        windows = self.windows().nbytes + 2 * 4 * self.order.window
        return Footprint(self.order.window, rest + waiting, windows)

    def windows(self) -> Memory:
        """For rows that are permuted: a window is filled while the other is emptied."""
        assert self.order.window is not None
        return Memory(self.source.layout, self.batch_size + self.order.window, count=2)

    def _passes[Item](
        self,
        one_pass: Callable[[int, int], Generator[Item]],
        epoch: int,
        row: int,
        endless: bool,
    ) -> Generator[Item]:
        yield from one_pass(epoch, row)
        while endless:
            epoch += 1
            yield from one_pass(epoch, 0)

    def _one_pass(self, epoch: int, row: int) -> Generator[tuple[Position, Rows, int]]:
        """The rows of an epoch from `row` on, fragment after fragment."""
        wanted, skip, base = self.order.seek(epoch, row)
        seen = base - skip
        fragments = [self.source.fragments[index] for index in wanted]
        with closing(self._read(self.source.at_epoch(epoch), fragments)) as read:
            for rows in read:
                count = len(rows)
                seen += count
                if skip < count:
                    yield (epoch, base), rows, skip
                    base += count - skip
                skip = max(0, skip - count)
        if seen != self.total_size:
            raise RowCountError(
                f"total_size is {self.total_size:,}, but a whole pass over {self.source!r} gave "
                f"{seen:,} rows; every likelihood would be scaled by the wrong number. Give the "
                "number of rows that one pass has."
            )

    def _one_pass_in_windows(
        self, memory: Memory, on_the_way: Block, epoch: int, row: int
    ) -> Generator[tuple[Position, Window]]:
        """The same in windows, beginning with the one that has `row` in it."""
        assert self.order.window is not None
        base, window = row - row % self.order.window, None
        with closing(self._one_pass(epoch, row)) as stretches:
            for _, rows, start in stretches:
                memory.check_open()
                while start < len(rows):
                    if window is None:
                        order = self.order.window_generator(epoch, base // self.order.window)
                        arrays = memory.get()
                        window = Window(
                            arrays, on_the_way, self.batch_size, self.order.window, order
                        )
                    start += window.fill(rows, start)
                    if not window.room:
                        yield (epoch, base), window
                        base, window = base + len(window), None
        if window is not None:
            window.cut()
            yield (epoch, base), window

    def _read(self, source: IterableDataset, fragments: list[Fragment]) -> Generator[Rows]:
        if self.num_workers < 2:
            return (rows for fragment in fragments for rows in read_checked(source, fragment))
        row_nbytes = source.row_nbytes

        def laid_down(fragment: Fragment) -> Generator[Rows]:
            """The rows of a fragment, in memory of their own where they would not stay."""
            for rows in read_checked(source, fragment):
                yield rows if rows.stay else InMemory(rows.block(source.layout))

        return read_parallel(
            laid_down,
            fragments,
            self.num_workers,
            self.prefetch,
            lambda rows: len(rows) * row_nbytes,
        )
