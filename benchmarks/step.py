"""What one step costs, side by side: batch 4096 of 13 features and a label.

    python -m benchmarks.step

- ``pm.fit``: ``pm.ADVI`` on ``pm.Minibatch``, the table in memory, as PyMC's documentation has it;
- ``pymc-extras``: its streaming ``Trainer`` fed by its shuffling ``DataLoader`` from Parquet;
- ``pymc-streaming``: this package's ``Trainer`` from Parquet, shuffled;
- ``compiled step``: this package's compiled step alone, the mixture of moves that a fit makes,
  one batch held fixed;
- ``plain``: a bare mean-field gradient of ``model.logp()`` with one draw passed in, Adam in the
  graph and no loss, built here, one batch held fixed.

float64 and float32 each in a fresh process; within one, the contestants take turns, and the
median over the rounds is shown with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import graph_replace

import benchmarks
from benchmarks import criteo
from pymc_streaming import DataLoader, Trainer, parquet_source
from pymc_streaming.demo import FEATURES, ROW_GROUP_ROWS

COLUMNS = [*FEATURES, "label"]
BATCH_SIZE = 4096


def write_features(raw: Path, folder: Path, dtype: str) -> np.ndarray:
    """The prepared features as a Parquet file, and in memory."""
    rows = criteo.in_memory(raw).astype(dtype)
    pq.write_table(
        pa.table({name: rows[:, i] for i, name in enumerate(COLUMNS)}),
        folder / "features.parquet",
        row_group_size=ROW_GROUP_ROWS,
        compression="lz4",
        use_dictionary=False,
    )
    return rows


def pm_fit(rows: np.ndarray) -> Callable[[int], None]:
    with pm.Model():
        b = pm.Normal("b", 0.0, 1.5, shape=14)
        X, y = pm.Minibatch(rows[:, :13], rows[:, 13], batch_size=BATCH_SIZE)
        logit = b[0] + pm.math.dot(X, b[1:])
        pm.Bernoulli("click", logit_p=logit, observed=y, total_size=len(rows))
        inference = pm.ADVI(random_seed=0)
        inference.fit(2, progressbar=False)
    return lambda n: inference.refine(n, progressbar=False)


def pymc_extras(folder: Path) -> Callable[[int], None]:
    from pymc_extras.inference.advi import Trainer as ExtrasTrainer
    from pymc_extras.variational import DataLoader as ExtrasLoader
    from pymc_extras.variational import parquet_source as extras_source

    loader = ExtrasLoader(
        extras_source(str(folder), columns=COLUMNS), batch_size=BATCH_SIZE, shuffle=True, seed=0
    )
    model = criteo.model(BATCH_SIZE, loader.total_size)
    trainer = ExtrasTrainer(random_seed=0)

    def endless():
        while True:
            for batch in loader:
                if len(batch) == BATCH_SIZE:
                    yield {"batch": batch}

    stream = endless()
    trainer.fit(2, data=stream, model=model)
    return lambda n: trainer.fit(n, data=stream, model=model)


def pymc_streaming(folder: Path) -> tuple[Callable[[int], None], Callable[[int], None]]:
    loader = DataLoader(parquet_source(folder, columns=COLUMNS), BATCH_SIZE, shuffle=True, seed=0)
    model = criteo.model(BATCH_SIZE, len(loader))
    trainer = Trainer("advi", loader, "batch", model=model, random_seed=0, progressbar=False)
    trainer.fit(2)

    batch = next(iter(loader))
    alone = Trainer("advi", loader, "batch", model=model, random_seed=0, progressbar=False)
    step = alone._prepare(batch)
    noise = np.random.default_rng(0).standard_normal((1_000, 14)).astype(step.noise_dtype)
    rate, weight = (np.asarray(value, step.noise_dtype) for value in (0.01, 1.0))

    def compiled(n: int) -> None:
        for i in range(n):
            step(i, noise[i % 1_000], rate, weight)

    return lambda n: trainer.fit(n), compiled


def plain(rows: np.ndarray) -> Callable[[int], None]:
    float_x = pytensor.config.floatX
    model = criteo.model(BATCH_SIZE, len(rows))
    batch = pytensor.shared(rows[:BATCH_SIZE].copy(), shape=(BATCH_SIZE, 14))
    mu, rho = (pytensor.shared(np.full(14, start, float_x), shape=(14,)) for start in (0.0, -4.0))
    noise = pt.tensor("noise", shape=(14,), dtype=float_x)
    sigma = pt.softplus(rho)
    log_density = graph_replace(
        model.logp(), {model["batch"]: batch, model.value_vars[0]: mu + sigma * noise}, strict=False
    )
    loss = -log_density - pt.log(sigma).sum()
    updates = pm.adam(pytensor.grad(loss, [mu, rho]), [mu, rho], learning_rate=0.01)
    function = pytensor.function([noise], [], updates=updates, trust_input=True)
    draws = np.random.default_rng(0).standard_normal((1_000, 14)).astype(float_x)

    def run(n: int) -> None:
        for i in range(n):
            function(draws[i % 1_000])

    run(2)
    return run


def measure(raw: Path, folder: Path, dtype: str, rounds: int, steps: int) -> dict[str, np.ndarray]:
    """Microseconds a step: contestant by round."""
    with pytensor.config.change_flags(floatX=dtype):
        rows = write_features(raw, folder, dtype)
        ours, compiled = pymc_streaming(folder)
        contestants = {
            "pm.fit + pm.Minibatch, in memory": (pm_fit(rows), steps),
            "pymc-extras, from Parquet": (pymc_extras(folder), max(10, steps // 10)),
            "pymc-streaming, from Parquet": (ours, steps),
            "pymc-streaming, compiled step": (compiled, steps),
            "plain mean-field gradient": (plain(rows), steps),
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, (run, n) in contestants.items():
                started = time.perf_counter()
                run(n)
                times[name].append((time.perf_counter() - started) / n * 1e6)
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    """Measure both precisions, print one table."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2_000)
    options = parser.parse_args()
    print(benchmarks.conditions())
    print("| precision | what | µs a step, median | smallest to largest | over plain |")
    print("| --- | --- | --- | --- | --- |")
    context = multiprocessing.get_context("spawn")
    with criteo.table(options.rows) as raw:
        for dtype in ("float64", "float32"):
            with (
                tempfile.TemporaryDirectory() as folder,
                ProcessPoolExecutor(1, mp_context=context) as executor,
            ):
                times = executor.submit(
                    measure, raw, Path(folder), dtype, options.rounds, options.steps
                ).result()
            base = np.median(times["plain mean-field gradient"])
            for name, values in times.items():
                median = np.median(values)
                print(
                    f"| {dtype} | {name} | {median:,.0f} | {values.min():,.0f} to "
                    f"{values.max():,.0f} | {median / base:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
