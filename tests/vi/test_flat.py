"""Parameters that rows have no say in where a fit is."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest

from pymc_streaming import DataLoader, FindingKind, Status, Trainer
from pymc_streaming.errors import NotConvergedWarning


def threshold_trainer(method: str, scale: float, **options) -> Trainer:
    """A threshold at 2,000 whose probabilities are clipped; the last column is zero."""
    rng = np.random.default_rng(0)
    x = 2_000.0 + 40.0 * rng.normal(size=2_000)
    y = rng.random(2_000) < 1.0 / (1.0 + np.exp(-0.2 * (x - 2_000.0)))
    loader = DataLoader(np.column_stack([x, y, np.zeros(2_000)]), 500)
    with pm.Model() as model:
        threshold = pm.Normal("threshold", 0.0, scale)
        b = pm.Normal("b", 0.0, 1.0)
        batch = pm.Data("batch", loader.placeholder())
        logit = 0.2 * (batch[:, 0] - threshold) + b * batch[:, 2]
        p = pm.math.clip(pm.math.sigmoid(logit), 1e-6, 1.0 - 1e-6)
        pm.Bernoulli("y", p, observed=batch[:, 1], total_size=len(loader))
    return Trainer(method, loader, model=model, random_seed=0, progressbar=False, **options)


@pytest.mark.parametrize("method", ["advi", "laplace"])
def test_a_fit_that_begins_where_the_likelihood_is_flat(method) -> None:
    trainer = threshold_trainer(method, 3_000.0)
    with pytest.warns(NotConvergedWarning, match="exactly flat"):
        trainer.fit()
    assert trainer.result.status is Status.FLAT
    diagnosis = trainer.diagnose()
    assert [finding.kind for finding in diagnosis.findings] == [FindingKind.FLAT]
    assert diagnosis.flat == ("threshold",)
    assert "'threshold'" in diagnosis.findings[0].text


def test_steps_that_begin_there() -> None:
    trainer = threshold_trainer("advi", 300.0, strategy="streaming")
    with pytest.warns(NotConvergedWarning, match="exactly flat"):
        trainer.fit()
    assert trainer.result.status is Status.FLAT


def test_a_column_of_zeros_leaves_the_prior_and_is_right() -> None:
    trainer = threshold_trainer("advi", 3_000.0, init={"threshold": 1_990.0})
    approximation = trainer.fit()
    assert trainer.result.converged
    assert abs(approximation.mean_data["threshold"].item() - 2_000.0) < 5.0
    assert approximation.std_data["b"].item() == pytest.approx(1.0, rel=1e-3)
    diagnosis = trainer.diagnose()
    assert diagnosis.trusted, str(diagnosis)
    assert diagnosis.flat == ()


def test_groups_without_rows_are_not_flat() -> None:
    group = np.repeat([0, 2], 500)
    y = np.random.default_rng(0).normal(size=1_000)
    loader = DataLoader({"group": group, "y": y}, 500)
    zeros = loader.placeholder()
    with pm.Model() as model:
        effect = pm.Normal("effect", 0.0, 1.0, shape=5)
        codes, batch = pm.Data("group", zeros["group"]), pm.Data("y", zeros["y"])
        pm.Normal("likelihood", effect[codes], 1.0, observed=batch, total_size=len(loader))
    trainer = Trainer("advi", loader, model=model, random_seed=0, progressbar=False)
    trainer.fit()
    assert trainer.result.converged
    assert trainer.diagnose().flat == ()


def test_activations_that_only_other_rows_have() -> None:
    """No row of a sample has a slope in the knot, but some of the table do."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0.0, 1.0, 20_000), rng.uniform(3.0, 4.0, 20)])
    y = np.maximum(x - 2.0, 0.0) + 0.1 * rng.normal(size=len(x))
    loader = DataLoader({"x": x, "y": y}, 500)
    zeros = loader.placeholder()
    with pm.Model() as model:
        knot = pm.Normal("knot", 2.2, 0.5)
        x_, y_ = pm.Data("x", zeros["x"]), pm.Data("y", zeros["y"])
        bend = pm.math.maximum(x_ - knot, 0.0)
        pm.Normal("likelihood", bend, 0.1, observed=y_, total_size=len(loader))
    trainer = Trainer("advi", loader, model=model, random_seed=0, progressbar=False)
    approximation = trainer.fit()
    assert trainer.result.status is not Status.FLAT
    assert abs(approximation.mean_data["knot"].item() - 2.0) < 0.1
    assert trainer.diagnose().flat == ()


@pytest.mark.parametrize("method", ["advi", "fullrank_advi"])
def test_a_slope_along_a_difference(method) -> None:
    """Only the difference of two parameters matters; both together lead nowhere."""
    y = np.random.default_rng(0).random(2_000) < 0.5
    loader = DataLoader(y.astype(float), 500)
    with pm.Model() as model:
        skill = pm.Normal("skill", 0.0, 1.0, shape=2)
        batch = pm.Data("batch", loader.placeholder())
        p = pm.math.clip(pm.math.sigmoid(20.0 + skill[0] - skill[1]), 1e-6, 1.0 - 1e-6)
        pm.Bernoulli("y", p, observed=batch, total_size=len(loader))
    trainer = Trainer(method, loader, model=model, random_seed=0, progressbar=False)
    with pytest.warns(NotConvergedWarning, match="exactly flat"):
        trainer.fit()
    assert trainer.diagnose().flat == ("skill[0]", "skill[1]")


def test_what_the_prior_keeps_from_slopes_is_right() -> None:
    y = np.random.default_rng(0).normal(size=1_000)
    loader = DataLoader(y, 500)
    with pm.Model() as model:
        knot = pm.Normal("knot", 0.0, 1.0)
        batch = pm.Data("batch", loader.placeholder())
        mean = pm.math.maximum(knot - 9.0, 0.0)
        pm.Normal("likelihood", mean + 0.0 * batch, 1.0, observed=batch, total_size=len(loader))
    trainer = Trainer("advi", loader, model=model, random_seed=0, progressbar=False)
    approximation = trainer.fit()
    assert trainer.result.converged
    assert approximation.std_data["knot"].item() == pytest.approx(1.0, rel=1e-3)
    assert trainer.diagnose().trusted
