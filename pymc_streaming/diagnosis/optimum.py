"""How far a Gaussian is from the optimum of the ELBO, by the derivatives of all rows."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from pymc_streaming.diagnosis.curvature import (
    inverse,
    least_shrinkage,
    prior_curvature_matrix,
    with_diagonal,
)
from pymc_streaming.diagnosis.records import Missing
from pymc_streaming.vi.dense import Dense, DenseCurvature, DenseDerivatives, DenseGaussian
from pymc_streaming.vi.meanfield import MeanField
from pymc_streaming.vi.passes import Derivatives
from pymc_streaming.vi.signs import Signs
from pymc_streaming.vi.surrogate import Curvature, Gaussian, expected_prior, optimum
from pymc_streaming.vi.terms import Terms

__all__ = ["FARTHEST", "MOST_DENSE", "Distance", "distance_of", "distance_of_dense"]

#: Parameters of which the whole matrix of curvature is looked at.
MOST_DENSE = 1_000
# Pairs of points around which the prior of more parameters is looked at.
_PRIOR_POINTS = 8
#: A direction without a maximum is followed no further, in standard deviations.
FARTHEST = 1e4
# Changes of a log scale from which on the surrogate has cut them short.
_CUT_SHORT = 1.49


@dataclass(frozen=True)
class Distance:
    """How far it is to the optimum, and what was found out on the way.

    Parameters
    ----------
    step, log_scale : ndarray, shape (d,), or None
        As in `Diagnosis`.
    shrinkage : ndarray, shape (d,), or None
        As in `Diagnosis`.
    missing : Missing or None
        As in `Diagnosis`.
    gradient : ndarray, shape (d,)
        Of the expected log-density.
    bent : ndarray, shape (k, d)
        Products of the curvature with the deviations that were given.
    diagonal : ndarray, shape (d,), or None
        Of the curvature; None for a dense normal.
    """

    step: np.ndarray | None
    log_scale: np.ndarray | None
    shrinkage: np.ndarray | None
    missing: Missing | None
    gradient: np.ndarray
    bent: np.ndarray
    diagonal: np.ndarray | None


def distance_of(
    family: MeanField,
    q: Gaussian,
    derivatives: Derivatives,
    rows: Curvature,
    deviations: np.ndarray,
    random: np.random.Generator,
) -> Distance:
    """Take the step that the exact fit would take next, for independent normals.

    Parameters
    ----------
    family : MeanField
        The model.
    q : Gaussian
        The Gaussian.
    derivatives : Derivatives
        Of the expected log-likelihood of all rows.
    rows : Curvature
        Of the log-likelihood of all rows, by a sample.
    deviations : ndarray, shape (k, d)
        Of draws from the location.
    random : numpy.random.Generator
        For the signs.
    """
    terms, signs, size = family.terms, family.signs, len(q.location)
    matrix = rows.matrix if size <= MOST_DENSE else None
    _, in_location, in_scale = expected_prior(terms, signs, q)
    diagonal = derivatives.curvature - in_scale / q.scale**2
    times = rows.times
    if matrix is None:
        bent = _products(terms, signs, q, rows, deviations)
        shrinkage = least_shrinkage(
            lambda v: _products(terms, signs, q, rows, v[None])[0], diagonal, random
        )
    else:
        matrix = with_diagonal(matrix, derivatives.curvature)
        times = functools.partial(np.matmul, matrix)
        whole = matrix + prior_curvature_matrix(terms, q.location, q.scale, random)
        bent = deviations @ whole
        shrinkage = _shrinkage(whole)
    missing = Missing.NO_MAXIMUM if shrinkage is None else Missing.BOUND if matrix is None else None
    new = optimum(terms, signs, q, derivatives, times, FARTHEST)
    log_scale = new.log_scale - q.log_scale
    with np.errstate(all="ignore"):
        by_curvature = -0.5 * np.log(diagonal) - q.log_scale
    cut = (np.abs(log_scale) > _CUT_SHORT) & np.isfinite(by_curvature)
    log_scale = np.where(cut, by_curvature, log_scale)
    step = (new.location - q.location) / np.exp(q.log_scale + log_scale)
    step = np.clip(step, -FARTHEST, FARTHEST)
    gradient = derivatives.gradient + in_location
    return Distance(step, log_scale, shrinkage, missing, gradient, bent, diagonal)


def distance_of_dense(
    family: Dense, q: DenseGaussian, found: DenseDerivatives, deviations: np.ndarray
) -> Distance:
    """Take the step that the exact fit would take next, for a dense normal.

    Parameters
    ----------
    family : Dense
        The model.
    q : DenseGaussian
        The Gaussian.
    found : DenseDerivatives
        Of the expected log-likelihood of all rows.
    deviations : ndarray, shape (k, d)
        Of draws from the location.
    """
    in_location, of_prior = family.prior(q)
    whole, gradient = found.curvature + of_prior, found.gradient + in_location
    bent = deviations @ whole
    if not family.has_maximum(q, found):
        return Distance(None, None, None, Missing.NO_MAXIMUM, gradient, bent, None)
    new = family.best(q, found, DenseCurvature(found.curvature), FARTHEST)
    step = np.clip((new.location - q.location) / new.scale, -FARTHEST, FARTHEST)
    return Distance(step, np.log(new.scale / q.scale), None, None, gradient, bent, None)


def _products(
    terms: Terms, signs: Signs, q: Gaussian, rows: Curvature, directions: np.ndarray
) -> np.ndarray:
    """Products of the whole curvature with vectors, shape (k, d), without the matrix."""
    # The prior of effects of unknown spread bends another way at the means than it does in
    # expectation: so it is looked at around some points, and their mirror images.
    some = replace(signs, patterns=signs.patterns[:_PRIOR_POINTS])
    points = some.around(q.location, q.scale)
    products = np.empty_like(directions)
    for product, direction in zip(products, directions, strict=True):
        _, ahead = terms.prior(points + direction)
        _, behind = terms.prior(points - direction)
        product[:] = rows.times(direction) + 0.5 * (behind - ahead).mean(axis=0)
    return products


def _shrinkage(whole: np.ndarray) -> np.ndarray | None:
    """Standard deviations with all correlations over those without; None without a maximum."""
    covariance = inverse(whole)
    if covariance is None:
        return None
    ratio: np.ndarray = np.sqrt(np.diag(covariance) * np.diag(whole))
    return ratio
