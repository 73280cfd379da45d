"""Programs that are killed and run again: fits of small tables with checkpoints, of every kind."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm

from pymc_streaming import DataLoader, Trainer, errors, parquet_source

N_ROWS = 200_000


def write_table(path: Path, n_rows: int = N_ROWS) -> None:
    """Counts with a slope and an effect for each of six groups."""
    random = np.random.default_rng(0)
    x, group = random.normal(size=n_rows), random.integers(0, 6, n_rows)
    y = random.poisson(np.exp(0.3 * x + random.normal(size=6)[group]))
    pq.write_table(pa.table({"x": x, "group": group, "y": y}), path, row_group_size=20_000)


def make_trainer(table: Path, checkpoints: Path | None, **options: Any) -> Trainer:
    source = parquet_source(table, columns={"x": "x", "group": "group", "y": "y"})
    loader = DataLoader(source, 500, shuffle=True, buffer_size=50_000, seed=1)
    zeros = loader.placeholder()
    with pm.Model() as model:
        slope = pm.Normal("slope", 0.0, 1.0)
        effect = pm.Normal("effect", 0.0, 1.0, shape=6)
        x, group, y = (pm.Data(name, zeros[name]) for name in ("x", "group", "y"))
        rate = pm.math.exp(slope * x + effect[group])
        pm.Poisson("likelihood", rate, observed=y, total_size=len(loader))
    method = options.pop("method", "advi")
    return Trainer(
        method,
        loader,
        model=model,
        random_seed=2,
        checkpoint_dir=checkpoints,
        checkpoint_every="0.02s",
        progressbar=False,
        **options,
    )


#: What a program does with a trainer, and the trainer's options.
KINDS: dict[str, tuple[dict[str, Any], Callable[[Trainer], object]]] = {
    "steps": ({}, lambda trainer: trainer.fit(20_000, resume="auto")),
    "dense steps": (
        {"method": "fullrank_advi"},
        lambda trainer: trainer.fit(10_000, resume="auto"),
    ),
    "passes": ({"strategy": "accumulate"}, lambda trainer: trainer.fit(resume="auto")),
    "in memory": ({"strategy": "in_memory"}, lambda trainer: trainer.fit(resume="auto")),
    "dense passes": ({"method": "fullrank_advi"}, lambda trainer: trainer.fit(resume="auto")),
    "laplace": ({"method": "laplace"}, lambda trainer: trainer.fit(resume="auto")),
    "rounds": (
        {"strategy": "streaming"},
        lambda trainer: trainer.fit(max_passes=60, resume="auto"),
    ),
    "one after the other": (
        {},
        lambda trainer: (trainer.fit(8_000, resume="auto"), trainer.fit(resume="auto")),
    ),
}


def run(kind: str, table: Path, checkpoints: Path, result: Path) -> None:
    """Fit, and write down the numbers; what a process does until it is killed."""
    warnings.simplefilter("ignore", errors.StreamingWarning)
    options, fit = KINDS[kind]
    trainer = make_trainer(table, checkpoints, **options)
    fit(trainer)
    digest = hashlib.sha256()
    for parameter in trainer.approximation.params:
        digest.update(parameter.get_value().tobytes())
    digest.update(trainer.history.loss.tobytes())
    found = trainer.result and [trainer.result.status.name, trainer.result.passes]
    result.write_text(json.dumps([digest.hexdigest(), found]))
