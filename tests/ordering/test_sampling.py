from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymc_streaming import (
    ArraySpec,
    Fragment,
    IterableDataset,
    array_source,
    errors,
    generator_source,
)
from pymc_streaming.ordering import sampling
from pymc_streaming.ordering.sampling import Table, draw_sample, source_table


def numbered(counts: list[int | None], real: list[int], block: int = 7) -> Table:
    """A table whose only column is the number of the row."""
    first = np.concatenate([[0], np.cumsum(real)])

    def read(index):
        for start in range(first[index], first[index + 1], block):
            yield [np.arange(start, min(start + block, first[index + 1]))]

    return Table(counts, ("row",), read)


def expected_rows(sample) -> np.ndarray:
    return np.concatenate(
        [np.arange(s, s + n) for s, n in zip(sample.start, sample.length, strict=True)]
    )


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=40), st.integers(0, 1_000), st.data())
def test_runs_are_the_rows_that_they_say_and_none_twice(counts, seed, data):
    if not sum(counts):
        counts[0] = 1
    block = data.draw(st.integers(1, 500))
    sample = draw_sample(numbered(counts, counts, block), seed)
    rows = sample.columns["row"]
    np.testing.assert_array_equal(rows, expected_rows(sample))
    assert len(np.unique(rows)) == len(rows)
    assert sample.n_rows == sum(counts)
    assert (sample.length > 0).all()
    first = np.concatenate([[0], np.cumsum(counts)])
    assert (sample.start >= first[sample.fragment]).all()
    assert (sample.start + sample.length <= first[sample.fragment + 1]).all()


def test_a_small_table_is_seen_whole():
    sample = draw_sample(numbered([500] * 8, [500] * 8), 0)
    assert sample.rows == 4_000
    assert sample.covered == 1.0


@pytest.fixture
def small_budgets(monkeypatch):
    monkeypatch.setattr(sampling, "LEAST_VALUES", 2_000)
    monkeypatch.setattr(sampling, "MOST_ROWS", 2_000)
    monkeypatch.setattr(sampling, "DECODED_VALUES", 8_000)
    monkeypatch.setattr(sampling, "DEEP_VALUES", 16_000)
    monkeypatch.setattr(sampling, "BLOCK_ROWS", 100)


def test_the_cost_does_not_grow_with_the_table(small_budgets):
    for n_fragments in (10, 1_000):
        decoded = []
        table = numbered([10_000] * n_fragments, [10_000] * n_fragments, 50)

        def read(index, table=table, decoded=decoded):
            for block in table.read(index):
                decoded.append(len(block[0]))
                yield block

        sample = draw_sample(Table(table.counts, table.columns, read), 0)
        assert 2_000 <= sample.rows < 2_300
        assert sum(decoded) < 20_000
        places = np.histogram(sample.start / sample.n_rows, bins=5, range=(0, 1))[0]
        assert (places > 0).all()


def covered(counts: list[int], reach: list[int]) -> float:
    return sampling._covered(np.array(counts), np.array(reach))


def test_what_is_covered_is_as_deep_as_enough_fragments_were_read():
    assert covered([100], [30]) == pytest.approx(0.3)
    assert covered([100] * 10, [100] * 8 + [10] * 2) == 1.0
    assert covered([100] * 10, [100] * 7 + [10] * 3) == pytest.approx(0.1)
    assert covered([100] * 3, [100, 100, 50]) == pytest.approx(0.5)
    # A giant among small ones stands for itself.
    assert covered([1_000] + [10] * 20, [200] + [10] * 20) == pytest.approx(0.4 / 1.2)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=30))
def test_covered_against_its_definition(fragments):
    counts = [count for count, _ in fragments]
    reach = [min(pair) for pair in fragments]
    rows = [
        sum(r > depth for r in reach) >= min(8, sum(c > depth for c in counts))
        for count in counts
        for depth in range(count)
    ]
    assert covered(counts, reach) == pytest.approx(np.mean(rows))


def test_long_fragments_are_read_to_their_end_while_that_is_cheap(small_budgets):
    sample = draw_sample(numbered([16_000], [16_000], 50), 0)
    assert sample.covered == 1.0
    assert sample.start[-1] > 15_000
    longer = draw_sample(numbered([40_000], [40_000], 50), 0)
    assert longer.covered == pytest.approx(0.4)
    assert (longer.start + longer.length).max() <= 16_000


def test_every_iterator_is_closed():
    closed = []

    def read(index):
        try:
            for _ in range(100):
                yield [np.zeros(10_000)]
        finally:
            closed.append(index)

    draw_sample(Table([1_000_000] * 12, ("x",), read), 0)
    assert len(closed) == 12


def test_fragments_of_unknown_length_are_read_from_the_beginning(small_budgets):
    sample = draw_sample(numbered([None], [9_000]), 0)
    np.testing.assert_array_equal(sample.columns["row"], np.arange(2_000))
    assert sample.n_rows is None
    whole = draw_sample(numbered([None, None], [900, 500]), 0)
    np.testing.assert_array_equal(whole.columns["row"], np.arange(1_400))
    assert whole.n_rows == 1_400


def test_of_a_generator_only_the_beginning_is_made(monkeypatch):
    monkeypatch.setattr(sampling, "SEQUENTIAL_ROWS", 1_000)
    made = []

    def blocks():
        for start in range(0, 10_000, 100):
            made.append(start)
            yield np.arange(start, start + 100.0)

    with pytest.warns(errors.RowCountWarning):
        source = generator_source(blocks)
    made.clear()
    sample = draw_sample(source_table(source), 0, source.n_rows)
    assert (sample.rows, sample.n_rows, sample.covered) == (1_000, 10_000, 0.0)
    assert len(made) == 10


def test_a_buffer_that_is_used_again_is_copied():
    class Reusing(IterableDataset):
        def __init__(self):
            self.layout = {"x": ArraySpec((), np.dtype("float64"))}
            self.fragments = [Fragment(None, "all")]

        def read(self, fragment):
            buffer = np.empty(100)
            for i in range(5):
                buffer[:] = i
                yield {"x": buffer}

    sample = draw_sample(source_table(Reusing()), 0)
    np.testing.assert_array_equal(sample.columns["x"], np.repeat(np.arange(5.0), 100))


def test_the_columns_of_a_source_have_the_names_of_its_arrays():
    source = array_source({"X": np.zeros((10, 2)), "y": np.ones(10), "z": np.ones((10, 2, 2))})
    names = source_table(source).columns
    assert names == (
        "X[:, 0]", "X[:, 1]", "y", "z[:, 0, 0]", "z[:, 0, 1]", "z[:, 1, 0]", "z[:, 1, 1]",
    )  # fmt: skip


def test_dictionaries_of_several_blocks_are_joined():
    def read(index):
        for levels in (["a", "b"], ["b", "c"]):
            yield [pa.array(levels * 50).dictionary_encode()]

    sample = draw_sample(Table([200], ("c",), read), 0)
    assert set(sample.columns["c"].to_pylist()) == {"a", "b", "c"}
