from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode
from pytensor.tensor.math import Dot

from pymc_streaming.vi.products import MatrixVectorProduct, with_light_products

MODE = with_light_products(get_mode("NUMBA"))


@pytest.fixture(scope="module", params=["float32", "float64"])
def product(request):
    matrix = pt.tensor("matrix", shape=(None, None), dtype=request.param)
    vector = pt.tensor("vector", shape=(None,), dtype=request.param)
    function = pytensor.function([matrix, vector], pt.dot(matrix, vector), mode=MODE)
    assert light(function)
    return function, np.dtype(request.param)


def light(function) -> bool:
    ops = [type(node.op) for node in function.maker.fgraph.toposort()]
    return MatrixVectorProduct in ops and Dot not in ops


LAYOUTS = {
    "by rows": lambda m: m.copy(),
    "by columns": lambda m: np.asfortranarray(m),
    "some columns of more": lambda m: np.hstack([m, m])[:, : m.shape[1]],
    "the last columns of more": lambda m: np.hstack([m, m])[:, m.shape[1] :],
    "some rows of more, by columns": lambda m: np.asfortranarray(np.vstack([m, m]))[: len(m)],
    "every second row": lambda m: np.repeat(m, 2, axis=0)[::2],
    "every second column": lambda m: np.repeat(m, 2, axis=1)[:, ::2],
    "rows backwards": lambda m: m[::-1].copy()[::-1],
    "columns backwards": lambda m: m[:, ::-1].copy()[:, ::-1],
    "transposed": lambda m: m.T.copy().T,
    "transposed backwards": lambda m: m.T[::-1].copy()[::-1].T,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(7, 3), (3, 7), (1, 5), (5, 1), (1, 1), (0, 3), (3, 0), (33, 20)]
)
def test_as_numpy_does_it_in_any_layout(product, shape, layout):
    function, dtype = product
    rng = np.random.default_rng(0)
    matrix = LAYOUTS[layout](rng.normal(size=shape).astype(dtype))
    for vector in (rng.normal(size=shape[1]), rng.normal(size=2 * shape[1])[::2]):
        vector = vector.astype(dtype)
        tolerance = 50 * np.finfo(dtype).eps
        np.testing.assert_allclose(function(matrix, vector), matrix @ vector, tolerance, tolerance)


def test_one_row_for_all(product):
    function, dtype = product
    matrix = np.broadcast_to(np.arange(4, dtype=dtype), (6, 4))
    np.testing.assert_allclose(function(matrix, np.ones(4, dtype)), np.full(6, 6.0))


def test_what_does_not_fit_is_an_error(product):
    function, dtype = product
    with pytest.raises(ValueError, match="do not fit"):
        function(np.zeros((4, 3), dtype), np.zeros(5, dtype))


def test_a_vector_times_a_matrix_and_what_is_left_alone():
    matrix, vector, other = pt.dmatrix("m"), pt.dvector("v"), pt.dmatrix("o")
    left = pytensor.function([vector, matrix], pt.dot(vector, matrix), mode=MODE)
    assert light(left)
    rng = np.random.default_rng(0)
    m, v = rng.normal(size=(6, 4)), rng.normal(size=6)
    np.testing.assert_allclose(left(v, m), v @ m)
    both = pytensor.function([matrix, other], pt.dot(matrix, other), mode=MODE)
    assert not light(both)


def test_a_gradient_of_a_linear_predictor_is_light():
    matrix, coefficients = pt.dmatrix("m"), pt.dvector("c")
    loss = pt.softplus(pt.dot(matrix, coefficients)).sum()
    gradient = pytensor.function([matrix, coefficients], pt.grad(loss, coefficients), mode=MODE)
    assert light(gradient)
    rng = np.random.default_rng(0)
    m, c = rng.normal(size=(50, 4)), rng.normal(size=4)
    np.testing.assert_allclose(gradient(m, c), m.T @ (1 / (1 + np.exp(-m @ c))))
