"""The exact shuffle on disk, in two passes and bounded memory."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.filesize import decimal

from pymc_streaming.arguments import one_of, parse_bytes, whole_number
from pymc_streaming.errors import ArgumentError, OutputError, SchemaError
from pymc_streaming.shuffling.inputs import (
    InputTable,
    Piece,
    has_fixed_width,
    memory_of,
    modified_now,
    open_table,
)
from pymc_streaming.shuffling.keys import KeyCells, row_keys
from pymc_streaming.shuffling.packing import Packing
from pymc_streaming.shuffling.progress import ShuffleProgress
from pymc_streaming.shuffling.schemas import columns_with_nulls, has_empty_lists
from pymc_streaming.shuffling.scratch import Partition, as_one_batch, sorted_ranges
from pymc_streaming.shuffling.shards import new_writer, read_schema, write_shard
from pymc_streaming.shuffling.workspace import Workspace, check_room, open_workspace, shard_name
from pymc_streaming.sources.columns import counted
from pymc_streaming.sources.files import Paths, would_find
from pymc_streaming.sources.manifest import Manifest, Shard
from pymc_streaming.sources.packed import is_packed

__all__ = ["preshuffle"]

logger = logging.getLogger(__name__)

_FORMATS = ("parquet", "arrow")

# Defaults of the result: functions of the table alone.
_FRAGMENT_BYTES, _MOST_FRAGMENT_ROWS, _LEAST_FRAGMENT_ROWS = 8 * 2**20, 131_072, 256
# Of wide rows there are fewer than the least in a fragment, as many as take so much.
_MOST_FRAGMENT_BYTES = 16 * 2**20
# A reader of Parquet begins anew on each column of a row group, which takes longer than to decode
# few values: where there are many columns, a row group is as large as that many such pieces.
_COLUMN_BYTES, _MOST_ROW_GROUP_BYTES = 128 * 2**10, 32 * 2**20
_SHARD_BYTES, _MOST_DEFAULT_SHARDS, _MOST_SHARDS = 64 * 2**20, 256, 4096

# How the work is cut up. A worker with less memory would spend its time on the seams.
_LEAST_WORKER_BYTES = 24 * 2**20
_LEAST_RUN_BYTES, _RUNS = 12 * 2**20, 64
# A batch of strings or lists counts what it holds in 32 bits.
_MOST_RUN_BYTES = 2**30
# Rows are put in order several times as fast where they fit in the cache of the processor.
_CACHED_BYTES = 8 * 2**20
# What a run has of a cell is read in one go: the larger, the fewer; and at least so much.
_GOOD_PIECE_BYTES, _LEAST_PIECE_BYTES = 128 * 2**10, 16 * 2**10
_MOST_CELLS = 4096
_KEY_BYTES = 8


def preshuffle(
    source: Paths,
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    memory_limit: int | str = "512MB",
    format: str = "parquet",  # noqa: A002 - the usual word
    columns: Sequence[str] | None = None,
    dtype: Any = None,
    rows_per_fragment: int | None = None,
    shards: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progressbar: bool = True,
) -> Manifest:
    """Put the rows of a table in uniformly random order, on disk, once.

    Every order of the rows is equally likely, and which one it is depends on `seed` and the rows
    of the table alone: not on the memory limit, the number of workers, or interruptions.

    Parameters
    ----------
    source : str, os.PathLike, or a list of them
        Parquet files, as for :func:`parquet_source`: a file, a folder, a glob, a URL or a list.
        Or Feather (Arrow IPC) or CSV files, found by the ends of their names; a folder must have
        files of one kind. CSV files are read once beforehand, for types that keep every value: a
        column with ``00012`` or a whole number of more than 64 bits is text. A folder that was
        shuffled before is held against its manifest.
    output : str or os.PathLike
        Local folder to write. It must not exist, unless it is empty.
    seed : int, default 0
        Seed of the order.
    memory_limit : int or str, default "512MB"
        Memory for rows, as bytes or in words. The process takes up to 250 MB beside it.
    format : {"parquet", "arrow"}, default "parquet"
        Parquet compressed with LZ4, which is fast to read, or uncompressed Arrow IPC files, which
        are larger and read without decoding (:func:`arrow_source`).
    columns : sequence of str, optional
        Columns to keep, in this order. Default: all.
    dtype : {"float32", "float64"}, optional
        Convert all columns to this type, which must be possible: numbers, booleans, dates and
        times, without null or NaN. Whole numbers, and times in seconds since 1970, that the type
        cannot tell apart (from ±2**24 on in ``"float32"``, ±2**53 in ``"float64"``) are refused;
        floats are rounded to it, those nearer to 0 than 1e-45 to 0 in ``"float32"``. In the Arrow
        format they are then stored side by side, a row after the other, as training reads them.
        Default: columns are kept as they are.
    rows_per_fragment : int, optional
        Rows of a row group or record batch. Default: about 8 MiB of memory, in Parquet with many
        columns up to 32 MiB, at most 131,072 rows; of wide rows 256, or as many as take 16 MiB.
        Each worker holds a fragment whole, and a copy of it, whatever `memory_limit` says.
    shards : int, optional
        Number of files. They hold about equally many rows, not exactly: where a row goes is
        random. Default: one for about every 64 MiB of memory the table would take, at most 256.
    workers : int, optional
        Threads. Default: one a processor, or fewer if there is not memory for so many.
    overwrite : bool, default False
        Replace a folder that was shuffled before. Anything else is never replaced.
    progressbar : bool, default True
        Show progress, where there is a terminal.

    Returns
    -------
    Manifest
        What was written; also in the folder, as ``_manifest.json``.

    Raises
    ------
    ArgumentError
        If an argument cannot be meant.
    OutputExistsError
        If there is something at `output` already, or another process is writing it.
    DiskSpaceError
        If the disk is full, or has less room than will be needed.
    SourceError
        If the table cannot be read: a file is missing or damaged, has other columns than the
        rest, or a column cannot be written in the format, or converted to `dtype`.

    Notes
    -----
    A row's key is a 64-bit random number, a function of the seed and the row's number; the result
    is the table sorted by key (Rao 1961; Sandelius 1962). The first pass divides the rows by
    ranges of their keys, the second sorts one range after the other. A range that does not fit in
    memory is divided again. Between the passes the rows are on disk uncompressed, beside the
    output; as shards are written, the rows they came from are removed.

    When it is stopped, at any moment and in whatever way, the output is absent or complete. What
    was finished stays in a hidden folder beside it, and the same call goes on there; after an error
    of the table, which the same call would meet again, nothing stays.

    References
    ----------
    Rao, C. R. (1961). Generation of random permutations of given number of elements using random
    sampling numbers. *Sankhyā A* 23, 305-307.

    Sandelius, M. (1962). A simple randomization procedure. *Journal of the Royal Statistical
    Society B* 24, 472-481.

    Examples
    --------
    >>> import numpy as np, pyarrow as pa, pyarrow.parquet as pq
    >>> from pymc_streaming import parquet_source, preshuffle
    >>> pq.write_table(pa.table({"day": np.repeat(np.arange(5.0), 200)}), "by-day.parquet")
    >>> manifest = preshuffle("by-day.parquet", "shuffled", seed=0, progressbar=False)
    >>> manifest.n_rows, [shard.file for shard in manifest.shards]
    (1000, ['part-00000.parquet'])
    >>> source = parquet_source("shuffled")
    >>> source.is_shuffled, source.n_rows
    (True, 1000)
    """
    seed = whole_number("seed", seed, least=0)
    limit = parse_bytes("memory_limit", memory_limit)
    if limit < _LEAST_WORKER_BYTES:
        raise ArgumentError(
            f"memory_limit must be at least {_LEAST_WORKER_BYTES // 2**20} MiB, found "
            f"{memory_limit!r}."
        )
    one_of("format", format, _FORMATS)
    if shards is not None:
        shards = whole_number("shards", shards)
        if shards > _MOST_SHARDS:
            raise ArgumentError(f"shards can be {_MOST_SHARDS:,} at most, found {shards:,}.")
    if rows_per_fragment is not None:
        rows_per_fragment = whole_number("rows_per_fragment", rows_per_fragment)
    threads = _workers(workers, limit)
    place = _output(output)

    with open_workspace(place, overwrite) as workspace:
        table = open_table(source, columns)
        _refuse_overlap(table, source, place / f"{shard_name(0)}.{format}")
        shuffle = _Shuffle(table, workspace, seed, format, dtype, rows_per_fragment, shards)
        shuffle.begin(_means(shuffle, limit // threads), limit)
        threads = min(threads, limit // shuffle.worker_bytes)
        with ShuffleProgress(table.n_rows, enabled=progressbar) as progress:
            sizes = shuffle.divide(threads, progress)
            written = shuffle.write(sizes, threads, progress)
        manifest = shuffle.manifest(written)
        manifest.write(workspace.shards)
        workspace.deliver()
    return manifest


def _workers(workers: int | None, limit: int) -> int:
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    return max(1, min(whole_number("workers", workers), limit // _LEAST_WORKER_BYTES))


def _output(output: object) -> Path:
    text = os.fspath(output) if isinstance(output, str | os.PathLike) else None
    if not isinstance(text, str):
        raise ArgumentError(f"output must be a path, found {output!r}.")
    if "://" in text:
        raise ArgumentError(
            f"output must be a local folder, found {text!r}. Shuffle to a local folder, then copy "
            "it."
        )
    # The work is done beside the folder a link leads to: the result is moved there, not copied.
    try:
        place = Path(text).expanduser().resolve()
    except ValueError as error:
        raise ArgumentError(
            f"output must be a path that the system can have, found {text!r}: {error}."
        ) from error
    except RuntimeError as error:
        raise ArgumentError(
            f"output must be a path, found {text!r}: there is no such user. (For a folder of that "
            "name write './~...'.)"
        ) from error
    if not place.name:
        raise ArgumentError(f"output must be a folder with a name, found {text!r}.")
    return place


def _refuse_overlap(table: InputTable, source: Paths, shard: Path) -> None:
    output = shard.parent
    for file in table.files:
        if file.is_local and Path(file.inner_path).resolve().is_relative_to(output):
            raise ArgumentError(
                f"{output}: the output is the folder that is read, or one above it ({file.path} is "
                "in it). Choose another output."
            )
    if would_find(source, shard):
        raise ArgumentError(
            f"{output}: the output is in the folder that is read, so the next one to read that "
            "would find every row twice. Choose an output beside it."
        )


@dataclass(frozen=True, slots=True)
class _Means:
    """How the work is cut up; nothing here shows in the result."""

    worker_bytes: int
    run_bytes: int
    range_bytes: int
    cells_per_shard: int


def _means(shuffle: _Shuffle, share: int) -> _Means:
    total = shuffle.memory
    range_bytes = min(share // 4, _MOST_RUN_BYTES)
    # A run is there three times while it is divided: as read, in one piece, and in order.
    run_bytes = min(share // 6, _MOST_RUN_BYTES, max(_LEAST_RUN_BYTES, total // _RUNS))
    wanted = min(total // _CACHED_BYTES, run_bytes // _GOOD_PIECE_BYTES)
    needed = min(int(1.25 * total / range_bytes), run_bytes // _LEAST_PIECE_BYTES)
    cells = min(max(wanted, needed), _MOST_CELLS)
    return _Means(share, run_bytes, range_bytes, max(1, round(cells / shuffle.shards)))


class _Shuffle:
    """One table on its way to one output.

    Parameters
    ----------
    table : InputTable
        What to shuffle.
    workspace : Workspace
        Where.
    seed, format, dtype, rows_per_fragment, shards
        As for `preshuffle`.
    """

    def __init__(
        self,
        table: InputTable,
        workspace: Workspace,
        seed: int,
        format: str,  # noqa: A002
        dtype: Any,
        rows_per_fragment: int | None,
        shards: int | None,
    ) -> None:
        self._table, self._workspace = table, workspace
        self._seed, self._format = seed, format
        self._convert: Packing | None = None
        self._dtype = None if dtype is None else str(dtype)
        self._schema, row_bytes = table.stored, table.row_bytes
        if is_packed(table.stored) and (format != "arrow" or dtype is not None):
            raise ArgumentError(
                f"{table.files[0].path}: a shuffle with dtype stored these rows side by side. "
                "Shuffle the table that they were made of, or these with format='arrow' (--format "
                "arrow) and without dtype (--dtype)."
            )
        if dtype is not None:
            where = table.files[0].path
            self._convert = Packing(table.stored, dtype, format == "arrow", where)
            self._schema = self._convert.schema
            row_bytes = float(np.dtype(dtype).itemsize * len(table.stored))
        _refuse_unwritable(self._schema, format, table.files[0].path)
        self.memory = int(table.n_rows * row_bytes)
        self._asked_rows, self._row_bytes = rows_per_fragment, row_bytes
        self.shards = shards or _shard_count(self.memory)
        self._stop = threading.Event()

    @property
    def worker_bytes(self) -> int:
        """Memory of a worker, once the work has begun."""
        return self._means.worker_bytes

    def begin(self, means: _Means, limit: int) -> None:
        """Take up what an interrupted shuffle has left, or begin."""
        self._fingerprint = self._table.fingerprint()
        task = {
            "files": [file.path for file in self._table.files],
            "fingerprint": self._fingerprint,
            "modified": self._table.modified,
            "schema": self._schema.to_string(show_schema_metadata=True),
            "seed": self._seed,
            "format": self._format,
            "rows_per_fragment": self._asked_rows,
            "shards": self.shards,
            "dtype": self._dtype,
            "versions": [version("pymc-streaming"), pa.__version__],
        }
        self._means = _Means(**self._workspace.adopt(task, asdict(means), limit))
        if self._workspace.continued:
            logger.info(
                "Going on with an interrupted shuffle: %.0f %% is done.", 100 * self._done()
            )
        cells = KeyCells(shards=self.shards, per_shard=self._means.cells_per_shard)
        self._partition = Partition(self._workspace.runs, cells)
        # While shards are written the rows they came from are removed, a group at a time.
        needed = int(1.2 * (self.memory + self._table.n_rows * _KEY_BYTES))
        there = self._workspace.size()
        logger.info(
            "Shuffling %s into %s; needs about %s of disk in %s.",
            counted(self._table.n_rows, "row"),
            counted(self.shards, "shard"),
            decimal(needed),
            self._workspace.folder,
        )
        check_room(self._workspace.folder, needed - there)

    def _done(self) -> float:
        """Which part of the two passes is finished."""
        n_rows = 0
        for number, units in enumerate(self._tasks()):
            if self._workspace.read(_task_name(number)) is not None:
                n_rows += sum(piece.n_rows for unit in units for piece in unit)
        shards = map(self._workspace.written, range(self.shards))
        n_rows += sum(shard.rows for shard in shards if shard is not None)
        return n_rows / max(1, 2 * self._table.n_rows)

    def divide(self, threads: int, progress: ShuffleProgress) -> np.ndarray:
        """The first pass: rows and bytes of every cell."""
        tasks = list(enumerate(self._tasks()))
        sizes, n_bytes = np.zeros((len(self._partition.cells), 2), np.int64), 0
        nullable: set[str] = set()
        adding = threading.Lock()

        def divide(task: tuple[int, list[list[Piece]]]) -> None:
            nonlocal n_bytes
            number, units = task
            name = _task_name(number)
            found = self._workspace.read(name)
            if found is None or self._has_lost(found["files"]):
                found = self._divide(name, units)
                self._workspace.write(name, found)
            with adding:  # not later: the sizes of all tasks would pile up
                sizes[:] += np.array(found["sizes"])
                n_bytes += found["bytes"]
                nullable.update(found["nullable"])
            progress.divided(sum(piece.n_rows for unit in units for piece in unit))

        for _ in self._in_threads(divide, tasks, threads):
            pass
        fingerprint, modified = self._table.fingerprint(), modified_now(self._table.files)
        if (fingerprint, modified) != (self._fingerprint, self._table.modified):
            raise SchemaError(
                f"{self._table.files[0].path}: files were changed while they were read. Run the "
                "shuffle again when nobody writes them."
            )
        if self._convert is None and not has_fixed_width(self._schema):
            # What was sampled may have been short: rows that are sorted often begin so.
            self._row_bytes = n_bytes / max(1, self._table.n_rows)
        # Without a note for every value of whether it is there, a column is decoded faster.
        fields = [field.with_nullable(field.name in nullable) for field in self._schema]
        self._schema = pa.schema(fields, self._schema.metadata)
        return sizes

    def _has_lost(self, files: dict[str, int]) -> bool:
        """Whether files of a finished task are needed and not what they were."""
        for name, size in files.items():
            path = self._workspace.runs / name
            if path.is_file() and path.stat().st_size == size:
                continue
            shards = self._partition.shards_of(self._partition.group_in(path))
            if not all(self._workspace.written(shard) for shard in shards):
                return True
        return False

    def _tasks(self) -> Iterator[list[list[Piece]]]:
        """Units of reading, as many together as fill a run."""
        task: list[list[Piece]] = []
        rows = 0
        row_bytes = self.memory / max(1, self._table.n_rows)
        for unit in self._table.units():
            task.append(unit)
            rows += sum(piece.n_rows for piece in unit)
            if rows * row_bytes >= self._means.run_bytes:
                yield task
                task, rows = [], 0
        if task:
            yield task

    def _divide(self, name: str, units: list[list[Piece]]) -> dict[str, Any]:
        for leftover in self._partition.files(f"{name}-"):
            leftover.unlink()
        sizes = np.zeros((len(self._partition.cells), 2), np.int64)
        held: list[pa.RecordBatch] = []
        start, runs, held_bytes, n_bytes, where = units[0][0].start, 0, 0, 0, ""
        nullable: set[str] = set()

        def flush() -> None:
            nonlocal start, runs, sizes, held_bytes
            try:
                batch = as_one_batch(held) if len(held) > 1 else held[0]
            except pa.ArrowException as error:
                raise SchemaError(
                    f"{where}: these rows cannot be put together with those before: {error}. Write "
                    "the column with another type, or leave it out with `columns`."
                ) from error
            held.clear()
            keys = row_keys(self._seed, start, batch.num_rows)
            sizes += self._partition.write(f"{name}-{runs:06d}", batch, keys)
            start, runs, held_bytes = start + batch.num_rows, runs + 1, 0

        for unit in units:
            with closing(self._table.read(unit)) as rows:
                for batch, where in rows:
                    self._check_stop()
                    held.append(self._convert(batch, where) if self._convert else batch)
                    nullable |= columns_with_nulls(batch)
                    n_bytes += memory_of(held[-1])  # by batches, which the table alone cuts
                    held_bytes += memory_of(held[-1])
                    if held_bytes >= self._means.run_bytes:
                        flush()
        if held:
            flush()
        files = {
            str(path.relative_to(self._workspace.runs)): path.stat().st_size
            for path in self._partition.files(f"{name}-")
        }
        return {
            "sizes": sizes.tolist(),
            "bytes": n_bytes,
            "nullable": sorted(nullable),
            "files": files,
        }

    @property
    def rows_per_fragment(self) -> int:
        """Rows of a fragment of the result, once all rows have been seen."""
        n_columns = len(self._schema) if self._format == "parquet" else 1
        return self._asked_rows or _fragment_rows(self._row_bytes, n_columns)

    def write(self, sizes: np.ndarray, threads: int, progress: ShuffleProgress) -> list[Shard]:
        """The second pass: all shards."""
        unwritten = Counter(self._partition.group_of(shard) for shard in range(self.shards))
        counting = threading.Lock()

        def write(number: int) -> Shard:
            shard = self._workspace.written(number)
            if shard is None:
                name = shard_name(number)
                path = self._workspace.shards / f"{name}.{self._format}"
                ranges = sorted_ranges(
                    self._partition,
                    number,
                    sizes,
                    self._means.range_bytes,
                    self._means.run_bytes,
                )
                with _writing(path):
                    shard = write_shard(
                        path,
                        self._until_stopped(ranges),
                        self._schema,
                        self._format,
                        self.rows_per_fragment,
                    )
                self._workspace.write(name, asdict(shard))
            progress.written(shard.rows)
            group = self._partition.group_of(number)
            with counting:
                unwritten[group] -= 1
                if not unwritten[group]:
                    self._partition.remove(group)
            return shard

        shards = self._in_threads(write, range(self.shards), threads)
        return sorted(shards, key=lambda shard: shard.file)

    def manifest(self, shards: list[Shard]) -> Manifest:
        """What was written, once all shards are."""
        n_rows = sum(shard.rows for shard in shards)
        if n_rows != self._table.n_rows:
            self._workspace.clear()
            raise OutputError(
                f"{self._workspace.folder}: expected {self._table.n_rows:,} rows in the shards, "
                f"found {n_rows:,}. Files were removed or changed here while the shuffle worked. "
                "Run it again; it begins anew."
            )
        stored = read_schema(self._workspace.shards / shards[0].file)
        return Manifest(
            format=self._format,
            seed=self._seed,
            n_rows=n_rows,
            columns={field.name: str(field.type) for field in stored},
            rows_per_fragment=self.rows_per_fragment,
            source=[file.path for file in self._table.files],
            source_rows=self._table.n_rows,
            source_fingerprint=self._fingerprint,
            shards=tuple(shards),
            version=version("pymc-streaming"),
        )

    def _in_threads[In, Out](
        self, function: Callable[[In], Out], items: Iterable[In], threads: int
    ) -> Iterator[Out]:
        """Results in any order; the first error, or an interruption, stops all threads."""
        with ThreadPoolExecutor(threads, "pymc-streaming-shuffle") as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _until_stopped[Item](self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            self._check_stop()
            yield item

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Stopped


class _Stopped(Exception):
    """Another thread failed; its error is the one to show."""


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise SchemaError(
            f"{path}: these rows cannot be written: {error}. Write the column with another type, "
            "or leave it out with `columns`."
        ) from error


def _refuse_unwritable(schema: pa.Schema, format: str, where: str) -> None:  # noqa: A002
    """Write no rows of each column, rather than find out after the first pass."""
    for field in schema:
        one = pa.schema([field])
        try:
            batch = pa.RecordBatch.from_arrays([pa.nulls(0, field.type)], schema=one)
            batch.take(pa.array([], pa.uint32()))
            with new_writer(pa.BufferOutputStream(), one, format) as writer:
                writer.write_batch(batch)
            if format == "parquet" and has_empty_lists(field.type):
                raise pa.ArrowInvalid("lists of length 0 are written so that none can read them")
        except pa.ArrowException as error:
            raise SchemaError(
                f"{where}: column {field.name!r} of type {field.type} cannot be shuffled into "
                f"{format} files: {error}. Write it with another type, or leave it out with "
                "`columns`."
            ) from error


def _task_name(number: int) -> str:
    return f"task-{number:06d}"


def _fragment_rows(row_bytes: float, n_columns: int) -> int:
    row_bytes = max(1.0, row_bytes)
    wanted = min(max(_FRAGMENT_BYTES, n_columns * _COLUMN_BYTES), _MOST_ROW_GROUP_BYTES)
    rows = 1 << (max(1, int(wanted / row_bytes)).bit_length() - 1)
    least = max(1, min(_LEAST_FRAGMENT_ROWS, int(_MOST_FRAGMENT_BYTES / row_bytes)))
    return max(least, min(rows, _MOST_FRAGMENT_ROWS))


def _shard_count(memory: int) -> int:
    power = round(math.log2(max(1, memory) / _SHARD_BYTES))
    return min(1 << max(0, power), _MOST_DEFAULT_SHARDS)
