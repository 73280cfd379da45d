"""Fits in exact passes, against posteriors that are known by other means."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode
from scipy.optimize import minimize

from pymc_streaming import DataLoader
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.exact import fit_exactly
from pymc_streaming.vi.guides import MeanFieldGuide
from pymc_streaming.vi.passes import NotFinite, Sample
from pymc_streaming.vi.start import start_from
from pymc_streaming.vi.status import Status
from pymc_streaming.vi.terms import Terms
from tests.models import KNOWN

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}


def parts_of(model: pm.Model, data: dict[str, np.ndarray], n_rows: int, compile_kwargs=FAST):
    batch = {name: array[:500] for name, array in data.items()}
    binding, guide = Binding(model, None, batch), MeanFieldGuide(model, 0)
    terms = Terms(binding, model.observed_RVs, guide, batch, n_rows, compile_kwargs)
    return binding, terms, guide


def fit(model: pm.Model, data: dict[str, np.ndarray], n_sample: int, **options):
    n_rows = len(next(iter(data.values())))
    binding, terms, guide = parts_of(model, data, n_rows)
    picked = np.random.default_rng(5).permutation(n_rows)[:n_sample]
    sample = Sample({name: array[picked] for name, array in data.items()})
    random = np.random.default_rng(0)
    start = start_from(terms, guide, sample, [guide.location], random)
    return fit_exactly(Sample(data), sample, start, binding, guide, random, **options), guide


@pytest.mark.parametrize("build", KNOWN, ids=lambda build: build.__name__)
def test_known_posteriors(build) -> None:
    known = build()
    data = known.data
    source = data if len(data) > 1 else data["batch"]
    model = known.build(DataLoader(source, 500))
    ascent, _ = fit(model, data, 5_000)
    assert ascent.status is Status.CONVERGED
    assert ascent.passes <= 4
    sds = known.mean_field_sd
    assert np.abs((ascent.q.location - known.mean) / sds).max() < 0.05
    np.testing.assert_allclose(ascent.q.scale, sds, rtol=0.02)
    # It is told what was left of the way: the steps become shorter.
    steps = [moved.step for moved in ascent.trail]
    assert steps == sorted(steps, reverse=True)


def hierarchy(n_rows: int, n_groups: int):
    """A linear model with effects of groups, some with few rows; its ELBO has a known optimum."""
    rng = np.random.default_rng(1)
    group = np.minimum((n_groups * rng.random(n_rows) ** 3).astype(int), n_groups - 1)
    x = rng.normal(size=n_rows)
    y = 0.7 + 0.4 * x + rng.normal(0.0, 0.6, n_groups)[group] + rng.normal(size=n_rows)
    data = {"x": x, "group": group, "y": y}
    with pm.Model() as model:
        mean = pm.Normal("mean", 0.0, 1.0)
        slope = pm.Normal("slope", 0.0, 1.0)
        effect = pm.Normal("effect", 0.0, 0.6, shape=n_groups)
        x, group, y = (pm.Data(name, data[name][:500]) for name in ("x", "group", "y"))
        pm.Normal(
            "likelihood", mean + slope * x + effect[group], 1.0, observed=y, total_size=n_rows
        )
    design = np.column_stack([np.ones(n_rows), data["x"], np.eye(n_groups)[data["group"]]])
    precision = design.T @ design + np.diag([1.0, 1.0, *[0.6**-2] * n_groups])
    return model, data, np.linalg.solve(precision, design.T @ data["y"]), precision


def test_groups_of_which_the_sample_has_few_rows_or_none() -> None:
    model, data, mean, precision = hierarchy(20_000, 300)
    ascent, _ = fit(model, data, 1_000)
    assert ascent.status is Status.CONVERGED
    assert ascent.passes <= 8
    posterior = np.sqrt(np.diag(np.linalg.inv(precision)))
    assert np.abs((ascent.q.location - mean) / posterior).max() < 0.05
    np.testing.assert_allclose(ascent.q.scale, np.diag(precision) ** -0.5, rtol=0.02)


def test_a_seed_gives_the_same_numbers_whatever_the_blocks() -> None:
    model, data, *_ = hierarchy(5_000, 20)

    class InBlocks(Sample):
        def go_over(self, multiple, sums):
            for start in range(0, self.n_rows, multiple):
                rows = {name: a[start : start + multiple] for name, a in self.rows.items()}
                for each in sums:
                    each.add(rows, self.weights[start : start + multiple])

    results = []
    for table in (Sample, InBlocks):
        binding, terms, guide = parts_of(model, data, 5_000, {})
        sample = Sample({name: array[:1_000] for name, array in data.items()})
        random = np.random.default_rng(0)
        start = start_from(terms, guide, sample, [guide.location], random)
        results.append(fit_exactly(table(data), sample, start, binding, guide, random).q)
    np.testing.assert_allclose(results[0].location, results[1].location, rtol=1e-9)
    np.testing.assert_allclose(results[0].log_scale, results[1].log_scale, rtol=1e-9)


def test_passes_that_are_used_up_are_said_to_be() -> None:
    model, data, *_ = hierarchy(20_000, 300)
    ascent, _ = fit(model, data, 1_000, max_passes=1)
    assert ascent.status is Status.PASSES_USED_UP
    assert ascent.passes == 1


def test_ctrl_c_keeps_the_last_complete_pass() -> None:
    model, data, *_ = hierarchy(20_000, 300)

    def interrupt(moved):
        if moved.passes == 2:
            raise KeyboardInterrupt

    ascent, _ = fit(model, data, 1_000, seen=interrupt)
    assert ascent.status is Status.INTERRUPTED
    assert len(ascent.trail) == 2
    once, _ = fit(model, data, 1_000, max_passes=1)
    np.testing.assert_array_equal(ascent.q.location, once.q.location)


def test_no_finite_gradient_where_it_begins() -> None:
    model, data, *_ = hierarchy(2_000, 20)
    data["y"][1_500] = np.nan
    with pytest.raises(NotFinite):
        fit(model, data, 1_000)


def test_a_posterior_without_an_end_is_not_called_converged() -> None:
    """A flat prior, and rows that say the more the better: the mean has no finite place."""
    data = {"y": np.ones(2_000)}
    with pm.Model() as model:
        eta = pm.Flat("eta")
        y = pm.Data("y", data["y"][:500])
        pm.Bernoulli("likelihood", logit_p=eta, observed=y, total_size=2_000)
    ascent, _ = fit(model, data, 500)
    assert not ascent.status.converged


def few_rows_each(n_groups: int = 200, n_rows: int = 1_200):
    """Clicks of groups with a few rows each, whose effects are as wide as their prior."""
    rng = np.random.default_rng(2)
    group = rng.integers(0, n_groups, n_rows)
    logit = rng.normal(0.5, 1.5, n_groups)[group]
    data = {"group": group, "y": (rng.random(n_rows) < 1.0 / (1.0 + np.exp(-logit))).astype(int)}
    with pm.Model() as model:
        mean = pm.Normal("mean", 0.0, 1.0)
        log_tau = pm.Normal("log_tau", 0.0, 1.0)
        effect = pm.Normal("effect", mean, pm.math.exp(log_tau), shape=n_groups)
        group, y = (pm.Data(name, data[name][:500]) for name in ("group", "y"))
        pm.Bernoulli("likelihood", logit_p=effect[group], observed=y, total_size=n_rows)
    return model, data


def best_by_quadrature(data: dict[str, np.ndarray], n_groups: int = 200):
    """Means and standard deviations of the best mean field: Gauss-Hermite, and closed forms."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    weights = weights / weights.sum()
    count = np.bincount(data["group"], minlength=n_groups)
    clicks = np.bincount(data["group"], data["y"], minlength=n_groups)

    def negative(x):
        m, t, log_sm, log_st = x[:4]
        mu, log_s = x[4 : 4 + n_groups], x[4 + n_groups :]
        sm2, st2, s = np.exp(2 * log_sm), np.exp(2 * log_st), np.exp(log_s)
        z = mu[:, None] + s[:, None] * nodes
        p = 1.0 / (1.0 + np.exp(-z))
        slope = clicks[:, None] - count[:, None] * p
        likelihood = (clicks[:, None] * z - count[:, None] * np.logaddexp(0.0, z)) @ weights
        inverse = np.exp(-2 * t + 2 * st2)  # the expectation of tau to the power of -2
        squares = (mu - m) ** 2 + s**2 + sm2
        elbo = likelihood.sum() - n_groups * t - 0.5 * inverse * squares.sum()
        elbo -= 0.5 * (m**2 + sm2 + t**2 + st2)
        elbo += log_sm + log_st + log_s.sum()
        gradient = np.concatenate(
            [
                [inverse * (mu - m).sum() - m],
                [-n_groups + inverse * squares.sum() - t],
                [1.0 - sm2 * (n_groups * inverse + 1.0)],
                [1.0 - st2 * (2.0 * inverse * squares.sum() + 1.0)],
                slope @ weights - inverse * (mu - m),
                1.0 + s * ((slope * nodes) @ weights) - inverse * s**2,
            ]
        )
        return -elbo, -gradient

    start = np.concatenate([np.zeros(2), [-2.0, -2.0], np.zeros(2 * n_groups)])
    found = minimize(negative, start, jac=True, method="L-BFGS-B", options={"ftol": 0.0})
    assert np.abs(found.jac).max() < 1e-3
    mean = np.concatenate([found.x[:2], found.x[4 : 4 + n_groups]])
    return mean, np.exp(np.concatenate([found.x[2:4], found.x[4 + n_groups :]]))


def test_effects_that_few_rows_inform() -> None:
    """As wide as their prior, which is too wide for an average over signs alone."""
    model, data = few_rows_each()
    ascent, _ = fit(model, data, 1_200)
    assert ascent.status is Status.CONVERGED
    mean, sd = best_by_quadrature(data)
    assert np.abs((ascent.q.location - mean) / sd).max() < 0.05
    np.testing.assert_allclose(ascent.q.scale, sd, rtol=0.02)
