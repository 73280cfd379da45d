from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pymc_streaming.loader.buffer import Window
from pymc_streaming.sources.base import ArraySpec

LAYOUT = {
    "row": ArraySpec((), np.dtype("int64")),
    "x": ArraySpec((3,), np.dtype("float32")),
    "flag": ArraySpec((1, 2), np.dtype("uint8")),
}


def block(start: int, stop: int) -> dict[str, np.ndarray]:
    row = np.arange(start, stop)
    return {
        "row": row,
        "x": (row[:, None] * np.array([1, -1, 0.5])).astype("float32"),
        "flag": (row[:, None, None] % np.array([[7, 251]])).astype("uint8"),
    }


def permuted(window: Window, n_rows: int, cuts=()) -> np.ndarray:
    """The rows in their new order, written piece by piece, every array held to it."""
    found = []
    for start, stop in zip([0, *cuts], [*cuts, n_rows], strict=True):
        out = {name: spec.zeros(stop - start) for name, spec in LAYOUT.items()}
        window.copy(start, out)
        for name, array in block(0, n_rows).items():
            np.testing.assert_array_equal(out[name], array[out["row"]])
        found.append(out["row"])
    return np.concatenate(found)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_every_row_once_whatever_the_pieces(data):
    size = data.draw(st.integers(1, 50_000))
    n_rows = data.draw(st.integers(1, size))
    cuts = sorted(data.draw(st.lists(st.integers(0, n_rows), max_size=4)))
    window = Window(LAYOUT, size)
    orders = []
    for pieces in ([], cuts):
        window.begin(np.random.default_rng(0))
        for start, stop in zip([0, *pieces], [*pieces, n_rows], strict=True):
            assert window.deal(block(0, stop), start) == stop - start
        assert window.filled == n_rows
        assert window.is_full == (n_rows == size)
        orders.append(permuted(window, n_rows, pieces))
    np.testing.assert_array_equal(np.sort(orders[0]), np.arange(n_rows))
    np.testing.assert_array_equal(*orders)


def test_no_more_than_there_is_room_for():
    window = Window(LAYOUT, 10)
    window.begin(np.random.default_rng(0))
    assert window.deal(block(0, 7), 0) == 7
    assert window.deal(block(0, 20), 7) == 3
    assert window.is_full
    window.begin(np.random.default_rng(1))
    assert window.filled == 0


@pytest.mark.parametrize("n_rows", [4, 3])  # a full window, and one that is not
def test_all_orders_are_equally_likely(n_rows, monkeypatch):
    monkeypatch.setattr("pymc_streaming.loader.buffer._PILE_BYTES", 30)  # four piles of four rows
    window = Window(LAYOUT, 4)
    assert len(window._counts) == 4
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(12_000):
        window.begin(np.random.default_rng(seed))
        window.deal(block(0, n_rows), 0)
        out = {name: spec.zeros(n_rows) for name, spec in LAYOUT.items()}
        window.copy(0, out)
        order = tuple(out["row"].tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == {4: 24, 3: 6}[n_rows]
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_where_a_row_goes_does_not_depend_on_where_it_was():
    """With many piles of many rows: old and new places are uncorrelated, and so are neighbours."""
    size = 60_000
    window = Window(LAYOUT, size)
    assert len(window._counts) > 4
    window.begin(np.random.default_rng(0))
    window.deal(block(0, size), 0)
    order = permuted(window, size)
    limit = 4 / np.sqrt(size)
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < limit
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < limit
    cells = np.histogram2d(order, np.arange(size), bins=20)[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-4
