r"""Why the log ratios vary: what a wrong location, correlations and scales have in it.

Were the posterior normal, the log ratio at :math:`z = \mu + \delta`, :math:`\delta = L \epsilon`,
would be

.. math::

    \text{const} + g^\top \delta - \tfrac12 \delta^\top H \delta + \tfrac12 \epsilon^\top \epsilon

with the gradient g and the curvature H. The first is what a wrong location does, the second, off
the diagonal of H, what correlations do that q does not have, the rest of it what wrong scales do.
And what the log ratio has besides is that the posterior is not normal.
"""

from __future__ import annotations

import enum

import numpy as np

__all__ = ["Reason", "shares"]


class Reason(enum.Enum):
    """What makes log ratios vary."""

    LOCATION = "location"
    CORRELATIONS = "correlations"
    SCALES = "scales"
    SHAPE = "shape"


def shares(
    log_ratios: np.ndarray,
    deviations: np.ndarray,
    noise: np.ndarray,
    gradient: np.ndarray,
    bent: np.ndarray,
    diagonal: np.ndarray | None,
) -> dict[Reason, float]:
    """The share that each reason has in the variance of the log ratios; they sum to one.

    Parameters
    ----------
    log_ratios : ndarray, shape (k,)
        Of draws.
    deviations, noise : ndarray, shape (k, d)
        The draws less the location, and the standard normal noise they were made of.
    gradient : ndarray, shape (d,)
        Of the expected log-density.
    bent : ndarray, shape (k, d)
        Products of the curvature with the deviations.
    diagonal : ndarray, shape (d,), or None
        Of the curvature; None if q has correlations of its own.
    """
    along = np.einsum("ki,ki->k", deviations, bent)
    alone = along if diagonal is None else deviations**2 @ diagonal
    parts = {
        Reason.LOCATION: deviations @ gradient,
        Reason.CORRELATIONS: -0.5 * (along - alone),
        Reason.SCALES: -0.5 * (alone - (noise**2).sum(axis=1)),
    }
    parts[Reason.SHAPE] = log_ratios - sum(parts.values())
    variances = {reason: float(part.var()) for reason, part in parts.items()}
    total = sum(variances.values()) or 1.0
    return {reason: variance / total for reason, variance in variances.items()}
