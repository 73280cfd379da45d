from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymc_streaming.errors import ArgumentError, MissingValueError, RowCountError, SchemaError
from pymc_streaming.loader import DataLoader, shuffle_buffer
from pymc_streaming.sources.base import ArraySpec, Fragment, IterableDataset


class Ragged(IterableDataset):
    """Consecutive integers in fragments of the given lengths, through one reused buffer."""

    def __init__(self, counts, block=7, known=True):
        self.layout = {
            "row": ArraySpec((), np.dtype("int64")),
            "x": ArraySpec((2,), np.dtype("float32")),
        }
        self.counts = counts
        self.fragments = [
            Fragment(count if known else None, f"part {i}") for i, count in enumerate(counts)
        ]
        self.starts = dict(zip(self.fragments, itertools.accumulate([0, *counts]), strict=False))
        self.block = block

    def read(self, fragment):
        index = self.fragments.index(fragment)
        row, x = np.empty(self.block, "int64"), np.empty((self.block, 2), "float32")
        for start in range(0, self.counts[index], self.block):
            n = min(self.block, self.counts[index] - start)
            row[:n] = self.starts[fragment] + start + np.arange(n)
            x[:n] = row[:n, None] * [1, -1]
            yield {"row": row[:n], "x": x[:n]}
        row[:], x[:] = -1, np.nan


def rows(batches):
    batches = list(batches)
    for batch in batches:
        np.testing.assert_array_equal(batch["x"], batch["row"][:, None] * np.float32([1, -1]))
    return [int(row) for batch in batches for row in batch["row"]]


def readers():
    return [thread for thread in threading.enumerate() if "pymc" in thread.name]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert readers() == []


tables = st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any)
loaders = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 400),
        "buffer_size": st.none() | st.integers(1, 1500),
        "num_workers": st.sampled_from([0, 1, 4]),
        "prefetch": st.sampled_from([1, 1000, "1MB"]),
        "seed": st.integers(0, 2**64),
    }
)


def make(counts, options, **more):
    options = {**options, **more}
    return DataLoader(Ragged(counts), shuffle=options["buffer_size"] is not None, **options)


@settings(deadline=None, max_examples=60)
@given(tables, loaders, st.integers(1, 300))
def test_every_row_is_seen_exactly_once_in_every_epoch(counts, options, block):
    loader = DataLoader(
        Ragged(counts, block), shuffle=options["buffer_size"] is not None, **options
    )
    for _ in range(2):
        batches = list(loader)
        assert sorted(rows(batches)) == list(range(sum(counts)))
        assert {len(batch["row"]) for batch in batches[:-1]} <= {loader.batch_size}
        assert len(batches) == loader.num_batches
        assert batches[0]["row"].dtype == np.int64
        assert batches[0]["x"].dtype == np.float32


@settings(deadline=None, max_examples=30)
@given(tables, loaders, st.integers(1, 300))
def test_order_does_not_depend_on_threads_blocks_or_batch_size(counts, options, block):
    expected = rows(make(counts, options, num_workers=0))
    for workers in 1, 4:
        assert rows(make(counts, options, num_workers=workers)) == expected
    other = DataLoader(
        Ragged(counts, block),
        13,
        shuffle=options["buffer_size"] is not None,
        buffer_size=options["buffer_size"],
        seed=options["seed"],
    )
    assert rows(other) == expected


def test_two_epochs_differ_and_so_do_two_seeds():
    loader = DataLoader(Ragged([50, 50]), 10, shuffle=True, buffer_size=60, seed=0)
    first, second = rows(loader), rows(loader)
    other = rows(DataLoader(Ragged([50, 50]), 10, shuffle=True, buffer_size=60, seed=1))
    assert first != second
    assert first != other
    assert first == rows(DataLoader(Ragged([50, 50]), 10, shuffle=True, buffer_size=60, seed=0))


@settings(deadline=None, max_examples=40)
@given(tables, loaders, st.data())
def test_a_state_saved_at_any_batch_continues_with_the_rows_that_remain(counts, options, data):
    loader = make(counts, options)
    taken = data.draw(st.integers(0, loader.num_batches))
    iterator = iter(loader)
    before = rows(itertools.islice(iterator, taken))
    state = json.loads(json.dumps(loader.state_dict()))
    remaining, following = rows(iterator), rows(loader)

    fresh = make(counts, options, batch_size=data.draw(st.integers(1, 400)), num_workers=0)
    fresh.load_state_dict(state)
    resumed = rows(fresh)
    assert resumed == remaining
    assert sorted(before + resumed) == list(range(sum(counts)))
    assert rows(fresh) == following


def test_a_state_continues_in_a_new_process():
    loader = DataLoader(np.arange(1000), 30, shuffle=True, buffer_size=170, seed=5)
    iterator = iter(loader)
    for _ in range(11):
        next(iterator)
    state = loader.state_dict()
    expected = [int(row) for batch in iterator for row in batch["batch"]]
    program = f"""
        import json
        import numpy as np
        from pymc_streaming.loader import DataLoader
        loader = DataLoader(np.arange(1000), 30, shuffle=True, buffer_size=170, seed=5)
        loader.load_state_dict(json.loads({json.dumps(state)!r}))
        print(json.dumps([int(row) for batch in loader for row in batch["batch"]]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == expected
    assert len(expected) == 670


@settings(deadline=None, max_examples=40)
@given(tables, loaders, st.data())
def test_the_stream_is_the_epochs_end_to_end_in_full_batches(counts, options, data):
    batch_size = data.draw(st.integers(1, sum(counts)))
    loader = make(counts, options, batch_size=batch_size)
    with loader.stream() as stream:
        batches, positions = [], [stream.position]
        for _ in range(2 * sum(counts) // batch_size):
            batches.append(next(stream))
            positions.append(stream.position)
    assert {len(batch["row"]) for batch in batches} == {batch_size}
    epochs = rows(loader) + rows(loader)
    assert rows(batches) == epochs[: len(batches) * batch_size]
    at = data.draw(st.integers(0, len(batches) - 1))
    with loader.stream(positions[at]) as stream:
        assert rows([next(stream)]) == rows([batches[at]])


def test_fragments_are_permuted_too():
    # Windows of one row leave the order of the fragments as the only shuffle.
    loader = DataLoader(Ragged([2] * 30), 2, shuffle=True, buffer_size=1, seed=0)
    first, second = rows(loader), rows(loader)
    assert all(odd == even + 1 for even, odd in itertools.batched(first, 2))
    assert first != sorted(first)
    assert first != second


def test_shuffling_puts_every_row_anywhere_equally_often():
    # One window holds all rows, so each row is uniform over the positions.
    n, draws = 8, 4000
    counts = np.zeros((n, n))
    for seed in range(draws):
        order = rows(
            DataLoader(Ragged([3, 0, 5]), n, shuffle=True, buffer_size=n, seed=seed, num_workers=0)
        )
        counts[order, np.arange(n)] += 1
    expected = draws / n
    statistic = ((counts - expected) ** 2 / expected).sum() * (n - 1) / n
    # 99.99 % quantile of chi-square with (n - 1)^2 = 49 degrees of freedom
    assert statistic < 95


@pytest.mark.parametrize("total_size", [9, 11])
@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_a_wrong_n_is_caught(total_size, num_workers):
    with pytest.raises(RowCountError, match=rf"{total_size}.*10"):
        DataLoader(Ragged([4, 6]), 2, total_size=total_size)
    unknown = Ragged([4, 6], known=False)
    loader = DataLoader(unknown, 2, total_size=total_size, num_workers=num_workers)
    seen = []
    with pytest.raises(RowCountError, match=rf"{total_size}.*10"):
        seen.extend(loader)
    assert rows(seen) == list(range(10))
    with loader.stream() as stream, pytest.raises(RowCountError):
        list(itertools.islice(stream, 6))


def test_unknown_length():
    unknown = Ragged([4, 6], known=False)
    with pytest.raises(ArgumentError, match="total_size"):
        DataLoader(unknown, 2)
    loader = DataLoader(unknown, 3, total_size=10, shuffle=True, buffer_size=4, seed=0)
    full = rows(loader)
    assert sorted(full) == list(range(10))
    again = DataLoader(unknown, 3, total_size=10, shuffle=True, buffer_size=4, seed=0)
    again.load_state_dict({**again.state_dict(), "row": 7})
    assert rows(again) == full[7:]


def test_an_endless_source_is_never_wrong():
    class Endless(Ragged):
        def read(self, fragment):
            for start in itertools.count(step=5):
                row = np.arange(start, start + 5)
                yield {"row": row, "x": (row[:, None] * [1, -1]).astype("float32")}

    loader = DataLoader(Endless([10], known=False), 4, total_size=10)
    with loader.stream() as stream:
        assert rows(itertools.islice(stream, 10)) == list(range(40))


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_an_error_is_raised_after_the_good_rows(num_workers):
    class Broken(Ragged):
        def read(self, fragment):
            for block in super().read(fragment):
                if fragment.origin == "part 2":
                    block["x"][0, 1] = np.nan
                yield block

    loader = DataLoader(Broken([5, 5, 5, 5]), 5, num_workers=num_workers)
    seen = []
    with pytest.raises(MissingValueError, match="part 2") as caught:
        seen.extend(loader)
    assert rows(seen) == list(range(10))
    assert any(entry.name == "refuse_nan" for entry in caught.traceback)
    del caught
    assert readers() == []


@pytest.mark.parametrize("num_workers", [1, 4])
def test_breaking_off_ends_the_threads_and_the_next_iteration_is_the_next_epoch(num_workers):
    options = {"shuffle": True, "buffer_size": 40, "seed": 3, "num_workers": num_workers}
    loader = DataLoader(Ragged([50] * 10), 5, prefetch=1, **options)
    for _ in loader:
        break
    assert readers() == []
    whole = DataLoader(Ragged([50] * 10), 5, **options)
    rows(whole)
    assert rows(loader) == rows(whole)
    stream = loader.stream()
    next(stream)
    del stream
    assert readers() == []


def test_iterators_of_one_loader_are_independent():
    loader = DataLoader(Ragged([30, 30]), 7, shuffle=True, buffer_size=20, seed=0)
    one, two = iter(loader), iter(loader)
    mixed = [batch for pair in itertools.zip_longest(one, two) for batch in pair]
    alone = DataLoader(Ragged([30, 30]), 7, shuffle=True, buffer_size=20, seed=0)
    assert rows(mixed[::2]) == rows(alone)
    assert rows(mixed[1::2]) == rows(alone)


def test_batches_that_are_kept_do_not_change():
    loader = DataLoader(Ragged([300], block=50), 20, shuffle=True, buffer_size=60, seed=0)
    kept, copies = [], []
    for batch in loader:
        kept.append(batch["row"])
        copies.append(batch["row"].copy())
    np.testing.assert_array_equal(np.concatenate(kept), np.concatenate(copies))


def test_drop_last_and_lengths():
    assert (len(DataLoader(np.zeros(10), 4)), DataLoader(np.zeros(10), 4).num_batches) == (10, 3)
    loader = DataLoader(np.zeros(10), 4, drop_last=True)
    assert loader.num_batches == len(list(loader)) == 2
    with loader.stream() as stream:
        assert [len(next(stream)["batch"]) for _ in range(5)] == [4] * 5


def test_placeholder_and_sample_shape():
    loader = DataLoader(np.ones((9, 3)), 4, sample_shape=(3,))
    assert loader.placeholder().shape == (4, 3)
    assert not loader.placeholder(2).any()
    with pytest.raises(SchemaError, match=r"\(4,\).*\(3,\)"):
        DataLoader(np.ones((9, 3)), 4, sample_shape=(4,))
    several = DataLoader(Ragged([5]), 4, sample_shape={"row": (), "x": (2,)}).placeholder(3)
    assert several["row"].dtype == np.int64
    assert several["x"].shape == (3, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": True},
        {"batch_size": 2.0},
        {"batch_size": 2, "buffer_size": 5},
        {"batch_size": 2, "seed": -1},
        {"batch_size": 2, "num_workers": -1},
        {"batch_size": 2, "prefetch": "much"},
        {"batch_size": 2, "total_size": "all"},
    ],
)
def test_arguments_that_cannot_be_meant(options):
    with pytest.raises(ArgumentError):
        DataLoader(Ragged([5]), **options)


def test_more_refusals():
    with pytest.raises(ArgumentError, match="5 rows"):
        DataLoader(Ragged([5]), 6).stream()
    with pytest.raises((ArgumentError, RowCountError)):
        DataLoader(Ragged([0]), 6)


@pytest.mark.parametrize("change", [{"seed": 1}, {"buffer_size": 9}, {"counts": [6, 4]}])
def test_a_state_of_another_order_is_refused(change):
    given = {"counts": [4, 6], "seed": 0, "buffer_size": 8}
    one, other = ({**given, **extra} for extra in ({}, change))
    state = DataLoader(Ragged(one.pop("counts")), 2, shuffle=True, **one).state_dict()
    with pytest.raises(ArgumentError, match="state"):
        DataLoader(Ragged(other.pop("counts")), 2, shuffle=True, **other).load_state_dict(state)


def test_a_seed_that_was_drawn_is_taken_from_the_state():
    one, two = (DataLoader(Ragged([50]), 5, shuffle=True, buffer_size=20) for _ in range(2))
    assert one.seed != two.seed
    two.load_state_dict(one.state_dict())
    assert two.seed == one.seed
    assert rows(two) == rows(one)


def test_locate():
    plain = DataLoader(Ragged([10, 10, 10]), 4)
    assert "part 1" in plain.locate((2, 10), 4)
    assert "part 0" not in plain.locate((2, 10), 4)
    assert plain.locate((2, 8), 4).startswith("epoch 2, rows 8 to 11")
    across = plain.locate((2, 28), 4)
    assert "part 2" in across
    assert "part 0" in across
    assert "epoch 3" in across
    shuffled = DataLoader(Ragged([10] * 6), 4, shuffle=True, buffer_size=20, seed=0)
    with shuffled.stream() as stream:
        for _ in range(15):
            position = stream.position
            named = shuffled.locate(position, 4)
            assert all(f"part {row // 10}" in named for row in rows([next(stream)]))
    wide = DataLoader(Ragged([1] * 15), 4, shuffle=True, buffer_size=15, seed=0)
    assert "and 12 more" in wide.locate((0, 0), 4)


def test_shuffle_buffer_is_taken_by_a_loader():
    buffer = shuffle_buffer(Ragged([30, 30]), buffer_size=20, batch_size=7, seed=4)
    loader = DataLoader(buffer, batch_size=7)
    assert (loader.shuffle, loader.buffer_size, loader.seed) == (True, 20, 4)
    expected = DataLoader(Ragged([30, 30]), 7, shuffle=True, buffer_size=20, seed=4)
    assert rows(loader) == rows(expected) == rows(buffer)
    for conflict in {"batch_size": 8}, {"seed": 5}, {"buffer_size": 21}:
        with pytest.raises(ArgumentError):
            DataLoader(buffer, **{"batch_size": 7, **conflict})


def test_changing_a_batch_does_not_change_the_data():
    table = np.arange(20.0).reshape(10, 2)
    for batch in DataLoader(table, 4):
        batch["batch"] *= 0
    np.testing.assert_array_equal(table, np.arange(20.0).reshape(10, 2))


def test_fragments_that_cannot_be_told_apart():
    class Twins(IterableDataset):
        layout = {"x": ArraySpec((), np.dtype("float64"))}  # noqa: RUF012
        fragments = [Fragment(10, "file")] * 2

        def read(self, fragment):
            yield {"x": np.arange(10.0)}

    with pytest.raises(ArgumentError, match="Two fragments"):
        DataLoader(Twins(), 5)


@pytest.mark.parametrize("name", ["shuffle", "drop_last"])
def test_flags_are_true_or_false(name):
    with pytest.raises(ArgumentError, match=name):
        DataLoader(np.zeros(10), 5, **{name: "no"})


@settings(deadline=None, max_examples=25)
@given(tables, loaders, st.data())
def test_several_batches_at_once_are_the_same_batches(counts, options, data):
    batch_size = data.draw(st.integers(1 + sum(counts) // 20, sum(counts)))
    sizes = itertools.cycle(data.draw(st.lists(st.integers(1, 5), min_size=1)))
    loader = make(counts, options, batch_size=batch_size)
    n_batches = 2 * sum(counts) // batch_size
    with loader.stream() as one_by_one, loader.stream() as stream:
        expected, positions = [], [one_by_one.position]
        for batch in itertools.islice(one_by_one, n_batches):
            expected += rows([batch])
            positions.append(one_by_one.position)
        found = []
        while len(found) < len(expected):
            most = next(sizes)
            before = len(found) // batch_size
            assert rows([stream.peek()]) == expected[len(found) :][:batch_size]
            taken = rows([stream.take(most)])
            assert 1 <= len(taken) // batch_size <= most
            found += taken
            for n in range(len(taken) // batch_size + 1):
                if before + n < len(positions):
                    assert stream.position_after(n) == positions[before + n]
    assert found[: len(expected)] == expected


@pytest.mark.parametrize("shuffle", [False, True])
def test_arrays_without_columns_and_batches_beyond_the_table(shuffle):
    seed = {"seed": 0} if shuffle else {}
    data = {"X": np.zeros((10, 0)), "y": np.arange(10)}
    (batch,) = DataLoader(data, 10**12, shuffle=shuffle, **seed)
    assert batch["X"].shape == (10, 0)
    assert sorted(batch["y"]) == list(range(10))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_reader_may_be_what_collects_its_own_iterator(num_workers):
    """Garbage is collected in any thread, at any time."""
    forgotten = threading.Event()

    class Collecting(Ragged):
        def read(self, fragment):
            if forgotten.wait(0.01):
                gc.collect()
            return super().read(fragment)

    class Cycle:
        pass

    cycle = Cycle()
    cycle.itself = cycle
    loader = DataLoader(Collecting([8] * 500), 8, num_workers=num_workers, prefetch=0)
    cycle.iterator = iter(loader)
    next(cycle.iterator)
    gc.disable()
    try:
        del cycle, loader
        forgotten.set()
        start = time.monotonic()
        while readers() and time.monotonic() - start < 30:
            time.sleep(0.01)
    finally:
        gc.enable()
    assert time.monotonic() - start < 5


def test_the_memory_of_reading_is_told_beforehand() -> None:
    y = np.zeros(1_000_000)
    loader = DataLoader(y, 1_000)
    with loader.stream() as stream:
        stream.take(1)
        arrays = stream._current.arrays["batch"].nbytes
    footprint = loader.footprint()
    assert footprint.rows * 8 == arrays
    assert footprint.blocks % arrays == 0
    assert footprint.blocks <= 8 * 2**20 + 2 * arrays
    assert footprint == DataLoader(np.zeros(2_000_000), 1_000).footprint()
    shuffled = DataLoader(y, 1_000, shuffle=True, buffer_size=50_000).footprint()
    # Two windows with a batch in front of each, and the places of their rows.
    assert shuffled.shuffle_buffer == 2 * (51_000 * 8 + 50_000 * 4)
    assert loader.footprint(70_000).rows % 70_000 == 0


def test_a_loader_over_another_source_has_its_fragments() -> None:
    y = np.arange(100.0)
    loader = DataLoader(y, 10, shuffle=True, seed=0)
    other = loader.over(DataLoader(2 * y, 10).source)
    np.testing.assert_array_equal(2 * next(iter(loader))["batch"], next(iter(other))["batch"])
    with pytest.raises(ArgumentError, match="other arrays or fragments than"):
        loader.over(DataLoader(y[:50], 10).source)
