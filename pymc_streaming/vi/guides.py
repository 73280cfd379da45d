"""Variational families: their parameters, a draw, the entropy, and back to PyMC.

A guide owns the parameters that are being fitted, in coordinates in which every
step is relative to the scale of the posterior: log standard deviations instead of
PyMC's softplus, rows of the Cholesky factor in units of their own diagonal. `write`
translates them into the parameters of PyMC's own approximation.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import override

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.variational.opvi import Approximation
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.variable import TensorVariable

__all__ = ["GUIDES", "FullRankGuide", "Guide", "MeanFieldGuide"]


class Guide(abc.ABC):
    """A Gaussian family over the flat vector of a model's unconstrained variables.

    Parameters
    ----------
    model : pymc.Model
        The model; its free variables must be continuous.
    random_seed : int or None
        Passed to PyMC for initial points that are drawn.
    initial_scale : float, default 1e-4
        Standard deviation at the start. Best below that of the posterior: the gradient of a
        log scale is bounded by one while the scale is too small, and grows with its square
        while it is too large, which Adam would remember for thousands of steps.

    Attributes
    ----------
    approximation : pymc.variational.opvi.Approximation
        PyMC's approximation, which `write` fills in.
    size : int
        Number of unconstrained parameters d.
    location : TensorSharedVariable
        Mean, shape (d,).
    scales : dict of str to TensorSharedVariable
        Everything that is not the location.
    scales_every : int
        Steps from one move of the scales to the next.
    """

    scales_every: int

    def __init__(
        self, model: pm.Model, random_seed: int | None, initial_scale: float = 1e-4
    ) -> None:
        self.approximation = self._make_approximation(model, random_seed)
        (self.group,) = self.approximation.groups
        self.size: int = int(self.group.ddim)
        start = self.group.params_dict["mu"].get_value()
        self.location = _shared(start, "location")
        self.scales = self._initial_scales(float(np.log(initial_scale)))

    @abc.abstractmethod
    def _make_approximation(self, model: pm.Model, random_seed: int | None) -> Approximation: ...

    @abc.abstractmethod
    def _initial_scales(self, log_scale: float) -> dict[str, TensorSharedVariable]: ...

    @abc.abstractmethod
    def deviation(self, noise: TensorVariable) -> TensorVariable:
        """What standard normal `noise`, shape (d,), adds to the location in a draw."""

    @abc.abstractmethod
    def entropy(self) -> TensorVariable:
        """Entropy of the Gaussian, in nats."""

    @abc.abstractmethod
    def write(self, location: np.ndarray, scales: Mapping[str, np.ndarray]) -> Approximation:
        """Put parameter values into the PyMC approximation and return it."""

    @property
    def parameters(self) -> list[TensorSharedVariable]:
        """All parameters, the location first."""
        return [self.location, *self.scales.values()]

    def _gaussian_constant(self) -> float:
        return 0.5 * self.size * float(np.log(2.0 * np.pi * np.e))


class MeanFieldGuide(Guide):
    r"""Independent normals: :math:`z = \mu + e^{\omega} \odot \epsilon`.

    References
    ----------
    Kucukelbir, A., Tran, D., Ranganath, R., Gelman, A. and Blei, D. M. (2017).
    Automatic differentiation variational inference. *Journal of Machine Learning
    Research* 18(14), 1-45.
    """

    scales_every = 4

    def _make_approximation(self, model: pm.Model, random_seed: int | None) -> Approximation:
        return pm.MeanField(model=model, random_seed=random_seed)

    def _initial_scales(self, log_scale: float) -> dict[str, TensorSharedVariable]:
        return {"log_scale": _shared(np.full(self.size, log_scale), "log_scale")}

    @override
    def deviation(self, noise: TensorVariable) -> TensorVariable:
        return pt.exp(self.scales["log_scale"]) * noise

    @override
    def entropy(self) -> TensorVariable:
        return self.scales["log_scale"].sum() + self._gaussian_constant()

    @override
    def write(self, location: np.ndarray, scales: Mapping[str, np.ndarray]) -> Approximation:
        parameters = self.group.params_dict
        parameters["mu"].set_value(_float_x(location))
        parameters["rho"].set_value(_float_x(_softplus_inverse(np.exp(scales["log_scale"]))))
        return self.approximation


class FullRankGuide(Guide):
    r"""A dense normal: :math:`z = \mu + e^{\omega} \odot (U \epsilon)`, U unit lower triangular.

    References
    ----------
    Kucukelbir et al. (2017), as for :class:`MeanFieldGuide`, section 2.4.
    """

    scales_every = 1  # of d (d + 1) / 2 parameters each is harder to tell from noise

    def _make_approximation(self, model: pm.Model, random_seed: int | None) -> Approximation:
        return pm.FullRank(model=model, random_seed=random_seed)

    def _initial_scales(self, log_scale: float) -> dict[str, TensorSharedVariable]:
        below = self.size * (self.size - 1) // 2
        return {
            "log_scale": _shared(np.full(self.size, log_scale), "log_scale"),
            "below_diagonal": _shared(np.zeros(below), "below_diagonal"),
        }

    @override
    def deviation(self, noise: TensorVariable) -> TensorVariable:
        unit = pt.eye(self.size, dtype=noise.dtype)
        unit = unit[np.tril_indices(self.size, -1)].set(self.scales["below_diagonal"])
        return pt.exp(self.scales["log_scale"]) * pt.dot(unit, noise)

    @override
    def entropy(self) -> TensorVariable:
        return self.scales["log_scale"].sum() + self._gaussian_constant()

    @override
    def write(self, location: np.ndarray, scales: Mapping[str, np.ndarray]) -> Approximation:
        diagonal = np.exp(scales["log_scale"].astype(np.float64))
        cholesky = np.eye(self.size)
        cholesky[np.tril_indices(self.size, -1)] = scales["below_diagonal"]
        cholesky *= diagonal[:, None]
        cholesky[np.diag_indices(self.size)] = _softplus_inverse(diagonal)
        parameters = self.group.params_dict
        parameters["mu"].set_value(_float_x(location))
        parameters["L_tril"].set_value(_float_x(cholesky[np.tril_indices(self.size)]))
        return self.approximation


#: The guide behind each value of ``Trainer(method=)``.
GUIDES: dict[str, type[Guide]] = {"advi": MeanFieldGuide, "fullrank_advi": FullRankGuide}


def _float_x(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=pytensor.config.floatX)


def _shared(values: np.ndarray, name: str) -> TensorSharedVariable:
    return pytensor.shared(_float_x(values), name=name, shape=values.shape)


def _softplus_inverse(scale: np.ndarray) -> np.ndarray:
    # log(expm1(x)) without overflow for large x; float64 because it is near log(x) for small x
    scale = np.asarray(scale, dtype=np.float64)
    return scale + np.log(-np.expm1(-scale))
