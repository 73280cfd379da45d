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
        likelihood(batch, n_rows)
    return model


def likelihood(batch, n_rows: int) -> None:
    """The model on rows of 13 features and a label."""
    b = pm.Normal("b", 0.0, PRIOR_SCALE, shape=14)
    logit = b[0] + pm.math.dot(batch[:, :13], b[1:])
    pm.Bernoulli("click", logit_p=logit, observed=batch[:, 13], total_size=n_rows)


def exact_mode(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mode and Hessian of the negative log-posterior, by Newton's method."""
    X = np.column_stack([np.ones(len(rows)), rows[:, :13]])
    y = rows[:, 13]
    b = np.zeros(14)
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(X @ b)))
        gradient = X.T @ (y - p) - b / PRIOR_SCALE**2
        hessian = (X * (p * (1 - p))[:, None]).T @ X + np.eye(14) / PRIOR_SCALE**2
        step = np.linalg.solve(hessian, gradient)
        b += step
        if np.abs(step).max() < 1e-12:
            return b, hessian
    raise RuntimeError("Newton's method did not converge")
