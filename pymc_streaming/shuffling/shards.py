"""Writing the rows of one shard, fragment by fragment, with a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pymc_streaming.shuffling.scratch import as_one_batch, take
from pymc_streaming.sources.checksums import with_checksum
from pymc_streaming.sources.manifest import Shard, sample_digest

__all__ = ["new_writer", "read_schema", "write_shard"]


def write_shard(
    path: Path,
    ranges: Iterable[tuple[pa.RecordBatch, np.ndarray]],
    schema: pa.Schema,
    format: str,  # noqa: A002 - the word of the public function
    rows_per_fragment: int,
) -> Shard:
    """Write a shard under a temporary name and move it into place.

    Parameters
    ----------
    path : pathlib.Path
        Where the shard goes.
    ranges : iterable of (RecordBatch, ndarray)
        Rows, and the order to write them in.
    schema : pyarrow.Schema
        Columns of the shard.
    format : {"parquet", "arrow"}
        Format of the file.
    rows_per_fragment : int
        Rows of a row group or record batch; the last may be short.
    """
    temporary = path.with_suffix(".part")
    written = 0
    # Unbuffered: Python's buffer takes longer to pass a large piece on than the disk to take it.
    with temporary.open("wb", buffering=0) as file:
        sink = _Hashed(file)
        with new_writer(sink, schema, format) as writer:
            held: list[pa.RecordBatch] = []

            def flush() -> int:
                batch = as_one_batch(held).cast(schema)
                held.clear()
                writer.write_batch(batch)
                return int(batch.num_rows)

            room = rows_per_fragment
            for batch, order in ranges:
                start = 0
                while start < len(order):
                    rows = order[start : start + room]
                    held.append(take(batch, rows))
                    start, room = start + len(rows), room - len(rows)
                    if not room:
                        written, room = written + flush(), rows_per_fragment
            if held:
                written += flush()
    temporary.replace(path)
    return Shard(path.name, written, sink.size, sink.hexdigest(), sample_digest(path))


def new_writer(sink: Any, schema: pa.Schema, format: str) -> Any:  # noqa: A002
    """A writer with ``write_batch``, every call a fragment of its own."""
    if format == "arrow":
        return _RecordBatches(sink, schema)
    # Looking for repeated values is wasted on continuous numbers, and most of the time it takes.
    repetitive = [f.name for f in schema if not pa.types.is_floating(f.type)]
    # A table is shuffled to be read many times. Columns of numbers take about as much room with
    # zstd, and three times as long to read.
    return _RowGroups(
        sink, schema, compression="lz4", use_dictionary=repetitive, write_page_checksum=True
    )


def read_schema(path: Path) -> pa.Schema:
    """The columns of a shard, with the types that a reader finds."""
    if path.suffix == ".parquet":
        return pq.read_schema(path)
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as opened:
        return opened.schema


# Larger writes cost the system several times as much: it looks for as large a piece of memory.
_WRITE_BYTES = 2**20


class _RecordBatches:
    """Record batches with checksums."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(sink, schema)

    def __enter__(self) -> _RecordBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write a record batch."""
        self._writer.write_batch(batch, custom_metadata=with_checksum(batch))


class _RowGroups(pq.ParquetWriter):  # type: ignore[misc]
    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write a row group, however large."""
        super().write_batch(batch, row_group_size=max(1, batch.num_rows))


class _Hashed:
    """A file that knows the hash of what was written to it."""

    def __init__(self, file: Any) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.size = 0
        self.hexdigest = self._hash.hexdigest
        self.flush = file.flush
        self.closed = False

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        self.size += len(rest)
        while len(rest):
            written = self._file.write(rest[:_WRITE_BYTES])
            self._hash.update(rest[:written])
            rest = rest[written:]
        return len(data)

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        self.closed = True
