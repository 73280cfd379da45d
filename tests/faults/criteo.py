"""The Criteo program of the design documents, from a hub: bytes on the wire, and memory.

Tables with Criteo's 40 columns, a label, 13 numbers and 26 codes of text, are drawn by seed and put
on a server on this machine that speaks the hub's protocol. The program, of which only the path is
another, reads 14 columns through the hub's own client, in a process of its own. It is compared with
what Newton's method finds on all rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SPAWN = multiprocessing.get_context("spawn")
FEATURES = [f"integer_feature_{i}" for i in range(1, 14)]
FILE_ROWS = 250_000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.criteo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[250_000, 1_000_000, 4_000_000],
        help="rows of the tables (default: 250,000, 1,000,000 and 4,000,000)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=20_000, help="default: 20,000")
    return parser.parse_args()


def write(folder: Path, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The table, and the mode and the standard deviations of the posterior."""
    from tests.models import logistic_newton

    folder.mkdir(parents=True)
    weights = np.random.default_rng(0).normal(scale=0.3, size=13)
    all_X, all_y = [], []
    for number, start in enumerate(range(0, n_rows, FILE_ROWS)):
        random = np.random.default_rng(number + 1)
        count = min(FILE_ROWS, n_rows - start)
        X = random.normal(size=(count, 13))
        y = random.random(count) < 1 / (1 + np.exp(3.0 - X @ weights))
        codes = np.array([f"{code:08x}" for code in random.integers(0, 2**32, 100_000)])
        columns: dict[str, Any] = {"label": y.astype(np.int8)}
        columns |= dict(zip(FEATURES, X.T, strict=True))
        columns |= {
            f"categorical_feature_{i}": codes[random.integers(0, 100_000, count)]
            for i in range(1, 27)
        }
        pq.write_table(
            pa.table(columns), folder / f"train-{number:05}.parquet", row_group_size=50_000
        )
        all_X.append(X)
        all_y.append(y)
    X = np.concatenate(all_X)
    design = np.column_stack([np.ones(len(X)), X])
    mode, precision = logistic_newton(design, np.concatenate(all_y), 1.5)
    return mode, np.diag(precision) ** -0.5


def bytes_of_columns(path: Path) -> int:
    footer = pq.read_metadata(path)
    return sum(
        footer.row_group(group).column(column).total_compressed_size
        for group in range(footer.num_row_groups)
        for column in range(14)
    )


def serve(folder: Path, ready: Any, asked: Any, answers: Any) -> None:
    from tests.hub import hub_serving

    with hub_serving(folder) as hub:
        ready.set()
        while asked.get():
            answers.put(hub.sent)
            hub.sent = 0


def program(steps: int, results: Any) -> None:
    import warnings

    import pymc as pm

    from pymc_streaming import DataLoader, Trainer, parquet_source

    warnings.simplefilter("ignore")
    loader = DataLoader(
        parquet_source("hf://datasets/owner/criteo", columns=[*FEATURES, "label"]),
        batch_size=4096,
        sample_shape=(14,),  # 13 features + label
        total_size="auto",  # len(loader) == N
    )
    with pm.Model():
        b = pm.Normal("b", 0.0, 1.5, shape=14)
        batch = pm.Data("batch", np.zeros((4096, 14)))  # placeholder
        logit = b[0] + pm.math.dot(batch[:, :13], b[1:])
        pm.Bernoulli(
            "click",
            logit_p=logit,
            observed=batch[:, 13],
            total_size=len(loader),
        )
        # no callbacks: the Trainer feeds "batch" each step
        trainer = Trainer(
            method="advi",
            dataloader=loader,
            data_name="batch",
            random_seed=0,
            strategy="streaming",
            progressbar=False,
        )
        approx = trainer.fit(steps)
    # What getrusage says has in it what the parent had when it forked.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    results.put((approx.mean.eval(), approx.std.eval(), peak, steps * 4096 / len(loader)))


def main() -> int:
    options = arguments()
    with socket.socket() as free:  # where the client, which asks when it is imported, finds it
        free.bind(("127.0.0.1", 0))
        os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{free.getsockname()[1]}"
    for n_rows in options.rows:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            mode, sd = write(folder / "owner" / "criteo", n_rows)
            files = list(folder.rglob("*.parquet"))
            stored = sum(path.stat().st_size for path in files)
            needed = sum(map(bytes_of_columns, files))
            ready, asked, answers = SPAWN.Event(), SPAWN.Queue(), SPAWN.Queue()
            server = SPAWN.Process(target=serve, args=(folder, ready, asked, answers), daemon=True)
            server.start()
            ready.wait()
            results = SPAWN.Queue()
            client = SPAWN.Process(target=program, args=(options.steps, results))
            client.start()
            means, sds, peak, passes = results.get(timeout=600)
            client.join()
            asked.put(True)
            sent = answers.get()
            asked.put(False)
            server.join()
        off = np.abs((means - mode) / sd).max()
        print(
            f"{n_rows:,} rows, {stored / 1e6:.1f} MB, of which the 14 columns are "
            f"{needed / 1e6:.1f}: {passes:.1f} passes, {sent / 1e6:.1f} MB on the wire, "
            f"{sent / passes / 1e6:.1f} a pass, {100 * sent / passes / stored:.1f} % of the files; "
            f"peak {peak:.0f} MiB; means within {off:.2f} sds of Newton's, sds x "
            f"{(sds / sd).min():.2f} to {(sds / sd).max():.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
