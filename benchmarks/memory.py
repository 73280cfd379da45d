"""Peak memory by number of rows: streaming from disk, and with the table in memory.

A table of 13 features and a label is drawn by seed, a block after the other, straight into the form
that is read: Parquet, or Arrow files with the rows side by side. Its rows are independent, so no
shuffle is needed. It is removed after use, and there is one at a time.

parquet, arrow   this package, `--passes` times through the table
minibatch        pm.fit on pm.Minibatch, the table in float64 in memory, read from the Parquet file
                 into one array; 100 steps. Left out where it would take more than is available

The peak is ru_maxrss of a fresh process that does nothing else; it counts pages of mapped files,
though no file of rows is mapped.
If it has children, the most that they had at one time by 50 looks a second is added, and what they
share with it counts twice. What was compiled is in the caches of the compilers; "compiling" is the
peak of the process before, which filled them. They are empty in the beginning, so that of the first
table is the peak of a machine that never compiled before.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import psutil

from benchmarks import BenchmarkError
from benchmarks.models import MODELS, Model
from benchmarks.processes import (
    Children,
    float_environment,
    from_fresh,
    own_caches,
    peak_mib,
    quiet,
)
from benchmarks.recording import Recording, Results, Row
from benchmarks.report import BLUE, GREEN, GREY, VERMILION, Figure, Table, new_figure, spread, text

MODEL = MODELS["logistic"]
WAYS = {
    "parquet": "this package, Parquet",
    "arrow": "this package, Arrow",
    "minibatch": "pm.fit, pm.Minibatch, in memory",
}
STYLES = {
    "parquet": {"color": GREEN, "marker": "s"},
    "arrow": {"color": BLUE, "marker": "o"},
    "minibatch": {"color": VERMILION, "marker": "^"},
}
FRAGMENT_ROWS, SHARD_ROWS = 65_536, 64 * 65_536
MINIBATCH_STEPS = 100
#: Of the memory that is available, what may be used in trust of a line through a few points.
SAFE = 0.85
READING = """\
Streaming should be flat: what it holds depends on the batch and the buffers. The table
in memory grows with its rows; where the line through its points meets the memory of the machine, it
ends. That point is extrapolated, and everything else is measured."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[10**6 * n for n in (1, 5, 20, 50, 100, 150)],
        help="rows of the tables, one or more",
    )
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="what is compared"
    )
    parser.add_argument("--precision", choices=["float64", "float32"], default="float64")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--passes", type=float, default=1.1, help="over the table, in each fit")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the tables go; default: temporary")


def run(options: argparse.Namespace, recording: Recording) -> None:
    with tempfile.TemporaryDirectory() as caches:
        run_with(options, recording, Path(caches))


def run_with(options: argparse.Namespace, recording: Recording, caches: Path) -> None:
    """With empty folders for what the compilers keep."""
    for n_rows in sorted(options.rows):
        for way in options.ways:
            if way == "minibatch" and not fits(recording.results(), n_rows):
                print(f"{n_rows:,} rows in memory are left out: they would not fit.", flush=True)
                continue
            with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
                folder = Path(temporary)
                check_room(folder, n_rows, options.precision)
                from_fresh(write, folder, way, n_rows, options.precision, options.seed)
                precision = "float64" if way == "minibatch" else options.precision
                environment = own_caches(float_environment(precision), caches)
                compiling = from_fresh(
                    fit, folder, way, options.batch_size, 10, environment=environment
                )
                steps = (
                    MINIBATCH_STEPS
                    if way == "minibatch"
                    else max(10, int(options.passes * n_rows / options.batch_size))
                )
                for _ in range(options.rounds):
                    children = Children()
                    peak = from_fresh(
                        fit,
                        folder,
                        way,
                        options.batch_size,
                        steps,
                        environment=environment,
                        watch=children,
                    )
                    recording.add(
                        "peak",
                        {"way": way, "precision": precision, "rows": n_rows, "steps": steps},
                        {
                            "peak_mib": peak + children.peak_mib,
                            "children_mib": children.peak_mib,
                            "compiling_mib": compiling,
                        },
                    )


def check_room(folder: Path, n_rows: int, precision: str) -> None:
    """Refuse what the disk has no room for."""
    needed = int(1.1 * n_rows * len(MODEL.columns) * np.dtype(precision).itemsize)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BenchmarkError(
            f"A table of {n_rows:,} rows takes {needed / 1e9:.1f} GB, but the disk has "
            f"{free / 1e9:.1f} GB free. Choose fewer --rows, or another --folder."
        )


def write(
    folder: Path, way: str, n_rows: int, precision: str, seed: int, model: Model = MODEL
) -> None:
    """The table in its final form, a shard after the other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pymc_streaming.sources.packed import packed_schema

    packed = way == "arrow"
    dtype = np.dtype(precision)
    flat = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name in model.columns])
    schema = packed_schema(model.columns, dtype) if packed else flat
    writer, written = None, 0
    for rows in model.blocks(n_rows, seed):
        if written % SHARD_ROWS == 0:
            if writer is not None:
                writer.close()
            path = folder / f"part-{written // SHARD_ROWS:05d}.{'arrow' if packed else 'parquet'}"
            writer = (
                pa.ipc.new_file(path, schema)
                if packed
                else pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False)
            )
        rows = rows.astype(dtype)
        if packed:
            values = pa.array(rows.ravel())
            columns = [pa.FixedSizeListArray.from_arrays(values, type=schema.field(0).type)]
        else:
            columns = [pa.array(np.ascontiguousarray(column)) for column in rows.T]
        writer.write_batch(pa.record_batch(columns, schema=schema))
        written += len(rows)
    writer.close()


def fit(folder: Path, way: str, batch_size: int, steps: int) -> float:
    """Peak memory in MiB of a process that fits so many steps."""
    quiet()
    if way == "minibatch":
        _fit_in_memory(folder, batch_size, steps)
    else:
        _fit_streamed(folder, way, batch_size, steps)
    return peak_mib()


def _fit_streamed(folder: Path, way: str, batch_size: int, steps: int) -> None:
    import pymc as pm

    from pymc_streaming import DataLoader, Trainer, arrow_source, parquet_source

    loader = DataLoader((arrow_source if way == "arrow" else parquet_source)(folder), batch_size)
    with pm.Model() as model:
        batch = pm.Data("batch", loader.placeholder())
        MODEL.in_pymc(MODEL.split(batch), MODEL.features, len(loader))
    # As after a shuffle on disk, where there is nothing to look at.
    options = {"on_ordered": "ignore", "progressbar": False}
    Trainer("advi", loader, model=model, random_seed=0, **options).fit(steps)


def _fit_in_memory(folder: Path, batch_size: int, steps: int) -> None:
    import pyarrow.parquet as pq
    import pymc as pm

    files = [pq.ParquetFile(path) for path in sorted(folder.glob("*.parquet"))]
    n_rows = sum(file.metadata.num_rows for file in files)
    X, y, at = np.empty((n_rows, MODEL.features)), np.empty(n_rows), 0
    for file in files:
        for block in file.iter_batches():
            for i in range(MODEL.features):
                X[at : at + len(block), i] = block.column(i)
            y[at : at + len(block)] = block.column(MODEL.features)
            at += len(block)
    with pm.Model():
        batch_X, batch_y = pm.Minibatch(X, y, batch_size=batch_size)
        MODEL.in_pymc({"X": batch_X, "y": batch_y}, MODEL.features, n_rows)
        pm.fit(steps, method="advi", random_seed=0, progressbar=False)


def fits(results: Results, n_rows: int) -> bool:
    """Whether a table in memory would leave some of what is available."""
    line = growth(results)
    # Before there are two points: the table itself, and one copy of it.
    bytes_a_row, base = line or (2 * 8 * len(MODEL.columns), 600 * 2**20)
    return base + bytes_a_row * n_rows < SAFE * psutil.virtual_memory().available


def growth(results: Results) -> tuple[float, float] | None:
    """Bytes for each row, and for none, by a line through the peaks of the table in memory."""
    rows = _rows(results, "minibatch")
    if len(rows) < 2:
        return None
    n = [row.of["rows"] for row in rows]
    slope, base = np.polyfit(n, [row.median("peak_mib") * 2**20 for row in rows], 1)
    return float(slope), float(base)


def runs_out(results: Results) -> float | None:
    """Rows at which the line meets the memory of the machine."""
    line = growth(results)
    if line is None or line[0] <= 0:
        return None
    return (results.record["machine"]["memory_bytes"] - line[1]) / line[0]


def _rows(results: Results, way: str) -> list[Row]:
    return sorted(results.rows("peak", way=way), key=lambda row: row.of["rows"])


def tables(results: Results) -> list[Table]:
    cells = []
    for way, title in WAYS.items():
        rows = _rows(results, way)
        for row in rows:
            over = row.median("peak_mib") / rows[0].median("peak_mib")
            cells.append(
                [title, row.of["precision"], text(row.of["rows"]), text(row.of["steps"])]
                + [spread(row, name, ",.0f") for name in ("peak_mib", "compiling_mib")]
                + [f"{over:.3f}"]
            )
    headers = ["fit", "precision", "rows", "steps", "peak, MiB", "compiling, MiB", "over the first"]
    made = [Table("", headers, cells)]
    end = runs_out(results)
    if end is not None:
        slope, base = growth(results)
        made.append(
            Table(
                "Where the table in memory ends, by a line through its peaks",
                ["bytes a row", "with no rows, MiB", "rows that fill the memory"],
                [[f"{slope:.0f}", f"{base / 2**20:,.0f}", f"{end / 1e6:,.0f} million"]],
            )
        )
    return made


def draw(results: Results) -> Figure:
    figure, ((axes,),) = new_figure(figsize=(8, 4.8))
    for way, title in WAYS.items():
        rows = _rows(results, way)
        if rows:
            n = [row.of["rows"] / 1e6 for row in rows]
            peaks = [row.median("peak_mib") / 1024 for row in rows]
            axes.plot(n, peaks, label=title, **STYLES[way])
    total = results.record["machine"]["memory_bytes"] / 2**30
    axes.axhline(total, color=GREY, linestyle="--", label=f"memory of the machine, {total:.1f} GiB")
    end = runs_out(results)
    if end is not None:
        last = _rows(results, "minibatch")[-1]
        start = [last.of["rows"] / 1e6, last.median("peak_mib") / 1024]
        axes.plot(*zip(start, [end / 1e6, total], strict=True), ":", color=VERMILION)
        axes.annotate(f"{end / 1e6:,.0f} million rows", [end / 1e6, total], ha="right", va="bottom")
    axes.set(xlabel="million rows", ylabel="peak memory of the process, GiB")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.1 * total)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
