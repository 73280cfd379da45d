"""Late departures by distance, hour and airport: 3 million real flights, sorted by date.

P(delay > 15 min) on distance, two harmonics of the hour and an intercept for each origin,
streamed with a shuffle; compared with the exact mode (sparse Newton) and with the same model
on pm.Minibatch in memory. Each fit runs in a fresh process. The table is not in this repository: a
Parquet file with date, delay in minutes, distance in miles and origin.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pymc as pm
from scipy import sparse
from scipy.sparse.linalg import spsolve

from benchmarks.processes import from_fresh, peak_mib
from benchmarks.recording import Recording, Results
from benchmarks.report import BLUE, GREEN, VERMILION, Figure, new_figure
from pymc_streaming import DataLoader, Trainer, parquet_source

COLUMNS = ["date", "delay", "distance", "origin"]
AIRPORT_SCALE, SLOPE_SCALE = 0.5, 1.5
COMMON = 5_000  # flights from an airport whose error is looked at
FORMATS = {"error_of_slopes": ".4f", "error_of_airports": ".4f", "peak_mib": ",.0f"}
READING = """\
Errors are the largest differences from the exact mode: of the five slopes, and of the intercepts of
airports with more than 5,000 flights. The next columns are the smallest and the largest ratio of a
slope's fitted standard deviation to that by the curvature at the mode."""


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
    return approximation.mean.eval(), approximation.std.eval(), seconds, peak_mib()


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


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--buffer-size", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace, recording: Recording) -> None:
    mode, curvature, flights = from_fresh(exact_mode, options.path)
    common = flights > COMMON
    fit = (options.path, options.steps, options.batch_size)
    runs = {"streamed from disk": (streamed, *fit, options.buffer_size, options.seed)} | {
        f"pm.Minibatch in memory, {name}": (minibatch, *fit, options.seed, name)
        for name in ("default", "adam")
    }
    for name, call in runs.items():
        mean, sd, seconds, peak = from_fresh(*call)
        ratio = sd[1:6] * np.sqrt(curvature[1:6])
        recording.add(
            "fit",
            {"fit": name},
            {
                "error_of_slopes": np.abs(mean - mode)[1:6].max(),
                "error_of_airports": np.abs((mean[0] + mean[6:]) - (mode[0] + mode[6:]))[
                    common
                ].max(),
                "smallest_sd_over_exact": ratio.min(),
                "largest_sd_over_exact": ratio.max(),
                "seconds": seconds,
                "million_rows_per_second": options.steps * options.batch_size / seconds / 1e6,
                "peak_mib": peak,
            },
        )


def draw(results: Results) -> Figure:
    rows = results.rows("fit")
    figure, panels = new_figure(1, 3, figsize=(11, 2.6), sharey=True)
    for axes, name, label, colour in (
        (panels[0][0], "error_of_slopes", "largest error of a slope", BLUE),
        (panels[0][1], "error_of_airports", "largest error of an airport", GREEN),
        (panels[0][2], "peak_mib", "peak memory, MiB", VERMILION),
    ):
        axes.barh([row.of["fit"] for row in rows], [row.median(name) for row in rows], color=colour)
        axes.set_xlabel(label)
    panels[0][0].invert_yaxis()
    return figure
