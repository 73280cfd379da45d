"""The programs of the design documents, as their author wrote them.

Changed are the import line, names that were renamed since (StreamingDataset to DataLoader,
as_tensor to a ``pm.Data`` placeholder, the callback to a Trainer), and nothing else.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm
import pytest
from huggingface_hub import HfFileSystem, close_session

from pymc_streaming import DataLoader, Trainer, parquet_source, preshuffle, shuffle_buffer
from tests.hub import hub_serving
from tests.models import logistic_newton

N = 100_000


def write(folder, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shards of features and a label; the exact mode and precision."""
    folder.mkdir()
    columns = {f"x{i}": column for i, column in enumerate(X.T)} | {"y": y.astype(np.int8)}
    table = pa.table(columns)
    for shard, start in enumerate(range(0, N, 30_000)):
        pq.write_table(
            table.slice(start, 30_000), folder / f"part-{shard}.parquet", row_group_size=8_192
        )
    scale = {13: 1.5, 3: 3.0}[X.shape[1]]
    return logistic_newton(np.column_stack([np.ones(N), X]), y, scale)


def assert_close(approx, mode: np.ndarray, precision: np.ndarray) -> None:
    sd = np.diag(precision) ** -0.5
    assert np.abs((approx.mean.eval() - mode) / sd).max() < 0.5
    np.testing.assert_allclose(approx.std.eval(), sd, rtol=0.12)


@pytest.fixture(scope="module")
def criteo(tmp_path_factory):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 13))
    logit = -3.0 + X @ rng.normal(scale=0.3, size=13)
    y = rng.random(N) < 1 / (1 + np.exp(-logit))
    folder = tmp_path_factory.mktemp("seed") / "owner" / "criteo"
    folder.parent.mkdir()
    return folder, write(folder, X, y)


@pytest.fixture
def hub(criteo):
    with hub_serving(criteo[0].parents[1]) as hub:
        HfFileSystem.clear_instance_cache()
        yield hub
        HfFileSystem.clear_instance_cache()
        close_session()


@pytest.mark.parametrize(
    ("path", "inside", "steps"),
    [
        ("criteo/", True, 20_000),
        ("criteo/", False, 20_000),
        # A quarter of them, since each pass is over the network.
        ("hf://datasets/owner/criteo", True, 5_000),
    ],
    ids=["in the block", "model=", "from a hub"],
)
def test_seed_001(criteo, hub, path, inside, steps, monkeypatch):
    folder, reference = criteo
    monkeypatch.chdir(folder.parent)
    loader = DataLoader(
        parquet_source(path),
        batch_size=4096,
        sample_shape=(14,),  # 13 features + label
        total_size="auto",  # len(loader) == N
    )
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 1.5, shape=14)
        batch = pm.Data("batch", np.zeros((4096, 14)))  # placeholder
        logit = b[0] + pm.math.dot(batch[:, :13], b[1:])
        pm.Bernoulli(
            "click",
            logit_p=logit,
            observed=batch[:, 13],
            total_size=len(loader),
        )
        if inside:
            # no callbacks: the Trainer feeds "batch" each step
            approx = Trainer(method="advi", dataloader=loader, data_name="batch").fit(steps)
    if not inside:
        approx = Trainer(method="advi", dataloader=loader, data_name="batch", model=model).fit(
            steps
        )
    assert_close(approx, *reference)


def test_seed_003(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, 3))
    y = rng.random(N) < 1 / (1 + np.exp(-(0.2 + X @ [0.5, -0.3, 1.0])))
    ordered = np.argsort(X[:, 2])  # as time orders a book
    reference = write(tmp_path / "recorded", X[ordered], y[ordered])
    monkeypatch.chdir(tmp_path)
    preshuffle("recorded/", "shuffled/", seed=0)
    # Pre-shuffle once on disk, then stream shuffled minibatches:
    ds = DataLoader(
        shuffle_buffer(
            parquet_source("shuffled/"),
            buffer_size=1_000_000,
            batch_size=4096,
            seed=0,
        ),
        batch_size=4096,
        sample_shape=(4,),  # 3 features + 1 observed column
        total_size="auto",  # infer N from Parquet metadata
    )
    with pm.Model():
        b = pm.Normal("b", 0.0, 3.0, shape=4)
        buf = pm.Data("buf", ds.placeholder())
        logit = b[0] + b[1] * buf[:, 0] + b[2] * buf[:, 1] + b[3] * buf[:, 2]
        pm.Bernoulli(
            "up",
            logit_p=logit,
            observed=buf[:, 3],
            total_size=ds.total_size,
        )
        approx = Trainer(method="advi", dataloader=ds, data_name="buf").fit(20_000)
    assert_close(approx, *reference)
