from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from scipy import stats

from pymc_streaming.vi.guides import FullRankGuide, MeanFieldGuide


@pytest.fixture(scope="module")
def model() -> pm.Model:
    with pm.Model() as model:
        pm.Normal("a", 1.0, 2.0, shape=(2, 2))
        pm.HalfNormal("s", 1.0)
    return model


def draws(guide, n: int = 4) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(n, guide.size))
    return np.array([guide.draw(row) for row in noise]), noise


def test_it_starts_at_the_initial_point(model):
    guide = MeanFieldGuide(model, 0)
    assert guide.size == 5
    np.testing.assert_allclose(guide.location[:4], 1.0)
    np.testing.assert_allclose(np.exp(guide.scales), 1e-4)


def test_mean_field_writes_what_it_draws_from(model):
    guide = MeanFieldGuide(model, 0)
    location, log_scale = np.arange(5.0), np.log([1e-6, 0.1, 1.0, 50.0, 1e4])
    guide.location[:], guide.scales[:] = location, log_scale
    approximation = guide.write(location, log_scale)
    np.testing.assert_allclose(approximation.mean.eval(), location)
    np.testing.assert_allclose(approximation.std.eval(), np.exp(log_scale), rtol=1e-6)
    found, noise = draws(guide)
    np.testing.assert_allclose(found, location + np.exp(log_scale) * noise)


def test_full_rank_writes_what_it_draws_from(model):
    guide = FullRankGuide(model, 0)
    rng = np.random.default_rng(1)
    location, log_scale = rng.normal(size=5), rng.normal(size=5)
    below = rng.normal(size=10)
    guide.location[:], guide.scales[:] = location, np.concatenate([log_scale, below])
    unit = np.eye(5)
    unit[np.tril_indices(5, -1)] = below
    cholesky = np.exp(log_scale)[:, None] * unit
    approximation = guide.write(guide.location, guide.scales)
    np.testing.assert_allclose(approximation.cov.eval(), cholesky @ cholesky.T, rtol=1e-6)
    found, noise = draws(guide)
    np.testing.assert_allclose(found, location + noise @ cholesky.T)
    _, determinant = np.linalg.slogdet(2 * np.pi * np.e * cholesky @ cholesky.T)
    np.testing.assert_allclose(guide.entropy(), 0.5 * determinant)


@pytest.mark.parametrize("kind", [MeanFieldGuide, FullRankGuide])
def test_what_was_written_is_read_back(model, kind):
    guide = kind(model, 0)
    location = np.arange(5.0)
    scales = np.random.default_rng(2).normal(size=len(guide.scales))
    guide.write(location, scales)
    found = guide.as_written()
    np.testing.assert_allclose(found.location, location)
    np.testing.assert_allclose(found.scales, scales, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.sd, guide.approximation.std.eval())
    assert not np.allclose(guide.location, location)  # its own are left alone


@pytest.mark.parametrize("kind", [MeanFieldGuide, FullRankGuide])
def test_the_log_density_of_draws(model, kind):
    guide = kind(model, 0)
    guide.location[:] = 1.0
    guide.scales[:] = np.random.default_rng(2).normal(size=len(guide.scales))
    guide.write(guide.location, guide.scales)
    found, noise = draws(guide)
    covariance = guide.approximation.cov.eval()
    expected = stats.multivariate_normal.logpdf(found, guide.location, covariance)
    np.testing.assert_allclose(guide.log_density(noise), expected, rtol=1e-6)
