"""The last bits of a fit do not depend on what was compiled before, or by whom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import hashlib, sys, warnings
import numpy as np
import pymc as pm
from pymc_streaming import DataLoader, Trainer

random = np.random.default_rng(0)
X = random.normal(size=(20_000, 4))
y = X @ [0.3, -0.2, 0.1, 0.05] + random.standard_t(4, 20_000)
loader = DataLoader({"X": X, "y": y}, 500, shuffle=True, seed=1)
zeros = loader.placeholder()
with pm.Model() as model:
    b = pm.Normal("b", 0.0, 1.0, shape=4)
    sigma, nu = pm.HalfNormal("sigma", 2.0), pm.Gamma("nu", 2.0, 0.1)
    data = {name: pm.Data(name, zeros[name]) for name in zeros}
    pm.StudentT("l", mu=data["X"] @ b, sigma=sigma, nu=nu, observed=data["y"],
                total_size=len(loader))
warnings.simplefilter("ignore")
trainer = Trainer("advi", loader, model=model, random_seed=2, progressbar=False)
for steps in (None, 500):
    trainer.fit(steps)
    digest = hashlib.sha256()
    for parameter in trainer.approximation.params:
        digest.update(parameter.get_value().tobytes())
    print(digest.hexdigest())
"""


def run(place: Path) -> str:
    (place / "temporary").mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PYTENSOR_FLAGS": f"base_compiledir={place / 'pytensor'}",
        "NUMBA_CACHE_DIR": str(place / "numba"),
        "TMPDIR": str(place / "temporary"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return ended.stdout


def test_who_compiles_and_who_finds_it_compiled_get_the_same(tmp_path) -> None:
    first = run(tmp_path)
    assert len(first.split()) == 2
    assert run(tmp_path) == first
    # Nor does compiling leave anything in the folder of temporary files.
    assert list((tmp_path / "temporary").iterdir()) == []
