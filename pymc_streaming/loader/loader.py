"""The loader: a source, in batches, in an order."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from pymc_streaming.errors import ArgumentError, RowCountError, SchemaError
from pymc_streaming.loader.buffer import batches, count_rows, drop_rows, shuffle_windows
from pymc_streaming.loader.order import Order, Position
from pymc_streaming.loader.prefetch import read_ahead, read_parallel
from pymc_streaming.sources import Block, Fragment, IterableDataset, as_source, read_checked

__all__ = ["BatchStream", "DataLoader", "ShuffleBuffer", "shuffle_buffer"]

# Memory of a shuffle buffer, and of what is read ahead, unless asked for otherwise.
DEFAULT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class ShuffleBuffer:
    """A source and the way to shuffle it; made by :func:`shuffle_buffer`."""

    source: IterableDataset
    buffer_size: int
    batch_size: int
    seed: int

    def __iter__(self) -> Iterator[Block]:
        return iter(DataLoader(self, self.batch_size))


def shuffle_buffer(
    source: Any, buffer_size: int, batch_size: int, seed: int | None = None
) -> ShuffleBuffer:
    """Shuffle a source through a bounded buffer.

    A buffer mixes the rows it holds, filled from fragments in random order. It cannot mix
    data that has a meaningful order over the whole table, by time for example, unless it is
    about as large as the table: each batch then is a sample of a few stretches instead of all
    of it, and the posterior is that of those. Such a table has to be shuffled on disk, once,
    beforehand.

    Parameters
    ----------
    source : IterableDataset or anything `DataLoader` takes
        Where the rows come from.
    buffer_size : int
        Rows that are permuted together.
    batch_size : int
        Rows in a batch.
    seed : int, optional
        Seed of the order. Default: drawn.

    Returns
    -------
    ShuffleBuffer
        To be given to a `DataLoader`; or iterated, for one epoch of batches.

    Raises
    ------
    ArgumentError
        If an argument cannot be meant.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_streaming import DataLoader, shuffle_buffer
    >>> buffer = shuffle_buffer(np.arange(10.0), buffer_size=8, batch_size=4, seed=0)
    >>> len(DataLoader(buffer, batch_size=4))
    10
    """
    _whole_number("buffer_size", buffer_size)
    _whole_number("batch_size", batch_size)
    return ShuffleBuffer(as_source(source), buffer_size, batch_size, _seed(seed))


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
        Permute the fragments of the source, and the rows within a bounded buffer that is
        filled from them.
    buffer_size : int, optional
        Rows of that buffer. Default: as many as fit in 32 MiB, at least four batches.
    seed : int, optional
        Seed of the order. Default: drawn, and kept in `seed`.
    drop_last : bool, default False
        Leave out the short batch at the end of an iteration. The trainer does not drop
        anything in either case.
    num_workers : int, default 1
        Threads that read. 0 reads in the calling thread; with more than one, several
        fragments are decoded at once. The order is the same for any number.
    prefetch : int or str, default "32MiB"
        Bytes that may be read ahead.

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
        prefetch: int | str = DEFAULT_BYTES,
    ) -> None:
        self.batch_size = _whole_number("batch_size", batch_size)
        self._seed_given = seed is not None
        if isinstance(source, ShuffleBuffer):
            if shuffle or buffer_size is not None or seed is not None:
                raise ArgumentError(
                    "shuffle, buffer_size and seed belong to the shuffle_buffer; do not give them "
                    "to the DataLoader as well."
                )
            if source.batch_size != batch_size:
                raise ArgumentError(
                    f"The shuffle_buffer has batch_size={source.batch_size:,}, the DataLoader "
                    f"{batch_size:,}; they must be equal."
                )
            shuffle, buffer_size, seed = True, source.buffer_size, source.seed
            self._seed_given = True
            source = source.source
        if buffer_size is not None and not shuffle:
            raise ArgumentError("buffer_size is for shuffle=True only.")
        self.source = as_source(source)
        self.layout = self.source.layout
        self._check_sample_shape(sample_shape)
        self.total_size = self._resolve_total_size(total_size)
        self.shuffle = shuffle
        self.seed = _seed(seed)
        self.buffer_size = self._resolve_buffer_size(buffer_size) if shuffle else None
        self.drop_last = drop_last
        self.num_workers = _whole_number("num_workers", num_workers, least=0)
        self.prefetch = _parse_bytes(prefetch)
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
        order = f"shuffled by {self.buffer_size:,}, seed {self.seed}" if self.shuffle else "in order"
        return (
            f"<DataLoader: {self.total_size:,} rows in batches of {self.batch_size:,}, {order}; "
            f"{self.source!r}>"
        )

    def __iter__(self) -> Iterator[Block]:
        """One epoch, every row once; the next call gives the next epoch."""
        epoch, row = self._epoch, self._first_row
        self._epoch, self._first_row = epoch + 1, 0
        return self._iterate(epoch, row)

    def _iterate(self, epoch: int, row: int) -> Iterator[Block]:
        with closing(self._in_background(self._one_epoch(epoch, row))) as blocks:
            for position, batch in batches(blocks, self.batch_size):
                self._position = position
                if self.drop_last and count_rows(batch) < self.batch_size:
                    break
                yield batch
        self._position = (epoch + 1, 0)

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
            If the table has fewer rows than a batch.
        """
        if self.total_size < self.batch_size:
            raise ArgumentError(
                f"A batch of {self.batch_size:,} rows is more than the {self.total_size:,} rows there "
                "are; choose a smaller batch_size."
            )
        blocks = self._in_background(self._all_epochs(*position))
        return BatchStream(blocks, self.batch_size, position)

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
        rows = self.batch_size if n_rows is None else _whole_number("n_rows", n_rows)
        zeros = {name: spec.zeros(rows) for name, spec in self.layout.items()}
        return next(iter(zeros.values())) if len(zeros) == 1 else zeros

    def locate(self, position: Position, n_rows: int) -> str:
        """Words for where the `n_rows` rows from `position` on come from."""
        epoch, row = position
        if row >= self.total_size:
            epoch, row = epoch + 1, 0
        stop = min(row + n_rows, self.total_size)
        origins = [
            self.source.fragments[index].origin for index in self._order.sources_of(epoch, row, stop)
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
        return {"epoch": epoch, "row": row, **self._identity()}

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
        own = self._identity()
        missing = {"epoch", "row", *own} - set(state)
        if missing:
            raise ArgumentError(f"The state lacks {sorted(missing)}; is it from state_dict()?")
        if not self._seed_given:
            own["seed"] = state["seed"]
        different = [
            f"{key} is {state[key]!r} in the state, {own[key]!r} here"
            for key in own
            if state[key] != own[key]
        ]
        if different:
            raise ArgumentError(f"The state does not fit this loader: {'; '.join(different)}.")
        self.seed = own["seed"]
        self._order = Order(self._order.counts, self.buffer_size, self.seed)
        self._epoch, self._first_row = int(state["epoch"]), int(state["row"])
        self._position = (self._epoch, self._first_row)

    def _identity(self) -> dict[str, Any]:
        return {
            "total_size": self.total_size,
            "shuffle": self.shuffle,
            "buffer_size": self.buffer_size,
            "seed": self.seed,
            "fragments": zlib.crc32(repr(self._order.counts).encode()),
        }

    def _one_epoch(self, epoch: int, row: int) -> Iterator[tuple[Position, Block]]:
        """The rows of an epoch in their final order, from `row` on."""
        wanted, skip, base = self._order.seek(epoch, row)
        with closing(self._read([self.source.fragments[index] for index in wanted])) as read:
            blocks = drop_rows(read, skip)
            if self.buffer_size is not None:
                windows = shuffle_windows(
                    blocks,
                    self.buffer_size,
                    partial(self._order.permutation, epoch),
                    base // self.buffer_size,
                )
                blocks = drop_rows(windows, row - base)
            for block in blocks:
                yield (epoch, row), block
                row += count_rows(block)
        if row != self.total_size:
            raise RowCountError(
                f"total_size is {self.total_size:,}, but a whole pass over {self.source!r} gave "
                f"{row:,} rows; every likelihood would be scaled by the wrong number. Give the "
                "number of rows that one pass has."
            )

    def _all_epochs(self, epoch: int, row: int) -> Iterator[tuple[Position, Block]]:
        while True:
            yield from self._one_epoch(epoch, row)
            epoch, row = epoch + 1, 0

    def _read(self, fragments: list[Fragment]) -> Iterator[Block]:
        read = partial(read_checked, self.source)
        if self.num_workers > 1:
            return read_parallel(read, fragments, self.num_workers, self.prefetch, _nbytes)
        return (block for fragment in fragments for block in read(fragment))

    def _in_background(
        self, blocks: Iterator[tuple[Position, Block]]
    ) -> Iterator[tuple[Position, Block]]:
        if self.num_workers == 0:
            return blocks
        return read_ahead(blocks, self.prefetch, lambda item: _nbytes(item[1]))

    def _check_sample_shape(
        self, sample_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None
    ) -> None:
        if sample_shape is None:
            return
        found = {name: spec.row_shape for name, spec in self.layout.items()}
        if isinstance(sample_shape, Mapping):
            expected = {name: tuple(shape) for name, shape in sample_shape.items()}
        elif len(found) == 1:
            expected = dict.fromkeys(found, tuple(sample_shape))
        else:
            raise ArgumentError(
                f"The source has the arrays {sorted(found)}; sample_shape must be a mapping from "
                "their names to shapes."
            )
        if expected != found:
            columns = {name: spec.columns for name, spec in self.layout.items() if spec.columns}
            raise SchemaError(
                f"sample_shape says a row has the shape {_plain(expected)}, the source has "
                f"{_plain(found)}" + (f", of the columns {_plain(columns)}." if columns else ".")
            )

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
        _whole_number("total_size", total_size)
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
        return min(_whole_number("buffer_size", buffer_size), self.total_size)


class BatchStream:
    """Full batches without end; made by :meth:`DataLoader.stream`.

    Attributes
    ----------
    position : (int, int)
        Where the rows after the latest batch begin: ``loader.stream(position)`` goes on there.
    """

    def __init__(
        self, blocks: Iterator[tuple[Position, Block]], batch_size: int, position: Position
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
        self._batches.close()  # type: ignore[attr-defined]
        self._blocks.close()  # type: ignore[attr-defined]

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _nbytes(block: Block) -> int:
    return sum(array.nbytes for array in block.values())


def _plain(by_name: Mapping[str, Any]) -> str:
    return str(next(iter(by_name.values())) if len(by_name) == 1 else dict(by_name))


def _seed(seed: int | None) -> int:
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    return _whole_number("seed", seed, least=0)


def _whole_number(name: str, value: object, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(f"{name} must be a whole number of at least {least}, found {value!r}.")
    return int(value)


def _parse_bytes(value: int | str) -> int:
    if not isinstance(value, str):
        return _whole_number("prefetch", value, least=0)
    match = re.fullmatch(r"([0-9.]+)\s*([kMGT]?)(i?)B", value.strip())
    if not match:
        raise ArgumentError(f'prefetch must be bytes, or words such as "64MB", found {value!r}.')
    number, unit, binary = match.groups()
    return math.floor(float(number) * (1024 if binary else 1000) ** " kMGT".index(unit or " "))
