"""Stochastic steps until converged."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming import DataLoader, Status, Trainer, errors
from pymc_streaming.fits.rounds import steps_of
from tests.models import conjugate_normal, correlated_linear

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}


def trainer_for(known, **options) -> Trainer:
    data = known.data
    loader = DataLoader(data if len(data) > 1 else data["batch"], 500, shuffle=True, seed=0)
    options = {"strategy": "streaming", "random_seed": 0, "progressbar": False} | options
    return Trainer("advi", loader, model=known.build(loader), **options)


def test_it_ends_near_the_posterior() -> None:
    known = correlated_linear()
    trainer = trainer_for(known)
    assert trainer.plan().strategy == "streaming"
    with warnings.catch_warnings():
        warnings.simplefilter("error", errors.StreamingWarning)
        approximation = trainer.fit()
    result = trainer.result
    assert result.status is Status.CONVERGED
    assert result.rows == 500 * trainer.history.step[-1]
    assert 100 <= result.passes < 2_000
    # The first round has nothing to be compared with, so there are two at least.
    assert len(result.trail) >= 2
    assert result.trail[0].step == np.inf
    assert result.trail[-1].step < 0.2
    off = np.abs(approximation.mean.eval() - known.mean) / known.mean_field_sd
    assert off.max() < 0.3
    np.testing.assert_allclose(approximation.std.eval(), known.mean_field_sd, rtol=0.15)


def test_passes_that_are_used_up() -> None:
    trainer = trainer_for(correlated_linear(), compile_kwargs=FAST)
    with pytest.warns(errors.NotConvergedWarning, match="max_passes="):
        trainer.fit(max_passes=2)
    assert trainer.result.status is Status.PASSES_USED_UP
    assert (trainer.result.passes, trainer.result.rows) == (2, 40_000)


def test_ctrl_c_keeps_what_there_is(monkeypatch) -> None:
    trainer = trainer_for(conjugate_normal(), compile_kwargs=FAST)
    prepare = trainer._prepare

    def prepared(batch):
        fit = prepare(batch)
        advance, calls = fit._advance, []

        def interrupted(*arguments):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return advance(*arguments)

        fit._advance = interrupted
        return fit

    monkeypatch.setattr(trainer, "_prepare", prepared)
    approximation = trainer.fit()
    assert trainer.result.status is Status.INTERRUPTED
    assert trainer.result.rows > 0
    assert np.isfinite(approximation.mean.eval()).all()


def test_how_many_steps_it_may_take() -> None:
    small, large = (DataLoader(np.zeros(n), 100) for n in (10_000, 1_000_000))
    assert steps_of(small, None) == 100_000
    assert steps_of(large, None) == 2_000_000
    assert steps_of(small, 3) == 300


def test_laplace_has_no_steps() -> None:
    known = conjugate_normal()
    loader = DataLoader(known.data["batch"], 500)
    trainer = Trainer("laplace", loader, model=known.build(loader), strategy="streaming")
    with pytest.raises(errors.ArgumentError, match="exact passes"):
        trainer.fit()
