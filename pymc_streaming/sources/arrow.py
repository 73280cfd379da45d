"""Tables in Arrow IPC files: nothing to decode, so nothing to wait for."""

from __future__ import annotations

import itertools
import mmap
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import SEEK_END, FileIO
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from pymc_streaming.errors import ArgumentError, CorruptFileError, RowCountError, SchemaError
from pymc_streaming.sources.base import (
    SINGLE,
    Block,
    Fragment,
    IterableDataset,
    Rows,
    digest_of,
)
from pymc_streaming.sources.checksums import Checked, expected_checksum
from pymc_streaming.sources.columns import AUTO, ColumnPlan, Transform, canonical_type, described
from pymc_streaming.sources.declared import body_of, check_record_batch
from pymc_streaming.sources.files import DataFile, Paths
from pymc_streaming.sources.identity import digest_of_file
from pymc_streaming.sources.packed import PackedPlan, is_packed, refuse_other_packing
from pymc_streaming.sources.patience import patiently, reread
from pymc_streaming.sources.plan import (
    Categories,
    Columns,
    column_levels,
    missing_column,
    plan_columns,
)
from pymc_streaming.sources.reading import reading
from pymc_streaming.sources.table_files import TableFiles
from pymc_streaming.sources.verbatim import Stretch, signature

__all__ = ["ArrowSource", "IpcBatch", "arrow_source"]

# A block is about so large: memory stays flat however large a record batch is.
_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class IpcBatch(Fragment):
    """One record batch of one file.

    Parameters
    ----------
    path : str
        The file.
    number : int
        Number of the record batch in the file, from 0.
    """

    path: str
    number: int


def arrow_source(
    path: Paths,
    *,
    columns: Columns = None,
    categories: Categories = None,
    transform: Transform | None = None,
    pattern: str = "*.arrow",
    on_bad_file: str = "error",
) -> ArrowSource:
    """Read a table from Arrow IPC files, a record batch at a time.

    Uncompressed files of this format are laid out on disk as they are in memory, so there is
    nothing to decode; and a table that was shuffled with a `dtype` (see :func:`preshuffle`) has
    its rows side by side already: where that is PyTensor's ``floatX``, they are read straight to
    where the batches are.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        As for :func:`parquet_source`.
    columns, categories, transform
        As for :func:`parquet_source`. Rows that are stored side by side are one array of numbers
        already: `columns` may be a list, which selects among them, and there are no categories.
    pattern : str, default ``"*.arrow"``
        Which file names to read in a folder without a manifest. The default takes the ending in
        capitals too, and refuses a folder that has tables of another kind as well.
    on_bad_file : {"error", "skip"}, default "error"
        As for :func:`parquet_source`. The format has no checksums, but what `preshuffle` writes
        has.

    Returns
    -------
    ArrowSource

    Raises
    ------
    SourceError
        As for :func:`parquet_source`; `ManifestError` if the folder was shuffled and is not
        what its manifest says.

    Examples
    --------
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> from pymc_streaming import arrow_source, preshuffle
    >>> pq.write_table(pa.table({"x": [0.5, 1.5, 2.5], "y": [0, 1, 1]}), "table.parquet")
    >>> manifest = preshuffle(
    ...     "table.parquet", "shuffled", seed=0, format="arrow", dtype="float64", progressbar=False
    ... )
    >>> source = arrow_source("shuffled")
    >>> source.columns, next(source.read(source.fragments[0]))["batch"].shape
    (('x', 'y'), (3, 2))
    """
    return ArrowSource(
        path,
        columns=columns,
        categories=categories,
        transform=transform,
        pattern=pattern,
        on_bad_file=on_bad_file,
    )


class ArrowSource(IterableDataset):
    """A table in Arrow IPC files; made by :func:`arrow_source`.

    Attributes
    ----------
    categories : dict of str to tuple
        The levels of every categorical column.
    manifest : Manifest or None
        What the shuffle says that made the folder.
    """

    fragments: list[IpcBatch]

    def __init__(
        self,
        path: Paths,
        *,
        columns: Columns = None,
        categories: Categories = None,
        transform: Transform | None = None,
        pattern: str = "*.arrow",
        on_bad_file: str = "error",
    ) -> None:
        table = TableFiles(path, pattern, "arrow", on_bad_file)
        self.manifest = table.manifest
        self.is_shuffled = self.manifest is not None
        table.leave_out_damaged(_read_through, _rows)
        files, self.skipped = table.files, tuple(table.skipped)
        self._files = {file.path: file for file in files}
        schema = patiently(lambda: _schema(files[0]), is_local=files[0].is_local)
        packed = is_packed(schema)
        where = files[0].path
        plan: ColumnPlan | PackedPlan
        if packed:
            if categories not in (None, AUTO) or transform is not None:
                raise ArgumentError(
                    f"{where}: the rows are stored as one array of numbers, which has no "
                    "categories and takes no transform. Shuffle without dtype to use them."
                )
            plan, names = PackedPlan(schema, columns, where), schema.names  # type: ignore[arg-type]
        else:
            plan = plan_columns(schema, columns, categories, transform, where)
            names = plan.names
        self._names, self._schema = names, schema
        self._verified: set[IpcBatch] = set()
        self.fragments, found, nulls = self._survey(plan, every=columns is None)
        if not self.fragments:
            raise RowCountError(f"{where}: there are no rows, expected at least one.")
        if isinstance(plan, ColumnPlan):
            plan = plan.completed(levels=found, nullable=nulls if transform is not None else ())
            if transform is not None:
                batch = next(self._batches(self.fragments[0]))
                plan = plan.probed(batch, self.fragments[0].origin)
        self._plan = plan
        self.layout = plan.layout
        self._verbatim = self._find_verbatim()
        self.is_quick = len(self._verbatim) == len(self.fragments)
        self.categories = plan.categories if isinstance(plan, ColumnPlan) else {}
        table.warn_of_skipped(sum(fragment.n_rows or 0 for fragment in self.fragments))

    def __repr__(self) -> str:
        return (
            f"<ArrowSource: {self.n_rows:,} rows in {len(self.fragments):,} record batches; "
            f"{described(self.layout)}>"
        )

    @property
    def fingerprint(self) -> str:
        """By the manifest, if there is one, else by a sample of the bytes of each file."""
        samples = [digest_of_file(file) for file in self._files.values()]
        shards = self.manifest.shards if self.manifest else samples
        return digest_of([*shards, self.categories, super().fingerprint])

    def read(self, fragment: Fragment) -> Iterator[Block]:
        """Yield the rows of one record batch in blocks of about 8 MiB."""
        for rows in self.rows(fragment):
            yield rows.block(self.layout)

    def rows(self, fragment: Fragment) -> Iterator[Rows]:
        """The same, before they are anywhere but in the file."""
        assert isinstance(fragment, IpcBatch)
        stretch = self._verbatim.get(fragment)
        if stretch is not None:
            with _opened(self._files[fragment.path]) as file:
                if signature(file) == stretch.signature:
                    yield from stretch.rows(file)
                    return
        is_local = self._files[fragment.path].is_local
        yield from reread(lambda: self._decoded(fragment), is_local=is_local)

    def _decoded(self, fragment: IpcBatch) -> Iterator[Rows]:
        for batch in self._batches(fragment):
            yield from self._plan.rows(batch, fragment.origin)

    def _survey(
        self, plan: ColumnPlan | PackedPlan, every: bool
    ) -> tuple[list[IpcBatch], dict[str, set[Any]], set[str]]:
        """The record batches, levels of categories, and the columns that hold a null."""
        auto = plan.auto if isinstance(plan, ColumnPlan) else []
        levels: dict[str, set[Any]] = {name: set() for name in auto}
        fragments: list[IpcBatch] = []
        nulls: set[str] = set()
        for file in self._files.values():
            look = partial(self._look_at, file, every, levels)
            found = patiently(look, is_local=file.is_local)
            fragments += found[0]
            nulls |= found[1]
        return fragments, levels, nulls

    def _look_at(
        self, file: DataFile, every: bool, levels: dict[str, set[Any]]
    ) -> tuple[list[IpcBatch], set[str]]:
        """Those of one file; levels are added to `levels`."""
        fragments, nulls = [], set()
        with _parsed(file) as opened:
            if opened.num_record_batches:
                self._check_schema(opened.schema, file.path, every)
            for number in range(opened.num_record_batches):
                batch = self._batch(opened, number, file.path, full=bool(levels))
                origin = f"{file.label}, record batch {number}"
                if batch.num_rows:
                    fragments.append(IpcBatch(batch.num_rows, origin, file.path, number))
                nulls |= {name for name in self._names if batch.column(name).null_count}
                for name, seen in levels.items():
                    column_levels(batch.column(name), name, seen, origin)
        return fragments, nulls

    def _find_verbatim(self) -> dict[IpcBatch, Stretch]:
        """Where the rows are that a file on this machine holds as the layout wants them."""
        plan = self._plan
        found: dict[IpcBatch, Stretch] = {}
        if not (isinstance(plan, PackedPlan) and plan.is_verbatim):
            return found
        for path, fragments in itertools.groupby(self.fragments, attrgetter("path")):
            if not self._files[path].is_local:
                continue
            with _opened(self._files[path]) as file, reading(path):
                mapped = _mapped(file, path)
                opened = _Checked(pa.ipc.open_file(mapped), mapped, path)
                for fragment in fragments:
                    batch = self._batch(opened, fragment.number, path)
                    rows = plan.block(batch, fragment.origin)[SINGLE]
                    offset = rows.ctypes.data - mapped.address
                    if 0 <= offset < mapped.size:  # not compressed
                        found[fragment] = Stretch(
                            path,
                            offset,
                            rows,
                            signature(file),
                            opened.expected_checksum(fragment.number),
                            f"{path}, record batch {fragment.number}",
                        )
        return found

    def _batches(self, fragment: IpcBatch) -> Iterator[pa.RecordBatch]:
        with _parsed(self._files[fragment.path]) as opened:
            if fragment.number >= opened.num_record_batches:
                raise SchemaError(
                    f"{fragment.origin}: the file now has {opened.num_record_batches:,} record "
                    "batches. It was written again since the source was made; make the source anew."
                )
            self._check_schema(opened.schema, fragment.path)  # it may be another file by now
            first = fragment not in self._verified
            batch = self._batch(opened, fragment.number, fragment.path, checksum=first)
            self._verified.add(fragment)
            rows = max(1, int(_BLOCK_BYTES / max(1, batch.nbytes) * batch.num_rows))
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)

    def _batch(
        self, opened: Any, number: int, path: str, *, full: bool = True, checksum: bool = False
    ) -> pa.RecordBatch:
        with reading(f"{path}, record batch {number}"):
            batch = opened.get_batch(number, self._names, checksum=checksum)
            # Arrow follows any offset; `full` looks at each of them.
            batch.validate(full=full)
            return batch

    def _check_schema(self, schema: pa.Schema, path: str, every_column: bool = False) -> None:
        first, there = next(iter(self._files)), Counter(schema.names)
        for name in self._names:
            if not there[name]:
                raise SchemaError(missing_column(name, list(there), path) + f" It is in {first}.")
            if there[name] > 1:
                raise SchemaError(f"{path}: column {name!r} is there more than once.")
            found, kind = (canonical_type(s.field(name).type) for s in (schema, self._schema))
            if found != kind:
                raise SchemaError(
                    f"{path}: column {name!r} has type {found}, but {kind} in {first}. Write all "
                    "files with the same types, or read them as separate sources."
                )
        extra = sorted(there.keys() - set(self._names))
        if every_column and extra:
            raise SchemaError(
                f"{path}: column {extra[0]!r} is not in {first}. Select the columns you want with "
                "`columns`."
            )
        refuse_other_packing(schema, self._schema, path, first)


def _schema(file: DataFile) -> pa.Schema:
    with _parsed(file) as opened:
        schema = opened.schema
        _ = schema.names  # which may be no text
        return schema


def _rows(file: DataFile) -> int:
    with _parsed(file) as opened:
        names = opened.schema.names
        return sum(opened.get_batch(i, names).num_rows for i in range(opened.num_record_batches))


def _read_through(file: DataFile) -> None:
    with _parsed(file) as opened:
        for number in range(opened.num_record_batches):
            with reading(f"{file.path}, record batch {number}"):
                batch = opened.get_batch(number, opened.schema.names, checksum=True)
                batch.validate(full=True)


class _Fetched:
    """A file far away of which only the columns are fetched that are wanted."""

    def __init__(self, opened: Any) -> None:
        self._opened, self._whole = opened, pa.ipc.open_file(opened)
        self.schema, self.num_record_batches = self._whole.schema, self._whole.num_record_batches
        self._columns: tuple[list[str], Any] | None = None

    def get_batch(
        self,
        number: int,
        names: list[str],
        *,
        checksum: bool = False,  # noqa: ARG002 - it is of more than is fetched
    ) -> pa.RecordBatch:
        if self._columns is None or self._columns[0] != names:
            fields = [self.schema.get_field_index(name) for name in names]
            options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
            self._columns = names, pa.ipc.open_file(self._opened, options=options)
        return self._columns[1].get_batch(number).select(names)


class _Checked:
    """A file on this machine whose record batches are looked at before they are decompressed."""

    def __init__(self, opened: Any, content: pa.Buffer, path: str) -> None:
        self._opened, self._content, self._path = opened, content, path
        self.schema, self.num_record_batches = opened.schema, opened.num_record_batches

    def get_batch(self, number: int, names: list[str], *, checksum: bool = False) -> pa.RecordBatch:
        where = f"{self._path}, record batch {number}"
        with memoryview(self._content) as content:
            check_record_batch(content, number, where)
            batch, metadata = self._opened.get_batch_with_custom_metadata(number)
            if checksum:
                checked = Checked(expected_checksum(metadata), where)
                checked.add(body_of(content, number))
                checked.check()
        return batch.select(names)

    def expected_checksum(self, number: int) -> str | None:
        return expected_checksum(self._opened.get_batch_with_custom_metadata(number)[1])


@contextmanager
def _opened(file: DataFile) -> Iterator[FileIO]:
    with reading(file.path), Path(file.inner_path).open("rb", buffering=0) as opened:
        yield opened


@contextmanager
def _parsed(file: DataFile) -> Iterator[Any]:
    with reading(file.path):
        file.check_unchanged()
    if file.is_local:
        with _opened(file) as opened, reading(file.path):
            mapped = _mapped(opened, file.path)
            yield _Checked(pa.ipc.open_file(mapped), mapped, file.path)
    else:
        with reading(file.path), file.filesystem.open_input_file(file.inner_path) as opened:
            yield _Fetched(opened)


def _mapped(opened: FileIO, path: str) -> pa.Buffer:
    if not opened.seek(0, SEEK_END):  # which cannot be mapped
        raise CorruptFileError(f"{path}: this file is empty. Write or download it again.")
    return pa.py_buffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
