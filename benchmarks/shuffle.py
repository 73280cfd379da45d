"""Shuffling a table on disk: this package against DuckDB, Polars and a plain copy.

The table is noise, 14 columns of float32, in one Parquet file of row groups of 131,072 rows. It,
and what is written as Parquet, is compressed with LZ4. Each contender runs in a process of its own,
in turn, round by round; a first round does not count, since the first to use memory or the disk
pays for what the rest find ready.

copy             pyarrow, a row group after the other, in the old order: what reading and writing
                 take by themselves
duckdb           ORDER BY random(), with a memory limit of 1 GB, spilling to disk beyond it
polars           all rows in memory, sampled without replacement
polars-streaming its streaming engine: sorted by a hash of the row number
parquet, arrow   preshuffle, to Parquet or uncompressed Arrow
arrow-float32    preshuffle with dtype="float32": Arrow files with the rows side by side
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.processes import from_fresh, peak_mib
from benchmarks.recording import Recording, Results
from benchmarks.report import BLUE, VERMILION, Figure, Table, dots, new_figure, spread, text
from pymc_streaming import preshuffle

COLUMNS = [f"x{i}" for i in range(14)]
ROW_GROUP_ROWS = 131_072
DUCKDB_LIMIT = "1GB"
READING = """\
Only the three ways of this package, and DuckDB, work on a table larger than memory. The orders
differ: DuckDB and Polars are as random as their random numbers, this package's order depends on the
seed and the rows alone. Arrow files are larger than Parquet and are read without decoding."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-limit", default="512MB", help="of preshuffle")
    parser.add_argument("--only", nargs="+", choices=sorted(contenders("1GB", 0)))
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace, recording: Recording) -> None:
    found = contenders(options.memory_limit, options.seed)
    chosen = {name: found[name] for name in options.only or found}
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "table.parquet", Path(folder) / "shuffled"
        from_fresh(write_table, source, options.rows, options.seed)
        for counts in [False] + [True] * options.rounds if options.rounds > 1 else [True]:
            for name, shuffle in chosen.items():
                result = from_fresh(measured, shuffle, source, output)
                result["written_mib"] = sum(p.stat().st_size for p in output.iterdir()) / 2**20
                shutil.rmtree(output)
                if counts:
                    recording.add("shuffle", {"contender": name, "rows": options.rows}, result)


def write_table(path: Path, n_rows: int, seed: int) -> None:
    """Noise, 14 columns of float32, in one Parquet file."""
    rng = np.random.default_rng(seed)
    schema = pa.schema([(name, pa.float32()) for name in COLUMNS])
    with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False) as writer:
        for start in range(0, n_rows, ROW_GROUP_ROWS):
            count = min(ROW_GROUP_ROWS, n_rows - start)
            columns = [rng.standard_normal(count, np.float32) for _ in COLUMNS]
            writer.write_table(pa.table(columns, schema=schema))


def copy(source: Path, output: Path) -> None:
    """No shuffle at all."""
    output.mkdir()
    table = pq.ParquetFile(source)
    with pq.ParquetWriter(
        output / "copy.parquet", table.schema_arrow, compression="lz4", use_dictionary=False
    ) as writer:
        for number in range(table.num_row_groups):
            writer.write_table(table.read_row_group(number))


def duckdb_shuffle(source: Path, output: Path) -> None:
    """Sort by a random number; DuckDB spills to disk where its limit says so."""
    import duckdb

    output.mkdir()
    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{DUCKDB_LIMIT}'")
    connection.execute(f"SET temp_directory = '{output}'")
    connection.execute(
        f"COPY (SELECT * FROM '{source}' ORDER BY random()) TO '{output / 'shuffled.parquet'}' "
        "(FORMAT parquet, COMPRESSION lz4_raw)"
    )


def polars_shuffle(source: Path, output: Path, seed: int) -> None:
    """All rows in memory."""
    import polars as pl

    output.mkdir()
    table = pl.read_parquet(source).sample(fraction=1.0, shuffle=True, seed=seed)
    table.write_parquet(output / "shuffled.parquet", compression="lz4")


def polars_streaming_shuffle(source: Path, output: Path, seed: int) -> None:
    """Sort by a hash of the row number, as far as its engine goes without all rows in memory."""
    import polars as pl

    output.mkdir()
    key = pl.col("row").hash(seed=seed)
    table = pl.scan_parquet(source).with_row_index("row").sort(key).drop("row")
    table.sink_parquet(output / "shuffled.parquet", compression="lz4", engine="streaming")


def measured(
    shuffle: Callable[[Path, Path], object], source: Path, output: Path
) -> dict[str, float]:
    """Seconds, and MiB of peak memory before and in the end, of this process."""
    before = peak_mib()
    started = time.perf_counter()
    shuffle(source, output)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "before_mib": before, "peak_mib": peak_mib()}


def contenders(memory_limit: str, seed: int) -> dict[str, Callable[[Path, Path], object]]:
    """What is compared, by name."""
    shuffle = partial(preshuffle, seed=seed, memory_limit=memory_limit, progressbar=False)
    return {
        "copy": copy,
        "duckdb": duckdb_shuffle,
        "polars": partial(polars_shuffle, seed=seed),
        "polars-streaming": partial(polars_streaming_shuffle, seed=seed),
        "parquet": partial(shuffle, format="parquet"),
        "arrow": partial(shuffle, format="arrow"),
        "arrow-float32": partial(shuffle, format="arrow", dtype="float32"),
    }


def tables(results: Results) -> list[Table]:
    duckdb = results.rows("shuffle", contender="duckdb")
    cells = []
    for row in results.rows("shuffle"):
        seconds = row.median("seconds")
        ratio = duckdb[0].median("seconds") / seconds if duckdb else None
        cells.append(
            [
                row.of["contender"],
                spread(row, "seconds"),
                f"{row.of['rows'] / seconds / 1e6:.2f}",
                text(ratio, ".2f"),
                spread(row, "peak_mib", ",.0f"),
                text(row.median("written_mib"), ",.0f"),
            ]
        )
    headers = ["contender", "seconds", "M rows/s", "× DuckDB", "peak, MiB", "written, MiB"]
    return [Table("", headers, cells)]


def draw(results: Results) -> Figure:
    rows = results.rows("shuffle")
    figure, panels = new_figure(1, 2, figsize=(9, 1.2 + 0.35 * len(rows)), sharey=True)
    names = [row.of["contender"] for row in rows]
    for axes, name, label, colour in (
        (panels[0][0], "seconds", "seconds", BLUE),
        (panels[0][1], "peak_mib", "peak memory, MiB", VERMILION),
    ):
        dots(axes, rows, names, name, color=colour)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{label} (median, smallest to largest)")
    return figure
