"""How well ways to fill a shuffle buffer mix a table, at equal memory, and what each costs.

All but the costs is simulated on row numbers. The design effect of batches of b rows is
b Var(batch means) / Var(rows): 1 for batches of random rows, b for batches of equal ones. The fit
is a logistic regression on a drifting order book, by the optimiser and averaging of the Trainer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import order_book, order_pictures
from benchmarks.processes import from_fresh
from benchmarks.recording import Recording, Results
from benchmarks.report import Figure, Table, save, text
from pymc_streaming import AnnealedAdam, parquet_source
from pymc_streaming.loader.order import even_permutation
from pymc_streaming.vi.optimizers import averaging_start

BATCH = 1_000
SPAN = 26.0  # of the order book, in millions of rows
READING = """\
Means over the seeds. The first columns are design effects, by kind of table; then the absolute
correlation of a row's place in the epoch with its place in the table, and the largest error of a
fit of one pass and of three. Memory and speed are those of reading 14 float32 columns from row
groups of 131,072 rows, with so many of them open. See
[how well a buffer mixes](../explanation/how-well-a-buffer-mixes.md)."""
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


def columns_of(edges: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
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
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        columns = {f"x{i}": generator.normal(size=2**21).astype("f4") for i in range(14)}
        pq.write_table(pa.table(columns), Path(folder) / "a.parquet", row_group_size=2**17)
        found = {}
        for n_open in sorted({n_open for _, n_open in CANDIDATES.values()}):
            found[n_open] = from_fresh(reading, Path(folder), n_open)
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=1_100_000)
    parser.add_argument("--buffer", type=float, default=0.05, help="part of the rows it holds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pictures", type=Path, help="folder for the picture of the documentation")


def run(options: argparse.Namespace, recording: Recording) -> None:
    size = round(options.buffer * options.rows)
    book = order_book.rows(np.linspace(0, SPAN, options.rows), np.random.default_rng(0)).astype(
        "f8"
    )
    mode, _ = order_book.exact_mode(lambda: [book])
    for n_open, (memory, speed) in costs().items():
        recording.add(
            "reading",
            {"fragments_open": n_open},
            {"memory_mib": memory, "million_rows_per_second": speed},
        )
    for layout in LAYOUTS:
        edges = edges_of(layout, options.rows)
        for candidate in CANDIDATES:
            for seed in range(options.seeds):
                generator = np.random.default_rng(seed)
                columns = columns_of(edges, generator)
                rows = order(candidate, edges, size, generator)
                epochs = [order(candidate, edges, size, generator) for _ in range(3)]
                one, three = (np.abs(fit(book, iter(epochs), p) - mode).max() for p in (1, 3))
                recording.add(
                    "mixing",
                    {"layout": layout, "filling": candidate},
                    {kind: design_effect(values[rows]) for kind, values in columns.items()}
                    | {
                        "correlation": abs(np.corrcoef(np.arange(len(rows)), rows)[0, 1]),
                        "error_1_pass": one,
                        "error_3_passes": three,
                    },
                )
    if options.pictures:
        save(draw(recording.results()), options.pictures / "mixing.png")


def edges_of(layout: str, n_rows: int) -> np.ndarray:
    return np.arange(LAYOUTS[layout] + 1) * n_rows // LAYOUTS[layout]


def tables(results: Results) -> list[Table]:
    forms = {"correlation": ".2f", "error_1_pass": ".4f", "error_3_passes": ".4f"}
    costs = {row.of["fragments_open"]: row for row in results.rows("reading")}
    cells, names = [], []
    for row in results.rows("mixing"):
        names = list(row.found)
        seekable, n_open = CANDIDATES[row.of["filling"]]
        cells.append(
            [row.of["layout"], row.of["filling"]]
            + [text(float(np.mean(row.found[name])), forms.get(name, ".1f")) for name in names]
            + [seekable, str(n_open), text(costs[n_open].median("memory_mib"), ".0f")]
            + [text(costs[n_open].median("million_rows_per_second"), ".1f")]
        )
    headers = ["layout", "filling", *(name.replace("_", " ") for name in names)]
    return [Table("", [*headers, "seekable", "open", "MiB", "M rows/s"], cells)]


def draw(results: Results) -> Figure:
    """The orders themselves, which a seed determines."""
    options = results.record["options"]
    n_rows, size = options["rows"], round(options["buffer"] * options["rows"])
    return order_pictures.draw_mixing(
        {
            (layout, candidate): order(
                candidate, edges_of(layout, n_rows), size, np.random.default_rng(0)
            )
            for layout in LAYOUTS
            for candidate in CANDIDATES
        }
    )
