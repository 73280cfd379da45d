"""Whether the exact shuffle makes every order of a few rows equally often.

python -m benchmarks.shuffle_uniformity --seeds 20000
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import chisquare

import benchmarks
from pymc_streaming import preshuffle

# Rows of every row group: each row for itself, and ragged.
TABLES = ((1, 1, 1, 1), (2, 1, 2))
# A shard of so small a table is one range of keys.
RANGES = (1, 2, 7)


def main() -> None:
    """Shuffle with every seed, count the orders, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20_000, help="from 0 on, for every case")
    options = parser.parse_args()
    print(benchmarks.conditions())
    print("| rows of the row groups | ranges of keys | orders | seeds | χ² | p | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for groups in TABLES:
        for ranges in RANGES:
            started = time.perf_counter()
            counts = orders(groups, ranges, options.seeds)
            test = chisquare(counts)
            print(
                f"| {', '.join(map(str, groups))} | {ranges} | {len(counts)} | {options.seeds:,} "
                f"| {test.statistic:.1f} | {test.pvalue:.3f} | {time.perf_counter() - started:.0f} "
                "|",
                flush=True,
            )


def orders(groups: tuple[int, ...], ranges: int, seeds: int) -> list[int]:
    """How often each order of the rows came out."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "table.parquet"), Path(folder, "shuffled")
        schema = pa.schema({"row": pa.int64()})
        start = 0
        with pq.ParquetWriter(source, schema) as writer:
            for n_rows in groups:
                rows = pa.array(range(start, start + n_rows))
                writer.write_table(pa.table([rows], schema=schema))
                start += n_rows
        seen: Counter[tuple[int, ...]] = Counter()
        for seed in range(seeds):
            manifest = preshuffle(
                source,
                output,
                seed=seed,
                format="arrow",
                shards=ranges,
                workers=1,
                overwrite=True,
                progressbar=False,
            )
            order: list[int] = []
            for path in manifest.paths(output):
                with pa.ipc.open_file(path) as shard:
                    order += shard.read_all()["row"].to_pylist()
            seen[tuple(order)] += 1
    return list(seen.values()) + [0] * (math.factorial(start) - len(seen))


if __name__ == "__main__":
    main()
