"""Tables on disk for the tests of shuffling, and what their shuffled rows should be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from pymc_streaming import preshuffle
from pymc_streaming.shuffling import external, inputs, scratch
from pymc_streaming.shuffling.keys import row_keys


def write(path: Path, table: pa.Table, groups: Sequence[int] = ()) -> Path:
    """A file with row groups or record batches of those lengths, the rest in a last one."""
    lengths = [*groups, table.num_rows - sum(groups)]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    pieces = [table.slice(*place) for place in zip(starts, lengths, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, table.schema) as writer:
            for piece in pieces:
                writer.write_table(piece, row_group_size=max(1, piece.num_rows))
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            for piece in pieces:
                for batch in (
                    piece.combine_chunks().to_batches() or piece.schema.empty_table().to_batches()
                ):
                    writer.write_batch(batch)
    return path


def rows_of(folder: Path) -> pa.Table:
    """The rows of a shuffled folder, shard after shard, held to their types.

    Columns that were found to hold no null are made to look as though they might again.
    """
    shards = sorted(folder.glob("part-*"))
    if shards[0].suffix == ".parquet":
        tables = [pq.ParquetFile(shard).read() for shard in shards]
    else:
        tables = [pa.ipc.open_file(pa.OSFile(str(shard))).read_all() for shard in shards]
    table = pa.concat_tables(tables)
    table.validate(full=True)
    return table.cast(
        pa.schema([f.with_nullable(True) for f in table.schema], table.schema.metadata)
    )


def expected_order(n_rows: int, seed: int) -> list[int]:
    """The rows by key, ties by number."""
    keys = row_keys(seed, 0, n_rows).tolist()
    return sorted(range(n_rows), key=keys.__getitem__)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def small_pieces(run_bytes: int = 1024) -> Iterator[None]:
    """Cut the work up as a table that is thousands of times larger would be."""
    cuts = {
        external: {
            "_LEAST_WORKER_BYTES": 4,
            "_LEAST_RUN_BYTES": run_bytes,
            "_CACHED_BYTES": run_bytes,
            "_GOOD_PIECE_BYTES": 64,
            "_LEAST_PIECE_BYTES": 16,
        },
        inputs: {"_BATCH_BYTES": 4096, "_VARIABLE_BATCH_ROWS": 16, "_SAMPLE_ROWS": 4},
        scratch: {"_MOST_OPEN": 3},
    }
    with ExitStack() as stack:
        for module, names in cuts.items():
            stack.enter_context(mock.patch.multiple(module, **names))
        yield


def shuffle_and_die(source: Path, output: Path, event: int | None, options: dict[str, Any]) -> None:
    """Shuffle in small pieces; with `event`, kill this process at that one of its file events."""
    seen: list[str] = []

    def count(name: str, arguments: tuple[Any, ...]) -> None:
        if name in {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}:
            if len(seen) == event:
                os.kill(os.getpid(), 9)
            seen.append(f"{name} {arguments}")

    sys.addaudithook(count)
    with small_pieces():
        preshuffle(source, output, seed=0, progressbar=False, **options)
    (output.parent / "events").write_text("\n".join(seen))
