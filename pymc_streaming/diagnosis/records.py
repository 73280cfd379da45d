"""What a diagnosis holds."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pymc_streaming.sources.skipped import SkippedFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Diagnosis", "Finding", "FindingKind", "GroupCounts", "Missing", "plain"]


class FindingKind(enum.Enum):
    """What can be wrong with a fit."""

    ROWS = "other rows"
    NOT_FINITE = "not finite"
    FLAT = "flat"
    NOT_CONVERGED = "not converged"
    SEVERAL_MODES = "several modes"
    SHRINKAGE = "shrinkage"
    NOT_NORMAL = "not normal"


class Missing(enum.Enum):
    """Why a diagnosis lacks a figure, or has a bound in its place."""

    NOT_FINITE = "the derivatives are not finite"
    NO_MAXIMUM = "not computed: the curvature is not that of a maximum"
    BOUND = "at least that: too many parameters for all directions"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that speaks against a fit.

    Parameters
    ----------
    kind : FindingKind
        What it is.
    text : str
        How much, which parameter, and what to do.
    """

    kind: FindingKind
    text: str


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Rows of the groups that a variable has an effect for.

    Parameters
    ----------
    variable : str
        Its name.
    groups : int
        How many there are.
    fewest : int
        Rows of the smallest group that has any.
    empty : int
        Groups without a row: what is known of their effects is the prior.
    """

    variable: str
    groups: int
    fewest: int
    empty: int


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Whether a fit can be trusted; made by `Trainer.diagnose`. ``print(diagnosis)`` says it.

    Arrays have an element for each unconstrained parameter, in the order of `parameters`; all
    densities are on that scale.

    Parameters
    ----------
    method : str
        Of the fit.
    parameters : tuple of str
        Names such as ``"b[3]"`` and ``"sigma_log__"``.
    rows, total_size : int
        Rows that were counted, and N that the model was fitted for.
    draws : int
        Draws S of the fitted q.
    elbo, elbo_error : float
        ELBO of all rows and its standard error, in nats.
    k_hat, k_threshold : float
        Tail of the importance ratios, and up to where weighted draws can be relied on.
    effective_draws : float
        What the weighted draws are worth.
    log_ratios : ndarray, shape (S,)
        Log-density less that of q at the draws, in nats.
    mean, sd : ndarray, shape (d,)
        Of q.
    corrected_mean, corrected_sd : ndarray, shape (d,)
        Of the posterior by importance weights; for `k_hat` below `k_threshold`.
    correction_error : ndarray, shape (d,)
        Standard error of `correction`.
    step : ndarray, shape (d,), or None
        Where the optimum of the ELBO is, as far as the expected gradient and curvature of all rows
        tell: differences of means, in standard deviations there, at most 10,000.
    log_scale : ndarray, shape (d,), or None
        The same for the logarithms of standard deviations.
    shrinkage : ndarray, shape (d,), or None
        Standard deviation of a normal approximation with all correlations, over that of the best
        independent normals; of more than 1,000 parameters a lower bound, from the direction in
        which it is largest. None for a dense normal.
    missing : Missing or None
        Why there is no `step` or no `shrinkage`, or that it is a bound; None if neither.
    reasons : dict of str to float
        Shares of the variance of the log ratios that are due to a wrong location, to correlations
        that q does not have, to wrong scales, and to a shape that is not normal.
    groups : tuple of GroupCounts
        Rows per group, for each variable that codes in the data pick elements of.
    n_modes : int
        Modes about as high as each other in which fits of a sample ended, from where the fit is
        and from random places around it.
    flat : tuple of str
        Parameters in which the log-likelihood of all rows is exactly flat around the fit, though
        not everywhere.
    skipped : tuple of SkippedFile
        Damaged files of the table that were left out, here and in the fit.
    findings : tuple of Finding
        What speaks against the fit.
    """

    method: str
    parameters: tuple[str, ...]
    rows: int
    total_size: int
    draws: int
    elbo: float
    elbo_error: float
    k_hat: float
    k_threshold: float
    effective_draws: float
    log_ratios: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    corrected_mean: np.ndarray
    corrected_sd: np.ndarray
    correction_error: np.ndarray
    step: np.ndarray | None
    log_scale: np.ndarray | None
    shrinkage: np.ndarray | None
    missing: Missing | None
    reasons: dict[str, float]
    groups: tuple[GroupCounts, ...]
    n_modes: int = 1
    flat: tuple[str, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def correction(self) -> np.ndarray:
        """`corrected_mean` less `mean`, in standard deviations of q, shape (d,)."""
        correction: np.ndarray = (self.corrected_mean - self.mean) / self.sd
        return correction

    def worst(self, values: np.ndarray) -> tuple[str, float]:
        """Name and value of the element that is largest in absolute value."""
        index = int(np.argmax(np.abs(values)))
        return self.parameters[index], float(values[index])

    def __str__(self) -> str:
        from pymc_streaming.diagnosis.show import as_text

        return as_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, text and lists that JSON takes; None for what is not finite.

        Examples
        --------
        >>> import json
        >>> json.dumps(GroupCounts("effect", 3, 17, 0).groups)
        '3'
        """
        return {**plain(self), "trusted": self.trusted, "correction": plain(self.correction)}

    def plot(self) -> Figure:
        """Draw steps, changes of scales, shrinkage and importance weights.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot: a notebook shows it, ``figure.savefig("diagnosis.png")`` saves it.
        """
        from pymc_streaming.diagnosis.plot import draw

        return draw(self)


def plain(value: Any) -> Any:
    """The same as JSON takes it; None for what is not finite."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, np.ndarray):
        return [plain(element) for element in value.tolist()]
    if isinstance(value, tuple):
        return [plain(element) for element in value]
    if isinstance(value, dict):
        return {key: plain(element) for key, element in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
