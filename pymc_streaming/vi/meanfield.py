"""Independent normals, for an ascent."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pymc_streaming.vi.passes import (
    PASS_NOISE,
    SCALE_NOISE,
    Derivatives,
    Table,
    pairs_of_a_chunk,
    pass_over,
)
from pymc_streaming.vi.signs import Signs, with_lengths
from pymc_streaming.vi.surrogate import (
    Curvature,
    Gaussian,
    expected_prior,
    optimum,
    prior_curvature,
)
from pymc_streaming.vi.terms import Terms

__all__ = ["MeanField"]


@dataclass(frozen=True)
class MeanField:
    """A `Family` of Gaussians: with a mean and a standard deviation for each parameter.

    Parameters
    ----------
    terms : Terms
        The model.
    signs : Signs
        Where expectations are taken.
    noise : float, default 0.1
        Relative error of a curvature, about; see `pairs_of_a_chunk`.
    most_noise : float, default 0.2
        Error that is too large where it is found, by `noise_of`.
    tolerance : float, default 1e-6
        See `optimum`.
    """

    terms: Terms
    signs: Signs
    noise: float = PASS_NOISE
    most_noise: float = 2.0 * PASS_NOISE
    tolerance: float = 1e-6

    def finer(self, random: np.random.Generator, n_rows: int) -> MeanField:
        """The same, with more points, for a table of so many rows: see `with_lengths`."""
        signs = with_lengths(self.signs, random, n_rows)
        return MeanField(self.terms, signs, SCALE_NOISE, 2.0 * SCALE_NOISE)

    def sharper(self) -> MeanField:
        """The same, with four times as many points for each chunk of rows."""
        return replace(self, noise=0.5 * self.noise)

    def look(self, table: Table, q: Gaussian, turn: int = 0) -> Derivatives:
        """See `pass_over`."""
        return pass_over(table, self.terms, self.signs, q.location, q.scale, self.noise, turn)

    def doubt(self, n_rows: int) -> float:
        """By how much log scales may differ from one turn to another, if rows are alike."""
        pairs = self.points(n_rows) // 2
        if pairs == len(self.signs.patterns):
            return 0.0
        return 2.0 * math.sqrt(len(self.signs.colours) / (n_rows * pairs))

    def points(self, n_rows: int) -> int:
        """At which a pass looks at each row."""
        return 2 * pairs_of_a_chunk(self.signs, n_rows, self.noise)

    def best(
        self, q: Gaussian, found: Derivatives, curvature: Curvature, radius: float
    ) -> Gaussian:
        """See `optimum`."""
        return optimum(self.terms, self.signs, q, found, curvature.times, radius, self.tolerance)

    def moved(self, q: Gaussian, new: Gaussian) -> tuple[float, float]:
        """Largest move of a mean, in standard deviations, and change of a log scale."""
        step = np.abs((new.location - q.location) / new.scale).max()
        return float(step), float(np.abs(new.log_scale - q.log_scale).max())

    def has_maximum(self, q: Gaussian, found: Derivatives) -> bool:
        """Whether the log-density bends down along every parameter."""
        whole = found.curvature + prior_curvature(self.terms, self.signs, q)
        return bool((whole > 0.0).all())

    def part(self, q: Gaussian, new: Gaussian, pace: float) -> Gaussian:
        """In the logarithms of the scales."""
        return Gaussian(new.location, (1.0 - pace) * q.log_scale + pace * new.log_scale)

    @np.errstate(all="ignore")
    def slopes(
        self, start: tuple[Gaussian, Derivatives], end: tuple[Gaussian, Derivatives]
    ) -> tuple[np.ndarray, np.ndarray]:
        """By the gradients at both ends: see `ascent`."""
        slopes = []
        location = end[0].location - start[0].location
        log_scale = end[0].log_scale - start[0].log_scale
        for q, found in (start, end):
            _, in_location, in_scale = expected_prior(self.terms, self.signs, q)
            in_scale = in_scale + 1.0 - found.curvature * q.scale**2
            in_means = (found.gradient + in_location) @ location
            slopes.append(np.array([in_means, in_scale @ log_scale]))
        return slopes[0], slopes[1]
