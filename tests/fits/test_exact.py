"""Fits without a number of steps."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm
import pytensor
import pytest
from pytensor.compile.mode import Mode
from scipy.optimize import minimize

from pymc_streaming import DataLoader, FitResult, Status, Trainer, errors, generator_source
from pymc_streaming.fits.exact import WholeTable
from pymc_streaming.progress import PassProgress
from pymc_streaming.vi.passes import slopes_over
from tests.models import conjugate_normal, correlated_linear, poisson_groups

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}


def trainer_for(known, data=None, batch_size=500, method="advi", **options) -> Trainer:
    data = known.data if data is None else data
    loader = DataLoader(data if len(data) > 1 else data["batch"], batch_size)
    options = {"random_seed": 0, "progressbar": False} | options
    return Trainer(method, loader, model=known.build(loader), **options)


@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning")
@pytest.mark.parametrize("float_x", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numba", "jax", "c"])
def test_every_backend(backend, float_x) -> None:
    with pytensor.config.change_flags(floatX=float_x):
        known = conjugate_normal()
        trainer = trainer_for(known, backend=backend, compile_kwargs=None)
        approximation = trainer.fit()
        sd = known.mean_field_sd[0]
        assert approximation.mean.eval()[0] == pytest.approx(known.mean[0], abs=0.05 * sd)
        assert approximation.std.eval()[0] == pytest.approx(sd, rel=0.01)
        assert trainer.result.converged


def test_the_result_says_what_happened() -> None:
    trainer = trainer_for(correlated_linear())
    assert trainer.result is None
    trainer.fit()
    result = trainer.result
    assert isinstance(result, FitResult)
    assert result.status is Status.CONVERGED
    assert len(result.trail) <= result.passes <= 3
    assert 20_000 * result.passes < result.rows <= 20_000 * (result.passes + 1)
    assert str(result).startswith(f"{result.passes} passes, {result.rows:,} rows, ")
    assert "Converged" in str(result)


def test_the_same_seed_gives_the_same_numbers() -> None:
    known = poisson_groups()
    one, two = (trainer_for(known).fit().mean.eval() for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_the_order_of_the_rows_does_not_matter() -> None:
    known = correlated_linear()
    order = np.argsort(known.data["y"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = trainer_for(known, {name: a[order] for name, a in known.data.items()}).fit()
    assert np.abs((found.mean.eval() - known.mean) / known.mean_field_sd).max() < 0.05


def test_from_parquet(tmp_path) -> None:
    known = poisson_groups()
    pq.write_table(pa.table(known.data), tmp_path / "a.parquet", row_group_size=3_000)
    from pymc_streaming import parquet_source

    source = parquet_source(tmp_path / "a.parquet", columns={"x": "x", "group": "group", "y": "y"})
    loader = DataLoader(source, 500, shuffle=True, seed=0)
    trainer = Trainer("advi", loader, model=known.build(loader), progressbar=False)
    found = trainer.fit()
    assert np.abs((found.mean.eval() - known.mean) / known.mean_field_sd).max() < 0.05
    np.testing.assert_allclose(found.std.eval(), known.mean_field_sd, rtol=0.02)


def test_passes_used_up_are_warned_about() -> None:
    trainer = trainer_for(poisson_groups())
    with pytest.warns(errors.NotConvergedWarning, match=r"max_passes="):
        trainer.fit(max_passes=1)
    assert trainer.result.status is Status.PASSES_USED_UP
    assert not trainer.result.converged
    trainer.fit()  # from there
    assert trainer.result.converged


def test_steps_after_passes_begin_where_those_ended() -> None:
    known = correlated_linear()
    trainer = trainer_for(known)
    exact = trainer.fit().mean.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after = trainer.fit(1).mean.eval()
    assert trainer.result is None  # which said that it had converged
    assert np.abs(after - exact).max() < 0.11  # two learning rates
    again = trainer.fit()
    np.testing.assert_allclose(again.mean.eval(), exact, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"n": 5, "max_passes": 3}, "without n"),
        ({"max_passes": 0}, "max_passes must be"),
    ],
)
def test_arguments_that_cannot_be_meant(call, words) -> None:
    with pytest.raises(errors.ArgumentError, match=words):
        trainer_for(conjugate_normal()).fit(**call)


@pytest.mark.parametrize("method", ["fullrank_advi", "laplace"])
def test_dense_normals(method) -> None:
    known = correlated_linear()
    trainer = trainer_for(known, method=method)
    approximation = trainer.fit()
    assert trainer.result.converged
    sds = np.sqrt(np.diag(known.covariance))
    assert np.abs((approximation.mean.eval() - known.mean) / sds).max() < 0.01
    np.testing.assert_allclose(approximation.cov.eval(), known.covariance, rtol=0.03)
    draws = approximation.sample(2_000, random_seed=0).posterior["b"].values[0]
    np.testing.assert_allclose(np.cov(draws.T), known.covariance, rtol=0.2)


def test_laplace_is_not_made_of_steps() -> None:
    with pytest.raises(errors.ArgumentError, match=r"exact passes: fit\(\)"):
        trainer_for(conjugate_normal(), method="laplace").fit(100)


def test_a_covariance_of_too_many_parameters() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2_050))
    loader = DataLoader(x, 50)
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 1.0, shape=2_050)
        batch = pm.Data("batch", loader.placeholder())
        pm.Normal("y", b, 1.0, observed=batch, total_size=200)
    trainer = Trainer("laplace", loader, model=model, progressbar=False, compile_kwargs=FAST)
    with pytest.raises(errors.ArgumentError, match=r"2,050 parameters.*at most 2,048.*'advi'"):
        trainer.fit()


def signless(**options) -> Trainer:
    """Two modes, at 1 and at -1."""
    y = np.random.default_rng(0).normal(1.0, 1.0, 2_000)
    loader = DataLoader(y, 100)
    with pm.Model() as model:
        batch = pm.Data("batch", loader.placeholder())
        a = pm.Normal("a", 0.0, 1.0)
        pm.Normal("y", a**2, 1.0, observed=batch, total_size=len(loader))
    options = {"random_seed": 0, "progressbar": False} | options
    return Trainer("advi", loader, model=model, **options)


def test_several_modes_are_said() -> None:
    trainer = signless()
    with pytest.warns(errors.SeveralModesWarning, match="2 modes"):
        trainer.fit()
    assert (trainer.result.converged, trainer.result.n_modes) == (True, 2)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_mode_that_was_chosen(sign) -> None:
    trainer = signless(init={"a": 0.7 * sign})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        approximation = trainer.fit()
    assert approximation.mean.eval()[0] == pytest.approx(sign, abs=0.1)
    assert trainer.result.n_modes == 1


@pytest.mark.filterwarnings("ignore::pymc_streaming.errors.SeveralModesWarning")
def test_starts_at_draws_of_the_prior() -> None:
    trainer = signless(init="prior")
    assert abs(trainer.fit().mean.eval()[0]) == pytest.approx(1.0, abs=0.1)
    trainer.fit()  # goes on from there
    assert len(trainer.result.trail) == 1


@pytest.mark.parametrize("rows_of_a_block", [1_000, 7_777, 50_000])
def test_gradients_are_those_of_the_whole_table(rows_of_a_block) -> None:
    """Accumulated over blocks, or compiled by PyMC and evaluated on all rows at once."""
    known = poisson_groups()
    blocks = [
        {name: array[start : start + rows_of_a_block] for name, array in known.data.items()}
        for start in range(0, 50_000, rows_of_a_block)
    ]
    loader = DataLoader(generator_source(lambda: iter(blocks), n_rows=50_000), 500)
    model = known.build(loader)
    trainer = Trainer("advi", loader, model=model, progressbar=False)
    trainer.fit(max_passes=3)
    guide, terms = trainer._fits.subject.guide, trainer._fits.exact.terms
    points = guide.location + 0.01 * np.random.default_rng(0).standard_normal((2, guide.size))
    table = WholeTable(loader, PassProgress(50_000, 1, enabled=False))
    found = slopes_over(table, terms, points, 1)[0] + terms.prior(points)[1].mean(axis=0)
    with model:
        pm.set_data(known.data)
    slope = model.compile_dlogp(mode=FAST["mode"])
    expected = [slope({"slope": point[0], "effect": point[1:]}) for point in points]
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-10)


def test_codes_out_of_range_are_located() -> None:
    known = poisson_groups()
    data = {name: array.copy() for name, array in known.data.items()}
    data["group"][31_234] = 6
    with pytest.raises(errors.IndexRangeError, match=r"rows 31,000 to 31,499.*'effect' run"):
        trainer_for(known, data).fit()


def test_values_outside_the_support_are_located() -> None:
    known = poisson_groups()
    data = {name: array.copy() for name, array in known.data.items()}
    data["y"][49_999] = -1
    trainer = trainer_for(known, data)
    with pytest.raises(errors.NonFiniteError, match=r"rows 49,500 to 49,999.*'likelihood' is"):
        trainer.fit()
    assert trainer.approximation is not None  # that of the sample


def test_a_table_that_has_other_rows_than_it_said() -> None:
    def rows():
        yield {"batch": np.zeros(700)}

    known = conjugate_normal()
    loader = DataLoader(generator_source(rows, n_rows=1_000), 100)
    trainer = Trainer(
        "advi", loader, model=known.build(loader), progressbar=False, compile_kwargs=FAST
    )
    with pytest.raises(errors.RowCountError):
        trainer.fit()


@pytest.mark.parametrize("at", [1, 2])
def test_ctrl_c_returns_the_last_complete_pass(monkeypatch, at) -> None:
    known = poisson_groups()
    trainer = trainer_for(known)
    blocks, passes = trainer.dataloader.blocks, []

    def interrupted(n_rows, start):
        passes.append(n_rows)
        if len(passes) == at:
            raise KeyboardInterrupt
        yield from blocks(n_rows, start)

    monkeypatch.setattr(trainer.dataloader, "blocks", interrupted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        approximation = trainer.fit()
    assert approximation is trainer.approximation
    assert trainer.result.status is Status.INTERRUPTED
    assert trainer.result.passes == at - 1
    # Already near: that of the sample, or of one pass.
    assert np.abs((approximation.mean.eval() - known.mean) / known.mean_field_sd).max() < 5


def test_ctrl_c_while_the_sample_is_fitted(monkeypatch) -> None:
    trainer = trainer_for(poisson_groups())

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("pymc_streaming.vi.start.colours_of", interrupted)
    trainer.fit()
    assert (trainer.result.status, trainer.result.passes) == (Status.INTERRUPTED, 0)
    monkeypatch.undo()
    trainer.fit()
    assert trainer.result.converged


def test_a_changed_model_is_noticed() -> None:
    trainer = trainer_for(conjugate_normal())
    trainer.fit()
    with trainer.model:
        pm.Normal("another")
    with pytest.raises(errors.ArgumentError, match="other variables"):
        trainer.fit()


def test_a_number_of_rows_that_is_written_down() -> None:
    y = np.random.default_rng(0).normal(1.0, 1.0, 2_000)
    loader = DataLoader(y, 100)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 1.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Normal("y", mu + np.zeros(100), 1.0, observed=batch, total_size=2_000)
    trainer = Trainer("advi", loader, model=model, progressbar=False, compile_kwargs=FAST)
    with (
        pytest.warns(errors.BatchSizedShapeWarning),
        pytest.raises(errors.FixedRowsError, match=r"100 rows but not on 99.*fit\(20_000\)"),
    ):
        trainer.fit()
    with pytest.warns(errors.NotConvergedWarning):
        trainer.fit(10)
    with pytest.raises(errors.FixedRowsError, match="diagnoses"):
        trainer.diagnose()


def test_an_index_that_a_distribution_makes() -> None:
    """A categorical looks its values up in its probabilities: these are no groups."""
    codes = np.random.default_rng(0).choice(3, 5_000, p=[0.2, 0.3, 0.5])
    loader = DataLoader({"code": codes}, 100)
    with pm.Model() as model:
        p = pm.Dirichlet("p", np.ones(3))
        code = pm.Data("code", loader.placeholder())
        pm.Categorical("y", p=p, observed=code, total_size=5_000)
    trainer = Trainer("advi", loader, model=model, progressbar=False, compile_kwargs=FAST)
    z = trainer.fit().mean.eval()
    assert trainer.result.converged
    logits = np.append(z, -z.sum())
    found = np.exp(logits) / np.exp(logits).sum()
    counts = np.bincount(codes)
    np.testing.assert_allclose(found, (counts + 1) / (5_003), atol=0.002)


def linear(X: np.ndarray, y: np.ndarray, method: str, **options) -> Trainer:
    """Coefficients with a standard normal prior, and known noise: the posterior is normal."""
    loader = DataLoader({"X": X, "y": y}, 1_000)
    zeros = loader.placeholder()
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 1.0, shape=X.shape[1])
        X_, y_ = pm.Data("X", zeros["X"]), pm.Data("y", zeros["y"])
        pm.Normal("values", X_ @ b, 1.0, observed=y_, total_size=len(loader))
    return Trainer(method, loader, model=model, random_seed=0, progressbar=False, **options)


@pytest.fixture(scope="module", params=["sorted", "shuffled"])
def shops(request) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An intercept, a slope, and a column for each of 12 shops, beside the precision."""
    rng, n_rows, n_shops = np.random.default_rng(1), 200_000, 12
    X = np.zeros((n_rows, n_shops + 2))
    X[:, 0], X[:, 1] = 1.0, rng.normal(size=n_rows)
    X[np.arange(n_rows), 2 + np.sort(rng.integers(0, n_shops, n_rows))] = 1.0
    y = X @ rng.normal(size=n_shops + 2) + rng.normal(size=n_rows)
    if request.param == "shuffled":
        order = rng.permutation(n_rows)
        X, y = X[order], y[order]
    return X, y, X.T @ X + np.eye(n_shops + 2)


@pytest.mark.parametrize("method", ["advi", "fullrank_advi", "laplace"])
def test_columns_that_stand_together_in_a_sorted_table(shops, method) -> None:
    X, y, precision = shops
    trainer = linear(X, y, method)
    found = trainer.fit()
    assert trainer.result.converged
    of_method = np.diag(precision) if method == "advi" else 1 / np.diag(np.linalg.inv(precision))
    sds, mean = of_method**-0.5, np.linalg.solve(precision, X.T @ y)
    # Along the ridge between the intercept and all shops, in their own standard deviations.
    assert np.abs((found.mean.eval() - mean) / sds).max() < 0.05
    np.testing.assert_allclose(found.std.eval(), sds, rtol=0.01)


def test_rare_columns_that_meet_in_no_sample() -> None:
    rng, n_rows = np.random.default_rng(0), 100_000
    X = np.zeros((n_rows, 3))
    X[:, 0] = 1.0
    rare = rng.choice(n_rows, 30, replace=False)
    X[rare, 1:] = 1.0
    X[rare[:4], 1] = X[rare[4:8], 2] = 0.0
    y = X @ [2.0, 1.0, -0.5] + rng.normal(size=n_rows)
    trainer = linear(X, y, "advi")
    found = trainer.fit()
    assert trainer.result.converged
    sds = np.diag(X.T @ X + np.eye(3)) ** -0.5
    np.testing.assert_allclose(found.std.eval(), sds, rtol=0.02)


def test_a_few_rows_of_great_weight() -> None:
    rng, n_rows = np.random.default_rng(0), 60_000
    X = np.column_stack([np.ones(n_rows), rng.standard_cauchy(n_rows), rng.normal(size=n_rows)])
    X[-10:] *= 50.0
    y = X @ [0.5, 0.1, -0.5] + rng.normal(size=n_rows)
    trainer = linear(X, y, "advi")
    found = trainer.fit()
    assert trainer.result.converged
    np.testing.assert_allclose(found.std.eval(), np.diag(X.T @ X + np.eye(3)) ** -0.5, rtol=0.02)


@pytest.mark.parametrize("method", ["advi", "fullrank_advi"])
@pytest.mark.parametrize("events", [0, 1, 3])
def test_a_handful_of_events(events, method) -> None:
    """The best normal for the log odds, by quadrature."""
    n_rows = 2_000
    y = np.zeros(n_rows)
    y[:events] = 1.0
    loader = DataLoader(np.random.default_rng(0).permutation(y), 500)
    with pm.Model() as model:
        p = pm.Beta("p", 1.0, 1.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Bernoulli("y", p, observed=batch, total_size=n_rows)
    points, weights = np.polynomial.hermite_e.hermegauss(61)

    def negative_elbo(q: np.ndarray) -> float:
        z = q[0] + np.exp(q[1]) * points
        ones, zeros = -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)
        expected = ((events + 1) * ones + (n_rows - events + 1) * zeros) @ weights / weights.sum()
        return -(expected + q[1])

    mean, log_sd = minimize(negative_elbo, [-7.0, -0.3], method="Nelder-Mead").x
    trainer = Trainer(method, loader, model=model, random_seed=0, progressbar=False)
    found = trainer.fit()
    assert trainer.result.converged
    assert abs(found.mean.eval()[0] - mean) / np.exp(log_sd) < 0.1
    assert found.std.eval()[0] == pytest.approx(np.exp(log_sd), rel=0.04)


def test_a_density_with_kinks_has_no_curvature_at_its_mode() -> None:
    y = 3.0 + np.random.default_rng(0).normal(size=2_000)
    loader = DataLoader(y, 500)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 10.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Laplace("y", mu, 1.0, observed=batch, total_size=len(loader))
    trainer = Trainer("laplace", loader, model=model, random_seed=0, progressbar=False)
    with pytest.warns(errors.NotConvergedWarning, match="kinks"):
        trainer.fit()
    assert trainer.result.status is Status.KINKED


def test_a_smooth_density_far_from_normal_has_no_kinks() -> None:
    rng, n_groups, n_rows = np.random.default_rng(0), 30, 600
    group = np.repeat(np.arange(n_groups), n_rows // n_groups)
    y = rng.random(n_rows) < 1.0 / (1.0 + np.exp(1.0 - 0.3 * rng.normal(size=n_groups)[group]))
    loader = DataLoader({"group": group, "y": y.astype(float)}, 100)
    zeros = loader.placeholder()
    with pm.Model() as model:
        spread, mean = pm.HalfNormal("spread", 1.0), pm.Normal("mean", 0.0, 3.0)
        z = pm.Normal("z", 0.0, 1.0, shape=n_groups)
        of, clicks = pm.Data("group", zeros["group"]), pm.Data("y", zeros["y"])
        logit = mean + spread * z[of]
        pm.Bernoulli("clicks", logit_p=logit, observed=clicks, total_size=n_rows)
    trainer = Trainer("laplace", loader, model=model, random_seed=0, progressbar=False)
    trainer.fit()
    assert trainer.result.converged


@pytest.mark.parametrize("method", ["advi", "fullrank_advi", "laplace"])
def test_a_second_fit_only_looks_whether_it_is_there(method) -> None:
    trainer = trainer_for(correlated_linear(), method=method)
    first = trainer.fit().mean.eval()
    second = trainer.fit().mean.eval()
    assert trainer.result.converged
    assert len(trainer.result.trail) <= trainer.result.passes <= 2
    assert trainer.result.trail[0].step < 0.01
    np.testing.assert_allclose(second, first, atol=1e-4)


@pytest.mark.parametrize("method", ["advi", "fullrank_advi"])
def test_effects_that_are_not_centred(method) -> None:
    """A product of parameters: the optimum is at the end of a narrow ridge that is not straight."""
    random = np.random.default_rng(5)
    n_rows, n_groups = 20_000, 8
    group = random.integers(n_groups, size=n_rows)
    effects = random.normal(0.0, 0.7, n_groups)
    x = random.normal(size=n_rows)
    y = -2.0 + 0.6 * x + effects[group] + random.normal(size=n_rows)
    loader = DataLoader({"x": x, "group": group, "y": y}, 1_000)
    zeros = loader.placeholder()
    with pm.Model() as model:
        x_, codes, y_ = (pm.Data(name, zeros[name]) for name in ("x", "group", "y"))
        a, b, spread = pm.Normal("a", 0.0, 3.0), pm.Normal("b", 0.0, 1.0), pm.HalfNormal("s", 1.0)
        unit = pm.Normal("unit", 0.0, 1.0, shape=n_groups)
        mean = a + b * x_ + (spread * unit)[codes]
        pm.Normal("likelihood", mean, 1.0, observed=y_, total_size=n_rows)
    trainer = Trainer(method, loader, model=model, random_seed=0, progressbar=False)
    found = trainer.fit(max_passes=40)
    assert trainer.result.converged
    # The expected log-density in closed form: of normals, with the moments of a log-normal.
    counts = np.bincount(group, minlength=n_groups)
    in_group = np.bincount(group, y, minlength=n_groups), np.bincount(group, x, minlength=n_groups)
    order = list(trainer.approximation.groups[0].ordering)
    assert order == ["a", "b", "s_log__", "unit"]

    def negative_elbo(q: np.ndarray) -> float:
        m, factor = q[:11], np.zeros((11, 11))
        if method == "advi":
            np.fill_diagonal(factor, np.exp(q[11:]))
        else:
            factor[np.tril_indices(11)] = q[11:]
            factor[np.diag_indices(11)] = np.exp(np.diag(factor))
        cov = factor @ factor.T
        log_s, var_s = m[2], cov[2, 2]
        e_s, e_ss = np.exp(log_s + var_s / 2), np.exp(2 * log_s + 2 * var_s)
        # Under exp(z) a normal has its mean moved by the covariance with z: Stein.
        mu, c = m[3:], cov[2, 3:]
        su = e_s * (mu + c)
        ssuu = e_ss * ((mu + 2 * c) ** 2 + np.diag(cov)[3:])
        sua = e_s * ((mu + c) * (m[0] + cov[0, 2]) + cov[0, 3:])
        sub = e_s * ((mu + c) * (m[1] + cov[1, 2]) + cov[1, 3:])
        aa, bb, ab = m[0] ** 2 + cov[0, 0], m[1] ** 2 + cov[1, 1], m[0] * m[1] + cov[0, 1]
        square = (
            y @ y
            + n_rows * aa
            + (x @ x) * bb
            + counts @ ssuu
            - 2 * (m[0] * y.sum() + m[1] * (x @ y) + in_group[0] @ su)
            + 2 * (ab * x.sum() + counts @ sua + in_group[1] @ sub)
        )
        prior = -0.5 * (aa / 9.0 + bb + (mu**2 + np.diag(cov)[3:]).sum() + e_ss) + log_s
        entropy = np.log(np.diag(factor)).sum()
        return 0.5 * square - prior - entropy

    location, factor = found.mean.eval(), np.linalg.cholesky(found.cov.eval())
    if method == "advi":
        scales = np.log(np.diag(factor))
    else:
        logs = factor.copy()
        logs[np.diag_indices(11)] = np.log(np.diag(factor))
        scales = logs[np.tril_indices(11)]
    here = np.concatenate([location, scales])
    best = minimize(negative_elbo, here, method="L-BFGS-B", options={"maxfun": 1_000_000})
    assert negative_elbo(here) - best.fun < 0.02  # nats


@pytest.mark.parametrize("n_rows", [5, 20])
def test_a_small_group_beside_large_ones(n_rows) -> None:
    """Its covariance has noise of looks at few points, which is no reason to go on for ever."""
    random = np.random.default_rng(5)
    group = random.integers(7, size=50_000)
    group[:n_rows] = 7
    x = random.normal(size=len(group))
    logit = -2.0 + 0.6 * x + random.normal(0.0, 0.7, 8)[group]
    y = (random.random(len(group)) < 1.0 / (1.0 + np.exp(-logit))).astype(float)
    order = random.permutation(len(group))
    loader = DataLoader({"x": x[order], "group": group[order], "y": y[order]}, 1_000)
    zeros = loader.placeholder()
    with pm.Model() as model:
        x_, codes, y_ = (pm.Data(name, zeros[name]) for name in ("x", "group", "y"))
        a, b, spread = pm.Normal("a", 0.0, 3.0), pm.Normal("b", 0.0, 1.0), pm.HalfNormal("s", 1.0)
        effect = pm.Normal("effect", 0.0, spread, shape=8)
        pm.Bernoulli("y_", logit_p=a + b * x_ + effect[codes], observed=y_, total_size=len(y))
    trainer = Trainer("fullrank_advi", loader, model=model, random_seed=0, progressbar=False)
    trainer.fit()
    assert trainer.result.converged


def test_steps_take_two_rows_at_least() -> None:
    loader = DataLoader(np.zeros(10), batch_size=1)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 1.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Normal("y", mu, 1.0, observed=batch, total_size=len(loader))
    trainer = Trainer("advi", loader, model=model, random_seed=0, progressbar=False)
    trainer.fit()
    assert trainer.result.converged
    with pytest.raises(errors.ArgumentError, match="two rows or more"):
        trainer.fit(10)


@pytest.mark.parametrize("method", ["advi", "fullrank_advi"])
def test_few_rows_of_groups_are_fitted_alike_whatever_the_seed(method) -> None:
    """Effects of unknown spread, where what is averaged over points is far from a cubic."""
    random = np.random.default_rng(1)
    group = random.integers(5, size=100)
    logit = random.normal(0.0, 0.8, 5)[group]
    y = (random.random(100) < 1.0 / (1.0 + np.exp(-logit))).astype(float)
    loader = DataLoader({"group": group, "y": y}, 50)
    zeros = loader.placeholder()
    with pm.Model() as model:
        codes, y_ = pm.Data("group", zeros["group"]), pm.Data("y", zeros["y"])
        mean, spread = pm.Normal("mean", 0.0, 2.0), pm.HalfNormal("spread", 1.0)
        effect = pm.Normal("effect", mean, spread, shape=5)
        pm.Bernoulli("clicks", logit_p=effect[codes], observed=y_, total_size=len(loader))
    fits = []
    for seed in range(4):
        trainer = Trainer(method, loader, model=model, random_seed=seed, progressbar=False)
        found = trainer.fit()
        assert trainer.result.converged
        fits.append((found.mean.eval(), np.sqrt(np.diag(found.cov.eval()))))
    (mean, sd), *others = fits
    for other_mean, other_sd in others:
        assert np.abs((other_mean - mean) / sd).max() < 0.05
        np.testing.assert_allclose(other_sd, sd, rtol=0.03)


@pytest.mark.parametrize(
    ("method", "error"), [("fullrank_advi", errors.NonFiniteError), ("laplace", None)]
)
def test_a_limit_that_depends_on_a_parameter(method, error) -> None:
    """Wide draws, beyond the limit, have no finite gradient; and the mode is at it."""
    loader = DataLoader(np.random.default_rng(0).random(300), 100)
    with pm.Model() as model:
        limit = pm.HalfNormal("limit", 5.0, initval=3.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Uniform("y", 0.0, limit, observed=batch, total_size=len(loader))
    trainer = Trainer(method, loader, model=model, random_seed=0, progressbar=False)
    if error:
        with pytest.raises(error, match="not finite"):
            trainer.fit()
    else:
        with pytest.warns(errors.NotConvergedWarning, match="kinks"):
            trainer.fit()


def test_a_mode_at_a_kink_of_the_prior() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 4))
    loader = DataLoader({"x": x, "y": x[:, 0] + rng.normal(size=2_000)}, 500)
    zeros = loader.placeholder()
    with pm.Model() as model:
        b = pm.Laplace("b", 0.0, 0.01, shape=4)
        x_, y = pm.Data("x", zeros["x"]), pm.Data("y", zeros["y"])
        pm.Normal("likelihood", x_ @ b, 1.0, observed=y, total_size=len(loader))
    trainer = Trainer("laplace", loader, model=model, random_seed=0, progressbar=False)
    with pytest.warns(errors.NotConvergedWarning, match="kinks"):
        trainer.fit()
    assert trainer.result.status is Status.KINKED


def test_absolute_values_of_a_handful_of_rows() -> None:
    y = np.random.default_rng(2).laplace(size=4)
    loader = DataLoader(y, 2)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 5.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Laplace("y", mu, 1.0, observed=batch, total_size=len(loader))
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)

    def negative(at: np.ndarray) -> float:
        z = at[0] + np.exp(at[1]) * nodes
        density = -0.02 * z**2 - np.abs(z[:, None] - y).sum(axis=1)
        return -float(density @ weights / weights.sum() + at[1])

    best = minimize(negative, [0.0, 0.0], method="Nelder-Mead", tol=1e-8).x
    for method in ("advi", "fullrank_advi"):
        trainer = Trainer(method, loader, model=model, random_seed=0, progressbar=False)
        found = trainer.fit()
        assert trainer.result.converged
        assert abs(found.mean.eval()[0] - best[0]) < 0.02 * np.exp(best[1])
        assert found.std.eval()[0] == pytest.approx(np.exp(best[1]), rel=0.02)


def test_wide_effects_of_groups_without_events() -> None:
    """Against the ELBO, which has a closed form."""
    rng = np.random.default_rng(0)
    n_groups, size = 12, 3
    group = np.repeat(np.arange(n_groups), size)
    y = rng.poisson(np.exp(-0.5 + 2.0 * rng.normal(size=n_groups))[group])
    y[group < 4] = 0
    loader = DataLoader({"group": group, "y": y}, 11)
    zeros = loader.placeholder()
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0.0, 2.0), pm.HalfNormal("tau", 2.0)
        z = pm.Normal("z", mu, tau, shape=n_groups)
        codes, count = pm.Data("group", zeros["group"]), pm.Data("y", zeros["y"])
        pm.Poisson("count", pm.math.exp(z[codes]), observed=count, total_size=len(loader))
    trainer = Trainer("advi", loader, model=model, random_seed=0, progressbar=False)
    found = trainer.fit()
    mean, sd = found.mean.eval(), found.std.eval()
    totals = np.bincount(group, y)

    def negative(at: np.ndarray) -> float:
        m, v = at[: n_groups + 2], np.exp(2.0 * at[n_groups + 2 :])
        rows = totals @ m[2:] - size * np.exp(m[2:] + 0.5 * v[2:]).sum()
        priors = -0.125 * (m[0] ** 2 + v[0]) - 0.125 * np.exp(2.0 * (m[1] + v[1])) + m[1]
        apart = ((m[2:] - m[0]) ** 2 + v[2:] + v[0]).sum()
        effects = -n_groups * m[1] - 0.5 * np.exp(-2.0 * (m[1] - v[1])) * apart
        return -float(rows + priors + effects + at[n_groups + 2 :].sum())

    best = minimize(negative, np.concatenate([mean, np.log(sd)]), method="BFGS").x
    assert trainer.result.converged
    np.testing.assert_allclose((mean - best[: n_groups + 2]) / sd, 0.0, atol=0.05)
    np.testing.assert_allclose(np.log(sd), best[n_groups + 2 :], atol=0.03)


def test_more_columns_than_can_be_told_apart(monkeypatch) -> None:
    monkeypatch.setattr("pymc_streaming.vi.exact.MOST_COLUMNS", 4)
    trainer = trainer_for(correlated_linear())
    with pytest.warns(errors.NotConvergedWarning, match="random signs"):
        trainer.fit()
    assert trainer.result.status is Status.TOO_MANY
