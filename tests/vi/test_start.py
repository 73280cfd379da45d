"""The posterior of a sample, and the modes it has."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming import DataLoader
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import MeanFieldGuide
from pymc_streaming.vi.modes import starts_around
from pymc_streaming.vi.passes import NotFinite, Sample
from pymc_streaming.vi.start import modes_of, sample_size, start_from
from pymc_streaming.vi.terms import Terms
from tests.models import correlated_linear, logistic

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}
N = 2_000


def terms_of(model: pm.Model, data: dict[str, np.ndarray]) -> tuple[Terms, MeanFieldGuide]:
    batch = {name: array[:500] for name, array in data.items()}
    n_rows = len(next(iter(data.values())))
    guide = MeanFieldGuide(model, 0)
    binding = Binding(model, None, batch)
    return Terms(binding, model.observed_RVs, guide, batch, n_rows, FAST), guide


def squared(location: float = 1.0) -> tuple[Terms, MeanFieldGuide, Sample]:
    """The sign of the parameter is not known from the data."""
    data = {"y": np.random.default_rng(0).normal(location, 1.0, N)}
    with pm.Model() as model:
        y = pm.Data("y", data["y"][:500])
        pm.Normal("likelihood", pm.Normal("a", 0, 1) ** 2, 1.0, observed=y, total_size=N)
    return *terms_of(model, data), Sample(data)


@pytest.mark.parametrize("seed", range(5))
def test_two_modes_are_told_apart(seed) -> None:
    terms, guide, sample = squared()
    random = np.random.default_rng(seed)
    starts = [np.array([0.3]), np.array([-1.7]), np.array([1.9])]
    start = start_from(terms, guide, sample, starts, random)
    assert start.n_modes == 2
    assert abs(start.q.location[0]) == pytest.approx(1.0, abs=0.1)


def test_a_mode_that_is_much_lower_does_not_count() -> None:
    data = {"y": np.random.default_rng(0).normal(1.0, 1.0, N)}
    with pm.Model() as model:
        y = pm.Data("y", data["y"][:500])
        mean = pm.Normal("a", 0, 1)
        # Of a cubic, the other root of the slope.
        pm.Normal("likelihood", mean**3 - 3 * mean, 1.0, observed=y, total_size=N)
    terms, guide = terms_of(model, data)
    starts = [np.array([0.8]), np.array([2.5])]
    start = start_from(terms, guide, Sample(data), starts, np.random.default_rng(0))
    root = start.q.location[0]
    assert root**3 - 3 * root == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("build", [correlated_linear, logistic])
def test_one_mode_is_one(build) -> None:
    known = build(5_000)
    data = known.data
    model = known.build(DataLoader(data if len(data) > 1 else data["batch"], 500))
    terms, guide = terms_of(model, data)
    random = np.random.default_rng(0)
    starts = starts_around(guide.location, guide.initial, random)
    start = start_from(terms, guide, Sample(data), starts, random)
    assert start.n_modes == 1
    np.testing.assert_allclose(start.q.location, known.mean, atol=0.5 * known.mean_field_sd.max())
    # For ten times the rows it is narrower.
    narrow = start.of_table(Sample(data), 50_000)
    np.testing.assert_allclose(narrow.scale, known.mean_field_sd / np.sqrt(10), rtol=0.1)


def test_starts_are_on_both_sides() -> None:
    random, initial = np.random.default_rng(0), np.array([1.0, -1.0, 0.0])
    location = initial + 0.5
    first, mirrored, *others = starts_around(location, initial, random)
    np.testing.assert_array_equal(first, location)
    np.testing.assert_array_equal(mirrored, -location)
    np.testing.assert_allclose(np.mean(others, axis=0), initial)
    assert len(others) == 4
    assert len(starts_around(np.zeros(3), initial, random)) == 5
    many = np.zeros(101)
    assert len(starts_around(many, many, random)) == 1


def test_starts_without_derivatives_are_left_out() -> None:
    terms, guide, sample = squared()
    start = start_from(
        terms, guide, sample, [np.array([0.3]), np.array([1e200])], np.random.default_rng(0)
    )
    assert start.n_modes == 1
    with pytest.raises(NotFinite):
        start_from(terms, guide, sample, [np.array([1e200])], np.random.default_rng(0))
    family = start.family
    assert modes_of(family, sample, [np.array([1e200]), np.array([0.3])]).others == ()


def test_sample_sizes() -> None:
    assert sample_size(100, 5, 8) == 100
    assert sample_size(64 * 10**6, 5, 8) == pytest.approx(1_200_000, abs=1)
    assert sample_size(8 * 10**9, 5, 8) == 64 * 2**20 // 8
    assert sample_size(10**9, 5, 100_000) == 2_000  # rows of a hundred kilobytes
    assert sample_size(10**7, 20, 8_000) == 64 * 2**20 // 8_000
    assert sample_size(10**6, 1_000, 8_000) == 30_000  # thirty for each parameter
    assert sample_size(10**7, 2_000, 16_000) == pytest.approx(2**28 / 16_000, abs=1)
