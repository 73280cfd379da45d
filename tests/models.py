"""Models whose posterior is known by other means: one table for every guide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from pymc_streaming import DataLoader


@dataclass(frozen=True)
class KnownPosterior:
    """Data, model, and the Gaussian that its posterior is, or is very close to."""

    name: str
    data: dict[str, np.ndarray]
    build: Callable[[DataLoader], pm.Model]
    mean: np.ndarray
    precision: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        return np.linalg.inv(self.precision)

    @property
    def mean_field_sd(self) -> np.ndarray:
        """Scales of the best independent normals: those of the conditionals."""
        return np.diag(self.precision) ** -0.5


def newton(
    gradient_and_hessian: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mode and precision of a log-concave density."""
    mode = np.zeros(size)
    for _ in range(100):
        gradient, hessian = gradient_and_hessian(mode)
        move = np.linalg.solve(hessian, gradient)
        mode = mode - move
        if np.abs(move).max() < 1e-10:
            return mode, -hessian
    raise AssertionError("Newton did not converge")


def logistic_newton(X: np.ndarray, y: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Mode and precision of a logistic regression under Normal(0, scale) priors."""

    def derivatives(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = 1.0 / (1.0 + np.exp(-(X @ b)))
        return (
            X.T @ (y - p) - b / scale**2,
            -(X * (p * (1 - p))[:, None]).T @ X - np.eye(len(b)) / scale**2,
        )

    return newton(derivatives, X.shape[1])


def conjugate_normal(n_rows: int = 20_000) -> KnownPosterior:
    rng = np.random.default_rng(1)
    y = rng.normal(2.5, 1.5, size=n_rows)
    precision = n_rows / 1.5**2 + 1 / 10.0**2
    mean = (y.sum() / 1.5**2) / precision

    def build(loader: DataLoader) -> pm.Model:
        with pm.Model() as model:
            mu = pm.Normal("mu", 0.0, 10.0)
            data = pm.Data("batch", loader.placeholder())
            pm.Normal("y", mu, 1.5, observed=data, total_size=len(loader))
        return model

    return KnownPosterior("normal", {"batch": y}, build, np.array([mean]), np.array([[precision]]))


def correlated_linear(n_rows: int = 20_000) -> KnownPosterior:
    """Five coefficients, each correlated 0.9 with the next in the posterior."""
    rng = np.random.default_rng(2)
    lags = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    X = rng.normal(size=(n_rows, 5)) @ np.linalg.cholesky(np.linalg.inv(0.9**lags)).T
    beta = np.array([0.5, -1.0, 0.3, 2.0, -0.7])
    y = X @ beta + rng.normal(size=n_rows)
    precision = X.T @ X + np.eye(5) / 3.0**2
    mean = np.linalg.solve(precision, X.T @ y)

    def build(loader: DataLoader) -> pm.Model:
        with pm.Model() as model:
            b = pm.Normal("b", 0.0, 3.0, shape=5)
            placeholder = loader.placeholder()
            X, y = pm.Data("X", placeholder["X"]), pm.Data("y", placeholder["y"])
            pm.Normal("likelihood", X @ b, 1.0, observed=y, total_size=len(loader))
        return model

    return KnownPosterior("linear", {"X": X, "y": y}, build, mean, precision)


def logistic(n_rows: int = 50_000) -> KnownPosterior:
    rng = np.random.default_rng(3)
    X = np.column_stack([np.ones(n_rows), rng.normal(size=(n_rows, 3))])
    y = (rng.random(n_rows) < 1 / (1 + np.exp(-X @ np.array([-1.5, 0.6, -0.4, 0.2])))).astype(int)
    mean, precision = logistic_newton(X, y, 1.5)

    def build(loader: DataLoader) -> pm.Model:
        with pm.Model() as model:
            b = pm.Normal("b", 0.0, 1.5, shape=4)
            batch = pm.Data("batch", loader.placeholder())
            logit = b[0] + pm.math.dot(batch[:, :3], b[1:])
            pm.Bernoulli("y", logit_p=logit, observed=batch[:, 3], total_size=len(loader))
        return model

    return KnownPosterior(
        "logistic", {"batch": np.column_stack([X[:, 1:], y])}, build, mean, precision
    )


def poisson_groups(n_rows: int = 50_000) -> KnownPosterior:
    """Counts with a slope and an effect for each of six groups, by integer code."""
    rng = np.random.default_rng(4)
    x, group = rng.normal(size=n_rows), rng.integers(0, 6, size=n_rows)
    effects = rng.normal(size=6)
    y = rng.poisson(np.exp(0.3 * x + effects[group]))
    design = np.column_stack([x, np.eye(6)[group]])

    def derivatives(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rate = np.exp(design @ b)
        return (
            design.T @ (y - rate) - b,
            -(design * rate[:, None]).T @ design - np.eye(7),
        )

    mean, precision = newton(derivatives, 7)

    def build(loader: DataLoader) -> pm.Model:
        with pm.Model() as model:
            slope = pm.Normal("slope", 0.0, 1.0)
            effect = pm.Normal("effect", 0.0, 1.0, shape=6)
            zeros = loader.placeholder()
            x, group, y = (pm.Data(name, zeros[name]) for name in ("x", "group", "y"))
            rate = pt.exp(slope * x + effect[group])
            pm.Poisson("likelihood", rate, observed=y, total_size=len(loader))
        return model

    return KnownPosterior("poisson", {"x": x, "group": group, "y": y}, build, mean, precision)


KNOWN = [conjugate_normal, correlated_linear, logistic, poisson_groups]
