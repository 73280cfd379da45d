from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import MeanFieldGuide
from pymc_streaming.vi.passes import Sample
from pymc_streaming.vi.structure import Groups, WithRareGroups, colours_of, groups_of, weighted
from pymc_streaming.vi.terms import Terms

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}
N, G = 400, 7
rng = np.random.default_rng(0)
ROWS = {
    "x": rng.normal(size=(N, 2)),
    "house": rng.integers(0, 20, size=N),
    "day": rng.integers(0, 3, size=N),
    "y": rng.normal(size=N),
}
COUNTY = rng.integers(0, G, size=20)
COUNTY[:G] = np.arange(G)


@pytest.fixture(scope="module")
def parts() -> tuple[Binding, Terms, MeanFieldGuide, Sample]:
    with pm.Model() as model:
        x, house, day, y = (pm.Data(name, ROWS[name]) for name in ("x", "house", "day", "y"))
        b = pm.Normal("b", 0.0, 1.0, shape=2)
        tau = pm.HalfNormal("tau", 1.0)
        intercept = pm.Normal("intercept", 0.0, 1.0, shape=G)
        slopes = pm.Normal("slopes", 0.0, 1.0, shape=(G, 2))
        of_day = pm.Normal("of_day", 0.0, 1.0, shape=3)
        county = pt.as_tensor(COUNTY)[house]
        mean = x @ b + tau * intercept[county] + (slopes[county] * x).sum(axis=1) + of_day[day]
        pm.Normal("likelihood", mean, 1.0, observed=y, total_size=10 * N)
    binding, guide = Binding(model, None, ROWS), MeanFieldGuide(model, 0)
    guide.location[:] = 0.3
    return (
        binding,
        Terms(binding, model.observed_RVs, guide, ROWS, 10 * N, FAST),
        guide,
        Sample(ROWS),
    )


@pytest.mark.parametrize("seed", range(20))
def test_parameters_that_no_row_has_two_of_share_a_colour(parts, seed) -> None:
    _, terms, guide, sample = parts
    colours = colours_of(terms, guide, guide.location, 1e-3, sample, np.random.default_rng(seed))
    of = {name: colours[where].tolist() for name, where, *_ in guide.group.ordering.values()}
    assert len(set(of["b"])) == 2
    assert len(set(of["intercept"])) == len(set(of["of_day"])) == 1
    assert of["slopes"] == of["slopes"][:2] * G
    assert of["slopes"][0] != of["slopes"][1]
    everything = [set(each) for each in of.values()]
    assert sum(map(len, everything)) == len(set().union(*everything)) == 7


@pytest.mark.parametrize("seed", range(12))
def test_two_parameters_that_rows_have_in_common_never_share_a_colour(parts, seed) -> None:
    _, terms, guide, sample = parts
    colours = colours_of(terms, guide, guide.location, 1e-3, sample, np.random.default_rng(seed))
    where = next(where for name, where, *_ in guide.group.ordering.values() if name == "b")
    assert len(set(colours[where])) == 2


def test_groups_are_found_through_a_table_of_codes(parts) -> None:
    binding, terms, guide, sample = parts
    colours = colours_of(terms, guide, guide.location, 1e-3, sample, np.random.default_rng(0))
    groups = groups_of(binding, terms, guide, colours, sample)
    found = {tuple(each.elements.shape): each.codes_of(ROWS) for each in groups}
    assert set(found) == {(G, 1), (G, 2), (3, 1)}
    np.testing.assert_array_equal(found[(G, 1)], COUNTY[ROWS["house"]])
    np.testing.assert_array_equal(found[(3, 1)], ROWS["day"])


def test_weights_give_groups_the_curvature_they_have_in_the_table() -> None:
    codes = np.array([0, 0, 0, 1, 1, 2])
    groups = [Groups(np.arange(4)[:, None], lambda rows: codes)]  # of group 3 there is no row
    of_sample = np.array([30.0, 20.0, 10.0, 0.0])
    of_table = np.array([60.0, 10.0, 10.0, 5.0])
    rows = weighted(Sample({"x": np.zeros(6)}), groups, of_sample, of_table)
    np.testing.assert_allclose(rows.weights, [2.0, 2.0, 2.0, 0.5, 0.5, 1.0])


def test_weights_of_crossed_groups() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 3, 5_000), rng.integers(0, 4, 5_000)
    wanted = rng.uniform(0.5, 2.0, 3)[one] * rng.uniform(0.5, 2.0, 4)[two]
    groups = [
        Groups(np.arange(3)[:, None], lambda rows: one),
        Groups(3 + np.arange(4)[:, None], lambda rows: two),
    ]
    plain = np.concatenate([np.bincount(one), np.bincount(two)]).astype(float)
    table = np.concatenate([np.bincount(one, wanted), np.bincount(two, wanted)])
    weights = weighted(Sample({"x": np.zeros(5_000)}), groups, plain, table).weights
    np.testing.assert_allclose(weights, wanted, rtol=0.05)


def test_rows_of_groups_that_the_sample_lacks_are_kept() -> None:
    codes = np.random.default_rng(0).integers(0, 50, 5_000)
    data = {"code": codes, "x": np.arange(5_000.0)}
    lacking = np.flatnonzero(codes % 7 != 0)[:600]
    sample = Sample({name: array[lacking] for name, array in data.items()})
    groups = [Groups(np.arange(60)[:, None], lambda rows: rows["code"])]

    class InBlocks(Sample):
        def go_over(self, multiple, sums):
            for start in range(0, self.n_rows, multiple):
                rows = {name: a[start : start + multiple] for name, a in self.rows.items()}
                for each in sums:
                    each.add(rows, np.ones(len(rows["x"])))

    class Count:
        rows = 0

        def add(self, rows, weights):
            self.rows += len(weights)

    table, count = WithRareGroups(InBlocks(data), groups, sample), Count()
    for times in (1, 2):
        table.go_over(64, [count])
        assert count.rows == 5_000 * times
    added = {name: array[600:] for name, array in table.extended_sample().rows.items()}
    assert sorted(added["code"]) == list(range(0, 50, 7))
    np.testing.assert_array_equal(codes[added["x"].astype(int)], added["code"])


def test_elements_of_which_a_row_may_have_two_have_colours_of_their_own() -> None:
    """Papers with two authors, but none with both of the last in the rows that are looked at."""
    one = np.arange(N) % G
    rows = {"one": one, "two": (one + 1) % 3, "y": ROWS["y"]}
    with pm.Model() as model:
        one, two, y = (pm.Data(name, rows[name]) for name in ("one", "two", "y"))
        author = pm.Normal("author", 0.0, 1.0, shape=G)
        again = pm.Normal("again", 0.0, 1.0, shape=G)
        mean = author[one] + author[two] + again[one] * (1.0 + again[one + 0])
        pm.Normal("likelihood", mean, 1.0, observed=y, total_size=N)
    binding, guide = Binding(model, None, rows), MeanFieldGuide(model, 0)
    terms = Terms(binding, model.observed_RVs, guide, rows, N, FAST)
    alone = Sample({name: array[rows["one"] == 5] for name, array in rows.items()})
    random = np.random.default_rng(0)
    colours = colours_of(terms, guide, guide.location, 1e-3, alone, random)
    assert len(set(colours[:G])) == G
