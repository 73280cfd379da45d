"""NumPyro's stochastic variational inference: mean-field normals and Adam, as a step of each kind.

The table is in memory, as JAX arrays. ``scan`` takes many steps in one compiled call and draws the
rows of each at random inside it, with replacement. ``index`` does the same in a call for each step.
``host`` has the table in NumPy, its rows in random order already, and passes one stretch of it
after the other to a compiled step, which spares it the drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam

from benchmarks.models import Model

LEARNING_RATE = 0.01
#: A scan takes steps for about so many numbers in batches, a hundred at most.
SCAN_NUMBERS, MOST_SCANNED = 4_000_000, 100


class NumPyro:
    """A model and its table, with a function for each kind of step."""

    def __init__(self, model: Model, rows: np.ndarray, batch_size: int) -> None:
        self._n_rows, self._batch_size = len(rows), batch_size
        self._host = model.split(rows)
        self._table: Any = None
        self._svi = SVI(
            lambda arrays: model.in_numpyro(arrays, len(rows), batch_size),
            AutoNormal(lambda arrays: model.in_numpyro(arrays, len(rows), batch_size)),
            Adam(LEARNING_RATE),
            Trace_ELBO(),
        )
        self.scan_length = max(1, min(MOST_SCANNED, SCAN_NUMBERS // (batch_size * rows.shape[1])))

    def _start(self) -> Any:
        first = {name: array[: self._batch_size] for name, array in self._host.items()}
        return self._svi.init(jax.random.PRNGKey(0), first)

    def _resident(self) -> Any:
        if self._table is None:
            self._table = {name: jax.numpy.asarray(array) for name, array in self._host.items()}
        return self._table

    def _random_step(self, state: Any, key: Any, table: Any) -> tuple[Any, Any]:
        index = jax.random.randint(key, (self._batch_size,), 0, self._n_rows)
        return self._svi.update(state, {name: array[index] for name, array in table.items()})

    def scan(self) -> Callable[[int], None]:
        """Takes steps by `scan_length` at a time."""
        table = self._resident()

        @jax.jit
        def many(state: Any, key: Any, table: Any) -> Any:
            key, *keys = jax.random.split(key, self.scan_length + 1)
            state, losses = lax.scan(
                lambda state, key: self._random_step(state, key, table),
                state,
                jax.numpy.stack(keys),
            )
            return state, key, losses

        state, key = self._start(), jax.random.PRNGKey(1)

        def run(n: int) -> None:
            nonlocal state, key
            for _ in range(n // self.scan_length):
                state, key, _ = many(state, key, table)
            jax.block_until_ready(state)

        return run

    def index(self) -> Callable[[int], None]:
        """Takes a step in each call."""
        table = self._resident()

        @jax.jit
        def one(state: Any, key: Any, table: Any) -> Any:
            key, chosen = jax.random.split(key)
            state, loss = self._random_step(state, chosen, table)
            return state, key, loss

        state, key = self._start(), jax.random.PRNGKey(1)

        def run(n: int) -> None:
            nonlocal state, key
            for _ in range(n):
                state, key, _ = one(state, key, table)
            jax.block_until_ready(state)

        return run

    def host(self) -> Callable[[int], None]:
        """Takes a step in each call, on the next stretch of the table."""
        update = jax.jit(self._svi.update)
        state, at = self._start(), 0

        def run(n: int) -> None:
            nonlocal state, at
            for _ in range(n):
                batch = {
                    name: array[at : at + self._batch_size] for name, array in self._host.items()
                }
                state, _ = update(state, batch)
                at += self._batch_size
                if at + self._batch_size > self._n_rows:
                    at = 0
            jax.block_until_ready(state)

        return run
