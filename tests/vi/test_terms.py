"""The two terms against PyMC's own log-density of the whole table, in memory."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming.vi import terms as terms_module
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import MeanFieldGuide
from pymc_streaming.vi.terms import Terms

N, B = 2_500, 100
FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}
rng = np.random.default_rng(0)
DATA = {
    "x": rng.normal(size=(N, 3)),
    "group": rng.integers(0, 5, size=N),
    "y": rng.poisson(2.0, size=N),
}


def build(n_rows: int) -> pm.Model:
    with pm.Model() as model:
        b = pm.Normal("b", 0.0, 2.0, shape=3)
        sigma = pm.HalfNormal("sigma", 1.0)
        effect = pm.Normal("effect", 0.0, sigma, shape=5)
        x, group, y = (pm.Data(name, DATA[name][:n_rows]) for name in ("x", "group", "y"))
        pm.Normal("held", b.sum(), 1.0, observed=[0.5, 1.5])
        eta = x @ b + effect[group]
        pm.Poisson("counts", pm.math.exp(0.1 * eta), observed=y, total_size=N)
        pm.Normal("values", eta, sigma, observed=y, total_size=N)
    return model


def make_terms(compile_kwargs=FAST) -> tuple[Terms, MeanFieldGuide]:
    model = build(B)
    batch = {name: array[:B] for name, array in DATA.items()}
    guide = MeanFieldGuide(model, 0)
    streamed = [model["counts"], model["values"]]
    return Terms(Binding(model, None, batch), streamed, guide, batch, N, compile_kwargs), guide


def total(terms: Terms, points: np.ndarray, chunk_rows: int, data=DATA, weights=None):
    n_rows = len(data["y"])
    chunks = -(-n_rows // chunk_rows)
    out = np.zeros_like(points)
    chosen = np.tile(np.arange(len(points)), (chunks, 1))
    weights = np.ones(n_rows) if weights is None else weights
    terms.add_likelihood(data, weights, chunk_rows, points, chosen, out)
    return out


@pytest.fixture(scope="module")
def compiled() -> tuple[Terms, MeanFieldGuide]:
    return make_terms({})


@pytest.mark.parametrize("n_cores", [2, 3, 9])
def test_threads_change_nothing(compiled, n_cores, monkeypatch):
    monkeypatch.setattr(terms_module, "_WORTH_THREADS", 0)
    monkeypatch.setattr(terms_module, "n_cores", lambda: 1)
    alone = total(compiled[0], POINTS, 100)
    monkeypatch.setattr(terms_module, "n_cores", lambda: n_cores)
    np.testing.assert_array_equal(total(compiled[0], POINTS, 100), alone)


POINTS = np.random.default_rng(1).normal(scale=0.3, size=(4, 9))


def in_memory(points: np.ndarray) -> np.ndarray:
    """Gradients of PyMC's log-density, all rows at once."""
    model = build(N)
    guide = MeanFieldGuide(model, 0)
    function = model.compile_dlogp()
    names = [value.name for value in model.value_vars]
    gradients = []
    for point in points:
        values = {name: point[where].reshape(shape) for name, where, shape, _ in _order(guide)}
        gradient = np.asarray(function(values))
        starts = np.cumsum([0, *[values[name].size for name in names]])
        flat = np.empty(guide.size)
        for name, where, *_ in _order(guide):
            k = names.index(name)
            flat[where] = gradient[starts[k] : starts[k + 1]]
        gradients.append(flat)
    return np.array(gradients)


def _order(guide: MeanFieldGuide) -> list:
    return list(guide.group.ordering.values())


@pytest.mark.parametrize("chunk_rows", [1_000, 1_024, 2_499, N, 2 * N])
def test_sums_over_chunks_are_the_gradient_of_the_whole_table(compiled, chunk_rows) -> None:
    terms, _ = compiled
    _, prior = terms.prior(POINTS)
    expected = in_memory(POINTS)
    found = total(terms, POINTS, chunk_rows) + prior
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_values_are_the_log_density_of_the_whole_table(compiled) -> None:
    terms, guide = compiled
    found = np.zeros(len(POINTS))
    terms.add_values(DATA, np.ones(N), 1_000, POINTS, found)
    log_density = build(N).compile_logp()
    expected = [
        log_density({name: z[where].reshape(shape) for name, where, shape, _ in _order(guide)})
        for z in POINTS
    ]
    np.testing.assert_allclose(found + terms.prior(POINTS)[0], expected, rtol=1e-12)
    twice = found.copy()
    terms.add_values(DATA, np.ones(N), N, POINTS, twice)
    np.testing.assert_allclose(twice, 2 * found, rtol=1e-12)


@pytest.mark.parametrize("backend", ["c", "jax"])
def test_other_backends_give_the_same(compiled, backend) -> None:
    other, _ = make_terms({"mode": backend.upper() if backend == "jax" else "FAST_COMPILE"})
    terms, _ = compiled
    for one, two in zip(terms.prior(POINTS), other.prior(POINTS), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10)
    np.testing.assert_allclose(
        total(terms, POINTS, 1_000), total(other, POINTS, 1_000), rtol=1e-9, atol=1e-7
    )


def test_each_chunk_is_looked_at_where_it_was_asked(compiled) -> None:
    terms, _ = compiled
    chosen = np.array([[0, 3], [2, 3], [0, 1]])
    out = np.zeros_like(POINTS)
    terms.add_likelihood(DATA, np.ones(N), 1_000, POINTS, chosen, out)
    expected = np.zeros_like(out)
    for chunk, points in enumerate(chosen):
        rows = {name: array[1_000 * chunk : 1_000 * (chunk + 1)] for name, array in DATA.items()}
        expected[points] += total(terms, POINTS, 1_000, rows)[points]
    np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_a_row_of_weight_three_counts_as_three_rows(compiled) -> None:
    terms, _ = compiled
    rows = {name: array[:50] for name, array in DATA.items()}
    weights = np.ones(50)
    weights[7] = 3.0
    thrice = {name: np.concatenate([a, a[7:8], a[7:8]]) for name, a in rows.items()}
    np.testing.assert_allclose(
        total(terms, POINTS, 50, rows, weights), total(terms, POINTS, 60, thrice), rtol=1e-12
    )


@pytest.mark.parametrize(("name", "bad"), [("group", 5), ("group", -1), ("y", -1)])
def test_impossible_data_make_nan_of_the_gradient(compiled, name, bad) -> None:
    terms, _ = compiled
    rows = {key: array[:50].copy() for key, array in DATA.items()}
    rows[name][20] = bad
    assert np.isnan(total(terms, POINTS, 50, rows)).all()
    values = np.zeros(len(POINTS))
    terms.add_values(rows, np.ones(50), 50, POINTS, values)
    assert np.isnan(values).all()


@pytest.mark.parametrize("n_threads", [2, 3, 4, 7, 16])
@pytest.mark.parametrize("pairs", [1, 2])
def test_shares_have_no_point_in_common_and_all_of_them(n_threads, pairs):
    first = np.arange(37) % (8 // pairs) * pairs
    forward = first[:, None] + np.arange(pairs)
    chosen = np.concatenate([forward, forward + 8], axis=1)
    shares = terms_module._shares(chosen, n_threads)
    assert 2 <= len(shares) <= n_threads
    points = [set(share[share >= 0].tolist()) for share in shares]
    assert sum(map(len, points)) == len(set.union(*points))
    looked = np.concatenate([share[share >= 0] for share in shares])
    np.testing.assert_array_equal(np.sort(looked), np.sort(chosen.ravel()))


def test_threads_that_share_out_chunks_change_nothing(compiled, monkeypatch):
    chosen = (np.arange(25) % 2)[:, None] + np.array([0, 2])
    found = []
    monkeypatch.setattr(terms_module, "_WORTH_THREADS", 0)
    for n_cores in (1, 2):
        monkeypatch.setattr(terms_module, "n_cores", lambda n=n_cores: n)
        found.append(np.zeros_like(POINTS))
        compiled[0].add_likelihood(DATA, np.ones(N), 100, POINTS, chosen, found[-1])
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0]).min() > 0
