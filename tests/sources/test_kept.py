from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymc_streaming import (
    ArraySpec,
    DataLoader,
    Fragment,
    IterableDataset,
    generator_source,
    parquet_source,
)
from pymc_streaming.errors import MissingValueError, RowCountError
from pymc_streaming.sources import KeptSource


class Counting(IterableDataset):
    """Two arrays, in fragments of the given numbers of rows; counts how often each is read."""

    def __init__(self, counts, block=3, known=True) -> None:
        x, k = ArraySpec((2,), np.dtype("float64")), ArraySpec((), np.dtype("int64"))
        self.layout = {"x": x, "k": k}
        self.counts, self.block = counts, block
        self.fragments = [
            Fragment(count if known else None, f"part {i}") for i, count in enumerate(counts)
        ]
        self.reads = [0] * len(counts)
        self.spoil = lambda block: block

    def read(self, fragment):
        number = self.fragments.index(fragment)
        self.reads[number] += 1
        first = sum(self.counts[:number])
        scratch = np.empty((self.block, 2))
        for start in range(0, self.counts[number], self.block):
            k = np.arange(first + start, first + min(start + self.block, self.counts[number]))
            x = scratch[: len(k)]  # used again for the next block
            x[:] = k[:, None]
            yield self.spoil({"x": x, "k": k})


def everything(source):
    return [
        {name: array.copy() for name, array in block.items()}
        for fragment in source.fragments
        for block in source.read(fragment)
    ]


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    known=st.booleans(),
    batch_size=st.integers(1, 15),
    shuffle=st.booleans(),
    num_workers=st.integers(0, 3),
    start=st.integers(0, 10),
)
def test_the_same_batches_in_the_same_order(
    counts, known, batch_size, shuffle, num_workers, start
) -> None:
    source = Counting(counts, known=known)
    n_rows = sum(counts)
    batch_size = min(batch_size, n_rows)
    options = {"buffer_size": min(7, n_rows)} if shuffle else {}
    loader = DataLoader(
        source,
        batch_size,
        shuffle=shuffle,
        seed=3,
        total_size=n_rows,
        num_workers=num_workers,
        **options,
    )
    kept = loader.over(KeptSource(source))
    position = (0, min(start, n_rows))
    for _ in range(2):  # read through, then from memory
        with loader.stream(position) as one, kept.stream(position) as other:
            for _ in range(3 * n_rows // batch_size + 2):
                expected, found = next(one), next(other)
                for name, array in expected.items():
                    np.testing.assert_array_equal(array, found[name])
                assert one.position == other.position
        for expected, found in zip(loader.blocks(4), kept.blocks(4), strict=True):
            np.testing.assert_array_equal(expected["x"], found["x"])
    for one, other in zip(
        *(each.sample(1 + n_rows // 2, np.random.default_rng(0)) for each in (loader, kept)),
        strict=True,
    ):
        np.testing.assert_equal(one, other)


def test_each_fragment_is_read_once() -> None:
    source = Counting([10, 5])
    kept = KeptSource(source)
    first = everything(kept)
    assert source.reads == [1, 1]
    np.testing.assert_equal(everything(kept), first)
    assert source.reads == [1, 1]
    assert kept.kept_nbytes == 15 * kept.row_nbytes
    assert (kept.n_rows, kept.is_in_memory, kept.is_shuffled) == (15, True, False)


def test_views_of_what_was_kept() -> None:
    kept = KeptSource(Counting([10]))
    (fragment,) = kept.fragments
    everything(kept)
    one, other = (next(kept.read(fragment))["x"] for _ in range(2))
    assert np.shares_memory(one, other)
    assert one.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 7.0


def test_nothing_half_read_is_kept() -> None:
    source = Counting([10, 5])
    kept = KeptSource(source)
    reading = kept.read(kept.fragments[0])
    next(reading)
    reading.close()
    assert kept.kept_nbytes == 0
    assert sum(len(block["k"]) for block in everything(kept)) == 15
    assert source.reads == [2, 1]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_an_error_half_way_through(kind) -> None:
    source = Counting([10, 5])

    def spoil(block):
        if block["k"][0] == 6:
            raise kind
        return block

    source.spoil = spoil
    kept = KeptSource(source)
    with pytest.raises(kind):
        everything(kept)
    assert kept.kept_nbytes == 0
    source.spoil = lambda block: block
    np.testing.assert_equal(everything(kept), everything(source))


def test_the_rows_are_looked_at_once_and_then_trusted() -> None:
    source = Counting([10])
    source.spoil = lambda block: block | {"x": np.full_like(block["x"], np.nan)}
    kept = KeptSource(source)
    with pytest.raises(MissingValueError, match=r"part 0, rows from 0: 6 NaN in array 'x'"):
        everything(kept)
    source.spoil = lambda block: block
    source.counts = [8]
    with pytest.raises(RowCountError, match="expected 10 rows, found 8"):
        everything(kept)
    assert kept.kept_nbytes == 0


def test_rows_that_change_stay_as_they_were_read_first() -> None:
    draws = np.random.default_rng(0)
    source = generator_source(lambda: iter([draws.normal(size=5), draws.normal(size=3)]), n_rows=8)
    kept = KeptSource(source)
    first = everything(kept)
    np.testing.assert_equal(everything(kept), first)
    assert not np.array_equal(everything(source)[0]["batch"], first[0]["batch"])


def test_parquet_with_text_filters_and_a_transform(tmp_path) -> None:
    table = pa.table({"name": ["a", "b", "c"] * 100, "x": np.arange(300.0)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=70)
    source = parquet_source(
        tmp_path / "a.parquet",
        columns=["name", "x"],
        categories="auto",
        filters=pc.field("x") > 100.0,
        transform=lambda columns: {"z": np.column_stack([columns["name"], columns["x"]])},
    )
    kept = KeptSource(source)
    for _ in range(2):
        np.testing.assert_equal(everything(kept), everything(source))
