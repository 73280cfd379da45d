"""Variational families: their parameters, a draw, the entropy, and back to PyMC.

A guide owns the parameters that are being fitted, in coordinates in which every
step is relative to the scale of the posterior: log standard deviations instead of
PyMC's softplus, rows of the Cholesky factor in units of their own diagonal. `write`
translates them into the parameters of PyMC's own approximation.
"""

from __future__ import annotations

import abc
import copy
import math
from typing import Self, override

import numpy as np
import pymc as pm
import pytensor
from pymc.variational.opvi import Approximation

from pymc_streaming.vi.kernels import deviate

__all__ = [
    "GUIDES",
    "FullRankGuide",
    "Guide",
    "MeanFieldGuide",
    "element_names",
    "n_parameters",
]


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
    location : ndarray of float64, shape (d,)
        Mean.
    initial : ndarray of float64, shape (d,)
        PyMC's initial point, where the location is at first.
    scales : ndarray of float64
        Logarithms of d standard deviations, then whatever else the family has.
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
        self.location = np.array(self.group.params_dict["mu"].get_value(), dtype=np.float64)
        self.initial = self.location.copy()
        self.scales = np.zeros(self._n_scales())
        self.scales[: self.size] = np.log(initial_scale)

    @abc.abstractmethod
    def _make_approximation(self, model: pm.Model, random_seed: int | None) -> Approximation: ...

    @abc.abstractmethod
    def _n_scales(self) -> int: ...

    @abc.abstractmethod
    def write(self, location: np.ndarray, scales: np.ndarray) -> Approximation:
        """Put parameter values into the PyMC approximation and return it."""

    @abc.abstractmethod
    def _read_scales(self) -> np.ndarray: ...

    @property
    @abc.abstractmethod
    def sd(self) -> np.ndarray:
        """Standard deviation of each parameter, shape (d,)."""

    def as_written(self) -> Self:
        """The same family with the parameters that the PyMC approximation has."""
        guide = copy.copy(self)
        guide.location = np.array(self.group.params_dict["mu"].get_value(), dtype=np.float64)
        guide.scales = self._read_scales()
        return guide

    def draw(self, noise: np.ndarray) -> np.ndarray:
        """The draw that standard normal `noise`, shape (d,), stands for."""
        deviation = np.empty(self.size)
        deviate(self.scales, noise, deviation)
        return self.location + deviation

    def entropy(self) -> float:
        """Entropy of the Gaussian, in nats."""
        constant = 0.5 * self.size * np.log(2.0 * np.pi * np.e)
        return float(self.scales[: self.size].sum() + constant)

    def log_density(self, noise: np.ndarray) -> np.ndarray:
        """Log-densities, shape (k,), of the draws that `noise`, shape (k, d), stands for."""
        constant = 0.5 * self.size * np.log(2.0 * np.pi) + self.scales[: self.size].sum()
        density: np.ndarray = -0.5 * (noise**2).sum(axis=1) - constant
        return density


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

    def _n_scales(self) -> int:
        return self.size

    @override
    def write(self, location: np.ndarray, scales: np.ndarray) -> Approximation:
        parameters = self.group.params_dict
        parameters["mu"].set_value(_float_x(location))
        parameters["rho"].set_value(_float_x(_softplus_inverse(np.exp(scales))))
        return self.approximation

    @override
    def _read_scales(self) -> np.ndarray:
        return np.log(_softplus(self.group.params_dict["rho"].get_value()))

    @property
    @override
    def sd(self) -> np.ndarray:
        return np.exp(self.scales)


class FullRankGuide(Guide):
    r"""A dense normal: :math:`z = \mu + e^{\omega} \odot (U \epsilon)`, U unit lower triangular.

    References
    ----------
    Kucukelbir et al. (2017), as for :class:`MeanFieldGuide`, section 2.4.
    """

    scales_every = 1  # of d (d + 1) / 2 parameters each is harder to tell from noise

    def _make_approximation(self, model: pm.Model, random_seed: int | None) -> Approximation:
        return pm.FullRank(model=model, random_seed=random_seed)

    def _n_scales(self) -> int:
        return self.size * (self.size + 1) // 2

    @override
    def write(self, location: np.ndarray, scales: np.ndarray) -> Approximation:
        cholesky = self._cholesky(scales)
        cholesky[np.diag_indices(self.size)] = _softplus_inverse(np.exp(scales[: self.size]))
        parameters = self.group.params_dict
        parameters["mu"].set_value(_float_x(location))
        parameters["L_tril"].set_value(_float_x(cholesky[np.tril_indices(self.size)]))
        return self.approximation

    @override
    def _read_scales(self) -> np.ndarray:
        cholesky = np.zeros((self.size, self.size))
        cholesky[np.tril_indices(self.size)] = self.group.params_dict["L_tril"].get_value()
        diagonal = _softplus(np.diag(cholesky))
        rows = cholesky / diagonal[:, None]
        return np.concatenate([np.log(diagonal), rows[np.tril_indices(self.size, -1)]])

    @property
    def cholesky(self) -> np.ndarray:
        """The Cholesky factor of the covariance, shape (d, d)."""
        return self._cholesky(self.scales)

    @property
    @override
    def sd(self) -> np.ndarray:
        sd: np.ndarray = np.sqrt((self.cholesky**2).sum(axis=1))
        return sd

    def _cholesky(self, scales: np.ndarray) -> np.ndarray:
        cholesky = np.eye(self.size)
        cholesky[np.tril_indices(self.size, -1)] = scales[self.size :]
        return cholesky * np.exp(scales[: self.size])[:, None]


#: The guide behind each value of ``Trainer(method=)``.
GUIDES: dict[str, type[Guide]] = {
    "advi": MeanFieldGuide,
    "fullrank_advi": FullRankGuide,
    "laplace": FullRankGuide,
}


def element_names(approximation: Approximation) -> tuple[str, ...]:
    """A name for each element of a draw, such as ``b[3]``, or ``b[London]`` with coordinates."""
    (group,) = approximation.groups
    model = group.model
    of_values = {model.rvs_to_values[rv].name: rv.name for rv in model.free_RVs}
    names = [""] * int(group.ddim)
    for name, where, shape, _ in group.ordering.values():
        dims = model.named_vars_to_dims.get(of_values[name], ())
        coords = [model.coords.get(dim) for dim in dims]
        known = [None if coord is None else len(coord) for coord in coords] == list(shape)
        labels = coords if known else [range(length) for length in shape]
        elements = np.arange(len(names))[where]
        for element, index in zip(elements, np.ndindex(*shape), strict=True):
            at = ", ".join(str(label[i]) for label, i in zip(labels, index, strict=True))
            names[element] = f"{name}[{at}]" if index else name
    return tuple(names)


def n_parameters(model: pm.Model) -> int:
    """Number of unconstrained parameters of a model; nothing is compiled if their shapes are known.

    Examples
    --------
    >>> import pymc as pm
    >>> with pm.Model() as model:
    ...     _ = pm.Normal("b", shape=3), pm.HalfNormal("sigma")
    >>> n_parameters(model)
    4
    """
    shapes = [variable.type.shape for variable in model.value_vars]
    if any(None in shape for shape in shapes):
        return sum(int(np.size(value)) for value in model.initial_point(0).values())
    return sum(math.prod(shape) for shape in shapes)


def _float_x(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=pytensor.config.floatX)


def _softplus(values: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, np.asarray(values, dtype=np.float64))


def _softplus_inverse(scale: np.ndarray) -> np.ndarray:
    # log(expm1(x)) without overflow for large x; float64 because it is near log(x) for small x
    scale = np.asarray(scale, dtype=np.float64)
    return scale + np.log(-np.expm1(-scale))
