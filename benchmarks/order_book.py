"""An order book that drifts: the table, the model and the exact answer for benchmarks of order.

Rows come in the order of time. What the features look like and how the next move of the price
depends on them change slowly: over one million rows hardly, over twenty-six million a lot. Row i
is the same however long the table is, so a longer table is a longer stretch of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm

COLUMNS = ["mid", "spread", "imbalance", "up"]
PRIOR_SCALE = 3.0
SHARD_ROWS = 1_000_000
SCHEMA = pa.schema([(name, pa.float32()) for name in COLUMNS])


def coefficients(time: np.ndarray) -> np.ndarray:
    """Intercept and slopes at a time, counted in millions of rows; shape (n, 4)."""
    turn = 2 * np.pi * time
    return np.stack(
        [
            -0.2 + 0.8 * np.sin(turn / 31 + 0.5),
            0.5 + 1.0 * np.cos(turn / 36),
            -0.3 + 0.7 * np.sin(turn / 18),
            1.0 + 0.6 * np.cos(turn / 24 + 1.0),
        ],
        axis=1,
    )


def rows(time: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Features, of the order of one, and whether the price moves up next; shape (n, 4)."""
    turn = 2 * np.pi * time
    noise = generator.normal(size=(len(time), 3))
    day = turn / 2.1  # so many millions of rows
    mid = 0.8 * np.sin(turn / 40 + 0.3) + 0.3 * np.sin(turn / 7 + 1.0) + 0.6 * noise[:, 0]
    spread = 0.5 * np.cos(turn / 50) + 0.3 * np.sin(day) + 0.7 * noise[:, 1]
    imbalance = 0.3 * np.sin(turn / 13) + 0.7 * noise[:, 2]
    design = np.stack([np.ones(len(time)), mid, spread, imbalance], axis=1)
    chance = 1 / (1 + np.exp(-np.einsum("ij,ij->i", design, coefficients(time))))
    up = generator.random(len(time)) < chance
    return np.stack([mid, spread, imbalance, up], axis=1).astype(np.float32)


def write(folder: Path, n_rows: int, row_group_size: int, seed: int = 0) -> list[Path]:
    """Shards of a million rows, in the order of time, written one after the other."""
    paths = []
    for shard, start in enumerate(range(0, n_rows, SHARD_ROWS)):
        time = np.arange(start, min(start + SHARD_ROWS, n_rows)) / 1e6
        table = rows(time, np.random.default_rng((seed, shard)))
        paths.append(folder / f"part-{shard:03d}.parquet")
        save(table, paths[-1], row_group_size)
    return paths


def save(table: np.ndarray, path: Path, row_group_size: int) -> None:
    """One Parquet file that is quick to write and to read."""
    columns = [pa.array(column) for column in table.T]
    pq.write_table(
        pa.Table.from_arrays(columns, schema=SCHEMA),
        path,
        row_group_size=row_group_size,
        compression="lz4",
        use_dictionary=False,
    )


def blocks(paths: list[Path]) -> Iterator[np.ndarray]:
    """The table as float64, a shard at a time."""
    for path in paths:
        table = pq.read_table(path)
        yield np.column_stack([table[name].to_numpy() for name in COLUMNS]).astype(float)


def model(batch_size: int, n_rows: int) -> pm.Model:
    """Logistic regression on a placeholder called ``batch``."""
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, PRIOR_SCALE, shape=4)
        batch = pm.Data("batch", np.zeros((batch_size, 4)))
        logit = b[0] + b[1] * batch[:, 0] + b[2] * batch[:, 1] + b[3] * batch[:, 2]
        pm.Bernoulli("up", logit_p=logit, observed=batch[:, 3], total_size=n_rows)
    return model


def exact_mode(table: Callable[[], Iterable[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mode and posterior standard deviations, by Newton's method over the blocks of a table."""
    b = np.zeros(4)
    for _ in range(50):
        gradient, hessian = -b / PRIOR_SCALE**2, np.eye(4) / PRIOR_SCALE**2
        for block in table():
            X = np.column_stack([np.ones(len(block)), block[:, :3]])
            p = 1 / (1 + np.exp(-(X @ b)))
            gradient += X.T @ (block[:, 3] - p)
            hessian += (X * (p * (1 - p))[:, None]).T @ X
        step = np.linalg.solve(hessian, gradient)
        b += step
        if np.abs(step).max() < 1e-9:
            return b, np.diag(np.linalg.inv(hessian)) ** 0.5
    raise RuntimeError("Newton's method did not converge")
