"""NaN exactly where the log-likelihood is not finite."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pymc.variational.minibatch_rv import create_minibatch_rv
from pytensor.compile.mode import Mode

from pymc_streaming.vi.support import support_violation

MODE = Mode(linker="py", optimizer="fast_compile").including("local_check_parameter_to_ninf_switch")


def evaluate(expression):
    with np.errstate(all="ignore"):
        return pytensor.function([], expression, mode=MODE)()


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (lambda: pm.Bernoulli.dist(p=0.3), [0, 1, -1, 2]),
        (lambda: pm.Bernoulli.dist(logit_p=0.3), [0, 1, -1, 2]),
        (lambda: pm.Poisson.dist(2.0), [0, 3, -1]),
        (lambda: pm.NegativeBinomial.dist(mu=2.0, alpha=1.0), [0, 3, -1]),
        (lambda: pm.Binomial.dist(n=5, p=0.5), [0, 5, 6, -1]),
        (lambda: pm.Categorical.dist(p=[0.5, 0.5]), [0, 1, 2, -1]),
        (lambda: pm.Exponential.dist(1.0), [0.5, -0.5]),
        (lambda: pm.Gamma.dist(2.0, 1.0), [0.5, -0.5]),
        (lambda: pm.LogNormal.dist(0.0, 1.0), [0.5, -0.5]),
        (lambda: pm.Beta.dist(2.0, 2.0), [0.5, -0.5, 1.5]),
        (lambda: pm.Uniform.dist(0.0, 1.0), [0.5, 1.5]),
        (lambda: pm.Normal.dist(0.0, 1.0), [0.0, 50.0]),
        (lambda: pm.Normal.dist(0.0, -1.0), [0.0]),
        (lambda: pm.ZeroInflatedPoisson.dist(0.5, 2.0), [0, 3]),
        (lambda: pm.HurdleGamma.dist(0.5, alpha=2.0, beta=1.0), [0.0, 0.5, -1.0]),
        (
            lambda: pm.Mixture.dist(
                w=[0.5, 0.5], comp_dists=[pm.Exponential.dist(1.0), pm.Normal.dist(0.0, 1.0)]
            ),
            [1.0, -1.0],  # below zero only the normal component is possible
        ),
    ],
)
def test_agrees_with_the_density(distribution, values):
    variable = distribution()
    for value in values:
        constant = pt.as_tensor(np.full((2,), value).astype(variable.dtype))
        batched = distribution() if variable.ndim else variable
        density = pm.logp(batched, constant) * 7.0
        expected = 0.0 if np.isfinite(evaluate(density)).all() else np.nan
        np.testing.assert_equal(evaluate(support_violation(density)), expected)


def test_a_scaled_likelihood():
    variable = create_minibatch_rv(pm.Poisson.dist(2.0, shape=3), 100)
    for values, expected in (([0, 1, 2], True), ([0, -1, 2], False)):
        density = pm.logp(variable, pt.as_tensor(np.array(values)))
        assert bool(evaluate(support_violation(density)) == 0.0) is expected


def test_a_parameter_outside_its_domain():
    scale = pt.dscalar("scale")
    density = pm.logp(pm.Normal.dist(0.0, scale), pt.as_tensor(np.zeros(3)))
    violation = pytensor.function([scale], support_violation(density), mode=MODE)
    assert violation(2.0) == 0.0
    assert np.isnan(violation(-2.0))


def test_conditions_of_another_shape_than_the_rows():
    """As many categories as rows, and fewer: their probabilities are not rows."""
    for n_categories in (2, 3):
        p = np.full(n_categories, 1 / n_categories)
        density = pm.logp(pm.Categorical.dist(p=p), pt.as_tensor(np.array([0, 1, 1])))
        assert evaluate(support_violation(density)) == 0.0


def test_the_logarithm_of_a_condition() -> None:
    value = pt.as_tensor(np.array([0.5, -0.5]))
    for condition in (value > 0, (value > 0).astype("float64")):
        density = pt.log(condition) - value
        assert np.isnan(evaluate(support_violation(density)))
        assert evaluate(support_violation(density[:1])) == 0.0
