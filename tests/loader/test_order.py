from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymc_streaming.loader.order import Order, even_permutation


def drawn(n, seed):
    return even_permutation(n, np.random.default_rng(seed))


@given(st.integers(0, 600), st.integers(0, 2**32))
def test_it_is_a_permutation_given_by_the_seed(n, seed):
    order = drawn(n, seed)
    assert sorted(order.tolist()) == list(range(n))
    assert order.tolist() == drawn(n, seed).tolist()


@given(st.integers(0, 6), st.integers(2, 40), st.integers(0, 2**32), st.data())
def test_every_stretch_has_one_number_from_each_stratum(digits, width, seed, data):
    strata = 2**digits
    order = drawn(strata * width, seed)
    start = data.draw(st.integers(0, strata * width - strata))
    stretch = order[start : start + strata] // width
    assert sorted(stretch.tolist()) == list(range(strata))


@given(st.integers(2, 3000), st.integers(0, 2**32))
def test_of_any_number_every_stretch_has_nearly_its_share_of_each_part(n, seed):
    order = drawn(n, seed)
    low = np.cumsum(np.concatenate([[0], order < n // 3])) - np.arange(n + 1) * (n // 3) / n
    # The difference of two places is the surplus of a stretch; it grows like log n at most, and
    # like its square root when all permutations are equally likely.
    assert np.ptp(low) <= 1 + np.log2(n)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_every_number_is_equally_likely_at_every_place(n):
    draws = 5_000
    generator = np.random.default_rng(0)
    counts = np.zeros((n, n))
    for _ in range(draws):
        counts[even_permutation(n, generator), np.arange(n)] += 1
    expected = draws / n
    statistic = ((counts - expected) ** 2 / expected).sum() * (n - 1) / n
    # Mean and ten standard deviations of chi-square with (n - 1)^2 degrees of freedom. The digits
    # tie the cells together, which only widens it by a factor.
    freedom = (n - 1) ** 2
    assert statistic < freedom + 10 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [21, 48, 96, 192])
def test_a_short_period_is_mixed_as_well_as_by_independent_draws(n):
    """Splitting ranges down to single numbers gave twice the variance."""
    marked = (np.arange(n) % 3 == 0) - 1 / 3
    means = [marked[drawn(n, seed)][: n // 3].mean() for seed in range(2000)]
    assert np.var(means) < 1.1 * marked.var() / (n // 3)


def test_windows_over_a_sorted_table_are_alike():
    """The mean over 16 of 256 fragments, against that of fragments in any order."""
    means = {"even": [], "any": []}
    for seed in range(20):
        order = Order(counts=(10,) * 256, window=160, seed=seed)
        for kind, fragments in (
            ("even", order.fragments(epoch=3)),
            ("any", np.random.default_rng(seed).permutation(256)),
        ):
            means[kind].extend(fragments.reshape(-1, 16).mean(axis=1))
    assert np.var(means["even"]) < 0.02 * np.var(means["any"])


def test_epochs_have_orders_of_their_own():
    order = Order(counts=(1,) * 64, window=8, seed=0)
    first, second = order.fragments(0), order.fragments(1)
    assert first.tolist() != second.tolist()
    assert first.tolist() == order.fragments(0).tolist()
