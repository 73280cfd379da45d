"""Who takes part in the suite: each a generator of what it has at times, in a process of its own.

`pm-fit`, `pm-adam` and `extras` go on from where they were; NumPyro, whose learning rate falls to
zero as a cosine over the run, begins anew for each length; this package is asked once and ends by
itself. Times are of fitting, beside what was spent before the first step: building the model,
compiling it, and a few steps if that takes some.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import Contest, in_memory
from benchmarks.processes import quiet
from benchmarks.suite_models import MODELS, Regression

LEARNING_RATE = 0.01
FIRST_STEPS, FIRST_LENGTH, LONGER = 500, 2_000, 4


@dataclass(frozen=True)
class Checkpoint:
    """What a contestant has after some time.

    Parameters
    ----------
    seconds : float
        Spent on fitting, in all.
    before : float
        Seconds spent before: the model, compilation.
    passes : float
        Rows that were read over rows of the table.
    mean, sd : ndarray
        Of all parameters, in the order of `Regression.shapes`.
    claim : str
        What the contestant says about it.
    """

    seconds: float
    before: float
    passes: float
    mean: np.ndarray
    sd: np.ndarray
    claim: str = "nothing"


def contend(
    which: str, name: str, folder: Path, batch_size: int, seed: int, budget: float
) -> Iterator[Checkpoint]:
    """What one of `suite.CONTESTANTS` has, at times, until so many seconds are spent."""
    quiet()
    model = MODELS[name]
    if which == "this":
        yield _this_package(model, folder, batch_size, seed)
        return
    rows = in_memory(folder / "arrow")
    batch_size = min(batch_size, len(rows))
    if which.startswith("numpyro"):
        yield from _numpyro(model, rows, batch_size, seed, budget)
        return
    contest = Contest(model, rows, folder / "parquet", folder / "arrow", batch_size)
    start = _extras if which == "extras" else _pm_fit
    yield from _by_steps(start(contest, which, seed), model, batch_size / len(rows), budget)


def _this_package(model: Regression, folder: Path, batch_size: int, seed: int) -> Checkpoint:
    from pymc_streaming import DataLoader, Trainer, arrow_source

    started = time.perf_counter()
    source = arrow_source(folder / "arrow")
    loader = DataLoader(source, min(batch_size, source.n_rows))
    contest = Contest(model, np.empty((source.n_rows, 0)), folder, folder, loader.batch_size)
    trainer = Trainer(
        "advi",
        loader,
        model=contest.loader_model(loader),
        random_seed=seed,
        progressbar=False,
    )
    approximation = trainer.fit()
    seconds, result = time.perf_counter() - started, trainer.result
    mean, sd = _of_pymc(approximation)
    return Checkpoint(
        seconds=result.seconds,
        before=seconds - result.seconds,
        passes=result.rows / source.n_rows,
        mean=_vector(model, mean),
        sd=_vector(model, sd),
        claim=result.status.name.lower().replace("_", " "),
    )


@dataclass(frozen=True)
class _Steps:
    """A fit by steps: `run` takes so many more, `found` says mean and sd by name of parameter."""

    run: Callable[[int], Any]
    found: Callable[[], tuple[dict[str, Any], dict[str, Any]]]


def _by_steps(
    start: Callable[[], _Steps], model: Regression, share: float, budget: float
) -> Iterator[Checkpoint]:
    """Each segment as long as all before, the last as long as there is time."""
    started = time.perf_counter()
    fit = start()
    before, seconds, steps, n = time.perf_counter() - started, 0.0, 0, FIRST_STEPS
    while n:
        started = time.perf_counter()
        fit.run(n)
        seconds += time.perf_counter() - started
        steps += n
        mean, sd = (_vector(model, values) for values in fit.found())
        yield Checkpoint(seconds, before, steps * share, mean, sd)
        n = min(steps, int(steps * (0.95 * budget - seconds) / seconds)) if seconds < budget else 0
        n = max(n, 0)


def _pm_fit(contest: Contest, which: str, seed: int) -> Callable[[], _Steps]:
    import pymc as pm

    def start() -> _Steps:
        options = {"obj_optimizer": pm.adam(learning_rate=0.01)} if which == "pm-adam" else {}
        with contest.minibatch_model():
            inference = pm.ADVI(random_seed=seed)
            inference.fit(2, progressbar=False, **options)
        return _Steps(
            lambda n: inference.refine(n, progressbar=False), lambda: _of_pymc(inference.approx)
        )

    return start


def _extras(contest: Contest, _: str, seed: int) -> Callable[[], _Steps]:
    def start() -> _Steps:
        trainer, run = contest.extras(seed)

        def found() -> tuple[dict[str, Any], dict[str, Any]]:
            values = trainer.state.params
            mean = {k.removesuffix("_loc"): v for k, v in values.items() if k.endswith("_loc")}
            sd = {
                k.removesuffix("_scale"): np.exp(v)
                for k, v in values.items()
                if k.endswith("_scale")
            }
            return mean, sd

        return _Steps(run, found)

    return start


def _numpyro(
    model: Regression, rows: np.ndarray, batch_size: int, seed: int, budget: float
) -> Iterator[Checkpoint]:
    """A run of 2,000 steps, of 8,000 ..., as long as there is time for another."""
    import jax

    table = {key: jax.numpy.asarray(array) for key, array in model.split(rows).items()}
    n, seconds = FIRST_LENGTH, 0.0
    while n:
        compiling = time.perf_counter()
        run = _numpyro_run(model, table, len(rows), batch_size, seed, n)
        started = time.perf_counter()
        found = jax.block_until_ready(run())
        seconds = time.perf_counter() - started
        mean, sd = (
            _vector(model, {name: found[f"{name}_auto_{part}"] for name in model.shapes})
            for part in ("loc", "scale")
        )
        before = started - compiling
        yield Checkpoint(seconds, before, n * batch_size / len(rows), mean, sd)
        longer = min(LONGER, 0.95 * budget / seconds)
        n = int(n * longer) if longer > 1.2 else 0


def _numpyro_run(
    model: Regression,
    table: Mapping[str, Any],
    n_rows: int,
    batch_size: int,
    seed: int,
    n: int,
) -> Callable[[], Any]:
    """A run of `n` steps, compiled: all in one call, rows drawn at random in it."""
    import jax
    from jax import lax
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal
    from numpyro.optim import Adam

    def in_numpyro(arrays: Any) -> None:
        model.in_numpyro(arrays, n_rows, batch_size)

    def rate(step: Any) -> Any:
        return LEARNING_RATE * (1 + jax.numpy.cos(math.pi * step / n)) / 2

    svi = SVI(in_numpyro, AutoNormal(in_numpyro), Adam(rate), Trace_ELBO())

    def batch(key: Any, table: Any) -> Any:
        index = jax.random.randint(key, (batch_size,), 0, n_rows)
        return {name: array[index] for name, array in table.items()}

    def steps(state: Any, key: Any, table: Any) -> Any:
        def step(_: Any, state_and_key: Any) -> Any:
            state, key = state_and_key
            key, chosen = jax.random.split(key)
            return svi.update(state, batch(chosen, table))[0], key

        return lax.fori_loop(0, n, step, (state, key))[0]

    key = jax.random.PRNGKey(seed)
    state = svi.init(key, batch(key, table))
    compiled = jax.jit(steps).lower(state, key, table).compile()
    return lambda: svi.get_params(compiled(state, key, table))


def _of_pymc(approximation: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mean and sd of a mean-field approximation, by name of parameter, without compiling."""
    (group,) = approximation.groups
    mean = group.params_dict["mu"].get_value()
    sd = np.logaddexp(0.0, group.params_dict["rho"].get_value())
    names = {name: name.removesuffix("_log__") for name in group.ordering}
    places = {names[name]: value[1] for name, value in group.ordering.items()}
    return tuple({name: vector[at] for name, at in places.items()} for vector in (mean, sd))


def _vector(model: Regression, values: Mapping[str, Any]) -> np.ndarray:
    """All parameters in their order."""
    return np.concatenate([np.asarray(values[name], float).ravel() for name in model.shapes])
