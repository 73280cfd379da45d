from __future__ import annotations

import itertools
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pymc_streaming import Manifest, arrow_source, parquet_source, preshuffle
from pymc_streaming.errors import (
    ArgumentError,
    MissingFileError,
    MissingValueError,
    OutputError,
    OutputExistsError,
    PrecisionError,
    SchemaError,
    SourceError,
)
from pymc_streaming.shuffling import external, scratch
from pymc_streaming.shuffling.keys import row_keys
from pymc_streaming.shuffling.shards import read_schema
from tests.tables import contents, expected_order, rows_of, small_pieces, write

QUIET = {"seed": 0, "progressbar": False}


def mixed(n_rows: int = 3000) -> pa.Table:
    """Numbers, strings of all lengths, lists, nulls, and a dictionary."""
    rng = np.random.default_rng(0)
    text = ["x" * int(n) if n < 40 else None for n in rng.geometric(0.1, n_rows)]
    return pa.table(
        {
            "row": np.arange(n_rows),
            "x": rng.normal(size=n_rows).astype(np.float32),
            "text": text,
            "list": [[i] * (i % 4) for i in range(n_rows)],
            "level": pa.array([f"level {i // 100}" for i in range(n_rows)]).dictionary_encode(),
        }
    )


# The same bytes, however the work is cut up ---------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    table = mixed()
    write(folder / "a.parquet", table.slice(0, 1000), [17, 400, 1])
    write(folder / "b.parquet", table.slice(1000, 0))
    write(folder / "c.parquet", table.slice(1000, 2000), [0, 1500])
    return folder


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    for form in ("parquet", "arrow"):
        preshuffle(source, folder / form, format=form, shards=3, rows_per_fragment=300, **QUIET)
    return folder


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("workers", "limit"), [*itertools.product([1, 2, 4], ["64MB", "1GB"]), (None, "512MB")]
)
def test_workers_and_memory_do_not_show(workers, limit, form, source, plain, tmp_path):
    options = {"format": form, "shards": 3, "rows_per_fragment": 300, **QUIET}
    preshuffle(source, tmp_path / "out", workers=workers, memory_limit=limit, **options)
    assert contents(tmp_path / "out") == contents(plain / form)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize(("workers", "limit"), [(1, 3000), (1, 20_000), (3, 60_000)])
def test_cells_that_are_divided_again_do_not_show(
    workers, limit, form, source, plain, tmp_path, monkeypatch
):
    folders, divide = [], scratch._divided
    monkeypatch.setattr(scratch, "_divided", lambda *a: folders.append(a[1]) or divide(*a))
    options = {"format": form, "shards": 3, "rows_per_fragment": 300, **QUIET}
    for name, value in {
        "_LEAST_WORKER_BYTES": 4,
        "_LEAST_RUN_BYTES": 5000,
        "_CACHED_BYTES": 2**20,
        "_LEAST_PIECE_BYTES": 2**20,
    }.items():
        monkeypatch.setattr(external, name, value)
    monkeypatch.setattr(scratch, "_MOST_OPEN", 2)
    preshuffle(source, tmp_path / "out", workers=workers, memory_limit=limit, **options)
    assert contents(tmp_path / "out") == contents(plain / form)
    assert folders
    # With so little memory the parts of some cells were too large as well.
    nested = any(folder.parent.name.startswith("cell-") for folder in folders)
    assert nested or limit > 3000


def test_the_rows_are_sorted_by_key(source, plain):
    table = pa.concat_tables([pq.ParquetFile(p).read() for p in sorted(source.iterdir())])
    expected = table.take(expected_order(3000, seed=0))
    for form in ("parquet", "arrow"):
        found = rows_of(plain / form)
        assert found.to_pylist() == expected.to_pylist()
        assert found.schema.equals(expected.schema)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_column_without_nulls_is_noted(form, tmp_path):
    """In all shards alike, wherever in the table the nulls of others are."""
    table = pa.table(
        {
            "whole": np.arange(4000.0),
            "one": pa.array([*range(3999), None]),
            "level": pa.array(["a", "b"] * 2000).dictionary_encode(),
            "list": pa.array([[1], [None]] * 2000),
        }
    )
    write(tmp_path / "a.parquet", table, [1000] * 3)
    out = tmp_path / "out"
    with small_pieces():
        preshuffle(tmp_path / "a.parquet", out, format=form, shards=3, **QUIET)
    for shard in sorted(out.glob("part-*")):
        nullable = [field.nullable for field in read_schema(shard)]
        assert nullable == [False, True, False, True]
    assert rows_of(out).to_pylist() == table.take(expected_order(4000, 0)).to_pylist()


@pytest.mark.parametrize(("bits", "limit"), [(0, 200_000), (2, 20_000), (6, 6000)])
def test_equal_keys_leave_rows_in_the_order_of_the_table(bits, limit, tmp_path, monkeypatch):
    """Which happens once in 2**64 pairs: here keys have but a few bits."""

    def coarse(seed: int, start: int, n_rows: int) -> np.ndarray:
        return row_keys(seed, start, n_rows) & np.uint64((2**bits - 1) << (64 - bits))

    monkeypatch.setattr(external, "row_keys", coarse)
    write(tmp_path / "a.parquet", mixed(200), [7, 60])
    with small_pieces():
        preshuffle(tmp_path / "a.parquet", tmp_path / "out", memory_limit=limit, workers=2, **QUIET)
    keys = coarse(0, 0, 200).tolist()
    found = rows_of(tmp_path / "out")["row"].to_pylist()
    assert found == sorted(range(200), key=lambda row: (keys[row], row))


def test_other_seeds_give_other_orders(source, plain, tmp_path):
    preshuffle(source, tmp_path / "out", **QUIET | {"seed": 1})
    found = rows_of(tmp_path / "out")["row"].to_pylist()
    assert found == expected_order(3000, seed=1)
    assert found != rows_of(plain / "parquet")["row"].to_pylist()


def test_the_last_level_of_a_seed_counts(source, tmp_path):
    for seed in (2**64 + 1, np.int64(1)):
        preshuffle(source, tmp_path / f"{seed}", **QUIET | {"seed": seed})
        found = rows_of(tmp_path / f"{seed}")["row"].to_pylist()
        assert found == expected_order(3000, seed=int(seed))


VALUES = {
    "float": st.floats(allow_nan=False) | st.none(),
    "text": st.text(max_size=30) | st.none(),
    "list": st.lists(st.none() | st.integers(0, 9), max_size=3) | st.none(),
    "flag": st.booleans() | st.none(),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    n_rows = draw(st.integers(0, 60))
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3, unique=True))
    types = {"float": pa.float64(), "text": pa.string(), "flag": pa.bool_()}
    columns = {"row": pa.array(range(n_rows), pa.int64())}
    for kind in kinds:
        # A few values, repeated: what is tested is not the values.
        few = draw(st.lists(VALUES[kind], min_size=1, max_size=5))
        values = [few[i * 7 % len(few)] for i in range(n_rows)]
        columns[kind] = pa.array(values, types.get(kind, pa.list_(pa.int8())))
    return pa.table(columns)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=tables(),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    kind=st.sampled_from(["parquet", "arrow"]),
    form=st.sampled_from(["parquet", "arrow"]),
    seed=st.integers(0, 2**64),
    shards=st.none() | st.integers(1, 6),
    rows_per_fragment=st.none() | st.integers(1, 70),
    workers=st.integers(1, 3),
    limit=st.integers(12, 20_000),
    run_bytes=st.integers(1, 3000),
)
def test_rows_come_out_sorted_by_key(
    table, cuts, kind, form, seed, shards, rows_per_fragment, workers, limit, run_bytes,
    tmp_path_factory,
):  # fmt: skip
    folder = tmp_path_factory.mktemp("table")
    edges = [0, *sorted(min(cut, table.num_rows) for cut in cuts), table.num_rows]
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        part = table.slice(start, stop - start)
        write(folder / "in" / f"{number}.{kind}", part, [part.num_rows // 3])
    with small_pieces(run_bytes):
        manifest = preshuffle(
            folder / "in",
            folder / "out",
            seed=seed,
            format=form,
            shards=shards,
            rows_per_fragment=rows_per_fragment,
            workers=workers,
            memory_limit=limit,
            progressbar=False,
        )
    expected = table.take(pa.array(expected_order(table.num_rows, seed), pa.int64()))
    assert rows_of(folder / "out").to_pylist() == expected.to_pylist()
    assert manifest.n_rows == table.num_rows
    assert len(manifest.shards) == (shards or 1)
    manifest.verify(folder / "out")


# The result ----------------------------------------------------------------------------


def test_fragments(source, plain, tmp_path):
    for path in sorted((plain / "parquet").glob("*.parquet")):
        metadata = pq.ParquetFile(path).metadata
        lengths = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert set(lengths[:-1]) == {300}
        assert 0 < lengths[-1] <= 300
    for path in sorted((plain / "arrow").glob("*.arrow")):
        opened = pa.ipc.open_file(pa.OSFile(str(path)))
        lengths = [opened.get_batch(i).num_rows for i in range(opened.num_record_batches)]
        assert set(lengths[:-1]) == {300}
        assert 0 < lengths[-1] <= 300


def test_a_fragment_of_millions_of_rows(tmp_path):
    n_rows = 2**20 + 10  # more than Parquet's own default
    write(tmp_path / "a.parquet", pa.table({"x": np.zeros(n_rows, np.int8)}))
    preshuffle(tmp_path / "a.parquet", tmp_path / "out", rows_per_fragment=n_rows, **QUIET)
    assert pq.ParquetFile(tmp_path / "out" / "part-00000.parquet").num_row_groups == 1


@pytest.mark.parametrize(
    ("row_bytes", "columns", "rows"),
    [
        (1, 1, 131_072),
        (56, 14, 131_072),
        (65, 14, 65_536),
        (800, 1, 8192),
        (800, 200, 32_768),
        (1600, 200, 16_384),
        (8000, 1000, 4096),
        (8192, 1, 1024),
        (2**16, 1, 256),
        (2**20, 1, 16),
        (2**30, 1, 1),
    ],
)
def test_default_rows_of_a_fragment(row_bytes, columns, rows):
    assert external._fragment_rows(row_bytes, columns) == rows


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_fragments_are_cut_by_what_all_rows_take(form, tmp_path):
    """Rows that are sorted often begin with short ones, and only the first are sampled."""
    text = ["short"] * 300 + [f"{i % 7}" * 10_000 for i in range(1500)]
    write(tmp_path / "a.parquet", pa.table({"text": text}))
    options = {"format": form, "memory_limit": "24MiB", **QUIET}
    manifest = preshuffle(tmp_path / "a.parquet", tmp_path / "out", workers=1, **options)
    assert manifest.rows_per_fragment == 512  # of 8.3 kB
    preshuffle(tmp_path / "a.parquet", tmp_path / "again", **options | {"memory_limit": "1GB"})
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
    with small_pieces():
        preshuffle(tmp_path / "a.parquet", tmp_path / "given", rows_per_fragment=7, **options)
    assert Manifest.read(tmp_path / "given").rows_per_fragment == 7


@pytest.mark.parametrize(
    ("memory", "shards"),
    [(0, 1), (90 * 2**20, 1), (100 * 2**20, 2), (560_000_000, 8), (2**50, 256)],
)
def test_default_number_of_shards(memory, shards):
    assert external._shard_count(memory) == shards


def test_more_shards_than_rows(tmp_path):
    write(tmp_path / "a.parquet", pa.table({"row": [0.0, 1.0, 2.0]}))
    manifest = preshuffle(tmp_path / "a.parquet", tmp_path / "out", shards=100, **QUIET)
    assert len(manifest.shards) == 100
    assert rows_of(tmp_path / "out")["row"].to_pylist() == expected_order(3, 0)
    assert parquet_source(tmp_path / "out").n_rows == 3


@pytest.mark.parametrize("n_rows", [0, 1])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_a_table_of_no_row_or_one(n_rows, form, dtype, tmp_path):
    write(tmp_path / "a.parquet", pa.table({"x": np.ones(n_rows)}))
    manifest = preshuffle(
        tmp_path / "a.parquet", tmp_path / "out", format=form, dtype=dtype, **QUIET
    )
    assert manifest.n_rows == rows_of(tmp_path / "out").num_rows == n_rows


def test_columns_are_selected_in_order(source, tmp_path):
    preshuffle(source, tmp_path / "out", columns=("text", "row"), **QUIET)
    found = rows_of(tmp_path / "out")
    assert found.column_names == ["text", "row"]
    assert found["row"].to_pylist() == expected_order(3000, 0)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_to_one_type(form, tmp_path):
    n_rows = 500
    table = pa.table(
        {
            "a": np.arange(n_rows, dtype=np.int32),
            "b": np.arange(n_rows) % 2 == 0,
            "c": np.linspace(0, 1, n_rows),
            "day": pa.array(range(n_rows), pa.date32()),
        }
    )
    write(tmp_path / "a.parquet", table, [100])
    preshuffle(tmp_path / "a.parquet", tmp_path / "out", format=form, dtype="float32", **QUIET)
    found = rows_of(tmp_path / "out")
    matrix = np.column_stack([np.arange(n_rows), table["b"], table["c"], np.arange(n_rows)])
    expected = matrix.astype(np.float32)[expected_order(n_rows, 0)]
    if form == "arrow":
        values = found["batch"].combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(values.reshape(-1, 4), expected)
    else:
        assert found.schema.types == [pa.float32()] * 4
        np.testing.assert_array_equal(np.column_stack(found.columns), expected)


# Arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be a whole number of at least 0, found -1"),
        ({"seed": None}, "seed must be"),
        ({"seed": 1.0}, "seed must be"),
        ({"memory_limit": "23MiB"}, "memory_limit must be at least 24 MiB, found '23MiB'"),
        ({"memory_limit": "much"}, "memory_limit must be bytes, or words"),
        ({"memory_limit": -1}, "memory_limit must be"),
        ({"format": "csv"}, "format must be .*found 'csv'"),
        ({"columns": "x"}, "columns must be a list of column names, found 'x'"),
        ({"columns": {"x": "x"}}, "columns must be a list"),
        ({"columns": 5}, "columns must be a list"),
        ({"columns": [1]}, "columns must hold names"),
        ({"columns": [["x"]]}, "columns must hold names"),
        ({"columns": []}, "no columns to shuffle"),
        ({"dtype": "int32"}, "dtype must be .*found 'int32'"),
        ({"dtype": "float16"}, "dtype must be"),
        ({"dtype": "much"}, "dtype must be"),
        ({"rows_per_fragment": 0}, "rows_per_fragment must be a whole number of at least 1"),
        ({"shards": 0}, "shards must be"),
        ({"shards": 4097}, "shards can be 4,096 at most, found 4,097"),
        ({"workers": 0}, "workers must be"),
        ({"output": "memory://out"}, "output must be a local folder"),
        ({"output": 5}, "output must be a path, found 5"),
        ({"output": b"out"}, "output must be a path"),
        ({"output": "/"}, "output must be a folder with a name"),
    ],
)
def test_arguments_that_cannot_be_meant(options, message, tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    options = {"output": tmp_path / "out", **QUIET} | options
    with pytest.raises(ArgumentError, match=message):
        preshuffle(path, options.pop("output"), **options)
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]  # nothing is left behind


def test_whole_numbers_of_numpy(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    options = {"shards": np.int64(2), "rows_per_fragment": np.int32(3), "workers": np.int8(1)}
    manifest = preshuffle(path, tmp_path / "out", memory_limit=np.int64(2**30), **options, **QUIET)
    assert len(manifest.shards) == 2


@pytest.mark.parametrize(
    ("columns", "dtype", "error", "message"),
    [
        ({"x": [1.0, None]}, "float32", MissingValueError, "a.parquet, row group 0.*'x'.*1 null"),
        (
            {"x": [1.0, np.nan]},
            "float32",
            MissingValueError,
            "a.parquet, row group 0: column 'x' holds 1 NaN",
        ),
        ({"x": ["1", "2"]}, "float64", SchemaError, "a.parquet: column 'x' holds strings"),
        ({"x": [[1.0], [2.0]]}, "float64", SchemaError, "a.parquet: column 'x' has type list"),
        ({"x": [2**24 + 1, 0]}, "float32", PrecisionError, "row group 0.*'x' holds 16,777,217"),
        ({"x": [2**53 + 1, 0]}, "float64", PrecisionError, "a.parquet, row group 0.*column 'x'"),
        (
            {"x": pa.array([Decimal(2**53 + 1), Decimal(0)], pa.decimal128(38, 0))},
            "float64",
            PrecisionError,
            "row group 0: column 'x' holds 9,007,199,254,740,993, beyond ±9,007,199,254,740,992",
        ),
        (
            {"x": pa.array([Decimal(0), Decimal(-(2**53) - 1)], pa.decimal64(18, 0))},
            "float64",
            PrecisionError,
            "column 'x' holds -9,007,199,254,740,993",
        ),
        ({"x": [1e300, 0]}, "float32", PrecisionError, r"'x' holds 1e\+300, beyond ±3.4e\+38, the"),
        (
            {"x": [np.datetime64(0, "s"), np.datetime64("2001-01-01", "s")]},
            "float32",
            PrecisionError,
            "'x' holds 2001-01-01 00:00:00.000, 978,307,200.0 seconds since 1970, beyond ±",
        ),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_values_that_are_no_numbers_of_the_type(columns, dtype, error, message, form, tmp_path):
    columns = {"first": [1.0, 2.0]} | columns
    path = write(tmp_path / "a.parquet", pa.table(columns))
    with pytest.raises(error, match=message):
        preshuffle(path, tmp_path / "out", dtype=dtype, format=form, **QUIET)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["1"]),
        pa.array([None], pa.float64()),
        pa.array([np.nan]),
        pa.array([2**60]),
        pa.array([2**60], pa.timestamp("us")),
        pa.array([1e300]),
        pa.array(["1"]).dictionary_encode(),
    ],
)
def test_a_refusal_names_only_what_a_shuffle_has(column, tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": column}))
    with pytest.raises(SourceError) as caught:
        preshuffle(path, tmp_path / "out", dtype="float32", **QUIET)
    message = str(caught.value)
    assert "shuffle without `dtype`" in message
    assert not any(word in message for word in ("transform", "categories", "filters", "floatX"))


@pytest.mark.parametrize(
    ("column", "form", "allowed"),
    [
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "parquet", False),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "arrow", True),
        (pa.array([{}], pa.struct([])), "parquet", False),
        (pa.array([[]], pa.list_(pa.int8(), 0)), "parquet", False),
        (
            pa.array([[{"x": []}]], pa.list_(pa.struct([("x", pa.list_(pa.int8(), 0))]))),
            "parquet",
            False,
        ),
        (pa.array([[]], pa.list_(pa.int8(), 0)), "arrow", True),
        (pa.RunEndEncodedArray.from_arrays([1], [1]), "arrow", False),
    ],
)
def test_types_that_the_format_does_not_know(column, form, allowed, tmp_path):
    path = write(tmp_path / "a.arrow", pa.table({"fine": [1], "odd": column}))
    if not allowed:
        with pytest.raises(SchemaError, match=rf"a.arrow: column 'odd' of type .*{form} files"):
            preshuffle(path, tmp_path / "out", format=form, **QUIET)
    preshuffle(path, tmp_path / "out", format=form, columns=None if allowed else ["fine"], **QUIET)


def test_values_that_the_format_does_not_know(tmp_path):
    """Which shows only when they are written."""
    levels = pa.DictionaryArray.from_arrays([0, 1], pa.array(["a", None]))
    within = pa.StructArray.from_arrays([levels], ["level"])
    path = write(tmp_path / "a.arrow", pa.table({"odd": within}))
    with pytest.raises(SchemaError, match=r"part-00000.parquet: these rows cannot be written"):
        preshuffle(path, tmp_path / "out", **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrow"]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_the_manifest_has_the_types_that_a_reader_finds(form, tmp_path):
    table = pa.table(
        {"seconds": pa.array([1], pa.timestamp("s")), "days": pa.array([0], pa.date64())}
    )
    manifest = preshuffle(
        write(tmp_path / "a.arrow", table), tmp_path / "out", format=form, **QUIET
    )
    found = rows_of(tmp_path / "out").schema
    assert manifest.columns == {field.name: str(field.type) for field in found}
    assert (found != table.schema) == (form == "parquet")


def test_home_of_nobody(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1]}))
    with pytest.raises(ArgumentError, match=r"output must be .*'~nobody-of-that-name/out': there"):
        preshuffle(path, "~nobody-of-that-name/out", **QUIET)
    with pytest.raises(MissingFileError, match="~nobody"):
        preshuffle("~nobody-of-that-name/a.parquet", tmp_path / "out", **QUIET)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_names_that_no_folder_can_have(name, tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1]}))
    with pytest.raises(ArgumentError, match="output must be a path that the system can have"):
        preshuffle(path, str(tmp_path / name), **QUIET)


# Where the result goes -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_there_is_kept(kind, overwrite, tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    output = tmp_path / "out"
    if kind == "file":
        output.write_text("mine")
    elif kind == "folder":
        output.mkdir()
        (output / "mine").write_text("mine")
    else:
        output.symlink_to(tmp_path / "target")
        preshuffle(path, output, overwrite=overwrite, **QUIET)
        assert output.is_symlink()
        assert rows_of(tmp_path / "target").num_rows == 1
        return
    with pytest.raises(
        OutputExistsError, match="not a folder that was" if overwrite else "already"
    ):
        preshuffle(path, output, overwrite=overwrite, **QUIET)
    assert (output / "mine" if kind == "folder" else output).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_folder_is_filled(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    (tmp_path / "out").mkdir()
    preshuffle(path, tmp_path / "out", **QUIET)
    assert rows_of(tmp_path / "out").num_rows == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_folders_above_the_output_are_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    preshuffle("a.parquet", "b/c/out", **QUIET)
    assert rows_of(tmp_path / "b" / "c" / "out").num_rows == 1


def test_folders_above_the_output_go_again_after_an_error(tmp_path):
    with pytest.raises(MissingFileError):
        preshuffle(tmp_path / "missing.parquet", tmp_path / "new" / "deep" / "out", **QUIET)
    assert not list(tmp_path.iterdir())
    (tmp_path / "new").mkdir()
    with pytest.raises(MissingFileError):
        preshuffle(tmp_path / "missing.parquet", tmp_path / "new" / "deep" / "out", **QUIET)
    assert not list((tmp_path / "new").iterdir())
    assert (tmp_path / "new").exists()


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    preshuffle("~/a.parquet", "~/out", **QUIET)
    assert rows_of(tmp_path / "out").num_rows == 1


def test_overwrite(tmp_path):
    first = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    second = write(tmp_path / "b.parquet", pa.table({"x": [2.0]}))
    preshuffle(first, tmp_path / "out", shards=3, **QUIET)
    with pytest.raises(OutputExistsError):
        preshuffle(second, tmp_path / "out", **QUIET)
    assert rows_of(tmp_path / "out")["x"].to_pylist() == [1.0]
    preshuffle(second, tmp_path / "out", overwrite=True, **QUIET)
    assert rows_of(tmp_path / "out")["x"].to_pylist() == [2.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.parquet", "out"]
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_overwriting_keeps_what_is_not_its_own(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    preshuffle(path, tmp_path / "out", **QUIET)
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"thesis\.txt"):
        preshuffle(path, tmp_path / "out", overwrite=True, **QUIET)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ["", "{}", '{"layout": 1, "files": []}', '{"layout": 2}'])
def test_a_manifest_of_something_else_is_not_overwritten(content, tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_manifest.json").write_text(content)
    with pytest.raises(OutputExistsError, match="not a folder that was shuffled before"):
        preshuffle(path, tmp_path / "out", overwrite=True, **QUIET)
    assert contents(tmp_path / "out") == {"_manifest.json": content.encode()}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_was_put_there_meanwhile_is_kept(overwrite, tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    written = external.write_shard

    def meanwhile(*arguments):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
        return written(*arguments)

    monkeypatch.setattr(external, "write_shard", meanwhile)
    with pytest.raises(OutputExistsError):
        preshuffle(path, tmp_path / "out", overwrite=overwrite, **QUIET)
    assert contents(tmp_path / "out") == {"mine": b"mine"}


def test_where_a_disk_is_mounted(tmp_path, monkeypatch):
    """Nothing can be moved there, which would be found out at the very end."""
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "out")
    with pytest.raises(OutputError, match="out: a disk is mounted here"):
        preshuffle(path, tmp_path / "out", **QUIET)


def test_pieces_are_no_larger_than_arrow_can_count(tmp_path):
    shuffle = SimpleNamespace(memory=2**50, shards=1)
    means = external._means(shuffle, 2**40)
    assert means.run_bytes == means.range_bytes == 2**30


def test_overwrite_by_way_of_a_link(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    for _ in range(2):
        preshuffle(path, tmp_path / "out", overwrite=True, **QUIET)
    assert (tmp_path / "out").is_symlink()
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["out"]


def test_the_output_is_not_the_source(tmp_path):
    path = write(tmp_path / "data" / "deep" / "a.parquet", pa.table({"x": [1.0]}))
    preshuffle(path, tmp_path / "out", **QUIET)
    for source, output in [
        (tmp_path / "out", tmp_path / "out"),
        (tmp_path / "out" / "part-00000.parquet", tmp_path / "out"),
        (tmp_path / "out", tmp_path / "data" / ".." / "out"),
    ]:
        with pytest.raises(ArgumentError, match="is the folder that is read"):
            preshuffle(source, output, overwrite=True, **QUIET)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(ArgumentError, match="is the folder that is read"):
        preshuffle(tmp_path / "link", tmp_path / "out", overwrite=True, **QUIET)
    assert rows_of(tmp_path / "out").num_rows == 1


@pytest.mark.parametrize(
    ("source", "output", "refused"),
    [
        ("data", "data/out", True),
        ("data", "data/deep/out", True),
        ("link", "data/out", True),
        ("data", "link/out", True),
        (["data/a.parquet", "data/deep"], "data/deep/out", True),
        ("data", "data/_out", False),
        ("data", "data/.cache/out", False),
        ("data", "data-out", False),
        ("data/*.parquet", "data/out", False),
        ("data/*", "data/out", True),
        ("data/**/*.parquet", "data/out", True),
        ("data/**/*.parquet", "data/_out", False),
        ("d*ta/*.parquet", "data/out", False),
        ("data/a.parquet", "data/out", False),
        (["data/a.parquet", "data/deep"], "data/out", False),
        ("memory://data", "data/out", False),
    ],
)
def test_the_next_reading_does_not_find_the_output(source, output, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pa.table({"x": [1.0]})
    write(Path("data/a.parquet"), table)
    write(Path("data/deep/b.parquet"), table)
    Path("link").symlink_to("data")
    if source == "memory://data":
        import fsspec

        fsspec.filesystem("memory").pipe("/data/a.parquet", Path("data/a.parquet").read_bytes())
    before = parquet_source(source).n_rows
    if refused:
        with pytest.raises(ArgumentError, match="in the folder that is read"):
            preshuffle(source, output, **QUIET)
        assert not Path(output).exists()
    else:
        preshuffle(source, output, **QUIET)
    assert parquet_source(source).n_rows == before


@pytest.mark.parametrize("parent", ["/proc/self", "file", "locked"])
def test_where_nothing_can_be_written(parent, tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [1.0]}))
    (tmp_path / "file").write_text("")
    if parent == "locked":
        (tmp_path / "locked").mkdir(mode=0o500)
        if os.access(tmp_path / "locked", os.W_OK):
            pytest.skip("root may write anywhere")
    if parent == "/proc/self" and not Path(parent).exists():
        pytest.skip("there is no /proc")
    with pytest.raises(OutputError, match=r"\.out\.shuffling: this cannot be written"):
        preshuffle(path, tmp_path / parent / "out", **QUIET)


# Memory --------------------------------------------------------------------------------

_MEASURE = """
import re, sys
from decimal import Decimal
from pathlib import Path
from pymc_streaming import preshuffle
status = Path("/proc/self/status")
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) / 1024
before = peak()
preshuffle(sys.argv[1], sys.argv[2], seed=0, memory_limit=sys.argv[3], workers=2, format="arrow",
           progressbar=False)
print(peak() - before)
"""


# Not ru_maxrss, which a process takes over from the one that starts it.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_memory_is_bounded(tmp_path):
    # About 380 MB of rows, little in the file: values and strings come from a few.
    n_rows, levels = 360_000, np.random.default_rng(0).normal(size=100)
    chosen = np.random.default_rng(1).integers(100, size=n_rows)
    columns = {f"x{i}": levels[(chosen + i) % 100] for i in range(120)}
    table = pa.table(columns | {"text": ["t" * 99] * n_rows})
    path = write(tmp_path / "a.parquet", table, [n_rows // 2])
    assert table.nbytes > 1.15 * (64 + 250) * 2**20
    del table
    run = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), str(tmp_path / "out"), "64MiB"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not run.returncode, run.stderr
    assert 30 < float(run.stdout) < 64 + 250  # MiB


def test_rows_that_are_side_by_side_are_shuffled_as_they_are_or_not_at_all(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": np.arange(50.0), "y": np.arange(50.0)}))
    once = tmp_path / "once"
    preshuffle(path, once, format="arrow", dtype="float64", **QUIET)
    for options in ({}, {"format": "arrow", "dtype": "float64"}):
        with pytest.raises(ArgumentError, match=r"stored these rows side by side.*format='arrow'"):
            preshuffle(once, tmp_path / "refused", **options, **QUIET)
    preshuffle(once, tmp_path / "twice", format="arrow", **QUIET)
    found = arrow_source(tmp_path / "twice")
    assert found.columns == ("x", "y")
    rows = np.concatenate([b["batch"] for f in found.fragments for b in found.read(f)])
    np.testing.assert_array_equal(np.sort(rows[:, 0]), np.arange(50.0))
