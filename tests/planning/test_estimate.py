from __future__ import annotations

import dataclasses

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pymc_streaming import ArraySpec, DataLoader, Fragment, IterableDataset, parquet_source
from pymc_streaming.planning.estimate import Fit, ways

MIB = 2**20


class Unread(IterableDataset):
    """A table that says how many rows it has, and is not there."""

    def __init__(self, n_rows: int) -> None:
        self.layout = {"batch": ArraySpec((100,), np.dtype("float64"))}
        self.fragments = [Fragment(n_rows, "nowhere")]

    def read(self, fragment):
        raise AssertionError("A plan reads no rows.")


def fit_of(n_rows=10**9, batch_size=1_000, size=5, **options) -> Fit:
    loader = DataLoader(Unread(n_rows), batch_size, **options)
    return Fit(loader, size, "advi", "numba", False, 0)


def in_mib(fit, asked="auto", n=None):
    return [(way.strategy, way.nbytes // MIB) for way in ways(fit, asked, n)]


def test_only_the_table_in_memory_grows_with_its_rows() -> None:
    small, large = (
        {way.strategy: way.nbytes for way in reversed(ways(fit_of(n), "auto", None))}
        for n in (10**8, 10**9)
    )
    more = 9 * 10**8 * 800
    assert large["in_memory"] - small["in_memory"] == pytest.approx(more, rel=0.001)
    assert large["accumulate"] == pytest.approx(small["accumulate"], abs=2 * MIB)
    for n_rows in (10**6, 10**9):
        (way,) = ways(fit_of(n_rows), "auto", 100)
        assert way.strategy == "streaming"
        assert way.parts["blocks"] == ways(fit_of(10**7), "auto", 100)[0].parts["blocks"]


def test_files_that_are_read_as_fast_as_memory_are_not_kept(monkeypatch) -> None:
    monkeypatch.setattr(Unread, "is_quick", True)
    assert ways(fit_of(), "auto", None)[0].strategy == "accumulate"
    assert "as fast as memory" in ways(fit_of(), "auto", None)[0].remark
    assert ways(fit_of(), "in_memory", None)[0].strategy == "in_memory"


@pytest.mark.parametrize("n", [None, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_from_most_memory_to_least(n, shuffle) -> None:
    found = ways(fit_of(shuffle=shuffle), "in_memory", n)
    sizes = [way.nbytes for way in found]
    assert sizes == sorted(sizes, reverse=True)
    assert found[0].strategy == "in_memory"


def test_few_steps_read_a_part_of_the_table() -> None:
    def table(n, **options):
        fit = dataclasses.replace(fit_of(10**7), **options)
        return ways(fit, "in_memory", n)[0].parts["table"]

    assert 100 * 800_000 < table(100) < 150 * 800_000
    assert table(100, kept_nbytes=10**9) == table(100) + 10**9
    assert table(10**4) == table(10**5) == 8 * 10**9


def test_a_smaller_sample_where_memory_is_short() -> None:
    found = [way for way in ways(fit_of(), "auto", None) if way.strategy == "accumulate"]
    samples = [way.sample_rows for way in found]
    assert samples == sorted(set(samples), reverse=True)
    assert samples[0] == 64 * MIB // 800
    assert samples[-1] == 2_000
    assert "instead of 83,886 rows" in found[-1].remark


def test_what_was_asked_for_comes_first() -> None:
    assert ways(fit_of(), "accumulate", None)[0].strategy == "accumulate"
    assert ways(fit_of(), "in_memory", 100)[0].strategy == "in_memory"
    assert ways(fit_of(), "streaming", 100)[0].strategy == "streaming"


def test_parts_follow_what_they_are_of() -> None:
    plain, shuffled = (
        ways(fit_of(**options), "streaming", 100)[0].parts
        for options in ({}, {"shuffle": True, "buffer_size": 10**6})
    )
    assert plain["shuffle buffer"] == 0
    assert shuffled["shuffle buffer"] == pytest.approx(2 * 10**6 * 804, rel=0.01)
    fit = fit_of()
    more = dataclasses.replace(fit, method="fullrank_advi", size=10_000)
    assert ways(more, "auto", 100)[0].parts["parameters"] >= 8 * 10**8
    compiled = dataclasses.replace(fit, is_compiled=True)
    assert ways(compiled, "auto", None)[0].parts["compilation"] == 0
    kept = dataclasses.replace(fit, kept_nbytes=psutil.Process().memory_info().rss // 2)
    now = [ways(each, "auto", None)[0].parts["process now"] for each in (fit, kept)]
    assert now[1] == pytest.approx(now[0] / 2, rel=0.1)


def test_threads_that_read_take_more() -> None:
    one, four = (ways(fit_of(num_workers=k), "auto", 100)[0].parts["blocks"] for k in (1, 4))
    assert four > one + 3 * 16 * MIB


def test_rows_that_are_in_memory_already(tmp_path) -> None:
    def table_of(source):
        fit = dataclasses.replace(fit_of(), loader=DataLoader(source, 10))
        way = ways(fit, "auto", None)[0]
        return way.parts["table"], way.remark

    x = np.zeros(1_000)
    words = "the rows are in memory already"
    assert table_of(x) == (0, words)
    assert table_of(pa.table({"x": x})) == (0, words)
    np.save(tmp_path / "x.npy", x)
    assert table_of(np.load(tmp_path / "x.npy", mmap_mode="r")[:500]) == (4_000, "")
    pq.write_table(pa.table({"x": x, "y": x}), tmp_path / "x.parquet")
    assert table_of(parquet_source(tmp_path / "x.parquet")) == (16_000, "")
    # What is left of the table counts, and as it is in memory.
    words = pa.table({"name": ["a", "b"] * 500, "x": x})
    pq.write_table(words, tmp_path / "words.parquet")
    source = parquet_source(
        tmp_path / "words.parquet",
        columns={"code": "name"},
        categories="auto",
        filters=pc.field("name") == "a",
    )
    assert table_of(source) == (8 * 500, "")


def test_the_memory_of_a_fit_that_cannot_be_had() -> None:
    found = in_mib(fit_of(10**12))
    assert found[0][1] > 700_000_000
