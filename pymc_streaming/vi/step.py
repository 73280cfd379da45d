r"""The compiled step: one batch in, parameters moved, nothing out.

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
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode, get_mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.link.jax.linker import JAXLinker
from pytensor.tensor.sharedvar import SharedVariable
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.indices import clip_indices
from pymc_streaming.vi.optimizers import AnnealedAdam, Optimizer
from pymc_streaming.vi.support import inside_support

__all__ = ["Step", "flat"]


class Step:
    """The objective of one batch and the functions compiled from it.

    Parameters
    ----------
    log_density : TensorVariable
        The model's joint log-density (scaled to N), a scalar function of the value
        variables and of the batch, which sits in shared variables.
    log_likelihoods : sequence of TensorVariable
        Its streamed terms, elementwise.
    data : sequence of SharedVariable
        The variables that hold the batch.
    guide : Guide
        Family that is fitted.
    optimizer : AnnealedAdam or Optimizer
        The package's own, or one of PyMC's update functions, which keeps its own rate.
    compile_kwargs : mapping
        Passed to ``pytensor.function``.

    Notes
    -----
    A step whose gradient is not finite, or that meets data outside the support or the range
    of an index, changes nothing, and neither does any after it, so the parameters stay those
    of the last good step; `completed` counts the good ones.
    """

    def __init__(
        self,
        log_density: TensorVariable,
        log_likelihoods: Sequence[TensorVariable],
        data: Sequence[SharedVariable],
        guide: Guide,
        optimizer: AnnealedAdam | Optimizer,
        compile_kwargs: Mapping[str, Any],
    ) -> None:
        self._guide = guide
        mode = get_mode(compile_kwargs.get("mode"))
        _allow_64_bits(mode)
        self._compile_kwargs = {
            **compile_kwargs,
            # The conditions behind PyMC's parameter checks are in `inside_support` already.
            "mode": mode.including("local_remove_check_parameter"),
            "trust_input": True,
            "on_unused_input": "ignore",
        }
        float_x = pytensor.config.floatX
        self.noise_dtype = np.dtype(float_x)
        noise = pt.tensor("noise", shape=(guide.size,), dtype=float_x)
        rate = pt.scalar("rate", dtype=float_x)
        weight = pt.scalar("weight", dtype=float_x)
        self._inputs = [noise, rate, weight]

        def negative_log_density(draw: TensorVariable) -> TensorVariable:
            return -flat(log_density, guide, draw)

        deviation = guide.deviation(noise)
        draw = guide.location + deviation
        (log_density, *log_likelihoods), in_range = clip_indices(
            [log_density, *log_likelihoods], data
        )
        self._possible = pt.all(
            [inside_support(flat(term, guide, draw)) for term in log_likelihoods]
            + [flat(condition, guide, draw) for condition in in_range]
        )
        self._plain = negative_log_density(draw) - guide.entropy()
        self._mirrored = negative_log_density(guide.location - deviation) - guide.entropy()

        # The optimiser is applied once per parameter, to a stand-in for its gradient, so that
        # the two functions below share its state.
        self._stand_ins: dict[SharedVariable, TensorVariable] = {}
        self._optimizer_updates: dict[SharedVariable, Mapping[SharedVariable, TensorVariable]] = {}
        for parameter in guide.parameters:
            gradient = parameter.type()
            self._stand_ins[parameter] = gradient
            if isinstance(optimizer, AnnealedAdam):
                updates = optimizer.updates(gradient, parameter, rate)
            else:
                updates = optimizer([gradient], [parameter])
            self._optimizer_updates[parameter] = updates

        self._completed = pytensor.shared(np.asarray(0, dtype="int64"), name="completed")
        self._halted = pytensor.shared(np.asarray(False), name="halted")
        self._averages = {
            parameter: pytensor.shared(
                parameter.get_value(), name=f"average_{parameter.name}", shape=parameter.type.shape
            )
            for parameter in guide.parameters
        }

    def compile(self) -> None:
        """Compile the functions: the slow part, seconds to a minute when nothing is cached."""
        guide = self._guide
        pair = 0.5 * (self._plain + self._mirrored)
        gradients = pytensor.grad(pair, guide.parameters)
        move_all = self._function(dict(zip(guide.parameters, gradients, strict=True)))
        self._moves = [move_all]
        if guide.scales_every > 1:
            gradient = pytensor.grad(self._plain, guide.location)
            move_location = self._function({guide.location: gradient})
            self._moves += [move_location] * (guide.scales_every - 1)
        self._loss = pytensor.function([self._inputs[0]], self._plain, **self._compile_kwargs)
        # Some backends compile at the first call; while halted, a call changes nothing.
        self._halted.set_value(np.asarray(True))
        noise = np.zeros(guide.size, self.noise_dtype)
        nothing = np.zeros((), self.noise_dtype)
        for move in self._moves[:2]:
            move(noise, nothing, nothing)
        self._loss(noise)
        self.resume()

    def _function(self, gradients: dict[SharedVariable, TensorVariable]) -> Any:
        finite = pt.isfinite(pt.add(*[gradient.sum() for gradient in gradients.values()]))
        possible = finite & self._possible
        good = possible & ~self._halted
        updates: dict[SharedVariable, Variable] = {}
        for parameter, gradient in gradients.items():
            wanted = self._optimizer_updates[parameter]
            replaced = graph_replace(
                list(wanted.values()), {self._stand_ins[parameter]: gradient}, strict=False
            )
            updates |= {
                state: pt.switch(good, new, state).astype(state.dtype)
                for state, new in zip(wanted, replaced, strict=True)
            }
        # Averages include parameters that this function leaves where they are.
        weight = pt.switch(good, self._inputs[2], 0.0).astype(self.noise_dtype.name)
        for parameter, average in self._averages.items():
            current = updates.get(parameter, parameter)
            updates[average] = (average + weight * (current - average)).astype(average.dtype)
        updates[self._completed] = self._completed + good.astype("int64")
        updates[self._halted] = self._halted | ~possible
        return pytensor.function(self._inputs, [], updates=updates, **self._compile_kwargs)

    def __call__(self, index: int, noise: np.ndarray, rate: np.ndarray, weight: np.ndarray) -> None:
        """Take step number `index` on the batch that was handed over.

        Parameters
        ----------
        index : int
            Number of the step since the parameters were made.
        noise : ndarray, shape (d,)
            Standard normal draws.
        rate, weight : ndarray, shape ()
            Learning rate; weight of the new iterate in the running average.
        """
        self._moves[index % len(self._moves)](noise, rate, weight)

    def loss(self, noise: np.ndarray) -> float:
        """Negative ELBO of the batch at the draw made of `noise`, before the step is taken."""
        return float(self._loss(noise))

    @property
    def completed(self) -> int:
        """Steps taken whose gradient was finite."""
        return int(self._completed.get_value())

    def resume(self) -> None:
        """Allow steps again after one that was not finite."""
        self._halted.set_value(np.asarray(False))

    def averages(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The averaged location and scales, as `Guide.write` takes them."""
        guide = self._guide
        location = np.asarray(self._averages[guide.location].get_value())
        scales = {
            name: np.asarray(self._averages[scale].get_value())
            for name, scale in guide.scales.items()
        }
        return location, scales


def _allow_64_bits(mode: Mode) -> None:
    """Keep JAX from cutting float64 and int64 to half, which it does unless told otherwise."""
    if isinstance(mode.linker, JAXLinker):
        import jax

        importlib.import_module("pytensor.link.jax.dispatch")  # sets the same switch on import
        jax.config.update("jax_enable_x64", True)


def flat(expression: TensorVariable, guide: Guide, draw: TensorVariable) -> TensorVariable:
    """Replace the value variables in `expression` by slices of the flat vector `draw`."""
    model = guide.group.model
    values = {value.name: value for value in model.value_vars}
    replacements = {
        values[name]: draw[where].reshape(shape).astype(dtype)
        for name, where, shape, dtype in guide.group.ordering.values()
    }
    return graph_replace(expression, replacements, strict=False)
