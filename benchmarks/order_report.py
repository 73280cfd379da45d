"""How often the order report is wrong, and what an order does to a fit.

    python -m benchmarks.order_report --tables 200

Five tables: false alarms on shuffled tables; misses on tables in an order that matters, where a
replica of the trainer is off by more than 0.1 posterior standard deviations beyond what it is on
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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm

import benchmarks
from benchmarks.ordering_tables import (
    KINDS,
    Ordered,
    exact,
    ordered_table,
    replica_error,
    shuffled_table,
)
from pymc_streaming import DataLoader, OrderReport, Trainer, order_report, parquet_source
from pymc_streaming.ordering.advice import off_by

MATTERS = 0.1
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


def false_alarms(n_tables: int, seed: int) -> None:
    """Verdicts on shuffled tables."""
    verdicts: collections.Counter[str] = collections.Counter()
    seconds, columns = [], 0
    for number in range(n_tables):
        is_wide = number % WIDE == WIDE - 1
        table, row_group = shuffled_table(np.random.default_rng([seed, 1, number]), is_wide)
        report, took = reported(table, row_group)
        verdicts[report.verdict] += 1
        seconds.append(took)
        columns += table.num_columns
        if report.verdict == "ordered":
            print(f"  false alarm, table {number}, {report.rows:,} rows: {report.reason}")
            for record in (*report.columns, *report.relations):
                if getattr(record, "ordered", True):
                    print(f"    {record}")
    print(f"| shuffled tables ({columns:,} columns) | ordered | shuffled | unknown | seconds |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| {n_tables} | {verdicts['ordered']} | {verdicts['shuffled']} | {verdicts['unknown']} "
        f"| median {np.median(seconds):.2f}, largest {max(seconds):.2f} |\n",
        flush=True,
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


def misses(n_tables: int, seed: int) -> None:
    """Verdicts on ordered tables until so many of them have harmed a fit."""
    counts = {kind: collections.Counter[str]() for kind in KINDS}
    predictions = []
    number = 0
    while sum(count["harmful"] for count in counts.values()) < n_tables:
        rng = np.random.default_rng([seed, 2, number])
        kind = KINDS[number % len(KINDS)]
        table = ordered_table(rng, kind)
        number += 1
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
        counts[kind]["all"] += 1
        counts[kind][report.verdict] += 1
        if max(harms) > MATTERS:
            counts[kind]["harmful"] += 1
            if report.verdict != "ordered":
                counts[kind]["missed"] += 1
                print(
                    f"  missed: {kind}, {table.family}, {len(table.y):,} rows, batch "
                    f"{table.batch_size:,}, strength {table.strength:.3f}, off by {harms[0]:.2f} "
                    f"in order, {harms[1]:.2f} through a buffer",
                    flush=True,
                )
        assert report.judgement is not None
        for buffer, actual in zip((None, small_buffer(table)), harms, strict=True):
            predicted = report.judgement.predicted_error(table.batch_size, buffer, table.steps)
            predictions.append((predicted, actual))
    print("| order | tables | called ordered | unknown | harm a fit | of those missed |")
    print("| --- | --- | --- | --- | --- | --- |")
    total: collections.Counter[str] = collections.Counter()
    for kind, count in [*counts.items(), ("all", total)]:
        total.update(count if kind != "all" else {})
        shown = ("all", "ordered", "unknown", "harmful", "missed")
        print(f"| {kind} | " + " | ".join(str(count[key]) for key in shown) + " |")
    print()
    calibration(np.array(predictions))


def calibration(predictions: np.ndarray) -> None:
    """What is said of the error of a fit, and the error."""
    predicted, actual = predictions.T
    said = np.array([off_by(error) if error >= MATTERS else "harmless" for error in predicted])
    print("| said | fits | actual, median | 95 % below | within what is said | above 0.1 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for words in dict.fromkeys(said[np.argsort(predicted)]):
        inside = actual[said == words]
        bound = MATTERS if words == "harmless" else float(words.split()[4].replace(",", ""))
        print(
            f"| {words} | {len(inside)} | {np.median(inside):.2f} "
            f"| {np.quantile(inside, 0.95):.2f} | {np.mean(inside <= bound):.0%} "
            f"| {np.mean(inside > MATTERS):.0%} |"
        )
    print(flush=True)


def short_and_long_fits(n_tables: int, seed: int) -> None:
    """Predictions for fits from a third of an epoch to thirty."""
    predictions = []
    for number in range(n_tables):
        rng = np.random.default_rng([seed, 9, number])
        table = ordered_table(rng, KINDS[number % len(KINDS)], (0.05, 1.0))
        epochs = np.exp(rng.uniform(np.log(0.3), np.log(30)))
        steps = int(np.clip(epochs * len(table.y) / table.batch_size, 500, 60_000))
        table = replace(table, steps=steps)
        report, _ = reported(pa.table(table.columns), table.fragment_rows)
        assert report.judgement is not None
        harms = harm(table, range(2))
        for buffer, actual in zip((None, small_buffer(table)), harms, strict=True):
            predicted = report.judgement.predicted_error(table.batch_size, buffer, steps)
            predictions.append((predicted, actual))
    calibration(np.array(predictions))


def confirmation(n_tables: int, seed: int) -> None:
    """The replica against the trainer itself, on the same rows in the same kinds of order."""
    print("| order | rows | batch | read | predicted | replica | trainer |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for number in range(n_tables):
        rng = np.random.default_rng([seed, 3, number])
        table = ordered_table(rng, KINDS[number % len(KINDS)], (0.1, 0.5), (100_000, 300_000))
        mode, sd = exact(table)
        source = pa.table(table.columns)
        for buffer in (None, small_buffer(table), len(table.y)):
            report, _ = reported(source, table.fragment_rows)
            assert report.judgement is not None
            predicted = report.judgement.predicted_error(table.batch_size, buffer, table.steps)
            fitted = fit(table, buffer)
            known = {None: "in order", len(table.y): "shuffled"}
            words = known.get(buffer, f"buffer {buffer or 0:,}")
            print(
                f"| {table.kind}, {table.family} | {len(table.y):,} | {table.batch_size:,} "
                f"| {words} | {predicted:.2f} | {replica_error(table, buffer, 0):.2f} "
                f"| {np.abs((fitted - mode) / sd).max():.2f} |",
                flush=True,
            )
    print()


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


def main() -> None:
    """Make tables, judge them, fit them, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fits", type=int, default=4, help="tables for the trainer itself")
    parser.add_argument("--only", choices=["false-alarms", "misses", "lengths", "fits"])
    options = parser.parse_args()
    print(benchmarks.conditions())
    if options.only in (None, "false-alarms"):
        false_alarms(options.tables, options.seed)
    if options.only in (None, "misses"):
        misses(options.tables, options.seed)
    if options.only in (None, "lengths"):
        short_and_long_fits(options.tables // 2, options.seed)
    if options.only in (None, "fits"):
        confirmation(options.fits, options.seed)


if __name__ == "__main__":
    main()
