"""A diagnosis against closed forms, and of fits that are broken on purpose."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pymc as pm
import pytest
from arviz_stats.base import array_stats
from pytensor.compile.mode import Mode
from scipy import stats

from pymc_streaming import (
    AnnealedAdam,
    DataLoader,
    Diagnosis,
    FindingKind,
    Trainer,
    errors,
    generator_source,
    table_source,
)
from pymc_streaming.diagnosis import run
from pymc_streaming.diagnosis.reading import Reading
from tests.models import (
    KnownPosterior,
    conjugate_normal,
    correlated_linear,
    logistic,
    poisson_groups,
)

pytestmark = pytest.mark.filterwarnings("ignore::pymc_streaming.errors.NotConvergedWarning")


# Nothing is compiled: what is tested is the numbers, not the speed.
FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}


def loader_for(data, batch_size: int = 500, **options) -> DataLoader:
    return DataLoader(data if len(data) > 1 else data["batch"], batch_size, **options)


def trainer_for(known: KnownPosterior, data=None, method="advi", **options) -> Trainer:
    shuffle = {key: options.pop(key) for key in ("shuffle", "seed") if key in options}
    loader = loader_for(known.data if data is None else data, **shuffle)
    options = {"random_seed": 0, "progressbar": False} | options
    return Trainer(method, loader, model=known.build(loader), **options)


def written(trainer: Trainer, mean: np.ndarray, covariance: np.ndarray) -> Trainer:
    """The trainer with a fit of its own replaced by a known Gaussian."""
    trainer.fit(1)
    guide = trainer._fits.subject.guide
    if trainer.method == "advi":
        guide.write(mean, 0.5 * np.log(np.diag(covariance)))
    else:
        cholesky = np.linalg.cholesky(covariance)
        diagonal = np.diag(cholesky)
        below = (cholesky / diagonal[:, None])[np.tril_indices(len(mean), -1)]
        guide.write(mean, np.concatenate([np.log(diagonal), below]))
    return trainer


def kinds(diagnosis: Diagnosis) -> list[FindingKind]:
    return [finding.kind for finding in diagnosis.findings]


@pytest.fixture(scope="module")
def linear() -> KnownPosterior:
    return correlated_linear(4_000)


def log_evidence(known: KnownPosterior) -> float:
    """Of a linear regression with unit noise, under Normal(0, 3) priors."""
    X, y = known.data["X"], known.data["y"]
    n, d = X.shape
    quadratic = y @ y - known.mean @ known.precision @ known.mean
    _, logdet = np.linalg.slogdet(known.precision)
    return -0.5 * (n * np.log(2 * np.pi) + quadratic + logdet) - d * np.log(3.0)


def test_with_the_exact_posterior_every_log_ratio_is_the_log_evidence(linear) -> None:
    trainer = written(trainer_for(linear, method="fullrank_advi"), linear.mean, linear.covariance)
    d = trainer.diagnose()
    np.testing.assert_allclose(d.log_ratios, log_evidence(linear), atol=1e-6)
    assert d.elbo == pytest.approx(log_evidence(linear), abs=1e-6)
    assert d.k_hat < 0.5
    assert d.effective_draws == pytest.approx(200)
    np.testing.assert_allclose(d.step, 0.0, atol=1e-5)
    np.testing.assert_allclose(d.log_scale, 0.0, atol=1e-5)
    np.testing.assert_allclose(d.corrected_sd, np.sqrt(np.diag(linear.covariance)), rtol=1e-4)
    assert (d.trusted, d.shrinkage) == (True, None)


def test_the_elbo_of_independent_normals(linear) -> None:
    sd = linear.mean_field_sd
    d = written(trainer_for(linear), linear.mean, np.diag(sd**2)).diagnose(draws=400)
    # Evidence less the divergence of two normals of the same mean.
    _, logdet = np.linalg.slogdet(linear.covariance)
    divergence = 0.5 * (logdet - 2 * np.log(sd).sum())
    assert abs(d.elbo - (log_evidence(linear) - divergence)) < 4 * d.elbo_error
    assert d.elbo_error < 0.2


@pytest.mark.parametrize("method", ["advi", "fullrank_advi"])
def test_a_shifted_fit_is_as_far_off_as_it_was_shifted(linear, method) -> None:
    dense = method != "advi"
    covariance = linear.covariance if dense else np.diag(linear.mean_field_sd**2)
    sd = np.sqrt(np.diag(covariance))
    shift = np.array([0.0, 0.5, -2.0, 30.0, 0.2])
    trainer = trainer_for(linear, method=method)
    d = written(trainer, linear.mean - shift * sd, 0.8**2 * covariance).diagnose()
    np.testing.assert_allclose(d.step, shift, atol=0.01)
    np.testing.assert_allclose(d.log_scale, -np.log(0.8), atol=0.01)
    assert kinds(d)[0] is FindingKind.NOT_CONVERGED
    assert "'b[3]' would move by 30 posterior" in d.findings[0].text


def test_ratios_are_those_of_the_log_density_in_memory(monkeypatch) -> None:
    known = poisson_groups(3_000)
    trainer = trainer_for(known)
    trainer.fit()
    drawn = []
    monkeypatch.setattr(run, "Reading", lambda *a: drawn.append(a[2]) or Reading(*a))
    d = trainer.diagnose(draws=100)
    whole = known.build(loader_for(known.data, batch_size=3_000))
    pm.set_data(known.data, model=whole)
    log_density = whole.compile_logp()
    q = trainer.approximation
    mean, sd = q.mean.eval(), q.std.eval()
    expected = [
        log_density({"slope": z[0], "effect": z[1:]}) - stats.norm.logpdf(z, mean, sd).sum()
        for (points,) in [drawn]
        for z in points
    ]
    np.testing.assert_allclose(d.log_ratios, expected, rtol=0, atol=1e-6)
    log_weights, k_hat = array_stats.psislw(-np.array(expected))
    assert d.k_hat == pytest.approx(float(k_hat), abs=1e-4)
    assert d.effective_draws == pytest.approx(1 / np.exp(2 * log_weights).sum())
    (points,) = drawn
    assert d.correction == pytest.approx((np.exp(log_weights) @ points - points.mean(0)) / sd)


@pytest.mark.parametrize("build", [conjugate_normal, logistic, poisson_groups])
def test_good_fits_are_trusted(build) -> None:
    trainer = trainer_for(build(3_000))
    trainer.fit()
    before = trainer.approximation.mean.eval()
    d = trainer.diagnose()
    assert d.trusted, str(d)
    assert (d.rows, d.total_size) == (3_000, 3_000)
    assert np.abs(d.step).max() < 0.05
    np.testing.assert_array_equal(trainer.approximation.mean.eval(), before)
    np.testing.assert_array_equal(trainer.diagnose().log_ratios, d.log_ratios)


def linear_of(n_rows: int) -> KnownPosterior:
    """Two columns and an intercept, correlated 0.3, with an unknown spread."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(n_rows, 2)) @ np.array([[1.0, 0.3], [0.0, 1.0]])
    y = 1.0 + X @ [0.5, -0.2] + rng.normal(size=n_rows)

    def build(loader: DataLoader) -> pm.Model:
        with pm.Model() as model:
            b0, b = pm.Normal("b0", 0.0, 2.0), pm.Normal("b", 0.0, 2.0, shape=2)
            sigma = pm.HalfNormal("sigma", 2.0)
            zeros = loader.placeholder()
            X, y = pm.Data("X", zeros["X"]), pm.Data("y", zeros["y"])
            pm.Normal("likelihood", b0 + X @ b, sigma, observed=y, total_size=len(loader))
        return model

    return KnownPosterior("mild", {"X": X, "y": y}, build, np.zeros(0), np.zeros((0, 0)))


@pytest.mark.parametrize("n_rows", [1_000, 100_000])
def test_mild_correlation_is_trusted(n_rows) -> None:
    trainer = trainer_for(linear_of(n_rows))
    trainer.fit()
    d = trainer.diagnose(draws=200 if n_rows == 1_000 else 100)
    assert d.trusted, str(d)
    assert 1.02 < d.shrinkage.max() < 1.2
    assert d.parameters == ("b0", "b[0]", "b[1]", "sigma_log__")


def test_shrinkage_is_named_and_nothing_else(linear) -> None:
    trainer = trainer_for(linear)
    trainer.fit()
    d = trainer.diagnose()
    assert kinds(d) == [FindingKind.SHRINKAGE]
    expected = np.sqrt(np.diag(linear.covariance)) / linear.mean_field_sd
    np.testing.assert_allclose(d.shrinkage, expected, rtol=1e-3)
    assert f"{expected.max():.2f} times as large, and 5 of 5" in d.findings[0].text
    assert d.reasons["correlations"] > 0.95


def test_stopped_early() -> None:
    trainer = trainer_for(logistic(3_000), shuffle=True, seed=0)
    trainer.fit(50)
    assert kinds(trainer.diagnose()) == [FindingKind.NOT_CONVERGED]
    trainer.fit()
    assert trainer.diagnose().trusted


@pytest.mark.parametrize("optimizer", [AnnealedAdam(learning_rate=3.0), pm.adam(learning_rate=0.5)])
def test_a_learning_rate_that_is_too_large(optimizer) -> None:
    known = logistic(3_000)
    trainer = trainer_for(known, shuffle=True, seed=0, optimizer=optimizer)
    trainer.fit(1_000)
    d = trainer.diagnose()
    assert kinds(d) == [FindingKind.NOT_CONVERGED]
    distance = (known.mean - d.mean) / known.mean_field_sd
    np.testing.assert_allclose(d.step, distance, atol=0.2)
    np.testing.assert_allclose(d.log_scale, np.log(known.mean_field_sd / d.sd), atol=0.05)


def test_sorted_rows_streamed_in_order() -> None:
    known = logistic(8_000)
    batch = known.data["batch"]
    order = np.argsort(batch[:, 3] + 0.1 * batch[:, 0], kind="stable")
    trainer = trainer_for(known, {"batch": batch[order]}, on_ordered="ignore")
    trainer.fit(4_000)
    d = trainer.diagnose()
    assert kinds(d) == [FindingKind.NOT_CONVERGED]
    assert "order_report" in d.findings[0].text
    # What it measures is the distance to the posterior of the whole table.
    distance = (known.mean - d.mean) / known.mean_field_sd
    np.testing.assert_allclose(d.step, distance, atol=0.2)


def test_wrong_n() -> None:
    known = logistic(10_000)
    batch = known.data["batch"]
    trainer = trainer_for(known, {"batch": batch[:5_000]})
    trainer.fit()
    d = trainer.diagnose(loader_for(known.data))
    assert kinds(d) == [FindingKind.ROWS]
    assert (d.rows, d.total_size) == (10_000, 5_000)
    np.testing.assert_allclose(d.log_scale, -0.5 * np.log(2.0), atol=0.1)
    assert "10,000 rows were counted, but the fit was made for N = 5,000" in str(d).replace(
        "\n", " "
    )


@pytest.mark.filterwarnings("ignore::pymc_streaming.errors.SeveralModesWarning")
@pytest.mark.parametrize("how", [(), (300,)])
def test_one_of_two_modes(how) -> None:
    """The sign of the parameter is not known: each mode looks right by itself."""
    y = np.random.default_rng(0).normal(1.0, 1.0, 2_000)
    loader = DataLoader(y, 100)
    with pm.Model() as model:
        batch = pm.Data("batch", loader.placeholder())
        mean = pm.Normal("a", 0.0, 1.0, initval=0.9) ** 2
        pm.Normal("y", mean, 1.0, observed=batch, total_size=len(loader))
    trainer = Trainer("advi", loader, model=model, random_seed=0, progressbar=False)
    trainer.fit(*how)
    d = trainer.diagnose()
    assert d.n_modes == 2
    assert FindingKind.SEVERAL_MODES in {finding.kind for finding in d.findings}
    assert "2 modes about as high" in str(d)
    chosen = Trainer("advi", loader, model=model, init={"a": 0.9}, progressbar=False)
    chosen.fit(*how)
    assert chosen.diagnose().n_modes == 1


def test_held_out_rows() -> None:
    known = logistic(3_000)
    trainer = trainer_for(known)
    trainer.fit()
    other = logistic(3_100).data["batch"][3_000:]  # fewer than a batch
    d = trainer.diagnose(DataLoader(other, 500))
    assert kinds(d) == [FindingKind.ROWS]
    assert d.rows == 100
    assert d.elbo > -150


def test_rows_of_groups_are_counted() -> None:
    known = poisson_groups(2_000)
    codes = known.data["group"]
    keep = codes != 4
    data = {name: array[keep] for name, array in known.data.items()}
    trainer = trainer_for(known, data)
    trainer.fit()
    d = trainer.diagnose()
    (groups,) = d.groups
    counts = np.bincount(codes[keep], minlength=6)
    expected = ("effect", 6, counts[counts > 0].min(), 1)
    assert (groups.variable, groups.groups, groups.fewest, groups.empty) == expected
    assert "1 without a row" in str(d)


def test_rows_that_are_impossible_are_located() -> None:
    known = poisson_groups(2_000)
    trainer = trainer_for(known)
    trainer.fit()
    data = {name: array.copy() for name, array in known.data.items()}
    data["group"][1_321] = 6
    d = trainer.diagnose(loader_for(data))
    assert kinds(d) == [FindingKind.NOT_FINITE]
    assert "at 200 of 200 draws" in str(d).replace("\n", " ")
    assert json.loads(json.dumps(d.to_dict(), allow_nan=False))["elbo"] is None
    d.plot()


def test_a_skewed_posterior_is_not_normal() -> None:
    """Three rows of a spread: what is far from normal is not the fit's fault, but is said."""
    loader = DataLoader(np.array([0.1, -0.4, 0.2]), 3)
    with pm.Model() as model:
        sigma = pm.HalfFlat("sigma")
        batch = pm.Data("batch", loader.placeholder())
        pm.Potential("flat", -pm.math.log(sigma))
        pm.Normal("y", 0.0, sigma, observed=batch, total_size=3)
    trainer = Trainer(
        "advi", loader, model=model, random_seed=0, progressbar=False, compile_kwargs=FAST
    )
    trainer.fit()
    assert kinds(trainer.diagnose()) == [FindingKind.NOT_NORMAL]


def test_after_an_error_that_left_an_approximation() -> None:
    def rows():
        yield {"batch": np.random.default_rng(0).normal(2.0, 1.5, 700)}

    known = conjugate_normal()
    loader = DataLoader(generator_source(rows, n_rows=1_000), 100)
    trainer = Trainer(
        "advi", loader, model=known.build(loader), progressbar=False, compile_kwargs=FAST
    )
    with pytest.raises(errors.RowCountError):
        trainer.fit(20)
    assert trainer.approximation is not None
    with pytest.raises(errors.RowCountError):  # the loader's own
        trainer.diagnose()
    d = trainer.diagnose(DataLoader(next(rows())["batch"], 100))
    assert kinds(d) == [FindingKind.ROWS]


def test_arguments_that_cannot_be_meant() -> None:
    known = conjugate_normal(2_000)
    trainer = trainer_for(known)
    with pytest.raises(errors.ArgumentError, match=r"call fit\(\) first"):
        trainer.diagnose()
    trainer.fit(1)
    with pytest.raises(errors.ArgumentError, match="draws must be a whole number of at least 100"):
        trainer.diagnose(draws=99)
    with pytest.raises(errors.ArgumentError, match="must be a DataLoader, found ndarray"):
        trainer.diagnose(known.data["batch"])
    with pytest.raises(errors.ArgumentError, match=r"must give the arrays.*'y'"):
        trainer.diagnose(DataLoader({"y": known.data["batch"]}, 100))


def test_as_a_dictionary(linear) -> None:
    trainer = trainer_for(linear)
    trainer.fit()
    d = trainer.diagnose()
    plain = d.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["findings"][0]["kind"] == "shrinkage"
    assert plain["shrinkage"] == d.shrinkage.tolist()
    assert (plain["trusted"], plain["k_hat"]) == (False, d.k_hat)


def test_parameters_are_named_by_their_coordinates() -> None:
    y = np.random.default_rng(0).normal(size=2_000)
    loader = DataLoader({"city": np.arange(2_000) % 2, "y": y}, 500)
    zeros = loader.placeholder()
    with pm.Model(coords={"town": ["Oslo", "Lima"]}) as model:
        effect = pm.Normal("effect", 0.0, 1.0, dims="town")
        sigma = pm.HalfNormal("sigma", 1.0)
        city, values = pm.Data("city", zeros["city"]), pm.Data("y", zeros["y"])
        pm.Normal("values", effect[city], sigma, observed=values, total_size=2_000)
    trainer = Trainer("advi", loader, model=model, random_seed=0, progressbar=False)
    trainer.fit()
    names = trainer.diagnose(draws=100).parameters
    assert names == ("effect[Oslo]", "effect[Lima]", "sigma_log__")


def test_codes_of_other_levels_are_refused() -> None:
    y = np.random.default_rng(0).normal(size=2_000)

    def loader_of(*levels: str) -> DataLoader:
        table = pa.table({"city": np.resize(levels, 2_000), "y": y})
        return DataLoader(
            table_source(table, columns={"city": "city", "y": "y"}, categories="auto"), 500
        )

    fitted, other = loader_of("Lima", "Oslo", "Rome"), loader_of("Lima", "Rome")
    zeros = fitted.placeholder()
    with pm.Model() as model:
        effect = pm.Normal("effect", 0.0, 1.0, shape=3)
        city, values = pm.Data("city", zeros["city"]), pm.Data("y", zeros["y"])
        pm.Normal("values", effect[city], 1.0, observed=values, total_size=2_000)
    trainer = Trainer("advi", fitted, model=model, random_seed=0, progressbar=False)
    trainer.fit()
    with pytest.raises(errors.ArgumentError, match="codes of 'city' mean other levels"):
        trainer.diagnose(other)


@pytest.mark.parametrize("seed", [8, 10])
def test_noise_that_two_equal_columns_have_in_common(seed) -> None:
    random = np.random.default_rng(seed)
    n_rows = 200_000
    x = np.zeros((n_rows, 2))
    x[random.choice(n_rows, 31, replace=False)] = 1.0
    y = x @ [1.0, -0.5] + random.normal(size=n_rows)
    loader = DataLoader({"x": x, "y": y}, 1_000)
    zeros = loader.placeholder()
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 3.0, shape=2)
        x_, y_ = pm.Data("x", zeros["x"]), pm.Data("y", zeros["y"])
        pm.Normal("likelihood", x_ @ b, 1.0, observed=y_, total_size=n_rows)
    trainer = Trainer("advi", loader, model=model, random_seed=seed, progressbar=False)
    trainer.fit()
    diagnosis = trainer.diagnose()
    assert kinds(diagnosis) == [FindingKind.SHRINKAGE]
    assert diagnosis.log_scale is not None
    assert np.abs(diagnosis.log_scale).max() < 0.02


@pytest.mark.parametrize("method", ["fullrank_advi", "laplace"])
def test_noise_in_a_table_that_is_sorted_by_its_response(method) -> None:
    random = np.random.default_rng(1)
    n_rows = 100_000
    x = np.column_stack([np.ones(n_rows), random.normal(size=(n_rows, 10))])
    y = 0.2 * x @ random.normal(size=11) + random.normal(size=n_rows)
    order = np.argsort(y)
    loader = DataLoader({"x": x[order], "y": y[order]}, 1_000)
    zeros = loader.placeholder()
    with pm.Model() as model:
        b, sigma = pm.Normal("b", 0.0, 10.0, shape=11), pm.HalfNormal("sigma", 5.0)
        x_, y_ = pm.Data("x", zeros["x"]), pm.Data("y", zeros["y"])
        pm.Normal("likelihood", x_ @ b, sigma, observed=y_, total_size=n_rows)
    trainer = Trainer(method, loader, model=model, random_seed=0, progressbar=False)
    trainer.fit()
    assert trainer.result.converged
    diagnosis = trainer.diagnose()
    assert diagnosis.trusted, str(diagnosis)
