"""Is a log-likelihood a sum over rows? Found out by evaluating it.

Rescaling a batch by N / B is right for a sum over rows and wrong for anything else. What the
graph does not show, a probe does: the log-likelihood of a batch against that of its even and
its odd rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytensor
from pytensor.compile.mode import Mode
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import DependentRowsError, NonFiniteError, PlaceholderError
from pymc_streaming.vi.binding import Binding

__all__ = ["PROBE_MODE", "check_additive"]

# Pure Python: a probe runs a handful of times, so compiling it would be the whole cost.
PROBE_MODE = Mode(linker="py", optimizer="fast_compile")


def check_additive(
    binding: Binding,
    streamed: Sequence[TensorVariable],
    batch: Mapping[str, np.ndarray],
    n_rows: int,
) -> None:
    """Hold f(batch) against f(even rows) + f(odd rows), at the start and away from it.

    Parameters
    ----------
    binding : Binding
        The model and its placeholders.
    streamed : sequence of TensorVariable
        The observed variables to probe.
    batch : mapping of str to ndarray
        The first batch.
    n_rows : int
        Rows N of the table, which the likelihoods are scaled to.

    Raises
    ------
    DependentRowsError
        If a log-likelihood is not a sum over rows.
    NonFiniteError
        If one is not finite on the first batch, where the fit would start.
    PlaceholderError
        If the model cannot be evaluated on the first batch.
    """
    model = binding.model
    values = [model.rvs_to_values[variable] for variable in model.free_RVs]
    terms = [term.sum() for term in model.logp(vars=streamed, sum=False)]
    function = pytensor.function(values, terms, mode=PROBE_MODE, on_unused_input="ignore")
    start = model.initial_point(random_seed=0)
    noise = np.random.default_rng(0)
    away = {
        name: (value + 0.5 * noise.standard_normal(value.shape)).astype(value.dtype)
        for name, value in start.items()
    }

    def log_likelihoods(
        rows: Mapping[str, np.ndarray], point: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        count = len(next(iter(rows.values())))
        with binding.in_placeholders(rows):
            scaled = function(*[point[value.name] for value in values])
        return np.asarray(scaled, dtype=np.float64) * (count / n_rows)

    def take(index: slice | np.ndarray) -> dict[str, np.ndarray]:
        return {key: array[index] for key, array in batch.items()}

    names = [variable.name for variable in streamed]
    for point in (start, away):
        try:
            whole = log_likelihoods(batch, point)
        except Exception as error:
            raise PlaceholderError(
                f"The model cannot be evaluated on the first batch "
                f"({', '.join(f'{key}: {array.shape}' for key, array in batch.items())}): {error}"
            ) from error
        if point is start and not np.all(np.isfinite(whole)):
            bad = [name for name, value in zip(names, whole, strict=True) if not np.isfinite(value)]
            raise NonFiniteError(
                f"The log-likelihood of {', '.join(map(repr, bad))} on the first batch is not "
                "finite where the fit would start. Are there values outside the support of the "
                "distribution, or does the starting point (initval=) need a change?"
            )
        if binding.n_rows < 2:
            continue
        try:
            parts = [log_likelihoods(take(slice(k, None, 2)), point) for k in (0, 1)]
            expected = whole
        except Exception:  # noqa: BLE001 - a fixed number of rows, said in any backend's words
            parts, expected = _swapped(log_likelihoods, take, whole, point, binding.n_rows)
        size = np.abs(expected) + np.abs(parts[0]) + np.abs(parts[1])
        tolerance = 1e3 * np.finfo(pytensor.config.floatX).eps
        for name, difference, scale in zip(names, sum(parts) - expected, size, strict=True):
            if abs(difference) > tolerance * max(scale, 1.0):
                raise DependentRowsError(
                    f"The log-likelihood of {name!r} is not a sum over rows: the even and the odd "
                    f"rows of the first batch give {difference:+.6g} more than the batch. "
                    "Something mixes rows (a mean or standard deviation of the batch, a lag, a "
                    "mean instead of a sum), so rescaling by total_size is wrong. Compute it over "
                    "the whole table beforehand."
                )


def _swapped(
    log_likelihoods: Callable[..., np.ndarray],
    take: Callable[[np.ndarray], dict[str, np.ndarray]],
    whole: np.ndarray,
    point: Mapping[str, np.ndarray],
    count: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """The same test at a fixed number of rows: two mixtures of a batch and its reversal."""
    forward, backward = np.arange(count), np.arange(count)[::-1]
    even = np.arange(count) % 2 == 0
    parts = [
        log_likelihoods(take(np.where(even, forward, backward)), point),
        log_likelihoods(take(np.where(even, backward, forward)), point),
    ]
    return parts, whole + log_likelihoods(take(backward), point)
