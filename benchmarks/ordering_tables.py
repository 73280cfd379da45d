"""Tables in random order and in others, and a fast replica of the trainer's optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa

from pymc_streaming.loader.order import even_permutation

FIRST_RATE, FINAL_PART, AVERAGED_PART = 0.05, 0.01, 0.3


def shuffled_table(rng: np.random.Generator, is_wide: bool = False) -> tuple[pa.Table, int]:
    """A table whose rows are independent and alike, of many kinds of columns; row group size."""
    n = int(np.exp(rng.uniform(np.log(5_000), np.log(50_000 if is_wide else 1_000_000))))
    makers = {
        "normal": lambda: rng.normal(size=n),
        "cauchy": lambda: rng.standard_cauchy(size=n),
        "pareto": lambda: rng.pareto(1.0, size=n),
        "lognormal": lambda: rng.lognormal(sigma=2.0, size=n),
        "rare": lambda: (rng.random(n) < 10 ** rng.uniform(-4, -1)).astype(np.int8),
        "binary": lambda: rng.random(n) < 0.3,
        "codes": lambda: rng.zipf(1.5, size=n).clip(max=rng.choice([5, 50, 2_000])),
        "duplicates": lambda: rng.choice(rng.normal(size=rng.integers(2, 12)), size=n),
        "identifier": lambda: rng.permutation(n),
        "spikes": lambda: np.where(rng.random(n) < 0.9, 0.0, rng.exponential(size=n)),
        "constant": lambda: np.full(n, 3.0),
        "date": lambda: pa.array(rng.integers(11_000, 12_000, n).astype("int32")).cast(pa.date32()),
        "text": lambda: pa.array(np.array([f"v{i:03d}" for i in range(300)]))
        .take(pa.array(rng.zipf(1.3, size=n).clip(max=300) - 1)),
        "nulls": lambda: pa.array(
            rng.normal(size=n), mask=rng.random(n) < 10 ** rng.uniform(-3, -0.1)
        ),
    }  # fmt: skip
    width = rng.integers(30, 150) if is_wide else rng.integers(2, 13)
    kinds = rng.choice(list(makers), size=width)
    columns = {f"{kind}_{i}": makers[kind]() for i, kind in enumerate(kinds)}
    return pa.table(columns), max(100, n // int(rng.integers(1, 60)))


@dataclass(frozen=True)
class Ordered:
    """A regression on rows in an order."""

    kind: str
    family: str
    strength: float
    X: np.ndarray
    y: np.ndarray
    fragment_rows: int
    batch_size: int
    steps: int

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns that a batch has."""
        return {"x1": self.X[:, 1], "x2": self.X[:, 2], "y": self.y}


KINDS = ("sorted", "blocks", "drift", "relation", "season", "within")


def ordered_table(
    rng: np.random.Generator,
    kind: str,
    strengths: tuple[float, float] = (0.02, 1.0),
    sizes: tuple[int, int] = (5_000, 1_000_000),
) -> Ordered:
    """A linear or logistic regression, the rows of which follow an order of this kind."""
    n = int(np.exp(rng.uniform(*np.log(sizes))))
    strength = float(np.exp(rng.uniform(*np.log(strengths))))
    fragment_rows = n // int(rng.integers(8, 60))
    family = str(rng.choice(["linear", "logistic"]))
    u = (np.arange(n) + 0.5) / n
    x = rng.normal(size=(n, 2))
    shift, slope = np.zeros(n), np.zeros(n)
    if kind == "blocks":
        block = max(1, n // int(rng.integers(5, 200)))
        effects = rng.normal(size=-(-n // block))
        shift = strength * effects[np.arange(n) // block]
    elif kind == "drift":
        shift = strength * _slow(u, rng)
    elif kind == "relation":
        slope = strength * _slow(u, rng)
    elif kind == "season":
        wave = np.sqrt(2) * np.sin(2 * np.pi * (rng.integers(1, 7) * u + rng.random()))
        shift, slope = (strength * wave, slope) if rng.random() < 0.5 else (shift, strength * wave)
    X = np.column_stack([np.ones(n), x])
    eta = X @ [0.3, 0.5, -0.25] + shift + slope * x[:, 0]
    if family == "linear":
        y = eta + rng.normal(size=n)
    else:
        y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    if kind in ("sorted", "within"):
        key = strength * (y - y.mean()) / y.std() + rng.normal(size=n)
        if kind == "within":
            key = np.lexsort((key, np.arange(n) // fragment_rows))
        else:
            key = np.argsort(key)
        X, y = X[key], y[key]
    batch = int(rng.choice([b for b in (100, 500, 2_000, 4_096) if b * 40 <= n]))
    steps = max(3_000, int(np.ceil(10.5 * n / batch)))
    return Ordered(kind, family, strength, X, y, fragment_rows, batch, steps)


def _slow(u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standardised: a line, a step, or a random walk."""
    kind = rng.integers(3)
    if kind == 0:
        path = u.copy()
    elif kind == 1:
        path = (u > rng.uniform(0.1, 0.9)).astype(float)
    else:
        path = np.cumsum(rng.normal(size=len(u)))
    return (path - path.mean()) / path.std()


def exact(table: Ordered) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mode under standard normal priors, and standard deviations of mean-field."""
    X, y, b = table.X, table.y, np.zeros(table.X.shape[1])
    for _ in range(50):
        mean = X @ b
        weight = np.ones(len(y))
        if table.family == "logistic":
            mean = 1 / (1 + np.exp(-mean))
            weight = mean * (1 - mean)
        hessian = (X * weight[:, None]).T @ X + np.eye(len(b))
        step = np.linalg.solve(hessian, X.T @ (mean - y) + b)
        b = b - step
        if np.abs(step).max() < 1e-12:
            break
    return b, np.diag(hessian) ** -0.5


def replica_error(table: Ordered, buffer_size: int | None, seed: int) -> float:
    """Largest error of a replica of the trainer, in posterior standard deviations.

    The same annealed Adam, the same average over whole epochs, the same order of rows as
    `DataLoader`, in compiled NumPy.
    """
    mode, sd = exact(table)
    rng = np.random.default_rng([seed, 5])
    n, size = table.steps, table.batch_size
    progress = np.minimum(np.arange(n) / ((1 - AVERAGED_PART) * n), 1.0)
    rates = FIRST_RATE * (FINAL_PART + (1 - FINAL_PART) * 0.5 * (1 + np.cos(np.pi * progress)))
    per_epoch = len(table.y) / size
    epochs = int(AVERAGED_PART * n / per_epoch)
    first = n - max(1, round(epochs * per_epoch if epochs else AVERAGED_PART * n))
    state = np.zeros((4, len(mode)))  # location, both moments, average
    done, left = 0, np.empty(0, np.int64)
    logistic = table.family == "logistic"
    for rows in _epochs(len(table.y), table.fragment_rows, buffer_size, rng):
        rows = np.concatenate([left, rows])
        count = min(len(rows) // size, n - done)
        noise = rng.standard_normal((count, len(mode))) * sd
        _steps(table.X, table.y, rows, noise, rates, state, done, first, size, logistic)
        done, left = done + count, rows[count * size :]
        if done == n:
            break
    return float(np.abs((state[3] - mode) / sd).max())


def _epochs(
    n: int, fragment: int, window: int | None, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    starts = np.arange(0, n, fragment)
    while True:
        if window is None:
            yield np.arange(n)
            continue
        order = starts[even_permutation(len(starts), rng)]
        rows = np.concatenate([np.arange(start, min(start + fragment, n)) for start in order])
        for start in range(0, n, window):
            rng.shuffle(rows[start : start + window])
        yield rows


@numba.njit(cache=True)
def _steps(X, y, rows, noise, rates, state, done, first, size, logistic):  # pragma: no cover
    d = X.shape[1]
    gradient = np.empty(d)
    location = np.empty(d)
    for k in range(noise.shape[0]):
        t = done + k
        for j in range(d):
            location[j] = state[0, j] + noise[k, j]
            gradient[j] = 0.0
        for i in range(k * size, (k + 1) * size):
            row = rows[i]
            mean = 0.0
            for j in range(d):
                mean += X[row, j] * location[j]
            if logistic:
                mean = 1 / (1 + np.exp(-mean))
            for j in range(d):
                gradient[j] += X[row, j] * (mean - y[row])
        step = rates[t] * np.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        for j in range(d):
            g = gradient[j] * len(y) / size + location[j]
            state[1, j] = 0.9 * state[1, j] + 0.1 * g
            state[2, j] = 0.999 * state[2, j] + 0.001 * g * g
            state[0, j] -= step * state[1, j] / (np.sqrt(state[2, j]) + 1e-8)
            if t >= first:
                state[3, j] += (state[0, j] - state[3, j]) / (t - first + 1)
