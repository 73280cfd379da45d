"""What the fits of the suite are held against: the best mean-field Gaussian, and draws by NUTS.

``python -m benchmarks.suite_references --models linear --rows 100000 --nuts`` writes
``benchmarks/references/linear-100000.json``; a run of the suite reads it from there. For what has
no file the best mean-field Gaussian is found anew, which takes seconds to minutes.

Nothing of the package takes part. The likelihood of a row depends on one number, its linear
predictor, which is normal where the coefficients are; so its expectation is an integral over a
line, for which Gauss and Hermite's nodes are exact to many digits, and likewise over the logarithms
of the likelihood's own parameters. Expectations of the priors are closed forms. The ELBO is thus a
plain function of means and log standard deviations, in float64, which L-BFGS maximises with all
rows at each evaluation. NUTS is NumPyro's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import BenchmarkError
from benchmarks.models import PRIOR_SCALE
from benchmarks.processes import float_environment, from_fresh
from benchmarks.recording import write_text
from benchmarks.suite_models import FAMILIES, MODELS, Regression

FOLDER = Path(__file__).parent / "references"
CHAINS, DRAWS, WARMUP, MOST_R_HAT = 4, 2_500, 500, 1.01
# Parameters, of an inverse of the curvature, and of what is kept.
MOST_DENSE, MOST_KEPT = 500, 2_500
BLOCK_NUMBERS = 2**20
# The coefficients of rare groups are wide, so the predictor is; all else many rows inform.
NODES, NODES_GROUPED, NODES_POSITIVE = 5, 11, 3
ROUNDS, ITERATIONS, TOLERANCE = 12, 100, 1e-4


@dataclass(frozen=True)
class Reference:
    """What a fit should find, in the order of `Regression.shapes`; positive parameters in logs.

    Parameters
    ----------
    mean, sd : ndarray
        Of the best mean-field Gaussian.
    posterior_sd : ndarray
        What errors of means are measured in: by NUTS, or by the inverse of the expected curvature,
        or, with more than 500 parameters, `sd`, which is not larger.
    unit : str
        Which of them.
    nuts_mean : ndarray or None
        Of the posterior.
    """

    mean: np.ndarray
    sd: np.ndarray
    posterior_sd: np.ndarray
    unit: str
    nuts_mean: np.ndarray | None = None

    def distance(self) -> float | None:
        """From the best mean-field Gaussian to NUTS, largest of all means, in posterior sds."""
        if self.nuts_mean is None:
            return None
        return float(np.max(np.abs(self.mean - self.nuts_mean) / self.posterior_sd))


def find(name: str, n_rows: int, folder: Path = FOLDER) -> Reference:
    """From its file, or computed in a process of its own."""
    path = folder / f"{name}-{n_rows}.json"
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))
        if kept["model"] != _described(MODELS[name]):
            raise BenchmarkError(
                f"{path.name} is of another model. Make it anew: {kept['command']}"
            )
    else:
        kept = from_fresh(mean_field, name, n_rows, environment=float_environment("float64"))
    vectors = {key: np.asarray(kept[key]) for key in ("mean", "sd", "posterior_sd")}
    nuts_mean = np.asarray(kept["nuts_mean"]) if "nuts_mean" in kept else None
    return Reference(**vectors, unit=kept["unit"], nuts_mean=nuts_mean)


def sizes_with_draws(name: str, folder: Path = FOLDER) -> list[int]:
    """Numbers of rows of the references of a model that have draws by NUTS."""
    paths = folder.glob(f"{name}-*.json")
    sizes = {path: path.stem.removeprefix(f"{name}-") for path in paths}
    return sorted(
        int(size)
        for path, size in sizes.items()
        if size.isdigit() and "nuts_mean" in json.loads(path.read_text("utf-8"))
    )


def _described(model: Regression) -> str:
    return f"{model}, {model.positive}"


def mean_field(name: str, n_rows: int) -> dict[str, Any]:
    """The best mean-field Gaussian; where JAX computes in float64."""
    import jax

    model = MODELS[name]
    elbo, _ = _functions(model, _padded(model, n_rows))
    negative = jax.jit(jax.value_and_grad(lambda q: -elbo(q)))
    mean, log_sd, gradient = _maximise(lambda q: _as_arrays(negative(q)), model.size)
    sd = posterior_sd = np.exp(log_sd)
    unit = "mean-field"
    if model.size <= MOST_DENSE:
        # Expected: that of a hierarchical model at a point need not be positive.
        gradient_at = jax.grad(lambda mean: elbo(jax.numpy.concatenate([mean, log_sd])))
        along = jax.jit(lambda v: jax.jvp(gradient_at, (mean,), (v,))[1])
        curvature = -np.stack([along(v) for v in np.eye(model.size)])
        posterior_sd = np.sqrt(np.diag(np.linalg.inv((curvature + curvature.T) / 2)))
        unit = "curvature"
    return {
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        "posterior_sd": posterior_sd.tolist(),
        "unit": unit,
        "largest_gradient": gradient,
    }


def _as_arrays(pair: Any) -> tuple[float, np.ndarray]:
    return float(pair[0]), np.asarray(pair[1])


def _maximise(
    negative: Callable[[np.ndarray], tuple[float, np.ndarray]], size: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """By L-BFGS in units of the standard deviations, which are renewed between rounds.

    Where the scales are at their optimum, s²h = 1 for a curvature h; and the gradient in log s is
    1 - s²h. So a gradient gives the curvature, from any scale.
    """
    from scipy.optimize import minimize

    q = np.concatenate([np.zeros(size), np.full(size, -7.0)])
    for round_ in range(ROUNDS):
        slope = negative(q)[1]
        curvature = np.maximum((1.0 + slope[size:]) * np.exp(-2 * q[size:]), 1e-2)
        if round_ < 3:
            q[size:] = -0.5 * np.log(curvature)
            slope = negative(q)[1]
        unit = np.concatenate([np.exp(q[size:]), np.ones(size)])
        largest = float(np.abs(slope * unit).max())
        if round_ >= 3 and largest < TOLERANCE:
            return q[:size], q[size:], largest
        start, value = q.copy(), negative(q)[0]

        def scaled(
            u: np.ndarray, start: np.ndarray = start, unit: np.ndarray = unit, value: float = value
        ) -> tuple[float, np.ndarray]:
            loss, gradient = negative(start + unit * u)
            return (loss - value if np.isfinite(loss) else 1e300), np.nan_to_num(gradient * unit)

        found = minimize(
            scaled,
            np.zeros(2 * size),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ITERATIONS, "maxcor": 50, "ftol": 0.0, "gtol": TOLERANCE / 3},
        )
        q = start + unit * found.x
    raise BenchmarkError(f"The best mean-field Gaussian was not found: {largest:.2g} is left.")


def _padded(model: Regression, n_rows: int) -> Any:
    """The table in blocks of one size, and a weight for each row: 0 for those that fill up."""
    size = min(n_rows, max(1, BLOCK_NUMBERS // (len(model.columns) + 64)))
    count = -(-n_rows // size)
    rows, weights = np.zeros((count * size, len(model.columns))), np.zeros(count * size)
    at = 0
    for block in model.blocks(n_rows):
        rows[at : at + len(block)] = block
        at += len(block)
    weights[:n_rows] = 1.0
    return rows.reshape(count, size, -1), weights.reshape(count, size)


def _functions(model: Regression, table: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The ELBO of means and log sds, and the log-density of a point, both but for constants."""
    import jax
    import jax.numpy as jnp

    rows, weights = map(jnp.asarray, table)

    def parts(vector: Any) -> dict[str, Any]:
        made, at = {}, 0
        for name, shape in model.shapes.items():
            size = int(np.prod(shape))
            made[name], at = vector[at : at + size].reshape(shape), at + size
        return made

    def moments(arrays: Any, m: Any, v: Any) -> tuple[Any, Any]:
        """Mean and variance of the linear predictors."""
        X = arrays["X"]
        mean, variance = m["intercept"] + X @ m["slopes"], v["intercept"] + X**2 @ v["slopes"]
        if model.grouped:
            group, x = arrays["group"], X[:, 0]
            mean += m["offset"][group] + m["group_slope"][group] * x
            variance += v["offset"][group] + v["group_slope"][group] * x**2
        return mean, variance

    def expected(m: Any, v: Any, nodes: int, nodes_positive: int) -> Any:
        """Of the log-density under independent normals with these means and variances."""
        own = list(FAMILIES[model.family])
        line, other = _hermite(nodes), _hermite(nodes_positive)
        grid = [
            (np.array([z for z, _ in pick]), float(np.prod([w for _, w in pick])))
            for pick in itertools.product(zip(*other, strict=True), repeat=len(own))
        ]

        def block(total: Any, rows_and_weights: Any) -> tuple[Any, None]:
            arrays, weight = model.split(rows_and_weights[0]), rows_and_weights[1]
            mean, variance = moments(arrays, m, v)
            # A root of zero has no gradient; at a point there is one node and no variance.
            spread = jnp.sqrt(variance) if nodes > 1 else 0.0
            for z, w in zip(*line, strict=True):
                for at, w_at in grid:
                    positive = {
                        name: jnp.exp(m[name] + (jnp.sqrt(v[name]) * at[i] if nodes > 1 else 0.0))
                        for i, name in enumerate(own)
                    }
                    term = _log_likelihood(model.family, arrays["y"], mean + spread * z, positive)
                    total += w * w_at * jnp.sum(weight * term)
            return total, None

        total, _ = jax.lax.scan(
            jax.checkpoint(block), _expected_prior(model, m, v), (rows, weights)
        )
        return total

    def elbo(q: Any) -> Any:
        mean, log_sd = q[: model.size], q[model.size :]
        nodes = NODES_GROUPED if model.grouped else NODES
        variance = parts(jnp.exp(2 * log_sd))
        return expected(parts(mean), variance, nodes, NODES_POSITIVE) + jnp.sum(log_sd)

    def log_density(point: Any) -> Any:
        return expected(parts(point), parts(jnp.zeros(model.size)), 1, 1)

    return elbo, log_density


def _hermite(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for the expectation over a standard normal."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return points, weights / weights.sum()


def _expected_prior(model: Regression, m: Any, v: Any) -> Any:
    """With the likelihood of the table that is not streamed."""
    import jax.numpy as jnp

    def square(name: str) -> Any:
        return jnp.sum(m[name] ** 2 + v[name])

    def power(name: str, exponent: float) -> Any:
        """The expectation of a power of a positive parameter, whose logarithm is normal."""
        return jnp.exp(exponent * m[name] + exponent**2 * v[name] / 2)

    total = -(square("intercept") + square("slopes")) / (2 * PRIOR_SCALE**2)
    for name, prior in model.positive.items():  # with the derivative of the exponential
        if prior.kind == "gamma":
            shape, rate = prior.numbers
            total += shape * m[name] - rate * power(name, 1)
        else:
            total += m[name] - power(name, 2) / (2 * prior.numbers[0] ** 2)
    if model.grouped:
        for name, tau in (("offset", "tau"), ("group_slope", "tau_slope")):
            total += -model.groups * m[tau] - square(name) * power(tau, -2) / 2
    if model.fixed_rows:
        X, y = model.fixed
        squares = jnp.sum((y - X @ m["slopes"]) ** 2) + jnp.sum(X**2 @ v["slopes"])
        total += -model.fixed_rows * m["noise"] - squares * power("noise", -2) / 2
    return total


def _log_likelihood(family: str, y: Any, predictor: Any, positive: Any) -> Any:
    """Of each row, but for constants."""
    import jax.numpy as jnp
    from jax.nn import softplus
    from jax.scipy.special import gammaln

    match family:
        case "linear":
            sigma = positive["sigma"]
            return -jnp.log(sigma) - ((y - predictor) / sigma) ** 2 / 2
        case "logistic":
            return y * predictor - softplus(predictor)
        case "poisson":
            return y * predictor - jnp.exp(predictor)
        case "negative-binomial":
            alpha = positive["alpha"]
            total = jnp.logaddexp(jnp.log(alpha), predictor)
            counts = gammaln(y + alpha) - gammaln(alpha)
            return counts + alpha * (jnp.log(alpha) - total) + y * (predictor - total)
        case _:
            nu, sigma = positive["nu"], positive["sigma"]
            scale = gammaln((nu + 1) / 2) - gammaln(nu / 2) - jnp.log(nu) / 2 - jnp.log(sigma)
            return scale - (nu + 1) / 2 * jnp.log1p(((y - predictor) / sigma) ** 2 / nu)


def nuts(name: str, n_rows: int, seed: int, kept: dict[str, Any]) -> dict[str, Any]:
    """Draws of the posterior, started at the best mean-field Gaussian."""
    import jax
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    model = MODELS[name]
    rows = np.concatenate(list(model.blocks(n_rows)))
    arrays = {key: jax.numpy.asarray(array) for key, array in model.split(rows).items()}
    kernel = NUTS(
        lambda: model.in_numpyro(arrays, n_rows, n_rows),
        dense_mass=model.size <= 200,
    )
    chains = []
    for chain in range(CHAINS):
        mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, progress_bar=False)
        rng = np.random.default_rng([seed, chain])
        start = np.asarray(kept["mean"]) + np.asarray(kept["sd"]) * rng.normal(size=model.size)
        mcmc.run(jax.random.PRNGKey(1_000 * seed + chain), init_params=_split(model, start))
        draws = mcmc.get_samples()
        logs = {key: np.log(draws[key]) for key in model.positive}
        flat = {
            key: np.asarray(logs.get(key, draws[key])).reshape(DRAWS, -1) for key in model.shapes
        }
        chains.append(np.concatenate(list(flat.values()), axis=1))
    draws = np.stack(chains)
    r_hat = float(np.max(split_gelman_rubin(draws)))
    if not r_hat < MOST_R_HAT:
        raise BenchmarkError(f"NUTS has not mixed on {name}: R-hat is {r_hat:.3f}.")
    return {
        "nuts_mean": draws.mean(axis=(0, 1)).tolist(),
        "posterior_sd": draws.std(axis=(0, 1)).tolist(),
        "unit": "NUTS",
        "seed": seed,
        "r_hat": r_hat,
        "smallest_effective_sample_size": float(np.min(effective_sample_size(draws))),
        "chains": CHAINS,
        "draws": DRAWS,
    }


def _split(model: Regression, vector: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum([int(np.prod(shape)) for shape in model.shapes.values()])
    pieces = np.split(vector, ends[:-1])
    shapes = model.shapes.items()
    return {name: piece.reshape(shape) for (name, shape), piece in zip(shapes, pieces, strict=True)}


def _rounded(value: Any) -> Any:
    return [float(f"{number:.7g}") for number in value] if isinstance(value, list) else value


def main(arguments: list[str]) -> int:
    """Write references."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suite_references",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--nuts", action="store_true", help="draws of the posterior, too")
    parser.add_argument("--seed", type=int, default=0, help="of NUTS")
    options = parser.parse_args(arguments)
    environment = float_environment("float64")
    FOLDER.mkdir(exist_ok=True)
    for name in options.models:
        n_rows = MODELS[name].most_rows(options.rows)
        if MODELS[name].size > MOST_KEPT:
            print(f"{name}: {MODELS[name].size:,} parameters are not kept in a file")
            continue
        kept = from_fresh(mean_field, name, n_rows, environment=environment)
        if options.nuts:
            kept |= from_fresh(nuts, name, n_rows, options.seed, kept, environment=environment)
        command = ["python", "-m", "benchmarks.suite_references", "--models", name]
        command += ["--rows", str(n_rows), *(["--nuts"] if options.nuts else [])]
        command += ["--seed", str(options.seed)]
        record = {"command": shlex.join(command), "model": _described(MODELS[name])}
        record |= {key: _rounded(value) for key, value in kept.items()}
        write_text(FOLDER / f"{name}-{n_rows}.json", json.dumps(record) + "\n")
        said = {key: value for key, value in record.items() if not isinstance(value, list)}
        print(f"{name}: {said}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchmarkError as error:
        sys.exit(str(error))
