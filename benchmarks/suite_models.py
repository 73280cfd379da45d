"""The models of the suite: regressions, each in PyMC and in NumPyro, and their tables.

A table is a function of its model and its number of rows, so that references can be kept; it begins
with the rows of a smaller one. Counts of groups follow Zipf's law: the k-th is k times as rare as
the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.models import BLOCK_ROWS, PRIOR_SCALE, Arrays

# A block of a wide table has fewer rows: 64 MiB.
BLOCK_NUMBERS = 2**23
# No table is larger: 1.6 GB in float64, which those that have it in memory hold more than once.
MOST_NUMBERS = 200_000_000
FIXED_NOISE = 0.5


@dataclass(frozen=True)
class Prior:
    """Of a positive parameter: half-normal with a scale, or gamma with a shape and a rate."""

    kind: str
    numbers: tuple[float, ...]

    def in_pymc(self, name: str) -> Any:
        import pymc as pm

        kind = {"gamma": pm.Gamma, "half-normal": pm.HalfNormal}[self.kind]
        return kind(name, *self.numbers)

    def in_numpyro(self, name: str) -> Any:
        import numpyro
        from numpyro.distributions import Gamma, HalfNormal

        kind = {"gamma": Gamma, "half-normal": HalfNormal}[self.kind]
        return numpyro.sample(name, kind(*self.numbers))


UNIT = Prior("half-normal", (1.0,))
#: The families of outcomes, with their parameters beside the linear predictor.
FAMILIES: dict[str, dict[str, Prior]] = {
    "linear": {"sigma": UNIT},
    "logistic": {},
    "poisson": {},
    "negative-binomial": {"alpha": Prior("half-normal", (5.0,))},
    "student": {"nu": Prior("gamma", (2.0, 0.1)), "sigma": UNIT},
}


@dataclass(frozen=True)
class Regression:
    """A generalised linear model; it has what `benchmarks.models.Model` has.

    Parameters
    ----------
    title : str
        For tables.
    family : str
        One of `FAMILIES`.
    features : int
        Columns of the design matrix; with an intercept beside them.
    correlation : float, default 0
        Of any two features.
    intercept : float, default -0.5
        With which the table is drawn.
    groups : int, default 0
        With a varying intercept and a varying slope of the first feature, centred.
    fixed_rows : int, default 0
        Of a second table, not streamed, whose outcomes have the same slopes: linear, with a noise
        of its own.
    """

    title: str
    family: str
    features: int
    correlation: float = 0.0
    intercept: float = -0.5
    groups: int = 0
    fixed_rows: int = 0

    @property
    def grouped(self) -> bool:
        return self.groups > 0

    @property
    def columns(self) -> list[str]:
        """Features, the group if there are groups, and the outcome last."""
        return [f"x{i}" for i in range(self.features)] + ["group"] * self.grouped + ["y"]

    @property
    def arrays(self) -> dict[str, str | list[str]]:
        """The columns of each array."""
        features = {"X": self.columns[: self.features]}
        return features | ({"group": "group"} if self.grouped else {}) | {"y": "y"}

    @property
    def positive(self) -> dict[str, Prior]:
        """The parameters that are positive; a fit sees their logarithms."""
        fixed = {"noise": UNIT} if self.fixed_rows else {}
        groups = {"tau": UNIT, "tau_slope": UNIT} if self.grouped else {}
        return FAMILIES[self.family] | fixed | groups

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all parameters, in the order in which a vector has them."""
        shapes: dict[str, tuple[int, ...]] = {"intercept": (), "slopes": (self.features,)}
        if self.grouped:
            shapes |= {"offset": (self.groups,), "group_slope": (self.groups,)}
        return shapes | dict.fromkeys(self.positive, ())

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def most_rows(self, n_rows: int) -> int:
        """So many, or as many as a table may have."""
        return min(n_rows, MOST_NUMBERS // len(self.columns))

    def split(self, batch: Any) -> dict[str, Any]:
        """The arrays of a batch of rows with all columns side by side."""
        code = {"group": batch[:, self.features].astype("int64")} if self.grouped else {}
        return {"X": batch[:, : self.features], **code, "y": batch[:, -1]}

    @cached_property
    def _true(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        frequency = 1.0 / np.arange(1, self.groups + 1)
        return {
            "slopes": rng.normal(size=self.features) / np.sqrt(self.features),
            "offset": 0.5 * rng.normal(size=self.groups),
            "group_slope": 0.3 * rng.normal(size=self.groups),
            "ends": np.cumsum(frequency) / frequency.sum() if self.groups else frequency,
        }

    @cached_property
    def fixed(self) -> tuple[np.ndarray, np.ndarray]:
        """Features and outcomes of the table that is not streamed."""
        rng = np.random.default_rng(2)
        X = rng.standard_normal((self.fixed_rows, self.features))
        return X, rng.normal(X @ self._true["slopes"], FIXED_NOISE)

    def blocks(self, n_rows: int, seed: int = 0) -> Iterator[np.ndarray]:
        """The rows, all columns side by side, in float64 but with the values of float32."""
        size = min(BLOCK_ROWS, BLOCK_NUMBERS // len(self.columns))
        true, shared = self._true, math.sqrt(self.correlation)
        for number, start in enumerate(range(0, n_rows, size)):
            rng = np.random.default_rng([seed, 1, number])
            X = math.sqrt(1 - self.correlation) * rng.standard_normal((size, self.features))
            if shared:
                X += shared * rng.standard_normal((size, 1))
            predictor, codes = self.intercept + X @ true["slopes"], []
            if self.grouped:
                group = np.searchsorted(true["ends"], rng.random(size), side="right")
                group = group.clip(max=self.groups - 1)
                predictor += true["offset"][group] + true["group_slope"][group] * X[:, 0]
                codes = [group]
            rows = np.column_stack([X, *codes, _draw(self.family, rng, predictor)])
            yield rows[: n_rows - start].astype(np.float32).astype(np.float64)

    def in_pymc(self, arrays: Arrays, n_features: int, n_rows: int) -> None:
        """The model on the arrays of a batch, of a table of so many rows."""
        import pymc as pm

        positive = {name: prior.in_pymc(name) for name, prior in self.positive.items()}
        intercept = pm.Normal("intercept", 0.0, PRIOR_SCALE)
        slopes = pm.Normal("slopes", 0.0, PRIOR_SCALE, shape=n_features)
        predictor = intercept + pm.math.dot(arrays["X"], slopes)
        if self.grouped:
            offset = pm.Normal("offset", 0.0, positive["tau"], shape=self.groups)
            slope = pm.Normal("group_slope", 0.0, positive["tau_slope"], shape=self.groups)
            group = arrays["group"]
            predictor += offset[group] + slope[group] * arrays["X"][:, 0]
        _outcome_in_pymc(self.family, predictor, positive, observed=arrays["y"], total_size=n_rows)
        if self.fixed_rows:
            X, y = self.fixed
            pm.Normal("fixed", pm.math.dot(X, slopes), positive["noise"], observed=y)

    def in_numpyro(self, arrays: Arrays, n_rows: int, batch_size: int) -> None:
        """The same."""
        import numpyro
        from numpyro.distributions import Normal

        positive = {name: prior.in_numpyro(name) for name, prior in self.positive.items()}
        intercept = numpyro.sample("intercept", Normal(0.0, PRIOR_SCALE))
        wide = Normal(0.0, PRIOR_SCALE)
        slopes = numpyro.sample("slopes", wide.expand([self.features]).to_event(1))
        predictor = intercept + arrays["X"] @ slopes
        if self.grouped:
            effects = {}
            for name, tau in (("offset", "tau"), ("group_slope", "tau_slope")):
                effect = Normal(0.0, positive[tau]).expand([self.groups]).to_event(1)
                effects[name] = numpyro.sample(name, effect)[arrays["group"]]
            predictor += effects["offset"] + effects["group_slope"] * arrays["X"][:, 0]
        outcome = _outcome_in_numpyro(self.family, predictor, positive)
        with numpyro.plate("rows", batch_size), numpyro.handlers.scale(scale=n_rows / batch_size):
            numpyro.sample("outcome", outcome, obs=arrays["y"])
        if self.fixed_rows:
            X, y = self.fixed
            numpyro.sample("fixed", Normal(X @ slopes, positive["noise"]).to_event(1), obs=y)


def _draw(family: str, rng: np.random.Generator, predictor: np.ndarray) -> np.ndarray:
    match family:
        case "linear":
            return rng.normal(predictor, 0.7)
        case "logistic":
            return rng.random(len(predictor)) < 1 / (1 + np.exp(-predictor))
        case "poisson":
            return rng.poisson(np.exp(predictor))
        case "negative-binomial":
            return rng.negative_binomial(3, 3 / (3 + np.exp(predictor)))
        case _:
            return predictor + 0.6 * rng.standard_t(4, len(predictor))


def _outcome_in_pymc(
    family: str, predictor: Any, positive: Mapping[str, Any], **options: Any
) -> None:
    import pymc as pm

    match family:
        case "linear":
            pm.Normal("outcome", predictor, positive["sigma"], **options)
        case "logistic":
            pm.Bernoulli("outcome", logit_p=predictor, **options)
        case "poisson":
            pm.Poisson("outcome", pm.math.exp(predictor), **options)
        case "negative-binomial":
            rate = pm.math.exp(predictor)
            pm.NegativeBinomial("outcome", mu=rate, alpha=positive["alpha"], **options)
        case _:
            nu, sigma = positive["nu"], positive["sigma"]
            pm.StudentT("outcome", nu=nu, mu=predictor, sigma=sigma, **options)


def _outcome_in_numpyro(family: str, predictor: Any, positive: Mapping[str, Any]) -> Any:
    import jax.numpy as jnp
    from numpyro import distributions

    match family:
        case "linear":
            return distributions.Normal(predictor, positive["sigma"])
        case "logistic":
            return distributions.BernoulliLogits(predictor)
        case "poisson":
            return distributions.Poisson(jnp.exp(predictor))
        case "negative-binomial":
            return distributions.NegativeBinomial2(jnp.exp(predictor), positive["alpha"])
        case _:
            return distributions.StudentT(positive["nu"], predictor, positive["sigma"])


def _groups(number: int) -> Regression:
    title = f"logistic, varying intercepts and slopes, {number:,} groups"
    return Regression(title, "logistic", 3, groups=number)


MODELS = {
    "linear": Regression("linear, unknown sigma, D = 10", "linear", 10),
    "logistic-5": Regression("logistic, D = 5", "logistic", 5),
    "logistic-100": Regression("logistic, D = 100", "logistic", 100),
    "logistic-1000": Regression("logistic, D = 1,000", "logistic", 1_000),
    "correlated": Regression(
        "logistic, D = 100, features correlated by 0.95", "logistic", 100, correlation=0.95
    ),
    "rare": Regression("logistic, D = 14, 1 % positive", "logistic", 14, intercept=-5.1),
    "poisson": Regression("Poisson, D = 10", "poisson", 10),
    "negative-binomial": Regression(
        "negative binomial, unknown alpha, D = 10", "negative-binomial", 10
    ),
    "student": Regression("Student's t, unknown nu and sigma, D = 10", "student", 10),
    "groups-100": _groups(100),
    "groups-1000": _groups(1_000),
    "groups-10000": _groups(10_000),
    "two-likelihoods": Regression(
        "logistic, D = 10, and a linear one on 1,000 fixed rows",
        "logistic",
        10,
        fixed_rows=1_000,
    ),
}
