"""The models that speed is measured on, in PyMC and in NumPyro, and their tables.

Every table is drawn from its own model with a fixed seed, a block after the other, so that a table
of more rows begins with the rows of a smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BLOCK_ROWS = 65_536
GROUPS = 1_000
PRIOR_SCALE = 1.5

#: The arrays of a model by name: X and y, and with groups the group of each row.
Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """A model, and how its rows are drawn.

    `outcome` has a generator and the linear predictor, and returns outcomes. `in_pymc` has the
    arrays of a batch, the number of features and the rows of the table; `in_numpyro` the arrays,
    the rows of the table and those of a batch.
    """

    title: str
    features: int
    outcome: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    in_pymc: Callable[[Arrays, int, int], None]
    in_numpyro: Callable[[Arrays, int, int], None]
    grouped: bool = False
    intercept: float = 0.0

    @property
    def columns(self) -> list[str]:
        """Features, the group if there are groups, and the outcome last."""
        return [f"x{i}" for i in range(self.features)] + ["group"] * self.grouped + ["y"]

    @property
    def arrays(self) -> dict[str, str | list[str]]:
        """The columns of each array."""
        features = {"X": self.columns[: self.features]}
        return features | ({"group": "group"} if self.grouped else {}) | {"y": "y"}

    def split(self, batch: Any) -> dict[str, Any]:
        """The arrays of a batch of rows with all columns side by side."""
        code = {"group": batch[:, self.features].astype("int64")} if self.grouped else {}
        return {"X": batch[:, : self.features], **code, "y": batch[:, -1]}

    def blocks(self, n_rows: int, seed: int) -> Iterator[np.ndarray]:
        """The rows in float64, all columns side by side."""
        fixed = np.random.default_rng([seed, 0])
        slopes = fixed.normal(size=self.features) / np.sqrt(self.features)
        offsets = 0.5 * fixed.normal(size=GROUPS)
        for number, start in enumerate(range(0, n_rows, BLOCK_ROWS)):
            rng = np.random.default_rng([seed, 1, number])
            X = rng.standard_normal((BLOCK_ROWS, self.features))
            group = rng.integers(GROUPS, size=BLOCK_ROWS) if self.grouped else None
            predictor = self.intercept + X @ slopes
            if group is not None:
                predictor += offsets[group]
            codes = [group] if group is not None else []
            rows = np.column_stack([X, *codes, self.outcome(rng, predictor)])
            yield rows[: n_rows - start]


def write_table(model: Model, path: Path, n_rows: int, seed: int) -> None:
    """One Parquet file of float32, group codes in int32."""
    types = {"group": pa.int32()}
    schema = pa.schema([(name, types.get(name, pa.float32())) for name in model.columns])
    with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False) as writer:
        for rows in model.blocks(n_rows, seed):
            columns = [
                pa.array(rows[:, i].astype(field.type.to_pandas_dtype()))
                for i, field in enumerate(schema)
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _clicks(rng: np.random.Generator, predictor: np.ndarray) -> np.ndarray:
    return rng.random(len(predictor)) < 1 / (1 + np.exp(-predictor))


def _measured(rng: np.random.Generator, predictor: np.ndarray) -> np.ndarray:
    return rng.normal(predictor, 0.7)


def _counts(rng: np.random.Generator, predictor: np.ndarray) -> np.ndarray:
    return rng.poisson(np.exp(predictor))


def _linear_predictor(arrays: Arrays, n_features: int) -> Any:
    import pymc as pm

    intercept = pm.Normal("intercept", 0.0, PRIOR_SCALE)
    slopes = pm.Normal("slopes", 0.0, PRIOR_SCALE, shape=n_features)
    return intercept + pm.math.dot(arrays["X"], slopes)


def _pymc_logistic(arrays: Arrays, n_features: int, n_rows: int) -> None:
    import pymc as pm

    pm.Bernoulli(
        "outcome",
        logit_p=_linear_predictor(arrays, n_features),
        observed=arrays["y"],
        total_size=n_rows,
    )


def _pymc_linear(arrays: Arrays, n_features: int, n_rows: int) -> None:
    import pymc as pm

    sigma = pm.HalfNormal("sigma", 1.0)
    pm.Normal(
        "outcome",
        _linear_predictor(arrays, n_features),
        sigma,
        observed=arrays["y"],
        total_size=n_rows,
    )


def _pymc_poisson(arrays: Arrays, n_features: int, n_rows: int) -> None:
    import pymc as pm

    rate = pm.math.exp(_linear_predictor(arrays, n_features))
    pm.Poisson("outcome", rate, observed=arrays["y"], total_size=n_rows)


def _pymc_groups(arrays: Arrays, n_features: int, n_rows: int) -> None:
    import pymc as pm

    tau, sigma = pm.HalfNormal("tau", 1.0), pm.HalfNormal("sigma", 1.0)
    offset = pm.Normal("offset", 0.0, tau, shape=GROUPS)
    mean = _linear_predictor(arrays, n_features) + offset[arrays["group"]]
    pm.Normal("outcome", mean, sigma, observed=arrays["y"], total_size=n_rows)


def _numpyro_predictor(arrays: Arrays) -> Any:
    import numpyro
    from numpyro.distributions import Normal

    intercept = numpyro.sample("intercept", Normal(0.0, PRIOR_SCALE))
    n_features = arrays["X"].shape[1]
    slopes = numpyro.sample("slopes", Normal(0.0, PRIOR_SCALE).expand([n_features]).to_event(1))
    return intercept + arrays["X"] @ slopes


def _numpyro_outcome(distribution: Any, arrays: Arrays, n_rows: int, batch_size: int) -> None:
    import numpyro

    with numpyro.plate("rows", batch_size), numpyro.handlers.scale(scale=n_rows / batch_size):
        numpyro.sample("outcome", distribution, obs=arrays["y"])


def _numpyro_logistic(arrays: Arrays, n_rows: int, batch_size: int) -> None:
    from numpyro.distributions import BernoulliLogits

    outcome = BernoulliLogits(_numpyro_predictor(arrays))
    _numpyro_outcome(outcome, arrays, n_rows, batch_size)


def _numpyro_linear(arrays: Arrays, n_rows: int, batch_size: int) -> None:
    import numpyro
    from numpyro.distributions import HalfNormal, Normal

    sigma = numpyro.sample("sigma", HalfNormal(1.0))
    _numpyro_outcome(Normal(_numpyro_predictor(arrays), sigma), arrays, n_rows, batch_size)


def _numpyro_poisson(arrays: Arrays, n_rows: int, batch_size: int) -> None:
    import jax.numpy as jnp
    from numpyro.distributions import Poisson

    outcome = Poisson(jnp.exp(_numpyro_predictor(arrays)))
    _numpyro_outcome(outcome, arrays, n_rows, batch_size)


def _numpyro_groups(arrays: Arrays, n_rows: int, batch_size: int) -> None:
    import numpyro
    from numpyro.distributions import HalfNormal, Normal

    tau = numpyro.sample("tau", HalfNormal(1.0))
    sigma = numpyro.sample("sigma", HalfNormal(1.0))
    offset = numpyro.sample("offset", Normal(0.0, tau).expand([GROUPS]).to_event(1))
    mean = _numpyro_predictor(arrays) + offset[arrays["group"]]
    _numpyro_outcome(Normal(mean, sigma), arrays, n_rows, batch_size)


MODELS = {
    "logistic": Model(
        "logistic, 14 columns", 13, _clicks, _pymc_logistic, _numpyro_logistic, intercept=-2.0
    ),
    "linear": Model("linear, unknown sigma", 13, _measured, _pymc_linear, _numpyro_linear),
    "poisson": Model("Poisson", 13, _counts, _pymc_poisson, _numpyro_poisson),
    "groups": Model(
        "varying intercepts, 1,000 groups", 12, _measured, _pymc_groups, _numpyro_groups, True
    ),
    "wide": Model(
        "logistic, 200 columns", 199, _clicks, _pymc_logistic, _numpyro_logistic, intercept=-2.0
    ),
}
