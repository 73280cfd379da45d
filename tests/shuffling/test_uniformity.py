"""Every order of a few rows, equally often; benchmarks/shuffle_uniformity.py does it end to end."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chisquare

from pymc_streaming import preshuffle
from pymc_streaming.shuffling.keys import KeyCells, row_keys, sorting_order
from pymc_streaming.shuffling.scratch import Partition, sorted_ranges
from tests.tables import rows_of, write

SEEDS = 20_000
CELLS = [1, 2, 7]
# Rows of the fragments.
APART, RAGGED = (1, 1, 1, 1), (2, 1, 2)

Order = tuple[int, ...]


def keys_of(seed: int, fragments: Order) -> np.ndarray:
    starts = np.cumsum(fragments) - fragments
    return np.concatenate(
        [row_keys(seed, *f) for f in zip(starts.tolist(), fragments, strict=True)]
    )


def order_by_cells(keys: np.ndarray, cells: KeyCells) -> Order:
    """What the two passes do to rows, without their files."""
    numbers = cells.numbers(keys)
    order: list[int] = []
    for cell in range(len(cells)):
        rows = np.flatnonzero(numbers == cell)
        order += rows[sorting_order(keys[rows])].tolist()
    return tuple(order)


def p_value(orders: Counter[Order], n_rows: int) -> float:
    assert set(orders) <= set(itertools.permutations(range(n_rows)))
    counts = [orders[order] for order in itertools.permutations(range(n_rows))]
    return chisquare(counts).pvalue


@pytest.fixture(scope="module")
def keys_by_seed() -> list[np.ndarray]:
    return [row_keys(seed, 0, 5) for seed in range(SEEDS)]


@pytest.mark.parametrize("fragments", [APART, RAGGED])
def test_every_order_is_equally_likely(fragments, keys_by_seed):
    n_rows = sum(fragments)
    keys = [k[:n_rows] for k in keys_by_seed]
    for seed in range(500):  # a fragment does not know those before it
        np.testing.assert_array_equal(keys_of(seed, fragments), keys[seed])
    orders = Counter(tuple(np.argsort(k, kind="stable").tolist()) for k in keys)
    assert p_value(orders, n_rows) > 0.001
    for n_cells in CELLS:  # into how many ranges the keys are divided makes no difference
        cells = KeyCells(shards=n_cells)
        for k in keys[:1_000]:
            assert order_by_cells(k, cells) == tuple(np.argsort(k, kind="stable").tolist())


@pytest.mark.parametrize("fragments", [APART, RAGGED])
def test_the_order_is_that_of_the_passes_over_files(fragments, tmp_path):
    n_rows = sum(fragments)
    table = pa.table({"row": range(n_rows)})
    for seed in range(20):
        keys = keys_of(seed, fragments)
        for shards, per_shard in [(1, 1), (1, 2), (1, 7), (2, 1), (7, 1), (2, 7)]:
            cells = KeyCells(shards=shards, per_shard=per_shard)
            partition = Partition(tmp_path / f"{seed}-{shards}-{per_shard}", cells)
            sizes, start = 0, 0
            for number, length in enumerate(fragments):
                (batch,) = table.slice(start, length).to_batches()
                sizes += partition.write(f"{number}", batch, keys[start : start + length])
                start += length
            found: list[int] = []
            for shard in range(shards):
                for batch, order in sorted_ranges(partition, shard, sizes, 2**20, 2**20):
                    found += batch.column(0).take(pa.array(order)).to_pylist()
            assert tuple(found) == order_by_cells(keys, cells)


@pytest.mark.parametrize("fragments", [APART, RAGGED])
def test_the_order_is_that_of_the_public_function(fragments, tmp_path):
    source = write(tmp_path / "a.parquet", pa.table({"row": range(sum(fragments))}), fragments[:-1])
    for seed, shards in itertools.product(range(15), CELLS):
        output = tmp_path / f"{seed}-{shards}"
        preshuffle(source, output, seed=seed, shards=shards, format="arrow", progressbar=False)
        found = tuple(rows_of(output)["row"].to_pylist())
        assert found == order_by_cells(keys_of(seed, fragments), KeyCells(shards=shards))


# Shuffles that are not uniform; the test above would have to fail for them.


def equal_sizes(seed: int, n_rows: int, n_cells: int) -> Order:
    """Rows dealt to the cells in turn, from a random one on."""
    rng = np.random.default_rng(seed)
    dealt = (np.arange(n_rows) + rng.integers(n_cells)) % n_cells
    cells = [rng.permutation(np.flatnonzero(dealt == cell)) for cell in range(n_cells)]
    return tuple(np.concatenate(cells).tolist())


def one_seed(seed: int, n_rows: int, n_cells: int) -> Order:
    """Cells drawn as they should be, but each put in order by the same seed."""
    drawn = np.random.default_rng(seed).integers(n_cells, size=n_rows)
    cells = [
        np.random.default_rng(seed + SEEDS).permutation(np.flatnonzero(drawn == cell))
        for cell in range(n_cells)
    ]
    return tuple(np.concatenate(cells).tolist())


def own_keys(seed: int, n_rows: int, n_cells: int) -> Order:
    return order_by_cells(row_keys(seed, 0, n_rows), KeyCells(shards=n_cells))


@pytest.mark.parametrize(
    ("shuffle", "uniform"), [(equal_sizes, False), (one_seed, False), (own_keys, True)]
)
@pytest.mark.parametrize("n_rows", [4, 5])
def test_the_test_finds_a_shuffle_that_is_not_uniform(
    shuffle: Callable[[int, int, int], Order], uniform, n_rows
):
    # Fewer seeds than above already tell.
    orders = Counter(shuffle(seed, n_rows, 2) for seed in range(4_000))
    assert (p_value(orders, n_rows) > 0.001) == uniform
