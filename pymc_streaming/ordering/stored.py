"""Parquet files as they are: every column, whatever a model would make of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pymc_streaming.errors import RowCountError, SchemaError
from pymc_streaming.ordering.features import readable
from pymc_streaming.ordering.footers import Footers, read_footers
from pymc_streaming.ordering.sampling import Table
from pymc_streaming.sources.columns import shortened
from pymc_streaming.sources.files import DataFile, OpenFiles, Paths, find_files
from pymc_streaming.sources.plan import missing_column

__all__ = ["StoredTable", "open_stored"]

# Rows decoded at a time: what lies behind the last run of a row group is not decoded.
_BATCH_ROWS = 8_192


@dataclass(frozen=True)
class StoredTable:
    """Parquet files to be looked at.

    Parameters
    ----------
    files : list of DataFile
        The files.
    footers : Footers
        What their footers say.
    columns : tuple of str
        Columns that were asked for.
    """

    files: list[DataFile]
    footers: Footers
    columns: tuple[str, ...]

    def unreadable(self, name: str) -> str | None:
        """Why a column is not judged, if it is not."""
        if name in self.footers.uneven:
            return "not the same in all files"
        kind = self.footers.schema.field(name).type
        return None if readable(kind) else "no single values"

    def table(self) -> Table:
        """What a sample can be drawn from."""
        names = tuple(name for name in self.columns if self.unreadable(name) is None)
        opened = OpenFiles()

        def read(index: int) -> Iterator[Sequence[pa.Array]]:
            file, group = self.footers.groups[index]
            with opened.borrow(self.files[file], f"row group {group}") as parquet:
                for batch in parquet.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=list(names), use_threads=False
                ):
                    yield [batch.column(name) for name in names]

        remote = not all(file.is_local for file in self.files)
        return Table(self.footers.counts, names, read, is_remote=remote)


def open_stored(path: Paths, columns: Sequence[str] | None = None) -> StoredTable:
    """Find files and read their footers.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        As for :func:`~pymc_streaming.parquet_source`.
    columns : sequence of str, optional
        Columns to look at. Default: all.

    Raises
    ------
    SchemaError
        If a column is not there.
    RowCountError
        If there are no rows.
    """
    files = find_files(path, "*.parquet")
    footers = read_footers(files, columns)
    names = footers.schema.names
    where = files[0].path
    for name in columns or ():
        if name not in names:
            raise SchemaError(missing_column(name, names, where))
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SchemaError(
            f"{where}: column {twice[0]!r} is there more than once, expected different names among "
            f"{shortened(names)}. Rename one of them."
        )
    if not footers.counts:
        raise RowCountError(f"{where} has no rows, expected at least one. Check the path.")
    return StoredTable(files, footers, tuple(columns or names))
