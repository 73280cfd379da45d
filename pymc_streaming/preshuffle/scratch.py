"""Rows on disk, divided by their keys: the first pass writes them, the second reads a range."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.preshuffle.inputs import memory_of
from pymc_streaming.preshuffle.keys import KeyCells, sorting_order

__all__ = ["Partition", "as_one_batch", "sorted_ranges"]

# Name of the column with the keys; the last, so that no name of the table can clash with it.
_KEY = pa.field("key", pa.uint64(), nullable=False)


class Partition:
    """Rows in files of sorted cells, one file a run, one record batch a cell.

    A run is as many consecutive rows as fit in memory. The runs in the order of their names
    have the rows in the order of the table.

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

    def write(self, name: str, batch: pa.RecordBatch, keys: np.ndarray) -> np.ndarray:
        """Write a run.

        Returns
        -------
        ndarray of int64, shape (number of cells, 2)
            Rows and bytes that went into each cell.
        """
        numbers = self.cells.numbers(keys)
        order = np.argsort(numbers, kind="stable").astype(np.uint32)
        ends = np.cumsum(np.bincount(numbers, minlength=len(self.cells)))
        schema = batch.schema.append(_KEY)
        sizes = np.zeros((len(self.cells), 2), np.int64)
        path = self.folder / f"{name}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for cell, indices in enumerate(np.split(order, ends[:-1])):
                rows = pc.take(batch, pa.array(indices), boundscheck=False)
                writer.write_batch(
                    pa.RecordBatch.from_arrays(
                        [*rows.columns, pa.array(keys[indices])], schema=schema
                    )
                )
                sizes[cell] = rows.num_rows, memory_of(rows)
        return sizes

    def runs(self) -> list[Path]:
        """The files, in the order of the rows."""
        return sorted(self.folder.glob("*.arrow"))

    def read(self, cells: range) -> Iterator[pa.RecordBatch]:
        """The rows of consecutive cells with their keys, run after run."""
        for path in self.runs():
            # A map, not a read: the rows are copied once, when they are put in order.
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                for cell in cells:
                    yield reader.get_batch(cell)


def as_one_batch(batches: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches one after the other, in memory of their own."""
    table = pa.Table.from_batches(list(batches)).unify_dictionaries().combine_chunks()
    (batch,) = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return batch


def sorted_ranges(
    partition: Partition, cells: range, sizes: np.ndarray, range_bytes: int, run_bytes: int
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """The rows of consecutive cells, a range of keys at a time.

    Parameters
    ----------
    partition : Partition
        Where they are.
    cells : range
        Which cells.
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
    start = cells.start
    while start < cells.stop:
        stop = start + 1
        finer = partition.cells.split(start, 2 * int(sizes[start, 1] // range_bytes + 1))
        if sizes[start, 1] > range_bytes and sizes[start, 0] > 1 and len(finer) > 1:
            yield from _divided(partition, start, finer, range_bytes, run_bytes)
        else:
            while stop < cells.stop and sizes[start : stop + 1, 1].sum() <= range_bytes:
                stop += 1
            if sizes[start:stop, 0].any():
                batch = as_one_batch(partition.read(range(start, stop)))
                keys = batch.column(batch.num_columns - 1).to_numpy()
                yield batch.select(range(batch.num_columns - 1)), sorting_order(keys)
        start = stop


def _divided(
    partition: Partition, cell: int, cells: KeyCells, range_bytes: int, run_bytes: int
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """The rows of a cell that is too large, by way of another partition."""
    folder = partition.folder / f"cell-{cell}"
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted attempt
    finer = Partition(folder, cells)
    sizes = np.zeros((len(cells), 2), np.int64)
    held: list[pa.RecordBatch] = []

    def flush() -> None:
        nonlocal sizes
        batch = as_one_batch(held)
        held.clear()
        keys = batch.column(batch.num_columns - 1).to_numpy()
        rows = batch.select(range(batch.num_columns - 1))
        sizes += finer.write(f"run-{len(finer.runs()):06d}", rows, keys)

    for batch in partition.read(range(cell, cell + 1)):
        held.append(batch)
        if sum(map(memory_of, held)) >= run_bytes:
            flush()
    if held:
        flush()
    yield from sorted_ranges(finer, range(len(cells)), sizes, range_bytes, run_bytes)
    shutil.rmtree(folder)
