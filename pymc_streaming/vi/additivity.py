"""Is a log-likelihood a sum over rows? Found out by evaluating it.

Rescaling a batch by N / B is right for a sum over rows and wrong for anything else. What the
graph does not show, a probe does: the log-likelihood of a batch against that of the same rows in
another order, and against that of its even and its odd rows.

And an exact pass weighs rows, for which there must be an element for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import (
    DependentRowsError,
    IndexRangeError,
    NonFiniteError,
    PlaceholderError,
    RowAxisError,
)
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.indices import CODES, out_of_range, streamed_indices

__all__ = ["PROBE_MODE", "check_additive"]

# Pure Python: a probe runs a handful of times, so compiling it would be the whole cost.
PROBE_MODE = Mode(linker="py", optimizer="fast_compile")


def check_additive(
    binding: Binding,
    streamed: Sequence[TensorVariable],
    batch: Mapping[str, np.ndarray],
    n_rows: int,
) -> None:
    """Hold f(batch) against f(its rows reordered) and f(even rows) + f(odd rows).

    At the start of the fit, and away from it, where no effect is zero.

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
    RowAxisError
        If one does not have an element for each row along its first axis.
    IndexRangeError
        If a code in the first batch picks an element that a parameter does not have.
    NonFiniteError
        If one is not finite on the first batch, where the fit would start.
    PlaceholderError
        If the model cannot be evaluated on the first batch.
    """
    model = binding.model
    values = [model.rvs_to_values[variable] for variable in model.free_RVs]
    terms = model.logp(vars=streamed, sum=False)
    lengths = [term.shape[0] if term.type.ndim else pt.as_tensor(0) for term in terms]
    outputs = [*[term.sum() for term in terms], *lengths]
    function = pytensor.function(values, outputs, mode=PROBE_MODE, on_unused_input="ignore")
    names = [variable.name for variable in streamed]
    start = model.initial_point(random_seed=0)
    random = np.random.default_rng(0)

    def away(jitter: float) -> dict[str, np.ndarray]:
        return {
            name: (value + jitter * random.standard_normal(value.shape)).astype(value.dtype)
            for name, value in start.items()
        }

    def log_likelihoods(
        rows: Mapping[str, np.ndarray], point: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        count = len(next(iter(rows.values())))
        with binding.in_placeholders(rows):
            found = function(*[point[value.name] for value in values])
        scaled, lengths = found[: len(terms)], found[len(terms) :]
        for name, length in zip(names, lengths, strict=True):
            _check_length(name, int(length), count)
        return np.asarray(scaled, dtype=np.float64) * (count / n_rows)

    def take(index: slice | np.ndarray) -> dict[str, np.ndarray]:
        return {key: array[index] for key, array in batch.items()}

    mixed = random.permutation(binding.n_rows)
    for point in (start, away(0.5), away(0.05)):
        try:
            whole = log_likelihoods(batch, point)
        except RowAxisError:
            raise
        except Exception as error:
            _check_codes(binding, batch, start)
            raise PlaceholderError(
                f"The model cannot be evaluated on the first batch "
                f"({', '.join(f'{key}: {array.shape}' for key, array in batch.items())}): {error}"
            ) from error
        finite = np.isfinite(whole)
        if point is start and not finite.all():
            bad = [name for name, good in zip(names, finite, strict=True) if not good]
            raise NonFiniteError(
                f"The log-likelihood of {', '.join(map(repr, bad))} on the first batch is not "
                "finite where the fit would start. Are there values outside the support of the "
                "distribution, or does the starting point (initval=) need a change?"
            )
        if binding.n_rows < 2 or not finite.all():
            continue
        _compare(
            names,
            whole,
            log_likelihoods(take(mixed), point),
            "the same rows in another order give {:+.6g} more",
            "the position of a row in the batch counts (a fixed array or a free variable as long "
            "as a batch, a lag)",
        )
        try:
            parts = np.sum(
                [log_likelihoods(take(slice(k, None, 2)), point) for k in (0, 1)], axis=0
            )
        except RowAxisError:
            raise
        except Exception:  # noqa: BLE001 - a fixed number of rows, said in any backend's words
            # Two batches that exchange half of their rows, one with every row and one with some
            # of them twice, so that the sums of the two mixtures differ where rows are mixed.
            every = np.arange(binding.n_rows)
            some = random.integers(0, binding.n_rows, binding.n_rows)
            half = every % 2 == 0
            pairs = (every, some), (some, every)
            parts = np.sum(
                [log_likelihoods(take(np.where(half, *pair)), point) for pair in pairs], axis=0
            )
            whole = whole + log_likelihoods(take(some), point)
        _compare(
            names,
            whole,
            parts,
            "split in two, the rows of the first batch give {:+.6g} more than together",
            "something mixes rows (a mean or standard deviation of the batch, a lag, a mean "
            "instead of a sum)",
        )


def _check_length(name: str, length: int, n_rows: int) -> None:
    if length != n_rows:
        found = f"{length:,} along its first axis" if length else "a single number"
        raise RowAxisError(
            f"The log-likelihood of {name!r} must have an element for each row along its first "
            f"axis, {n_rows:,} for the first batch; found {found}. Leave out a sum over rows (in "
            "the logp= of a CustomDist), and put the rows first (no [None, :])."
        )


def _check_codes(
    binding: Binding, batch: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]
) -> None:
    """Whether it is for a code that a batch cannot be evaluated."""
    values = binding.model.value_vars
    indices = [
        each
        for each in streamed_indices([binding.model.logp()], binding.placeholders.values())
        if set(values).isdisjoint(ancestors([each.index]))
    ]

    def evaluate(wanted: list[TensorVariable]) -> list[np.ndarray]:
        function = pytensor.function(values, wanted, mode=PROBE_MODE, on_unused_input="ignore")
        found: list[np.ndarray] = function(*[start[value.name] for value in values])
        return found

    with binding.in_placeholders(batch):
        found = out_of_range(indices, evaluate)
    if found:
        raise IndexRangeError(f"The first batch: {found}. {CODES}")


def _compare(
    names: Sequence[str], expected: np.ndarray, found: np.ndarray, finding: str, cause: str
) -> None:
    tolerance = 1e3 * np.finfo(pytensor.config.floatX).eps
    for name, one, other in zip(names, expected, found, strict=True):
        # Written so that NaN, which a batch of other rows alone cannot cause, is a difference.
        if not abs(other - one) <= tolerance * max(abs(one) + abs(other), 1.0):
            raise DependentRowsError(
                f"The log-likelihood of {name!r} is not a sum over rows: "
                f"{finding.format(other - one)}. Probably {cause}, and rescaling by total_size is "
                "wrong. Compute it over the whole table beforehand, or stream it as a column."
            )
