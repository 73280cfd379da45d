"""Dense normals in exact passes, against posteriors that are known by other means."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode
from scipy.optimize import approx_fprime, minimize

from pymc_streaming import DataLoader
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.dense import LAPLACE_SPREAD, SPREAD, Dense, DenseCurvature, DenseGaussian
from pymc_streaming.vi.exact import fit_exactly
from pymc_streaming.vi.guides import FullRankGuide
from pymc_streaming.vi.passes import Sample
from pymc_streaming.vi.signs import sign_patterns
from pymc_streaming.vi.start import start_from
from pymc_streaming.vi.status import Status
from pymc_streaming.vi.terms import Terms
from tests.models import KNOWN, correlated_linear

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}


def parts_of(model: pm.Model, data: dict[str, np.ndarray], compile_kwargs=FAST):
    n_rows = len(next(iter(data.values())))
    batch = {name: array[:500] for name, array in data.items()}
    binding, guide = Binding(model, None, batch), FullRankGuide(model, 0)
    terms = Terms(binding, model.observed_RVs, guide, batch, n_rows, compile_kwargs)
    return binding, terms, guide


def fit(model, data, spread: float, n_sample=5_000, compile_kwargs=FAST, **options):
    binding, terms, guide = parts_of(model, data, compile_kwargs)
    n_rows = len(next(iter(data.values())))
    picked = np.random.default_rng(5).permutation(n_rows)[:n_sample]
    sample = Sample({name: array[picked] for name, array in data.items()})
    random = np.random.default_rng(0)
    start = start_from(terms, guide, sample, [guide.location], random)
    ascent = fit_exactly(
        Sample(data), sample, start, binding, guide, random, spread=spread, **options
    )
    return ascent, guide


def model_of(known) -> pm.Model:
    data = known.data
    return known.build(DataLoader(data if len(data) > 1 else data["batch"], 500))


def ratios(q: DenseGaussian, covariance: np.ndarray) -> np.ndarray:
    """Standard deviations in all directions over the right ones: the least and the largest last."""
    factor = np.linalg.cholesky(covariance)
    return np.linalg.svd(np.linalg.solve(factor, q.cholesky), compute_uv=False)


@pytest.mark.parametrize("spread", [SPREAD, LAPLACE_SPREAD])
@pytest.mark.parametrize("build", KNOWN, ids=lambda build: build.__name__)
def test_known_posteriors(build, spread) -> None:
    known = build()
    ascent, guide = fit(model_of(known), known.data, spread)
    assert ascent.status is Status.CONVERGED
    assert ascent.passes <= 4
    sds = np.sqrt(np.diag(known.covariance))
    # The mode is what the reference is; a Gaussian's mean differs by the skewness.
    nearer = 0.05 if spread == SPREAD else 0.002
    assert np.abs((ascent.q.location - known.mean) / sds).max() < nearer
    np.testing.assert_allclose(ascent.q.scale, sds, rtol=0.01)
    np.testing.assert_allclose(ratios(ascent.q, known.covariance), 1.0, rtol=0.02)
    covariance = guide.write(ascent.q.location, ascent.q.scales).cov.eval()
    np.testing.assert_allclose(covariance, ascent.q.cholesky @ ascent.q.cholesky.T, rtol=1e-6)


def groups(n_rows: int = 8_000, n_groups: int = 12):
    """Counts with effects of groups whose spread is unknown: the prior is not a Gaussian."""
    rng = np.random.default_rng(1)
    group = np.minimum((n_groups * rng.random(n_rows) ** 2).astype(int), n_groups - 1)
    data = {
        "group": group,
        "y": rng.poisson(np.exp(0.5 + rng.normal(0.0, 0.7, n_groups)[group])),
    }
    with pm.Model() as model:
        mean = pm.Normal("mean", 0.0, 1.0)
        tau = pm.HalfNormal("tau", 1.0)
        effect = pm.Normal("effect", 0.0, tau, shape=n_groups)
        group, y = (pm.Data(name, data[name][:500]) for name in ("group", "y"))
        rate = pm.math.exp(mean + effect[group])
        pm.Poisson("likelihood", rate, observed=y, total_size=n_rows)
    return model, data


def log_density(model: pm.Model, data: dict[str, np.ndarray]):
    """Of a flat vector, over the whole table: compiled by PyMC."""
    with model:
        pm.set_data(data)
    inputs = model.value_vars
    value = model.compile_logp(mode=FAST["mode"])
    slope = model.compile_dlogp(mode=FAST["mode"])
    point = model.initial_point()
    sizes = np.cumsum([np.size(point[v.name]) for v in inputs])[:-1]

    def split(z):
        parts = np.split(z, sizes)
        return {
            v.name: part.reshape(point[v.name].shape) for v, part in zip(inputs, parts, strict=True)
        }

    return (lambda z: float(value(split(z)))), (lambda z: slope(split(z)))


def test_laplace_against_scipy() -> None:
    model, data = groups()
    ascent, _ = fit(model, data, LAPLACE_SPREAD, n_sample=2_000)
    assert ascent.status is Status.CONVERGED
    value, slope = log_density(model, data)
    mode = minimize(
        lambda z: -value(z), ascent.q.location + 0.1, jac=lambda z: -slope(z), tol=1e-8
    ).x
    hessian = -approx_fprime(mode, slope, 1e-6)
    covariance = np.linalg.inv(0.5 * (hessian + hessian.T))
    sds = np.sqrt(np.diag(covariance))
    assert np.abs((ascent.q.location - mode) / sds).max() < 0.02
    np.testing.assert_allclose(ratios(ascent.q, covariance), 1.0, rtol=0.02)


def test_full_rank_is_where_its_elbo_is_highest() -> None:
    """At the optimum the expected gradient is zero, and the covariance the inverse curvature."""
    model, data = groups()
    ascent, _ = fit(model, data, SPREAD, n_sample=2_000, compile_kwargs={})
    assert ascent.status is Status.CONVERGED
    _, slope = log_density(model, data)
    random, q = np.random.default_rng(0), ascent.q
    half = random.standard_normal((1_000, len(q.location)))
    noise = np.concatenate([half, -half])
    slopes = np.array([slope(q.location + q.cholesky @ each) for each in noise]) @ q.cholesky
    error = slopes.std(axis=0) / np.sqrt(len(half))
    assert np.abs(slopes.mean(axis=0)).max() < 5 * error.max()
    assert error.max() < 0.05
    # By Stein's lemma the slope along the noise is the curvature.
    curvature = -(noise.T @ slopes) / len(noise)
    np.testing.assert_allclose(np.diag(curvature), 1.0, atol=0.15)
    np.testing.assert_allclose(curvature, np.eye(len(q.location)), atol=0.15)


def test_curvature_of_a_parabola_is_exact_over_all_patterns() -> None:
    known = correlated_linear(2_000)
    _, terms, _ = parts_of(model_of(known), known.data)
    family = Dense(terms, sign_patterns(np.arange(5), np.random.default_rng(0)), SPREAD)
    X, y = known.data["X"], known.data["y"]
    location, factor = np.array([0.1, 0.2, -0.3, 0.4, 0.5]), np.linalg.cholesky(known.covariance)
    found = family.finer().look(Sample(known.data), DenseGaussian(location, factor))
    assert found.reliable
    np.testing.assert_allclose(found.gradient, X.T @ (y - X @ location), rtol=1e-9)
    np.testing.assert_allclose(found.curvature, X.T @ X, rtol=1e-9)


def test_a_correction_gives_the_change_that_was_found() -> None:
    curvature = DenseCurvature(np.diag([1.0, 2.0, 3.0]))
    move, change = np.array([1.0, -1.0, 0.5]), np.array([2.0, -1.0, 1.0])
    curvature.correct(move, change)
    np.testing.assert_allclose(curvature.matrix @ move, change)
    before = curvature.matrix.copy()
    curvature.correct(move, -change)  # it would bend the other way
    np.testing.assert_array_equal(curvature.matrix, before)


def test_points_are_more_the_fewer_rows_there_are() -> None:
    known = correlated_linear(2_000)
    _, terms, _ = parts_of(model_of(known), known.data)
    family = Dense(terms, sign_patterns(np.arange(5), np.random.default_rng(0)), SPREAD)
    assert family.finer().points(10**7) == 2
    assert family.finer().points(10**3) == 16
