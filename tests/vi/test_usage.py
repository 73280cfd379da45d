from __future__ import annotations

import numpy as np
import pymc as pm

from pymc_streaming.vi.usage import unread_columns

RNG = np.random.default_rng(0)
BATCH = {"X": RNG.normal(size=(50, 4)), "group": np.arange(50) % 3}


def model_of(write) -> pm.Model:
    with pm.Model() as model:
        X = pm.Data("X", np.zeros((50, 4)))
        group = pm.Data("group", np.zeros(50, np.int64))
        write(X, group)
    return model


def regression(X, group):
    b = pm.Normal("b", 0.0, 1.0, shape=2)
    effect = pm.Normal("effect", 0.0, 1.0, shape=3)
    pm.Normal("y", X[:, :2] @ b + effect[group], 1.0, observed=X[:, 3], total_size=1_000)


def test_columns_that_no_likelihood_depends_on():
    assert unread_columns(model_of(regression), None, BATCH) == {("X", 2)}


def test_of_a_column_of_one_value_nothing_is_claimed():
    batch = {"X": BATCH["X"].copy(), "group": BATCH["group"]}
    batch["X"][:, 2] = 7.0
    assert unread_columns(model_of(regression), None, batch) == set()


def test_of_a_model_that_cannot_be_evaluated_nothing_is_claimed():
    assert unread_columns(model_of(regression), {"X": "no"}, BATCH) == set()
