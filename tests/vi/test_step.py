"""The compiled step against finite differences, closed forms and PyMC's own objective."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import FullRankGuide, MeanFieldGuide
from pymc_streaming.vi.optimizers import AnnealedAdam
from pymc_streaming.vi.step import Step

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}
N, B = 1_000, 20
rng = np.random.default_rng(0)
BATCH = {"y": rng.normal(1.0, 2.0, size=B)}


@pytest.fixture(scope="module")
def model() -> pm.Model:
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 3.0)
        sigma = pm.HalfNormal("sigma", 2.0)
        y = pm.Data("y", np.zeros(B))
        pm.Normal("likelihood", mu, sigma, observed=y, total_size=N)
    return model


def make_step(model, guide, optimizer=None, batch=BATCH) -> Step:
    binding = Binding(model, None, batch)
    terms = model.logp(vars=model.observed_RVs, sum=False)
    step = Step(
        binding.static(model.logp()),
        [binding.static(term) for term in terms],
        binding.slots,
        guide,
        optimizer or AnnealedAdam(),
        FAST,
    )
    step.compile()
    step.hand_over = binding.hand_over
    return step


def negative_elbo(guide, model, draws: np.ndarray) -> float:
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
    return float(-density.mean() - guide.entropy().eval())


@pytest.mark.parametrize("family", [MeanFieldGuide, FullRankGuide])
def test_the_loss_is_the_negative_elbo(model, family):
    guide = family(model, 0)
    guide.location.set_value(np.array([0.3, 0.5]))
    guide.scales["log_scale"].set_value(np.log([0.4, 0.2]))
    step = make_step(model, guide)
    noise = np.random.default_rng(1).normal(size=(50, 2))
    expected = negative_elbo(guide, model, np.array([0.3, 0.5]) + noise * [0.4, 0.2])
    assert np.mean([step.loss(row) for row in noise]) == pytest.approx(expected, rel=1e-10)


def test_the_objective_is_that_of_pm_advi(model):
    guide = MeanFieldGuide(model, 0)
    location, log_scale = np.array([0.7, 0.6]), np.log([0.3, 0.1])
    guide.location.set_value(location)
    guide.scales["log_scale"].set_value(log_scale)
    step = make_step(model, guide)
    ours = np.mean([step.loss(row) for row in rng.normal(size=(4_000, 2))])
    approximation = guide.write(location, {"log_scale": log_scale})
    model["y"].set_value(BATCH["y"])
    with model:
        loss = -approximation.logp + approximation.logq
        theirs = approximation.set_size_and_deterministic(loss.mean(), 4_000, 0).eval()
    assert ours == pytest.approx(float(theirs), rel=0.005)


@pytest.mark.parametrize("family", [MeanFieldGuide, FullRankGuide])
def test_gradients_against_finite_differences(model, family):
    """With plain gradient descent at rate one, a step is minus the gradient."""
    guide = family(model, 0)
    values = {
        parameter: rng.normal(size=parameter.type.shape) / 4 for parameter in guide.parameters
    }
    descend = lambda gradients, parameters: {  # noqa: E731
        parameter: parameter - gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    }
    step = make_step(model, guide, descend)
    noise, one = rng.normal(size=2), np.ones(())

    def loss(pair: bool) -> float:
        return 0.5 * (step.loss(noise) + step.loss(-noise)) if pair else step.loss(noise)

    for index in (0, 1):
        pair = index % guide.scales_every == 0
        moved = guide.parameters if pair else [guide.location]
        for parameter in guide.parameters:
            parameter.set_value(values[parameter])
        expected = {}
        for parameter in moved:
            slope = np.zeros(parameter.type.shape)
            for i in range(slope.size):
                sides = []
                for sign in (1, -1):
                    shifted = values[parameter].copy()
                    shifted[i] += sign * 1e-6
                    parameter.set_value(shifted)
                    sides.append(loss(pair))
                slope[i] = (sides[0] - sides[1]) / 2e-6
            parameter.set_value(values[parameter])
            expected[parameter] = slope
        step(index, noise, one, one)
        for parameter in guide.parameters:
            change = values[parameter] - parameter.get_value()
            np.testing.assert_allclose(
                change, expected.get(parameter, 0 * change), rtol=1e-5, atol=1e-5
            )


def test_mirrored_draws_cancel_the_noise_of_picking_rows(model):
    """The spread of a scale's gradient over batches: one draw against a pair."""
    guide = MeanFieldGuide(model, 0)
    guide.location.set_value(np.array([1.0, np.log(2.0)]))
    guide.scales["log_scale"].set_value(np.log([0.02, 0.02]))
    terms = model.logp()
    binding = Binding(model, None, BATCH)
    step = make_step(model, guide)
    log_scale = guide.scales["log_scale"]
    plain = pytensor.function(
        step._inputs[:1], pytensor.grad(step._plain, log_scale), mode=FAST["mode"]
    )
    pair = pytensor.function(
        step._inputs[:1],
        pytensor.grad(0.5 * (step._plain + step._mirrored), log_scale),
        mode=FAST["mode"],
    )
    assert terms.ndim == 0
    assert binding.n_rows == B
    gradients = []
    for _ in range(300):
        step.hand_over({"y": rng.normal(1.0, 2.0, size=B)})
        noise = rng.normal(size=2)
        gradients.append([plain(noise), pair(noise)])
    spread = np.std(gradients, axis=0)
    means = np.mean(gradients, axis=0)
    assert np.all(spread[0] > 4 * spread[1])
    np.testing.assert_allclose(means[0], means[1], atol=4 * spread[0].max() / np.sqrt(300))


def test_scales_move_every_few_steps(model):
    guide = MeanFieldGuide(model, 0)
    step = make_step(model, guide)
    rate = np.asarray(0.01)
    changed = []
    for index in range(2 * guide.scales_every):
        before = guide.scales["log_scale"].get_value().copy(), guide.location.get_value().copy()
        step(index, rng.normal(size=2), rate, np.ones(()))
        assert np.any(before[1] != guide.location.get_value())
        changed.append(bool(np.any(before[0] != guide.scales["log_scale"].get_value())))
    assert changed == ([True] + [False] * 3) * 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("index", [0, 1])
def test_a_step_that_is_not_finite_changes_nothing(model, index):
    guide = MeanFieldGuide(model, 0)
    step = make_step(model, guide)
    rate, noise = np.asarray(0.01), rng.normal(size=2)
    step(0, noise, rate, np.ones(()))
    state = [parameter.get_value().copy() for parameter in guide.parameters]
    averages = step.averages()[0].copy()
    step.hand_over({"y": np.full(B, 1e200)})
    step(index, noise, rate, np.ones(()))
    step.hand_over(BATCH)
    step(index, noise, rate, np.ones(()))  # too late: it has halted
    assert step.completed == 1
    for parameter, before in zip(guide.parameters, state, strict=True):
        np.testing.assert_array_equal(parameter.get_value(), before)
    np.testing.assert_array_equal(step.averages()[0], averages)
    step.resume()
    step(index, noise, rate, np.ones(()))
    assert step.completed == 2


def test_data_outside_the_support_halt_the_step():
    with pm.Model() as counts:
        rate = pm.Exponential("rate", 1.0)
        y = pm.Data("y", np.zeros(B, int))
        pm.Poisson("likelihood", rate, observed=y, total_size=N)
    guide = MeanFieldGuide(counts, 0)
    batch = {"y": np.arange(B)}
    step = make_step(counts, guide, batch=batch)
    arguments = np.zeros(1), np.asarray(0.01), np.ones(())
    step(0, *arguments)
    step.hand_over({"y": np.arange(B) - 1})
    step(1, *arguments)
    assert step.completed == 1
