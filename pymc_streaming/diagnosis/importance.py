r"""The ELBO, and what importance weights make of the draws.

With draws :math:`z_s` of q, the log ratios :math:`r_s = \log p(z_s, y) - \log q(z_s)` have the ELBO
as their mean. If q is the posterior, each of them is the log evidence. How heavy the tail of
:math:`e^{r_s}` is says how far q is from it: the shape k of the generalised Pareto distribution
that fits the largest ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Importance", "k_threshold", "weigh"]

# Ratios that agree to so many nats differ by rounding only.
_SAME = 1e-6


@dataclass(frozen=True)
class Importance:
    """What draws of q and their log ratios say.

    Parameters
    ----------
    elbo, elbo_error : float
        In nats, with its standard error.
    k_hat : float
        Shape of the tail of the importance ratios; 0 where all of them are the same, infinite where
        one of them is so large that all others are nothing beside it.
    effective_draws : float
        Independent draws of the posterior that the weighted ones are worth, in the mean.
    mean, sd : ndarray, shape (d,)
        Of the posterior, by the weights.
    mean_error : ndarray, shape (d,)
        Standard error of that mean.
    """

    elbo: float
    elbo_error: float
    k_hat: float
    effective_draws: float
    mean: np.ndarray
    sd: np.ndarray
    mean_error: np.ndarray


def k_threshold(draws: int) -> float:
    r"""Up to which k-hat weighted draws can be relied on: :math:`\min(1 - 1/\log_{10} S, 0.7)`.

    References
    ----------
    Vehtari, A., Simpson, D., Gelman, A., Yao, Y. and Gabry, J. (2024). Pareto smoothed importance
    sampling. *Journal of Machine Learning Research* 25(72), 1-58.

    Examples
    --------
    >>> [round(k_threshold(draws), 2) for draws in (100, 200, 10_000)]
    [0.5, 0.57, 0.7]
    """
    return min(1.0 - 1.0 / math.log10(draws), 0.7)


def weigh(
    log_ratios: np.ndarray, points: np.ndarray, mean: np.ndarray, sd: np.ndarray
) -> Importance:
    """Weigh draws by their log ratios.

    Parameters
    ----------
    log_ratios : ndarray, shape (k,)
        Log-density of the model less that of q.
    points : ndarray, shape (k, d)
        Draws of q.
    mean, sd : ndarray, shape (d,)
        Of q.

    References
    ----------
    Yao, Y., Vehtari, A., Simpson, D. and Gelman, A. (2018). Yes, but did it work?: evaluating
    variational inference. *Proceedings of the 35th International Conference on Machine Learning*,
    PMLR 80, 5581-5590.
    """
    draws = len(log_ratios)
    elbo = float(log_ratios.mean())
    error = float(log_ratios.std(ddof=1) / math.sqrt(draws))
    weights, k_hat = _smoothed(log_ratios)
    # What is known of q is not estimated: the weights only say how the posterior differs from it.
    shift = (weights - 1.0 / draws) @ points
    spread = (weights[:, None] * (points - (weights @ points)) ** 2).sum(axis=0)
    return Importance(
        elbo,
        error,
        k_hat,
        float(1.0 / (weights**2).sum()),
        mean + shift,
        sd * np.sqrt(spread / points.var(axis=0)),
        np.sqrt(((weights - 1.0 / draws) ** 2) @ (points - mean) ** 2),
    )


def _smoothed(log_ratios: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto smoothed weights, which sum to one, and k-hat."""
    # Ratios of which the largest are the same have no tail.
    largest = np.sort(log_ratios)[-math.ceil(0.2 * len(log_ratios)) :]
    if np.ptp(largest) < _SAME:
        weights = np.exp(log_ratios - largest[-1])
        return weights / weights.sum(), 0.0
    from arviz_stats.base import array_stats

    # It takes minus the log ratios: it was made for the log-likelihoods of leaving one out.
    log_weights, k_hat = array_stats.psislw(-log_ratios)
    return np.exp(log_weights), math.inf if math.isnan(k_hat) else float(k_hat)
