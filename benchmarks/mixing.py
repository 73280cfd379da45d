"""How well ways to fill a shuffle buffer mix a table, at equal memory, and what each costs.

    python -m benchmarks.mixing --output docs/explanation

All but the costs is simulated on row numbers. The design effect of batches of b rows is
b Var(batch means) / Var(rows): 1 for batches of random rows, b for batches of equal ones. The fit
is a logistic regression on a drifting order book, by the optimiser and averaging of the Trainer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import benchmarks
from benchmarks import order_book, order_pictures
from pymc_streaming import AnnealedAdam, parquet_source
from pymc_streaming.loader.order import even_permutation
from pymc_streaming.vi.optimizers import averaging_start

BATCH = 1_000
SPAN = 26.0  # of the order book, in millions of rows
LAYOUTS = {"440 small fragments": 440, "11 large fragments": 11}
CANDIDATES = {  # seekable, fragments open at once
    "none": ("yes", 1),
    "consecutive": ("yes", 1),
    "sliding": ("no", 1),
    "random": ("yes", 1),
    "sliding over random": ("no", 1),
    "even": ("yes", 1),
    "interleaved 8": ("yes", 8),
    "interleaved 16": ("yes", 16),
    "whole table": ("yes", 1),
}


def order(candidate: str, edges: np.ndarray, size: int, generator: np.random.Generator):
    """The rows of a table in the order of one epoch.

    `edges` are the first rows of the fragments and, last, the number of rows; `size` are the
    rows of the buffer.
    """
    n_rows, n_fragments = edges[-1], len(edges) - 1

    def stream(fragments: np.ndarray) -> np.ndarray:
        return np.concatenate([np.arange(edges[i], edges[i + 1]) for i in fragments])

    if candidate == "none":
        return np.arange(n_rows)
    if candidate == "whole table":
        return generator.permutation(n_rows)
    if candidate in ("consecutive", "sliding"):
        fragments = np.arange(n_fragments)
    elif candidate == "even":
        fragments = even_permutation(n_fragments, generator)
    else:
        fragments = generator.permutation(n_fragments)
    if candidate.startswith("sliding"):
        return _sliding(stream(fragments), size, generator)
    if candidate.startswith("interleaved"):
        lanes = int(candidate.split()[1])
        parts = np.array_split(np.arange(n_fragments), min(lanes, n_fragments))
        table = [part[even_permutation(len(part), generator)] for part in parts]
        # With fewer fragments than lanes a lane is a part of one.
        return _interleaved(stream(np.concatenate(table)), size, lanes, generator)
    rows = stream(fragments)
    return np.concatenate(
        [generator.permutation(rows[at : at + size]) for at in range(0, n_rows, size)]
    )


def _sliding(rows: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Rows that come in, half a batch at a time, replace random ones of a full buffer."""
    held, out = rows[:size].copy(), []
    for at in range(size, len(rows), BATCH // 2):
        coming = rows[at : at + BATCH // 2]
        slots = generator.choice(size, len(coming), replace=False)
        out.append(held[slots])
        held[slots] = coming
    return np.concatenate([*out, generator.permutation(held)])


def _interleaved(rows: np.ndarray, size: int, lanes: int, generator: np.random.Generator):
    """Each buffer has equal shares of as many stretches, each read from its beginning."""
    starts = np.arange(lanes + 1) * len(rows) // lanes
    fills = -(-len(rows) // size)
    edges = starts[:-1, None] + np.diff(starts)[:, None] * np.arange(fills + 1) // fills
    return np.concatenate(
        [
            generator.permutation(np.concatenate([rows[lane[k] : lane[k + 1]] for lane in edges]))
            for k in range(fills)
        ]
    )


def tables(edges: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """A column of each kind of order."""
    n_rows, n_fragments = edges[-1], len(edges) - 1
    when = np.arange(n_rows) / n_rows
    counts = np.diff(edges)
    noise = generator.normal(size=n_rows)
    return {
        "sorted": when,
        "drift": 0.5 * np.cos(np.pi * when) + noise,
        "block-sorted": np.repeat(np.arange(n_fragments) / n_fragments, counts) + 0.05 * noise,
        "sorted within": np.concatenate([np.arange(count) / count for count in counts]),
        "seasonal": np.sin(2 * np.pi * 24 * when) + 0.7 * noise,
    }


def design_effect(values: np.ndarray) -> float:
    """Of batches of consecutive values."""
    means = values[: len(values) // BATCH * BATCH].reshape(-1, BATCH).mean(axis=1)
    return BATCH * means.var() / values.var()


def fit(table: np.ndarray, epochs: Iterator[np.ndarray], passes: float) -> np.ndarray:
    """The mode that the Trainer's optimiser finds on the rows of `table` in the order given."""
    n_rows, batch_size = len(table), 250
    X, y = np.column_stack([np.ones(n_rows), table[:, :3]]), table[:, 3]
    n = int(passes * n_rows / batch_size)
    rates, average_from = AnnealedAdam().rates(0, n, n), averaging_start(n, n_rows / batch_size)
    b, first, second, total = np.zeros((4, 4))
    ahead = next(epochs)
    for k in range(n):
        if len(ahead) < batch_size:
            ahead = np.concatenate([ahead, next(epochs)])
        batch, ahead = ahead[:batch_size], ahead[batch_size:]
        p = 1 / (1 + np.exp(-(X[batch] @ b)))
        gradient = n_rows / batch_size * X[batch].T @ (p - y[batch]) + b / order_book.PRIOR_SCALE**2
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient**2 - second)
        b = b - rates[k] * (first / (1 - 0.9 ** (k + 1))) / (
            np.sqrt(second / (1 - 0.999 ** (k + 1))) + 1e-8
        )
        if k >= average_from:
            total += b
    return total / (n - average_from)


def reading(folder: Path, n_open: int) -> tuple[float, float]:
    """Memory in MiB for so many fragments that are read in turn, and millions of rows a second."""
    source = parquet_source(folder)
    process, base, peak, n_rows = psutil.Process(), 0, 0, 0
    base = process.memory_info().rss
    started = time.perf_counter()
    for at in range(0, len(source.fragments), n_open):
        readers = [source.read(fragment) for fragment in source.fragments[at : at + n_open]]
        while readers:
            blocks = [next(reader, None) for reader in readers]
            peak = max(peak, process.memory_info().rss - base)
            n_rows += sum(len(block["batch"]) for block in blocks if block is not None)
            readers = [r for r, block in zip(readers, blocks, strict=True) if block is not None]
    return peak / 2**20, n_rows / (time.perf_counter() - started) / 1e6


def costs() -> dict[int, tuple[float, float]]:
    """What `reading` says by number of open fragments, each in a fresh process."""
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        columns = {f"x{i}": generator.normal(size=2**21).astype("f4") for i in range(14)}
        pq.write_table(pa.table(columns), Path(folder) / "a.parquet", row_group_size=2**17)
        found = {}
        for n_open in sorted({n_open for _, n_open in CANDIDATES.values()}):
            with ProcessPoolExecutor(1, mp_context=fresh) as executor:
                found[n_open] = executor.submit(reading, Path(folder), n_open).result()
    return found


def main() -> None:
    """Simulate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_100_000)
    parser.add_argument("--buffer", type=float, default=0.05, help="part of the rows it holds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="folder for the picture")
    options = parser.parse_args()
    print(benchmarks.conditions())
    size = round(options.buffer * options.rows)
    book = order_book.rows(np.linspace(0, SPAN, options.rows), np.random.default_rng(0)).astype(
        "f8"
    )
    mode, _ = order_book.exact_mode(lambda: [book])
    cost = costs()
    picture = {}
    kinds = list(tables(np.array([0, 1]), np.random.default_rng(0)))
    print(
        f"{options.rows:,} rows, buffer of {size:,}, batches of {BATCH:,}, mean of {options.seeds} "
        "seeds. Design effects; absolute correlation of a row's place in the epoch with its place "
        "in the table; largest error of a fit of 1 and 3 passes; memory and M rows/s of reading "
        "14 float32 columns from row groups of 131,072 rows.\n"
    )
    print(
        f"| layout | filling | {' | '.join(kinds)} | correlation | error, 1 pass | 3 passes "
        "| seekable | open | MiB | M rows/s |"
    )
    print("| --- " * (len(kinds) + 9) + "|")
    for layout, n_fragments in LAYOUTS.items():
        edges = np.arange(n_fragments + 1) * options.rows // n_fragments
        for candidate, (seekable, n_open) in CANDIDATES.items():
            found = []
            for seed in range(options.seeds):
                generator = np.random.default_rng(seed)
                columns = tables(edges, generator)
                rows = order(candidate, edges, size, generator)
                epochs = [order(candidate, edges, size, generator) for _ in range(3)]
                errors = [np.abs(fit(book, iter(epochs), p) - mode).max() for p in (1, 3)]
                found.append(
                    [design_effect(values[rows]) for values in columns.values()]
                    + [abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]), *errors]
                )
            picture[layout, candidate] = rows
            *effects, correlation, one, three = np.mean(found, axis=0)
            memory, speed = cost[n_open]
            print(
                f"| {layout} | {candidate} | {' | '.join(f'{x:.1f}' for x in effects)} "
                f"| {correlation:.2f} | {one:.4f} | {three:.4f} | {seekable} | {n_open} "
                f"| {memory:.0f} | {speed:.1f} |",
                flush=True,
            )
    if options.output:
        order_pictures.draw_mixing(picture, options.output / "mixing.png")


if __name__ == "__main__":
    main()
