from __future__ import annotations

import numpy as np
import pytest

from pymc_streaming import DataLoader, generator_source
from pymc_streaming.loader.sample import sample_rows
from pymc_streaming.sources import ArraySpec, Fragment, IterableDataset


class Numbers(IterableDataset):
    """Row i holds i; fragments of 100."""

    def __init__(self, n_fragments: int, shuffled: bool = False) -> None:
        self.layout = {"x": ArraySpec((), np.dtype("float64"))}
        self.fragments = [Fragment(100, f"part {i}") for i in range(n_fragments)]
        self.is_shuffled = shuffled
        self.asked: list[int] = []

    def read(self, fragment):
        index = self.fragments.index(fragment)
        self.asked.append(index)
        rows = 100.0 * index + np.arange(100.0)
        yield {"x": rows[:30]}
        yield {"x": rows[30:]}


@pytest.mark.parametrize("n_rows", [1, 99, 250, 1_000])
def test_rows_are_of_the_table_and_none_comes_twice(n_rows) -> None:
    rows, read = sample_rows(Numbers(10), 1_000, n_rows, np.random.default_rng(0))
    assert len(rows["x"]) == len(set(rows["x"])) == n_rows
    assert set(rows["x"]) <= set(np.arange(1_000.0))
    assert read == (800 if n_rows < 1_000 else 1_000)
    assert n_rows < 50 or np.any(np.diff(rows["x"]) < 0)  # in no order


def test_of_a_shuffled_table_few_fragments_are_read() -> None:
    source = Numbers(50, shuffled=True)
    rows, read = sample_rows(source, 5_000, 150, np.random.default_rng(0))
    assert (len(rows["x"]), read, len(source.asked)) == (150, 200, 2)


def test_of_a_table_in_an_order_fragments_lie_all_over_it() -> None:
    source = Numbers(80)
    sample_rows(source, 8_000, 150, np.random.default_rng(0))
    assert {index // 10 for index in source.asked} == set(range(8))


def test_every_row_is_equally_likely() -> None:
    counts = np.zeros(500)
    for seed in range(400):
        rows, _ = sample_rows(Numbers(5), 500, 50, np.random.default_rng(seed))
        counts[rows["x"].astype(int)] += 1
    assert counts.sum() == 400 * 50
    assert ((counts - 40.0) ** 2 / 36.0).sum() < 500 + 5 * np.sqrt(2 * 500)  # chi-square


@pytest.mark.filterwarnings("ignore::pymc_streaming.errors.RowCountWarning")
def test_a_source_that_does_not_know_its_rows_is_read_once() -> None:
    def rows():
        for start in range(0, 1_000, 64):
            yield {"x": np.arange(start, min(start + 64, 1_000), dtype=float)}

    source = generator_source(rows, n_rows=None)
    found, read = sample_rows(source, 1_000, 100, np.random.default_rng(0))
    assert (len(set(found["x"])), read) == (100, 1_000)
    assert found["x"].max() > 900


def test_the_loader_gives_no_more_than_there_are() -> None:
    loader = DataLoader({"x": np.arange(10.0), "y": np.arange(10)}, 4)
    rows, read = loader.sample(100, np.random.default_rng(0))
    assert sorted(rows["x"]) == list(range(10))
    np.testing.assert_array_equal(rows["x"], rows["y"])
    assert read == 10


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("n_rows", "multiple"), [(10, 3), (1_000, 7), (1_000, 5_000)])
def test_blocks_are_all_rows_in_order_in_multiples(n_rows, multiple, shuffle) -> None:
    loader = DataLoader(np.arange(float(n_rows)), 2, shuffle=shuffle, prefetch=1_000)
    blocks = [block["batch"].copy() for block in loader.blocks(multiple)]
    np.testing.assert_array_equal(np.concatenate(blocks), np.arange(float(n_rows)))
    assert all(len(block) % multiple == 0 for block in blocks[:-1])


@pytest.mark.parametrize("source", [np.arange(1_000.0), "generator"], ids=["array", "generator"])
def test_blocks_from_a_row_on_are_those_that_followed_it(source) -> None:
    if isinstance(source, str):
        parts = np.arange(700.0), np.arange(700.0, 1_000.0)
        source = generator_source(lambda: iter(parts), n_rows=1_000)
    loader = DataLoader(source, 2, prefetch=100)
    blocks = [block["batch"].copy() for block in loader.blocks(7)]
    for number in range(0, len(blocks) + 1, 20):
        start = sum(map(len, blocks[:number]))
        rest = [block["batch"].copy() for block in loader.blocks(7, start)]
        assert [len(block) for block in rest] == [len(block) for block in blocks[number:]]
        np.testing.assert_array_equal(np.concatenate([[], *rest]), np.arange(1_000.0)[start:])
    assert list(loader.blocks(7, 1_000)) == []
