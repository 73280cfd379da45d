"""Late departures by distance, hour and airport: 3 million real flights, sorted by date.

    python -m benchmarks.flights PATH/flights-3m.parquet

P(delay > 15 min) on distance, two harmonics of the hour and an intercept for each origin,
streamed with a shuffle; compared with the exact mode (sparse Newton) and with the same model
on ``pm.Minibatch`` in memory. Each fit runs in a fresh process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pymc as pm
from scipy import sparse
from scipy.sparse.linalg import spsolve

import benchmarks
from pymc_streaming import DataLoader, Trainer, parquet_source

COLUMNS = ["date", "delay", "distance", "origin"]
AIRPORT_SCALE, SLOPE_SCALE = 0.5, 1.5


def prepare(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Distance in thousands of miles from 730, harmonics of the hour, airport, late or not."""
    angle = 2 * np.pi * (block["date"] % 86_400) / 86_400
    harmonics = [f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)]
    return {
        "X": np.column_stack([(block["distance"] - 730) / 1_000, *harmonics]),
        "origin": block["origin"],
        "late": (block["delay"] > 15).astype(np.int64),
    }


def source(path: Path):
    """The flights, prepared."""
    return parquet_source(path, columns=COLUMNS, categories="auto", transform=prepare)


def likelihood(X, origin, late, n_rows: int, airports: int) -> None:
    """The model, on symbolic or shared arrays."""
    intercept = pm.Normal("intercept", 0.0, SLOPE_SCALE)
    slopes = pm.Normal("slopes", 0.0, SLOPE_SCALE, shape=5)
    airport = pm.Normal("airport", 0.0, AIRPORT_SCALE, shape=airports)
    logit = intercept + X @ slopes + airport[origin]
    pm.Bernoulli("delayed", logit_p=logit, observed=late, total_size=n_rows)


def whole_table(path: Path) -> dict[str, np.ndarray]:
    """All rows in memory."""
    flights = source(path)
    blocks = [block for fragment in flights.fragments for block in flights.read(fragment)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def streamed(path: Path, steps: int, batch_size: int, buffer_size: int | None, seed: int):
    """Fit from disk."""
    loader = DataLoader(source(path), batch_size, shuffle=True, buffer_size=buffer_size, seed=seed)
    airports = len(loader.source.categories["origin"])
    zeros = loader.placeholder()
    with pm.Model() as model:
        X, origin, late = (pm.Data(name, zeros[name]) for name in ("X", "origin", "late"))
        likelihood(X, origin, late, len(loader), airports)
    trainer = Trainer("advi", loader, model=model, random_seed=seed)
    approximation = trainer.fit(steps)
    return _result(approximation, float(trainer.history.seconds[-1]))


def minibatch(path: Path, steps: int, batch_size: int, seed: int, optimizer: str):
    """Fit with the table in memory."""
    rows = whole_table(path)
    with pm.Model():
        X, origin, late = pm.Minibatch(
            rows["X"], rows["origin"], rows["late"].astype(float), batch_size=batch_size
        )
        likelihood(X, origin, late, len(rows["late"]), int(rows["origin"].max()) + 1)
        inference = pm.ADVI(random_seed=seed)
        options = {"obj_optimizer": pm.adam(learning_rate=0.01)} if optimizer == "adam" else {}
        inference.fit(1, progressbar=False, **options)
        started = time.perf_counter()
        inference.refine(steps - 1, progressbar=False)
        return _result(inference.approx, time.perf_counter() - started)


def _result(approximation, seconds: float):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return approximation.mean.eval(), approximation.std.eval(), seconds, peak


def exact_mode(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mode, diagonal of the Hessian, flights by airport."""
    rows = whole_table(path)
    n, origin, y = len(rows["late"]), rows["origin"], rows["late"]
    indicator = sparse.csr_matrix((np.ones(n), (np.arange(n), origin)))
    design = sparse.hstack(
        [sparse.csr_matrix(np.column_stack([np.ones(n), rows["X"]])), indicator], format="csr"
    )
    scale = np.r_[np.full(6, SLOPE_SCALE), np.full(indicator.shape[1], AIRPORT_SCALE)]
    b = np.zeros(design.shape[1])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(design @ b)))
        gradient = design.T @ (y - p) - b / scale**2
        weighted = design.multiply((p * (1 - p))[:, None]).tocsr()
        hessian = (design.T @ weighted + sparse.diags(scale**-2)).tocsc()
        step = spsolve(hessian, gradient)
        b += step
        if np.abs(step).max() < 1e-10:
            return b, hessian.diagonal(), np.bincount(origin)
    raise RuntimeError("Newton's method did not converge")


def main() -> None:
    """Fit, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--buffer-size", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(benchmarks.conditions())

    def fresh(function, *arguments):
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            return executor.submit(function, *arguments).result()

    mode, curvature, flights = fresh(exact_mode, options.path)
    common = flights > 5_000
    print(
        f"Exact mode: intercept {mode[0]:.4f}, slopes {np.round(mode[1:6], 4)}; "
        f"{common.sum()} of {len(flights)} airports have over 5,000 flights."
    )
    print(
        "| fit | max error of slopes | of airports | sd of slopes over exact | seconds | M rows/s "
        "| peak memory |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    runs = {
        "streamed from disk": (
            streamed,
            options.path,
            options.steps,
            options.batch_size,
            options.buffer_size,
            options.seed,
        )
    } | {
        f"pm.Minibatch in memory, {name}": (
            minibatch,
            options.path,
            options.steps,
            options.batch_size,
            options.seed,
            name,
        )
        for name in ("default", "adam")
    }
    for name, run in runs.items():
        mean, sd, seconds, peak = fresh(*run)
        slopes = np.abs(mean - mode)[1:6].max()
        total = np.abs((mean[0] + mean[6:]) - (mode[0] + mode[6:]))[common].max()
        ratio = sd[1:6] * np.sqrt(curvature[1:6])
        speed = options.steps * options.batch_size / seconds / 1e6
        print(
            f"| {name} | {slopes:.4f} | {total:.4f} | {ratio.min():.3f} to {ratio.max():.3f} "
            f"| {seconds:.1f} | {speed:.2f} | {peak:,.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
