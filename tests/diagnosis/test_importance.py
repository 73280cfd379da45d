from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pymc_streaming.diagnosis.importance import weigh

S = 20_000


def weighed(log_density, sd=1.0, seed=0):
    points = np.random.default_rng(seed).normal(0.0, sd, size=(S, 1))
    ratios = log_density(points[:, 0]) - stats.norm.logpdf(points[:, 0], 0.0, sd)
    return weigh(ratios, points, np.zeros(1), np.full(1, sd))


def test_the_moments_of_another_normal() -> None:
    found = weighed(stats.norm(0.3, 0.8).logpdf)
    assert found.mean[0] == pytest.approx(0.3, abs=4 * found.mean_error[0])
    assert found.mean_error[0] < 0.02
    assert found.sd[0] == pytest.approx(0.8, abs=0.03)
    assert found.k_hat < 0.3
    # Divergence of the two, by its formula.
    expected = -(np.log(0.8) + (1 + 0.3**2) / (2 * 0.8**2) - 0.5)
    assert found.elbo == pytest.approx(expected, abs=4 * found.elbo_error)
    # Ratios have the second moment 1 / (0.8 sqrt(2 - 0.8**2)) exp(0.3**2 / (2 - 0.8**2)).
    second = np.exp(0.09 / (2 - 0.64)) / (0.8 * np.sqrt(2 - 0.64))
    assert found.effective_draws == pytest.approx(S / second, rel=0.03)


def test_k_hat_of_normals_that_are_too_narrow() -> None:
    """Ratios of two centred normals have moments below 1 / (1 - sd**2): k is the inverse."""
    for sd in (0.5, 0.7, 0.9):
        assert weighed(stats.norm.logpdf, sd).k_hat == pytest.approx(1 - sd**2, abs=0.15)


def test_ratios_that_are_all_the_same() -> None:
    found = weighed(lambda z: stats.norm.logpdf(z) - 123.0)
    assert (found.elbo, found.k_hat) == (pytest.approx(-123.0), 0.0)
    assert found.effective_draws == pytest.approx(S)
    assert (found.mean[0], found.sd[0]) == (pytest.approx(0.0), pytest.approx(1.0))


def test_a_tail_without_a_shape() -> None:
    """A draw beside which all others weigh nothing."""
    ratios = np.array([-10_000.0] * 150 + [-9_000.0 + 50.0 * i for i in range(50)])
    points = np.random.default_rng(0).normal(size=(200, 1))
    assert weigh(ratios, points, np.zeros(1), np.ones(1)).k_hat == np.inf


def test_a_tail_that_is_cut_off() -> None:
    """Weights that are bounded, as of a posterior that is flat in its middle."""
    ratios = np.minimum(np.linspace(-3.0, 1.0, 200), 0.0)
    found = weigh(ratios, np.linspace(-1.0, 1.0, 200)[:, None], np.zeros(1), np.ones(1))
    assert found.k_hat == 0.0
    assert found.mean[0] > 0.0
    assert found.effective_draws == pytest.approx(
        np.exp(ratios).sum() ** 2 / np.exp(2 * ratios).sum()
    )
