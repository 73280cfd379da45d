"""Whether the exact shuffle makes every order of a few rows equally often.

A table of a few rows is shuffled with every seed from 0 on, in one file or several, with one row in
a row group or more; each order that comes out is counted.
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

from benchmarks.recording import Recording, Results
from benchmarks.report import BLUE, Figure, new_figure
from pymc_streaming import preshuffle

# Rows of every row group: each row for itself, and ragged.
TABLES = ((1, 1, 1, 1), (2, 1, 2))
# A shard of so small a table is one range of keys.
RANGES = (1, 2, 7)


READING = """\
Under an exactly uniform shuffle the p-values are themselves uniform between 0 and 1: one of six
may well be below 0.1, and none should be below 0.001."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=20_000, help="from 0 on, for every case")


def run(options: argparse.Namespace, recording: Recording) -> None:
    for groups in TABLES:
        for ranges in RANGES:
            started = time.perf_counter()
            counts = orders(groups, ranges, options.seeds)
            test = chisquare(counts)
            recording.add(
                "orders",
                {
                    "rows_of_the_row_groups": ", ".join(map(str, groups)),
                    "ranges_of_keys": ranges,
                    "orders": len(counts),
                },
                {
                    "chi_square": test.statistic,
                    "p": test.pvalue,
                    "seconds": time.perf_counter() - started,
                },
            )


def draw(results: Results) -> Figure:
    rows = results.rows("orders")
    figure, ((axes,),) = new_figure(figsize=(6, 3.2))
    names = [
        f"row groups of {row.of['rows_of_the_row_groups']}; {row.of['ranges_of_keys']} files"
        for row in rows
    ]
    axes.plot([row.median("p") for row in rows], range(len(rows)), "o", color=BLUE)
    axes.set(xlim=(0, 1), xlabel="p-value: uniform if the shuffle is")
    axes.set_yticks(range(len(rows)), names)
    return figure


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
