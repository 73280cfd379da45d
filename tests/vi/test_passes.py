from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import MeanFieldGuide
from pymc_streaming.vi.passes import Sample, noise_of, pairs_of_a_chunk, pass_over
from pymc_streaming.vi.signs import sign_patterns
from pymc_streaming.vi.terms import Terms

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}
N, D = 20_000, 4
rng = np.random.default_rng(0)
X = rng.normal(size=(N, D)) @ np.linalg.cholesky(0.8 + 0.2 * np.eye(D)).T
Y = X @ [0.5, -1.0, 0.3, 2.0] + rng.normal(size=N)


@pytest.fixture(scope="module")
def terms() -> Terms:
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 3.0, shape=D)
        x, y = pm.Data("x", X[:100]), pm.Data("y", Y[:100])
        pm.Normal("likelihood", x @ b, 1.0, observed=y, total_size=N)
    batch = {"x": X[:100], "y": Y[:100]}
    guide = MeanFieldGuide(model, 0)
    return Terms(Binding(model, None, batch), model.observed_RVs, guide, batch, N, FAST)


class InBlocks(Sample):
    """The same rows, a few chunks at a time."""

    def go_over(self, multiple, sums):
        for start in range(0, self.n_rows, 3 * multiple):
            stop = start + 3 * multiple
            rows = {name: array[start:stop] for name, array in self.rows.items()}
            for each in sums:
                each.add(rows, self.weights[start:stop])


@pytest.mark.parametrize("table", [Sample, InBlocks])
def test_derivatives_of_a_parabola(terms, table) -> None:
    signs = sign_patterns(np.arange(D), np.random.default_rng(0))
    location, scale = np.array([0.1, 0.2, -0.3, 0.4]), np.array([0.02, 0.01, 0.03, 0.01])
    rows = table({"x": X, "y": Y})
    found = pass_over(rows, terms, signs, location, scale)
    np.testing.assert_allclose(found.gradient, X.T @ (Y - X @ location), rtol=0.01)
    np.testing.assert_allclose(found.curvature, (X**2).sum(axis=0), rtol=0.1)
    # All patterns for each chunk: no difference between rows is left.
    exact = pass_over(rows, terms, signs, location, scale, noise=1e-6)
    np.testing.assert_allclose(exact.gradient, X.T @ (Y - X @ location), rtol=1e-10)
    np.testing.assert_allclose(exact.curvature, (X**2).sum(axis=0), rtol=1e-10)


def test_the_noise_is_what_it_is_said_to_be(terms) -> None:
    scale = 1.0 / np.sqrt((X**2).sum(axis=0))
    errors = []
    for seed in range(40):
        signs = sign_patterns(np.arange(D), np.random.default_rng(seed))
        order = np.random.default_rng(seed).permutation(N)[:2_000]
        rows = Sample({"x": X[order], "y": Y[order]})
        found = pass_over(rows, terms, signs, np.zeros(D), scale, noise=0.09)
        errors.append(found.curvature / (X[order] ** 2).sum(axis=0) - 1.0)
    assert pairs_of_a_chunk(signs, 2_000, 0.09) == 1
    assert 0.02 < np.sqrt(np.mean(np.square(errors))) < 0.09


def test_noise_is_what_is_not_symmetric() -> None:
    rng, errors = np.random.default_rng(0), np.array([0.1] * 150 + [0.4] * 50)
    matrix = rng.normal(size=(200, 200))
    matrix = matrix + matrix.T
    np.testing.assert_array_equal(noise_of(matrix), 0.0)
    found = noise_of(matrix + errors[:, None] * rng.normal(size=(200, 200)))
    assert 0.1 < found[:150].mean() < 0.2
    np.testing.assert_allclose(found[150:], 0.4 * (1.0 + 2.0 / np.sqrt(199.0)), rtol=0.3)
    assert noise_of(np.ones((1, 1))) == [0.0]
