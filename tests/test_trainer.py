from __future__ import annotations

import re
import threading
import warnings

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from threadpoolctl import ThreadpoolController, threadpool_limits

from pymc_streaming import (
    AnnealedAdam,
    ArraySpec,
    DataLoader,
    Fragment,
    IterableDataset,
    Trainer,
    errors,
    generator_source,
    parquet_source,
    table_source,
)
from pymc_streaming.limits import ENVIRONMENT
from tests.models import KNOWN, conjugate_normal, correlated_linear

# Most fits here are short on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::pymc_streaming.errors.NotConvergedWarning")
# Nothing is compiled: what is tested is the loop, not the speed.
FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}


def loader_for(known, batch_size: int = 500) -> DataLoader:
    return DataLoader(
        known.data if len(known.data) > 1 else known.data["batch"], batch_size, shuffle=True, seed=0
    )


def small_model(loader: DataLoader) -> pm.Model:
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 10.0)
        batch = pm.Data("batch", np.full(loader.batch_size, 7.0))
        pm.Normal("y", mu, 1.0, observed=batch, total_size=len(loader))
    return model


def small_trainer(y=None, batch_size=50, **options) -> Trainer:
    y = np.random.default_rng(0).normal(2.0, 1.0, size=1_000) if y is None else y
    loader = y if isinstance(y, DataLoader) else DataLoader(y, batch_size, shuffle=True, seed=1)
    options = {"random_seed": 0, "progressbar": False, "compile_kwargs": FAST} | options
    return Trainer("advi", loader, model=small_model(loader), **options)


@pytest.mark.parametrize("build", KNOWN, ids=lambda build: build.__name__)
@pytest.mark.parametrize("method", ["advi", "fullrank_advi"])
def test_known_posteriors(build, method):
    known = build()
    loader = loader_for(known)
    approximation = Trainer(
        method, loader, model=known.build(loader), random_seed=0, progressbar=False
    ).fit(10_000 if method == "advi" else 12_000)
    mean, covariance = approximation.mean.eval(), approximation.cov.eval()
    sd = np.sqrt(np.diag(known.covariance))
    assert np.abs((mean - known.mean) / sd).max() < 0.35
    if method == "advi":
        np.testing.assert_allclose(np.sqrt(np.diag(covariance)), known.mean_field_sd, rtol=0.1)
    else:
        error = np.linalg.norm(covariance - known.covariance, 2)
        assert error / np.linalg.norm(known.covariance, 2) < 0.1


def test_the_linear_problem_is_correlated():
    covariance = correlated_linear().covariance
    sd = np.sqrt(np.diag(covariance))
    neighbours = np.diag(covariance / np.outer(sd, sd), 1)
    np.testing.assert_allclose(neighbours, 0.9, atol=0.01)


@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning")
@pytest.mark.parametrize("float_x", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numba", "jax", "c"])
def test_conjugate_normal_on_every_backend(backend, float_x):
    with pytensor.config.change_flags(floatX=float_x):
        known = conjugate_normal()
        loader = loader_for(known)
        assert loader.layout["batch"].dtype == float_x
        approximation = Trainer(
            "advi",
            loader,
            model=known.build(loader),
            random_seed=0,
            backend=backend,
            progressbar=False,
        ).fit(4_000)
        sd = known.mean_field_sd[0]
        assert approximation.mean.eval().dtype == float_x
        assert approximation.mean.eval()[0] == pytest.approx(known.mean[0], abs=0.3 * sd)
        assert approximation.std.eval()[0] == pytest.approx(sd, rel=0.1)


class Recording(IterableDataset):
    """Remembers what was read, and can fail or interrupt."""

    def __init__(self, y, size=100, on_row=None):
        self.layout = {"batch": ArraySpec((), np.dtype("float64"), ("y",))}
        self.y, self.size = y, size
        self.fragments = [
            Fragment(len(y[i : i + size]), f"piece {i // size}") for i in range(0, len(y), size)
        ]

    def read(self, fragment):
        start = self.size * int(fragment.origin.split()[1])
        yield {"batch": self.y[start : start + self.size]}


class Spy:
    """A step that is told what it is called with before it is."""

    def __init__(self, step, before):
        self._step, self._before = step, before

    def __call__(self, batches, *arguments):
        self._before(batches["batch"])
        self._step(batches, *arguments)

    def __getattr__(self, name):
        return getattr(self._step, name)


def spied(trainer: Trainer, before) -> Trainer:
    """The same trainer, calling `before` with the rows of every call of its step."""
    prepare = trainer._fits.prepare_steps

    def prepared(batch):
        fit = prepare(batch)
        fit.step = Spy(fit.step, before)
        return fit

    if trainer._fits.steps is not None:
        trainer._fits.steps.step = Spy(trainer._fits.steps.step, before)
    else:
        trainer._fits.prepare_steps = prepared
    return trainer


def handed_over(trainer: Trainer, n: int) -> np.ndarray:
    """The rows that `n` steps see, in order."""
    seen = []
    spied(trainer, lambda rows: seen.append(rows.copy())).fit(n)
    trainer._fits.steps.step = trainer._fits.steps.step._step
    return np.concatenate(seen)


def test_exactly_n_steps_on_consecutive_full_batches():
    y = np.arange(1_030.0)
    trainer = small_trainer(DataLoader(y, 100, shuffle=True, seed=3))
    rows = handed_over(trainer, 31)
    assert len(rows) == 3_100
    for epoch in range(3):  # the tail of each pass opens the next: nothing lost, nothing doubled
        assert sorted(rows[epoch * 1_030 : (epoch + 1) * 1_030]) == list(y)


def test_a_second_fit_goes_on():
    once, twice = (small_trainer(np.arange(1_030.0), batch_size=100) for _ in range(2))
    rows = handed_over(once, 25)
    first = handed_over(twice, 10)
    compiled = twice._fits.steps
    location = twice._fits.subject.guide.location
    state, start = location.copy(), []
    run = compiled.run
    compiled.run = lambda *arguments: (start.append(location.copy()), run(*arguments))
    second = handed_over(twice, 15)
    assert twice._fits.steps is compiled
    np.testing.assert_array_equal(start[0], state)
    np.testing.assert_array_equal(np.concatenate([first, second]), rows)
    assert twice.history.step[-1] <= 25
    assert np.all(np.diff(twice.history.step) > 0)


@pytest.mark.parametrize(
    ("init", "start"), [(None, 0.0), ("map", 2.0), ({"mu": 3.25}, 3.25), ("prior", None)]
)
def test_where_steps_begin(init, start):
    trainer = small_trainer(init=init, optimizer=AnnealedAdam(learning_rate=1e-12))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.NotConvergedWarning)
        began = trainer.fit(1).mean.eval()[0]
    if start is None:
        assert abs(began) > 0.05  # a draw
    else:
        assert began == pytest.approx(start, abs=0.1)
    if init == "map":  # as narrow as all rows make it
        assert trainer.approximation.std.eval()[0] == pytest.approx(1 / np.sqrt(1_000), rel=0.1)


def test_the_same_seeds_give_the_same_parameters():
    results = [small_trainer().fit(200).mean.eval()[0] for _ in range(2)]
    assert results[0] == results[1]
    assert small_trainer(random_seed=1).fit(200).mean.eval()[0] != results[0]


def test_the_placeholder_is_untouched_and_the_result_is_pymcs():
    trainer = small_trainer()
    approximation = trainer.fit(300)
    assert isinstance(approximation, pm.MeanField)
    np.testing.assert_array_equal(trainer.model["batch"].get_value(), np.full(50, 7.0))
    trace = approximation.sample(100, random_seed=0)
    assert trace.posterior["mu"].shape == (1, 100)


def test_history_is_the_negative_elbo_in_nats():
    trainer = small_trainer()
    approximation = trainer.fit(3_000)
    history = trainer.history
    assert len(history.step) == len(history.loss) == len(history.rows) == len(history.seconds)
    np.testing.assert_array_equal(history.rows, 50 * history.step)
    np.testing.assert_array_equal(approximation.hist, history.loss)
    assert np.all(np.diff(history.seconds) > 0)
    y = trainer.dataloader.source.read(trainer.dataloader.source.fragments[0])
    y = next(iter(y))["batch"]
    # Conjugate: the bound is tight, so the loss is minus the log evidence.
    n, s0 = len(y), 10.0
    evidence = (
        -0.5 * n * np.log(2 * np.pi)
        - 0.5 * np.log(1 + n * s0**2)
        - 0.5 * (np.sum(y**2) - np.sum(y) ** 2 / (n + 1 / s0**2))
    )
    assert history.loss[-400:].mean() == pytest.approx(-evidence, rel=0.02)


def test_a_long_history_is_short():
    trainer = small_trainer()
    trainer.fit(5_000)
    assert 100 <= len(trainer.history.step) <= 110
    assert trainer.history.step[-1] == 5_000


def test_model_from_the_context_and_by_position():
    y = np.random.default_rng(0).normal(size=200)
    loader = DataLoader(y, 50)
    with small_model(loader):
        Trainer("advi", loader, "batch", progressbar=False, compile_kwargs=FAST).fit(3)


def test_pymc_optimizers():
    trainer = small_trainer(optimizer=pm.adam(learning_rate=0.02))
    y = trainer.dataloader.source
    approximation = trainer.fit(4_000)
    mean = next(iter(y.read(y.fragments[0])))["batch"].mean()
    assert approximation.mean.eval()[0] == pytest.approx(mean, abs=0.02)
    assert approximation.std.eval()[0] == pytest.approx(1 / np.sqrt(1_000), rel=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "nuts"},
        {"dataloader": np.zeros(3)},
        {"dataloader": None},
        {"optimizer": "adam"},
        {"optimizer": AnnealedAdam},
        {"backend": "fortran"},
        {"on_ordered": "shout"},
    ],
)
def test_arguments_that_cannot_be_meant(options):
    loader = DataLoader(np.zeros(100), 10)
    with pytest.raises(errors.ArgumentError, match=next(iter(options))):
        Trainer(**({"dataloader": loader, "model": small_model(loader)} | options))


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "10"])
def test_numbers_of_steps_that_cannot_be_meant(n):
    with pytest.raises(errors.ArgumentError, match="n must be a whole number"):
        small_trainer().fit(n)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinity_names_variable_and_batch_and_keeps_the_last_good_step():
    y = np.random.default_rng(0).normal(2.0, 1.0, size=1_000)
    y[730] = 1e200
    loader = DataLoader(Recording(y), 50)
    trainer = small_trainer(loader)
    with pytest.raises(errors.NonFiniteError, match=r"Step 15.*piece 7.*'y'.*last good step"):
        trainer.fit(100)
    good = trainer.approximation.mean.eval()[0]
    assert np.isfinite(good)
    assert trainer._fits.steps.step.completed == 14
    np.testing.assert_array_equal(trainer.history.step, [1])
    same = small_trainer(DataLoader(Recording(y), 50))
    rates = AnnealedAdam().rates(0, 100, 100)
    prepare = same._fits.prepare_steps

    def with_rates(batch):
        fit = prepare(batch)
        fit._rates = lambda start, stop, n: rates[start:stop]
        return fit

    same._fits.prepare_steps = with_rates
    same.fit(14)
    assert same._fits.subject.guide.location[0] == good
    np.testing.assert_array_equal(trainer.model["batch"].get_value(), np.full(50, 7.0))


def test_counts_below_zero_deep_in_the_data():
    y = np.random.default_rng(0).poisson(3.0, size=1_000)
    y[730] = -1
    loader = DataLoader({"y": y}, 50)
    with pm.Model() as model:
        rate = pm.Exponential("rate", 1.0)
        data = pm.Data("y", np.zeros(50, int))
        pm.Poisson("likelihood", rate, observed=data, total_size=len(loader))
    trainer = Trainer("advi", loader, model=model, progressbar=False, compile_kwargs=FAST)
    with pytest.raises(errors.NonFiniteError, match=r"Step 15.*'likelihood' is -inf"):
        trainer.fit(100)


def with_groups(group: np.ndarray, as_floats: bool, **options) -> Trainer:
    rng = np.random.default_rng(0)
    y = rng.normal(size=len(group))
    data = {"block": np.column_stack([y, group])} if as_floats else {"y": y, "group": group}
    loader = DataLoader(data, 50)
    zeros = loader.placeholder()
    with pm.Model() as model:
        effect = pm.Normal("effect", 0.0, 1.0, shape=7)
        if as_floats:
            block = pm.Data("block", zeros)
            y, group = block[:, 0], block[:, 1].astype("int64")
        else:
            y, group = pm.Data("y", zeros["y"]), pm.Data("group", zeros["group"])
        pm.Normal("likelihood", effect[group], 1.0, observed=y, total_size=len(loader))
    return Trainer("advi", loader, model=model, progressbar=False, **options)


@pytest.mark.parametrize("as_floats", [False, True])
@pytest.mark.parametrize(
    ("code", "limits"), [(7, "0 to 7"), (100_000_000, "0 to 100"), (-1, "-1 to")]
)
def test_a_code_without_a_parameter_deep_in_the_data(code, limits, as_floats):
    """Compiled by numba, which does not look whether an index is in range."""
    group = np.random.default_rng(1).integers(0, 7, size=1_000)
    with_groups(group, as_floats).fit(30)
    group[730] = code
    trainer = with_groups(group, as_floats)
    with pytest.raises(errors.IndexRangeError, match=rf"Step 15.*'effect' run from {limits}"):
        trainer.fit(30)
    assert trainer._fits.steps.step.completed == 14
    assert np.isfinite(trainer.approximation.mean.eval()).all()


def test_a_parameter_too_far_away_is_a_warning():
    y = np.random.default_rng(0).normal(200.0, 1.0, size=1_000)

    def fit(**options) -> Trainer:
        loader = DataLoader(y, 50)
        with pm.Model() as model:
            mu = pm.Normal("mu", 0.0, 1e3, **options)
            batch = pm.Data("batch", loader.placeholder())
            pm.Normal("y", mu, 1.0, observed=batch, total_size=len(loader))
        trainer = Trainer(
            "advi", loader, model=model, random_seed=0, progressbar=False, compile_kwargs=FAST
        )
        trainer.fit(2_000)
        return trainer

    with pytest.warns(errors.NotConvergedWarning, match="'mu'.*initval"):
        fit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = fit(initval=199.0)
    assert trainer.approximation.mean.eval()[0] == pytest.approx(y.mean(), abs=0.02)


@pytest.mark.parametrize("scale", [0.02, 1.0, 100.0])
def test_scales_far_from_where_they_start(scale):
    """A predictor that is not standardised: a posterior much narrower than the start."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(scale=scale, size=100_000), rng.normal(size=100_000)
    y = 0.3 + 0.5 / scale * x + noise
    loader = DataLoader({"x": x, "y": y}, 500, shuffle=True, seed=0)
    zeros = loader.placeholder()
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 100.0, shape=2)
        log_sigma = pm.Normal("log_sigma", 0.0, 1.0)
        x_data, y_data = pm.Data("x", zeros["x"]), pm.Data("y", zeros["y"])
        sigma = pt.exp(log_sigma)
        pm.Normal("like", b[0] + b[1] * x_data, sigma, observed=y_data, total_size=len(loader))
    approximation = Trainer("advi", loader, model=model, random_seed=0, progressbar=False).fit(
        10_000
    )
    expected = np.array([1.0, 1.0 / scale, np.sqrt(0.5)]) / np.sqrt(100_000)
    np.testing.assert_allclose(approximation.std.eval(), expected, rtol=0.15)


def test_a_model_that_changed_since_the_first_fit():
    trainer = small_trainer()
    trainer.fit(5)
    with trainer.model:
        pm.Normal("other", trainer.model["mu"], 1.0, observed=3.0)
    with pytest.raises(errors.ArgumentError, match="new Trainer"):
        trainer.fit(5)


@pytest.mark.parametrize("build", KNOWN, ids=lambda build: build.__name__)
def test_no_warning_where_it_converged(build):
    known = build()
    loader = loader_for(known)
    trainer = Trainer("advi", loader, model=known.build(loader), random_seed=1, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(6_000)


def test_interrupted_after_a_while():
    trainer = small_trainer()
    trainer.fit(10)
    rows = []

    def interrupting(batches):
        if trainer._fits.steps.step.completed >= 50:
            raise KeyboardInterrupt
        rows.append(batches.copy())

    approximation = spied(trainer, interrupting).fit(10_000)
    steps = trainer._fits.steps.step.completed
    assert 50 <= steps < 1_000
    assert np.isfinite(approximation.mean.eval()).all()
    trainer._fits.steps.step = trainer._fits.steps.step._step
    rows.append(handed_over(trainer, 5))
    assert trainer.approximation is approximation
    assert trainer._fits.steps.step.completed == steps + 5
    # Where it was interrupted, it goes on: no row is left out, none is seen twice.
    uninterrupted = handed_over(small_trainer(), steps + 5)[10 * 50 :]
    np.testing.assert_array_equal(np.concatenate(rows), uninterrupted)


def test_an_error_in_the_data_keeps_what_was_fitted():
    class Broken(Recording):
        def read(self, fragment):
            if fragment.origin == "piece 7":
                raise errors.CorruptFileError("piece 7 is damaged")
            yield from super().read(fragment)

    y = np.random.default_rng(0).normal(size=1_000)
    trainer = small_trainer(DataLoader(Broken(y), 50))
    with pytest.raises(errors.CorruptFileError, match="piece 7"):
        trainer.fit(100)
    assert trainer._fits.steps.step.completed == 14
    assert trainer.approximation is not None
    np.testing.assert_array_equal(trainer.model["batch"].get_value(), np.full(50, 7.0))


def test_nan_in_a_late_block_is_named():
    y = np.random.default_rng(0).normal(size=1_000)
    y[730] = np.nan
    trainer = small_trainer(DataLoader(Recording(y), 50))
    with pytest.raises(errors.MissingValueError, match="piece 7"):
        trainer.fit(100)


def test_wrong_n_is_caught_at_the_end_of_the_first_pass():
    y = np.random.default_rng(0).normal(size=1_000)
    source = generator_source(lambda: iter([y[:500], y[500:]]), n_rows=900)
    trainer = small_trainer(DataLoader(source, 50))
    with pytest.raises(errors.RowCountError, match=r"900"):
        trainer.fit(100)
    assert trainer._fits.steps.step.completed <= 20


def test_no_thread_is_left():
    before = set(threading.enumerate())
    trainer = small_trainer()
    trainer.fit(20)
    assert set(threading.enumerate()) == before


def test_a_source_that_reuses_its_buffer():
    y = np.random.default_rng(0).normal(2.0, 1.0, size=(20, 50))

    def reusing():
        buffer = np.empty(50)
        for rows in y:
            buffer[:] = rows
            yield buffer

    trainer = small_trainer(DataLoader(generator_source(reusing, n_rows=1_000), 50))
    np.testing.assert_array_equal(handed_over(trainer, 20), y.ravel())


def test_silent_without_a_terminal(capfd):
    small_trainer(progressbar=True).fit(20)
    output = capfd.readouterr()
    assert output.out == output.err == ""


def drifting(n: int = 120_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.linspace(-1.0, 1.0, n) + rng.normal(size=n)


def never(*arguments, **options):
    raise AssertionError("nothing is to be looked at")


def order_trainer(y, n_buffer=None, shuffle=True, size=2_000, **options) -> Trainer:
    buffer = {"buffer_size": n_buffer} if n_buffer is not None else {}
    loader = DataLoader(Recording(y, size), 500, shuffle=shuffle, seed=0, **buffer)
    return small_trainer(loader, **options)


@pytest.mark.parametrize(
    ("buffer_size", "shuffle", "how"),
    [(6_000, True, "mixed in a buffer of 6,000 rows"), (None, False, "read in order")],
)
def test_ordered_rows_are_a_warning_once(buffer_size, shuffle, how):
    trainer = order_trainer(drifting(), buffer_size, shuffle)
    with pytest.warns(errors.OrderedDataWarning, match=how) as caught:
        trainer.fit(2)
    (message,) = [str(w.message) for w in caught if w.category is errors.OrderedDataWarning]
    assert "column 'y' changes along the table" in message
    assert re.search(r"off by up to [\d,.]+ posterior standard deviation", message)
    assert "pymc-streaming shuffle SOURCE OUTPUT --seed 0" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error", errors.OrderedDataWarning)
        trainer.fit(2)


def test_ordered_rows_can_be_an_error_before_anything_is_compiled():
    trainer = order_trainer(drifting(), 6_000, on_ordered="error")
    trainer._fits.prepare_steps = never
    with pytest.raises(errors.OrderedDataError, match="column 'y'"):
        trainer.fit(2)
    assert trainer.approximation is None


def test_nothing_is_looked_at_where_nothing_can_be_wrong(monkeypatch):
    monkeypatch.setattr("pymc_streaming.ordering.guard.judge_source", never)
    order_trainer(drifting(), 120_000).fit(2)
    order_trainer(drifting(), 6_000, on_ordered="ignore").fit(2)
    known = Recording(drifting(), 2_000)
    known.is_shuffled = True
    small_trainer(DataLoader(known, 500)).fit(2)


@pytest.mark.parametrize("shuffle", [False, True])
def test_shuffled_rows_are_no_warning(shuffle):
    y = np.random.default_rng(1).permutation(drifting())
    order_trainer(y, 6_000 if shuffle else None, shuffle).fit(2)


def test_order_that_does_not_reach_the_batch_is_no_warning(tmp_path):
    y = np.random.default_rng(1).normal(size=100_000)
    table = pa.table({"y": y, "day": np.arange(100_000) // 1_000})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=5_000)
    source = parquet_source(tmp_path / "t.parquet", columns={"batch": "y"})
    small_trainer(DataLoader(source, 500, shuffle=True, buffer_size=5_000)).fit(2)
    both = parquet_source(tmp_path / "t.parquet", columns={"batch": "day"})
    with pytest.warns(errors.OrderedDataWarning, match="'day'.*t.parquet shuffled"):
        small_trainer(DataLoader(both, 500, shuffle=True, buffer_size=5_000)).fit(2)


def test_the_warning_names_the_placeholder_as_the_model_has_it():
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(size=120_000), drifting()])
    loader = DataLoader(table, 500, seed=0)
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 1.0)
        rows = pm.Data("rows", loader.placeholder())
        pm.Normal("y", b * rows[:, 0], 1.0, observed=rows[:, 1], total_size=len(loader))
    trainer = Trainer("advi", loader, "rows", model=model, progressbar=False, compile_kwargs=FAST)
    with pytest.warns(errors.OrderedDataWarning, match=r"order: rows\[:, 1\] changes along"):
        trainer.fit(2)


def test_order_in_a_column_that_the_model_does_not_read_is_no_warning():
    """A row number that came along."""
    y = np.random.default_rng(0).normal(size=120_000)
    loader = DataLoader(np.column_stack([np.arange(120_000.0), y]), 500, seed=0)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 1.0)
        rows = pm.Data("rows", loader.placeholder())
        pm.Normal("y", mu, 1.0, observed=rows[:, 1], total_size=len(loader))
    trainer = Trainer("advi", loader, "rows", model=model, progressbar=False, compile_kwargs=FAST)
    trainer.fit(2)


def test_what_shuffled_rows_would_be_off_by_is_not_held_against_the_order():
    """A fit of few steps on a part of the rows, and a drift that adds little to its error."""
    y = np.random.default_rng(0).normal(size=1_000_000) + np.linspace(-0.01, 0.01, 1_000_000)
    order_trainer(y, size=20_000, shuffle=False).fit(2)
    strong = y + np.linspace(-1.0, 1.0, 1_000_000)
    with pytest.warns(errors.OrderedDataWarning):
        order_trainer(strong, size=20_000, shuffle=False).fit(2)


@pytest.mark.filterwarnings("ignore::pymc_streaming.errors.OrderedDataWarning")
@pytest.mark.parametrize("on_ordered", ["warn", "ignore"])
def test_a_fit_that_does_not_converge_names_the_order_it_was_warned_about(on_ordered):
    y = 200.0 + drifting()
    with pytest.warns(errors.NotConvergedWarning) as caught:
        order_trainer(y, 6_000, on_ordered=on_ordered).fit(100)
    (message,) = [str(w.message) for w in caught if w.category is errors.NotConvergedWarning]
    assert ("shuffle the table" in message) == (on_ordered == "warn")
    if on_ordered == "warn":
        assert message.index("shuffle the table") < message.index("initval")


def test_fixed_data_in_another_layout_between_fits():
    fixed = np.asfortranarray(np.arange(12.0).reshape(4, 3) / 10)
    loader = DataLoader({"g": np.arange(640) % 4, "y": np.zeros(640)}, 32)
    with pm.Model():
        data = {name: pm.Data(name, value) for name, value in loader.placeholder().items()}
        k = pm.Data("K", fixed)
        b = pm.Normal("b", shape=3)
        pm.Normal("o", (k @ b)[data["g"]], 1, observed=data["y"], total_size=640)
        trainer = Trainer("advi", loader, random_seed=0, progressbar=False, on_ordered="ignore")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.NotConvergedWarning)
            trainer.fit(10)
            for other in (np.ascontiguousarray(fixed), fixed, np.repeat(fixed, 2, axis=1)[:, ::2]):
                pm.set_data({"K": other})
                trainer.fit(10)
    assert trainer.history.step[-1] == 40


def test_blas_leaves_a_core_to_reading(monkeypatch):
    """Until the fit is over, however it ends."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    blas = ThreadpoolController().select(user_api="blas")
    seen = []

    def transform(block):
        seen.append({library["num_threads"] for library in blas.info()})
        if len(seen) > 50:
            raise ValueError("enough")
        return block["y"]

    table = pa.table({"y": np.random.default_rng(0).normal(size=1_000)})
    loader = DataLoader(table_source(table, transform=transform), 50)
    trainer = small_trainer(loader, on_ordered="ignore")
    with threadpool_limits(3, user_api="blas"):
        before = {library["num_threads"] for library in blas.info()}
        trainer.fit(200)
        assert {min(2, n) for n in before} in seen
        assert {library["num_threads"] for library in blas.info()} == before
        with pytest.raises(errors.TransformError, match="enough"):
            trainer.fit(20_000)
        assert {library["num_threads"] for library in blas.info()} == before


# Strategies ----------------------------------------------------------------------------


class Counted(IterableDataset):
    """A table that counts how often a fragment of it is read."""

    def __init__(self, n_rows: int = 1_000, n_fragments: int = 5) -> None:
        self.layout = {"batch": ArraySpec((), np.dtype("float64"))}
        rows = n_rows // n_fragments
        self.fragments = [Fragment(rows, f"part {i}") for i in range(n_fragments)]
        self.reads = 0

    def read(self, fragment):
        self.reads += 1
        rng = np.random.default_rng(self.fragments.index(fragment))
        yield {"batch": rng.normal(2.0, 1.0, size=min(fragment.n_rows, 10**6))}


def trainer_with(source=None, **options) -> tuple[Trainer, IterableDataset]:
    source = Counted() if source is None else source
    return small_trainer(DataLoader(source, 50, shuffle=True, seed=1), **options), source


@settings(deadline=None, max_examples=4)
@given(
    n=st.none() | st.integers(1, 60),
    n_fragments=st.sampled_from([1, 4, 10]),
    seed=st.integers(0, 5),
)
def test_rows_in_memory_give_the_same_numbers(n, n_fragments, seed) -> None:
    found = []
    for strategy in ("in_memory", "accumulate" if n is None else "streaming"):
        trainer, _ = trainer_with(
            Counted(n_fragments=n_fragments), strategy=strategy, random_seed=seed
        )
        approximation = trainer.fit() if n is None else trainer.fit(n)
        found.append([value.get_value() for value in approximation.params])
        if n is not None:
            found[-1].append(trainer.fit(n).mean.eval())  # goes on, at the same row
    np.testing.assert_equal(*found)


@pytest.mark.parametrize("n", [None, 100])
def test_rows_in_memory_are_read_once(n) -> None:
    fit = [] if n is None else [n]
    trainer, source = trainer_with(strategy="in_memory")
    trainer.fit(*fit)
    before = source.reads
    trainer.fit(*fit)
    assert source.reads == before
    trainer.strategy = "auto"
    trainer.fit(100)  # flat memory: nothing is kept any more
    assert source.reads > before


def test_what_a_fit_does_by_default(caplog) -> None:
    trainer, source = trainer_with()
    assert (trainer.plan().strategy, trainer.plan(10).strategy) == ("in_memory", "streaming")
    assert source.reads == 0
    with caplog.at_level("INFO", "pymc_streaming"):
        trainer.fit()
    (line,) = [r for r in caplog.records if r.getMessage().startswith("strategy")]
    assert line.levelname == "INFO"
    assert line.getMessage().startswith("strategy in_memory: 1,000 rows, estimated peak ")


def test_each_setting_changes_the_decision(monkeypatch) -> None:
    def decision(**options) -> str:
        trainer, _ = trainer_with(Counted(10**7), **options)
        return trainer.plan().strategy

    monkeypatch.delenv(ENVIRONMENT, raising=False)
    now = psutil.Process().memory_info().rss
    free = type("Memory", (), {"available": 4 * 10**9})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    trainer, _ = trainer_with(Counted(10**7))
    short = trainer.plan().peak_bytes - 4 * 10**7  # the table takes 80 MB
    assert decision(memory_limit="64GB") == "in_memory"
    assert decision(memory_limit=short) == "accumulate"
    assert decision() == "in_memory"
    assert decision(memory_fraction=short / (now + 4 * 10**9)) == "accumulate"
    assert decision(strategy="accumulate") == "accumulate"
    monkeypatch.setenv(ENVIRONMENT, str(short))
    assert decision() == "accumulate"
    assert decision(memory_limit="64GB") == "in_memory"


def test_a_table_that_was_to_stay_in_memory_and_does_not_fit(caplog) -> None:
    limit = psutil.Process().memory_info().rss + 2**29
    source = Counted(10**9, 1)  # as it says
    trainer, _ = trainer_with(source, strategy="in_memory", memory_limit=limit)
    for n, strategy in ((None, "accumulate"), (10**8, "streaming")):
        plan = trainer.plan(n)
        assert plan.strategy == strategy
        assert plan.is_fallback
        assert plan.fits
    with caplog.at_level("INFO", "pymc_streaming"), pytest.raises(errors.RowCountError):
        trainer.fit()
    (line,) = [r for r in caplog.records if r.getMessage().startswith("strategy")]
    assert line.levelname == "WARNING"
    assert re.search(r"in_memory would take [\d,]+ MiB, accumulate fits$", line.getMessage())


@pytest.mark.parametrize("fit", [(), (100,)])
def test_when_nothing_fits_the_fit_says_so(fit) -> None:
    trainer, _ = trainer_with(memory_limit="1MiB")
    assert not trainer.plan(*fit).fits
    with pytest.warns(errors.MemoryLimitWarning, match="limit 1 MiB.*takes least, and exceeds"):
        trainer.fit(*fit)
    assert trainer.approximation is not None


def test_a_plan_after_the_fit(monkeypatch) -> None:
    source = Counted(n_rows=2_000_000)
    trainer, _ = trainer_with(source, strategy="in_memory")
    assert trainer.plan().parts["compilation"] > 0
    trainer.fit()
    plan = trainer.plan()
    assert plan.parts["compilation"] == 0
    monkeypatch.setattr(trainer, "_kept", None)
    # The table, of which every row is in memory, is not counted with what the process has too.
    difference = trainer.plan().parts["process now"] - plan.parts["process now"]
    assert difference == pytest.approx(16 * 10**6, abs=4 * 10**6)


def test_strategies_that_are_not_for_such_a_fit() -> None:
    trainer, _ = trainer_with(strategy="accumulate")
    for call in (trainer.plan, trainer.fit):
        with pytest.raises(errors.ArgumentError, match=r"makes exact passes until converged"):
            call(100)
    with pytest.raises(errors.ArgumentError, match="n must be a whole number"):
        trainer.plan(0)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "memory"},
        {"memory_fraction": 0},
        {"memory_fraction": True},
        {"memory_fraction": float("nan")},
        {"memory_limit": "-1GB"},
        {"memory_limit": 0},
    ],
)
def test_settings_that_cannot_be_meant(options) -> None:
    (name,) = options
    with pytest.raises(errors.ArgumentError, match=f"^{name} must be"):
        trainer_with(**options)


def test_interrupted_while_rows_are_read_for_the_first_time() -> None:
    source = Counted()
    read, source.stop = source.read, True

    def interrupted(fragment):
        if source.stop and fragment is source.fragments[3]:
            source.stop = False
            raise KeyboardInterrupt
        yield from read(fragment)

    source.read = interrupted
    trainer, _ = trainer_with(source, strategy="in_memory")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert not source.stop
    found = trainer.fit().mean.eval()
    y = np.concatenate([next(read(fragment))["batch"] for fragment in source.fragments])
    assert found == pytest.approx(y.mean(), abs=0.01)
