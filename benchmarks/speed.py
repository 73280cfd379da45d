"""Rows a second and time of a step, against PyMC, pymc-extras and NumPyro in one run.

The table of each model is drawn by seed, shuffled on disk by this package into Parquet and into
Arrow files of the precision that is measured, and read from there by all. A model and a precision
have a process of their own; in it the contestants take turns, round by round, so that what slows
the machine down for a while slows all of them.

minibatch, minibatch-adam   pm.fit on pm.Minibatch with the table in memory, as PyMC's documentation
                            writes it: with its default optimiser, and with pm.adam
extras                      the DataLoader and the Trainer of pymc-extras, from Parquet, shuffled
numpyro-scan, -index        NumPyro's SVI (AutoNormal, Adam), the table in memory, rows drawn at
                            random: many steps in one compiled scan, or a call for each
numpyro-host                the same on batches in NumPy that are next to each other in memory
parquet, arrow              this package, in the order of the shuffled files
arrow-shuffle               the same, shuffled again within a bounded buffer
...-cold                    the files dropped from the page cache beforehand (fsync and
                            POSIX_FADV_DONTNEED), then once through the table; cached_before says
                            which share of them was in memory all the same
resident, fixed             this package's step without reading: on consecutive views of the whole
                            table in memory, and on one batch again and again

A measurement is one call of fit, its start included, for as many steps as take about a second
(`--seconds`), and at least 50: a start, which may fill a shuffle buffer first, is not a step.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.models import MODELS
from benchmarks.processes import each_from_fresh, float_environment, from_fresh, quiet
from benchmarks.recording import Recording, Results, Row
from benchmarks.report import (
    BLUE,
    VERMILION,
    Figure,
    Table,
    dots,
    new_figure,
    spread,
    text,
)

CONTESTANTS = (
    "minibatch", "minibatch-adam", "extras", "numpyro-scan", "numpyro-index", "numpyro-host",
    "parquet", "parquet-cold", "arrow", "arrow-cold", "arrow-shuffle", "arrow-shuffle-cold",
    "resident", "fixed",
)  # fmt: skip
PRECISIONS = ("float64", "float32")
FEWEST_STEPS = 50
READING = """\
A ratio is that of medians. **× pm.Minibatch** is the speed over that of `pm.fit` on `pm.Minibatch`
in float64, which is what PyMC does by default; **over the limit** the time of a step over that on
consecutive views of the table in memory, in the same precision: what is above 1 is the cost of
reading. The step on a fixed batch finds its rows in the processor's cache, and is no limit of
anything that has to read rows; it is a call for each step, which small batches show. A cold run
reads each file from the disk once; on a virtual machine the host may have them in memory still.

The contestants do not do the same in a step. `pm.fit` and NumPyro draw rows with replacement, the
others go through a shuffled table. This package's scales move at every fourth step, on a pair of
draws; the others move everything at each step, on one draw. How far a fit comes in so many steps is
another matter: `python -m benchmarks accuracy`."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[256, 4096, 32_768])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a measurement should take")
    parser.add_argument(
        "--rows",
        type=int,
        default=2_000_000,
        help="of 14 columns; fewer of more, but two batches",
    )
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace, recording: Recording) -> None:
    for name in options.models:
        model = MODELS[name]
        n_rows = min(options.rows, options.rows * 14 // len(model.columns))
        n_rows = max(n_rows, 2 * max(options.batch_sizes))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            from_fresh(prepare, name, folder, n_rows, options.seed, options.precisions)
            for precision in options.precisions:
                steady = each_from_fresh(
                    measure,
                    name,
                    folder,
                    precision,
                    options.batch_sizes,
                    options.contestants,
                    options.rounds,
                    options.seconds,
                    environment=float_environment(precision),
                )
                for of, found in steady:
                    of = {"model": name, "precision": precision, **of, "rows": n_rows}
                    recording.add("step", of, found)


def prepare(name: str, folder: Path, n_rows: int, seed: int, precisions: list[str]) -> None:
    """The table, shuffled, as Parquet and as Arrow files of each precision."""
    from benchmarks.models import write_table
    from pymc_streaming import preshuffle

    raw = folder / "raw.parquet"
    write_table(MODELS[name], raw, n_rows, seed)
    preshuffle(raw, folder / "parquet", seed=seed, format="parquet", progressbar=False)
    for precision in precisions:
        preshuffle(
            raw, folder / precision, seed=seed, format="arrow", dtype=precision, progressbar=False
        )
    raw.unlink()


def measure(
    name: str,
    folder: Path,
    precision: str,
    batch_sizes: list[int],
    chosen: list[str],
    rounds: int,
    seconds: float,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What was measured, and what was found: for each contestant in each round."""
    from benchmarks.contestants import Contest, in_memory

    quiet()
    rows = in_memory(folder / precision)
    for batch_size in batch_sizes:
        contest = Contest(MODELS[name], rows, folder / "parquet", folder / precision, batch_size)
        contestants = {which: contest.contestant(which) for which in chosen}
        one_pass = len(rows) // batch_size
        steps = {
            which: one_pass if contestant.cold else _steps_for(contestant, seconds)
            for which, contestant in contestants.items()
        }
        for _ in range(rounds):
            for which, contestant in contestants.items():
                found = _timed(contestant, steps[which])
                found["rows_per_second"] = batch_size / found["microseconds"] * 1e6
                yield {"batch_size": batch_size, "contestant": which}, found


def _timed(contestant: Any, n: int) -> dict[str, Any]:
    from benchmarks import page_cache

    found: dict[str, Any] = {}
    if contestant.cold:
        page_cache.drop(contestant.files)
        found["cached_before"] = page_cache.cached_share(contestant.files)
    else:
        page_cache.warm(contestant.files)
    started = time.perf_counter()
    contestant.run(n)
    return {"microseconds": (time.perf_counter() - started) / n * 1e6, "steps": n, **found}


def _steps_for(contestant: Any, seconds: float) -> int:
    """So many steps that they take about this long: doubled until half of it is reached."""
    unit = contestant.unit
    for _ in range(2):  # the first calls compile, with some
        contestant.run(unit)
    n = fewest = math.ceil(FEWEST_STEPS / unit) * unit
    while True:
        taken = _timed(contestant, n)["microseconds"] * n / 1e6
        if taken >= seconds / 2:
            return max(fewest, math.ceil(n * seconds / taken / unit) * unit)
        n *= 2


def tables(results: Results) -> list[Table]:
    from benchmarks.contestants import TITLES

    made = []
    precisions = [p for p in PRECISIONS if p in results.keys("step", "precision")]
    headers = ["contestant"]
    for precision in precisions:
        headers += [f"µs a step, {precision}", "M rows/s", "× pm.Minibatch", "over the limit"]
    for model, batch_size in _contests(results):
        found = _found(results, model, batch_size)
        base = found.get(("float64", "minibatch"))
        rows = []
        for which in CONTESTANTS:
            if not any((precision, which) in found for precision in precisions):
                continue
            cells = [TITLES[which]]
            for precision in precisions:
                row = found.get((precision, which))
                limit = found.get((precision, "resident"))
                cells += _cells(row, base, limit)
            rows.append(cells)
        n_rows = next(iter(found.values())).of["rows"]
        title = f"{MODELS[model].title}, batch {batch_size:,}, {n_rows:,} rows"
        made.append(Table(title, headers, rows))
    return made


def _cells(row: Row | None, base: Row | None, limit: Row | None) -> list[str]:
    if row is None:
        return ["–"] * 4
    time_taken = row.median("microseconds")
    return [
        spread(row, "microseconds", ",.0f"),
        text(row.median("rows_per_second") / 1e6),
        text(base.median("microseconds") / time_taken if base else None, ".2f"),
        text(time_taken / limit.median("microseconds") if limit else None, ".2f"),
    ]


def _contests(results: Results) -> list[tuple[str, int]]:
    """Model and size of batch, as they were measured."""
    rows = results.rows("step")
    return list(dict.fromkeys((row.of["model"], row.of["batch_size"]) for row in rows))


def _found(results: Results, model: str, batch_size: int) -> dict[tuple[str, str], Row]:
    rows = results.rows("step", model=model, batch_size=batch_size)
    return {(row.of["precision"], row.of["contestant"]): row for row in rows}


def draw(results: Results) -> Figure:
    """A panel for each model and size of batch; rows a second, on one scale for all."""
    from benchmarks.contestants import TITLES

    models = results.keys("step", "model")
    sizes = results.keys("step", "batch_size")
    shown = [which for which in CONTESTANTS if which in results.keys("step", "contestant")]
    styles = {
        "float64": {"color": BLUE, "marker": "o"},
        "float32": {"color": VERMILION, "marker": "D"},
    }
    figure, panels = new_figure(
        len(models),
        len(sizes),
        figsize=(3.2 + 3.4 * len(sizes), 1.2 + (0.9 + 0.24 * len(shown)) * len(models)),
        sharex=True,
        sharey=True,
    )
    for model, line in zip(models, panels, strict=True):
        for size, axes in zip(sizes, line, strict=True):
            found = _found(results, model, size)
            for precision, style in styles.items():
                rows = [
                    found.get((precision, which), Row({}, {"rows_per_second": []}))
                    for which in shown
                ]
                if any(row.numbers("rows_per_second") for row in rows):
                    titles = [TITLES[which] for which in shown]
                    dots(axes, rows, titles, "rows_per_second", label=precision, **style)
            axes.set_xscale("log")
            axes.set_title(f"{MODELS[model].title}, batch {size:,}", size=10)
    for axes in panels[-1]:
        axes.set_xlabel("rows a second (median, smallest to largest)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return figure
