"""Models that compute something else are told apart, and the same ones are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pymc as pm
import pytest

from pymc_streaming.vi.description import describe_model


def described(build: Callable[[Any, Any, Any, Any], Any], shift: float = 0.0) -> dict[str, str]:
    with pm.Model() as model:
        x = pm.Data("x", np.zeros((10, 2)))
        a, b = pm.Normal("a"), pm.Normal("b")
        s, u = pm.HalfNormal("s"), pm.HalfNormal("u")
        mean, sd = build(x, (a, b), s, u)
        pm.Normal("y", mean + shift, sd, observed=x[:, 0], total_size=100)
    return describe_model(model, [x])


MODELS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "as it is": lambda x, c, s, u: (c[0] * x[:, 0] + c[1] * x[:, 1], s),
    "columns changed over": lambda x, c, s, u: (c[1] * x[:, 0] + c[0] * x[:, 1], s),
    "another sd": lambda x, c, s, u: (c[0] * x[:, 0] + c[1] * x[:, 1], u),
    "less": lambda x, c, s, u: (c[0] - c[1] * x[:, 1], s),
    "less the other way": lambda x, c, s, u: (c[1] * x[:, 1] - c[0], s),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_the_same_model_is_described_the_same(build) -> None:
    assert described(build) == described(build)


def test_all_are_different() -> None:
    words = [described(build)["y"] for build in MODELS.values()]
    assert len(set(words)) == len(MODELS)


def test_the_last_digit_of_a_number_counts() -> None:
    build = MODELS["as it is"]
    assert described(build, 1.0)["y"] != described(build, 1.0 + 2**-50)["y"]
