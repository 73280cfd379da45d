"""Inside the support exactly where the log-likelihood is finite."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pymc.variational.minibatch_rv import create_minibatch_rv
from pytensor.compile.mode import Mode

from pymc_streaming.vi.support import inside_support

MODE = Mode(linker="py", optimizer="fast_compile").including("local_check_parameter_to_ninf_switch")


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
        inside = pytensor.function([], inside_support(density), mode=MODE)()
        with np.errstate(all="ignore"):
            finite = np.isfinite(pytensor.function([], density, mode=MODE)()).all()
        assert bool(inside) == bool(finite), value


def test_a_scaled_likelihood():
    variable = create_minibatch_rv(pm.Poisson.dist(2.0, shape=3), 100)
    for values, expected in (([0, 1, 2], True), ([0, -1, 2], False)):
        density = pm.logp(variable, pt.as_tensor(np.array(values)))
        assert bool(pytensor.function([], inside_support(density), mode=MODE)()) is expected
