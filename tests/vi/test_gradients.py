"""Parameters that a likelihood depends on by steps alone."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest

from pymc_streaming import DataLoader, Trainer, errors
from pymc_streaming.vi.gradients import check_gradients

X = np.linspace(0.0, 10.0, 50)


def model_of(level) -> tuple[pm.Model, list]:
    with pm.Model() as model:
        place, levels = pm.Uniform("place", 0.0, 10.0), pm.Normal("levels", 0.0, 3.0, shape=2)
        values = pm.Normal("values", level(place, levels), 1.0, observed=X)
    return model, [values]


@pytest.mark.parametrize(
    "level",
    [
        lambda place, levels: pm.math.switch(place < X, levels[1], levels[0]),
        lambda place, levels: levels[0] + levels[1] * (place < X),
        lambda place, levels: levels.sum() * pm.math.floor(place),
        lambda place, levels: levels[(place < X).astype("int64")],
        lambda place, levels: levels.sum() * place.round(),
    ],
)
def test_steps_are_refused(level):
    with pytest.raises(errors.NoGradientError, match="'place' but has no gradient"):
        check_gradients(*model_of(level))


@pytest.mark.parametrize(
    "level",
    [
        lambda place, levels: levels[0] + levels[1] * pm.math.sigmoid(X - place),
        lambda place, levels: pm.math.switch(place < X, levels[1] * (X - place), levels[0]),
        lambda place, levels: levels.sum() * pm.math.maximum(X - place, 0.0),
        lambda place, levels: levels.sum() * abs(place),
        lambda place, levels: levels.sum() + X,  # it does not depend on the place
    ],
)
def test_what_has_a_gradient_is_not(level):
    check_gradients(*model_of(level))


@pytest.mark.parametrize("n", [None, 100])
def test_before_anything_is_compiled(n):
    loader = DataLoader({"x": X, "y": X}, 10)
    zeros = loader.placeholder()
    with pm.Model() as model:
        place = pm.Normal("place", 0.0, 10.0)
        x, y = pm.Data("x", zeros["x"]), pm.Data("y", zeros["y"])
        pm.Normal("values", 2.0 * (x > place), 1.0, observed=y, total_size=len(loader))
    trainer = Trainer("advi", loader, model=model, progressbar=False, on_ordered="ignore")
    with pytest.raises(errors.NoGradientError):
        trainer.fit(n)


def model_with(potential) -> tuple[pm.Model, list]:
    with pm.Model() as model:
        means = pm.Normal("means", 0.0, 3.0, shape=2)
        values = pm.Normal("values", means.sum(), 1.0, observed=X)
        pm.Potential("order", potential(means))
    return model, [values]


@pytest.mark.parametrize(
    "potential",
    [
        lambda means: pm.math.switch(means[0] < means[1], 0.0, -np.inf),
        lambda means: -50.0 * (means[0] > 2.0),
    ],
)
def test_a_potential_of_steps_is_refused(potential):
    with pytest.raises(errors.NoGradientError, match="potential 'order' depends on 'means'"):
        check_gradients(*model_with(potential))


def test_a_potential_with_a_gradient_is_not():
    check_gradients(*model_with(lambda means: -10.0 * pm.math.maximum(means[0] - means[1], 0.0)))
