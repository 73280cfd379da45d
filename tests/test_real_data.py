"""Real tables, beside the project; skipped where they are absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks import flights
from pymc_streaming import DataLoader, Trainer, errors, parquet_source

DATA = Path(__file__).parents[2] / "shared" / "data"
CRITEO = DATA / "criteo-8k.parquet"
FLIGHTS = DATA / "flights-3m.parquet"
FEATURES = [f"int_{i}" for i in range(1, 14)]

needs_criteo = pytest.mark.skipif(
    not CRITEO.exists(), reason=f"no {CRITEO.name} beside the project"
)


needs_flights = pytest.mark.skipif(
    not FLIGHTS.exists(), reason=f"no {FLIGHTS.name} beside the project"
)


@needs_criteo
def test_nulls_are_refused_by_name():
    with pytest.raises(errors.MissingValueError, match=r"criteo-8k.*row group 0.*'int_1'"):
        parquet_source(CRITEO, columns=[*FEATURES, "label"])


def prepare(block: dict[str, np.ndarray]) -> np.ndarray:
    """Missing indicator and log1p for each feature that has nulls, scaled, and the label."""
    columns = []
    for name in FEATURES:
        value = block[name]
        missing = np.isnan(value)
        columns.append(np.log1p(np.maximum(np.where(missing, 0.0, value), 0.0)) / 4)
        columns.append(missing)
    return np.column_stack([*columns, block["label"]])


@needs_criteo
def test_with_a_transform_it_agrees_with_scikit_learn():
    source = parquet_source(CRITEO, columns=[*FEATURES, "label"], transform=prepare)
    loader = DataLoader(source, batch_size=512, shuffle=True, seed=0)
    (width,) = loader.layout["batch"].row_shape
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 1.0, shape=width)
        batch = pm.Data("batch", loader.placeholder())
        logit = b[0] + pm.math.dot(batch[:, :-1], b[1:])
        pm.Bernoulli("label", logit_p=logit, observed=batch[:, -1], total_size=len(loader))
    approximation = Trainer(
        "fullrank_advi", loader, model=model, random_seed=0, progressbar=False
    ).fit(15_000)
    frame = pd.read_parquet(CRITEO)
    rows = prepare({name: frame[name].to_numpy(dtype=float) for name in [*FEATURES, "label"]})
    # The intercept has the same prior as the rest: a column of ones, and none of scikit-learn's.
    X = np.column_stack([np.ones(len(rows)), rows[:, :-1]])
    reference = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    reference.fit(X, rows[:, -1])
    p = reference.predict_proba(X)[:, 1]
    precision = (X * (p * (1 - p))[:, None]).T @ X + np.eye(width)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    error = (approximation.mean.eval() - reference.coef_[0]) / sd
    assert np.abs(error).max() < 0.35
    probability = 1 / (1 + np.exp(-X @ approximation.mean.eval()))
    assert np.corrcoef(probability, p)[0, 1] > 0.999


@needs_flights
def test_sorted_flights_through_a_shuffle_buffer():
    """Three million rows sorted by date, a third of them in the buffer at a time."""
    mode, curvature, count = flights.exact_mode(FLIGHTS)
    with pytest.warns(errors.OrderedDataWarning, match=r"pymc-streaming shuffle .*flights-3m"):
        mean, sd, *_ = flights.streamed(FLIGHTS, 12_000, 4096, 1_000_000, seed=0)
    assert np.abs(mean - mode)[1:6].max() < 0.02
    total = np.abs(mean[0] + mean[6:] - mode[0] - mode[6:])
    assert total[count > 5_000].max() < 0.02
    np.testing.assert_allclose(sd[1:6], curvature[1:6] ** -0.5, rtol=0.15)
