"""How often the order report is wrong, and what an order does to a fit.

What is measured: false alarms on shuffled tables; misses on tables in an order that matters, where
a replica of the trainer is off by more than 0.1 posterior standard deviations beyond what it is on
the same rows shuffled; what is said of the error of a fit against that of the replica, for fits of
at least ten epochs and for shorter ones; and both against the trainer itself.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm

from benchmarks.ordering_tables import (
    KINDS,
    Ordered,
    exact,
    ordered_table,
    replica_error,
    shuffled_table,
)
from benchmarks.recording import Recording, Results, Row
from benchmarks.report import BLUE, GREY, VERMILION, Figure, Table, new_figure, text
from pymc_streaming import DataLoader, OrderReport, Trainer, order_report, parquet_source
from pymc_streaming.ordering.advice import off_by

MATTERS = 0.1
PARTS = ("false alarms", "misses", "lengths", "fits")
READING = """\
A table is missed if its order harmed a fit and the report did not call it ordered. The error that
the report predicts is held against the one that a replica of the trainer finds: a point above the
line was worse than was said. See [how the order is
judged](../explanation/how-the-order-is-judged.md)."""
#: Every so many shuffled tables, one of 30 to 150 columns.
WIDE = 10


def reported(table: pa.Table, row_group: int, **options) -> tuple[OrderReport, float]:
    """The report on a table written to Parquet, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        pq.write_table(table, path, row_group_size=row_group, compression="lz4")
        started = time.perf_counter()
        report = order_report(path, progressbar=False, **options)
        return report, time.perf_counter() - started


def false_alarms(n_tables: int, seed: int, recording: Recording) -> None:
    """Verdicts on shuffled tables."""
    for number in range(n_tables):
        is_wide = number % WIDE == WIDE - 1
        table, row_group = shuffled_table(np.random.default_rng([seed, 1, number]), is_wide)
        report, took = reported(table, row_group)
        recording.add(
            "false alarms",
            {"table": number, "rows": report.rows, "columns": table.num_columns},
            {"verdict": report.verdict, "seconds": took, "reason": report.reason},
        )


def harm(table: Ordered, seeds: range) -> tuple[float, float]:
    """Error beyond that on shuffled rows, in order and through a buffer of 5 % of the table."""
    n = len(table.y)
    errors = np.array(
        [
            [replica_error(table, buffer, seed) for buffer in (None, small_buffer(table), n)]
            for seed in seeds
        ]
    ).mean(axis=0)
    return float(errors[0] - errors[2]), float(errors[1] - errors[2])


def small_buffer(table: Ordered) -> int:
    return max(len(table.y) // 20, 4 * table.batch_size)


def misses(n_tables: int, seed: int, recording: Recording) -> None:
    """Verdicts on ordered tables until so many of them have harmed a fit."""
    number = harmful = 0
    while harmful < n_tables:
        rng = np.random.default_rng([seed, 2, number])
        kind = KINDS[number % len(KINDS)]
        table = ordered_table(rng, kind)
        report, _ = reported(
            pa.table(table.columns),
            table.fragment_rows,
            batch_size=table.batch_size,
            buffer_size=small_buffer(table),
        )
        harms = harm(table, range(1 if report.verdict == "ordered" else 2))
        if report.verdict != "ordered" and max(harms) > MATTERS / 2:
            # Chance moves a few fits by more than 0.1: new ones decide.
            harms = harm(table, range(2, 10))
        harmful += max(harms) > MATTERS
        recording.add(
            "misses",
            {"table": number, "kind": kind, "strength": table.strength, **_described(table)},
            {"verdict": report.verdict, **_errors(report, table, harms)},
        )
        number += 1


def short_and_long_fits(n_tables: int, seed: int, recording: Recording) -> None:
    """Predictions for fits from a third of an epoch to thirty."""
    for number in range(n_tables):
        rng = np.random.default_rng([seed, 9, number])
        kind = KINDS[number % len(KINDS)]
        table = ordered_table(rng, kind, (0.05, 1.0))
        epochs = np.exp(rng.uniform(np.log(0.3), np.log(30)))
        steps = int(np.clip(epochs * len(table.y) / table.batch_size, 500, 60_000))
        table = replace(table, steps=steps)
        report, _ = reported(pa.table(table.columns), table.fragment_rows)
        recording.add(
            "lengths",
            {"table": number, "kind": kind, "steps": steps, **_described(table)},
            _errors(report, table, harm(table, range(2))),
        )


def _described(table: Ordered) -> dict[str, Any]:
    return {"family": table.family, "rows": len(table.y), "batch_size": table.batch_size}


def _errors(report: OrderReport, table: Ordered, harms: tuple[float, float]) -> dict[str, float]:
    """Predicted and actual, in order and through a buffer."""
    assert report.judgement is not None
    found = {}
    buffers = {"in_order": None, "through_a_buffer": small_buffer(table)}
    for (way, buffer), actual in zip(buffers.items(), harms, strict=True):
        found[f"predicted_{way}"] = report.judgement.predicted_error(
            table.batch_size, buffer, table.steps
        )
        found[f"actual_{way}"] = actual
    return found


def confirmation(n_tables: int, seed: int, recording: Recording) -> None:
    """The replica against the trainer itself, on the same rows in the same kinds of order."""
    for number in range(n_tables):
        rng = np.random.default_rng([seed, 3, number])
        kind = KINDS[number % len(KINDS)]
        table = ordered_table(rng, kind, (0.1, 0.5), (100_000, 300_000))
        mode, sd = exact(table)
        source = pa.table(table.columns)
        for buffer in (None, small_buffer(table), len(table.y)):
            report, _ = reported(source, table.fragment_rows)
            assert report.judgement is not None
            known = {None: "in order", len(table.y): "shuffled"}
            recording.add(
                "fits",
                {
                    "kind": kind,
                    **_described(table),
                    "read": known.get(buffer, f"buffer {buffer or 0:,}"),
                },
                {
                    "predicted": report.judgement.predicted_error(
                        table.batch_size, buffer, table.steps
                    ),
                    "replica": replica_error(table, buffer, 0),
                    "trainer": np.abs((fit(table, buffer) - mode) / sd).max(),
                },
            )


def fit(table: Ordered, buffer_size: int | None) -> np.ndarray:
    """The mean that the trainer finds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        pq.write_table(pa.table(table.columns), path, row_group_size=table.fragment_rows)
        options = {} if buffer_size is None else {"shuffle": True, "buffer_size": buffer_size}
        loader = DataLoader(parquet_source(path), table.batch_size, seed=0, **options)
        with pm.Model() as model:
            b = pm.Normal("b", 0.0, 1.0, shape=3)
            rows = pm.Data("batch", loader.placeholder())
            eta = b[0] + rows[:, 0] * b[1] + rows[:, 1] * b[2]
            if table.family == "linear":
                pm.Normal("y", eta, 1.0, observed=rows[:, 2], total_size=len(loader))
            else:
                pm.Bernoulli("y", logit_p=eta, observed=rows[:, 2], total_size=len(loader))
        trainer = Trainer(
            "advi", loader, model=model, random_seed=0, on_ordered="ignore", progressbar=False
        )
        mean: np.ndarray = trainer.fit(table.steps).mean.eval()
        return mean


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fits", type=int, default=4, help="tables for the trainer itself")
    parser.add_argument("--only", choices=[part.replace(" ", "-") for part in PARTS])


def run(options: argparse.Namespace, recording: Recording) -> None:
    if options.only in (None, "false-alarms"):
        false_alarms(options.tables, options.seed, recording)
    if options.only in (None, "misses"):
        misses(options.tables, options.seed, recording)
    if options.only in (None, "lengths"):
        short_and_long_fits(options.tables // 2, options.seed, recording)
    if options.only in (None, "fits"):
        confirmation(options.fits, options.seed, recording)


def tables(results: Results) -> list[Table]:
    makers = (_false_alarm_table, _miss_table, _calibration_table, _calibration_table, _fit_table)
    parts = ("false alarms", "misses", "misses", "lengths", "fits")
    return [
        make(part, results.rows(part))
        for make, part in zip(makers, parts, strict=True)
        if results.rows(part)
    ]


def _verdicts(rows: list[Row]) -> collections.Counter[str]:
    return collections.Counter(row.found["verdict"][0] for row in rows)


def _false_alarm_table(_: str, rows: list[Row]) -> Table:
    count, seconds = _verdicts(rows), [row.median("seconds") for row in rows]
    columns = sum(row.of["columns"] for row in rows)
    return Table(
        "Shuffled tables",
        ["tables", "columns", "ordered", "shuffled", "unknown", "seconds, median", "largest"],
        [
            [text(len(rows)), text(columns)]
            + [text(count[verdict]) for verdict in ("ordered", "shuffled", "unknown")]
            + [f"{np.median(seconds):.2f}", f"{max(seconds):.2f}"]
        ],
    )


def _miss_table(_: str, rows: list[Row]) -> Table:
    cells = []
    for kind in (*KINDS, "all"):
        some = [row for row in rows if kind in ("all", row.of["kind"])]
        harmful = [row for row in some if max(actual for _, actual in _pairs(row)) > MATTERS]
        count = _verdicts(some)
        missed = len(harmful) - _verdicts(harmful)["ordered"]
        numbers = (len(some), count["ordered"], count["unknown"], len(harmful), missed)
        cells.append([kind, *map(text, numbers)])
    headers = ["order", "tables", "called ordered", "unknown", "harm a fit", "of those missed"]
    return Table("Tables in an order", headers, cells)


def _pairs(row: Row) -> list[tuple[float, float]]:
    """Predicted and actual errors."""
    return [
        (row.median(f"predicted_{way}"), row.median(f"actual_{way}"))
        for way in ("in_order", "through_a_buffer")
    ]


def _calibration_table(part: str, rows: list[Row]) -> Table:
    """What is said of the error of a fit, and the error."""
    predicted, actual = np.array([pair for row in rows for pair in _pairs(row)]).T
    said = np.array([off_by(error) if error >= MATTERS else "harmless" for error in predicted])
    cells = []
    for words in dict.fromkeys(said[np.argsort(predicted)]):
        inside = actual[said == words]
        bound = MATTERS if words == "harmless" else float(words.split()[4].replace(",", ""))
        cells.append(
            [
                str(words),
                text(len(inside)),
                f"{np.median(inside):.2f}",
                f"{np.quantile(inside, 0.95):.2f}",
                f"{np.mean(inside <= bound):.0%}",
                f"{np.mean(inside > MATTERS):.0%}",
            ]
        )
    lengths = "a third of an epoch to thirty" if part == "lengths" else "ten epochs and more"
    headers = ["said", "fits", "actual, median", "95 % below", "within what is said", "above 0.1"]
    return Table(f"What is said of the error, fits of {lengths}", headers, cells)


def _fit_table(_: str, rows: list[Row]) -> Table:
    keys, names = list(rows[0].of), list(rows[0].found)
    cells = [
        [text(row.of[key]) for key in keys] + [f"{row.median(name):.2f}" for name in names]
        for row in rows
    ]
    headers = [name.replace("_", " ") for name in (*keys, *names)]
    return Table("The trainer itself, errors in posterior sds", headers, cells)


def draw(results: Results) -> Figure:
    """Actual errors by predicted ones."""
    figure, ((axes,),) = new_figure(figsize=(6, 5))
    least = 0.01
    for part, colour, marker in (("misses", BLUE, "o"), ("lengths", VERMILION, "^")):
        pairs = [pair for row in results.rows(part) for pair in _pairs(row)]
        if pairs:
            predicted, actual = np.array(pairs).clip(min=least).T
            label = "ten epochs and more" if part == "misses" else "0.3 to 30 epochs"
            axes.plot(predicted, actual, marker, color=colour, alpha=0.5, label=label)
    axes.plot([least, 100], [least, 100], color=GREY, linewidth=1)
    axes.set(
        xscale="log", yscale="log", xlabel="predicted error, posterior sds (0.01 and less at 0.01)"
    )
    axes.set_ylabel("error beyond that on shuffled rows, posterior sds")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure
