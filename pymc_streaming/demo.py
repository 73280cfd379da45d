"""The demo: one table, three ways to fit it, and a picture of what differs.

Each fit runs in a fresh process, so that peak memory means what it says; compiling, which takes
more memory than fitting but happens once on a machine, is done by another before.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

__all__ = ["FEATURES", "Fit", "prepare", "run_demo", "write_table"]

FEATURES = tuple(f"I{i}" for i in range(1, 14))
PRIOR_SCALE = 1.5
BATCH_SIZE = 4096
SHARD_ROWS = 250_000
ROW_GROUP_ROWS = 32_768
# Location and spread of log(1 + count), feature by feature, in the generated table.
LOG_MEAN = np.linspace(1.0, 4.0, 13)
LOG_SCALE = np.linspace(0.6, 1.5, 13)


@dataclass(frozen=True)
class Fit:
    """What one way of fitting gave, and what it took."""

    name: str
    mean: np.ndarray
    sd: np.ndarray | None
    seconds: float
    rows: int
    peak_mb: float
    memory: np.ndarray  # seconds, MB
    loss: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # rows, loss


def write_table(
    folder: Path, n_rows: int, seed: int, on_shard: Callable[[int], object] | None = None
) -> None:
    """Write a table shaped like the Criteo click logs, in shards of 250,000 rows.

    Thirteen integer features with heavy tails that share two hidden factors, and a label that
    is 1 for 3.3 % of the rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fixed = np.random.default_rng([seed, 0])
    loadings = 0.4 * fixed.normal(size=(2, 13))
    slopes = 0.25 * fixed.normal(size=13)
    pilot = _counts(np.random.default_rng([seed, 1]), 100_000, loadings)
    intercept = _intercept_for(0.033, _scaled(pilot) @ slopes)
    for shard, start in enumerate(range(0, n_rows, SHARD_ROWS)):
        rng = np.random.default_rng([seed, 2, shard])
        counts = _counts(rng, min(SHARD_ROWS, n_rows - start), loadings)
        probability = 1.0 / (1.0 + np.exp(-(intercept + _scaled(counts) @ slopes)))
        label = (rng.random(len(counts)) < probability).astype(np.int8)
        columns = {name: counts[:, i] for i, name in enumerate(FEATURES)} | {"label": label}
        part = folder / f"part-{shard:04d}.parquet"
        temporary = part.with_suffix(".tmp")
        pq.write_table(
            pa.table(columns),
            temporary,
            row_group_size=ROW_GROUP_ROWS,
            compression="lz4",
            use_dictionary=False,
        )
        temporary.rename(part)
        if on_shard is not None:
            on_shard(min(SHARD_ROWS, n_rows - start))


def prepare(block: dict[str, np.ndarray]) -> np.ndarray:
    """The transform: counts to roughly standard normal features, the label last."""
    counts = np.column_stack([block[name] for name in FEATURES])
    return np.column_stack([_scaled(counts), block["label"]])


def _counts(rng: np.random.Generator, n_rows: int, loadings: np.ndarray) -> np.ndarray:
    hidden = rng.normal(size=(n_rows, 2)) @ loadings + rng.normal(size=(n_rows, 13))
    counts: np.ndarray = np.exp(LOG_MEAN + LOG_SCALE * hidden).clip(max=1e9).astype(np.int32)
    return counts


def _scaled(counts: np.ndarray) -> np.ndarray:
    # np.log1p takes three times as long, and is for numbers that are nearly 0.
    return (np.log(1.0 + counts) - LOG_MEAN) / LOG_SCALE


def _intercept_for(rate: float, linear: np.ndarray) -> float:
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        if np.mean(1.0 / (1.0 + np.exp(-(middle + linear)))) < rate:
            low = middle
        else:
            high = middle
    return low


def fit_streaming(folder: Path, n_steps: int, seed: int) -> Fit:
    """Stream Parquet from disk, a few megabytes at a time."""
    import pymc as pm

    from pymc_streaming import DataLoader, Trainer, parquet_source

    with _Memory() as memory:
        loader = DataLoader(
            parquet_source(folder, transform=prepare), BATCH_SIZE, shuffle=True, seed=seed
        )
        with pm.Model() as model:
            b = pm.Normal("b", 0.0, PRIOR_SCALE, shape=14)
            batch = pm.Data("batch", loader.placeholder())
            logit = b[0] + pm.math.dot(batch[:, :13], b[1:])
            pm.Bernoulli("click", logit_p=logit, observed=batch[:, 13], total_size=len(loader))
        trainer = Trainer("advi", loader, model=model, random_seed=seed)
        approximation = trainer.fit(n_steps)
    history = trainer.history
    return Fit(
        "streaming",
        approximation.mean.eval(),
        approximation.std.eval(),
        float(history.seconds[-1]),
        n_steps * BATCH_SIZE,
        memory.peak_mb,
        memory.samples(),
        np.column_stack([history.rows, history.loss]),
    )


def fit_minibatch(folder: Path, n_steps: int, seed: int) -> Fit:
    """PyMC as its documentation has it: the whole table in memory, ``pm.Minibatch``."""
    import pymc as pm

    logging.getLogger("pymc").setLevel(logging.WARNING)
    with _Memory() as memory:
        table = _whole_table(folder)
        with pm.Model():
            b = pm.Normal("b", 0.0, PRIOR_SCALE, shape=14)
            X, y = pm.Minibatch(table[:, :13], table[:, 13], batch_size=BATCH_SIZE)
            logit = b[0] + pm.math.dot(X, b[1:])
            pm.Bernoulli("click", logit_p=logit, observed=y, total_size=len(table))
            inference = pm.ADVI(random_seed=seed)
            inference.fit(1, progressbar=False)  # compiles; what follows is stepping alone
            started = time.perf_counter()
            inference.refine(n_steps - 1, progressbar=False)
            seconds = time.perf_counter() - started
            approximation = inference.approx
    return Fit(
        "pm.Minibatch",
        approximation.mean.eval(),
        approximation.std.eval(),
        seconds,
        n_steps * BATCH_SIZE,
        memory.peak_mb,
        memory.samples(),
    )


def fit_sklearn(folder: Path) -> Fit:
    """The reference: scikit-learn on all rows, to convergence, under the same prior."""
    from sklearn.linear_model import LogisticRegression

    with _Memory() as memory:
        table = _whole_table(folder)
        started = time.perf_counter()
        model = LogisticRegression(C=PRIOR_SCALE**2, tol=1e-8, max_iter=1_000)
        model.fit(table[:, :13], table[:, 13])
        seconds = time.perf_counter() - started
    mean = np.concatenate([model.intercept_, model.coef_[0]])
    rows = len(table) * int(model.n_iter_[0])
    return Fit("scikit-learn", mean, None, seconds, rows, memory.peak_mb, memory.samples())


def _whole_table(folder: Path) -> np.ndarray:
    table = pq.read_table(folder)
    return prepare({name: table[name].to_numpy() for name in table.column_names})


class _Memory:
    """Resident memory of this process while it runs, sampled by a thread."""

    INTERVAL = 0.05

    def __enter__(self) -> _Memory:
        self._samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        unit = 1 if sys.platform == "darwin" else 1024
        self.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6

    def _sample(self) -> None:
        process, started = psutil.Process(), time.perf_counter()
        while not self._stop.wait(self.INTERVAL):
            self._samples.append((time.perf_counter() - started, process.memory_info().rss / 1e6))

    def samples(self) -> np.ndarray:
        return np.array(self._samples).reshape(-1, 2)


def run_demo(n_rows: int, seed: int, output: Path, *, n_steps: int = 10_000) -> list[Fit]:
    """Write the table, fit it three ways, print the comparison, save the picture.

    Parameters
    ----------
    n_rows : int
        Rows of the table.
    seed : int
        Seed of the table and of the fits.
    output : pathlib.Path
        Folder for the table and the picture; made if absent.
    n_steps : int, default 10_000
        Steps of both stochastic fits.

    Returns
    -------
    list of Fit
        Streaming, in memory, and the reference.
    """
    log = Console(stderr=True)
    folder = output / "criteo"
    for old in folder.glob("part-*"):
        old.unlink()
    with Progress(console=log, disable=not log.is_terminal, transient=True) as progress:
        task = progress.add_task("writing the table", total=n_rows)
        write_table(folder, n_rows, seed, lambda rows: progress.advance(task, rows))
    size = sum(part.stat().st_size for part in folder.iterdir()) / 1e6
    log.print(f"Wrote {n_rows:,} rows to {folder} ({size:,.0f} MB).")
    fits = []
    for name, fit, *arguments in (
        ("Streaming from disk", fit_streaming, n_steps, seed),
        ("pm.Minibatch in memory", fit_minibatch, n_steps, seed),
        ("scikit-learn in memory", fit_sklearn),
    ):
        if arguments:
            log.print(f"{name}: compiling, kept for the next time ...")
            _in_fresh_process(fit, folder, 2, seed)
        log.print(f"{name} ...")
        fits.append(_in_fresh_process(fit, folder, *arguments))
    _print_tables(fits, n_steps)
    picture = output / "demo.png"
    _draw(fits, picture)
    print(f"Picture: {picture}")
    return fits


def _in_fresh_process(fit: Callable[..., Fit], *arguments: Any) -> Fit:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(fit, *arguments).result()


def _print_tables(fits: list[Fit], n_steps: int) -> None:
    streaming, minibatch, reference = fits
    console = Console()
    if not console.is_terminal:
        console.width = 100
    table = Table(title="Coefficients")
    for column in ("", "scikit-learn", "streaming", "sd", "difference", "pm.Minibatch", "sd "):
        table.add_column(column, justify="right")
    assert streaming.sd is not None
    assert minibatch.sd is not None
    for i, name in enumerate(("intercept", *FEATURES)):
        table.add_row(
            name,
            f"{reference.mean[i]:.4f}",
            f"{streaming.mean[i]:.4f}",
            f"{streaming.sd[i]:.4f}",
            f"{streaming.mean[i] - reference.mean[i]:+.4f}",
            f"{minibatch.mean[i]:.4f}",
            f"{minibatch.sd[i]:.4f}",
        )
    console.print(table)
    console.print(
        f"Both stochastic fits take {n_steps:,} steps of {BATCH_SIZE:,} rows; pm.Minibatch with "
        "pm.fit's own optimiser and defaults.\nSeconds are those of stepping, the table being read "
        "and everything compiled.",
        highlight=False,
    )
    table = Table(title="Cost")
    for column in ("", "max |difference|", "correlation", "seconds", "M rows/s", "peak memory"):
        table.add_column(column, justify="right")
    for fit in fits:
        difference = np.abs(fit.mean - reference.mean).max()
        correlation = np.corrcoef(fit.mean, reference.mean)[0, 1]
        table.add_row(
            fit.name,
            "-" if fit is reference else f"{difference:.4f}",
            "-" if fit is reference else f"{correlation:.6f}",
            f"{fit.seconds:.1f}",
            f"{fit.rows / fit.seconds / 1e6:.1f}",
            f"{fit.peak_mb:,.0f} MB",
        )
    console.print(table)


def _draw(fits: list[Fit], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    streaming, minibatch, reference = fits
    colours = {"streaming": "#1f6fb4", "pm.Minibatch": "#d9772b", "scikit-learn": "#333333"}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")

    positions = np.arange(14)
    left.axvline(0.0, color="0.85", linewidth=1)
    left.scatter(
        reference.mean[1:],
        positions[1:],
        marker="|",
        s=260,
        color=colours["scikit-learn"],
        label="scikit-learn, all rows",
        zorder=3,
    )
    for fit, shift in ((streaming, -0.15), (minibatch, 0.15)):
        assert fit.sd is not None
        left.errorbar(
            fit.mean[1:],
            positions[1:] + shift,
            xerr=1.96 * fit.sd[1:],
            fmt="o",
            markersize=4,
            color=colours[fit.name],
            label=f"{fit.name}, 95 % interval",
        )
    left.set_yticks(positions[1:], FEATURES)
    left.invert_yaxis()
    left.set_title("Coefficients (intercept left out)")
    left.set_xlabel("effect on the log odds of a click")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=9)

    rows, loss = streaming.loss.T
    window = max(1, len(loss) // 25)
    middle.plot(rows / 1e6, loss, color=colours["streaming"], alpha=0.2, linewidth=0.8)
    middle.plot(
        rows[window - 1 :] / 1e6,
        np.convolve(loss, np.ones(window) / window, mode="valid"),
        color=colours["streaming"],
    )
    tail = loss[len(loss) // 10 :]
    middle.set_ylim(tail.min() - 0.1 * np.ptp(tail), tail.max() + 0.3 * np.ptp(tail))
    middle.set_title("Streaming: negative ELBO, batch by batch and smoothed")
    middle.set_xlabel("million rows streamed")
    middle.ticklabel_format(axis="y", style="plain")

    for fit in fits:
        label = f"{fit.name}, peak {fit.peak_mb:,.0f} MB"
        right.plot(*fit.memory.T, color=colours[fit.name], label=label)
    right.set_ylim(0, None)
    right.set_xlim(0, None)
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False, fontsize=9)
    right.set_title("Memory of the process, from import to result")
    right.set_xlabel("seconds")
    right.set_ylabel("MB")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)

    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=120)
    plt.close(figure)
    temporary.rename(path)
