"""How close a streamed fit comes to the exact posterior and to scikit-learn.

python -m benchmarks.accuracy --rows 1000000 --steps 20000
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

import benchmarks
from benchmarks import criteo
from pymc_streaming import DataLoader, Trainer, parquet_source
from pymc_streaming.demo import PRIOR_SCALE, prepare


def main() -> None:
    """Fit, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--seeds", type=int, default=1, help="fits, with seeds from 0 on")
    options = parser.parse_args()
    print(benchmarks.conditions())
    with criteo.table(options.rows) as folder:
        rows = criteo.in_memory(folder)
        mode, hessian = criteo.exact_mode(rows)
        sd = np.diag(hessian) ** -0.5
        reference = LogisticRegression(C=PRIOR_SCALE**2, tol=1e-8, max_iter=1_000)
        reference.fit(rows[:, :13], rows[:, 13])
        coefficients = np.concatenate([reference.intercept_, reference.coef_[0]])
        del rows
        print(
            "| seed | correlation with scikit-learn | max abs difference from the exact mode "
            "| the same in sds | sd over exact | seconds |"
        )
        print("| --- | --- | --- | --- | --- | --- |")
        for seed in range(options.seeds):
            loader = DataLoader(
                parquet_source(folder, transform=prepare),
                options.batch_size,
                shuffle=True,
                seed=seed,
            )
            started = time.perf_counter()
            approximation = Trainer(
                "advi",
                loader,
                model=criteo.model(options.batch_size, len(loader)),
                random_seed=seed,
            ).fit(options.steps)
            seconds = time.perf_counter() - started
            mean, fitted = approximation.mean.eval(), approximation.std.eval() / sd
            difference = np.abs(mean - mode)
            print(
                f"| {seed} | {np.corrcoef(mean, coefficients)[0, 1]:.7f} | {difference.max():.5f} "
                f"| {(difference / sd).max():.2f} | {fitted.min():.3f} to {fitted.max():.3f} "
                f"| {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
