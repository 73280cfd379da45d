"""The table and the model that several benchmarks share: a Criteo-shaped logistic regression."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pymc as pm

from pymc_streaming.demo import PRIOR_SCALE, prepare, write_table

NODES, BLOCK_ROWS = 5, 2**16


@contextmanager
def table(n_rows: int, seed: int = 0) -> Iterator[Path]:
    """A folder of Parquet shards, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder), n_rows, seed)
        yield Path(folder)


def in_memory(folder: Path) -> np.ndarray:
    """The prepared table: 13 features and the label, float64."""
    columns = pq.read_table(folder)
    return prepare({name: columns[name].to_numpy() for name in columns.column_names})


def model(batch_size: int, n_rows: int) -> pm.Model:
    """Logistic regression on a placeholder called ``batch``."""
    with pm.Model() as model:
        batch = pm.Data("batch", np.zeros((batch_size, 14)))
        likelihood(batch[:, :13], batch[:, 13], n_rows)
    return model


def likelihood(X, y, n_rows: int) -> None:
    """The model on rows of 13 features, and their labels."""
    b = pm.Normal("b", 0.0, PRIOR_SCALE, shape=14)
    logit = b[0] + pm.math.dot(X, b[1:])
    pm.Bernoulli("click", logit_p=logit, observed=y, total_size=n_rows)


def best_normals(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the independent normals with the highest ELBO.

    By Newton's method on all rows. A linear predictor is normal where the coefficients are, so what
    is expected of it is an integral over a line, by Gauss and Hermite's nodes.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    mean, variance = np.zeros(14), np.zeros(14)
    for _ in range(50):
        gradient = -mean / PRIOR_SCALE**2
        hessian = np.eye(14) / PRIOR_SCALE**2
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            X = np.column_stack([np.ones(len(block)), block[:, :13]])
            spread = np.sqrt(X**2 @ variance)
            p = 1.0 / (1.0 + np.exp(-((X @ mean)[:, None] + spread[:, None] * points)))
            gradient += X.T @ (block[:, 13] - p @ weights)
            hessian += (X * ((p * (1.0 - p)) @ weights)[:, None]).T @ X
        step = np.linalg.solve(hessian, gradient)
        mean, before, variance = mean + step, variance, 1.0 / np.diag(hessian)
        if np.abs(step).max() < 1e-10 and np.allclose(variance, before, rtol=1e-8, atol=0.0):
            return mean, np.sqrt(variance)
    raise RuntimeError("Newton's method did not converge")
