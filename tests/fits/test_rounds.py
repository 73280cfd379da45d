"""Stochastic steps until converged."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming import DataLoader, Status, Trainer, errors
from pymc_streaming.fits import rounds
from pymc_streaming.fits.result import FitResult
from pymc_streaming.fits.rounds import steps_of
from pymc_streaming.vi.status import Moved
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
    table = trainer.dataloader.total_size
    checked = result.rows - 500 * trainer.history.step[-1]
    assert checked > 0
    assert checked % (2 * table) == 0  # a pass, and its sample
    assert 100 <= result.passes < 2_000
    # The first round has nothing to be compared with, so there are two at least.
    assert len(result.trail) >= 2
    assert result.trail[0].step == np.inf
    assert result.trail[-1].step < 0.2
    off = np.abs(approximation.mean.eval() - known.mean) / known.mean_field_sd
    assert off.max() < 0.1
    np.testing.assert_allclose(approximation.std.eval(), known.mean_field_sd, rtol=0.05)


def trainer_of_groups(**options) -> Trainer:
    """Between the mean of all groups and all of their effects the way to the optimum is flat."""
    random, n_rows, n_groups = np.random.default_rng(0), 20_000, 50
    group = random.integers(0, n_groups, n_rows)
    effect = 0.7 * random.normal(size=n_groups)
    y = effect[group] - 2.0 + random.normal(size=n_rows)
    loader = DataLoader({"group": group, "y": y}, 500, shuffle=True, seed=0)
    zeros = loader.placeholder()
    with pm.Model() as model:
        mean, effects = pm.Normal("mean", 0.0, 5.0), pm.Normal("effect", 0.0, 0.7, shape=n_groups)
        of, value = pm.Data("group", zeros["group"]), pm.Data("y", zeros["y"])
        pm.Normal("values", mean + effects[of], 1.0, observed=value, total_size=n_rows)
    options = {"strategy": "streaming", "random_seed": 0, "progressbar": False} | options
    return Trainer("advi", loader, model=model, **options)


def test_where_averages_rest_is_checked_by_a_pass(monkeypatch) -> None:
    """Rounds that are far too easily content are sent on until they are right, or say it."""
    right = trainer_of_groups(strategy="auto").fit()
    monkeypatch.setattr(rounds, "_FIRST_STEPS", 600)
    monkeypatch.setattr(rounds, "_FIRST_PASSES", 3)
    moved = rounds._moved
    monkeypatch.setattr(
        rounds, "_moved", lambda *arguments: replace(moved(*arguments), step=0.1, log_scale=0.01)
    )
    trainer = trainer_of_groups()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.NotConvergedWarning)
        approximation = trainer.fit()
    trail = trainer.result.trail
    assert [each.step for each in trail[::2]] == [0.1] * (len(trail) // 2)
    assert trail[1].step > 0.2
    assert trainer.result.converged == (trail[-1].step < 0.2)
    off = np.abs(approximation.mean.eval() - right.mean.eval()) / right.std.eval()
    assert (off.max() < 0.25) == trainer.result.converged


def test_an_optimum_that_steps_do_not_stay_at(monkeypatch) -> None:
    trainer = trainer_for(conjugate_normal(), compile_kwargs=FAST)
    there = FitResult(Status.PASSES_USED_UP, 1, 100, 1.0, (Moved(1, 0.3, 0.0, True),))
    monkeypatch.setattr(trainer._fits, "_check_by_a_pass", lambda: there)
    with pytest.warns(errors.NotConvergedWarning, match="exact passes"):
        trainer.fit()
    assert trainer.result.status is Status.UNCONFIRMED
    assert [each.step for each in trainer.result.trail].count(0.3) == 2


def test_a_model_of_one_number_of_rows_is_not_checked(caplog) -> None:
    y = np.random.default_rng(0).normal(3.0, 1.0, size=5_000)
    loader = DataLoader(y, 500, shuffle=True, seed=0)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 10.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Normal("y", mu + np.zeros(500), 1.0, observed=batch, total_size=len(loader))
    options = {"strategy": "streaming", "compile_kwargs": FAST, "progressbar": False}
    trainer = Trainer("advi", loader, model=model, random_seed=0, **options)
    with pytest.warns(errors.BatchSizedShapeWarning):
        approximation = trainer.fit()
    assert trainer.result.converged
    assert abs(approximation.mean.eval()[0] - y.mean()) < 0.3 / np.sqrt(5_000)
    assert "No exact pass checks" in caplog.text


def test_passes_that_are_used_up() -> None:
    trainer = trainer_for(correlated_linear(), compile_kwargs=FAST)
    with pytest.warns(errors.NotConvergedWarning, match="max_passes="):
        trainer.fit(max_passes=2)
    assert trainer.result.status is Status.STEPS_USED_UP
    assert (trainer.result.passes, trainer.result.rows) == (2, 40_000)


def test_ctrl_c_keeps_what_there_is(monkeypatch) -> None:
    trainer = trainer_for(conjugate_normal(), compile_kwargs=FAST)
    prepare = trainer._fits.prepare_steps

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

    monkeypatch.setattr(trainer._fits, "prepare_steps", prepared)
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


@pytest.mark.filterwarnings("ignore::pymc_streaming.errors.OrderedDataWarning")
def test_rows_in_an_order_are_named_first() -> None:
    y = np.sort(np.random.default_rng(0).normal(3.0, 1.0, size=20_000))
    loader = DataLoader(y, 100)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 10.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Normal("y", mu, 1.0, observed=batch, total_size=len(loader))
    options = {"strategy": "streaming", "compile_kwargs": FAST, "progressbar": False}
    trainer = Trainer("advi", loader, model=model, random_seed=0, **options)
    with pytest.warns(errors.NotConvergedWarning, match="^The order of the rows"):
        trainer.fit(max_passes=5)
