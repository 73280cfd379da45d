"""Parameters that the rows have no say in where a fit is, though elsewhere they would."""

from __future__ import annotations

import itertools

import numpy as np

from pymc_streaming.vi.passes import Sample, Table, gradients_at, sums_over
from pymc_streaming.vi.terms import Terms

__all__ = ["flat_elements"]

# Directions around the location, and rows that are looked at there, where the fit looked.
_NEAR, _ROWS_NEAR = 4, 4_000
# Directions in which the log-density is looked at farther away, and where: in standard deviations.
# A hump is found if it is a tenth as wide as it is far away.
_DIRECTIONS, _DISTANCES = 8, np.geomspace(1e-2, 30.0, 120)
# Rows times points there.
_WORK = 5_000_000
# Another place counts from so many nats below the fit on.
_LOWER = 3.0


def flat_elements(
    terms: Terms,
    table: Table,
    sample: Sample,
    location: np.ndarray,
    scale: np.ndarray,
    random: np.random.Generator,
) -> np.ndarray:
    """Parameters in which the log-likelihood is exactly flat around a fit, but not afar.

    A fit stays there, at the prior: probabilities that are clipped, activations that are zero,
    densities too small for a float have no slope that leads to the data. Where nothing better is
    found in their directions, the prior is right: of the effect of a group without rows, or of what
    the prior keeps from where there would be a slope.

    Parameters
    ----------
    terms : Terms
        The model.
    table : Table
        All rows; gone over once more only if the sample is flat.
    sample : Sample
        Some of them.
    location, scale : ndarray, shape (d,)
        Means and standard deviations of the fit.
    random : numpy.random.Generator
        For the directions.

    Returns
    -------
    ndarray of int
        Their elements of a draw, mostly none.
    """
    around = scale * random.choice([-1.0, 1.0], size=(_NEAR, len(location)))
    near = location + np.concatenate([around, 0.1 * around, -around, -0.1 * around])
    flat = ~gradients_at(terms, sample.first(_ROWS_NEAR), near).any(axis=0)
    if flat.any():
        ratio = table.n_rows / sample.n_rows
        flat &= _that_rise(terms, sample, location, scale * flat, ratio, random)
    if flat.any():
        flat &= ~sums_over(table, terms, near, len(near) // 2).any(axis=0)
    return np.flatnonzero(flat)


def _that_rise(
    terms: Terms,
    sample: Sample,
    location: np.ndarray,
    scale: np.ndarray,
    ratio: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Parameters with a slope in a direction in which the log-density becomes as high again."""
    free = np.flatnonzero(scale)
    if 2 ** len(free) <= _DIRECTIONS:
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(free))))
    else:
        signs = random.choice([-1.0, 1.0], size=(_DIRECTIONS, len(free)))
    rows = sample.first(max(1, _WORK // (len(signs) * len(_DISTANCES))))
    ratio *= sample.n_rows / rows.n_rows
    found = np.zeros(len(location), dtype=bool)
    for sign in signs:
        points = np.tile(location, (1 + len(_DISTANCES), 1))
        points[1:, free] += np.outer(_DISTANCES, sign * scale[free])
        slopes = gradients_at(terms, rows, points, terms.chunk_rows)
        sloping = np.isfinite(slopes) & (slopes != 0.0)
        if not sloping[:, free].any():
            continue
        values = np.zeros(len(points))
        terms.add_values(rows.rows, rows.weights, terms.chunk_rows, points, values)
        heights = ratio * values + terms.prior(points)[0]
        found |= sloping[heights > heights[0] - _LOWER].any(axis=0)
    return found
