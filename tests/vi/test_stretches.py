"""Errors of averages, against runs whose error is known."""

from __future__ import annotations

import numpy as np
import pytest

from pymc_streaming.vi.stretches import Stretches


def after(iterates: np.ndarray, average_from: int = 400) -> Stretches:
    """Of a run with one parameter, whose log scale is the same as its mean."""
    stretches, n = Stretches(), len(iterates)
    stretches.begin(n, average_from)
    while (done := stretches.next_end) <= n:
        averaged = iterates[average_from:done]
        average = averaged.mean(keepdims=True) if len(averaged) else iterates[:1]
        stretches.update(done, average, average)
    return stretches


def test_errors_of_independent_noise() -> None:
    random = np.random.default_rng(0)
    runs = [after(random.normal(size=2_000)) for _ in range(200)]
    errors = np.array([run.errors() for run in runs])
    assert errors.shape == (200, 2)
    assert np.sqrt((errors**2).mean()) == pytest.approx(1 / np.sqrt(1_600), rel=0.1)
    assert np.median([run.r_hats() for run in runs]) < 1.2
    # A difference of two halves has twice the error of the whole.
    drifts = np.array([run.drifts() for run in runs])
    assert np.sqrt((drifts**2).mean()) == pytest.approx(2 / np.sqrt(1_600), rel=0.15)


def test_a_run_that_still_goes_somewhere() -> None:
    stretches = after(np.linspace(0.0, 1.0, 2_000))
    np.testing.assert_allclose(stretches.drifts(), 0.4, atol=0.01)
    assert (stretches.r_hats() > 2.0).all()
    np.testing.assert_allclose(stretches.uncertainties(), 0.2, atol=0.01)


def test_a_run_that_is_too_short_to_tell() -> None:
    stretches = after(np.zeros(3), average_from=0)
    assert np.isinf(stretches.uncertainties()).all()
