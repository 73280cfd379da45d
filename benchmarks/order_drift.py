"""What the order of a table does to a posterior: an order book that drifts, and real flights.

    python -m benchmarks.order_drift --flights PATH/flights-3m.parquet --output docs/explanation

Each fit is compared with the exact mode of all rows: streamed as the table lies, through shuffle
buffers of two sizes, and after the table was shuffled on disk. Short fits go through half the table
or once through it. `*` marks a fit with an OrderedDataWarning, `!` one with a NotConvergedWarning.
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
import pyarrow.parquet as pq
import pymc as pm

import benchmarks
from benchmarks import flights, order_book, order_pictures
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


#: By number of steps: by way, the error; and the posterior standard deviation.
Errors = dict[int, dict[str, float]]


def compare(subject: Subject, passes: Sequence[float], steps: int, seed: int) -> Errors:
    """Print a row for each fit of so many passes, and for one of `steps` steps."""
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
    found: Errors = {}
    for n in (*(round(length * n_rows / BATCH) for length in passes), steps):
        if n < SHORTEST:
            continue
        cells, found[n] = [], {}
        for way, loader in loaders.items():
            found[n][way], marks = fit(subject, loader, n, seed)
            cells.append(f"{found[n][way]:.5f}{marks}")
        found[n][SD] = subject.sd
        print(
            f"| {subject.name} | {n_rows:,} | {n:,} | {n * BATCH / n_rows:.3g} | {subject.sd:.4f} "
            f"| {' | '.join(cells)} |",
            flush=True,
        )
    return found


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
        "order book",
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
        "flights",
        path,
        folder,
        flights.source,
        model,
        lambda mean: float(np.abs(mean - mode)[slopes].max()),
        curvature[slopes].min() ** -0.5,
    )


def draw_order_book(found: dict[int, Errors], steps: int, path: Path) -> None:
    """Errors by number of rows: a panel for each length of a fit."""
    panels = {}
    for heading in (*PASSES, f"{steps:,} steps"):
        lengths = {
            n_rows: round(PASSES[heading] * n_rows / BATCH) if heading in PASSES else steps
            for n_rows in found
        }
        kept = [n_rows for n_rows, n in lengths.items() if n in found[n_rows]]
        panels[heading] = {
            way: (
                [n_rows / 1e6 for n_rows in kept],
                [found[n_rows][lengths[n_rows]][way] for n_rows in kept],
            )
            for way in (*WAYS, SD)
        }
    order_pictures.draw_errors(
        panels,
        path,
        title="An order book that drifts: how far the posterior mean is off",
        xlabel="million rows, in the order of time",
        ylabel="largest error of a posterior mean",
    )


def draw_flights(errors: Errors, n_rows: int, path: Path) -> None:
    """Errors by number of passes."""
    passes = [n * BATCH / n_rows for n in errors]
    lines = {way: (passes, [error[way] for error in errors.values()]) for way in (*WAYS, SD)}
    order_pictures.draw_errors(
        {"": lines},
        path,
        title=f"{n_rows:,} flights, sorted by date: how far the posterior mean is off",
        xlabel="passes over the table",
        ylabel="largest error of a slope",
        xscale="log",
    )


def main() -> None:
    """Write the tables, fit, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="*", default=[10**6 * n for n in (1, 5, 10, 20, 26)]
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--row-group-size", type=int, default=1_000_000, help="of the order book")
    parser.add_argument("--flights", type=Path, help="real flights, sorted by date")
    parser.add_argument("--output", type=Path, help="folder for pictures")
    options = parser.parse_args()
    print(benchmarks.conditions())
    print(f"| table | rows | steps | passes | largest posterior sd | {' | '.join(WAYS)} |")
    print("| --- " * (5 + len(WAYS)) + "|")
    if options.output:
        order_pictures.draw_deck(options.output / "deck.png")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = {}
        for n_rows in sorted(options.rows):
            part = folder / f"{n_rows}"
            part.mkdir()
            paths = order_book.write(part, n_rows, options.row_group_size, options.seed)
            subject = order_book_subject(paths, part / "shuffled", options.seed)
            found[n_rows] = compare(subject, tuple(PASSES.values()), options.steps, options.seed)
            shutil.rmtree(part)
        if found and options.output:
            draw_order_book(found, options.steps, options.output / "drift.png")
        if options.flights:
            subject = flights_subject(options.flights, folder / "flights", options.seed)
            errors = compare(subject, (0.5, 1.0, 3.0, 10.0), options.steps, options.seed)
            if options.output:
                n_rows = pq.read_metadata(options.flights).num_rows
                draw_flights(errors, n_rows, options.output / "flights.png")


if __name__ == "__main__":
    main()
