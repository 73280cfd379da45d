from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pymc_streaming.shuffling.keys import KeyCells, row_keys, sorting_order

KEYS = st.integers(0, 2**64 - 1)


def philox(seed: int, row: int) -> int:
    """The key of a row by the paper: Philox4x64 with ten rounds."""
    key = [int(k) for k in np.random.SeedSequence(seed).generate_state(2, np.uint64)]
    words = [(row // 4 + 1) >> (64 * i) & (2**64 - 1) for i in range(4)]
    for _ in range(10):
        low, high = (0xD2E7470EE14C6C93 * words[0]), (0xCA5A826395121157 * words[2])
        words = [
            high >> 64 ^ words[1] ^ key[0],
            high & (2**64 - 1),
            low >> 64 ^ words[3] ^ key[1],
            low & (2**64 - 1),
        ]
        weyl = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
        key = [(k + w) & (2**64 - 1) for k, w in zip(key, weyl, strict=True)]
    return words[row % 4]


@given(
    seed=st.integers(0, 2**70),
    start=st.integers(0, 2**50) | st.integers(0, 9),
    n_rows=st.integers(0, 9),
)
def test_the_key_of_a_row_depends_on_its_number_alone(seed, start, n_rows):
    found = row_keys(seed, start, n_rows)
    assert found.dtype == np.uint64
    assert found.tolist() == [philox(seed, start + i) for i in range(n_rows)]


def test_keys_of_other_seeds_differ():
    keys = np.concatenate([row_keys(seed, 0, 1000) for seed in range(20)])
    assert len(np.unique(keys)) == len(keys)


CELLS = st.builds(
    KeyCells,
    shards=st.sampled_from([1, 2, 3, 7, 256, 4096]),
    per_shard=st.sampled_from([1, 2, 3, 7, 16]),
)


def cell_of(cells: KeyCells, key: int) -> int:
    """The same in whole numbers of any size."""
    shard_width = -(-cells.width // cells.shards)
    shard, within = divmod(key - cells.start, shard_width)
    return shard * cells.per_shard + within // -(-shard_width // cells.per_shard)


@given(CELLS, st.lists(KEYS, max_size=20))
@example(KeyCells(shards=7, per_shard=3), [0, 2**64 - 1])
@example(KeyCells(), [0, 2**64 - 1])
def test_cells_are_ranges_of_keys(cells, keys):
    keys = sorted([*keys, 0, 2**64 - 1])
    numbers = cells.numbers(np.array(keys, np.uint64)).tolist()
    assert numbers == [cell_of(cells, key) for key in keys]
    assert numbers == sorted(numbers)
    assert numbers[-1] < len(cells)
    for number in numbers:
        assert number in cells.of_shard(number // cells.per_shard)


def edges(cells: KeyCells) -> list[int]:
    """The first key of every cell, and the one before it."""
    shard_width = -(-cells.width // cells.shards)
    starts = [
        cells.start + shard * shard_width + place * -(-shard_width // cells.per_shard)
        for shard in range(cells.shards)
        for place in range(cells.per_shard)
    ]
    return [key for start in starts for key in (start - 1, start) if 0 <= key < 2**64]


@pytest.mark.parametrize(("shards", "per_shard"), [(1, 1), (1, 7), (2, 1), (3, 5), (4096, 1)])
def test_cells_at_their_edges(shards, per_shard):
    cells = KeyCells(shards=shards, per_shard=per_shard)
    keys = edges(cells)
    numbers = cells.numbers(np.array(keys, np.uint64)).tolist()
    assert numbers == [cell_of(cells, key) for key in keys]
    assert len(set(numbers)) == len(cells)


@given(CELLS, KEYS, st.integers(1, 100))
@example(KeyCells(shards=7, per_shard=7), 2**64 - 1, 100)
def test_a_cell_is_split_into_cells_of_its_keys(cells, key, parts):
    (cell,) = cells.numbers(np.array([key], np.uint64)).tolist()
    finer = cells.split(cell, parts)
    others = [k for k in edges(finer) if cells.numbers(np.array([k], np.uint64))[0] == cell]
    keys = sorted({key, *others})
    numbers = finer.numbers(np.array(keys, np.uint64)).tolist()
    assert numbers == [cell_of(finer, k) for k in keys]
    assert numbers == sorted(numbers)
    assert max(numbers) < len(finer) <= parts


def test_splitting_ends_with_a_cell_for_every_key():
    cells = KeyCells(shards=3, per_shard=5)
    key = 2**64 - 1
    for _ in range(70):
        (cell,) = cells.numbers(np.array([key], np.uint64)).tolist()
        cells = cells.split(cell, 2)
        if len(cells) == 1:
            break
    assert (cells.start, cells.width) == (key, 1)


@given(
    st.lists(KEYS | st.integers(0, 5) | st.integers(2**64 - 5, 2**64 - 1), max_size=70)
    | st.lists(st.integers(2**40, 2**40 + 2**30), max_size=70)
)
@example([7] * 33)
@example([2**63 + 5, 2**63 + 4] * 40)  # which differ in a bit that gives way to the place
@example([0, 2**64 - 1])
def test_sorting_order_is_a_stable_sort(keys):
    found = sorting_order(np.array(keys, np.uint64))
    assert found.dtype == np.uint32
    assert found.tolist() == sorted(range(len(keys)), key=keys.__getitem__)


def test_sorting_order_of_many_keys():
    keys = row_keys(0, 0, 100_000)
    np.testing.assert_array_equal(sorting_order(keys), np.argsort(keys, kind="stable"))
    coarse = keys & np.uint64(0xFFFF << 48)  # with ties
    np.testing.assert_array_equal(sorting_order(coarse), np.argsort(coarse, kind="stable"))
