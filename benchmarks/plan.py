"""What the trainer plans by the memory there is, and how near its estimate of the peak comes.

First the decision, for tables of any number of rows that are not there, and limits of three kinds:
what the process was given, what the machine has free, and what a container leaves, whose files are
written into a temporary folder. Nothing is read for it.

Then estimates against what was measured: a logistic regression of 13 or 199 features and a label,
from Parquet or from Arrow files with the rows side by side, by each strategy. The estimate is that
of `trainer.plan()` in a fresh process, before anything is read or compiled; the peak is ru_maxrss
of the same process at the end of the fit. "cold" is the first fit on empty caches of the compilers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import memory
from benchmarks.models import MODELS
from benchmarks.processes import float_environment, from_fresh, own_caches, peak_mib, quiet
from benchmarks.recording import Recording, Results, Row
from benchmarks.report import BLUE, GREEN, GREY, VERMILION, Figure, Table, new_figure, spread, text

BATCH_SIZE = 4096
#: Columns of the table whose fits are decided on.
COLUMNS = 14
GIB = 2**30
#: Strategy by strategy: what `fit` is given.
FITS = {"in_memory": None, "accumulate": None, "streaming": "steps", "in_memory, steps": "steps"}
COLOURS = {
    "in_memory": VERMILION,
    "accumulate": BLUE,
    "streaming": GREEN,
    "in_memory, steps": GREY,
}
READING = """\
A fit without a number of steps keeps the table while it fits, and otherwise reads it in each pass;
the numbers that come out are the same. Too little memory for either makes the sample smaller that
is fitted first. The memory of all but in_memory is the same for any number of rows. The estimate is
made before anything is compiled, and it is not known whether the compilers' caches have what
is needed: it lies between the peaks with warm and with cold ones."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[10**6, 10**7, 10**8, 10**9],
        help="rows of the tables that are decided on",
    )
    parser.add_argument(
        "--narrow-rows",
        type=int,
        nargs="*",
        default=[10**6, 5 * 10**6],
        help="rows of tables of 14 columns",
    )
    parser.add_argument(
        "--wide-rows", type=int, nargs="*", default=[100_000], help="of 200 columns"
    )
    formats = ["parquet", "arrow"]
    parser.add_argument("--formats", nargs="+", choices=formats, default=formats, help="of files")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the tables go; default: temporary")


def run(options: argparse.Namespace, recording: Recording) -> None:
    for of, found in decisions(options.rows):
        recording.add("decision", of, found)
    with tempfile.TemporaryDirectory() as caches:
        environment = own_caches(float_environment("float64"), Path(caches))
        tables = [(14, n) for n in options.narrow_rows] + [(200, n) for n in options.wide_rows]
        for columns, n_rows in tables:
            for form in options.formats:
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    _measure(recording, options, Path(folder), form, columns, n_rows, environment)


def decisions(rows: list[int]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What is decided for each table and limit."""
    from pymc_streaming.planning import Fit, choose, memory_limit, ways

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for n_rows in rows:
            fit = Fit(_loader_of(n_rows), COLUMNS, "advi", "numba", False, 0)
            for free, container, given, fraction in _limits():
                (folder / "membership").write_text("0::/\n")
                (folder / "memory.max").write_text("max" if container is None else str(container))
                limit = memory_limit(
                    given,
                    fraction,
                    environment={},
                    free=free,
                    groups=folder,
                    membership=folder / "membership",
                )
                of = {
                    "rows": n_rows,
                    "free_gib": free / GIB,
                    "container_gib": None if container is None else container / GIB,
                    "given_gib": None if given is None else given / GIB,
                    "fraction": fraction,
                }
                found: dict[str, Any] = {"limit_gib": limit.nbytes / GIB, "source": limit.source}
                for name, n in (("fit()", None), ("fit(n)", 20_000)):
                    plan = choose("auto", ways(fit, "auto", n), n_rows, limit)
                    found[name] = plan.strategy if plan.fits else "does not fit"
                    found[f"{name}, sample"] = plan.sample_rows
                    found[f"{name}, MiB"] = plan.peak_bytes / 2**20
                yield of, found


def _limits() -> Iterator[tuple[int, int | None, int | None, float]]:
    """Free memory, that of the container, what is given, and the fraction."""
    yield from ((64 * GIB, None, None, fraction) for fraction in (0.75, 0.1))
    yield from ((64 * GIB, container, None, 0.75) for container in (8 * GIB, GIB))
    yield from ((64 * GIB, None, given, 0.75) for given in (4 * GIB, GIB // 2, GIB // 4))
    yield 2 * GIB, None, 48 * GIB, 0.75


def _loader_of(n_rows: int) -> Any:
    from pymc_streaming import ArraySpec, DataLoader, Fragment, IterableDataset

    class Unread(IterableDataset):
        """A table that says how many rows it has."""

        def __init__(self) -> None:
            self.layout = {"batch": ArraySpec((COLUMNS,), np.dtype("float64"))}
            self.fragments = [Fragment(n_rows, "nowhere")]

        def read(self, _: Fragment) -> Any:
            raise AssertionError("A plan reads no rows.")

    return DataLoader(Unread(), BATCH_SIZE)


def _measure(
    recording: Recording,
    options: argparse.Namespace,
    folder: Path,
    form: str,
    columns: int,
    n_rows: int,
    environment: dict[str, str],
) -> None:
    from_fresh(write, folder, form, columns, n_rows, options.seed)
    table = {"format": form, "columns": columns, "rows": n_rows}
    # The first of its kind on empty caches.
    for strategy, steps in FITS.items():
        cold = _is_new(recording, columns, steps is None)
        arguments = (folder, form, strategy.split(",")[0], steps and options.steps)
        for caches in ["cold"] * cold + ["warm"] * options.rounds:
            found = from_fresh(fit, *arguments, environment=environment)
            recording.add("peak", {"strategy": strategy, "caches": caches, **table}, found)


def _is_new(recording: Recording, columns: int, exact: bool) -> bool:
    """Whether nothing of the kind was compiled yet."""
    done = recording.results().rows("peak", columns=columns)
    return not any((FITS[row.of["strategy"]] is None) == exact for row in done)


def write(folder: Path, form: str, columns: int, n_rows: int, seed: int) -> None:
    """The table, in its final form."""
    memory.write(folder, form, n_rows, "float64", seed, _model(columns))


def _model(columns: int) -> Any:
    return replace(MODELS["logistic"], features=columns - 1)


def fit(folder: Path, form: str, strategy: str, steps: int | None) -> dict[str, float]:
    """The estimate and the peak of a process that makes a fit."""
    quiet()
    import pymc as pm

    from pymc_streaming import DataLoader, Trainer, arrow_source, parquet_source

    source = (arrow_source if form == "arrow" else parquet_source)(folder)
    shuffle = steps is not None and form == "parquet"
    loader = DataLoader(source, BATCH_SIZE, shuffle=shuffle, seed=0)
    columns = source.layout["batch"].row_shape[0]
    with pm.Model() as model:
        batch = pm.Data("batch", loader.placeholder())
        logistic = _model(columns)
        logistic.in_pymc(logistic.split(batch), logistic.features, len(loader))
    options = {"random_seed": 0, "on_ordered": "ignore", "progressbar": False}
    trainer = Trainer("advi", loader, model=model, strategy=strategy, **options)
    plan = trainer.plan(steps)
    trainer.fit(steps)
    parts = {f"{name}, MiB": nbytes / 2**20 for name, nbytes in plan.parts.items()}
    estimate, peak = plan.peak_bytes / 2**20, peak_mib()
    return {"estimate_mib": estimate, "peak_mib": peak, "ratio": estimate / peak, **parts}


def tables(results: Results) -> list[Table]:
    return [_decision_table(results), _peak_table(results)]


def _decision_table(results: Results) -> Table:
    headers = ["rows", "free, GiB", "container", "given", "fraction", "limit, GiB"]
    headers += ["fit()", "MiB", "sample", "fit(n)", "MiB"]
    cells = []
    for row in results.rows("decision"):
        of, found = row.of, {name: values[-1] for name, values in row.found.items()}
        given = [of["free_gib"], of["container_gib"], of["given_gib"], of["fraction"]]
        words = ["" if value is None else f"{value:g}" for value in given]
        exact = [found["fit()"], f"{found['fit(), MiB']:,.0f}", text(found["fit(), sample"])]
        steps = [found["fit(n)"], f"{found['fit(n), MiB']:,.0f}"]
        cells.append([text(of["rows"]), *words, f"{found['limit_gib']:.2f}", *exact, *steps])
    title = f"What is decided, for {COLUMNS} columns of float64"
    return Table(title, headers, cells)


def _peak_table(results: Results) -> Table:
    headers = ["strategy", "caches", "format", "columns", "rows", "estimate, MiB", "peak, MiB"]
    cells = [
        [row.of["strategy"], row.of["caches"], row.of["format"], text(row.of["columns"])]
        + [text(row.of["rows"])]
        + [spread(row, name, ",.0f") for name in ("estimate_mib", "peak_mib")]
        + [spread(row, "ratio", ".2f")]
        for row in results.rows("peak")
    ]
    return Table("Estimated and measured", [*headers, "ratio"], cells)


def draw(results: Results) -> Figure:
    figure, ((axes,),) = new_figure(figsize=(6, 5))
    rows = results.rows("peak")
    for strategy, colour in COLOURS.items():
        for caches, marker in (("warm", "o"), ("cold", "^")):
            points = [_point(row) for row in rows if _is(row, strategy, caches)]
            if points:
                label = strategy if caches == "warm" else None
                axes.scatter(*zip(*points, strict=True), color=colour, marker=marker, label=label)
    most = max([1.0, *(max(_point(row)) for row in rows)])
    line = np.array([0.0, 1.1 * most])
    axes.plot(line, line, color=GREY, linewidth=1)
    for factor in (1.3, 1 / 1.3):
        axes.plot(line, factor * line, ":", color=GREY, linewidth=1)
    axes.set(xlabel="peak, MiB", ylabel="estimate, MiB; dotted: a factor of 1.3; triangles: cold")
    axes.set_xlim(0, 1.1 * most)
    axes.set_ylim(0, 1.1 * most)
    if rows:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _is(row: Row, strategy: str, caches: str) -> bool:
    return bool(row.of["strategy"] == strategy and row.of["caches"] == caches)


def _point(row: Row) -> tuple[float, float]:
    return row.median("peak_mib"), row.median("estimate_mib")
