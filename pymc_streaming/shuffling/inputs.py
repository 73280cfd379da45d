"""The table to shuffle: pieces of files, in the order of their rows, as Arrow batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.errors import RowCountError, SchemaError
from pymc_streaming.shuffling.csv_files import open_csv, survey_csv
from pymc_streaming.shuffling.schemas import common_schema, names_of_columns
from pymc_streaming.sources.columns import shortened
from pymc_streaming.sources.files import DataFile, Paths, find_tables
from pymc_streaming.sources.manifest import find_manifest
from pymc_streaming.sources.open_files import OpenFiles
from pymc_streaming.sources.reading import reading

__all__ = ["InputTable", "Piece", "has_fixed_width", "memory_of", "modified_now", "open_table"]

# A decoded batch is about so large. It is a function of the table alone: the memory limit must
# not show in the result, not even in the order of a dictionary's levels.
_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 262_144
# What strings and lists take in memory can be told only by reading some.
_VARIABLE_BATCH_ROWS = 4096
_SAMPLE_PIECES, _SAMPLE_ROWS = 8, 256

_FINGERPRINT_HEAD, _FINGERPRINT_TAIL = 2**16, 2**20


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows that can be read on their own.

    Parameters
    ----------
    file : DataFile
        The file they are in.
    number : int
        Which row group or record batch of it; 0 for a CSV file.
    start : int
        Number of the first row in the whole table.
    n_rows : int
        How many.
    """

    file: DataFile
    number: int
    start: int
    n_rows: int


@dataclass(frozen=True)
class InputTable:
    """A table in files.

    Parameters
    ----------
    kind : {"parquet", "arrow", "csv"}
        Format of all files.
    files : list of DataFile
        In the order of the rows.
    stored : pyarrow.Schema
        Columns to read, with the types that all files can be read as.
    pieces : list of Piece
        In the order of the rows.
    row_bytes : float
        About how much memory a row takes.
    modified : list of lists
        What `modified_now` said before anything was read.
    """

    kind: str
    files: list[DataFile]
    stored: pa.Schema
    pieces: list[Piece]
    row_bytes: float
    modified: list[list[int | None]]

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return sum(piece.n_rows for piece in self.pieces)

    @property
    def batch_rows(self) -> int:
        """Rows of a batch; the last of a piece, or of a row of pieces, has fewer."""
        most = _BATCH_ROWS if has_fixed_width(self.stored) else _VARIABLE_BATCH_ROWS
        return max(1, min(most, int(_BATCH_BYTES / self.row_bytes)))

    def read(self, pieces: Sequence[Piece]) -> Generator[tuple[pa.RecordBatch, str]]:
        """The rows of consecutive pieces of one file, each batch with its place in words."""
        file, seen = pieces[0].file, 0
        ends = np.cumsum([piece.n_rows for piece in pieces])
        expected = int(ends[-1])
        with reading(file.path):
            for batch in _READERS[self.kind](self, file, pieces):
                if not batch.num_rows:
                    continue
                if seen + batch.num_rows > expected:
                    seen += batch.num_rows
                    break
                first, last = np.searchsorted(ends, [seen, seen + batch.num_rows - 1], "right")
                where = f"{file.path}, {_place(self.kind, pieces[first : last + 1])}"
                yield _as(batch, self.stored, where), where
                seen += batch.num_rows
        if seen != expected:
            more = "at least " if seen > expected else ""
            raise RowCountError(
                f"{file.path}: expected {expected:,} rows, found {more}{seen:,}. The file was "
                "written again while it was read; run the shuffle again."
            )

    def units(self) -> Iterator[list[Piece]]:
        """Consecutive pieces of one file that together make a batch, a function of the table."""
        unit: list[Piece] = []
        rows, enough = 0, self.batch_rows
        for piece in self.pieces:
            if unit and (unit[-1].file != piece.file or rows >= enough):
                yield unit
                unit, rows = [], 0
            unit.append(piece)
            rows += piece.n_rows
        if unit:
            yield unit

    def fingerprint(self) -> str:
        """A hash of the names, the sizes, the beginnings and the ends of all files.

        The end of a Parquet file has its footer, with the statistics of every column.
        """
        digest = hashlib.sha256(repr(self.stored.names).encode())
        for file in self.files:
            with reading(file.path), file.filesystem.open_input_file(file.inner_path) as opened:
                size = opened.size()
                digest.update(f"{file.label}\0{size}\0".encode())
                digest.update(opened.read_at(min(size, _FINGERPRINT_HEAD), 0))
                tail = min(size, _FINGERPRINT_TAIL)
                digest.update(opened.read_at(tail, size - tail))
        return digest.hexdigest()

    def stored_bytes(self) -> int:
        """Size of all files."""
        return sum(file.filesystem.get_file_info(file.inner_path).size or 0 for file in self.files)


def open_table(path: Paths, columns: Sequence[str] | None) -> InputTable:
    """Find the files of a table and check that they are one.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        As for :func:`~pymc_streaming.parquet_source`.
    columns : sequence of str or None
        The columns to read, in this order; None for all.

    Raises
    ------
    MissingFileError, CorruptFileError, SourceError
        If there are no files, or they cannot be read.
    SchemaError
        If they do not have the same columns.
    ManifestError
        If the folder was shuffled and is not what its manifest says.
    """
    manifest = find_manifest(path)
    kind, files = find_tables(path if manifest is None else manifest.paths(path))
    modified = modified_now(files)
    if columns is not None:
        columns = names_of_columns(columns)
    surveyed = (
        survey_csv(files, columns) if kind == "csv" else [_footer(kind, file) for file in files]
    )
    schemas = [schema for schema, _ in surveyed]
    stored = common_schema(schemas, [file.path for file in files], columns)
    pieces = list(_pieces(files, [counts for _, counts in surveyed]))
    table = InputTable(kind, files, stored, pieces, float(max(1, len(stored))), modified)
    return replace(table, row_bytes=_row_bytes(table))


def modified_now(files: Sequence[DataFile]) -> list[list[int | None]]:
    """What tells that a file was written again, as far as it is known: times and number."""
    noted: list[list[int | None]] = []
    for file in files:
        with reading(file.path):
            if file.is_local:
                found = Path(file.inner_path).stat()
                noted.append([found.st_mtime_ns, found.st_ctime_ns, found.st_ino])
            else:
                noted.append([file.filesystem.get_file_info(file.inner_path).mtime_ns])
    return noted


def _footer(kind: str, file: DataFile) -> tuple[pa.Schema, list[int]]:
    """Columns of a file, and the rows of each of its pieces."""
    if kind == "parquet":
        with OpenFiles().borrow(file) as opened:
            groups = range(opened.num_row_groups)
            return opened.schema_arrow, [opened.metadata.row_group(i).num_rows for i in groups]
    with reading(file.path), _arrow_file(file) as opened:
        batches = range(opened.num_record_batches)
        return opened.schema, [opened.get_batch(i).num_rows for i in batches]


def _pieces(files: list[DataFile], counts: Iterable[list[int]]) -> Iterator[Piece]:
    start = 0
    for file, lengths in zip(files, counts, strict=True):
        for number, n_rows in enumerate(lengths):
            if n_rows:
                yield Piece(file, number, start, n_rows)
                start += n_rows


def _row_bytes(table: InputTable) -> float:
    """Memory of a row, from the first rows of some pieces."""
    pieces = table.pieces
    if not pieces:
        return float(max(1, len(table.stored)))
    if has_fixed_width(table.stored):
        return max(1.0, float(sum(kind.bit_width for kind in table.stored.types)) / 8)
    places = np.linspace(0, len(pieces) - 1, min(_SAMPLE_PIECES, len(pieces))).astype(int)
    sample = replace(table, row_bytes=_BATCH_BYTES / _SAMPLE_ROWS)
    widest = 1.0
    for place in places:
        with closing(sample.read([pieces[place]])) as rows:
            batch, _ = next(rows)
        widest = max(widest, memory_of(batch) / batch.num_rows)
    return widest


def memory_of(batch: pa.RecordBatch) -> int:
    """Bytes of the rows of a batch, without dictionaries, which rows share."""
    return sum(
        (column.indices if pa.types.is_dictionary(column.type) else column).nbytes
        for column in batch.columns
    )


def has_fixed_width(schema: pa.Schema) -> bool:
    """Whether every row takes the same memory."""
    return all(_has_fixed_width(kind) for kind in schema.types)


def _has_fixed_width(kind: pa.DataType) -> bool:
    try:
        return bool(kind.bit_width) and not pa.types.is_dictionary(kind)
    except ValueError:
        return False


def _as(batch: pa.RecordBatch, schema: pa.Schema, where: str) -> pa.RecordBatch:
    batch = _without_null_levels(batch)
    if batch.schema.equals(schema, check_metadata=False):
        return batch
    try:
        return pa.RecordBatch.from_arrays(
            [batch.column(field.name).cast(field.type) for field in schema], schema=schema
        )
    except (pa.ArrowException, KeyError) as error:
        raise SchemaError(
            f"{where}: expected the columns {shortened([str(field) for field in schema])}, found "
            f"{shortened([str(field) for field in batch.schema])}: {error}"
        ) from error


def _without_null_levels(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` with nulls among the rows instead, where files may have them."""
    for number, column in enumerate(batch.columns):
        if pa.types.is_dictionary(column.type) and column.dictionary.null_count:
            is_level = column.dictionary.is_valid()
            codes = pc.subtract(pc.cumulative_sum(is_level.cast(pa.int64())), 1)
            codes = pc.if_else(is_level, codes, None).cast(column.type.index_type)
            levels = column.dictionary.drop_null()
            column = pa.DictionaryArray.from_arrays(
                codes.take(column.indices), levels, ordered=column.type.ordered
            )
            batch = batch.set_column(number, batch.schema.field(number), column)
    return batch


def _read_parquet(
    table: InputTable, file: DataFile, pieces: Sequence[Piece]
) -> Iterator[pa.RecordBatch]:
    with OpenFiles().borrow(file, _place("parquet", pieces)) as opened:
        names = table.stored.names
        everything = set(names) == set(opened.schema_arrow.names)
        yield from opened.iter_batches(
            batch_size=table.batch_rows,
            row_groups=[piece.number for piece in pieces],
            columns=None if everything else names,
            use_threads=False,
        )


def _read_arrow(
    table: InputTable, file: DataFile, pieces: Sequence[Piece]
) -> Iterator[pa.RecordBatch]:
    with _arrow_file(file) as opened:
        for piece in pieces:
            with reading(f"{file.path}, {_place('arrow', [piece])}"):
                batch = opened.get_batch(piece.number).select(table.stored.names)
                batch.validate(full=True)  # there are no checksums, and Arrow follows any offset
            for start in range(0, batch.num_rows, table.batch_rows):
                yield batch.slice(start, table.batch_rows)


def _read_csv(
    table: InputTable, file: DataFile, _pieces: Sequence[Piece]
) -> Iterator[pa.RecordBatch]:
    with open_csv(file, {field.name: field.type for field in table.stored}) as opened:
        yield from opened


_READERS: dict[str, Callable[..., Iterable[pa.RecordBatch]]] = {
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "csv": _read_csv,
}


_WORDS = {"parquet": "row group", "arrow": "record batch"}


def _place(kind: str, pieces: Sequence[Piece]) -> str:
    """Consecutive pieces in words."""
    if kind not in _WORDS:
        return "the whole file"
    numbers = sorted({pieces[0].number, pieces[-1].number})
    return " to ".join(f"{_WORDS[kind]} {number}" for number in numbers)


@contextmanager
def _arrow_file(file: DataFile) -> Iterator[Any]:
    with file.filesystem.open_input_file(file.inner_path) as raw:
        try:
            opened = pa.ipc.open_file(raw)
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(f"{error} (expected an Arrow IPC or Feather file)") from error
        yield opened
