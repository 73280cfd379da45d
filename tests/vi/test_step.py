"""The compiled step against finite differences, closed forms and PyMC's own objective."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode
from pytensor.raise_op import Assert

from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import FullRankGuide, MeanFieldGuide
from pymc_streaming.vi.optimizers import AnnealedAdam
from pymc_streaming.vi.step import Step

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}
N, B = 1_000, 20
rng = np.random.default_rng(0)
BATCH = {"y": rng.normal(1.0, 2.0, size=B)}
FAMILIES = [MeanFieldGuide, FullRankGuide]


@pytest.fixture(scope="module")
def model() -> pm.Model:
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 3.0)
        sigma = pm.HalfNormal("sigma", 2.0)
        y = pm.Data("y", np.zeros(B))
        pm.Normal("likelihood", mu, sigma, observed=y, total_size=N)
    return model


def make_step(model, guide, optimizer=None, batch=BATCH, compile_kwargs=FAST) -> Step:
    binding = Binding(model, None, batch)
    step = Step(binding, model.observed_RVs, guide, optimizer or AnnealedAdam(), compile_kwargs)
    step.compile(batch)
    return step


def take(step: Step, noise, batches=BATCH, rate: float = 0.01) -> None:
    """Steps on consecutive batches, one for each row of `noise`."""
    noise = np.atleast_2d(noise)
    step(batches, noise, np.full(len(noise), rate), np.ones(len(noise)))


def negative_elbo(guide, draws: np.ndarray) -> float:
    """Straight from the definition, with SciPy's densities."""
    from scipy import stats

    mu, log_sigma = draws.T
    sigma = np.exp(log_sigma)
    density = (
        stats.norm.logpdf(mu, 0, 3)
        + stats.halfnorm.logpdf(sigma, scale=2)
        + log_sigma
        + N / B * stats.norm.logpdf(BATCH["y"][:, None], mu, sigma).sum(axis=0)
    )
    return float(-density.mean() - guide.entropy())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_negative_elbo(model, family):
    guide = family(model, 0)
    guide.location[:] = 0.3, 0.5
    guide.scales[:2] = np.log([0.4, 0.2])
    step = make_step(model, guide)
    noise = np.random.default_rng(1).normal(size=(50, 2))
    expected = negative_elbo(guide, np.array([0.3, 0.5]) + noise * [0.4, 0.2])
    assert np.mean([step.loss(BATCH, row) for row in noise]) == pytest.approx(expected, rel=1e-10)


def test_the_objective_is_that_of_pm_advi(model):
    guide = MeanFieldGuide(model, 0)
    location, log_scale = np.array([0.7, 0.6]), np.log([0.3, 0.1])
    guide.location[:], guide.scales[:] = location, log_scale
    step = make_step(model, guide)
    ours = np.mean([step.loss(BATCH, row) for row in rng.normal(size=(4_000, 2))])
    approximation = guide.write(location, log_scale)
    model["y"].set_value(BATCH["y"])
    with model:
        loss = -approximation.logp + approximation.logq
        theirs = approximation.set_size_and_deterministic(loss.mean(), 4_000, 0).eval()
    assert ours == pytest.approx(float(theirs), rel=0.005)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_against_finite_differences(model, family):
    """With plain gradient descent at rate one, a step is minus the gradient."""
    guide = family(model, 0)
    values = [rng.normal(size=len(array)) / 4 for array in (guide.location, guide.scales)]

    def descend(gradients, parameters):
        pairs = zip(parameters, gradients, strict=True)
        return {parameter: parameter - gradient for parameter, gradient in pairs}

    step = make_step(model, guide, descend)
    noise = rng.normal(size=2)
    parameters = guide.location, guide.scales

    def restore() -> None:
        for parameter, value in zip(parameters, values, strict=True):
            parameter[:] = value

    def loss(pair: bool) -> float:
        if not pair:
            return step.loss(BATCH, noise)
        return 0.5 * (step.loss(BATCH, noise) + step.loss(BATCH, -noise))

    for index in (0, 1):
        pair = index % guide.scales_every == 0
        moved = parameters if pair else parameters[:1]
        expected = [np.zeros_like(parameter) for parameter in parameters]
        for parameter, slope in zip(moved, expected, strict=False):
            for i in range(slope.size):
                sides = []
                for sign in (1, -1):
                    restore()
                    parameter[i] += sign * 1e-6
                    sides.append(loss(pair))
                slope[i] = (sides[0] - sides[1]) / 2e-6
        restore()
        take(step, noise, rate=1.0)
        for parameter, value, slope in zip(parameters, values, expected, strict=True):
            np.testing.assert_allclose(value - parameter, slope, rtol=1e-5, atol=1e-5)


def test_mirrored_draws_cancel_the_noise_of_picking_rows(model):
    """The spread of a scale's gradient over batches: one draw against a pair."""
    guide = MeanFieldGuide(model, 0)
    location = np.array([1.0, np.log(2.0)])
    guide.location[:], guide.scales[:] = location, np.log(0.02)
    step = make_step(model, guide)
    loss = step.loss

    def slopes(batch, noise) -> np.ndarray:
        """Of the loss along the log scales, by differences."""
        found = np.zeros(2)
        for i in range(2):
            for sign in (1, -1):
                guide.scales[:] = np.log(0.02)
                guide.scales[i] += sign * 1e-4
                found[i] += sign * loss(batch, noise) / 2e-4
        return found

    gradients = []
    for _ in range(300):
        batch, noise = {"y": rng.normal(1.0, 2.0, size=B)}, rng.normal(size=2)
        single = slopes(batch, noise)
        gradients.append([single, 0.5 * (single + slopes(batch, -noise))])
    spread, means = np.std(gradients, axis=0), np.mean(gradients, axis=0)
    assert np.all(spread[0] > 4 * spread[1])
    np.testing.assert_allclose(means[0], means[1], atol=4 * spread[0].max() / np.sqrt(300))


def test_scales_move_every_few_steps(model):
    guide = MeanFieldGuide(model, 0)
    step = make_step(model, guide)
    changed = []
    for _ in range(2 * guide.scales_every):
        location, scales = guide.location.copy(), guide.scales.copy()
        take(step, rng.normal(size=2))
        assert np.any(location != guide.location)
        changed.append(bool(np.any(scales != guide.scales)))
    assert changed == ([True] + [False] * 3) * 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_step_that_is_not_finite_changes_nothing_and_is_the_last(model, at):
    guide = MeanFieldGuide(model, 0)
    step = make_step(model, guide)
    noise = rng.normal(size=(5, 2))
    y = np.tile(BATCH["y"], 5)
    y[at * B] = 1e200
    take(step, noise, {"y": y})
    assert step.completed == at
    same = MeanFieldGuide(model, 0)
    reference = make_step(model, same)
    if at:
        take(reference, noise[:at], {"y": y[: at * B]})
    np.testing.assert_array_equal(guide.location, same.location)
    np.testing.assert_array_equal(guide.scales, same.scales)
    for average, expected in zip(step.averages(), reference.averages(), strict=True):
        np.testing.assert_array_equal(average, expected)
    take(step, noise[at])
    assert step.completed == at + 1


def test_data_outside_the_support_stop_the_steps():
    with pm.Model() as counts:
        rate = pm.Exponential("rate", 1.0)
        y = pm.Data("y", np.zeros(B, int))
        pm.Poisson("likelihood", rate, observed=y, total_size=N)
    guide = MeanFieldGuide(counts, 0)
    good = np.arange(B)
    step = make_step(counts, guide, batch={"y": good})
    take(step, np.zeros((3, 1)), {"y": np.concatenate([good, good - 1, good])})
    assert step.completed == 1


def grouped() -> tuple[pm.Model, dict[str, np.ndarray]]:
    """Two arrays of different types, and a pm.Data that is not refilled."""
    data = {"x": rng.normal(size=(4 * B, 2)), "group": rng.integers(0, 3, size=4 * B)}
    with pm.Model() as model:
        prior = pm.Data("prior", np.array([0.5, 1.0, 1.5]))
        effect = pm.Normal("effect", prior, 1.0, shape=3)
        slope = pm.Normal("slope", 0.0, 1.0)
        x = pm.Data("x", data["x"][:B])
        group = pm.Data("group", data["group"][:B])
        mean = effect[group] + slope * x[:, 0]
        pm.Normal("likelihood", mean, 1.0, observed=x[:, 1], total_size=N)
    return model, data


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", [None, "JAX"])
def test_every_backend_gives_the_parameters_of_a_set_data_loop(family, mode):
    """Against ``set_data``, PyMC's own gradient, and Adam and the averages in NumPy."""
    model, data = grouped()
    batch = {name: array[:B] for name, array in data.items()}
    guide = family(model, 0, 0.1)
    step = make_step(model, guide, batch=batch, compile_kwargs={"mode": mode})
    noise = np.random.default_rng(3).normal(size=(12, guide.size))
    rates, weights = np.linspace(0.05, 0.01, 12), 1.0 / np.maximum(1, np.arange(12) - 5)
    for start in range(0, 12, 4):  # in several calls, each of several batches
        part = slice(start, start + 4)
        step(data, noise[part], rates[part], weights[part])
    assert step.completed == 12
    model["prior"].set_value(np.array([5.0, 10.0, 15.0]))  # is seen by what is compiled
    take(step, noise[0], batch, rate=0.05)
    model["prior"].set_value(np.array([0.5, 1.0, 1.5]))

    slope = model.compile_dlogp(mode=FAST["mode"])
    reference = family(model, 0, 0.1)
    d = guide.size
    state = {name: [np.zeros(1), np.zeros(1), 0] for name in ("location", "scales")}

    def adam(name: str, values: np.ndarray, gradient: np.ndarray, rate: float) -> None:
        first, second, count = state[name]
        first, second, count = (
            0.9 * first + 0.1 * gradient,
            0.999 * second + 0.001 * gradient**2,
            count + 1,
        )
        state[name] = [first, second, count]
        bias = np.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        values -= rate * bias * first / (np.sqrt(second) + 1e-8)

    def gradient_at(draw: np.ndarray) -> np.ndarray:
        return -slope({"effect": draw[:3], "slope": draw[3]})

    averages = [reference.location.copy(), reference.scales.copy()]
    for k in [*range(12), 12]:
        if k == 12:
            model["prior"].set_value(np.array([5.0, 10.0, 15.0]))
        number = 0 if k == 12 else k % 4
        rows = slice(number * B, (number + 1) * B)
        with model:
            pm.set_data({name: array[rows] for name, array in data.items()})
        epsilon = noise[0 if k == 12 else k]
        rate, weight = (0.05, 1.0) if k == 12 else (rates[k], weights[k])
        unit = np.eye(d)
        unit[np.tril_indices(d, -1)] = reference.scales[d:] if len(reference.scales) > d else 0.0
        sd = np.exp(reference.scales[:d])
        deviation = sd * (unit @ epsilon)
        forward = gradient_at(reference.location + deviation)
        if k % guide.scales_every == 0:
            mirrored = gradient_at(reference.location - deviation)
            half = 0.5 * (forward - mirrored)
            of_scales = half * deviation - 1.0
            if len(reference.scales) > d:
                below = np.outer(half * sd, epsilon)[np.tril_indices(d, -1)]
                of_scales = np.concatenate([of_scales, below])
            adam("scales", reference.scales, of_scales, rate)
            forward = 0.5 * (forward + mirrored)
        adam("location", reference.location, forward, rate)
        for average, values in zip(averages, (reference.location, reference.scales), strict=True):
            average += weight * (values - average)
    np.testing.assert_allclose(guide.location, reference.location, rtol=1e-11)
    np.testing.assert_allclose(guide.scales, reference.scales, rtol=1e-11)
    for average, expected in zip(step.averages(), averages, strict=True):
        np.testing.assert_allclose(average, expected, rtol=1e-11)


@pytest.mark.parametrize("compile_kwargs", [{}, FAST])
def test_an_error_inside_the_model_is_raised(compile_kwargs):
    """The compiled loop does not swallow it."""
    with pm.Model() as model:
        scale = pm.Normal("scale", 0.0, 1.0)
        y = pm.Data("y", np.zeros(B))
        small = Assert("scale is ten or more")(scale, scale < 10.0)
        pm.Normal("likelihood", small, 1.0, observed=y, total_size=N)
    guide = MeanFieldGuide(model, 0)
    step = make_step(model, guide, compile_kwargs=compile_kwargs)
    guide.location[:] = 11.0
    with pytest.raises(AssertionError, match="ten or more"):
        take(step, np.zeros(1))
    assert step.completed == 0
