"""Rows on disk, divided by their keys: the first pass writes them, the second reads a range."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.shuffling.inputs import has_fixed_width, memory_of
from pymc_streaming.shuffling.keys import KeyCells, sorting_order

__all__ = ["Partition", "as_one_batch", "sorted_ranges", "take"]

# Files of a run: more would free the disk sooner, and be smaller.
_MOST_GROUPS = 16

# Files of a reader that stay open; the system allows a process only so many.
_MOST_OPEN = 128
# Small pieces are collected before they are written.
_WRITE_BYTES = 2**18

# Name of the column with the keys; the last, so that no name of the table can clash with it.
_KEY = pa.field("key", pa.uint64(), nullable=False)


class Partition:
    """Rows in files of divided runs; a run is as many consecutive rows as fit in memory.

    A run has a file for every group of shards, so that those of a group can be removed when its
    shards are written, and a file has a record batch for every cell. The runs in the order of
    their names have the rows in the order of the table.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files are; made if it is not there.
    cells : KeyCells
        How keys are divided.
    """

    def __init__(self, folder: Path, cells: KeyCells) -> None:
        self.folder, self.cells = folder, cells
        folder.mkdir(exist_ok=True)
        self._groups = min(cells.shards, _MOST_GROUPS)

    def group_of(self, shard: int) -> int:
        """The group of a shard."""
        return shard * self._groups // self.cells.shards

    def group_in(self, path: Path) -> int:
        """The group that a file of a run belongs to."""
        return int(path.parent.name.removeprefix("group-"))

    def shards_of(self, group: int) -> list[int]:
        """The shards of a group."""
        return [shard for shard in range(self.cells.shards) if self.group_of(shard) == group]

    def write(self, name: str, batch: pa.RecordBatch, keys: np.ndarray) -> np.ndarray:
        """Write a run.

        Returns
        -------
        ndarray of int64, shape (number of cells, 2)
            Rows and bytes that went into each cell.
        """
        numbers = self.cells.numbers(keys)
        counts = np.bincount(numbers, minlength=len(self.cells))
        starts = np.cumsum(counts) - counts
        order = np.argsort(numbers, kind="stable").astype(np.uint32)
        rows = take(batch, order)
        row_bytes = memory_of(rows) / max(1, rows.num_rows)
        fixed = has_fixed_width(batch.schema)
        schema = batch.schema.append(_KEY)
        divided = pa.RecordBatch.from_arrays(
            [*rows.columns, pa.array(np.take(keys, order))], schema=schema
        )
        sizes = np.zeros((len(self.cells), 2), np.int64)
        for group in range(self._groups):
            path = self._folder(group) / f"{name}.arrow"
            path.parent.mkdir(exist_ok=True)
            with (
                pa.output_stream(str(path), buffer_size=_WRITE_BYTES) as sink,
                pa.ipc.new_file(sink, schema) as writer,
            ):
                for shard in self.shards_of(group):
                    for cell in self.cells.of_shard(shard):
                        rows = divided.slice(starts[cell], counts[cell])
                        n_bytes = counts[cell] * row_bytes if fixed else memory_of(rows)
                        sizes[cell] = counts[cell], n_bytes
                        writer.write_batch(rows)
        return sizes

    @contextmanager
    def opened(self, shard: int) -> Iterator[Callable[[int], Iterator[pa.RecordBatch]]]:
        """A function that reads a cell of a shard: its rows with their keys, run after run."""
        group = self.group_of(shard)
        first = self.cells.of_shard(self.shards_of(group)[0]).start
        paths = sorted(self._folder(group).glob("*.arrow"))  # none if the table has no rows
        with ExitStack() as stack:

            def open_run(path: Path) -> pa.ipc.RecordBatchFileReader:
                # Not a map: what was read of one counts as memory for as long as it is open.
                return pa.ipc.open_file(stack.enter_context(pa.OSFile(str(path))))

            kept = [open_run(path) for path in paths] if len(paths) <= _MOST_OPEN else None

            def read(cell: int) -> Iterator[pa.RecordBatch]:
                for place, path in enumerate(paths):
                    run = kept[place] if kept is not None else open_run(path)
                    yield run.get_batch(cell - first)
                    if kept is None:
                        stack.close()

            yield read

    def files(self, name: str = "") -> list[Path]:
        """All files of the runs whose names begin with `name`."""
        return sorted(self.folder.glob(f"group-*/{name}*.arrow"))

    def remove(self, group: int) -> None:
        """Remove the rows of a group of shards."""
        shutil.rmtree(self._folder(group), ignore_errors=True)

    def _folder(self, group: int) -> Path:
        return self.folder / f"group-{group:02d}"


def as_one_batch(batches: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches one after the other, in memory of their own."""
    table = pa.Table.from_batches(list(batches)).unify_dictionaries().combine_chunks()
    (batch,) = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return batch


def take(batch: pa.RecordBatch, indices: np.ndarray) -> pa.RecordBatch:
    """The rows number `indices`, which are uint32, of a batch."""
    return pa.RecordBatch.from_arrays(
        [_take(column, indices) for column in batch.columns], schema=batch.schema
    )


def _take(column: pa.Array, indices: np.ndarray) -> pa.Array:
    kind = column.type
    side_by_side = pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)
    if side_by_side and kind.list_size and not column.null_count and not column.values.null_count:
        # A row is copied whole here, number by number there.
        rows = column.flatten().to_numpy().reshape(len(column), kind.list_size)
        values = np.take(rows, indices, axis=0, mode="clip")
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)
    if pa.types.is_primitive(kind) and not column.null_count:
        # Parquet leaves a mask of nulls where there are none, which would be taken along.
        parts = [None, *column.buffers()[1:]]
        column = pa.Array.from_buffers(kind, len(column), parts, 0, column.offset)
    return pc.take(column, pa.array(indices), boundscheck=False)


def sorted_ranges(
    partition: Partition, shard: int, sizes: np.ndarray, range_bytes: int, run_bytes: int
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """The rows of a shard, cell by cell, or in smaller ranges of keys.

    Parameters
    ----------
    partition : Partition
        Where they are.
    shard : int
        Which shard.
    sizes : ndarray of int64, shape (number of cells, 2)
        Rows and bytes of every cell, over all runs.
    range_bytes : int
        Bytes of rows that may be held at once. A cell that has more is divided again.
    run_bytes : int
        Bytes of a run, where that is needed.

    Yields
    ------
    batch : pyarrow.RecordBatch
        Rows in the order of the table.
    order : ndarray of uint32
        The order of their keys.
    """
    with partition.opened(shard) as read:
        for cell in partition.cells.of_shard(shard):
            n_rows, n_bytes = sizes[cell].tolist()
            finer = partition.cells.split(cell, 2 * (n_bytes // range_bytes + 1))
            if n_bytes > range_bytes and n_rows > 1 and len(finer) > 1:
                folder = partition.folder / f"cell-{cell}"
                yield from _divided(read(cell), folder, finer, range_bytes, run_bytes)
            elif n_rows:
                batch, keys = _without_keys(as_one_batch(read(cell)))
                yield batch, sorting_order(keys)


def _divided(
    batches: Iterable[pa.RecordBatch],
    folder: Path,
    cells: KeyCells,
    range_bytes: int,
    run_bytes: int,
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """The rows of a cell that is too large, by way of another partition."""
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted attempt
    finer = Partition(folder, cells)
    sizes = np.zeros((len(cells), 2), np.int64)
    held: list[pa.RecordBatch] = []
    runs = 0

    def flush() -> None:
        nonlocal sizes, runs
        rows, keys = _without_keys(as_one_batch(held))
        held.clear()
        sizes += finer.write(f"run-{runs:06d}", rows, keys)
        runs += 1

    for batch in batches:
        held.append(batch)
        if sum(map(memory_of, held)) >= run_bytes:
            flush()
    if held:
        flush()
    yield from sorted_ranges(finer, 0, sizes, range_bytes, run_bytes)
    shutil.rmtree(folder)


def _without_keys(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
    last = batch.num_columns - 1
    return batch.select(range(last)), batch.column(last).to_numpy()
