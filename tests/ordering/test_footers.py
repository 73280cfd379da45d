from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pymc_streaming.ordering.footers import ColumnRanges, read_footers
from pymc_streaming.sources.files import find_files

RNG = np.random.default_rng(0)
N = 20_000
LATE = pa.array(np.arange(N) >= N // 2).cast(pa.int8())


def ranges_of(tmp_path: Path, column, row_group_size: int = 1_000, **options) -> ColumnRanges:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"c": column}), path, row_group_size=row_group_size, **options)
    return read_footers(find_files(path, "*")).ranges["c"]


SORTED = {
    "numbers": np.sort(RNG.normal(size=N)),
    "whole numbers": np.repeat(np.arange(20), N // 20),
    "dates": pa.array(np.sort(RNG.integers(0, 900, N)).astype("int32")).cast(pa.date32()),
    "times": pa.array(np.sort(RNG.integers(0, 10**15, N))).cast(pa.timestamp("us", "UTC")),
    "nanoseconds": pa.array(np.sort(RNG.integers(0, 10**18, N))).cast(pa.timestamp("ns")),
    "text": np.sort(RNG.choice([f"key {i:04d}" for i in range(500)], N)),
    "unsigned": np.sort(RNG.integers(0, 2**64 - 1, N, dtype=np.uint64)),
    "decimals": pa.array(np.sort(RNG.normal(size=N)).round(3)).cast(pa.decimal128(12, 6)),
}


@pytest.mark.parametrize("name", SORTED)
def test_sorted_columns_show_in_the_footers_alone(name, tmp_path):
    column = ranges_of(tmp_path, SORTED[name])
    assert column.p_value() < 1e-9
    assert column.trend == pytest.approx(1.0, abs=0.02)
    assert column.overlap < 0.01


def test_descending_is_a_negative_trend(tmp_path):
    column = ranges_of(tmp_path, SORTED["numbers"][::-1].copy())
    assert column.trend == pytest.approx(-1.0)
    assert column.p_value() < 1e-9


def shuffled(kind: str) -> np.ndarray | pa.Array:
    values = {
        "heavy tails": RNG.standard_cauchy(size=N),
        "constant": np.full(N, 3),
        "rare": (RNG.random(N) < 1e-3).astype(int),
        "one value": np.eye(1, N, 77).ravel(),
        "nulls": pa.array(RNG.normal(size=N), mask=RNG.random(N) < 0.999),
        "all null": pa.array(np.zeros(N), mask=np.ones(N, bool)),
        "NaN": np.full(N, np.nan),
        "some NaN": np.where(RNG.random(N) < 0.9, np.nan, RNG.normal(size=N)),
        "long text": RNG.choice(["a" * 200 + str(i) for i in range(5)], N),
    }
    return values[kind]


@pytest.mark.parametrize(
    "kind",
    ["heavy tails", "constant", "rare", "one value", "nulls", "all null", "NaN", "some NaN",
     "long text"],
)  # fmt: skip
@pytest.mark.parametrize("row_group_size", [700, 5_000, N])
def test_shuffled_columns_raise_no_alarm(kind, row_group_size, tmp_path):
    assert ranges_of(tmp_path, shuffled(kind), row_group_size).p_value() > 1e-4


def test_p_values_of_shuffled_columns_are_not_too_small(tmp_path):
    found = [
        ranges_of(tmp_path, RNG.standard_cauchy(size=2_000).round(1), 100).p_value()
        for _ in range(300)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.09


def test_a_short_group_cannot_be_held_against_others(tmp_path):
    """Ten values of a group being below all of another's happens."""
    values = np.concatenate([RNG.normal(size=1_000), np.full(10, -9.0)])
    assert ranges_of(tmp_path, values, 1_000).p_value() == 1.0


def test_growing_groups_have_growing_ranges_in_any_order(tmp_path):
    for i in range(60):
        values = RNG.standard_cauchy(size=100 + 20 * i)
        pq.write_table(pa.table({"c": values}), tmp_path / f"{i:02d}.parquet")
    assert read_footers(find_files(tmp_path, "*.parquet")).ranges["c"].p_value() > 0.01


def test_nulls_in_the_first_half_only(tmp_path):
    column = pa.array(RNG.normal(size=N), mask=(np.arange(N) < N // 2) & (RNG.random(N) < 0.2))
    assert ranges_of(tmp_path, column).p_value() < 1e-9


def test_infinities_are_the_ends_of_ranges(tmp_path):
    values = np.repeat([-np.inf, 0.0, 1.0, np.inf], N // 4)
    column = ranges_of(tmp_path, values)
    assert column.trend > 0.85  # four different ranges, many ties
    assert column.overlap < 0.01
    assert column.p_value() < 1e-9
    mixed = np.where(RNG.random(N) < 0.5, RNG.normal(size=N), np.repeat([-np.inf, np.inf], N // 2))
    assert ranges_of(tmp_path, mixed).p_value() < 0.02
    anywhere = np.where(RNG.random(N) < 0.5, RNG.normal(size=N), RNG.choice([-np.inf, np.inf], N))
    assert ranges_of(tmp_path, anywhere).p_value() > 0.1


def test_columns_that_cannot_be_judged_are_left_out(tmp_path):
    path = tmp_path / "t.parquet"
    table = {
        "key": pa.array([b"%06d" % i for i in range(N)], pa.binary()),
        "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1], pa.int8()).take(LATE)),
        "number": np.arange(N),
    }
    pq.write_table(pa.table(table), path, row_group_size=1_000)
    assert set(read_footers(find_files(path, "*")).ranges) == {"number"}


def test_without_statistics_nothing_is_claimed(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"c": np.arange(N)}), path, write_statistics=False)
    assert read_footers(find_files(path, "*")).ranges == {}


def test_a_declaration_is_kept_apart_from_evidence(tmp_path):
    column = ranges_of(tmp_path, RNG.normal(size=N), sorting_columns=[pq.SortingColumn(0)])
    assert column.p_value() > 0.001
    assert read_footers(find_files(tmp_path / "t.parquet", "*")).sorting == {"c"}


def test_columns_that_differ_between_files_are_left_out(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": [1.0, 2.0]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": ["x", "y"], "b": [3.0, 4.0]}), tmp_path / "1.parquet")
    footers = read_footers(find_files(tmp_path, "*.parquet"))
    assert footers.uneven == {"a"}
    assert set(footers.ranges) == {"b"}
    assert footers.counts == [2, 2]
