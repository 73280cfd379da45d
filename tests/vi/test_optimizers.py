from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytensor.compile.mode import Mode

from pymc_streaming.errors import ArgumentError
from pymc_streaming.vi.kernels import adam
from pymc_streaming.vi.optimizers import (
    AnnealedAdam,
    PymcUpdate,
    averaging_start,
    averaging_weights,
)


def test_the_rate_falls_and_stays_low():
    rates = AnnealedAdam(0.1).rates(0, 1000, 1000)
    assert rates[0] == 0.1
    assert np.all(np.diff(rates[:701]) < 0)
    np.testing.assert_allclose(rates[700:], 0.001)
    assert rates.sum() == pytest.approx(0.1 * 1000 / 3, rel=0.1)
    np.testing.assert_array_equal(AnnealedAdam(0.1).rates(300, 800, 1000), rates[300:800])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_that_cannot_be_meant(rate):
    with pytest.raises(ArgumentError, match="positive"):
        AnnealedAdam(rate)


@given(
    n=st.integers(1, 5_000),
    epoch=st.floats(0.5, 3_000),
    cut=st.integers(0, 5_000),
)
def test_the_weights_average_the_last_iterates(n, epoch, cut):
    start = averaging_start(n, epoch)
    assert 0 <= start < n
    iterates = np.random.default_rng(0).normal(size=n)
    cut = min(cut, n)
    weights = np.concatenate([averaging_weights(0, cut, start), averaging_weights(cut, n, start)])
    average = 0.0
    for weight, iterate in zip(weights, iterates, strict=True):
        average += weight * (iterate - average)
    assert average == pytest.approx(iterates[start:].mean(), abs=1e-9)


def test_the_average_covers_whole_epochs():
    assert (20_000 - averaging_start(20_000, 244.14)) / 244.14 == pytest.approx(24, abs=0.01)


def test_adam_is_that_of_pymc():
    rng = np.random.default_rng(0)
    own, theirs, moments = np.ones(3), np.ones(3), np.zeros((2, 3))
    update = PymcUpdate(
        pm.adam(learning_rate=0.03), 3, {"mode": Mode(linker="py", optimizer="fast_compile")}
    )
    for count in range(1, 20):
        gradient = rng.normal(size=3) * [1e-3, 1.0, 1e3]
        adam(own, gradient, moments, 0.03, count)
        update(theirs, gradient, moments, 0.0, count)
        np.testing.assert_allclose(own, theirs, rtol=1e-12)
