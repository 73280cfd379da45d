r"""The ELBO near a location, as a pass found it: what is maximised between two passes.

The log-likelihood of all rows is replaced by a parabola, with the gradient that the pass found and
the curvature of a sample of the rows; the prior, which needs no rows, is kept as it is:

.. math::

    g^\top \delta - \tfrac12 \delta^\top H \delta - \tfrac12 \sum_i h_i \sigma_i^2
    + \mathbb{E}_q \log p(z) + \sum_i \log \sigma_i

Where the likelihood is nearly a parabola over the distance to its optimum, which it is the more the
more rows there are, its optimum is that of the ELBO, whatever the prior; the next pass finds out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from pymc_streaming.vi.passes import Derivatives, Sample, gradients_at
from pymc_streaming.vi.signs import Signs, sign_patterns
from pymc_streaming.vi.terms import Terms

__all__ = ["Curvature", "Gaussian", "expected_prior", "optimum", "prior_curvature"]

# Distance, in standard deviations of the sample's posterior, over which gradients are compared.
_DIFFERENCE = 0.1
# Of so many parameters a matrix is found with fewer gradients than are asked for on the way.
_MOST_COLUMNS = 64
# A log scale moves no further at a time; nor a mean without a maximum, in units of its curvature.
_MOST_LOG_SCALE, _MOST_UPHILL = 1.5, 3.0


@dataclass(frozen=True)
class Gaussian:
    """Independent normals.

    Parameters
    ----------
    location, log_scale : ndarray, shape (d,)
        Means, and logarithms of standard deviations.
    """

    location: np.ndarray
    log_scale: np.ndarray

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations."""
        return np.exp(self.log_scale)

    @property
    def scales(self) -> np.ndarray:
        """As `MeanFieldGuide` has them."""
        return self.log_scale


class Curvature:
    """Minus the second derivatives of the log-likelihood of all rows, as far as known.

    Those of a sample, times `ratio`; corrected by how gradients over all rows changed from one
    location to another.

    Parameters
    ----------
    terms : Terms
        The model.
    sample : Sample
        Rows.
    around : Gaussian
        Where they are looked at.
    ratio : float
        Rows of the table over rows of the sample.

    References
    ----------
    Nocedal, J. and Wright, S. J. (2006). *Numerical Optimization*, 2nd ed., section 6.1 (the
    BFGS formula).
    """

    def __init__(self, terms: Terms, sample: Sample, around: Gaussian, ratio: float) -> None:
        self._terms, self._sample, self._around = terms, sample, around
        self._ratio = ratio
        # Each call gives a whole gradient: not more of them than rows are worth.
        self._chunk_rows = min(max(terms.size, 256), terms.chunk_rows)
        self._corrections: list[tuple[np.ndarray, float, np.ndarray, float]] = []

    def times(self, direction: np.ndarray) -> np.ndarray:
        """The product with a vector of shape (d,)."""
        out = self._of_sample(direction)
        for expected, a, found, b in self._corrections:
            out += found * (found @ direction / b) - expected * (expected @ direction / a)
        return out

    def correct(self, move: np.ndarray, change: np.ndarray) -> None:
        """Learn that a `move` changed the gradient over all rows by minus `change`."""
        expected = self.times(move)
        a, b = float(move @ expected), float(move @ change)
        if a > 0 and b > 1e-8 * a:  # the log-density bends down, as far as it goes
            self._corrections.append((expected, a, change, b))

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """That of the sample, shape (d, d), times the ratio: what is expected around the location.

        Along a ridge, where terms cancel, that differs much from what it is at the location.
        """
        location, scale = self._around.location, self._around.scale
        signs = sign_patterns(np.arange(len(scale)), np.random.default_rng(0))
        points = signs.around(location, scale)
        slopes = gradients_at(self._terms, self._sample, points, self._chunk_rows)
        return self._ratio * signs.curvature(scale, slopes)

    def _of_sample(self, direction: np.ndarray) -> np.ndarray:
        if len(direction) <= _MOST_COLUMNS:
            product: np.ndarray = self.matrix @ direction
            return product
        length = np.abs(direction / self._around.scale).max()
        if length == 0.0:
            return np.zeros_like(direction)
        step = direction * (_DIFFERENCE / length)
        location = self._around.location
        points = np.stack([location - step, location + step])
        below, above = gradients_at(self._terms, self._sample, points, self._chunk_rows)
        slope: np.ndarray = below - above  # minus the derivative
        slope *= self._ratio * 0.5 * length / _DIFFERENCE
        return slope


def expected_prior(terms: Terms, signs: Signs, q: Gaussian) -> tuple[float, np.ndarray, np.ndarray]:
    """Expected log-density of all that is not of rows, with gradients in means and log scales."""
    values, gradients = terms.prior(signs.around(q.location, q.scale))
    n = len(signs.patterns)
    slopes = 0.5 * (gradients[:n] - gradients[n:]) * signs.patterns
    return values.mean(), gradients.mean(axis=0), slopes.mean(axis=0) * q.scale


def prior_curvature(terms: Terms, signs: Signs, q: Gaussian) -> np.ndarray:
    """Expected curvature, in each parameter, of all that is not of rows."""
    _, _, in_scale = expected_prior(terms, signs, q)
    curvature: np.ndarray = -in_scale / q.scale**2
    return curvature


def optimum(
    terms: Terms,
    signs: Signs,
    q: Gaussian,
    likelihood: Derivatives,
    times: Callable[[np.ndarray], np.ndarray],
    radius: float,
    tolerance: float = 1e-6,
    steps: int = 500,
) -> Gaussian:
    """Maximise the surrogate.

    Parameters
    ----------
    terms : Terms
        The model, for its prior.
    signs : Signs
        Where expectations are taken.
    q : Gaussian
        Where the pass was.
    likelihood : Derivatives
        What it found.
    times : callable
        Product of the curvature with a vector.
    radius : float
        How far a mean may go, in standard deviations by the curvature in its own direction.
    tolerance : float, default 1e-6
        Largest slope that may be left, in the same units. Along a ridge, where a mean can go a
        hundred standard deviations before correlations hold it, the slope is that small at a
        hundredth of one.
    steps : int, default 500
        Most steps of L-BFGS.

    References
    ----------
    Byrd, R. H., Lu, P., Nocedal, J. and Zhu, C. (1995). A limited memory algorithm for bound
    constrained optimization. *SIAM Journal on Scientific Computing* 16(5), 1190-1208.
    """
    size = terms.size
    gradient, curvature = likelihood.gradient, likelihood.curvature
    whole = curvature + prior_curvature(terms, signs, q)
    unit = 1.0 / np.sqrt(np.maximum(np.abs(whole), 1e-12))

    @np.errstate(all="ignore")
    def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
        move, log_scale = x[:size] * unit, q.log_scale + x[size:]
        variance = np.exp(2.0 * log_scale)
        bent = times(move)
        value, in_location, in_scale = expected_prior(
            terms, signs, Gaussian(q.location + move, log_scale)
        )
        value += gradient @ move - 0.5 * (move @ bent) - 0.5 * (curvature @ variance)
        value += log_scale.sum()
        slope = np.concatenate(
            [(gradient - bent + in_location) * unit, in_scale + 1.0 - curvature * variance]
        )
        return -value, -slope

    # Where it bends the wrong way there is no optimum to go to, nor a scale.
    bends = whole > 0
    far = np.where(bends, radius, min(radius, _MOST_UPHILL))
    wider = np.where(bends, _MOST_LOG_SCALE, 0.0)
    least = np.concatenate([-far, np.full(size, -_MOST_LOG_SCALE)])
    most = np.concatenate([far, wider])
    start = np.concatenate([np.zeros(size), np.clip(np.log(unit) - q.log_scale, -1.0, 1.0)])
    found = minimize(
        negative,
        np.clip(start, least, most),
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([least, most], axis=1),
        options={
            "maxcor": 30,
            "gtol": tolerance,
            "ftol": 0.0,
            "maxiter": steps,
            "maxfun": 2 * steps,
        },
    ).x
    return Gaussian(q.location + found[:size] * unit, q.log_scale + found[size:])
