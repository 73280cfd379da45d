from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymc_streaming.diagnosis.curvature import inverse, least_shrinkage, with_diagonal


def random_curvature(seed: int, size: int = 6) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(size, size))
    return factor @ factor.T + 0.1 * np.eye(size)


@given(st.integers(0, 1_000))
def test_another_diagonal_keeps_the_correlations(seed) -> None:
    matrix = random_curvature(seed)
    wanted = np.random.default_rng(seed).uniform(0.1, 10.0, size=6)
    found = with_diagonal(matrix, wanted)
    np.testing.assert_allclose(np.diag(found), wanted)
    for each in (matrix, found):
        sd = np.sqrt(np.diag(each))
        each /= np.outer(sd, sd)
    np.testing.assert_allclose(found, matrix, atol=1e-12)


def test_a_diagonal_that_is_not_positive_changes_nothing() -> None:
    matrix = np.array([[2.0, 1.0], [1.0, -1.0]])
    np.testing.assert_allclose(with_diagonal(matrix, np.array([8.0, 3.0])), [[8, 2], [2, -1]])


def test_there_is_no_inverse_without_a_maximum() -> None:
    assert inverse(np.array([[1.0, 2.0], [2.0, 1.0]])) is None
    assert inverse(np.array([[1.0, np.nan], [np.nan, 1.0]])) is None
    np.testing.assert_allclose(inverse(np.diag([2.0, 4.0])), np.diag([0.5, 0.25]))


@given(st.integers(0, 50))
def test_the_bound_of_shrinkage_is_one(seed) -> None:
    matrix = random_curvature(seed, size=40)
    exact = np.sqrt(np.diag(np.linalg.inv(matrix)) * np.diag(matrix))
    found = least_shrinkage(matrix.dot, np.diag(matrix), np.random.default_rng(0))
    assert (found <= exact * 1.02).all()


def test_one_direction_of_shrinkage_is_found() -> None:
    """An intercept and 300 effects that it can be exchanged for."""
    effects = 300
    rows = np.random.default_rng(0).integers(5, 20, size=effects).astype(float)
    matrix = np.diag(np.append(rows + 1.0, rows.sum()))
    matrix[-1, :-1] = matrix[:-1, -1] = rows
    exact = np.sqrt(np.diag(np.linalg.inv(matrix)) * np.diag(matrix))
    found = least_shrinkage(matrix.dot, np.diag(matrix), np.random.default_rng(0))
    assert np.argmax(found) == effects
    assert found[-1] == pytest.approx(exact[-1], rel=0.15)
    assert exact[-1] > 2.5


def test_no_bound_without_a_maximum() -> None:
    matrix = np.ones((30, 30)) * 2.0 - np.eye(30)
    assert least_shrinkage(matrix.dot, np.ones(30), np.random.default_rng(0)) is None
    assert least_shrinkage(matrix.dot, -np.ones(30), np.random.default_rng(0)) is None
