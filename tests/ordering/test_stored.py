from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pymc_streaming import (
    ArraySpec,
    DataLoader,
    Fragment,
    IterableDataset,
    errors,
    order_report,
    parquet_source,
    preshuffle,
    shuffle_buffer,
)

N = 40_000


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "day": np.arange(N) // 400,
            "noise": rng.normal(size=N),
            "word": rng.choice(["red", "green", "blue"], N),
            "late": pa.array(rng.normal(size=N), mask=rng.random(N) < np.linspace(0.0, 0.2, N)),
        }
    )


def judged(report):
    return {column.name: column.ordered for column in report.columns}


FOUND = {"day": True, "noise": False, "word": False, "late": True}


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_files(table, tmp_path, compression):
    path = tmp_path / "t.feather"
    pyarrow.feather.write_feather(table, path, compression=compression, chunksize=5_000)
    report = order_report(path)
    assert judged(report) == FOUND
    assert (report.rows, report.fragments, report.shards) == (N, 8, 1)
    assert report.stored_bytes == path.stat().st_size
    assert judged(order_report(path, columns=["noise", "word"])) == {"noise": False, "word": False}


def test_a_folder_of_arrow_files_of_which_one_lacks_a_column(table, tmp_path):
    first, second = table.slice(0, N // 2), table.slice(N // 2).drop_columns(["late"])
    for number, part in enumerate((first, second)):
        pyarrow.feather.write_feather(part, tmp_path / f"{number}.arrow")
    report = order_report(tmp_path)
    assert (report.rows, report.shards) == (N, 2)
    assert judged(report) == FOUND | {"late": None}
    assert report.columns[-1].evidence == ("not the same in all files",)


def test_files_that_are_not_one_table(tmp_path):
    for name in ("x", "y"):
        pq.write_table(pa.table({name: [1.0]}), tmp_path / f"{name}.parquet")
    with pytest.raises(errors.SchemaError, match="no column is in all 2 files"):
        order_report(tmp_path)


def test_an_arrow_file_that_is_none(tmp_path):
    (tmp_path / "t.feather").write_bytes(b"no table")
    with pytest.raises(errors.CorruptFileError, match="expected an Arrow IPC or Feather file"):
        order_report(tmp_path / "t.feather")


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.csv.gz"])
def test_csv_is_refused_with_the_command_that_helps(tmp_path, name):
    path = tmp_path / "two words" / name
    path.parent.mkdir()
    path.write_text("x\n1\n")
    message = f"Feather .* pymc-streaming shuffle '{path}' shuffled --seed 0$"
    with pytest.raises(errors.ArgumentError, match=message):
        order_report(path)


def test_a_folder_of_csv_files_is_refused_too(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(errors.ArgumentError, match=f"shuffle {tmp_path} shuffled"):
        order_report(tmp_path)


def test_a_folder_without_a_table(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(errors.MissingFileError, match=r"no file matches '.*parquet' or '"):
        order_report(tmp_path)
    with pytest.raises(errors.MissingFileError, match="not there"):
        order_report(tmp_path / "no")


def test_parquet_and_arrow_files_in_one_list(table, tmp_path):
    pq.write_table(table, tmp_path / "t.parquet")
    pyarrow.feather.write_feather(table, tmp_path / "t.arrow")
    with pytest.raises(errors.ArgumentError, match="several kinds"):
        order_report([tmp_path / "t.parquet", tmp_path / "t.arrow"])


@pytest.mark.parametrize("options", [{}, {"format": "arrow"}])
def test_a_shuffled_folder_is_looked_at_all_the_same(table, tmp_path, options):
    pq.write_table(table, tmp_path / "t.parquet")
    preshuffle(tmp_path / "t.parquet", tmp_path / "out", seed=0, progressbar=False, **options)
    report = order_report(tmp_path / "out")
    assert report.verdict == "shuffled"
    assert "manifest" in report.reason
    assert report.sampled_rows == N
    assert set(judged(report).values()) == {False}


def test_rows_side_by_side(table, tmp_path):
    pq.write_table(table.select(["day", "noise"]), tmp_path / "t.parquet")
    preshuffle(
        tmp_path / "t.parquet", tmp_path / "out", seed=0, progressbar=False, format="arrow",
        dtype="float32",
    )  # fmt: skip
    report = order_report(tmp_path / "out")
    assert (report.verdict, judged(report)) == ("shuffled", {"day": False, "noise": False})
    assert report.sampled_rows == N
    assert judged(order_report(tmp_path / "out", columns=["noise"])) == {"noise": False}


@pytest.mark.parametrize("convert", [lambda t: t, pa.Table.to_pandas, pl.from_arrow])
def test_data_frames_with_text_and_nulls(table, convert):
    frame = convert(table)
    report = order_report(frame)
    assert judged(report) == FOUND
    assert (report.rows, report.shards, report.stored_bytes) == (N, 0, None)
    assert "sample(frac=1.0" in order_report(frame, buffer_size=100, batch_size=100).recommendation
    assert judged(order_report(frame, columns=["word"])) == {"word": False}
    with pytest.raises(errors.SchemaError, match="Did you mean 'noise'"):
        order_report(frame, columns=["nois"])


def test_a_data_frame_without_rows_or_with_a_column_twice():
    with pytest.raises(errors.RowCountError, match="no rows"):
        order_report(pd.DataFrame({"x": []}))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    with pytest.raises(errors.SchemaError, match="more than once"):
        order_report(twice)


def test_columns_are_not_for_sources(table):
    with pytest.raises(errors.ArgumentError, match="ArraySource, whose columns were chosen"):
        order_report(DataLoader(np.zeros(10), batch_size=2), columns=["x"])


def test_a_loader_is_judged_by_its_source_batch_and_buffer(table, tmp_path):
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2_000)
    source = parquet_source(tmp_path / "t.parquet", columns=["day", "noise"])
    loader = DataLoader(source, batch_size=500, shuffle=True, buffer_size=3_000)
    report = order_report(loader)
    assert judged(report) == {"day": True, "noise": False}
    assert (report.batch_size, report.buffer_size) == (500, 3_000)
    assert str(tmp_path) in report.recommendation
    assert report == order_report(source, batch_size=500, buffer_size=3_000)
    assert order_report(loader, batch_size=100).batch_size == 100
    in_order = order_report(DataLoader(source, batch_size=500))
    assert in_order.buffer_size == DataLoader(source, batch_size=500, shuffle=True).buffer_size
    assert order_report(shuffle_buffer(source, 3_000, 500)) == report


class Uncounted(IterableDataset):
    def __init__(self):
        self.layout = {"x": ArraySpec((), np.dtype("float64"), ("x",))}
        self.fragments = [Fragment(None, "all")]

    def read(self, fragment):
        rng = np.random.default_rng(0)
        yield from ({"x": rng.normal(size=1_000)} for _ in range(200))


def test_a_loader_knows_the_rows_that_its_source_does_not():
    assert order_report(Uncounted()).rows is None  # only the beginning was seen
    assert order_report(DataLoader(Uncounted(), 100, total_size=200_000)).rows == 200_000


def test_nothing_that_can_be_judged(tmp_path):
    nested = pa.table({"list": pa.array([[1.0]] * 50)})
    pq.write_table(nested, tmp_path / "t.parquet")
    for data in (tmp_path / "t.parquet", nested):
        report = order_report(data)
        assert (report.verdict, report.sampled_rows) == ("unknown", 0)
        assert "No column holds single numbers" in report.reason
        assert report.columns[0].evidence == ("no single values",)


def test_a_batch_and_a_buffer_that_are_larger_than_the_table(table):
    report = order_report(table.slice(0, 2_000), batch_size=5_000, buffer_size=10**9)
    assert (report.batch_size, report.buffer_size) == (2_000, 2_000)
    few = order_report(table.slice(0, 1))
    assert (few.verdict, few.batch_size, few.rows) == ("unknown", 1, 1)
