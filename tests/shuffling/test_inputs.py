from __future__ import annotations

import datetime as dt
import decimal
import gzip
import itertools
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from pymc_streaming import preshuffle
from pymc_streaming.errors import (
    ArgumentError,
    ChangedFileError,
    CorruptFileError,
    ManifestError,
    MissingFileError,
    SchemaError,
    SourceError,
)
from pymc_streaming.shuffling import inputs
from pymc_streaming.shuffling.inputs import open_table
from tests.tables import expected_order, rows_of, small_pieces, write

QUIET = {"seed": 0, "progressbar": False}
FORMS = pytest.mark.parametrize("form", ["parquet", "arrow"])


def holes(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    """The values, every seventh of them null."""
    return pa.array([v if i % 7 else None for i, v in enumerate(values)], kind)


N = 240
TEXT = [f"text {i % 13}" * (i % 5) for i in range(N)]
NAN = float("nan")
COLUMNS = {
    "int8": holes([i % 100 for i in range(N)], pa.int8()),
    "uint64": pa.array([2**64 - 1 - i for i in range(N)], pa.uint64()),
    "float16": pa.array(np.arange(N).astype(np.float16)),
    "float": holes([NAN, 0.0, -0.0, float("inf")] * (N // 4), pa.float32()),
    "bool": holes([i % 3 == 0 for i in range(N)]),
    "null": pa.nulls(N),
    "string": holes(TEXT),
    "large string": holes(TEXT, pa.large_string()),
    "binary": holes([text.encode() for text in TEXT]),
    "binary of one length": holes([b"four"] * N, pa.binary(4)),
    "date": holes([dt.date(1969, 12, 1) + dt.timedelta(i) for i in range(N)]),
    "time": holes([dt.time(i % 24) for i in range(N)]),
    "timestamp": holes([-(10**18) + i for i in range(N)], pa.timestamp("ns")),
    "zoned": holes([i * 3600 for i in range(N)], pa.timestamp("us", tz="Europe/Paris")),
    "duration": holes(list(range(N)), pa.duration("us")),
    "decimal": holes([decimal.Decimal(i) / 4 for i in range(N)], pa.decimal128(20, 5)),
    "wide decimal": holes([decimal.Decimal(i) / 4 for i in range(N)], pa.decimal256(50, 5)),
    "list": holes([[None, i] * (i % 3) for i in range(N)]),
    "list of lists": holes([[[i], None, []] for i in range(N)]),
    "list of one length": holes([[1.0 * i, 2] for i in range(N)], pa.list_(pa.float32(), 2)),
    "numbers side by side": pa.array([[1.0 * i, 2] for i in range(N)], pa.list_(pa.float64(), 2)),
    "some of them null": pa.array([[1.0 * i, None] for i in range(N)], pa.list_(pa.float64(), 2)),
    "struct": holes([{"a": i, "b": [str(i)]} for i in range(N)]),
    "map": holes([[("key", i)] for i in range(N)], pa.map_(pa.string(), pa.int64())),
    "dictionary": holes(TEXT).dictionary_encode(),
    "uuid": pa.array([i.to_bytes(16) for i in range(N)], pa.uuid()),
}
# Parquet has no such lists; Arrow's own reader cannot read them back.
ARROW_ONLY = {
    "list of no length": pa.array([[]] * N, pa.list_(pa.float32(), 0)),
    "dictionary of numbers": pa.DictionaryArray.from_arrays(
        [i % 3 for i in range(N)], [10, 20, 30]
    ),
    "ordered": pa.DictionaryArray.from_arrays(
        holes([i % 3 for i in range(N)], pa.int8()),
        ["low", "medium", "high", "not used"],
        ordered=True,
    ),
}


def values(table: pa.Table) -> list[str]:
    # NaN is not itself, and 0.0 is -0.0, but both look like what they are.
    return [repr(row) for row in table.to_pylist()]


@FORMS
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("n_files", [1, 3])
def test_values_and_types_of_all_kinds(n_files, kind, form, tmp_path):
    columns = COLUMNS | (ARROW_ONLY if kind == form == "arrow" and n_files == 1 else {})
    table = pa.table(columns)
    for i in range(n_files):
        part = table.slice(i * N // n_files, N // n_files)
        write(tmp_path / "in" / f"{i}.{kind}", part, [0, 50, 1, 0])
    with small_pieces(run_bytes=5000):
        preshuffle(
            tmp_path / "in", tmp_path / "out", format=form, memory_limit=40_000, workers=1, **QUIET
        )
    found = rows_of(tmp_path / "out")
    for name in columns:
        expected = table.select([name]).take(expected_order(N, 0))
        assert values(found.select([name])) == values(expected)
        if name == "dictionary" and n_files > 1:
            continue  # see below
        assert found.schema.field(name).type == table.schema.field(name).type


@FORMS
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_dictionaries_that_differ(kind, form, tmp_path):
    """More levels together than the type of the indices of one could count."""
    parts = [pa.array([f"{i}: {k % 90}" for k in range(100)]).dictionary_encode() for i in range(3)]
    tables = [
        pa.table({"x": pa.DictionaryArray.from_arrays(p.indices.cast(pa.int8()), p.dictionary)})
        for p in parts
    ]
    for i, table in enumerate(tables):
        write(tmp_path / "in" / f"{i}.{kind}", table, [30])
    with small_pieces():
        preshuffle(tmp_path / "in", tmp_path / "out", format=form, memory_limit=9000, **QUIET)
    found = rows_of(tmp_path / "out")
    expected = [row for table in tables for row in table["x"].to_pylist()]
    assert found["x"].to_pylist() == [expected[i] for i in expected_order(300, 0)]
    assert found.schema.field("x").type == pa.dictionary(pa.int32(), pa.string())


def test_levels_keep_their_order_and_their_unused_ones(tmp_path):
    write(tmp_path / "a.arrow", pa.table({"x": ARROW_ONLY["ordered"]}), [100])
    preshuffle(tmp_path / "a.arrow", tmp_path / "out", format="arrow", **QUIET)
    found = rows_of(tmp_path / "out")["x"].chunk(0)
    assert found.dictionary.to_pylist() == ["low", "medium", "high", "not used"]
    assert found.type.ordered


@FORMS
def test_views(form, tmp_path):
    """Arrow cannot take rows from views, which Polars writes unless told otherwise."""
    frame = pl.DataFrame({"text": [f"{'long ' * 9}{i}" for i in range(50)]}).with_columns(
        category=pl.col("text").cast(pl.Categorical),
        binary=pl.col("text").cast(pl.Binary),
        list=pl.concat_list("text"),
        struct=pl.struct("text"),
    )
    frame.write_ipc(tmp_path / "a.arrow")
    assert pa.ipc.open_file(tmp_path / "a.arrow").schema.field("text").type == pa.string_view()
    preshuffle(tmp_path / "a.arrow", tmp_path / "out", format=form, **QUIET)
    found = rows_of(tmp_path / "out")
    assert found.to_pylist() == frame[expected_order(50, 0)].to_dicts()
    assert found.schema.field("text").type == pa.large_string()


@FORMS
def test_encodings_that_differ_between_files(form, tmp_path):
    text = pa.array(["a", "b", None])
    kinds = [text, text.cast(pa.large_string()), text.dictionary_encode(), text.cast("string_view")]
    for i, column in enumerate(kinds):
        write(tmp_path / "in" / f"{i}.arrow", pa.table({"x": column}))
    preshuffle(tmp_path / "in", tmp_path / "out", format=form, **QUIET)
    found = rows_of(tmp_path / "out")["x"]
    assert found.type == pa.large_string()
    assert found.to_pylist() == [["a", "b", None][i % 3] for i in expected_order(12, 0)]


@FORMS
@pytest.mark.parametrize("ordered", [False, True])
def test_a_null_among_the_levels_is_a_null_in_the_row(form, ordered, tmp_path):
    codes = pa.array([0, 1, 2, None, 3], pa.int8())
    column = pa.DictionaryArray.from_arrays(codes, ["a", None, "b", None], ordered=ordered)
    write(tmp_path / "a.arrow", pa.table({"x": pa.chunked_array([column] * 30)}), [20])
    with small_pieces():
        preshuffle(tmp_path / "a.arrow", tmp_path / "out", format=form, **QUIET)
    found = rows_of(tmp_path / "out")["x"]
    assert found.type == column.type
    texts = ["a", None, "b", None, None]
    assert found.to_pylist() == [texts[i % 5] for i in expected_order(150, 0)]


@FORMS
def test_thousands_of_columns(form, tmp_path):
    table = pa.table({f"x{i}": np.arange(20.0) + i for i in range(1500)})
    write(tmp_path / "a.parquet", table, [7])
    preshuffle(tmp_path / "a.parquet", tmp_path / "out", format=form, shards=2, **QUIET)
    assert rows_of(tmp_path / "out").equals(table.take(expected_order(20, 0)))


@FORMS
def test_one_row_much_wider_than_the_others(form, tmp_path):
    """It does not fit in a range that rows of one size would fill."""
    text = ["short"] * 2000
    text[1000] = "wide" * 7_500_000
    write(tmp_path / "a.parquet", pa.table({"row": range(2000), "text": text}), [500])
    preshuffle(
        tmp_path / "a.parquet",
        tmp_path / "out",
        format=form,
        memory_limit="24MiB",
        shards=3,
        **QUIET,
    )
    found = rows_of(tmp_path / "out")
    assert found["row"].to_pylist() == expected_order(2000, 0)
    assert found["text"][found["row"].to_pylist().index(1000)].as_py() == text[1000]


def test_long_strings_that_the_file_holds_once(tmp_path):
    """A megabyte of file that is 40 MB of rows is cut up by what it is in memory."""
    text = [f"{i % 5}" * 10_000 for i in range(4000)]
    path = write(tmp_path / "a.parquet", pa.table({"text": text}))
    assert path.stat().st_size < 1e6
    table = open_table(path, None)
    assert 10_000 <= table.row_bytes < 11_000
    sizes = [inputs.memory_of(batch) for batch, _ in table.read(table.pieces)]
    assert max(sizes) <= 17 * 2**20
    preshuffle(path, tmp_path / "out", memory_limit="24MiB", **QUIET)
    found = rows_of(tmp_path / "out")["text"]
    assert found.to_pylist() == [text[i] for i in expected_order(4000, 0)]


# Formats -------------------------------------------------------------------------------


def test_feather(tmp_path):
    frame = pd.DataFrame({"x": np.arange(100.0), "g": pd.Categorical(["a", "b"] * 50)})
    for compression in ("uncompressed", "lz4", "zstd"):
        path = tmp_path / f"{compression}.feather"
        feather.write_feather(frame, path, compression=compression, chunksize=30)
        preshuffle(path, tmp_path / compression, format="arrow", **QUIET)
    found = [rows_of(tmp_path / c) for c in ("uncompressed", "lz4", "zstd")]
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])
    expected = frame.iloc[expected_order(100, 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[0].to_pandas().reset_index(drop=True), expected)


@FORMS
@pytest.mark.parametrize("index", [pd.Index(range(100, 150)), pd.RangeIndex(50)])
def test_pandas_metadata(index, form, tmp_path):
    frame = pd.DataFrame(
        {"x": np.arange(50.0), "when": pd.date_range("2020", periods=50, tz="Europe/Paris")}
    )
    frame.set_index(pd.Index(list("ab") * 25, name="letter")).to_parquet(tmp_path / "a.parquet")
    preshuffle(tmp_path / "a.parquet", tmp_path / "out", format=form, **QUIET)
    found = rows_of(tmp_path / "out").to_pandas()
    pd.testing.assert_series_equal(
        found["when"], frame["when"].iloc[expected_order(50, 0)], check_index=False
    )
    assert found.index.tolist() == ["ab"[i % 2] for i in expected_order(50, 0)]
    # An index that only counts would number the shuffled rows, which it does not belong to.
    frame.set_index(index).to_parquet(tmp_path / "b.parquet")
    preshuffle(tmp_path / "b.parquet", tmp_path / "counted", format=form, **QUIET)
    found = rows_of(tmp_path / "counted").to_pandas()
    expected = frame.iloc[expected_order(50, 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv(ending, tmp_path):
    frame = pd.DataFrame(
        {"x": np.arange(2000) / 4, "n": range(2000), "text": ['a "b"', "c,d\ne", "", "é"] * 500}
    )
    for i, part in enumerate((frame[:700], frame[:0], frame[700:])):
        part.to_csv(tmp_path / f"{i}.{ending}", index=False)
    preshuffle(
        [tmp_path / f"{i}.{ending}" for i in (0, 2)],
        tmp_path / "out",
        memory_limit="24MiB",
        **QUIET,
    )
    found = rows_of(tmp_path / "out").to_pandas()
    expected = frame.iloc[expected_order(2000, 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    preshuffle(tmp_path / f"0.{ending}", tmp_path / "some", columns=["text", "n"], **QUIET)
    assert rows_of(tmp_path / "some").column_names == ["text", "n"]


def test_formats_give_the_same_order(tmp_path):
    table = pa.table({"x": np.arange(100.0)})
    write(tmp_path / "a.parquet", table, [1, 50])
    write(tmp_path / "a.arrow", table, [99])
    table.to_pandas().to_csv(tmp_path / "a.csv", index=False)
    for ending in ("parquet", "arrow", "csv"):
        preshuffle(tmp_path / f"a.{ending}", tmp_path / ending, **QUIET)
        assert rows_of(tmp_path / ending)["x"].to_pylist() == expected_order(100, 0)


def test_tables_of_several_kinds_are_refused(tmp_path):
    for name in ("b.csv", "C.CSV"):
        (tmp_path / name).write_text("x\n1\n")
    table = open_table(tmp_path, None)
    assert (table.kind, table.n_rows) == ("csv", 2)
    feather.write_feather(pa.table({"x": [1]}), tmp_path / "b.feather")
    with pytest.raises(ArgumentError, match=r"several kinds, .*C\.CSV and .*b\.feather\. Name the"):
        open_table(tmp_path, None)
    write(tmp_path / "deep" / "d.parquet", pa.table({"x": [1]}))
    with pytest.raises(ArgumentError, match=r"C\.CSV and .*b\.feather and .*d\.parquet"):
        open_table(tmp_path, None)
    assert open_table(tmp_path / "b.csv", None).kind == "csv"
    assert open_table(str(tmp_path / "*.csv"), None).n_rows == 1
    write(tmp_path / "a.arrow", pa.table({"x": [1]}))
    assert open_table([tmp_path / "a.arrow", tmp_path / "b.feather"], None).n_rows == 2
    for several in ([tmp_path / "a.arrow", tmp_path / "b.csv"], str(tmp_path / "*.*")):
        with pytest.raises(ArgumentError, match="several kinds"):
            open_table(several, None)


def test_capitals_in_the_end_of_a_name(tmp_path):
    table = pa.table({"x": [1]})
    for name in ("a.parquet", "b.PARQUET", "c.v1.Parquet"):
        write(tmp_path / "low.parquet", table).rename(tmp_path / name)
    assert open_table(tmp_path, None).n_rows == 3
    write(tmp_path / "low.arrow", table).rename(tmp_path / "LOW.ARROW")
    assert open_table(tmp_path / "LOW.ARROW", None).kind == "arrow"


def test_remote(tmp_path):
    table = pa.table({"x": np.arange(100.0)})
    memory = fsspec.filesystem("memory")
    for ending in ("parquet", "arrow"):
        local = write(tmp_path / f"a.{ending}", table, [30])
        memory.pipe(f"/shuffled_from/{ending}/a.{ending}", local.read_bytes())
        preshuffle(f"memory://shuffled_from/{ending}/", tmp_path / ending, **QUIET)
        assert rows_of(tmp_path / ending)["x"].to_pylist() == expected_order(100, 0)


def test_a_shuffled_table_is_shuffled_again(tmp_path):
    """Its packed rows stay what they are."""
    path = write(tmp_path / "a.parquet", pa.table({"x": np.arange(50.0), "y": np.zeros(50)}))
    options = {"format": "arrow", **QUIET}
    preshuffle(path, tmp_path / "first", dtype="float32", shards=2, **options)
    preshuffle(tmp_path / "first", tmp_path / "second", **options | {"seed": 1})
    first, second = rows_of(tmp_path / "first"), rows_of(tmp_path / "second")
    assert second["batch"].to_pylist() == first["batch"].take(expected_order(50, 1)).to_pylist()
    assert second.schema.field("batch").metadata == first.schema.field("batch").metadata
    preshuffle(path, tmp_path / "other", columns=["y", "x"], dtype="float32", **options)
    both = [tmp_path / "first", tmp_path / "other"]
    with pytest.raises(SchemaError, match=r"other.*the rows hold the columns y, x, but x, y in"):
        preshuffle(both, tmp_path / "third", **options)


@FORMS
def test_a_shuffled_table_that_is_not_what_it_was_is_not_shuffled_again(form, tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": np.arange(50.0)}))
    preshuffle(path, tmp_path / "first", shards=3, format=form, **QUIET)
    shards = sorted((tmp_path / "first").glob("part-*"))
    for harm in (lambda p: p.write_bytes(shards[0].read_bytes()), Path.unlink):
        harm(shards[1])
        with pytest.raises(ManifestError, match=r"first: .* part-00001"):
            preshuffle(tmp_path / "first", tmp_path / "second", **QUIET)
    for shard in (shards[0], shards[2]):
        shard.unlink()
    with pytest.raises(ManifestError, match="part-00000"):
        preshuffle([tmp_path / "first"], tmp_path / "second", **QUIET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "first"]


# What cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("gone", MissingFileError, "gone: the file is not there"),
        ("gone.parquet", MissingFileError, "gone.parquet"),
        ("*.arrow", MissingFileError, "no file matches"),
        ("empty", MissingFileError, "empty: no file matches .*csv.gz"),
        (["a.parquet", "gone.parquet"], MissingFileError, "gone.parquet"),
        (["a.parquet", "a.parquet"], ArgumentError, "a.parquet is listed more than once"),
        ([], ArgumentError, "empty list"),
        (5, ArgumentError, "path must be a path"),
        (pa.table({"x": [1]}), ArgumentError, "path must be a path"),
        ("unknown://a.parquet", ArgumentError, "unknown"),
    ],
)
def test_paths_that_lead_nowhere(source, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("a.parquet"), pa.table({"x": [1.0]}))
    Path("empty").mkdir()
    with pytest.raises(error, match=message):
        preshuffle(source, tmp_path / "out", **QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "empty"]


@pytest.mark.parametrize(
    ("second", "columns", "message"),
    [
        ({"x": [1.0]}, None, "1.parquet: there is no column 'y'.*It is in .*0.parquet"),
        ({"x": [1.0], "y": ["a"]}, None, "1.parquet: column 'y' has type string, but int64 in"),
        ({"x": [1.0], "y": [1.0]}, ["y"], "1.parquet: column 'y' has type double, but int64 in"),
        ({"x": [1.0], "y": [1], "z": [1]}, None, "1.parquet: column 'z' is not in .*0.parquet"),
        ({"x": [1.0], "y": [1]}, ["w"], "0.parquet: there is no column 'w'.*x, y"),
        ({"x": [1.0], "y": [1]}, ["x", "x"], "column 'x' is there more than once"),
    ],
)
def test_files_that_do_not_fit_together(second, columns, message, tmp_path):
    write(tmp_path / "0.parquet", pa.table({"x": [1.0], "y": [1]}))
    write(tmp_path / "1.parquet", pa.table(second))
    with pytest.raises(SchemaError, match=message):
        open_table(tmp_path, columns)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("columns", [None, ["x"]])
def test_a_column_that_is_there_twice(columns, which, tmp_path):
    twice = pa.table([[1.0], [2.0]], names=["x", "x"])
    for i in range(2):
        write(tmp_path / f"{i}.parquet", twice if i == which else pa.table({"x": [1.0]}))
    with pytest.raises(SchemaError, match=rf"{which}\.parquet: column 'x' is there more than once"):
        open_table(tmp_path, columns)


def test_another_order_of_columns_is_the_same_table(tmp_path):
    write(tmp_path / "in" / "0.parquet", pa.table({"x": [1.0], "y": [2]}))
    write(tmp_path / "in" / "1.parquet", pa.table({"z": ["-"], "y": [4], "x": [3.0]}))
    preshuffle(tmp_path / "in", tmp_path / "out", columns=["x", "y"], **QUIET)
    assert sorted(rows_of(tmp_path / "out").to_pylist(), key=str) == [
        {"x": 1.0, "y": 2},
        {"x": 3.0, "y": 4},
    ]


def damaged(path: Path, at: int | None) -> None:
    content = bytearray(path.read_bytes())
    if at is None:
        path.write_bytes(content[:-50])
    else:
        content[at] ^= 0xFF
        path.write_bytes(content)


def test_damaged_parquet(tmp_path):
    table = pa.table({"x": np.random.default_rng(0).normal(size=4000)})
    options = {"compression": None, "use_dictionary": False, "write_page_checksum": True}
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=1000, **options)
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    damaged(path, start + 2000)
    with small_pieces(), pytest.raises(CorruptFileError, match=r"a\.parquet, row group 2: "):
        preshuffle(path, tmp_path / "out", **QUIET)
    damaged(path, None)
    with pytest.raises(CorruptFileError, match=r"a\.parquet: "):
        preshuffle(path, tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compression", ["uncompressed", "lz4"])
def test_damaged_arrow_does_not_crash(compression, tmp_path):
    """There are no checksums: whatever a byte is changed to must end in an error or in rows."""
    table = pa.table(
        {
            "text": [f"text {i}" for i in range(500)],
            "list": [[i] * (i % 3) for i in range(500)],
            "level": pa.array([f"level {i % 9}" for i in range(500)]).dictionary_encode(),
        }
    )
    path = tmp_path / "a.feather"
    feather.write_feather(table, path, compression=compression, chunksize=100)
    whole, errors = path.read_bytes(), []
    for at in np.random.default_rng(1).integers(8, len(whole), 120):
        path.write_bytes(whole)
        damaged(path, at)
        try:
            preshuffle(path, tmp_path / "out", overwrite=True, **QUIET)
        except (SourceError, MemoryError) as error:
            errors.append(error)
    assert any("record batch" in str(error) for error in errors)
    assert len(errors) > 20
    path.write_bytes(whole[:-50])
    with pytest.raises(CorruptFileError, match="expected an Arrow IPC or Feather file"):
        preshuffle(path, tmp_path / "new", **QUIET)


def test_damaged_csv(tmp_path):
    path = tmp_path / "a.csv"
    for text, message in [
        ("", "a.csv: Empty CSV file.*names of the columns in the first line"),
        ("x,y\n1,2\n3\n", "a.csv: .*Expected 2 columns"),
        ("x\n\udcff\n", "a.csv: .*UTF"),
    ]:
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(SchemaError, match=message):
            preshuffle(path, tmp_path / "out", **QUIET)
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        file.write("x\n" + "\n".join(map(str, range(10_000))))
    damaged(tmp_path / "b.csv.gz", None)
    with pytest.raises(SourceError, match=r"b\.csv\.gz"):
        preshuffle(tmp_path / "b.csv.gz", tmp_path / "out", **QUIET)


def test_not_what_the_name_says(tmp_path):
    for ending in ("parquet", "arrow", "feather"):
        path = tmp_path / f"a.{ending}"
        path.write_text("x\n1\n2\n" * 100)
        with pytest.raises(CorruptFileError, match=rf"a\.{ending}: this file is damaged, or not"):
            preshuffle(path, tmp_path / "out", **QUIET)


@pytest.mark.parametrize("rows", [999, 1001])
def test_a_file_that_has_another_length_by_now(rows, tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": np.arange(1000.0)}))
    table = open_table(path, None)
    write(path, pa.table({"x": np.arange(float(rows))}))
    with pytest.raises(ChangedFileError, match=r"a\.parquet: the file was written to or replaced"):
        list(table.read(table.pieces))


def test_a_file_that_has_other_columns_by_now(tmp_path):
    path = write(tmp_path / "a.arrow", pa.table({"x": np.arange(10.0)}))
    table = open_table(path, None)
    write(path, pa.table({"x": ["text"] * 10}))
    with pytest.raises(SchemaError, match=r"a\.arrow, record batch 0: expected the columns"):
        list(table.read(table.pieces))


def test_what_arrow_cannot_read_is_not_called_damaged(tmp_path):
    level = pa.array(["a", "b"] * 100).dictionary_encode()
    column = pa.StructArray.from_arrays([level], ["level"])
    path = write(tmp_path / "a.parquet", pa.table({"x": range(200), "odd": column}), [100])
    with pytest.raises(SchemaError, match=r"a\.parquet.*Arrow cannot read this.*columns"):
        preshuffle(path, tmp_path / "out", **QUIET)
    preshuffle(path, tmp_path / "out", columns=["x"], **QUIET)


# How it is cut up ----------------------------------------------------------------------


def test_pieces_and_units(tmp_path, monkeypatch):
    table = pa.table({"x": np.arange(100.0)})
    write(tmp_path / "0.parquet", table.slice(0, 40), [10, 0, 5])
    write(tmp_path / "1.parquet", table.slice(0, 0))
    write(tmp_path / "2.parquet", table.slice(40, 60), [30])
    monkeypatch.setattr(inputs, "_BATCH_ROWS", 15)
    found = open_table(tmp_path, None)
    pieces = [(p.file.label, p.number, p.start, p.n_rows) for p in found.pieces]
    assert pieces == [
        ("0.parquet", 0, 0, 10),
        ("0.parquet", 2, 10, 5),
        ("0.parquet", 3, 15, 25),
        ("2.parquet", 0, 40, 30),
        ("2.parquet", 1, 70, 30),
    ]
    units = list(found.units())
    assert [[p.start for p in unit] for unit in units] == [[0, 10], [15], [40], [70]]
    read = [batch.column(0).to_pylist() for unit in units for batch, _ in found.read(unit)]
    assert [len(rows) for rows in read] == [15, 15, 10, 15, 15, 15, 15]
    assert list(itertools.chain.from_iterable(read)) == list(range(100))
    places = [where.partition(", ")[2] for unit in units for _, where in found.read(unit)]
    assert places[:3] == ["row group 0 to row group 2", "row group 3", "row group 3"]


def test_rows_that_vary_are_weighed(tmp_path):
    write(tmp_path / "a.parquet", pa.table({"x": [1.0, 2.0], "y": pa.array([1, 2], pa.int32())}))
    assert open_table(tmp_path / "a.parquet", None).row_bytes == 12
    write(tmp_path / "b.parquet", pa.table({"x": ["t" * 100] * 100, "y": [[1.0] * 10] * 100}))
    assert 184 <= open_table(tmp_path / "b.parquet", None).row_bytes < 200


def test_fingerprint(tmp_path):
    def fingerprint(columns: list[str] | None = None) -> str:
        return open_table(tmp_path, columns).fingerprint()

    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0], "y": [2.0]}))
    seen = {fingerprint(), fingerprint(["x"])}
    assert fingerprint() in seen
    write(path, pa.table({"x": [1.5], "y": [2.0]}))
    seen.add(fingerprint())
    path.rename(tmp_path / "b.parquet")
    seen.add(fingerprint())
    write(path, pa.table({"x": [1.5], "y": [2.0]}))
    seen.add(fingerprint())
    assert len(seen) == 5


def test_old_timestamps_that_stand_for_never(tmp_path):
    times = [dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1), dt.datetime(2026, 1, 2, 3, 4, 5, 6)]
    path = tmp_path / "int96.parquet"
    table = pa.table({"time": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    preshuffle(path, tmp_path / "out", **QUIET)
    assert sorted(rows_of(tmp_path / "out")["time"].to_pylist()) == sorted(times)
