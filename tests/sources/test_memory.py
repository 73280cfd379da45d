from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytensor
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymc_streaming.errors import (
    ArgumentError,
    ConsumedIteratorError,
    MissingValueError,
    PrecisionError,
    RowCountError,
    SchemaError,
)
from pymc_streaming.sources import IterableDataset, array_source, read_checked, table_source


def read(source: IterableDataset) -> dict[str, np.ndarray]:
    blocks = [
        rows.block(source.layout)
        for fragment in source.fragments
        for rows in read_checked(source, fragment)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in source.layout}


# Arrays --------------------------------------------------------------------------------


def test_one_array() -> None:
    values = np.random.default_rng(0).normal(size=(150_000, 3))
    source = array_source(values)
    assert source.n_rows == 150_000
    assert [f.n_rows for f in source.fragments] == [65_536, 65_536, 18_928]
    assert source.fragments[1].origin == "array, rows 65,536 to 131,071"
    np.testing.assert_array_equal(read(source)["batch"], values)
    (block,) = source.read(source.fragments[1])
    assert np.shares_memory(block["batch"], values)
    assert "150,000 rows" in repr(source)


@pytest.mark.parametrize(
    ("given_dtype", "dtype"),
    [
        ("float64", "float32"),
        ("float16", "float32"),
        ("int8", "int64"),
        ("uint64", "int64"),
        ("bool", "int64"),
        (">f8", "float32"),
    ],
)
def test_dtypes(given_dtype: str, dtype: str) -> None:
    values = np.array([0, 1, 1], given_dtype)
    with pytensor.config.change_flags(floatX="float32"):
        source = array_source({"v": values})
    assert source.layout["v"].dtype == dtype
    found = read(source)["v"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, [0, 1, 1])


@settings(max_examples=30, deadline=None)
@given(n_rows=st.integers(1, 200_000), deep=st.integers(0, 3))
def test_every_row_once(n_rows: int, deep: int) -> None:
    values = {"y": np.arange(n_rows), "X": np.zeros((n_rows, *[2] * deep))}
    source = array_source(values)
    assert source.layout["X"].row_shape == (2,) * deep
    np.testing.assert_array_equal(read(source)["y"], values["y"])


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        (np.zeros((0, 2)), RowCountError),
        ({}, SchemaError),
        (np.float64(3), SchemaError),
        (np.array(["a"]), SchemaError),
        (np.array([1 + 2j]), SchemaError),
        (np.array(["2001-01-01"], "datetime64[D]"), SchemaError),
        (np.array([None, 1.0]), SchemaError),
        ({"a": np.zeros(2), "b": np.zeros(3)}, SchemaError),
        ({1: np.zeros(2)}, SchemaError),
        (np.ma.masked_equal([1.0, 2.0], 2.0), MissingValueError),
    ],
)
def test_arrays_that_are_refused(arrays: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        array_source(arrays)


def test_masked_array_without_masked_entries() -> None:
    assert read(array_source(np.ma.masked_array([1.0, 2.0])))["batch"].tolist() == [1.0, 2.0]


def test_values_that_do_not_fit() -> None:
    with pytest.raises(PrecisionError, match="rows 0 to 0, 'big'"):
        read(array_source({"big": np.array([2**63], np.uint64)}))
    with pytensor.config.change_flags(floatX="float32"):
        source = array_source(np.array([1e300]))
    with pytest.raises(PrecisionError, match="floatX"):
        read(source)


def test_nan_in_an_array() -> None:
    with pytest.raises(MissingValueError, match="rows 0 to 1"):
        read(array_source(np.array([[1.0], [np.nan]])))


# Tables --------------------------------------------------------------------------------

FRAME = {"x": [0.5, 1.5, 2.5], "k": [3, 1, 2], "g": ["b", "a", "b"], "flag": [True, False, True]}


class Stream:
    """A table that speaks the Arrow PyCapsule interface and nothing else."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.table(FRAME).__arrow_c_stream__(requested_schema)


class Array:
    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return pa.record_batch(FRAME).__arrow_c_array__(requested_schema)


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(FRAME, index=[7, 8, 9]),
        pd.DataFrame(FRAME).astype({"g": "category"}),
        pd.DataFrame(FRAME).convert_dtypes(dtype_backend="pyarrow"),
        pl.DataFrame(FRAME),
        pl.DataFrame(FRAME).with_columns(pl.col("g").cast(pl.Categorical)),
        pa.table(FRAME),
        pa.concat_tables([pa.table(FRAME)[:1], pa.table(FRAME)[1:]]),
        pa.record_batch(FRAME),
        Stream(),
        Array(),
    ],
    ids=lambda table: type(table).__module__ + "." + type(table).__name__,
)
def test_tables(table: Any) -> None:
    source = table_source(
        table, columns={"x": "x", "K": ["k", "flag"], "g": "g"}, categories="auto"
    )
    block = read(source)
    assert source.n_rows == 3
    assert source.categories == {"g": ("a", "b")}
    assert block["x"].tolist() == [0.5, 1.5, 2.5]
    assert block["K"].tolist() == [[3, 1], [1, 0], [2, 1]]
    assert block["g"].tolist() == [1, 0, 1]
    assert "3 rows" in repr(source)


def test_index_is_dropped() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index([5, 6], name="id"))
    assert table_source(frame).columns == ("x",)


def test_long_table_has_many_fragments() -> None:
    table = pa.table({"y": np.arange(100_000)})
    source = table_source(table, columns={"y": "y"})
    assert [f.n_rows for f in source.fragments] == [65_536, 34_464]
    np.testing.assert_array_equal(read(source)["y"], np.arange(100_000))


def test_missing_values_in_pandas() -> None:
    frame = pd.DataFrame({"x": [1.0, np.nan]})
    with pytest.raises(MissingValueError, match="table: column 'x' holds 1 null"):
        table_source(frame)
    source = table_source(frame, transform=lambda block: np.nan_to_num(block["x"], nan=9.0))
    assert read(source)["batch"].tolist() == [1.0, 9.0]


def test_stream_that_can_be_read_once() -> None:
    reader = pa.table(FRAME).to_reader()
    with pytest.raises(ConsumedIteratorError, match=r"RecordBatchReader.*read_all"):
        table_source(reader)


@pytest.mark.parametrize("table", [3, "text", {"x": [1]}, pl.LazyFrame(FRAME)])
def test_no_table(table: Any) -> None:
    with pytest.raises(ArgumentError, match=type(table).__name__):
        table_source(table)


@pytest.mark.parametrize(
    "table", [pl.Series([1.0]), pa.array([1.0]), pd.DataFrame({"x": [1, "a", b"c"]})]
)
def test_table_that_is_none(table: Any) -> None:
    with pytest.raises(SchemaError, match="table of Arrow columns"):
        table_source(table)


def test_empty_table() -> None:
    with pytest.raises(RowCountError, match="no rows"):
        table_source(pa.table({"x": pa.array([], pa.float64())}))
