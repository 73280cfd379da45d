from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pymc_streaming.ordering.features import column_features
from pymc_streaming.ordering.statistics import Feature, Layout, lag_test, quadratic_tail, run_tests


def layout_of(n_fragments: int = 8, runs: int = 16, length: int = 50, gap: int = 30) -> Layout:
    number = np.arange(n_fragments * runs)
    return Layout(number * (length + gap), np.full(len(number), length), number // runs)


def standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def p_values(values: np.ndarray, layout: Layout) -> dict[str, float]:
    feature = Feature(layout.sums(values)[:, None], 1, float(np.mean(values**4)) - 3)
    return {test.kind: test.p_value for test in run_tests(feature, layout)}


def test_a_gamma_without_excess_is_chi_squared():
    for freedom in (1, 7, 300):
        statistic = freedom + 5 * np.sqrt(2 * freedom)
        expected = stats.chi2.sf(statistic, freedom)
        assert quadratic_tail(statistic, freedom, 0.0, 1.0) == pytest.approx(expected)


def test_the_between_fragment_statistic_is_that_of_an_analysis_of_variance():
    layout = layout_of()
    rng = np.random.default_rng(0)
    values = rng.normal(size=int(layout.rows)) + 0.08 * np.repeat(rng.normal(size=8), 800)
    _, reference = stats.f_oneway(*np.split(values, 8))
    assert p_values(standardised(values), layout)["fragments"] == pytest.approx(reference, rel=0.05)


def test_the_trend_is_that_of_a_linear_regression_on_the_position():
    layout = layout_of()
    position = np.repeat(np.arange(128.0), 50)
    values = np.random.default_rng(1).normal(size=6_400) + 0.001 * position
    reference = stats.linregress(position, values).pvalue
    assert p_values(standardised(values), layout)["trend"] == pytest.approx(reference, rel=0.05)


def test_levels_are_tested_as_in_a_contingency_table():
    layout = layout_of()
    rng = np.random.default_rng(2)
    codes = np.where(rng.random(6_400) < 0.95, rng.integers(0, 5, 6_400), np.arange(6_400) // 800)
    table = np.stack([np.bincount(part, minlength=8) for part in np.split(codes, 8)])
    reference = stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue
    found = column_features(codes, layout, rng)
    levels = next(feature for feature in found.features if feature.what == "levels")
    p = {test.kind: test.p_value for test in levels.tests}
    assert p["fragments"] == pytest.approx(reference, rel=0.2)
    assert reference < 0.05


def rare(rng, n):
    return (rng.random(n) < 0.012).astype(float)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.standard_cauchy(size=n),
        rare,
        lambda rng, n: rng.zipf(1.5, size=n).clip(max=40),
        lambda rng, n: np.where(rng.random(n) < 0.97, np.nan, rng.normal(size=n)),
    ],
    ids=["normal", "cauchy", "rare", "codes", "nulls"],
)
def test_p_values_of_shuffled_rows_are_uniform_or_larger(make):
    """Against the definition of a p-value, over many shuffled tables."""
    layout = layout_of(n_fragments=6, runs=8, length=60)
    rng = np.random.default_rng(3)
    found: list[float] = []
    for _ in range(150):
        features = column_features(make(rng, int(layout.rows)), layout, rng).features
        found += [test.p_value for feature in features for test in feature.tests]
    p = np.array(found)
    assert len(p) >= 600
    for level in (0.1, 0.01):
        slack = 4 * np.sqrt(level / len(p)) * 2  # tests of one table are not independent
        assert np.mean(p < level) < level + slack
    assert p.min() > 1e-6


def test_a_single_row_of_a_short_fragment_is_no_evidence():
    """One of a hundred outliers of 20,000 rows, in a fragment of two rows."""
    length = np.array([1_000] * 20 + [2])
    layout = Layout(np.cumsum(length), length, np.arange(21))
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_002)
    values[rng.choice(20_000, 100, replace=False)] = 15.0
    values[-1] = 15.0
    p = p_values(standardised(values), layout)
    assert set(p) >= {"fragments", "trend"}
    assert min(p.values()) > 1e-3


def test_with_too_few_informative_rows_nothing_is_tested():
    layout = layout_of()
    values = np.zeros(6_400)
    values[:10] = 1.0
    assert p_values(standardised(values), layout) == {}
    found = column_features(values, layout, np.random.default_rng(0))
    assert [test for feature in found.features for test in feature.tests] == []


def test_neighbours_against_the_known_variance_of_an_autocorrelation():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(400):
        x = standardised(rng.normal(size=500))
        z.append(x[1:] @ x[:-1] / np.sqrt(499))
    assert np.std(z) == pytest.approx(1.0, rel=0.1)
    (test,) = lag_test(4.0 * np.sqrt(499), 499, 1, 0.0, True)
    assert test.p_value == pytest.approx(2 * stats.norm.sf(4.0), rel=1e-3)


def test_a_coincidence_of_two_rare_rows_is_no_evidence():
    """Twenty ones of 50,000, two of them next to each other: once in a hundred tables."""
    rng = np.random.default_rng(0)
    layout = Layout(np.arange(0, 50_000, 500), np.full(100, 500), np.arange(100) // 10)
    values = np.zeros(50_000)
    values[rng.choice(25_000, 25, replace=False) * 2] = 1.0
    values[1:][values[:-1] == 1.0][:1] = 1.0
    first = int(np.argmax(values))
    values[first + 1] = 1.0
    found = column_features(values, layout, rng)
    p = {t.kind: t.p_value for f in found.features for t in f.tests}
    assert p["neighbours"] > 1e-3


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_scores_are_the_same_for_any_increasing_map(seed, scale, shift):
    layout = layout_of(n_fragments=2, runs=4)
    values = np.random.default_rng(seed).normal(size=int(layout.rows))
    one, other = (
        column_features(v, layout, np.random.default_rng(0)).factors[0]
        for v in (values, np.exp(scale * values + shift))
    )
    np.testing.assert_allclose(one, other, atol=0.05)
