r"""The compiled step: batches in, parameters moved.

Per step the negative ELBO of the batch

.. math::

    -\mathbb{E}_q[\log p(z) + \tfrac{N}{B} \textstyle\sum_{i \in B} \log p(y_i \mid z)]
    - \mathbb{H}[q]

is differentiated at a reparametrised draw; it is the objective of ``pm.ADVI``, unscaled.

The location moves at every step, on one draw. The scales move at every `Guide.scales_every`-th
step, on a draw and its mirror image: the gradient of a scale is the draw times the gradient of the
log-density, and with one draw the noise of picking rows, which grows with the square root
of N / B, hides it. In an antithetic pair that noise cancels exactly, because both halves see
the same rows. For independent normals a pair every fourth step costs a quarter more and is
worth hundreds of plain draws at a million rows.

All that depends on the model is its log-density and the gradient of it at a draw, so that is all
that PyTensor compiles: two functions of a draw and a batch. Draws, pairs, the optimiser and the
averages are the same for every model, and are in `kernels`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
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
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.optimizers import AnnealedAdam, Optimizer, PymcUpdate

__all__ = ["Step"]

# What is moved.
_PARTS = "location", "scales"


class Step:
    """The objective of a batch, what is compiled of it, and where the fit is.

    Parameters
    ----------
    binding : Binding
        The model and the arrays of a batch.
    streamed : sequence of TensorVariable
        The observed variables whose likelihood the batches are rows of.
    guide : Guide
        Family that is fitted; its parameters are moved.
    optimizer : AnnealedAdam or Optimizer
        The package's own, or one of PyMC's update functions, which keeps its own rate.
    compile_kwargs : mapping
        Passed to ``pytensor.function``.

    Notes
    -----
    A step whose gradient is not finite, or that meets data outside the support or the range
    of an index, changes nothing.
    """

    def __init__(
        self,
        binding: Binding,
        streamed: Sequence[TensorVariable],
        guide: Guide,
        optimizer: AnnealedAdam | Optimizer,
        compile_kwargs: Mapping[str, Any],
    ) -> None:
        self._binding, self._guide, self._optimizer = binding, guide, optimizer
        self._settings = function_settings(compile_kwargs)
        model = guide.group.model
        others = all_but(streamed, model)
        draw = pt.tensor("draw", shape=(guide.size,), dtype="float64")
        logps = model.logp(vars=[*streamed, *others], sum=False)
        terms = [binding.static(term) for term in logps]
        terms[: len(streamed)], violated = guarded(terms[: len(streamed)], binding.inputs)
        log_density = pt.add(*[term.sum() for term in terms])
        loss, violated = (flat(each, guide, draw) for each in (-log_density, violated))
        # Nothing, or NaN: in the loss, and in every element of its gradient.
        self._loss = loss + violated * draw.sum()
        self._draw = draw
        self._completed = np.zeros(1, np.int64)
        self._parameters = guide.location, guide.scales
        self._moments = (
            np.zeros((2, len(guide.location))),
            np.zeros((2, len(guide.scales))),
        )
        self._averages = guide.location.copy(), guide.scales.copy()
        self._updates: list[PymcUpdate] = []

    def compile(self, batch: Mapping[str, np.ndarray]) -> None:
        """Compile the functions: the slow part, seconds to a minute when nothing is cached.

        Parameters
        ----------
        batch : mapping of str to ndarray
            Any batch; the functions are called on it once.
        """
        inputs = [self._draw, *self._binding.inputs]
        gradient = compiled(inputs, [pytensor.grad(self._loss, self._draw)], self._settings)
        self._loss_function = compiled(inputs, self._loss, self._settings)
        # Variables of the model that are shared but not refilled.
        self._constants = functools.partial(constants, gradient, len(inputs))
        arguments = (self._guide.location, *self._binding.arrays(batch))
        self._loss_function(*arguments)  # Numba compiles what is called
        self._advance = functools.partial(
            self._loop_around(gradient, arguments), self._binding.n_rows, self._guide.scales_every
        )

    def _loop_around(self, gradient: Any, arguments: tuple[np.ndarray, ...]) -> Callable[..., None]:
        """`kernels.advance` with its first two arguments: compiled if all that it calls is."""
        if not isinstance(self._optimizer, AnnealedAdam):
            self._updates = [
                PymcUpdate(self._optimizer, len(values), self._settings)
                for values in self._parameters
            ]
            return functools.partial(kernels.advance, called(gradient, arguments), self._updates)
        if not is_numba(self._settings):
            return functools.partial(kernels.advance, called(gradient, arguments), None)
        advance, address = kernels.compiled(
            gradient.vm.jit_fn, arguments + self._constants(), len(arguments) - 1
        )
        return functools.partial(advance, address, None)

    def __call__(
        self,
        batches: Mapping[str, np.ndarray],
        noise: np.ndarray,
        rates: np.ndarray,
        weights: np.ndarray,
    ) -> None:
        """Take a step on each of `batches`, until one cannot be taken: see `completed`.

        Parameters
        ----------
        batches : mapping of str to ndarray
            n whole batches, one after the other.
        noise : ndarray, shape (n, d)
            Standard normal draws.
        rates, weights : ndarray, shape (n,)
            Learning rates; weights of the new iterates in the running average.
        """
        self._advance(
            self._completed,
            self._binding.arrays(batches),
            self._constants(),
            noise,
            rates,
            weights,
            self._parameters,
            self._moments,
            self._averages,
        )

    @property
    def completed(self) -> int:
        """Steps taken; none that was not finite."""
        return int(self._completed[0])

    def loss(self, batch: Mapping[str, np.ndarray], noise: np.ndarray) -> float:
        """Negative ELBO of a batch at the draw made of `noise`, in nats."""
        guide = self._guide
        loss = self._loss_function(guide.draw(noise), *self._binding.arrays(batch))
        return float(loss) - guide.entropy()

    def averages(self) -> tuple[np.ndarray, np.ndarray]:
        """The averaged location and scales, as `Guide.write` takes them."""
        return self._averages

    def state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on, but for its batch and noise."""
        arrays: dict[str, np.ndarray] = {"completed": self._completed}
        for i, name in enumerate(_PARTS):
            arrays[name] = self._parameters[i]
            arrays[f"{name}/moments"] = self._moments[i]
            arrays[f"{name}/average"] = self._averages[i]
        for name, variable in self._memory():
            arrays[name] = variable.get_value(borrow=True)
        return arrays

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Be where another step was; compiled before."""
        memory = dict(self._memory())
        for name, array in self.state().items():
            if name in memory:
                memory[name].set_value(state[name])
            else:
                array[:] = state[name]

    def _memory(self) -> Iterator[tuple[str, Any]]:
        """What update functions of PyMC remember, by name."""
        for name, update in zip(_PARTS, self._updates, strict=False):
            for i, variable in enumerate(update.memory):
                yield f"{name}/memory/{i}", variable
