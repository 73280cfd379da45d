"""Parquet files as a source: one fragment per row group, read in bounded blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.errors import CorruptFileError, RowCountError, SchemaError
from pymc_streaming.sources.base import Block, Fragment, IterableDataset, Rows, digest_of
from pymc_streaming.sources.columns import Transform, canonical_type, described
from pymc_streaming.sources.declared import check_pages
from pymc_streaming.sources.files import DataFile, Paths
from pymc_streaming.sources.filters import RowFilter
from pymc_streaming.sources.footers import (
    Footer,
    RowGroup,
    block_rows,
    check_schema,
    footer_of,
    nullable,
    refuse_known_nulls,
)
from pymc_streaming.sources.identity import digest_of_file
from pymc_streaming.sources.open_files import OpenFile, OpenFiles
from pymc_streaming.sources.patience import patiently, reread
from pymc_streaming.sources.plan import Categories, Columns, column_levels, plan_columns
from pymc_streaming.sources.skipped import ADVICE
from pymc_streaming.sources.table_files import TableFiles

__all__ = ["ParquetSource", "RowGroup", "parquet_source"]

# A remote row group up to this size is fetched at once, in few requests.
_COALESCED_BYTES = 64 * 2**20

# Footers wait for a remote store most of the time. From a disk, threads would only take memory; so
# does each thread of a scan.
_REMOTE_FOOTER_THREADS = 16
_SCAN_THREADS = 4
_SCAN_ROWS = 16_384


def parquet_source(
    path: Paths,
    *,
    columns: Columns = None,
    filters: pc.Expression | None = None,
    categories: Categories = None,
    transform: Transform | None = None,
    pattern: str = "*.parquet",
    on_bad_file: str = "error",
) -> ParquetSource:
    """Read a table from Parquet files, a row group at a time.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        A file, a folder (searched recursively; files and folders whose names begin
        with ``.`` or ``_`` are ignored), or a glob; local, or any URL that fsspec
        knows (``hf://datasets/...``, ``s3://...``, ``memory://...``). Files are
        read in the order of their paths, those of a list in the order given. A folder
        that :func:`preshuffle` wrote is held against its manifest.
    columns : list of str, mapping, or None, default None
        A list gives one 2-D array with these columns in this order; None all
        columns of the first file. A mapping ``{"X": ["a", "b"], "y": "label"}``
        gives arrays by name, 1-D for a column and 2-D for a list of columns.
    filters : pyarrow.compute.Expression, optional
        Keep only the rows for which this is true, for example
        ``pc.field("delay").is_valid()``. It may use columns that are not selected.
        Row groups are skipped by their statistics, and N is counted once, here.
    categories : "auto" or mapping, optional
        Levels of string, dictionary or integer columns, ``{"origin": ["ATL",
        "BOS"]}``; a value becomes its position among the levels. ``"auto"`` for a
        column finds its levels in one scan of it, sorted; ``categories="auto"``
        does so for every string and dictionary column that is selected.
    transform : callable, optional
        Called with the columns of at most 4,096 rows, a dict of 1-D arrays of equal
        length that it may change, it returns one array or a mapping of named arrays with
        the same number of rows.
    pattern : str, default ``"*.parquet"``
        Which file names to read in a folder. The default takes the ending in capitals too,
        and refuses a folder that has tables of another kind as well.
    on_bad_file : {"error", "skip"}, default "error"
        With ``"skip"`` files that are damaged are left out: to find them, every file is read
        to its end once, here. Their names and rows are in ``skipped`` and in a warning, N is
        the number of the rows that are left, and the result of a fit says so. Files that are
        not there, cannot be reached, or have other columns are errors all the same.

    Returns
    -------
    ParquetSource
        Its ``categories`` are the levels of every categorical column.

    Raises
    ------
    MissingFileError
        If nothing is found at `path`.
    CorruptFileError
        If a file is damaged, or not Parquet.
    ManifestError
        If the folder was shuffled and is not what its manifest says.
    SchemaError
        If a column is missing, has no numeric reading, or differs between files.
    MissingValueError
        If a column holds a null and there is no transform to fill it.
    CategoryError
        If a value is not among the given levels.
    PrecisionError
        If whole numbers are too large for ``floatX``.
    TransformError
        If the transform fails, or what it returns differs from block to block.
    RowCountError
        If there are no rows.

    Warns
    -----
    SkippedFilesWarning
        If damaged files were left out.

    Notes
    -----
    Numbers, by Arrow type: integers, and booleans as 0 and 1, are whole numbers; so
    are dates, in days since 1970-01-01, and codes of categories. Timestamps (seconds
    since 1970-01-01 UTC), times and durations (seconds) and decimals are floats. One
    unnamed block is always of PyTensor's ``floatX``; of named arrays, a 1-D array of
    whole numbers, and a 2-D one that has only such columns, is int64. Whole numbers,
    seconds and decimals that ``floatX`` cannot tell apart are refused.

    A transform receives whole numbers as int64, booleans as bool, floats in their own
    type, other numbers as float64, and strings without categories as an object array
    of str and None. A numeric or categorical column with a null anywhere in the files
    (their statistics tell, and without statistics it is assumed) arrives as float64
    in every block, NaN for null. Of what it returns, floats become ``floatX``, and
    integers and booleans int64. NaN that it leaves is an error. A loader with several
    workers calls it from several threads at a time.

    Examples
    --------
    >>> import fsspec, pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
    >>> from pymc_streaming import parquet_source
    >>> table = pa.table({"x": [0.5, 1.5, None], "group": ["b", "a", "b"], "y": [1, 0, 1]})
    >>> with fsspec.open("memory://trips/part-0.parquet", "wb") as file:
    ...     pq.write_table(table, file)
    >>> source = parquet_source(
    ...     "memory://trips/",
    ...     columns={"x": "x", "group": "group", "y": "y"},
    ...     filters=pc.field("x").is_valid(),
    ...     categories="auto",
    ... )
    >>> source.n_rows, source.categories
    (2, {'group': ('a', 'b')})
    >>> next(source.read(source.fragments[0]))["group"]
    array([1, 0])
    """
    return ParquetSource(
        path,
        columns=columns,
        filters=filters,
        categories=categories,
        transform=transform,
        pattern=pattern,
        on_bad_file=on_bad_file,
    )


class ParquetSource(IterableDataset):
    """A table in Parquet files; made by :func:`parquet_source`.

    Attributes
    ----------
    categories : dict of str to tuple
        The levels of every categorical column.
    manifest : Manifest or None
        What the shuffle says that made the folder.
    """

    fragments: list[RowGroup]

    def __init__(
        self,
        path: Paths | Sequence[DataFile],
        *,
        columns: Columns = None,
        filters: pc.Expression | None = None,
        categories: Categories = None,
        transform: Transform | None = None,
        pattern: str = "*.parquet",
        on_bad_file: str = "error",
    ) -> None:
        table = TableFiles(path, pattern, "parquet", on_bad_file)
        self.manifest = table.manifest
        self.is_shuffled = self.manifest is not None
        table.leave_out_damaged(_schema, _rows_by_footer)
        first = table.files[0]
        schema = patiently(lambda: _schema(first), is_local=first.is_local)
        plan = plan_columns(schema, columns, categories, transform, first.path)
        self._filter = None if filters is None else RowFilter(filters, schema, first.path)
        checked = plan.names + (self._filter.columns if self._filter else [])
        expected = {name: canonical_type(schema.field(name).type) for name in checked}
        table.leave_out_damaged(partial(_read_through, names=checked), _rows_by_footer)
        files, self.skipped = table.files, tuple(table.skipped)
        self._files = {file.path: file for file in files}
        self._expected, self._first, self._checked = expected, first, schema
        self._verified: set[Fragment] = set()

        def read_footers(file: DataFile) -> list[Footer]:
            with OpenFiles().borrow(file) as opened:
                if not opened.metadata.num_rows:  # nor are there types to compare
                    return []
                check_schema(opened.schema_arrow, file, expected, first, columns is None)
                kept: Sequence[int] = range(opened.num_row_groups)
                if self._filter is not None:
                    kept = self._filter.row_groups(file, opened.num_row_groups)
                return [footer_of(opened.facts, group, file, expected) for group in kept]

        footers = [
            footer
            for found in _in_threads(
                lambda file: patiently(lambda: read_footers(file), is_local=file.is_local),
                files,
                _REMOTE_FOOTER_THREADS if self.is_remote else 1,
            )
            for footer in found
        ]
        if transform is None and filters is None:
            refuse_known_nulls(plan, footers)
        self._stored = digest_of(
            (f.fragment.origin, f.fragment.n_rows, f.stored_bytes) for f in footers
        )
        widest = max((footer.row_bytes for footer in footers), default=1.0)
        self._block_rows = block_rows(widest)
        coded = [column.name for column in plan.columns if column.levels is not None]
        if self._filter is not None:  # whose functions may not take dictionaries
            coded = [name for name in coded if name not in self._filter.columns]
        stored_bytes = max((footer.stored_bytes for footer in footers), default=0)
        self._open_files = OpenFiles(coded, coalesce=stored_bytes <= _COALESCED_BYTES)

        groups = [footer.fragment for footer in footers]
        levels: dict[str, set[Any]] = {name: set() for name in plan.auto}
        if self._filter is not None or levels:
            groups = list(
                _in_threads(
                    lambda group: patiently(
                        lambda: self._scan(group, levels),
                        is_local=self._files[group.path].is_local,
                    ),
                    groups,
                    _SCAN_THREADS,
                )
            )
        self.fragments = [group for group in groups if group.n_rows]
        if not self.fragments:
            reason = "has no rows" if filters is None else f"has no row that passes {filters}"
            raise RowCountError(
                f"{_in_words(files)} {reason}, expected at least one. Check `path` and `filters`."
            )
        nulls = () if transform is None else nullable(plan, footers)
        self._plan = plan.completed(levels=levels, nullable=nulls)
        if transform is not None:
            group = self.fragments[0]
            self._plan = self._plan.probed(next(self._batches(group, plan.names)), group.origin)
        self.layout = self._plan.layout
        self.categories = self._plan.categories
        table.warn_of_skipped(sum(group.n_rows or 0 for group in self.fragments))

    def __repr__(self) -> str:
        return (
            f"<ParquetSource: {self.n_rows:,} rows in {len(self.fragments):,} row groups of "
            f"{_in_words(list(self._files.values()))}; {described(self.layout)}>"
        )

    @property
    def files(self) -> list[DataFile]:
        """The files, in the order in which they are read."""
        return list(self._files.values())

    @property
    def fingerprint(self) -> str:
        """By the row groups, and a sample of the bytes of each file, with the end of its footer."""
        samples = [digest_of_file(file) for file in self._files.values()]
        return digest_of([self._stored, *samples, self.categories, super().fingerprint])

    @property
    def is_remote(self) -> bool:
        """Whether a file is behind a network, so that opening it takes long."""
        return not all(file.is_local for file in self._files.values())

    def read(self, fragment: Fragment) -> Iterator[Block]:
        """Yield the rows of one row group in blocks of at most 65,536 rows."""
        for rows in self.rows(fragment):
            yield rows.block(self.layout)

    def rows(self, fragment: Fragment) -> Iterator[Rows]:
        """The same, as decoded columns."""
        assert isinstance(fragment, RowGroup)
        is_local = self._files[fragment.path].is_local
        return reread(lambda: self._decoded(fragment), is_local=is_local)

    def _decoded(self, group: RowGroup) -> Iterator[Rows]:
        # To compare checksums takes as long as to decode: done the first time.
        first = group not in self._verified
        for batch in self._batches(group, self._plan.names, checksums=first):
            yield from self._plan.rows(batch, group.origin)
        self._verified.add(group)

    def _batches(
        self, group: RowGroup, columns: list[str], *, checksums: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """Arrow batches of the rows of a row group that pass the filter."""
        needed = columns
        if self._filter is not None:
            needed = list(dict.fromkeys(columns + self._filter.columns))
        file = self._files[group.path]
        place = f"row group {group.row_group}"
        with self._open_files.borrow(file, place, checksums=checksums) as opened:
            schema = opened.schema_arrow
            if not schema.equals(self._checked):  # the file may be another one by now
                check_schema(schema, file, self._expected, self._first, False)
                self._checked = schema
            if group.row_group >= opened.num_row_groups:
                raise SchemaError(
                    f"{group.origin}: the file now has {opened.num_row_groups:,} row groups. It "
                    "was written again since the source was made; make the source anew."
                )
            if checksums:
                _check_declared(file, opened, group.row_group, needed)
            for batch in _all_batches(file, opened, group.row_group, needed, self._block_rows):
                if self._filter is not None:
                    # Only what is wanted: a batch that waits keeps all its columns in memory.
                    batch = self._filter.passing(batch, group.origin).select(columns)
                if batch.num_rows:
                    yield batch

    def _scan(self, group: RowGroup, levels: dict[str, set[Any]]) -> RowGroup:
        """Count the rows of a row group that pass the filter and collect their levels."""
        n_rows = 0
        for batch in self._batches(group, list(levels)):
            n_rows += batch.num_rows
            for name, found in levels.items():
                column_levels(batch.column(name), name, found, group.origin)
        return replace(group, n_rows=n_rows)


def _schema(file: DataFile) -> pa.Schema:
    with OpenFiles().borrow(file) as opened:
        return opened.schema_arrow


def _rows_by_footer(file: DataFile) -> int:
    with OpenFiles().borrow(file) as opened:
        return int(opened.metadata.num_rows)


def _check_declared(file: DataFile, opened: OpenFile, number: int, names: list[str]) -> None:
    """Refuse pages that are not as announced, or too large, where a look at them is cheap."""
    if file.is_local:
        content = np.memmap(file.inner_path, np.uint8, "r")
        where = f"{file.path}, row group {number}"
        check_pages(content, opened.facts, number, names, where)


def _all_batches(
    file: DataFile, opened: OpenFile, number: int, names: list[str], block_rows: int
) -> Iterator[pa.RecordBatch]:
    """Those of a row group: Arrow passes over a page that it does not know in silence."""
    n_rows, found = opened.facts.group_rows[number], 0
    for batch in opened.iter_batches(
        batch_size=block_rows, row_groups=[number], columns=names, use_threads=False
    ):
        found += batch.num_rows
        yield batch
    if names and found != n_rows:
        raise CorruptFileError(
            f"{file.path}, row group {number}: the footer says that there are {n_rows:,} rows, and "
            f"there are {found:,}. {ADVICE}"
        )


def _read_through(file: DataFile, names: list[str]) -> None:
    """Read what will be read, to its end: with checksums, where there are any."""
    with OpenFiles().borrow(file) as opened:
        there = [name for name in names if name in opened.schema_arrow.names]
        for number in range(opened.num_row_groups):
            _check_declared(file, opened, number, there)
            for _ in _all_batches(file, opened, number, there, _SCAN_ROWS):
                pass


def _in_threads[In, Out](
    function: Callable[[In], Out], items: Sequence[In], n_threads: int
) -> Iterator[Out]:
    """Results in the order of the items."""
    if n_threads == 1 or len(items) == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _in_words(files: list[DataFile]) -> str:
    return files[0].path if len(files) == 1 else f"{len(files):,} files from {files[0].path} on"
