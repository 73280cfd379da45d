from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import MeanFieldGuide
from pymc_streaming.vi.passes import Derivatives, Sample
from pymc_streaming.vi.signs import sign_patterns
from pymc_streaming.vi.surrogate import Curvature, Gaussian, expected_prior, optimum
from pymc_streaming.vi.terms import Terms

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}
N, D = 500, 5
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(N, D)), rng.normal(size=N)
PRIOR = np.array([0.5, 1.0, 2.0, 0.1, 3.0])


@pytest.fixture(scope="module")
def terms() -> Terms:
    with pm.Model() as model:
        b = pm.Normal("b", 0.2, PRIOR, shape=D)
        x, y = pm.Data("x", X), pm.Data("y", Y)
        pm.Normal("likelihood", x @ b, 1.0, observed=y, total_size=N)
    batch = {"x": X, "y": Y}
    guide = MeanFieldGuide(model, 0)
    return Terms(Binding(model, None, batch), model.observed_RVs, guide, batch, N, FAST)


def curvature_at(terms: Terms, ratio: float = 1.0, rows=slice(None)) -> Curvature:
    around = Gaussian(np.full(D, 0.3), np.full(D, -2.0))
    sample = Sample({"x": X[rows], "y": Y[rows]})
    return Curvature(terms, sample, around, ratio)


def test_products_are_those_with_the_matrix(terms) -> None:
    bend = curvature_at(terms, ratio=3.0)
    for direction in (*np.eye(D), rng.normal(size=D) * 1e3, np.zeros(D)):
        expected = 3.0 * X.T @ (X @ direction)
        np.testing.assert_allclose(bend.times(direction), expected, rtol=1e-7, atol=1e-6)


def test_after_corrections_it_agrees_with_what_was_found(terms) -> None:
    bend, truth = curvature_at(terms, rows=slice(50)), X.T @ X
    moves = rng.normal(size=(D, D))
    for move in moves:
        bend.correct(move, truth @ move)
        np.testing.assert_allclose(bend.times(move), truth @ move, rtol=1e-6)
    before = bend.times(moves[0])
    bend.correct(moves[0], -(truth @ moves[0]))  # bends upwards: cannot be
    np.testing.assert_array_equal(bend.times(moves[0]), before)


def test_the_optimum_of_a_parabola_is_found_at_once(terms) -> None:
    signs = sign_patterns(np.arange(D), np.random.default_rng(0))
    q = Gaussian(np.full(D, 0.3), np.full(D, -2.5))
    found = Derivatives(X.T @ (Y - X @ q.location), (X**2).sum(axis=0), 0.0)
    times = curvature_at(terms).times
    best = optimum(terms, signs, q, found, times, np.inf)
    precision = X.T @ X + np.diag(PRIOR**-2)
    mean = np.linalg.solve(precision, X.T @ Y + 0.2 * PRIOR**-2)
    np.testing.assert_allclose(best.location, mean, atol=1e-4)
    np.testing.assert_allclose(best.scale, np.diag(precision) ** -0.5, rtol=1e-4)
    near = optimum(terms, signs, q, found, times, 0.5)
    assert np.abs((near.location - q.location) * np.sqrt(np.diag(precision))).max() <= 0.5 + 1e-6


def test_the_expected_prior_has_the_gradients_that_it_says(terms) -> None:
    signs = sign_patterns(np.arange(D), np.random.default_rng(0))
    q = Gaussian(rng.normal(size=D), rng.normal(size=D))
    value, in_location, in_scale = expected_prior(terms, signs, q)
    expected = -0.5 * (((q.location - 0.2) ** 2 + q.scale**2) / PRIOR**2).sum()
    expected -= 0.5 * D * np.log(2 * np.pi) + np.log(PRIOR).sum()
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(in_location, -(q.location - 0.2) / PRIOR**2)
    np.testing.assert_allclose(in_scale, -(q.scale**2) / PRIOR**2)
