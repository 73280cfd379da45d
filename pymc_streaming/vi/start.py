"""A start that is close already: the posterior of a sample of the rows.

The sample is fitted as though it were all the data, so that what it knows little of, the effect of
a rare group, stays where the prior has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pymc_streaming.vi.ascent import Ascent, ascend
from pymc_streaming.vi.dense import DenseGaussian
from pymc_streaming.vi.family import Correctable, Family, Found, Normal
from pymc_streaming.vi.guides import FullRankGuide, Guide
from pymc_streaming.vi.meanfield import MeanField
from pymc_streaming.vi.modes import Modes, find_modes
from pymc_streaming.vi.passes import Derivatives, Sample
from pymc_streaming.vi.signs import sign_patterns
from pymc_streaming.vi.status import Status
from pymc_streaming.vi.structure import colours_of
from pymc_streaming.vi.surrogate import Curvature, Gaussian, prior_curvature
from pymc_streaming.vi.terms import Terms

__all__ = [
    "MOST_SAMPLE_BYTES",
    "Start",
    "first_radius",
    "fit_roughly",
    "fit_sample",
    "gaussian_of",
    "modes_of",
    "sample_size",
    "start_at",
    "start_from",
]

#: Memory of the rows of a sample; more, by a factor, where that is few rows for each parameter.
MOST_SAMPLE_BYTES = 64 * 2**20
_ROWS_A_PARAMETER, _MORE = 30, 4
# Of the sample, the rows that a first fit takes; and how rough fits of samples are, in standard
# deviations of their own.
_FIRST_ROWS, _ROUGH, _ROUGH_TOLERANCE = 4_000, 0.3, 1e-4
# Passes over a sample, at most: along a ridge that is not straight moves are short.
_MOST_PASSES = 200
# Rows that a curvature on the way is looked at on, at least.
_CURVATURE_ROWS = 50_000
# How far a first fit may go in its first step.
_FIRST_RADIUS = 10.0
# Distance at which slopes are compared where nothing is known of scales.
_NEARBY = 1e-3


@dataclass(frozen=True)
class Start:
    """What is known before the first pass over a table.

    Parameters
    ----------
    family : MeanField
        The model, with signs for its parameters.
    q : Gaussian or DenseGaussian
        The posterior of the sample, roughly; or of all rows.
    n_modes : int
        Modes that were found.
    of_all_rows : bool
        Of which of them.
    """

    family: MeanField
    q: Gaussian | DenseGaussian
    n_modes: int
    of_all_rows: bool

    def of_table(self, sample: Sample, n_rows: int) -> Gaussian:
        """Independent normals of all rows; those of a sample become as narrow as theirs."""
        assert isinstance(self.q, Gaussian)
        if self.of_all_rows:
            return self.q
        of_sample = self.family.look(sample, self.q).curvature
        of_prior = prior_curvature(self.family.terms, self.family.signs, self.q)
        whole = np.maximum(n_rows / sample.n_rows * of_sample, 0.0) + of_prior
        known = -0.5 * np.log(np.maximum(whole, 1e-300))
        return Gaussian(self.q.location, np.where(whole > 0, known, self.q.log_scale))


def sample_size(
    n_rows: int, size: int, row_nbytes: int, most_bytes: int = MOST_SAMPLE_BYTES
) -> int:
    """Rows of the sample.

    The error with which the passes begin is that of the sample's posterior, and each pass leaves
    of it about as much as the sample's curvature is wrong: so a cube root of the rows is enough.
    Of more than a million, where a pass costs most, it is the square root, so that two passes are
    enough after an unlucky sample too. Of many parameters that is the more wrong the fewer rows
    there are for each.

    Examples
    --------
    >>> [sample_size(n, 14, 112) for n in (10_000, 1_000_000, 10_000_000, 100_000_000)]
    [10000, 150000, 474341, 599186]
    """
    millions = n_rows / 1e6
    wanted = 150_000 * millions ** (1 / 3 if millions < 1.0 else 1 / 2)
    wanted *= max(1.0, size / 50) ** 0.5
    most = max(
        most_bytes // max(1, row_nbytes), min(30 * size, 4 * most_bytes // max(1, row_nbytes))
    )
    return int(min(n_rows, max(20_000, wanted), max(2_000, most)))


def gaussian_of(guide: Guide) -> Gaussian | DenseGaussian:
    """A copy of what a guide has."""
    if isinstance(guide, FullRankGuide):
        return DenseGaussian(guide.location.copy(), guide.cholesky)
    return Gaussian(guide.location.copy(), guide.scales.copy())


def start_from(
    terms: Terms,
    guide: Guide,
    sample: Sample,
    locations: Sequence[np.ndarray],
    random: np.random.Generator,
) -> Start:
    """Fit a sample, first a part of it and from several places.

    Parameters
    ----------
    terms : Terms
        The model, compiled.
    guide : Guide
        Says which elements of a draw are which variables.
    sample : Sample
        Rows, in random order.
    locations : sequence of ndarray, shape (d,)
        Where to begin; the best end is taken.
    random : numpy.random.Generator
        For the signs.

    Raises
    ------
    NotFinite
        If there are no finite derivatives at any of the locations.
    KeyboardInterrupt
        After Ctrl-C.
    """
    first = sample.first(_FIRST_ROWS)
    colours = colours_of(terms, guide, locations[0], _NEARBY, first, random)
    family = MeanField(terms, sign_patterns(colours, random))
    modes = modes_of(family, first, locations)
    q = modes.best
    # Once more where the fit is, and at the distance of its scales: which parameters add nothing
    # to each other at the first location, zero say, may elsewhere.
    family = _family_at(terms, guide, first, q, random)
    q = fit_sample(family, sample, q, first_radius(sample.n_rows, first.n_rows)).q
    return Start(family, q, 1 + len(modes.others), False)


def start_at(
    terms: Terms,
    guide: Guide,
    sample: Sample,
    q: Gaussian | DenseGaussian,
    random: np.random.Generator,
) -> Start:
    """Begin where a fit of all rows is. Takes the same as `start_from`."""
    return Start(_family_at(terms, guide, sample.first(_FIRST_ROWS), q, random), q, 1, True)


def _family_at(
    terms: Terms,
    guide: Guide,
    sample: Sample,
    q: Gaussian | DenseGaussian,
    random: np.random.Generator,
) -> MeanField:
    colours = colours_of(terms, guide, q.location, q.scale, sample, random)
    return MeanField(terms, sign_patterns(colours, random))


def modes_of(family: MeanField, sample: Sample, locations: Sequence[np.ndarray]) -> Modes:
    """Fit a sample from several places, and tell the ends apart."""

    def fitted(location: np.ndarray) -> Ascent[Gaussian]:
        return fit_sample(family, sample, _guess(family, location, sample), _FIRST_RADIUS)

    return find_modes(family.terms, sample, locations, fitted)


def fit_sample(family: MeanField, sample: Sample, q: Gaussian, radius: float) -> Ascent[Gaussian]:
    """The posterior of a sample, roughly."""
    some = sample.first(max(_CURVATURE_ROWS, 100 * family.terms.size))

    def own(here: Gaussian, _: Derivatives) -> Curvature:
        return Curvature(family.terms, some, here, sample.n_rows / some.n_rows)

    return fit_roughly(replace(family, tolerance=_ROUGH_TOLERANCE), sample, q, own, radius)


def first_radius(n_rows: int, n_before: int) -> float:
    """How far the first move may go from where fewer rows were fitted, in standard deviations."""
    return 10.0 + 10.0 * math.sqrt(n_rows / n_before)


def fit_roughly[Q: Normal, D: Found](
    family: Family[Q, D],
    sample: Sample,
    q: Q,
    curvature: Callable[[Q, D], Correctable],
    radius: float,
) -> Ascent[Q]:
    """An ascent that ends as soon as more would not show beside the error of the sample."""
    ascent = ascend(
        [family],
        sample,
        q,
        curvature,
        renewed=True,
        radius=radius,
        step_tolerance=_ROUGH,
        scale_tolerance=_ROUGH,
        max_passes=_MOST_PASSES,
    )
    if ascent.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return ascent


def _guess(family: MeanField, location: np.ndarray, sample: Sample) -> Gaussian:
    """A Gaussian at a location, with scales by the curvature there."""
    near = Gaussian(location.copy(), np.full(len(location), np.log(1e-3)))
    of_rows = family.look(sample, near).curvature
    whole = of_rows + prior_curvature(family.terms, family.signs, near)
    return Gaussian(near.location, -0.5 * np.log(np.clip(np.abs(whole), 1e-2, 1e12)))
