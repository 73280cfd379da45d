r"""A dense normal, for an ascent, and its limit, Laplace's approximation.

Under :math:`q = N(\mu, \Sigma = L L^\top)` the ELBO is highest where
:math:`\mathbb{E}_q \nabla \log p = 0` and :math:`\Sigma^{-1} = -\mathbb{E}_q \nabla^2 \log p`. Both
expectations are taken over the points :math:`\mu \pm s L v`, where v are the rows of a Hadamard
matrix with a column for each parameter. With s = 1 these have the mean, the covariance and the
third moments of q. By the differences of gradients between mirror images,

.. math::

    \mathbb{E}_q \nabla^2 \log p \; L \approx \frac{1}{2 s k} \sum_{j=1}^k
    \bigl(\nabla \log p(\mu + s L v_j) - \nabla \log p(\mu - s L v_j)\bigr) v_j^\top .

With a small s the points are all but at the mean, so that the highest point is the mode, and
:math:`\Sigma` the inverse of the curvature there: Laplace's approximation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky, eigh, solve_triangular

from pymc_streaming.vi.passes import (
    PASS_NOISE,
    SCALE_NOISE,
    NotFinite,
    Table,
    as_many_pairs,
    noise_of,
    slopes_over,
)
from pymc_streaming.vi.signs import Signs, with_lengths
from pymc_streaming.vi.terms import Terms

__all__ = [
    "LAPLACE_SPREAD",
    "SPREAD",
    "SPREADS",
    "Dense",
    "DenseCurvature",
    "DenseDerivatives",
    "DenseGaussian",
]

# The spread s of the points: of a Gaussian, and of Laplace's approximation. The error of a
# curvature by differences over s standard deviations is of the order of s squared over the rows.
SPREAD, LAPLACE_SPREAD = 1.0, 0.03
#: By method of the trainer; None for independent normals.
SPREADS = {"advi": None, "fullrank_advi": SPREAD, "laplace": LAPLACE_SPREAD}
# Of log-densities, by the noise of a covariance, in nats.
_VARIATION = 0.25
_MOST_NOISE = 1.5 * _VARIATION
# In a pass, no variance becomes larger or smaller than by this factor.
_MOST = np.exp(3.0)
# Looks at the prior on the way to the highest point of the surrogate, and how near is enough.
_LOOKS, _NEAR = 50, 1e-5
# A change as large as this part of the one before comes of going to and fro; and the slowest way to
# follow it.
_SLOWER, _LEAST_PACE = 0.7, 0.1


@dataclass(frozen=True)
class DenseGaussian:
    """A Gaussian with a covariance.

    Parameters
    ----------
    location : ndarray, shape (d,)
        Means.
    cholesky : ndarray, shape (d, d)
        Lower triangular factor of the covariance.
    """

    location: np.ndarray
    cholesky: np.ndarray

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations, shape (d,)."""
        scale: np.ndarray = np.linalg.norm(self.cholesky, axis=1)
        return scale

    @property
    def scales(self) -> np.ndarray:
        """As `FullRankGuide` has them."""
        diagonal = np.diag(self.cholesky)
        below = np.tril_indices(len(diagonal), -1)
        return np.concatenate([np.log(diagonal), (self.cholesky / diagonal[:, None])[below]])


@dataclass(frozen=True)
class DenseDerivatives:
    """Of the expected log-likelihood.

    Parameters
    ----------
    gradient : ndarray, shape (d,)
        In the means.
    curvature : ndarray, shape (d, d)
        Minus the second derivatives.
    reliable : bool
        Whether the curvature is exact enough for a covariance.
    noise : float
        How far log-densities vary by the error of the curvature, by `noise_of`, in nats.
    """

    gradient: np.ndarray
    curvature: np.ndarray
    reliable: bool
    noise: float

    @property
    def are_finite(self) -> bool:
        """Whether they are."""
        return bool(np.isfinite(self.gradient).all() and np.isfinite(self.curvature).all())


@dataclass
class DenseCurvature:
    """Minus the second derivatives of the log-likelihood of all rows, as far as known.

    Parameters
    ----------
    matrix : ndarray, shape (d, d)
        They.
    """

    matrix: np.ndarray

    def correct(self, move: np.ndarray, change: np.ndarray) -> None:
        """Learn that a `move` changed the gradient over all rows by minus `change` (BFGS)."""
        expected = self.matrix @ move
        a, b = float(move @ expected), float(move @ change)
        if a > 0 and b > 1e-8 * a:
            self.matrix = (
                self.matrix + np.outer(change, change) / b - np.outer(expected, expected) / a
            )


@dataclass(frozen=True)
class Dense:
    """A `Family` of Gaussians: with a mean and a covariance.

    Parameters
    ----------
    terms : Terms
        The model.
    signs : Signs
        Another colour for each parameter.
    spread : float
        `SPREAD`, or `LAPLACE_SPREAD`.
    noise : float, default 0.1
        Relative error of a curvature, about; see `points`.
    most_noise : float, default inf
        Error that is too large where it is found, in nats.

    References
    ----------
    Opper, M. and Archambeau, C. (2009). The variational Gaussian approximation revisited. *Neural
    Computation* 21(3), 786-792.

    Tierney, L. and Kadane, J. B. (1986). Accurate approximations for posterior moments and marginal
    densities. *Journal of the American Statistical Association* 81(393), 82-86.
    """

    terms: Terms
    signs: Signs
    spread: float
    noise: float = PASS_NOISE
    most_noise: float = np.inf

    def finer(self, random: np.random.Generator | None = None, n_rows: int = 0) -> Dense:
        """The same, with more points; with `random` at several lengths, see `with_lengths`."""
        signs = self.signs
        if random is not None and self.spread == SPREAD:
            signs = with_lengths(signs, random, n_rows)
        return replace(self, signs=signs, noise=SCALE_NOISE, most_noise=_MOST_NOISE)

    def sharper(self) -> Dense:
        """The same, with four times as many points for each chunk of rows."""
        return replace(self, noise=0.5 * self.noise)

    def points(self, n_rows: int) -> int:
        r"""At which a pass looks at each row.

        What p of k pairs leave of an entry of the whitened curvature is about
        :math:`\epsilon = \sqrt{2 d / (n p)}`. All entries together make the log-density differ
        from that of the right Gaussian by :math:`\epsilon d / \sqrt 2` nats, as its draws go: for a
        covariance that shall be a quarter at most. All k pairs leave nothing.
        """
        d, noise = self.terms.size, self.noise
        wanted = 4.0 * d / (n_rows * noise**2)
        if noise <= SCALE_NOISE:
            wanted = max(wanted, d**3 / (n_rows * (_VARIATION * noise / SCALE_NOISE) ** 2))
        return 2 * as_many_pairs(self.signs, n_rows, wanted)

    def doubt(self, n_rows: int) -> float | None:  # noqa: ARG002
        """Not known: a covariance is another one when it is first seen."""
        return None

    def look(self, table: Table, q: DenseGaussian, turn: int = 0) -> DenseDerivatives:
        """Go over all rows once."""
        points = self.points(table.n_rows)
        gradient, half = slopes_over(table, self.terms, self._around(q), points // 2, turn)
        whitened = self._whitened_curvature(half, q)
        noise = 0.0 if points == 2 * len(half) else float(np.linalg.norm(noise_of(whitened)))
        noise *= 0.5 * math.sqrt(len(whitened))
        reliable = points >= self.finer().points(table.n_rows) and noise <= _MOST_NOISE
        return DenseDerivatives(gradient, self._unwhitened(whitened, q), reliable, noise)

    def best(
        self, q: DenseGaussian, found: DenseDerivatives, curvature: DenseCurvature, radius: float
    ) -> DenseGaussian:
        """Where the surrogate is highest, by Newton's method."""
        of_rows = found.curvature if found.reliable else curvature.matrix
        new, pace, last, bends = q, 1.0, np.inf, None
        for _ in range(_LOOKS):
            gradient, of_prior = self.prior(new)
            gradient += found.gradient - of_rows @ (new.location - q.location)
            bends = of_prior if bends is None else bends + pace * (of_prior - bends)
            if not (np.isfinite(bends).all() and np.isfinite(gradient).all()):
                if new is q:
                    raise NotFinite(q.location)
                break
            inverse, move = self._newton(q, of_rows + bends, gradient)
            location = new.location + move
            beyond = np.abs(self._whitened(q, location - q.location)).max() / radius
            if beyond > 1.0:
                location = q.location + (location - q.location) / beyond
            # A covariance comes from all rows, or stays.
            factor = inverse if found.reliable else q.cholesky
            before, new = new, DenseGaussian(location, factor)
            change = max(self.moved(before, new))
            if change < _NEAR:
                break
            # The curvature of a prior that depends on a scale goes to and fro with it.
            if change > _SLOWER * last:
                pace = max(0.5 * pace, _LEAST_PACE)
            last = change
        return new

    def moved(self, q: DenseGaussian, new: DenseGaussian) -> tuple[float, float]:
        """Length of the move of the means, in standard deviations, and change of a log scale."""
        step = np.linalg.norm(self._whitened(new, new.location - q.location))
        between = solve_triangular(q.cholesky, new.cholesky, lower=True)
        ratios = np.linalg.svd(between, compute_uv=False)
        return float(step), float(np.abs(np.log(ratios)).max())

    def has_maximum(self, q: DenseGaussian, found: DenseDerivatives) -> bool:
        """Whether the log-density bends down in every direction; looking roughly does not tell."""
        if not found.reliable:
            return self.noise > SCALE_NOISE
        _, of_prior = self.prior(q)
        whole = q.cholesky.T @ (found.curvature + of_prior) @ q.cholesky
        return bool(np.linalg.eigvalsh(whole)[0] > 0.0)

    def part(self, q: DenseGaussian, new: DenseGaussian, pace: float) -> DenseGaussian:
        """In the inverses of the covariances."""
        if pace == 1.0:
            return new
        precisions = [
            cho_solve((each.cholesky, True), np.eye(len(q.location))) for each in (q, new)
        ]
        precision = (1.0 - pace) * precisions[0] + pace * precisions[1]
        covariance = cho_solve(cho_factor(precision, lower=True), np.eye(len(precision)))
        return DenseGaussian(new.location, cholesky(covariance, lower=True))

    def slopes(
        self,
        start: tuple[DenseGaussian, DenseDerivatives],
        end: tuple[DenseGaussian, DenseDerivatives],
    ) -> tuple[np.ndarray, np.ndarray]:
        """By the gradients at both ends: see `ascent`."""
        location = end[0].location - start[0].location
        covariance = end[0].cholesky @ end[0].cholesky.T - start[0].cholesky @ start[0].cholesky.T
        slopes = []
        for q, found in (start, end):
            gradient, curvature = self.prior(q)
            in_means, in_scales = (gradient + found.gradient) @ location, 0.0
            if found.reliable and self.spread == SPREAD:
                inverse = cho_solve((q.cholesky, True), np.eye(len(location)))
                in_scales = 0.5 * np.sum((inverse - curvature - found.curvature) * covariance)
            slopes.append(np.array([in_means, in_scales]))
        return slopes[0], slopes[1]

    def start(self, location: np.ndarray, scale: np.ndarray, of_rows: np.ndarray) -> DenseGaussian:
        """The Gaussian at `location` for a curvature of the likelihood of all rows.

        Parameters
        ----------
        location, scale : ndarray, shape (d,)
            Means, and standard deviations that are about right.
        of_rows : ndarray, shape (d, d)
            The curvature.

        Raises
        ------
        NotFinite
            If a curvature is not.
        """
        q = DenseGaussian(location, np.diag(scale))
        _, of_prior = self.prior(q)
        if not np.isfinite(of_rows + of_prior).all():
            raise NotFinite(location)
        inverse, _ = self._newton(q, of_rows + of_prior, np.zeros_like(location), 1e12)
        return DenseGaussian(location, inverse)

    def _around(self, q: DenseGaussian) -> np.ndarray:
        deviations = self.spread * self.signs.patterns @ q.cholesky.T
        return np.concatenate([q.location + deviations, q.location - deviations])

    def _whitened_curvature(self, half: np.ndarray, q: DenseGaussian) -> np.ndarray:
        """From half the differences of gradients between mirror images, as parts of an average."""
        with np.errstate(all="ignore"):
            whitened: np.ndarray = -(q.cholesky.T @ half.T @ self.signs.patterns) / self.spread
        return whitened

    @staticmethod
    def _unwhitened(whitened: np.ndarray, q: DenseGaussian) -> np.ndarray:
        with np.errstate(all="ignore"):
            whitened = 0.5 * (whitened + whitened.T)
        half_way = solve_triangular(q.cholesky, whitened, trans="T", lower=True, check_finite=False)
        curvature: np.ndarray = solve_triangular(
            q.cholesky, half_way.T, trans="T", lower=True, check_finite=False
        )
        return curvature

    def prior(self, q: DenseGaussian) -> tuple[np.ndarray, np.ndarray]:
        """Expected gradient and curvature of all that is not of rows."""
        _, gradients = self.terms.prior(self._around(q))
        n = len(self.signs.patterns)
        half = 0.5 * (gradients[:n] - gradients[n:]) / n
        return gradients.mean(axis=0), self._unwhitened(self._whitened_curvature(half, q), q)

    def _newton(
        self, q: DenseGaussian, whole: np.ndarray, gradient: np.ndarray, most: float = _MOST
    ) -> tuple[np.ndarray, np.ndarray]:
        """The factor of the inverse of a curvature, and the step that it makes of a gradient."""
        factor = q.cholesky
        bends, axes = eigh(factor.T @ whole @ factor)
        # Where it bends the wrong way, the way is up the gradient, and not too far.
        bends = np.maximum(np.abs(bends), 1.0 / most)
        axes = factor @ axes
        move = axes @ (axes.T @ gradient / bends)
        covariance = axes / np.minimum(bends, most) @ axes.T
        return cholesky(covariance, lower=True), move

    @staticmethod
    def _whitened(q: DenseGaussian, move: np.ndarray) -> np.ndarray:
        whitened: np.ndarray = solve_triangular(q.cholesky, move, lower=True)
        return whitened
