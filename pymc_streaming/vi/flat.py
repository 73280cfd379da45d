"""Parameters that the rows have no say in where a fit is, though elsewhere they would."""

from __future__ import annotations

import numpy as np

from pymc_streaming.vi.passes import Sample, Table, gradients_at
from pymc_streaming.vi.terms import Terms

__all__ = ["flat_elements"]

# Where slopes are looked for: so far from the location, in standard deviations, to either side. A
# hump of the log-likelihood is found if it is a twentieth as wide as it is far away.
_DISTANCES = np.geomspace(1e-3, 1e3, 300)
# Rows that are looked at around the location, and there; and memory of the points.
_ROWS_NEAR, _ROWS, _POINT_BYTES = 4_000, 500, 2**22


def flat_elements(
    terms: Terms, table: Table, sample: Sample, location: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Parameters in which the log-likelihood is exactly flat around a location, and nowhere else.

    A fit stays there, at the prior: probabilities that are clipped, activations that are zero,
    densities too small for a float have no slope that leads to the data. Parameters that no row
    depends on, wherever they are, as the effects of groups without rows, are none of them: of
    those the prior is the posterior.

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

    Returns
    -------
    ndarray of int
        Their elements of a draw, mostly none.
    """
    near = location + np.outer([-1.0, -0.1, 0.1, 1.0], scale)
    flat = ~gradients_at(terms, sample.first(_ROWS_NEAR), near).any(axis=0)
    if not flat.any():
        return np.empty(0, dtype=int)
    flat[flat] = _has_slope_elsewhere(terms, sample.first(_ROWS), location, scale * flat)[flat]
    if flat.any():
        slopes = np.zeros_like(near)
        for rows, weights in table.blocks(1):
            slopes += gradients_at(terms, Sample(rows, weights), near, terms.chunk_rows)
        flat &= ~slopes.any(axis=0)
    return np.flatnonzero(flat)


def _has_slope_elsewhere(
    terms: Terms, sample: Sample, location: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Whether the log-likelihood has a slope anywhere to either side, along `scale`."""
    found = np.zeros(len(location), dtype=bool)
    steps = np.concatenate([-_DISTANCES, _DISTANCES])
    n_parts = max(1, steps.size * location.nbytes // _POINT_BYTES)
    for part in np.array_split(steps, n_parts):
        slopes = gradients_at(terms, sample, location + np.outer(part, scale), terms.chunk_rows)
        found |= (np.isfinite(slopes) & (slopes != 0.0)).any(axis=0)
    return found
