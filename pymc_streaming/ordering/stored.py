"""Tables as they are stored: every column, whatever a model would make of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from pymc_streaming.errors import ArgumentError, RowCountError, SchemaError
from pymc_streaming.ordering.features import readable, takeable
from pymc_streaming.ordering.footers import Footers, read_footers
from pymc_streaming.ordering.rarities import count_rare_values
from pymc_streaming.ordering.sampling import Table, source_table
from pymc_streaming.sources import arrow_source
from pymc_streaming.sources.columns import canonical_type, shortened
from pymc_streaming.sources.files import DataFile, Paths, find_tables
from pymc_streaming.sources.manifest import find_manifest
from pymc_streaming.sources.memory import arrow_table
from pymc_streaming.sources.open_files import OpenFiles
from pymc_streaming.sources.packed import is_packed
from pymc_streaming.sources.plan import missing_column
from pymc_streaming.sources.reading import reading

__all__ = ["StoredTable", "open_files", "open_frame"]

# Rows decoded at a time: what lies behind the last run of a row group is not decoded.
_BATCH_ROWS = 8_192
# Rows of a table in memory that count as one fragment, as in the sources.
_FRAME_ROWS = 65_536

#: From the number of a fragment and names of columns to blocks of them.
Read = Callable[[int, Sequence[str]], Iterator[Sequence[Any]]]


@dataclass(frozen=True)
class StoredTable:
    """A table to be looked at.

    Parameters
    ----------
    types : mapping of str to pyarrow.DataType
        The columns that were asked for.
    counts : sequence of int
        Rows of each fragment.
    read : callable
        Reads a fragment.
    uneven : collection of str
        Columns that are not in all files with the same type.
    footers : Footers, optional
        What the footers of Parquet files say.
    kind : {"parquet", "arrow", ""}
        Of files; nothing for a table in memory.
    shards : int
        Files; 0 for a table in memory.
    nbytes : int, optional
        Size on disk.
    is_remote : bool
        Whether opening a fragment is slow.
    is_shuffled : bool
        Whether a manifest says that the rows are in random order.
    """

    types: Mapping[str, pa.DataType]
    counts: Sequence[int]
    read: Read
    uneven: frozenset[str] = frozenset()
    footers: Footers | None = None
    kind: str = ""
    shards: int = 0
    nbytes: int | None = None
    is_remote: bool = False
    is_shuffled: bool = False

    @cached_property
    def unjudged(self) -> dict[str, str]:
        """Why a column is not judged, for those that are not."""
        reasons = {}
        for name, kind in self.types.items():
            if name in self.uneven:
                reasons[name] = "not the same in all files"
            elif not readable(kind):
                reasons[name] = "no single values"
        return reasons

    def table(self) -> Table:
        """What a sample can be drawn from."""
        names = tuple(name for name in self.types if name not in self.unjudged)
        return Table(
            self.counts, names, lambda index: self.read(index, names), is_remote=self.is_remote
        )


def open_files(path: Paths, columns: Sequence[str] | None = None) -> StoredTable:
    """Find Parquet or Arrow files, and what can be known of them without reading rows.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        As for :func:`~pymc_streaming.parquet_source`.
    columns : sequence of str, optional
        Columns to look at. Default: all.

    Raises
    ------
    ArgumentError
        If the files are CSV.
    SchemaError
        If a column is not there, or the files have none in common.
    RowCountError
        If there are no rows.
    """
    kind, files = find_tables(path)
    if kind == "csv":
        raise ArgumentError(_about_csv(path, files[0]))
    is_shuffled = find_manifest(path, kind) is not None
    open_kind = _open_parquet if kind == "parquet" else _open_arrow
    table = open_kind(path, files, columns, is_shuffled)
    if table.uneven.issuperset(table.types):
        raise SchemaError(
            f"{files[0].path}: no column is in all {len(files):,} files with the same type, so "
            "they are not one table. Look at those that are, or at one file at a time."
        )
    return table


def open_frame(table: Any, columns: Sequence[str] | None = None) -> StoredTable:
    """Look at a data frame or an Arrow table in memory as it is, strings and nulls included.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame, pyarrow.Table
        What :func:`~pymc_streaming.table_source` takes.
    columns : sequence of str, optional
        Columns to look at. Default: all.
    """
    arrow = arrow_table(table)
    names = _chosen(arrow.schema.names, columns, "table")
    starts = range(0, arrow.num_rows, _FRAME_ROWS)
    if not starts:
        raise RowCountError("The table has no rows, expected at least one.")

    def read(index: int, wanted: Sequence[str]) -> Iterator[Sequence[pa.Array]]:
        for batch in arrow.select(wanted).slice(starts[index], _FRAME_ROWS).to_batches():
            yield [takeable(column) for column in batch.columns]

    counts = [min(_FRAME_ROWS, arrow.num_rows - start) for start in starts]
    return StoredTable({name: arrow.schema.field(name).type for name in names}, counts, read)


def _about_csv(path: Paths, file: DataFile) -> str:
    source = "SOURCE" if isinstance(path, list | tuple) else shlex.quote(str(path))
    return (
        f"{file.path}: this is a CSV file; Parquet, Arrow and Feather files can be looked at. To "
        "be streamed it has to become Parquet anyway, and this makes it Parquet in random order, "
        f"whatever its order is now: pymc-streaming shuffle {source} shuffled --seed 0"
    )


def _chosen(names: Sequence[str], columns: Sequence[str] | None, where: str) -> tuple[str, ...]:
    for name in columns or ():
        if name not in names:
            raise SchemaError(missing_column(name, names, where))
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise SchemaError(
            f"{where}: column {twice[0]!r} is there more than once, expected different names among "
            f"{shortened(names)}. Rename one of them."
        )
    return tuple(columns or names)


def _refuse_empty(counts: Sequence[int], where: str) -> None:
    if not counts:
        raise RowCountError(f"{where} has no rows, expected at least one. Check the path.")


def _open_parquet(
    _path: Paths, files: list[DataFile], columns: Sequence[str] | None, is_shuffled: bool
) -> StoredTable:
    footers = read_footers(files, columns)
    names = _chosen(footers.schema.names, columns, files[0].path)
    _refuse_empty(footers.counts, files[0].path)
    count_rare_values(files, footers)
    opened = OpenFiles()

    def read(index: int, wanted: Sequence[str]) -> Iterator[Sequence[pa.Array]]:
        file, group = footers.groups[index]
        with opened.borrow(files[file], f"row group {group}") as parquet:
            for batch in parquet.iter_batches(
                _BATCH_ROWS, row_groups=[group], columns=list(wanted), use_threads=False
            ):
                yield [takeable(batch.column(name)) for name in wanted]

    return StoredTable(
        {name: footers.schema.field(name).type for name in names},
        footers.counts,
        read,
        frozenset(footers.uneven),
        footers,
        "parquet",
        len(files),
        footers.stored_bytes,
        not all(file.is_local for file in files),
        is_shuffled,
    )


def _open_arrow(
    path: Paths, files: list[DataFile], columns: Sequence[str] | None, is_shuffled: bool
) -> StoredTable:
    counts, places, schemas = [], [], []
    for file in files:
        with _ipc_file(file) as opened:
            schemas.append(opened.schema)
        with _ipc_file(file, opened.schema.names[:1]) as opened:  # one column tells the rows
            for number in range(opened.num_record_batches):
                if rows := opened.get_batch(number).num_rows:
                    counts.append(rows)
                    places.append((file, number))
    _refuse_empty(counts, files[0].path)
    schema = schemas[0]
    nbytes = sum(file.filesystem.get_file_info(file.inner_path).size or 0 for file in files)
    is_remote = not all(file.is_local for file in files)
    if is_packed(schema):  # rows of numbers side by side, whose names the source knows
        source = arrow_source(path, columns=columns)
        rows = source_table(source)
        (spec,) = source.layout.values()
        return StoredTable(
            dict.fromkeys(rows.columns, pa.from_numpy_dtype(spec.dtype)),
            counts,
            lambda index, _wanted: rows.read(index),
            kind="arrow",
            shards=len(files),
            nbytes=nbytes,
            is_remote=is_remote,
            is_shuffled=is_shuffled,
        )
    types = {
        name: schema.field(name).type for name in _chosen(schema.names, columns, files[0].path)
    }
    uneven = {
        name
        for other in schemas[1:]
        for name, kind in types.items()
        if name not in other.names or canonical_type(other.field(name).type) != canonical_type(kind)
    }

    def read(index: int, wanted: Sequence[str]) -> Iterator[Sequence[pa.Array]]:
        file, number = places[index]
        with _ipc_file(file, wanted) as opened, reading(f"{file.path}, batch {number}"):
            batch = opened.get_batch(number)
            batch.validate(full=True)  # there are no checksums, and Arrow follows any offset
            yield [takeable(batch.column(name)) for name in wanted]

    return StoredTable(
        types, counts, read, frozenset(uneven), None, "arrow", len(files), nbytes, is_remote,
        is_shuffled,
    )  # fmt: skip


@contextmanager
def _ipc_file(file: DataFile, columns: Sequence[str] = ()) -> Iterator[Any]:
    """A file of which only some columns are decoded; without names, all."""
    with reading(file.path), file.filesystem.open_input_file(file.inner_path) as raw:
        try:
            schema = pa.ipc.open_file(raw).schema
            fields = [schema.get_field_index(name) for name in columns]
            yield pa.ipc.open_file(raw, options=pa.ipc.IpcReadOptions(included_fields=fields))
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(f"{error} (expected an Arrow IPC or Feather file)") from error
