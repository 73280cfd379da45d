"""What the order of a table does to a posterior: an order book that drifts, and real flights.

Each fit is compared with the exact mode of all rows: streamed as the table lies, through shuffle
buffers of two sizes, and after the table was shuffled on disk. Short fits go through half the table
or once through it. * marks a fit with an OrderedDataWarning, ! one with a NotConvergedWarning.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm

from benchmarks import BenchmarkError, flights, order_book, order_pictures
from benchmarks.recording import Recording, Results
from benchmarks.report import Figure, Table, save, text
from pymc_streaming import DataLoader, Trainer, parquet_source, preshuffle
from pymc_streaming.errors import NotConvergedWarning, OrderedDataWarning

BATCH = 4096
SHORTEST = 500  # a fit of fewer steps does not arrive, whatever the order
PASSES = {"half a pass": 0.5, "one pass": 1.0}
SD = "posterior standard deviation"
ON_DISK = "shuffled on disk"
WAYS: dict[str, dict[str, Any]] = {
    "no shuffle": {},
    "buffer of 100,000 rows": {"shuffle": True, "buffer_size": 100_000},
    "buffer of 1,000,000 rows": {"shuffle": True, "buffer_size": 1_000_000},
    ON_DISK: {"shuffle": True},
}
ORDER_BOOK, FLIGHTS = "order book", "flights"
READING = """\
An error is the largest difference of a posterior mean from the exact mode; beside it stands the
largest posterior standard deviation, which no error should come near. `*` marks a fit with an
OrderedDataWarning, `!` one with a NotConvergedWarning. See
[why to shuffle](../explanation/why-shuffle.md)."""
MARKS = {OrderedDataWarning: "*", NotConvergedWarning: "!"}


@dataclass(frozen=True)
class Subject:
    """A table in order and shuffled, its model, and how far a posterior mean is from the truth."""

    name: str
    ordered: Any  # what parquet_source opens
    shuffled: Any
    source: Callable[[Any], Any]
    model: Callable[[DataLoader], pm.Model]
    error: Callable[[np.ndarray], float]
    sd: float  # the largest posterior standard deviation among what is compared


def compare(
    subject: Subject, passes: Sequence[float], steps: int, seed: int, recording: Recording
) -> None:
    """Record each fit of so many passes, and one of `steps` steps."""
    loaders = {
        way: DataLoader(
            subject.source(subject.shuffled if way == ON_DISK else subject.ordered),
            BATCH,
            seed=seed,
            **options,
        )
        for way, options in WAYS.items()
    }
    n_rows = len(loaders[ON_DISK])
    for n in (*(round(length * n_rows / BATCH) for length in passes), steps):
        if n < SHORTEST:
            continue
        for way, loader in loaders.items():
            error, marks = fit(subject, loader, n, seed)
            recording.add(
                subject.name,
                {"rows": n_rows, "steps": n, "way": way},
                {"error": error, "warned": marks, "sd": subject.sd},
            )


def fit(subject: Subject, loader: DataLoader, n: int, seed: int) -> tuple[float, str]:
    """Error of the posterior mean after `n` steps, and the marks of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Trainer("advi", loader, model=subject.model(loader), random_seed=seed)
        mean = trainer.fit(n).mean.eval()
    kinds = {warning.category for warning in caught}
    return subject.error(mean), "".join(mark for kind, mark in MARKS.items() if kind in kinds)


def order_book_subject(paths: list[Path], folder: Path, seed: int) -> Subject:
    """The order book of the shards given."""
    mode, sd = order_book.exact_mode(lambda: order_book.blocks(paths))
    preshuffle(paths, folder, seed=seed, progressbar=False)
    return Subject(
        ORDER_BOOK,
        paths,
        folder,
        lambda path: parquet_source(path, columns=order_book.COLUMNS),
        lambda loader: order_book.model(loader.batch_size, len(loader)),
        lambda mean: float(np.abs(mean - mode).max()),
        sd.max(),
    )


def flights_subject(path: Path, folder: Path, seed: int) -> Subject:
    """Flights, sorted by date: the slopes of distance and hour, beside those of 229 airports."""
    mode, curvature, count = flights.exact_mode(path)
    slopes = slice(1, 6)
    preshuffle(path, folder, seed=seed, progressbar=False)

    def model(loader: DataLoader) -> pm.Model:
        zeros = loader.placeholder()
        with pm.Model() as model:
            X, origin, late = (pm.Data(name, zeros[name]) for name in ("X", "origin", "late"))
            flights.likelihood(X, origin, late, len(loader), len(count))
        return model

    return Subject(
        FLIGHTS,
        path,
        folder,
        flights.source,
        model,
        lambda mean: float(np.abs(mean - mode)[slopes].max()),
        curvature[slopes].min() ** -0.5,
    )


def draw_order_book(results: Results, steps: int) -> Figure:
    """Errors by number of rows: a panel for each length of a fit."""
    panels = {}
    for heading in (*PASSES, f"{steps:,} steps"):
        lengths = {
            n_rows: round(PASSES[heading] * n_rows / BATCH) if heading in PASSES else steps
            for n_rows in results.keys(ORDER_BOOK, "rows")
        }
        lines = _lines(results, ORDER_BOOK, lengths)
        if any(rows for rows, _ in lines.values()):
            panels[heading] = {
                way: ([n_rows / 1e6 for n_rows in rows], errors)
                for way, (rows, errors) in lines.items()
            }
    return order_pictures.draw_errors(
        panels,
        title="An order book that drifts: how far the posterior mean is off",
        xlabel="million rows, in the order of time",
        ylabel="largest error of a posterior mean",
    )


def _lines(results: Results, table: str, lengths: dict[int, int]) -> dict[str, Any]:
    """By way, the tables' rows and the errors of fits of the given lengths."""
    lines: dict[str, Any] = {way: ([], []) for way in (*WAYS, SD)}
    for n_rows, n in lengths.items():
        for row in results.rows(table, rows=n_rows, steps=n):
            lines[row.of["way"]][0].append(n_rows)
            lines[row.of["way"]][1].append(row.median("error"))
            if row.of["way"] == ON_DISK:
                lines[SD][0].append(n_rows)
                lines[SD][1].append(row.median("sd"))
    return lines


def draw_flights(results: Results) -> Figure:
    """Errors by number of passes."""
    lines: dict[str, Any] = {way: ([], []) for way in (*WAYS, SD)}
    for row in results.rows(FLIGHTS):
        passes = row.of["steps"] * BATCH / row.of["rows"]
        both = [(row.of["way"], "error")] + ([(SD, "sd")] if row.of["way"] == ON_DISK else [])
        for line, name in both:
            lines[line][0].append(passes)
            lines[line][1].append(row.median(name))
    n_rows = results.rows(FLIGHTS)[0].of["rows"]
    return order_pictures.draw_errors(
        {"": lines},
        title=f"{n_rows:,} flights, sorted by date: how far the posterior mean is off",
        xlabel="passes over the table",
        ylabel="largest error of a slope",
        xscale="log",
    )


def draw(results: Results) -> Figure:
    if results.rows(ORDER_BOOK):
        return draw_order_book(results, results.record["options"]["steps"])
    return draw_flights(results)


def tables(results: Results) -> list[Table]:
    cells = []
    for table in results.parts:
        fits = dict.fromkeys((row.of["rows"], row.of["steps"]) for row in results.rows(table))
        for n_rows, n in fits:
            found = {row.of["way"]: row for row in results.rows(table, rows=n_rows, steps=n)}
            sd = next(iter(found.values())).median("sd")
            cells.append(
                [table, text(n_rows), text(n), f"{n * BATCH / n_rows:.3g}", f"{sd:.4f}"]
                + [
                    f"{found[way].median('error'):.5f}{found[way].found['warned'][0]}"
                    if way in found
                    else "–"
                    for way in WAYS
                ]
            )
    return [Table("", ["table", "rows", "steps", "passes", "largest posterior sd", *WAYS], cells)]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[10**6 * n for n in (1, 5, 10, 20, 26)]
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row-group-size", type=int, default=1_000_000, help="of the order book")
    parser.add_argument("--flights", type=Path, help="real flights, sorted by date")
    parser.add_argument(
        "--pictures", type=Path, help="folder for the pictures of the documentation"
    )


def run(options: argparse.Namespace, recording: Recording) -> None:
    if not options.rows and not options.flights:
        raise BenchmarkError("There is nothing to fit: give --rows, or --flights.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for n_rows in sorted(options.rows):
            part = folder / f"{n_rows}"
            part.mkdir()
            paths = order_book.write(part, n_rows, options.row_group_size, options.seed)
            subject = order_book_subject(paths, part / "shuffled", options.seed)
            compare(subject, tuple(PASSES.values()), options.steps, options.seed, recording)
            shutil.rmtree(part)
        if options.flights:
            subject = flights_subject(options.flights, folder / "flights", options.seed)
            compare(subject, (0.5, 1.0, 3.0, 10.0), options.steps, options.seed, recording)
    if options.pictures:
        results = recording.results()
        save(order_pictures.draw_deck(), options.pictures / "deck.png")
        if options.rows:
            save(draw_order_book(results, options.steps), options.pictures / "drift.png")
        if options.flights:
            save(draw_flights(results), options.pictures / "flights.png")
