"""Read a table over HTTP while answers fail, end early and are slow: is every row there, once?

The table is on a server on this machine that speaks the hub's protocol, behind a latency, and is
read through the hub's own client. Of the answers with a piece of a file some part fails (500, 429
or no answer), as many end in the middle, and as many take their time. Each seed reads the same
number of epochs without and with faults.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

FILES, GROUPS = 4, 5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each run (default: 20)")
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds (default: 10)")
    parser.add_argument("--rows", type=int, default=200_000, help="rows (default: 200,000)")
    parser.add_argument(
        "--part", type=float, default=0.05, help="of each kind of fault (default: 0.05)"
    )
    parser.add_argument(
        "--latency", type=float, default=0.05, metavar="SECONDS",
        help="of every answer (default: 0.05)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=4, help="threads that read (default: 4)")
    return parser.parse_args()


def write(folder: Path, n_rows: int) -> None:
    folder.mkdir(parents=True)
    per_file = n_rows // FILES
    for number in range(FILES):
        rows = np.arange(number * per_file, (number + 1) * per_file)
        noise = np.random.default_rng(number).normal(size=(13, per_file))
        table = pa.table({"row": rows} | {f"x{i}": column for i, column in enumerate(noise)})
        pq.write_table(table, folder / f"train-{number}.parquet", row_group_size=per_file // GROUPS)


def read(source: object, seed: int, options: argparse.Namespace) -> tuple[float, int]:
    """Seconds for the epochs, and in how many of them a row was missing or doubled."""
    from pymc_streaming import DataLoader

    loader = DataLoader(source, 1_000, shuffle=True, seed=seed, num_workers=options.workers)
    began, wrong = time.perf_counter(), 0
    for _ in range(options.epochs):
        times = np.zeros(len(loader), dtype=int)
        for batch in loader:
            np.add.at(times, batch["batch"][:, 0].astype(int), 1)
        wrong += not (times == 1).all()
    return time.perf_counter() - began, wrong


def main() -> int:
    options = arguments()
    with socket.socket() as free:  # where the client, which asks when it is imported, finds it
        free.bind(("127.0.0.1", 0))
        os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{free.getsockname()[1]}"
    from pymc_streaming import hf_source
    from tests.hub import flaky, hub_serving

    logging.disable(logging.WARNING)  # each failure is one
    ratios, wrong, faults = [], 0, 0
    with tempfile.TemporaryDirectory() as folder, Progress(disable=not sys.stderr.isatty()) as bar:
        write(Path(folder) / "owner" / "table", options.rows)
        task = bar.add_task("seeds", total=options.seeds)
        with hub_serving(Path(folder), latency=options.latency) as hub:
            source = hf_source("owner/table")
            for seed in range(options.seeds):
                hub.fault = lambda _: None
                without, missed = read(source, seed, options)
                hub.fault = flaky(seed, options.part)
                with_faults, missed_then = read(source, seed, options)
                wrong += missed + missed_then
                ratios.append(with_faults / without)
                faults, kinds = sum(hub.faults.values()), dict(hub.faults)
                print(
                    f"seed {seed}: {without:.1f} s, with faults {with_faults:.1f} s, "
                    f"{ratios[-1]:.2f} times; faults so far {kinds}; epochs with a row missing or "
                    f"doubled: {wrong}",
                    flush=True,
                )
                bar.advance(task)
    print(
        f"{options.seeds} seeds, {options.epochs} epochs each: {faults:,} faults, {wrong} epochs "
        f"with a row missing or doubled; time {statistics.median(ratios):.2f} times that without "
        f"faults (median; {min(ratios):.2f} to {max(ratios):.2f})"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
