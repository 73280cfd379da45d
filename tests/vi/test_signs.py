from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymc_streaming.vi.signs import sign_patterns, with_lengths


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_colours_are_orthogonal_and_no_pattern_is_of_other_numbers(colours, seed) -> None:
    _, colours = np.unique(colours, return_inverse=True)
    signs = sign_patterns(colours, np.random.default_rng(seed))
    products = signs.patterns.T @ signs.patterns
    different = colours[:, None] != colours
    assert np.abs(products[different]).sum() == 0
    assert set(np.unique(signs.patterns)) <= {-1.0, 1.0}
    assert signs.n_colours == colours.max() + 1 <= len(signs.patterns) < 2 * signs.n_colours


def test_the_average_of_a_cubic_is_its_expectation() -> None:
    rng = np.random.default_rng(0)
    signs = sign_patterns(np.arange(3), rng)
    location, scale = np.array([0.3, -1.0, 2.0]), np.array([0.5, 0.2, 1.5])
    x, y, z = signs.around(location, scale).T
    assert np.mean(x * y * z) == pytest.approx(location.prod())
    assert np.mean(x**3) == pytest.approx(location[0] ** 3 + 3 * location[0] * scale[0] ** 2)
    assert np.mean(y * z**2) == pytest.approx(location[1] * (location[2] ** 2 + scale[2] ** 2))


def test_of_very_many_colours_the_patterns_are_random_and_few() -> None:
    signs = sign_patterns(np.arange(3_000), np.random.default_rng(0))
    assert signs.patterns.shape == (2048, 3_000)
    products = signs.patterns[:, :50].T @ signs.patterns[:, :50] / 2048
    assert np.abs(products - np.eye(50)).max() < 5 / np.sqrt(2048)


@given(st.integers(3, 9), st.integers(0, 2**32 - 1))
def test_lengths_keep_columns_orthogonal_and_have_the_moments_of_a_normal(size, seed) -> None:
    random = np.random.default_rng(seed)
    signs = with_lengths(sign_patterns(np.arange(size), random), random, 2**17)
    patterns, n = signs.patterns, len(signs.patterns)
    np.testing.assert_allclose(patterns.T @ patterns, n * np.eye(size), atol=1e-9 * n)
    np.testing.assert_allclose((patterns**4).mean(axis=0), 3.0)
    # What is looked at together has all four lengths.
    together = patterns.reshape(-1, signs.together, size)
    np.testing.assert_allclose((together**2).mean(axis=1), 1.0)
    # Two parameters are long together as often as if that were independent.
    squares = patterns**2
    expected = np.where(np.eye(size) == 1.0, 3.0, 1.0)
    np.testing.assert_allclose(squares.T @ squares / n, expected)


@given(st.floats(0.0, 1.0), st.integers(0, 2**32 - 1), st.sampled_from([64, 128, 256]))
def test_many_lengths_have_the_moments_of_independent_normals(part, seed, count) -> None:
    size = max(1, round(part * count / 4))
    random = np.random.default_rng(seed)
    plain = sign_patterns(np.arange(size), random)
    n_rows = 2**24 // (count * len(plain.patterns))
    signs = with_lengths(plain, random, n_rows)
    assert len(signs.patterns) == count * len(plain.patterns)
    patterns, n = signs.patterns, len(signs.patterns)
    assert signs.together == n
    squares = patterns**2
    np.testing.assert_allclose(patterns.T @ patterns, n * np.eye(size), atol=1e-6 * n)
    expected = np.where(np.eye(size) == 1.0, 3.0, 1.0)
    np.testing.assert_allclose(squares.T @ squares / n, expected, atol=2e-3)
    # And nearly those of exponentials: four lengths are off by 6 % and 16 %.
    for scale, most in ((1.6, 0.04), (2.0, 0.11)):
        most *= np.sqrt(256 / count)
        found = np.cosh(scale * patterns).mean(axis=0)
        np.testing.assert_allclose(found, np.exp(0.5 * scale**2), rtol=most)


def test_how_many_lengths_there_are_depends_on_the_rows() -> None:
    random = np.random.default_rng(0)
    signs = sign_patterns(np.arange(16), random)
    rows = 100, 2**12, 2**13, 2**14, 2**14 + 1, 2**17, 2**17 + 1
    assert [len(with_lengths(signs, random, n).patterns) for n in rows] == [
        16 * 256, 16 * 256, 16 * 128, 16 * 64, 16 * 4 * 64, 16 * 4 * 64, 16,
    ]  # fmt: skip
