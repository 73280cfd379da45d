"""Parameters that had not come to rest when the steps ended."""

from __future__ import annotations

import numpy as np

from pymc_streaming.vi.guides import Guide

__all__ = ["still_moving"]

# Of the way that a parameter could go while it is averaged, the part that is no longer noise.
_MOVING = 0.25
# Noise of the last iterate, in posterior standard deviations, that an average does not undo.
_COARSE = 20.0


def still_moving(guide: Guide, location: np.ndarray, scales: np.ndarray, reach: float) -> list[str]:
    """Names of variables that went steadily one way while they were averaged.

    Against an average over the window, the last iterate is noise when the fit has converged; under
    a steady pull it is ahead by half of all that Adam can move. And a posterior far narrower than
    the optimiser's steps is not found by averaging them.

    Parameters
    ----------
    guide : Guide
        The last iterate.
    location, scales : ndarray
        The averages.
    reach : float
        Sum of the learning rates of the steps that were averaged.
    """
    lead = np.abs(guide.location - location)
    log_scale = scales[: guide.size]
    scale_lead = np.abs(guide.scales[: guide.size] - log_scale)
    suspect = (
        (lead > _MOVING * 0.5 * reach)
        | (scale_lead > _MOVING * 0.5 * reach / guide.scales_every)
        | (lead > _COARSE * np.exp(log_scale))
    )
    return [name for name, where, *_ in guide.group.ordering.values() if suspect[where].any()]
