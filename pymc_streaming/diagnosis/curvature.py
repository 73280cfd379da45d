r"""The whole matrix of expected curvature, and what it says of the fit.

With :math:`H = -\mathbb{E}_q \nabla^2 \log p`, independent normals have the standard deviations
:math:`H_{ii}^{-1/2}` in their optimum, and the normal approximation of the posterior has
:math:`(H^{-1})_{ii}^{1/2}`. The second are never smaller.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from pymc_streaming.vi.signs import sign_patterns
from pymc_streaming.vi.terms import Terms

__all__ = [
    "inverse",
    "least_shrinkage",
    "prior_curvature_matrix",
    "with_diagonal",
]


def prior_curvature_matrix(
    terms: Terms, location: np.ndarray, scale: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Minus the expected second derivatives of all that is not of rows, shape (d, d).

    Parameters
    ----------
    terms : Terms
        The model.
    location, scale : ndarray, shape (d,)
        Means and standard deviations of q.
    random : numpy.random.Generator
        For the signs: orthogonal ones give each column apart, see `vi.signs`.
    """
    signs = sign_patterns(np.arange(len(location)), random)
    _, gradients = terms.prior(signs.around(location, scale))
    return signs.curvature(scale, gradients)


def with_diagonal(matrix: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """The matrix with another diagonal, and with its correlations as they are.

    Where either diagonal is not positive, the matrix is left alone.
    """
    own = np.diag(matrix)
    good = (own > 0) & (diagonal > 0)
    factor = np.sqrt(np.where(good, diagonal, 1.0) / np.where(good, own, 1.0))
    scaled: np.ndarray = matrix * np.outer(factor, factor)
    return scaled


def inverse(matrix: np.ndarray) -> np.ndarray | None:
    """The inverse of a positive definite matrix; None if it is not."""
    try:
        factor = linalg.cho_factor(matrix, lower=True)
    except (linalg.LinAlgError, ValueError):
        return None
    found: np.ndarray = linalg.cho_solve(factor, np.eye(len(matrix)))
    return found


def least_shrinkage(
    times: Callable[[np.ndarray], np.ndarray], diagonal: np.ndarray, random: np.random.Generator
) -> np.ndarray | None:
    r"""A lower bound of the shrinkage, from the direction in which there is most of it.

    With the matrix scaled to a unit diagonal, and v the eigenvector of its smallest eigenvalue
    :math:`\lambda`, no standard deviation is too small by less than :math:`v_i / \sqrt\lambda`.

    Parameters
    ----------
    times : callable
        Product of the curvature with a vector.
    diagonal : ndarray, shape (d,)
        Of the curvature.
    random : numpy.random.Generator
        For where the search begins.

    Returns
    -------
    ndarray, shape (d,), or None
        None where there is no maximum.

    References
    ----------
    Lehoucq, R. B., Sorensen, D. C. and Yang, C. (1998). *ARPACK Users' Guide*. SIAM.
    """
    if not (diagonal > 0).all():
        return None
    unit = 1.0 / np.sqrt(diagonal)
    scaled = LinearOperator((len(unit),) * 2, lambda v: unit * times(unit * v.ravel()), dtype=float)
    start = random.standard_normal(len(unit))
    try:
        values, vectors = eigsh(scaled, k=1, which="SA", v0=start, ncv=20, tol=0.02, maxiter=10)
    except ArpackNoConvergence:
        return np.ones(len(unit))  # many small ones, and no direction that stands out
    if values[0] <= 0:
        return None
    least: np.ndarray = np.maximum(1.0, np.abs(vectors[:, 0]) / np.sqrt(values[0]))
    return least
