"""The exact shuffle against DuckDB's ``ORDER BY random()``: seconds and peak memory.

python -m benchmarks.preshuffle --rounds 5
python -m benchmarks.preshuffle --rows 100000000 --rounds 1 --only arrow
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import benchmarks
from pymc_streaming import preshuffle

COLUMNS = [f"x{i}" for i in range(14)]
ROW_GROUP_ROWS = 131_072
DUCKDB_LIMIT = "1GB"


def write_table(path: Path, n_rows: int) -> None:
    """Noise, 14 columns of float32, in one Parquet file."""
    rng = np.random.default_rng(0)
    schema = pa.schema([(name, pa.float32()) for name in COLUMNS])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for start in range(0, n_rows, ROW_GROUP_ROWS):
            count = min(ROW_GROUP_ROWS, n_rows - start)
            columns = [rng.standard_normal(count, np.float32) for _ in COLUMNS]
            writer.write_table(pa.table(columns, schema=schema))


def duckdb_shuffle(source: Path, output: Path) -> None:
    """Sort by a random number; DuckDB spills to disk where its limit says so."""
    import duckdb

    output.mkdir()
    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{DUCKDB_LIMIT}'")
    connection.execute(f"SET temp_directory = '{output}'")
    connection.execute(
        f"COPY (SELECT * FROM '{source}' ORDER BY random()) TO '{output / 'shuffled.parquet'}' "
        "(FORMAT parquet, COMPRESSION zstd)"
    )


def measured(shuffle: Callable[[Path, Path], object], source: Path, output: Path) -> tuple:
    """Seconds, and MiB of peak memory before and in the end, of this process."""
    before = _peak()
    started = time.perf_counter()
    shuffle(source, output)
    return time.perf_counter() - started, before, _peak()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def contenders(memory_limit: str) -> dict[str, Callable[[Path, Path], object]]:
    """What is compared, by name."""
    shuffle = partial(preshuffle, seed=0, memory_limit=memory_limit, progressbar=False)
    return {
        "duckdb": duckdb_shuffle,
        "parquet": partial(shuffle, format="parquet"),
        "arrow": partial(shuffle, format="arrow"),
        "arrow-float32": partial(shuffle, format="arrow", dtype="float32"),
    }


def main() -> None:
    """Run every contender in every round, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-limit", default="512MB")
    parser.add_argument("--only", nargs="+", choices=sorted(contenders("1GB")))
    options = parser.parse_args()
    print(benchmarks.conditions())
    chosen = {
        name: shuffle
        for name, shuffle in contenders(options.memory_limit).items()
        if options.only is None or name in options.only
    }
    results: dict[str, list[tuple]] = {name: [] for name in chosen}
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "table.parquet", Path(folder) / "shuffled"
        write_table(source, options.rows)
        # Once before it counts: the first to use memory or disk pays for what the rest find ready.
        for counts in [False] + [True] * options.rounds if options.rounds > 1 else [True]:
            for name, shuffle in chosen.items():
                with ProcessPoolExecutor(1, mp_context=fresh) as executor:
                    result = executor.submit(measured, shuffle, source, output).result()
                shutil.rmtree(output)
                if counts:
                    results[name].append(result)
    medians = {
        name: [statistics.median(values) for values in zip(*found, strict=True)]
        for name, found in results.items()
    }
    print("| shuffle | seconds (median, all) | million rows/s | peak memory | × DuckDB's speed |")
    print("| --- | --- | --- | --- | --- |")
    for name, (seconds, _, peak) in medians.items():
        every = " ".join(f"{result[0]:.2f}" for result in results[name])
        ratio = f"{medians['duckdb'][0] / seconds:.2f}" if "duckdb" in medians else ""
        speed = options.rows / seconds / 1e6
        print(f"| {name} | {seconds:.2f} ({every}) | {speed:.2f} | {peak:,.0f} MiB | {ratio} |")


if __name__ == "__main__":
    main()
