from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pymc_streaming.loader.buffer import Window
from pymc_streaming.sources.base import ArraySpec, InMemory

LAYOUT = {
    "row": ArraySpec((), np.dtype("int64")),
    "x": ArraySpec((3,), np.dtype("float32")),
    "flag": ArraySpec((1, 2), np.dtype("uint8")),
}
FRONT = 3


def block(start: int, stop: int) -> dict[str, np.ndarray]:
    row = np.arange(start, stop)
    return {
        "row": row,
        "x": (row[:, None] * np.array([1, -1, 0.5])).astype("float32"),
        "flag": (row[:, None, None] % np.array([[7, 251]])).astype("uint8"),
    }


def empty(n_rows: int) -> dict[str, np.ndarray]:
    return {name: spec.empty(n_rows) for name, spec in LAYOUT.items()}


def new_window(size: int, seed: int, on_the_way: int = 1000) -> Window:
    return Window(empty(FRONT + size), empty(on_the_way), FRONT, size, np.random.default_rng(seed))


def order(window: Window) -> np.ndarray:
    """The rows in their new order, every array held to it."""
    rows = {name: array[FRONT : FRONT + len(window)] for name, array in window.arrays.items()}
    for name, array in block(0, len(window)).items():
        np.testing.assert_array_equal(rows[name], array[rows["row"]])
    return rows["row"]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_every_row_once_whatever_the_pieces(data):
    size = data.draw(st.integers(1, 50_000))
    n_rows = data.draw(st.integers(1, size))
    cuts = sorted(data.draw(st.lists(st.integers(0, n_rows), max_size=4)))
    orders = []
    for pieces in ([], cuts):
        window = new_window(size, seed=0, on_the_way=data.draw(st.integers(1, 60_000)))
        for start, stop in zip([0, *pieces], [*pieces, n_rows], strict=True):
            assert window.fill(InMemory(block(0, stop)), start) == stop - start
        assert window.room == size - n_rows
        window.cut()
        assert len(window) == n_rows
        orders.append(order(window))
    np.testing.assert_array_equal(np.sort(orders[0]), np.arange(n_rows))
    np.testing.assert_array_equal(*orders)


def test_no_more_than_there_is_room_for():
    window = new_window(10, seed=0)
    before = {name: array[:FRONT].copy() for name, array in window.arrays.items()}
    assert window.fill(InMemory(block(0, 7)), 0) == 7
    assert window.fill(InMemory(block(0, 20)), 7) == 3
    assert window.room == 0
    for name, array in before.items():
        np.testing.assert_array_equal(window.arrays[name][:FRONT], array)


@pytest.mark.parametrize("n_rows", [4, 3])  # a full window, and one that is cut
def test_all_orders_are_equally_likely(n_rows):
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(12_000):
        window = new_window(4, seed)
        window.fill(InMemory(block(0, n_rows)), 0)
        window.cut()
        key = tuple(order(window).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == {4: 24, 3: 6}[n_rows]
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize("n_rows", [60_000, 45_000])
def test_where_a_row_goes_does_not_depend_on_where_it_was(n_rows):
    """With many rows: old and new places are uncorrelated, and so are neighbours."""
    window = new_window(60_000, seed=0)
    window.fill(InMemory(block(0, n_rows)), 0)
    window.cut()
    new = order(window)
    limit = 4 / np.sqrt(n_rows)
    assert abs(np.corrcoef(new, np.arange(n_rows))[0, 1]) < limit
    assert abs(np.corrcoef(new[:-1], new[1:])[0, 1]) < limit
    cells = np.histogram2d(new, np.arange(n_rows), bins=20)[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-4
