"""Whether a posterior has several modes: a sample is fitted from several starts.

Two fits are of different modes if the log-density dips on the straight line between them. Its
height along the line is the integral of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pymc_streaming.vi.ascent import Ascent
from pymc_streaming.vi.passes import NotFinite, Sample, gradients_at
from pymc_streaming.vi.surrogate import Gaussian
from pymc_streaming.vi.terms import Terms

__all__ = ["Modes", "find_modes", "starts_around"]

# Random places, and how far from the initial point: as Stan's, on the unconstrained scale.
_PLACES, _DISTANCE, _MOST_PARAMETERS = 2, 2.0, 100
# Points of a line; by how many nats it must dip; and how much lower, on the sample, a mode may be.
_POINTS, _DIP, _LOWER = 65, 3.0, 10.0


@dataclass(frozen=True)
class Modes:
    """What fits from several starts found.

    Parameters
    ----------
    best : Gaussian
        The highest.
    others : tuple of Gaussian
        Other modes that are about as high.
    """

    best: Gaussian
    others: tuple[Gaussian, ...]


def starts_around(
    location: np.ndarray, initial: np.ndarray, random: np.random.Generator
) -> list[np.ndarray]:
    """A location, and random places up to 2 from PyMC's initial point, with mirror images.

    So a mode on the other side, as of a parameter whose sign is not known, is not missed by chance.
    Of more than 100 parameters there is only the location: so far out each start is a long fit.

    Parameters
    ----------
    location : ndarray, shape (d,)
        Where a fit is; may be the initial point.
    initial : ndarray, shape (d,)
        PyMC's initial point, unconstrained.
    random : numpy.random.Generator
        For the places.
    """
    if len(location) > _MOST_PARAMETERS:
        return [location]
    away = random.uniform(-_DISTANCE, _DISTANCE, (_PLACES, len(location)))
    mirrored = [] if not location.any() else [-location]
    return [location, *mirrored, *(initial + away), *(initial - away)]


def find_modes(
    terms: Terms,
    sample: Sample,
    starts: Sequence[np.ndarray],
    fitted: Callable[[np.ndarray], Ascent[Gaussian]],
) -> Modes:
    """Fit from several starts, and tell the results apart.

    Parameters
    ----------
    terms : Terms
        The model.
    sample : Sample
        Rows.
    starts : sequence of ndarray, shape (d,)
        Where to start.
    fitted : callable
        Fits the sample from a start.

    Raises
    ------
    NotFinite
        If there are no finite derivatives at any start.
    """
    ends: list[Ascent[Gaussian]] = []
    failed = None
    for start in starts:
        try:
            ends.append(fitted(start))
        except NotFinite as error:
            failed = failed or error
    if failed and not ends:
        raise failed
    # Where a fit gave up there is no mode; but somewhere the table's has to begin.
    found = [end.q for end in ends if end.status.converged] or [ends[0].q]
    heights = [0.0] + [_along(terms, sample, found[0], q)[-1] for q in found[1:]]
    order = np.argsort(np.nan_to_num(heights, nan=-np.inf))[::-1]
    modes = [found[order[0]]]
    for index in order[1:]:
        q = found[index]
        if heights[order[0]] - heights[index] < _LOWER and all(
            _dip(_along(terms, sample, mode, q)) > _DIP for mode in modes
        ):
            modes.append(q)
    return Modes(modes[0], tuple(modes[1:]))


def _along(terms: Terms, sample: Sample, start: Gaussian, end: Gaussian) -> np.ndarray:
    """Height of the log-density along the line from `start`, in nats above it."""
    way = end.location - start.location
    points = start.location + np.linspace(0.0, 1.0, _POINTS)[:, None] * way
    slopes = (gradients_at(terms, sample, points, 4096) + terms.prior(points)[1]) @ way
    rises = 0.5 * (slopes[1:] + slopes[:-1]) / (_POINTS - 1)
    return np.concatenate([[0.0], np.cumsum(rises)])


def _dip(heights: np.ndarray) -> float:
    """How far a line goes below its lower end."""
    return float(min(heights[0], heights[-1]) - heights.min())
