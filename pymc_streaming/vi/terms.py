r"""The log-density of a model in two terms, compiled: of rows, and of all that is not of rows.

.. math::

    \log p(z, y) = \sum_{r=1}^N w_r \log p(y_r \mid z) \; + \; \log p(z)

The first, with weights that are one unless rows stand for others, is differentiated at many draws
and over all rows of a table, a chunk after the other. The second, with the likelihoods that are not
streamed, takes no rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import graph_replace
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.vi import kernels
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.compiling import (
    all_but,
    called,
    compiled,
    constants,
    flat,
    function_settings,
    guarded,
    is_numba,
)
from pymc_streaming.vi.cores import at_the_same_time, n_cores
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.indices import picked_variables

__all__ = ["Terms"]

# Memory of the rows of a chunk: it stays in a processor's cache while it is looked at from several
# points. And their number: fewer are not worth a call.
_CHUNK_BYTES, _CHUNK_ROWS = 2**20, (128, 4096)
# Rows times points: what is less takes no longer than to start threads for it.
_WORTH_THREADS = 2**15


class Terms:
    """Both terms and their gradients.

    Parameters
    ----------
    binding : Binding
        The model and its placeholders.
    streamed : sequence of TensorVariable
        The observed variables whose likelihood is of rows.
    guide : Guide
        Says which elements of a draw are which variables.
    batch : mapping of str to ndarray
        Some rows, to compile for.
    n_rows : int
        Rows N, which PyMC scales the likelihoods to.
    compile_kwargs : mapping
        Passed to ``pytensor.function``.

    Attributes
    ----------
    size : int
        Number of unconstrained parameters d.
    chunk_rows : int
        Rows that are best looked at together.
    picked : set of str
        Names of the value variables of which codes in the data pick elements.
    """

    def __init__(
        self,
        binding: Binding,
        streamed: Sequence[TensorVariable],
        guide: Guide,
        batch: Mapping[str, np.ndarray],
        n_rows: int,
        compile_kwargs: Mapping[str, Any],
    ) -> None:
        self.size = guide.size
        row_nbytes = sum(array.nbytes for array in batch.values()) / binding.n_rows
        self.chunk_rows = int(np.clip(_CHUNK_BYTES / max(row_nbytes, 1.0), *_CHUNK_ROWS))
        self._binding = binding
        settings = function_settings(compile_kwargs)
        model = guide.group.model
        draw = pt.tensor("draw", shape=(guide.size,), dtype="float64")
        weights = pt.tensor("weights", shape=(None,), dtype="float64")
        rows = {
            key: pt.tensor(
                binding.names[key],
                shape=(None, *batch[key].shape[1:]),
                dtype=placeholder.dtype,
            )
            for key, placeholder in binding.placeholders.items()
        }
        stand_ins = {binding.placeholders[key]: array for key, array in rows.items()}
        data = list(rows.values())
        of_rows = model.logp(vars=list(streamed))
        picked = picked_variables([of_rows], binding.placeholders.values(), model.value_vars)
        self.picked = {variable.name for variable in picked}
        likelihoods = graph_replace(
            model.logp(vars=list(streamed), sum=False), stand_ins, strict=False
        )
        likelihoods, violated = guarded(likelihoods, data)
        # PyMC multiplied each by N and divided it by the number of rows.
        unscaled = data[0].shape[0].astype("float64") / n_rows
        likelihood = unscaled * pt.add(
            *[(term * _along_rows(weights, term)).sum() for term in likelihoods]
        )
        likelihood, violated = (flat(each, guide, draw) for each in (likelihood, violated))
        others = all_but(streamed, model)
        prior = flat(
            pt.add(*[term.sum() for term in model.logp(vars=others, sum=False)]), guide, draw
        ).astype("float64")

        self._likelihood = self._compiled(
            settings,
            [draw, *data, weights],
            _gradient(likelihood + violated * draw.sum(), draw),
            (*binding.arrays(batch), np.ones(binding.n_rows)),
        )
        self._compile_values = functools.partial(
            self._compiled,
            settings,
            [draw, *data, weights],
            (likelihood + violated)[None],
            (*binding.arrays(batch), np.ones(binding.n_rows)),
        )
        self._prior = self._compiled(
            settings, [draw], pt.join(0, prior[None], _gradient(prior, draw)), ()
        )

    def _compiled(
        self,
        settings: Mapping[str, Any],
        inputs: Sequence[TensorVariable],
        output: TensorVariable,
        blocks: tuple[np.ndarray, ...],
    ) -> Callable[..., None]:
        """`kernels.accumulate` of a function: what is left to give are rows and points."""
        function = compiled(inputs, [output], settings)
        others = functools.partial(constants, function, len(inputs))
        arguments = (np.zeros(self.size), *blocks)
        model: Any
        releases_lock = is_numba(settings)
        if releases_lock:
            loop, model = kernels.compiled_accumulate(
                function.vm.jit_fn, arguments + others(), len(blocks)
            )
        else:
            loop, model = kernels.accumulate, called(function, arguments)

        def accumulate(
            chunk_rows: int,
            rows: tuple[np.ndarray, ...],
            points: np.ndarray,
            chosen: np.ndarray,
            out: np.ndarray,
        ) -> None:
            n_rows, arguments = len(rows[0]) if rows else 0, others()

            def look(share: np.ndarray) -> None:
                loop(model, chunk_rows, n_rows, rows, arguments, points, share, out)

            if releases_lock and n_rows * chosen.shape[1] >= _WORTH_THREADS:
                at_the_same_time(look, _shares(chosen, n_cores()))
            else:
                look(chosen)

        return accumulate

    def add_likelihood(
        self,
        rows: Mapping[str, np.ndarray],
        weights: np.ndarray,
        chunk_rows: int,
        points: np.ndarray,
        chosen: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """Add the gradients of the log-likelihood of chunks of rows, each at a few points.

        Parameters
        ----------
        rows : mapping of str to ndarray
            n rows.
        weights : ndarray, shape (n,)
            How often each row counts.
        chunk_rows : int
            Rows of a chunk; the last may have fewer.
        points : ndarray, shape (k, d)
            Draws.
        chosen : ndarray of int64, shape (chunks, m)
            The points at which each chunk is looked at; no point is in two columns.
        out : ndarray, shape (k, d)
            Sums, by point. NaN where data are outside the support or the range of an index.
        """
        self._likelihood(chunk_rows, (*self._binding.arrays(rows), weights), points, chosen, out)

    def add_values(
        self,
        rows: Mapping[str, np.ndarray],
        weights: np.ndarray,
        chunk_rows: int,
        points: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """Add the log-likelihood of all `rows` at each of `points`. Compiled at the first call.

        Parameters
        ----------
        rows, weights, chunk_rows, points
            As for `add_likelihood`.
        out : ndarray, shape (k,)
            Sums, by point. NaN where data are outside the support or the range of an index.
        """
        chunks = -(-len(weights) // chunk_rows)
        chosen = np.tile(np.arange(len(points)), (chunks, 1))
        arrays = (*self._binding.arrays(rows), weights)
        self._values(chunk_rows, arrays, points, chosen, out[:, None])

    @functools.cached_property
    def _values(self) -> Callable[..., None]:
        return self._compile_values()

    def prior(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values, shape (k,), and gradients, shape (k, d), of the other term at k points."""
        out = np.zeros((len(points), 1 + self.size))
        self._prior(1, (), points, np.arange(len(points))[None], out)
        return out[:, 0], out[:, 1:]


def _shares(chosen: np.ndarray, n_threads: int) -> list[np.ndarray]:
    """Parts of `chosen` that have no point in common.

    So each thread has rows of the sums to itself, which are the same for any number of threads.
    Best is to share out chunks, each of which one thread then has in its cache.
    """
    for n in (n_threads, 1 << n_threads.bit_length() - 1):  # patterns come round after 2, 4, 8, ...
        turns = np.arange(len(chosen)) % n
        of_turns = [np.unique(chosen[turns == turn]) for turn in range(n)]
        if len(np.unique(np.concatenate(of_turns))) == sum(map(len, of_turns)):
            return [np.where(turns[:, None] == turn, chosen, -1) for turn in range(n)]
    n = min(n_threads, chosen.shape[1])
    return [np.ascontiguousarray(part) for part in np.array_split(chosen, n, axis=1)]


def _along_rows(weights: TensorVariable, term: TensorVariable) -> TensorVariable:
    return weights.dimshuffle(0, *["x"] * (term.ndim - 1))


def _gradient(value: TensorVariable, draw: TensorVariable) -> TensorVariable:
    # A flat prior does not depend on the draw.
    return pytensor.grad(value, draw, disconnected_inputs="ignore")
