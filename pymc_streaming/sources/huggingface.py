"""Data sets of the Hugging Face hub, and those that the package ``datasets`` has loaded."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.arguments import whole_number
from pymc_streaming.errors import ArgumentError, CorruptFileError, RowCountError, SchemaError
from pymc_streaming.sources.base import Block, Fragment, IterableDataset, Rows, digest_of
from pymc_streaming.sources.columns import Transform, described
from pymc_streaming.sources.hub import split_files
from pymc_streaming.sources.memory import RowRange, row_ranges
from pymc_streaming.sources.parquet import ParquetSource
from pymc_streaming.sources.patience import patiently, reread
from pymc_streaming.sources.plan import Categories, Columns, column_levels, plan_columns
from pymc_streaming.sources.reading import reading

__all__ = ["DatasetSource", "StreamSource", "hf_source", "is_dataset"]

# Rows that are asked for at a time.
_BLOCK_ROWS = 4_096


def hf_source(
    data: Any,
    *,
    split: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    columns: Columns = None,
    filters: pc.Expression | None = None,
    categories: Categories = None,
    transform: Transform | None = None,
    n_rows: int | None = None,
    on_bad_file: str = "error",
) -> IterableDataset:
    """Read a data set of the Hugging Face hub, or one that the package ``datasets`` has loaded.

    Parameters
    ----------
    data : str, datasets.Dataset, or datasets.IterableDataset
        ``"owner/dataset"``, of which the Parquet files of a split are read, as by
        :func:`parquet_source`: a row group at a time, only the columns that are needed, all from
        the commit that the revision was when the source was made. Or a data set that is loaded, in
        memory or as a stream.
    split : str, default ``"train"``
        Which split of a data set on the hub.
    name : str, optional
        Which configuration, where there are several.
    revision : str, optional
        Branch, tag or commit on the hub. Default: the main branch.
    columns, categories, transform
        As for :func:`parquet_source`. Of a stream, the levels of `categories` must be given.
    filters : pyarrow.compute.Expression, optional
        As for :func:`parquet_source`. A data set that is loaded has a ``filter`` of its own.
    n_rows : int, optional
        Rows of a stream, which only the end of a pass can tell; it is an error if there are more or
        fewer. Not for others, which know.
    on_bad_file : {"error", "skip"}, default "error"
        As for :func:`parquet_source`, for a data set on the hub.

    Returns
    -------
    ParquetSource, DatasetSource or StreamSource

    Raises
    ------
    ArgumentError
        If there is no such split or configuration, N is needed, or an argument is not for `data`.
    MissingFileError
        If there is no such data set, or it has no Parquet files.
    SourceError
        As for :func:`parquet_source`.

    Notes
    -----
    The token for private data, and the address of a hub of one's own, come from the environment:
    ``HF_TOKEN``, or what ``hf auth login`` stored; ``HF_ENDPOINT``.

    The files of a split are those that the data set's card names; without a card, those with the
    name of the split in their path, or all of them for "train" if none has any. Of a data set that
    is not in Parquet the files are read that the hub itself makes (``refs/convert/parquet``).

    A stream is read shard by shard, as far as it has several; `DataLoader(..., shuffle=True)` takes
    them, and the rows within its buffer, in another order each pass. A stream that was shuffled by
    its own method is in the order of epoch e (``set_epoch``) in pass e. A fit that is resumed reads
    the begun pass from its beginning, since the rows of a stream can only be skipped by reading.

    Examples
    --------
    >>> from datasets import Dataset
    >>> from pymc_streaming import hf_source
    >>> trips = Dataset.from_dict({"x": [0.5, 1.5, 2.5], "city": ["Rome", "Oslo", "Rome"]})
    >>> source = hf_source(trips, columns={"x": "x", "city": "city"}, categories="auto")
    >>> source.n_rows, source.categories
    (3, {'city': ('Oslo', 'Rome')})
    >>> stream = trips.to_iterable_dataset(num_shards=3)
    >>> hf_source(stream, columns=["x"], n_rows=3).n_rows
    3
    """
    if isinstance(data, str):
        if n_rows is not None:
            raise ArgumentError(
                f"n_rows is for streams; the files of {data} say how many there are."
            )
        files = split_files(data, "train" if split is None else split, name, revision)
        return ParquetSource(
            files,
            columns=columns,
            filters=filters,
            categories=categories,
            transform=transform,
            on_bad_file=on_bad_file,
        )
    given = {"split": split, "name": name, "revision": revision, "filters": filters}
    refused = [key for key, value in given.items() if value is not None]
    if on_bad_file != "error":
        refused.append("on_bad_file")
    kind = type(data).__name__
    if refused:
        raise ArgumentError(
            f"{refused[0]} is for a data set on the hub, named as a str; this {kind} is loaded "
            "already. Choose the split when it is loaded, and rows with its filter()."
        )
    if _is("Dataset", data):
        if n_rows is not None:
            raise ArgumentError("n_rows is for streams; a Dataset knows how many it has.")
        return DatasetSource(data, columns=columns, categories=categories, transform=transform)
    if _is("IterableDataset", data):
        return StreamSource(
            data, n_rows=n_rows, columns=columns, categories=categories, transform=transform
        )
    if _is("DatasetDict", data) or _is("IterableDatasetDict", data):
        raise ArgumentError(f"This is a {kind}, of several splits: choose one, of {list(data)}.")
    raise ArgumentError(
        'hf_source reads "owner/dataset", a datasets.Dataset or a datasets.IterableDataset, found '
        f"{kind}."
    )


def is_dataset(data: object) -> bool:
    """Whether `data` is what the package ``datasets`` loads."""
    kinds = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return any(_is(kind, data) for kind in kinds)


def _is(kind: str, data: object) -> bool:
    datasets = sys.modules.get("datasets")  # an instance cannot exist before the import
    return datasets is not None and isinstance(data, getattr(datasets, kind))


class DatasetSource(IterableDataset):
    """A ``datasets.Dataset``; made by :func:`hf_source`.

    Attributes
    ----------
    categories : dict of str to tuple
        The levels of every categorical column.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        columns: Columns = None,
        categories: Categories = None,
        transform: Transform | None = None,
    ) -> None:
        if dataset.format["type"] == "custom":
            raise ArgumentError(
                "This Dataset has a transform of its own (set_transform or with_transform), which "
                "makes anything of its rows. Use map() instead, or transform= here."
            )
        self._dataset = dataset.with_format("arrow")
        self._digest = dataset._fingerprint
        schema = _plain(dataset.features.arrow_schema)
        plan = plan_columns(schema, columns, categories, transform, "dataset")
        self.fragments = row_ranges(len(dataset), "dataset")
        levels: dict[str, set[Any]] = {column: set() for column in plan.auto}
        if levels:
            for fragment in self.fragments:
                for batch in self._batches(fragment, list(levels)):
                    for column, found in levels.items():
                        column_levels(batch.column(column), column, found, fragment.origin)
        # A column without nulls has none in the rows that were selected from it either.
        nullable = [each for each in plan.names if dataset.data.column(each).null_count]
        self._plan = plan.completed(levels=levels, nullable=nullable)
        if transform is not None:
            first = self.fragments[0]
            self._plan = self._plan.probed(next(self._batches(first, plan.names)), first.origin)
        self.layout, self.categories = self._plan.layout, self._plan.categories

    def __repr__(self) -> str:
        return f"<DatasetSource: {self.n_rows:,} rows; {described(self.layout)}>"

    @property
    def fingerprint(self) -> str:
        """By what ``datasets`` knows of how the data set was made."""
        return digest_of([self._digest, self.categories, super().fingerprint])

    def read(self, fragment: Fragment) -> Iterator[Block]:
        """Yield the rows of a fragment in blocks of at most 4,096 rows."""
        for rows in self.rows(fragment):
            yield rows.block(self.layout)

    def rows(self, fragment: Fragment) -> Iterator[Rows]:
        """The same, as columns."""
        assert isinstance(fragment, RowRange)
        for batch in self._batches(fragment, self._plan.names):
            yield from self._plan.rows(batch, fragment.origin)

    def _batches(self, fragment: RowRange, names: list[str]) -> Iterator[pa.RecordBatch]:
        assert fragment.n_rows is not None
        stop = fragment.start + fragment.n_rows
        for start in range(fragment.start, stop, _BLOCK_ROWS):
            with reading(f"dataset, rows from {start:,}"):
                table = self._dataset[start : min(start + _BLOCK_ROWS, stop)].select(names)
            yield from _one_batch(table)


@dataclass(frozen=True, slots=True)
class Shard(Fragment):
    """A part of a stream that can be read on its own.

    Parameters
    ----------
    number : int
        Which.
    """

    number: int


class StreamSource(IterableDataset):
    """A ``datasets.IterableDataset``; made by :func:`hf_source`.

    Attributes
    ----------
    categories : dict of str to tuple
        The levels of every categorical column.
    """

    def __init__(
        self,
        stream: Any,
        *,
        n_rows: int | None = None,
        columns: Columns = None,
        categories: Categories = None,
        transform: Transform | None = None,
    ) -> None:
        if n_rows is None:
            raise ArgumentError(
                f"How many rows a stream has only its end can tell.{_guess(stream)}"
            )
        self._n_rows = whole_number("n_rows", n_rows)
        self._n_shards = int(stream.num_shards) if _can_be_sharded(stream) else 1
        self._stream, self._epoch = stream.with_format("arrow"), 0
        first = patiently(self._first, is_local=False)
        features = stream.features
        self._schema = _plain(first.schema if features is None else features.arrow_schema)
        plan = plan_columns(self._schema, columns, categories, transform, "stream")
        self._names = plan.names
        if plan.auto:
            raise ArgumentError(
                f"The levels of {plan.auto[0]!r} would take a pass over the stream to find. Give "
                f"them: categories={{{plan.auto[0]!r}: [...]}}."
            )
        count = self._n_shards
        self.fragments = [
            Shard(None, f"stream, shard {number} of {count}" if count > 1 else "stream", number)
            for number in range(count)
        ]
        self._plan = plan.completed(levels={}, nullable=() if transform is None else plan.names)
        if transform is not None:
            batch = next(self._conforming(first, self.fragments[0].origin))
            self._plan = self._plan.probed(batch, self.fragments[0].origin)
        self.layout, self.categories = self._plan.layout, self._plan.categories

    def __repr__(self) -> str:
        shards = f"{len(self.fragments)} shard{'s' * (len(self.fragments) != 1)}"
        return f"<StreamSource: {self.n_rows:,} rows in {shards}; {described(self.layout)}>"

    @property
    def n_rows(self) -> int:
        """Rows in one pass, as given."""
        return self._n_rows

    def at_epoch(self, epoch: int) -> StreamSource:
        """The stream in the order of another epoch, if it was shuffled."""
        other = copy.copy(self)
        other._epoch = epoch
        return other

    def read(self, fragment: Fragment) -> Iterator[Block]:
        """Yield the rows of a shard in blocks of at most 4,096 rows."""
        for rows in self.rows(fragment):
            yield rows.block(self.layout)

    def rows(self, fragment: Fragment) -> Iterator[Rows]:
        """The same, as columns."""
        assert isinstance(fragment, Shard)
        return reread(lambda: self._decoded(fragment), is_local=False)

    def _decoded(self, fragment: Shard) -> Iterator[Rows]:
        tables = self._tables(fragment.number)
        while (table := self._next(tables, fragment.origin)) is not None:
            for batch in self._conforming(table, fragment.origin):
                yield from self._plan.rows(batch, fragment.origin)

    def _next(self, tables: Iterator[pa.Table], origin: str) -> pa.Table | None:
        try:
            with reading(origin):
                return next(tables, None)
        except CorruptFileError as error:
            if isinstance(error.__cause__, pa.ArrowInvalid | pa.ArrowTypeError):
                raise _other_types(origin, error.__cause__) from error
            raise

    def _tables(self, number: int) -> Iterator[pa.Table]:
        # One shard of one is the stream itself, whatever it is made of.
        shard = self._stream.shard(self._n_shards, number) if self._n_shards > 1 else self._whole()
        shard.set_epoch(self._epoch)
        return iter(shard.iter(_BLOCK_ROWS))

    def _whole(self) -> Any:
        """The stream, for this reader alone: readers may be in different epochs."""
        return self._stream.with_format("arrow")

    def _first(self) -> pa.Table:
        for number in range(self._n_shards):
            table = self._next(self._tables(number), "stream")
            if table is not None:
                return table
        raise RowCountError("The stream has no rows, expected at least one.")

    def _conforming(self, table: pa.Table, origin: str) -> Iterator[pa.RecordBatch]:
        """In the types of the beginning, which those of later rows may differ from."""
        for name in self._names:
            if name not in table.column_names:
                raise SchemaError(
                    f"{origin}: column {name!r} is not in all rows; there are {table.column_names}."
                )
        schema = pa.schema([self._schema.field(name) for name in self._names])
        try:
            table = table.select(self._names).cast(schema)
        except (pa.ArrowException, ValueError) as error:
            raise _other_types(origin, error) from error
        yield from _one_batch(table)


# What a stream may be made of so that its shards have its rows. What counts rows (take, skip,
# indices, batches), or takes turns (interleave), would count those of each shard.
_OF_SHARDS = {
    "ArrowExamplesIterable",
    "BufferShuffledExamplesIterable",
    "ExamplesIterable",
    "FilteredExamplesIterable",
    "FormattedExamplesIterable",
    "MappedExamplesIterable",
    "RebatchedArrowExamplesIterable",
    "SelectColumnsIterable",
}


def _can_be_sharded(stream: Any) -> bool:
    """Whether the shards of a stream have the same rows together as the stream."""
    part = stream._ex_iterable
    while part is not None:
        counts = any(getattr(part, name, False) for name in ("with_indices", "batched"))
        if type(part).__name__ not in _OF_SHARDS or counts:
            return False
        part = getattr(part, "ex_iterable", None)
    return True


def _other_types(origin: str, error: Exception) -> SchemaError:
    return SchemaError(
        f"{origin}: rows have other types than those at the beginning of the stream: "
        f"{str(error).strip()}. Give a column one type where its rows are made, float(x), say."
    )


def _plain(schema: pa.Schema) -> pa.Schema:
    """Without what ``datasets`` notes in it for itself."""
    return schema.remove_metadata()


def _one_batch(table: pa.Table) -> Iterator[pa.RecordBatch]:
    if table.num_rows:
        yield from table.combine_chunks().to_batches()


def _guess(stream: Any) -> str:
    """What the description of a data set says of its size, which may not be the stream's."""
    splits = stream.info.splits or {}
    known = splits.get(str(stream.split)) if stream.split is not None else None
    if known is None or not known.num_examples:
        return " Give hf_source(stream, n_rows=...)."
    return (
        f" The description of the data set says {known.num_examples:,} for this split: give "
        f"n_rows={known.num_examples} if you take all of them."
    )
