"""Peak memory of a streamed fit in a fresh process, by number of rows.

python -m benchmarks.memory --rows 1000000 20000000
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import benchmarks
from benchmarks import criteo
from pymc_streaming import DataLoader, Trainer, parquet_source
from pymc_streaming.demo import prepare


def fit(folder: Path, batch_size: int, passes: float) -> tuple[int, float]:
    """Steps taken and peak resident memory in MiB."""
    loader = DataLoader(parquet_source(folder, transform=prepare), batch_size, shuffle=True, seed=0)
    steps = int(passes * loader.num_batches)
    model = criteo.model(batch_size, len(loader))
    Trainer("advi", loader, "batch", model=model, random_seed=0).fit(steps)
    return steps, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Fit each table, print peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 20_000_000])
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--passes", type=float, default=1.2)
    options = parser.parse_args()
    print(benchmarks.conditions())
    print("| rows | steps | peak memory | over the first |")
    print("| --- | --- | --- | --- |")
    fresh = multiprocessing.get_context("spawn")
    first = None
    for rows in options.rows:
        with criteo.table(rows) as folder:
            # The first fit fills the compiler's cache, which takes more memory than fitting.
            for passes in (0.01, options.passes):
                with ProcessPoolExecutor(1, mp_context=fresh) as executor:
                    steps, peak = executor.submit(fit, folder, options.batch_size, passes).result()
        first = first or peak
        print(f"| {rows:,} | {steps:,} | {peak:,.0f} MiB | {peak / first:.3f} |", flush=True)


if __name__ == "__main__":
    main()
