"""How a fit until convergence ended, and what its passes led to."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Moved", "Status"]


class Status(enum.Enum):
    """How a fit ended; the text names the cause, and what to change."""

    CONVERGED = "Converged: another pass would not change the result noticeably."
    PASSES_USED_UP = (
        "Not converged: the passes were used up before the parameters came to rest. Call fit() "
        "again to go on, or give more (max_passes=)."
    )
    STALLED = (
        "Not converged: no step improves the fit any more, though the gradient is not zero. The "
        "posterior may have several modes or no end in some direction, or the fit began too far "
        "away; try a tighter prior, standardised data, another start (init=), or fit(n) with "
        "stochastic steps."
    )
    KINKED = (
        "Not converged: the log-density has kinks near its mode, as with absolute values or limits "
        "in the likelihood, so its curvature says nothing of the posterior. Take method='advi' or "
        "'fullrank_advi', which average over them."
    )
    FLAT = (
        "Not converged: where the fit ended, the log-likelihood of all rows is exactly flat in a "
        "parameter, as where probabilities are clipped, though elsewhere it is not. So it stayed "
        "where the prior has it; diagnose() names it. Begin nearer to the data (init={...}), or "
        "write the likelihood without the limits (logit_p=)."
    )
    TOO_MANY = (
        "Not converged: the means rest, but of more than 2,048 parameters that the same rows "
        "inform standard deviations are known by random signs only, and may be off by a tenth or "
        "more where columns are correlated. Use the means; or take fewer columns, or steps: fit(n)."
    )
    STEPS_USED_UP = (
        "Not converged: the passes were used up before the averages of the steps came to rest. "
        "Give more (max_passes=), bring the parameters near 0 and of the order of 1 first "
        "(standardise the data), or make exact passes: fit() with strategy='auto'."
    )
    UNCONFIRMED = (
        "Not converged: steps came to rest, but an exact pass says that the optimum is elsewhere: "
        "in a direction in which they hardly move, or which their noise biases. Make exact passes: "
        "fit() with strategy='auto'."
    )
    INTERRUPTED = (
        "Interrupted: the result is what was fitted until then, of exact passes that of the last "
        "complete one. Call fit() again to go on."
    )

    @property
    def converged(self) -> bool:
        """Whether the result can be used."""
        return self is Status.CONVERGED


@dataclass(frozen=True)
class Moved:
    """One pass on record.

    Parameters
    ----------
    passes : int
        Passes so far.
    step : float
        Largest move of a mean that followed from it, in standard deviations.
    log_scale : float
        Largest change of a log scale.
    kept : bool
        Whether the move before it was kept.
    """

    passes: int
    step: float
    log_scale: float
    kept: bool
