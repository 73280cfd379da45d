"""How far a step goes: optimisers, and a learning rate sized to the run.

An optimiser is PyMC's own kind of object: a function of gradients and parameters that
returns updates, such as ``pm.adam(learning_rate=0.01)``. The default anneals Adam's
rate over the steps of one ``fit`` and averages the iterates of its last part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor
from pytensor.tensor.sharedvar import SharedVariable
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import ArgumentError
from pymc_streaming.vi.compiling import compiled

__all__ = [
    "AnnealedAdam",
    "Optimizer",
    "PymcUpdate",
    "averaging_start",
    "averaging_weights",
    "check_optimizer",
    "describe_optimizer",
]

#: PyMC's update functions, e.g. ``pm.adam(learning_rate=0.01)``.
Optimizer = Callable[
    [Sequence[TensorVariable], Sequence[SharedVariable]], Mapping[SharedVariable, TensorVariable]
]

# The part of a run whose iterates are averaged, and the rate then, relative to the first.
AVERAGED_PART = 0.3
FINAL_RATE = 0.01


@dataclass(frozen=True, slots=True)
class AnnealedAdam:
    """Adam whose learning rate falls along half a cosine over the steps of a fit.

    The rate is down to a hundredth after seven tenths of the steps, and stays there while the
    iterates are averaged: small enough that parameters hardly follow the rows that happen to
    stand together in an imperfectly shuffled stream, large enough to average out their noise.

    Parameters
    ----------
    learning_rate : float, default 0.05
        Rate of the first step, in the units of the unconstrained parameters. Over a fit
        of n steps a parameter can travel about ``learning_rate * n / 3``.

    Raises
    ------
    ArgumentError
        If the rate is not a positive number.

    References
    ----------
    Kingma, D. P. and Ba, J. (2015). Adam: a method for stochastic optimization. ICLR.
    Loshchilov, I. and Hutter, F. (2017). SGDR: stochastic gradient descent with warm
    restarts. ICLR.

    Examples
    --------
    >>> from pymc_streaming import AnnealedAdam
    >>> AnnealedAdam(learning_rate=0.1).rates(0, 4, 4).round(4).tolist()
    [0.1, 0.072, 0.0196, 0.001]
    """

    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        if not (np.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ArgumentError(
                f"learning_rate must be a positive number, found {self.learning_rate!r}."
            )

    def rates(self, start: int, stop: int, n: int) -> np.ndarray:
        """Learning rates of steps `start` to `stop` (excluded) of a fit of `n` steps."""
        progress = np.minimum(np.arange(start, stop) / ((1.0 - AVERAGED_PART) * n), 1.0)
        cosine = 0.5 * (1.0 + np.cos(np.pi * progress))
        return self.learning_rate * (FINAL_RATE + (1.0 - FINAL_RATE) * cosine)


class PymcUpdate:
    """One of PyMC's update functions, in the place of `adam`.

    Parameters
    ----------
    optimizer : Optimizer
        For example ``pm.adam(learning_rate=0.01)``.
    size : int
        Number of parameters.
    compile_kwargs : mapping
        Passed to ``pytensor.function``.
    """

    def __init__(self, optimizer: Optimizer, size: int, compile_kwargs: Mapping[str, Any]) -> None:
        self._parameters = pytensor.shared(np.zeros(size), shape=(size,), name="parameters")
        gradient = self._parameters.type("gradient")
        updates = optimizer([gradient], [self._parameters])
        self._move = compiled([gradient], [], compile_kwargs, updates=updates)

    @property
    def memory(self) -> list[SharedVariable]:
        """What it remembers from step to step."""
        return list(self._move.get_shared())

    def __call__(
        self,
        parameters: np.ndarray,
        gradient: np.ndarray,
        moments: np.ndarray,  # noqa: ARG002 - what it remembers, it keeps itself, as it does its rate
        rate: float,  # noqa: ARG002
        count: int,  # noqa: ARG002
    ) -> None:
        """Move `parameters`."""
        self._parameters.set_value(parameters)
        self._move(gradient)
        parameters[:] = self._parameters.get_value(borrow=True)


def check_optimizer(optimizer: object) -> None:
    """Refuse what is neither `AnnealedAdam` nor a function such as ``pm.adam()`` gives."""
    if not isinstance(optimizer, AnnealedAdam) and (
        isinstance(optimizer, type) or not callable(optimizer)
    ):
        raise ArgumentError(
            f"optimizer must be AnnealedAdam(...) or a PyMC update function such as "
            f"pm.adam(learning_rate=0.01), found {optimizer!r}."
        )


def describe_optimizer(optimizer: AnnealedAdam | Optimizer) -> str:
    """An optimiser in words, the same in every process.

    Examples
    --------
    >>> import pymc as pm
    >>> describe_optimizer(pm.sgd(learning_rate=0.01))
    'sgd(learning_rate=0.01)'
    """
    if isinstance(optimizer, AnnealedAdam):
        return repr(optimizer)
    function = getattr(optimizer, "func", optimizer)
    keywords = getattr(optimizer, "keywords", {})
    given = ", ".join(f"{name}={value!r}" for name, value in sorted(keywords.items()))
    return f"{getattr(function, '__name__', type(function).__name__)}({given})"


def averaging_start(n: int, steps_per_epoch: float) -> int:
    """First step of a fit of `n` steps whose iterates enter the average.

    The average covers the last three tenths of the run, in whole epochs if at least one
    fits: over an epoch every row has pulled exactly once, so whatever order the rows came
    in leaves no trace to first order.

    References
    ----------
    Polyak, B. T. and Juditsky, A. B. (1992). Acceleration of stochastic approximation by
    averaging. *SIAM Journal on Control and Optimization* 30(4), 838-855.

    Examples
    --------
    >>> averaging_start(20_000, 250.0)
    14000
    >>> averaging_start(20_000, 5_500.0)
    14500
    """
    epochs = int(AVERAGED_PART * n / steps_per_epoch)
    averaged = epochs * steps_per_epoch if epochs else AVERAGED_PART * n
    return n - max(1, round(averaged))


def averaging_weights(start: int, stop: int, average_from: int) -> np.ndarray:
    """Weights with which steps `start` to `stop` (excluded) enter the running average.

    Before `average_from` the weight is one: the average is the iterate.

    Examples
    --------
    >>> averaging_weights(2, 6, 3).tolist()
    [1.0, 1.0, 0.5, 0.3333333333333333]
    """
    return 1.0 / np.maximum(1, np.arange(start, stop) - average_from + 1)
