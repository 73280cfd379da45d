"""The loader: a source, in batches, in an order."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from pymc_streaming.arguments import parse_bytes, seed_or_drawn, whole_number
from pymc_streaming.errors import ArgumentError, RowCountError
from pymc_streaming.loader.order import Order, Position
from pymc_streaming.loader.passes import Footprint, Passes
from pymc_streaming.loader.sample import sample_rows
from pymc_streaming.loader.sample_shape import check_sample_shape
from pymc_streaming.loader.shuffle import ShuffleBuffer
from pymc_streaming.loader.stream import BatchStream
from pymc_streaming.sources import Block, IterableDataset, as_source
from pymc_streaming.sources.base import check_source

__all__ = ["DataLoader"]

#: Memory of a shuffle buffer, and of what is read ahead, unless asked for otherwise.
DEFAULT_BYTES = 16 * 2**20
_AHEAD_BYTES = 8 * 2**20


class DataLoader:
    """Batches of a table of any size.

    Parameters
    ----------
    source : IterableDataset, ShuffleBuffer, ndarray, mapping, data frame, path or callable
        Where the rows come from; what is not a source is made one, see
        :func:`array_source`, :func:`table_source`, :func:`parquet_source` and
        :func:`generator_source`.
    batch_size : int
        Rows in a batch.
    sample_shape : tuple of int, optional
        Expected shape of one row, checked against the source, e.g. ``(14,)`` for 14 columns.
        For a source of several arrays a mapping from name to shape.
    total_size : int or "auto", default "auto"
        Number of rows N. "auto" asks the source. A number given for a source that does not
        know is checked at the end of the first pass.
    shuffle : bool, default False
        Take the fragments of the source in a random order that goes evenly over the table, and
        permute the rows within a bounded buffer that is filled from them.
    buffer_size : int, optional
        Rows of that buffer. There are two: one is filled while the other is emptied. Default: as
        many rows as fit in 16 MiB, at least four batches.
    seed : int, optional
        Seed of the order. Default: drawn, and kept in `seed`.
    drop_last : bool, default False
        Leave out the short batch at the end of an iteration. The trainer does not drop
        anything in either case.
    num_workers : int, default 1
        Threads that read. 0 reads in the calling thread; with more than one, several fragments are
        decoded at once. The order is the same for any number.
    prefetch : int or str, default "8MiB"
        Bytes that may be read ahead. A shuffle buffer that is being filled is not counted.

    Attributes
    ----------
    total_size : int
        Number of rows N; also ``len(loader)``.
    num_batches : int
        Batches of one iteration.
    layout : Mapping[str, ArraySpec]
        The arrays of a batch.

    Raises
    ------
    ArgumentError
        If an argument cannot be meant, or N is unknown.
    RowCountError
        If `total_size` contradicts the source.
    SchemaError
        If `sample_shape` does.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_streaming import DataLoader
    >>> loader = DataLoader(np.arange(20.0).reshape(10, 2), batch_size=4, shuffle=True, seed=0)
    >>> len(loader), loader.num_batches
    (10, 3)
    >>> [batch["batch"].shape for batch in loader]
    [(4, 2), (4, 2), (2, 2)]
    """

    def __init__(
        self,
        source: Any,
        batch_size: int,
        *,
        sample_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None,
        total_size: int | str = "auto",
        shuffle: bool = False,
        buffer_size: int | None = None,
        seed: int | None = None,
        drop_last: bool = False,
        num_workers: int = 1,
        prefetch: int | str = _AHEAD_BYTES,
    ) -> None:
        self.batch_size = whole_number("batch_size", batch_size)
        for name, flag in (("shuffle", shuffle), ("drop_last", drop_last)):
            if not isinstance(flag, bool):
                raise ArgumentError(f"{name} must be True or False, found {flag!r}.")
        # What was left to the loader may be taken over from a saved state.
        self._given = {"seed": seed is not None, "buffer_size": buffer_size is not None}
        if isinstance(source, ShuffleBuffer):
            for name, value in (("buffer_size", buffer_size), ("seed", seed)):
                if value not in (None, getattr(source, name)):
                    raise ArgumentError(
                        f"The shuffle_buffer has {name}={getattr(source, name)}, the DataLoader "
                        f"{value}; leave it out here."
                    )
            if source.batch_size != batch_size:
                raise ArgumentError(
                    f"The shuffle_buffer has batch_size={source.batch_size:,}, the DataLoader "
                    f"{batch_size:,}; they must be equal."
                )
            shuffle, buffer_size, seed = True, source.buffer_size, source.seed
            self._given = {"seed": source.seed_given, "buffer_size": True}
            source = source.source
        if buffer_size is not None and not shuffle:
            raise ArgumentError("buffer_size is for shuffle=True only.")
        self.source = as_source(source)
        check_source(self.source)
        self.layout = self.source.layout
        check_sample_shape(sample_shape, self.layout)
        self.total_size = self._resolve_total_size(total_size)
        self.shuffle = shuffle
        self.seed = seed_or_drawn(seed)
        self.buffer_size = self._resolve_buffer_size(buffer_size) if shuffle else None
        self.drop_last = drop_last
        self.num_workers = whole_number("num_workers", num_workers, least=0)
        self.prefetch = parse_bytes("prefetch", prefetch)
        if drop_last and self.num_batches == 0:
            raise ArgumentError(
                f"With drop_last there is no batch at all: {self.total_size:,} rows are fewer than "
                f"batch_size={self.batch_size:,}."
            )
        if len(set(self.source.fragments)) < len(self.source.fragments):
            raise ArgumentError(
                "Two fragments of the source are equal, so reading one cannot be told from reading "
                "the other. Give each an origin of its own."
            )
        counts = tuple(fragment.n_rows for fragment in self.source.fragments)
        self._order = Order(counts, self.buffer_size, self.seed)
        self._epoch, self._first_row = 0, 0
        self._position: Position = (0, 0)

    def __len__(self) -> int:
        return self.total_size

    @property
    def num_batches(self) -> int:
        """Batches in one iteration."""
        whole, rest = divmod(self.total_size, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def __repr__(self) -> str:
        order = (
            f"shuffled by {self.buffer_size:,}, seed {self.seed}" if self.shuffle else "in order"
        )
        return (
            f"<DataLoader: {self.total_size:,} rows in batches of {self.batch_size:,}, {order}; "
            f"{self.source!r}>"
        )

    def __iter__(self) -> Iterator[Block]:
        """One epoch, every row once; the next call gives the next epoch."""
        epoch, row = self._epoch, self._first_row
        self._epoch, self._first_row = epoch + 1, 0
        self._position = (epoch, row)
        self._latest = latest = object()
        return self._iterate(epoch, row, latest)

    def _iterate(self, epoch: int, row: int, token: object) -> Iterator[Block]:
        def arrive(position: Position) -> None:
            if self._latest is token:  # an older iteration does not move the state
                self._position = position

        with closing(self._passes.packed((epoch, row), endless=False)) as stream:
            for packed in stream:
                for start in range(0, len(packed), self.batch_size):
                    stop = min(start + self.batch_size, len(packed))
                    arrive(packed.position(stop))
                    if self.drop_last and stop - start < self.batch_size:
                        continue  # the position of the next epoch follows
                    yield {n: array.copy() for n, array in packed.rows(start, stop).items()}
                packed.give_back()
        arrive((epoch + 1, 0))

    def stream(self, position: Position = (0, 0)) -> BatchStream:
        """The endless stream of full batches, beginning at a position.

        The rows left at the end of an epoch open the first batch of the next one.

        Parameters
        ----------
        position : (int, int), default (0, 0)
            Epoch, and rows of it already taken.

        Raises
        ------
        ArgumentError
            If the table has fewer rows than a batch, or the position is not in it.
        """
        self._check_position(position)
        if self.total_size < self.batch_size:
            raise ArgumentError(
                f"A batch of {self.batch_size:,} rows is more than the {self.total_size:,} rows "
                "there are; choose a smaller batch_size."
            )
        packed = self._passes.packed(position, endless=True)
        return BatchStream(packed, self.batch_size, position)

    def blocks(self, n_rows: int, start: int = 0) -> Generator[Block]:
        """Every row once, in the order of the source.

        Parameters
        ----------
        n_rows : int
            Each block, but for the last, has a multiple of so many rows.
        start : int, default 0
            Number of the first row.

        Yields
        ------
        Block
            Its arrays may be written to again when the next is asked for.
        """
        with closing(self._passes_in_order(n_rows).packed((0, start), endless=False)) as stream:
            for packed in stream:
                yield packed.batches
                packed.give_back()

    def footprint(self, n_rows: int | None = None) -> Footprint:
        """The memory that `stream` takes, or with `n_rows` that ``blocks(n_rows)`` does.

        Parameters
        ----------
        n_rows : int, optional
            As for `blocks`.
        """
        return (self._passes if n_rows is None else self._passes_in_order(n_rows)).footprint

    def over(self, source: IterableDataset) -> DataLoader:
        """The same loader, reading from another source.

        Parameters
        ----------
        source : IterableDataset
            With the same arrays, and rows in the same fragments.

        Raises
        ------
        ArgumentError
            If it has others.
        """
        if source.layout != self.layout or list(source.fragments) != list(self.source.fragments):
            raise ArgumentError(
                f"{source!r} has other arrays or fragments than {self.source!r}, so its rows would "
                "come in another order. Make a DataLoader for it."
            )
        loader = copy.copy(self)
        loader.source = source
        return loader

    def sample(self, n_rows: int, random: np.random.Generator) -> tuple[Block, int]:
        """Some rows, picked at random, and how many were read for that.

        Parameters
        ----------
        n_rows : int
            How many; all rows if there are fewer.
        random : numpy.random.Generator
            Where the choice comes from.
        """
        return sample_rows(self.source, self.total_size, min(n_rows, self.total_size), random)

    def placeholder(self, n_rows: int | None = None) -> Any:
        """Zeros of the shape of a batch, for ``pm.Data``.

        Parameters
        ----------
        n_rows : int, optional
            Default: `batch_size`.

        Returns
        -------
        ndarray or dict of str to ndarray
            An array if batches have one, else a dict by name.
        """
        rows = self.batch_size if n_rows is None else whole_number("n_rows", n_rows)
        zeros = {name: spec.zeros(rows) for name, spec in self.layout.items()}
        return next(iter(zeros.values())) if len(zeros) == 1 else zeros

    def locate(self, position: Position, n_rows: int) -> str:
        """Words for where the `n_rows` rows from `position` on come from."""
        epoch, row = position
        if row >= self.total_size:
            epoch, row = epoch + 1, 0
        stop = min(row + n_rows, self.total_size)
        origins = [
            self.source.fragments[index].origin
            for index in self._order.sources_of(epoch, row, stop)
        ]
        named = ", ".join(origins[:3])
        if len(origins) > 3:
            named += f" and {len(origins) - 3:,} more"
        words = f"epoch {epoch}, rows {row:,} to {stop - 1:,}, from {named}"
        rest = n_rows - (stop - row)
        return f"{words}; then {self.locate((epoch + 1, 0), rest)}" if rest else words

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration has got to, as plain data.

        Returns
        -------
        dict
            ``epoch``, ``row`` and what identifies the order. See `load_state_dict`.
        """
        epoch, row = self._position
        return {"epoch": epoch, "row": row, **self.identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader was: the next iteration has the rows that remain.

        Parameters
        ----------
        state : mapping
            From `state_dict`, of a loader of the same data. A loader whose seed was drawn takes
            the seed of the state.

        Raises
        ------
        ArgumentError
            If the state is of other data, or of another order.
        """
        missing = {"epoch", "row", *self.identity()} - set(state)
        if missing:
            raise ArgumentError(f"The state lacks {sorted(missing)}; is it from state_dict()?")
        position = (state["epoch"], state["row"])
        self._check_position(position)
        self.follow(state)
        self._epoch, self._first_row = self._position = position

    def follow(self, identity: Mapping[str, Any]) -> None:
        """Take the rows in the order of another loader of the same data.

        Parameters
        ----------
        identity : mapping
            That loader's. A seed that was drawn, and a default size of the buffer, are taken over.

        Raises
        ------
        ArgumentError
            If it is of other data, or has another order.
        """
        own, state = self.identity(), identity
        own |= {name: state[name] for name, given in self._given.items() if not given}
        different = [
            "the fragments of the source, row groups, say, are others"
            if key == "fragments"
            else f"{key} is {state[key]!r} in the state, {own[key]!r} here"
            for key in own
            if state[key] != own[key]
        ]
        if different:
            raise ArgumentError(f"The state does not fit this loader: {'; '.join(different)}.")
        self.seed, self.buffer_size = own["seed"], own["buffer_size"]
        self._order = Order(self._order.counts, self.buffer_size, self.seed)

    def _check_position(self, position: Position) -> None:
        epoch, row = (
            whole_number(name, value, least=0)
            for name, value in zip(("epoch", "row"), position, strict=True)
        )
        if None not in self._order.counts and row > self.total_size:
            raise ArgumentError(
                f"Position ({epoch}, {row:,}) is beyond the {self.total_size:,} rows of an epoch."
            )

    def identity(self) -> dict[str, Any]:
        """What makes the rows come in the order in which they do."""
        return {
            "total_size": self.total_size,
            "shuffle": self.shuffle,
            "buffer_size": self.buffer_size,
            "seed": self.seed,
            "fragments": zlib.crc32(repr(self._order.counts).encode()),
        }

    @property
    def _passes(self) -> Passes:
        return Passes(
            self.source,
            self._order,
            self.total_size,
            min(self.batch_size, self.total_size),
            self.num_workers,
            self.prefetch,
        )

    def _passes_in_order(self, n_rows: int) -> Passes:
        order = Order(self._order.counts, None, self.seed)
        return replace(self._passes, order=order, batch_size=min(n_rows, self.total_size))

    def _resolve_total_size(self, total_size: int | str) -> int:
        known = self.source.n_rows
        if isinstance(total_size, str):
            if total_size != "auto":
                raise ArgumentError(f'total_size must be a number or "auto", found {total_size!r}.')
            if known is None:
                raise ArgumentError(
                    f"{self.source!r} does not know its number of rows; give total_size."
                )
            total_size = known
        whole_number("total_size", total_size)
        if known is not None and total_size != known:
            raise RowCountError(
                f"total_size is {total_size:,}, but {self.source!r} has {known:,} rows. Leave "
                'total_size out, or pass "auto".'
            )
        return total_size

    def _resolve_buffer_size(self, buffer_size: int | None) -> int:
        if buffer_size is None:
            rows = DEFAULT_BYTES // max(1, self.source.row_nbytes)
            buffer_size = max(rows, 4 * self.batch_size)
        return min(whole_number("buffer_size", buffer_size), self.total_size)
