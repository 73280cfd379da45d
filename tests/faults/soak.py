"""Take a million steps on small batches, and see that nothing grows: memory, files, threads.

The table is streamed from Parquet in a shuffled order, and the state is saved every few seconds.
What the process takes is looked at ten times a second, once the first tenth of the steps is over.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 100_000


@dataclass
class Look:
    """What the process had at a moment."""

    rss: int
    files: int
    threads: int
    temporary: int


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=1_000_000, help="default: 1,000,000")
    parser.add_argument("--batch-size", type=int, default=64, help="rows of a batch (default: 64)")
    parser.add_argument("--workers", type=int, default=1, help="threads that read (default: 1)")
    return parser.parse_args()


def watch(looks: list[Look], over: threading.Event, temporary: Path) -> None:
    process = psutil.Process()
    while not over.wait(0.1):
        there = sum(1 for path in temporary.rglob("*") if path.is_file())
        looks.append(
            Look(process.memory_info().rss, process.num_fds(), process.num_threads(), there)
        )


def spread(values: list[int]) -> str:
    return f"{min(values)} to {max(values)}"


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory() as place:
        temporary = Path(place) / "temporary"
        temporary.mkdir()
        os.environ["TMPDIR"] = str(temporary)
        # In a process of its own: what it has not deleted when it ends is left behind.
        work = multiprocessing.get_context("spawn").Process(
            target=soak, args=(options, Path(place), temporary)
        )
        work.start()
        work.join()
        left = sorted(path.name for path in temporary.rglob("*") if path.is_file())
        print(f"temporary files in the end: {left}")
        return 1 if work.exitcode or left else 0


def soak(options: argparse.Namespace, place: Path, temporary: Path) -> None:
    import pymc as pm

    from pymc_streaming import DataLoader, Trainer, parquet_source

    random = np.random.default_rng(0)
    X = random.normal(size=(ROWS, 3))
    y = (random.random(ROWS) < 1 / (1 + np.exp(-X @ [1.0, -0.5, 0.2]))).astype(float)
    columns = {f"x{i}": column for i, column in enumerate(X.T)} | {"y": y}
    pq.write_table(pa.table(columns), place / "table.parquet", row_group_size=5_000)
    loader = DataLoader(
        parquet_source(place / "table.parquet"),
        options.batch_size,
        shuffle=True,
        seed=0,
        buffer_size=10_000,
        num_workers=options.workers,
    )
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 2.0, shape=3)
        batch = pm.Data("batch", loader.placeholder())
        logit = pm.math.dot(batch[:, :3], b)
        pm.Bernoulli("y", logit_p=logit, observed=batch[:, 3], total_size=len(loader))
    trainer = Trainer(
        "advi",
        loader,
        model=model,
        random_seed=0,
        strategy="streaming",
        checkpoint_dir=place / "checkpoints",
        checkpoint_every="5s",
        progressbar=False,
    )
    warnings.simplefilter("ignore")
    trainer.fit(options.steps // 10)
    looks: list[Look] = []
    over = threading.Event()
    watcher = threading.Thread(target=watch, args=(looks, over, temporary))
    watcher.start()
    began = time.perf_counter()
    trainer.fit(options.steps - options.steps // 10)
    seconds = time.perf_counter() - began
    over.set()
    watcher.join()
    tenth = max(1, len(looks) // 10)
    first, last = (
        float(np.median([look.rss for look in part])) for part in (looks[:tenth], looks[-tenth:])
    )
    drift = last / first - 1.0
    # Both ends are of the same work, so in its middle there are as many of each.
    middle = looks[tenth:-tenth] or looks
    kept = sorted(path.name for path in (place / "checkpoints").iterdir())
    print(
        f"{options.steps:,} steps of {options.batch_size} rows, {seconds:.0f} s for the last nine "
        f"tenths, {len(looks):,} looks\n"
        f"memory: {first / 2**20:.1f} MiB at first, {last / 2**20:.1f} MiB in the end, drift "
        f"{100 * drift:+.2f} %; {spread([look.rss // 2**20 for look in looks])} MiB\n"
        f"open files: {spread([look.files for look in middle])}; "
        f"threads: {spread([look.threads for look in middle])}\n"
        f"temporary files: {spread([look.temporary for look in looks])}; checkpoints kept: "
        f"{len([name for name in kept if name.endswith('.safetensors')])}"
    )
    grew = {
        len(set(values)) > 1
        for values in ([look.files for look in middle], [look.threads for look in middle])
    }
    sys.exit(1 if drift > 0.01 or True in grew else 0)


if __name__ == "__main__":
    sys.exit(main())
