from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytensor
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pymc_streaming.errors import (
    ArgumentError,
    CategoryError,
    ChangedFileError,
    CorruptFileError,
    MissingFileError,
    MissingValueError,
    RowCountError,
    SchemaError,
    SourceError,
    TransformError,
)
from pymc_streaming.sources import IterableDataset, footers, parquet_source, read_checked
from pymc_streaming.sources import parquet as parquet_module
from pymc_streaming.sources.files import DataFile

DATA = Path(__file__).parents[3] / "shared" / "data"


def read(source: IterableDataset) -> dict[str, np.ndarray]:
    blocks = [
        rows.block(source.layout)
        for fragment in source.fragments
        for rows in read_checked(source, fragment)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in source.layout}


def real_data(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"../shared/data/{name} is not there")
    return DATA / name


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three files of five row groups in all, one of them empty: y is 0 to 99."""
    for i, (start, stop, group) in enumerate([(0, 40, 20), (40, 40, 10), (40, 100, 25)]):
        y = np.arange(start, stop)
        table = pa.table({"x": y / 2, "g": [f"level {k % 3}" for k in y], "y": y})
        pq.write_table(table, tmp_path / f"part-{i}.parquet", row_group_size=group)
    return tmp_path


def test_blocks(shards: Path) -> None:
    source = parquet_source(shards, columns=["y", "x"])
    assert source.n_rows == 100
    assert source.columns == ("y", "x")
    assert [f.n_rows for f in source.fragments] == [20, 20, 25, 25, 10]
    assert source.fragments[2].origin == "part-2.parquet, row group 0"
    block = read(source)["batch"]
    np.testing.assert_array_equal(block, np.column_stack([np.arange(100), np.arange(100) / 2]))
    assert block.flags.c_contiguous


def test_repr(shards: Path) -> None:
    shown = repr(parquet_source(shards, columns={"x": "x"}))
    assert "100 rows in 5 row groups of 3 files" in shown
    assert "'x': float64" in shown
    single = repr(parquet_source(shards / "part-0.parquet", columns={"x": "x"}))
    assert "part-0.parquet" in single


def test_named_arrays_and_categories_over_files(shards: Path) -> None:
    source = parquet_source(
        shards, columns={"X": ["x", "y"], "group": "g", "y": "y"}, categories="auto"
    )
    assert source.categories == {"g": ("level 0", "level 1", "level 2")}
    block = read(source)
    np.testing.assert_array_equal(block["group"], np.arange(100) % 3)
    assert block["y"].dtype == np.int64
    assert block["X"].shape == (100, 2)


@pytest.mark.parametrize("url", ["memory://parquet_test", "memory://parquet_test/*.parquet"])
def test_remote(shards: Path, url: str) -> None:
    memory = fsspec.filesystem("memory")
    for file in sorted(shards.iterdir()):
        memory.pipe(f"/parquet_test/{file.name}", file.read_bytes())
    source = parquet_source(url, columns=["y"], filters=pc.field("y") >= 30)
    np.testing.assert_array_equal(read(source)["batch"].ravel(), np.arange(30, 100))
    assert source.fragments[0].path == "memory:///parquet_test/part-0.parquet"


def test_fragments_read_from_many_threads(shards: Path) -> None:
    source = parquet_source(shards, columns={"y": "y"})
    found: list[list[int]] = []

    def reader() -> None:
        found.append(read(source)["y"].tolist())

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(100))] * 4


def test_reading_can_be_broken_off(shards: Path) -> None:
    source = parquet_source(shards, columns={"y": "y"})
    source._block_rows = 5
    blocks = source.read(source.fragments[0])
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(read(source)["y"], np.arange(100))


@pytest.mark.parametrize(
    ("kind", "nbytes"),
    [
        (pa.int8(), 4),
        (pa.float32(), 4),
        (pa.float64(), 8),
        (pa.bool_(), 4),
        (pa.timestamp("us"), 8),
        (pa.decimal128(9, 2), 16),
        (pa.large_string(), 8),
    ],
)
def test_memory_of_a_value(kind: pa.DataType, nbytes: float) -> None:
    assert footers._least_bytes(kind) == nbytes


def test_columns_of_the_filter_alone_are_not_kept(tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(1000.0), "text": ["t" * 500] * 1000})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    source = parquet_source(tmp_path, columns=["x"], filters=pc.field("text") != "s")
    before = pa.total_allocated_bytes()
    (rows,) = source.rows(source.fragments[0])
    assert pa.total_allocated_bytes() - before < 100_000
    np.testing.assert_array_equal(rows.block(source.layout)["batch"].ravel(), np.arange(1000))


@pytest.mark.parametrize(
    ("row_bytes", "rows"),
    [(1, 65_536), (57, 36_792), (113, 18_558), (801, 16_384), (1601, 10_479), (2**25, 1)],
)
def test_rows_of_a_block(row_bytes: int, rows: int) -> None:
    assert footers.block_rows(row_bytes) == rows


def test_giant_row_group_is_read_in_bounded_blocks(tmp_path: Path) -> None:
    n = 300_000
    table = pa.table({"x": np.arange(n), "text": ["t" * 500] * n})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=n, use_dictionary=False)
    del table
    source = parquet_source(tmp_path, columns=["x"])
    (fragment,) = source.fragments
    sizes = [len(block["batch"]) for block in source.read(fragment)]
    assert sum(sizes) == n
    assert max(sizes) == 65_536
    # Long strings weigh more: blocks shrink until they fit 16 MiB.
    source = parquet_source(tmp_path, transform=lambda block: block["x"])
    peak = pa.total_allocated_bytes()
    for _ in source.read(source.fragments[0]):
        peak = max(peak, pa.total_allocated_bytes())
    assert peak < 64 * 2**20  # the row group takes 150 MB


# Filters -------------------------------------------------------------------------------


def test_filter_prunes_and_counts(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []
    scan = parquet_module.ParquetSource._scan

    def spy(self: Any, group: Any, levels: Any) -> Any:
        scanned.append(group.origin)
        return scan(self, group, levels)

    monkeypatch.setattr(parquet_module.ParquetSource, "_scan", spy)
    source = parquet_source(shards, columns=["x"], filters=pc.field("y").isin([3, 41]))
    assert sorted(scanned) == ["part-0.parquet, row group 0", "part-2.parquet, row group 0"]
    assert [f.n_rows for f in source.fragments] == [1, 1]
    np.testing.assert_array_equal(read(source)["batch"], [[1.5], [20.5]])


def test_filter_drops_fragments_without_rows(shards: Path) -> None:
    source = parquet_source(
        shards, columns=["y"], filters=(pc.field("y") < 1) | (pc.field("y") == 99)
    )
    assert [(f.origin, f.n_rows) for f in source.fragments] == [
        ("part-0.parquet, row group 0", 1),
        ("part-2.parquet, row group 2", 1),
    ]


def test_nan_is_not_pruned_away(tmp_path: Path) -> None:
    # Statistics leave NaN out: of [3, NaN, 3] they say that all is 3.
    table = pa.table({"x": [3.0, np.nan, 3.0], "y": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = parquet_source(tmp_path, columns={"y": "y"}, filters=pc.field("x") != 3.0)
    assert read(source)["y"].tolist() == [2]


def test_filter_on_strings_that_are_also_categories(tmp_path: Path) -> None:
    table = pa.table({"g": pa.array(["aa", "ab", "b", None] * 5).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    source = parquet_source(
        tmp_path, columns={"g": "g"}, categories="auto", filters=pc.starts_with(pc.field("g"), "a")
    )
    assert source.categories == {"g": ("aa", "ab")}
    assert read(source)["g"].tolist() == [0, 1] * 5


def test_filter_drops_nulls(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0, None, 3.0]}), tmp_path / "a.parquet")
    source = parquet_source(tmp_path, filters=pc.field("x").is_valid())
    assert source.n_rows == 2
    assert read(source)["batch"].ravel().tolist() == [1.0, 3.0]


def test_filter_beside_columns_of_the_same_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["a", "a", "k"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert parquet_source(tmp_path, columns=["k"], filters=pc.field("k") == 3).n_rows == 1
    with pytest.raises(SchemaError, match="Multiple matches"):
        parquet_source(tmp_path, columns=["k"], filters=pc.field("a") == 1)


def test_filter_without_columns(shards: Path) -> None:
    assert parquet_source(shards, columns=["x"], filters=pc.scalar(True)).n_rows == 100


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        (pc.field("z") > 1, SchemaError, "x, g, y.*z"),
        (pc.field("g") > 1, SchemaError, "types of its columns"),
        (pc.field("y") + 1, SchemaError, "evaluate to bool"),
        (pc.field(0) > 1, ArgumentError, "by name"),
        ([("y", ">", 1)], ArgumentError, "pyarrow expression"),
        (pc.field("y") > 1000, RowCountError, "no row that passes"),
        (pc.scalar(1) / pc.field("y") > 0, SourceError, "row group 0: the filter.*zero"),
    ],
)
def test_filters_that_fail(
    shards: Path, filters: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        parquet_source(shards, columns=["x"], filters=filters)


# Files that do not fit together --------------------------------------------------------


def write(folder: Path, *tables: dict[str, Any]) -> Path:
    for i, table in enumerate(tables):
        pq.write_table(pa.table(table), folder / f"part-{i}.parquet")
    return folder


def test_columns_by_name_not_by_place(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1.0], "b": [2.0]}, {"z": [9.0], "b": [4.0], "a": [3.0]})
    np.testing.assert_array_equal(
        read(parquet_source(tmp_path, columns=["a", "b"]))["batch"], [[1, 2], [3, 4]]
    )
    with pytest.raises(SchemaError, match=r"part-1\.parquet: column 'z' is not in .*part-0"):
        parquet_source(tmp_path)


def test_type_differs(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1.0]}, {"a": [1]})
    with pytest.raises(
        SchemaError, match=r"part-1\.parquet: column 'a' has type int64, but double in .*part-0"
    ):
        parquet_source(tmp_path)


def test_type_of_a_filter_column_differs(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1.0], "k": [1]}, {"a": [1.0], "k": ["x"]})
    with pytest.raises(SchemaError, match="column 'k'"):
        parquet_source(tmp_path, columns=["a"], filters=pc.field("k") > 0)


def test_encodings_of_strings_are_one_type(tmp_path: Path) -> None:
    text = pa.array(["b", "a"])
    write(
        tmp_path,
        {"g": text},
        {"g": text.cast(pa.large_string())},
        {"g": text.dictionary_encode()},
        {"g": text.cast(pa.string_view())},
    )
    source = parquet_source(tmp_path, columns={"g": "g"}, categories="auto")
    assert read(source)["g"].tolist() == [1, 0] * 4


def test_column_missing_in_a_shard(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1.0], "b": [1.0]}, {"a": [1.0], "bb": [2.0]})
    with pytest.raises(SchemaError, match=r"part-1.*no column 'b'.*'bb'.*part-0"):
        parquet_source(tmp_path, columns=["b"])


def test_unknown_column_names_the_file(shards: Path) -> None:
    with pytest.raises(
        SchemaError, match=r"part-0\.parquet: there is no column 'yy'.*'y'.*x, g, y"
    ):
        parquet_source(shards, columns={"y": "yy"})


def test_nested_columns_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"s": [{"x": 1.0}], "x": [2.0], "a.b": [5.0], "a": [7.0]})
    source = parquet_source(tmp_path, columns=["a", "x"])
    assert read(source)["batch"].tolist() == [[7.0, 2.0]]
    assert parquet_source(tmp_path, columns=["a.b"]).n_rows == 1
    with pytest.raises(SchemaError, match="column 's' has type struct"):
        parquet_source(tmp_path)


# Files that cannot be read -------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"PAR1", b"a,b\n1,2\n" * 100])
def test_not_parquet(shards: Path, content: bytes) -> None:
    (shards / "part-1.parquet").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"part-1\.parquet"):
        parquet_source(shards, columns=["x"])


def test_truncated(shards: Path) -> None:
    path = shards / "part-2.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptFileError, match=r"part-2\.parquet"):
        parquet_source(shards, columns=["x"])


def test_damaged_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"x": np.random.default_rng(0).normal(size=4000)})
    pq.write_table(
        table,
        path,
        row_group_size=1000,
        write_page_checksum=True,
        compression=None,
        use_dictionary=False,
    )
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    content[start + 2000] ^= 0xFF  # one bit pattern among the values: it decodes without error
    path.write_bytes(content)
    source = parquet_source(tmp_path)
    next(source.read(source.fragments[1]))
    with pytest.raises(CorruptFileError, match=r"a\.parquet, row group 2"):
        next(source.read(source.fragments[2]))


def test_file_vanishes(shards: Path) -> None:
    source = parquet_source(shards, columns=["x"])
    (shards / "part-2.parquet").unlink()
    next(source.read(source.fragments[0]))
    with pytest.raises(MissingFileError, match=r"part-2\.parquet, row group 1"):
        next(source.read(source.fragments[3]))


def test_a_file_that_was_replaced_by_one_with_as_many_rows(tmp_path: Path) -> None:
    write(tmp_path, {"x": np.arange(10.0)})
    source = parquet_source(tmp_path)
    for _ in range(2):
        read(source)
    write(tmp_path, {"x": np.arange(10.0) + 1.0})
    with pytest.raises(ChangedFileError, match=r"part-0\.parquet: .* since it was first looked at"):
        read(source)


@pytest.fixture
def unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that does not tell when a file was written to."""
    monkeypatch.setattr(DataFile, "check_unchanged", lambda _: None)


def test_file_changes(tmp_path: Path, unnoticed) -> None:
    write(tmp_path, {"x": np.arange(10.0)})
    source = parquet_source(tmp_path)
    write(tmp_path, {"x": np.arange(9.0)})
    with pytest.raises(RowCountError, match="expected 10 rows, found 9"):
        read(source)


def test_no_rows(tmp_path: Path) -> None:
    write(tmp_path, {"x": pa.array([], pa.float64())})
    with pytest.raises(RowCountError, match=r"part-0\.parquet has no rows"):
        parquet_source(tmp_path)
    pq.ParquetWriter(tmp_path / "part-1.parquet", pa.schema([("x", pa.float64())])).close()
    with pytest.raises(RowCountError, match="2 files"):
        parquet_source(tmp_path)


# Nulls, NaN, categories ----------------------------------------------------------------


def test_nulls_are_refused_before_the_work(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0, None, None, 5.0], "y": [1, 2, 3, 4, 5]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    with pytest.raises(
        MissingValueError, match=r"a\.parquet, row group 1: column 'x' holds 2 nulls"
    ):
        parquet_source(tmp_path)
    assert parquet_source(tmp_path, columns=["y"]).n_rows == 5


def test_nulls_without_statistics_are_refused_on_reading(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, None]})
    pq.write_table(table, tmp_path / "a.parquet", write_statistics=False)
    source = parquet_source(tmp_path)
    with pytest.raises(
        MissingValueError, match=r"a\.parquet, row group 0: column 'x' holds 1 null,"
    ):
        read(source)


def test_nan_names_file_row_group_and_column(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0, np.nan], "y": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    with pytest.raises(MissingValueError, match=r"a\.parquet, row group 2.*column 'x'"):
        read(parquet_source(tmp_path))


def test_transform_sees_one_dtype_in_every_block(tmp_path: Path) -> None:
    write(tmp_path, {"i": [1, 2], "j": [1, 2]}, {"i": [3, None], "j": [3, 4]})
    seen: list[tuple[str, str]] = []

    def transform(block: dict[str, np.ndarray]) -> np.ndarray:
        seen.append((block["i"].dtype.name, block["j"].dtype.name))
        return np.column_stack([np.nan_to_num(block["i"], nan=-1), block["j"]])

    source = parquet_source(tmp_path, transform=transform)
    np.testing.assert_array_equal(read(source)["batch"], [[1, 1], [2, 2], [3, 3], [-1, 4]])
    assert set(seen) == {("float64", "int64")}


def test_transform_without_statistics_assumes_nulls(tmp_path: Path) -> None:
    pq.write_table(pa.table({"i": [1, 2]}), tmp_path / "a.parquet", write_statistics=False)
    source = parquet_source(tmp_path, transform=lambda block: block)
    assert source.layout["i"].dtype == np.float64


def test_transform_error_names_the_row_group(shards: Path) -> None:
    def transform(block: dict[str, np.ndarray]) -> np.ndarray:
        if block["y"].max() > 60:
            raise ValueError("sixty")
        return block["y"]

    source = parquet_source(shards, columns=["y"], transform=transform)
    with pytest.raises(TransformError, match=r"part-2\.parquet, row group 0.*ValueError: sixty"):
        read(source)


def test_layout_of_a_transform_comes_from_the_first_rows_that_pass(shards: Path) -> None:
    sizes: list[int] = []

    def transform(block: dict[str, np.ndarray]) -> np.ndarray:
        sizes.append(len(block["y"]))
        return block["y"][:, None]

    source = parquet_source(shards, columns=["y"], transform=transform, filters=pc.field("y") >= 38)
    assert sizes == [2]
    assert source.layout["batch"].row_shape == (1,)
    assert read(source)["batch"].ravel().tolist() == list(range(38, 100))


def test_unseen_level_names_the_row_group(shards: Path) -> None:
    levels = {"g": ["level 0", "level 1"]}
    source = parquet_source(shards, columns=["g"], categories=levels)
    with pytest.raises(
        CategoryError, match=r"part-0\.parquet, row group 0: column 'g' holds 'level 2'"
    ):
        read(source)
    passing = parquet_source(
        shards, columns=["g"], categories=levels, filters=pc.field("g") != "level 2"
    )
    assert passing.n_rows == 67
    assert set(read(passing)["batch"].ravel()) == {0.0, 1.0}


def test_float32(shards: Path) -> None:
    with pytensor.config.change_flags(floatX="float32"):
        source = parquet_source(shards, columns={"X": ["x"], "y": "y"})
    block = read(source)
    assert block["X"].dtype == np.float32
    assert block["y"].dtype == np.int64


# Against pandas ------------------------------------------------------------------------

LEVELS = ["", "a", "ß", "zz"]
COLUMNS = {
    "i": st.integers(-100, 100),
    "x": st.floats(-1e6, 1e6),
    "b": st.booleans(),
    "g": st.sampled_from(LEVELS),
    "d": st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
}
TYPES = {"i": pa.int32(), "x": pa.float64(), "b": pa.bool_(), "g": pa.string(), "d": pa.date32()}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_equals_pandas(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("random")
    with_nulls = data.draw(st.booleans())
    row = st.fixed_dictionaries(
        {name: (s | st.none()) if with_nulls else s for name, s in COLUMNS.items()}
    )
    shards = data.draw(st.lists(st.lists(row, max_size=12), min_size=1, max_size=3))
    schema = pa.schema(list(TYPES.items()))
    for i, rows in enumerate(shards):
        table = pa.Table.from_pylist(rows, schema)
        if data.draw(st.booleans()):
            table = table.set_column(3, "g", table["g"].dictionary_encode())
        pq.write_table(
            table,
            folder / f"{i}.parquet",
            row_group_size=data.draw(st.integers(1, 7)),
            write_statistics=data.draw(st.booleans()),
        )
    frame = pd.DataFrame(
        [row for rows in shards for row in rows], columns=list(TYPES), dtype=object
    )
    filters = None
    if data.draw(st.booleans()):
        filters = (pc.field("i") > 0) | (pc.field("g") == "a")
        kept = [(r.i is not None and r.i > 0) or r.g == "a" for r in frame.itertuples()]
        frame = frame[np.array(kept, bool)]
        # In Arrow's logic null | true is true, and null | false is null: not kept.
    expected = pd.DataFrame(
        {
            "i": frame["i"].astype(float),
            "x": frame["x"].astype(float),
            "b": frame["b"].map({True: 1.0, False: 0.0}).astype(float),
            "g": frame["g"].map({level: k for k, level in enumerate(LEVELS)}).astype(float),
            "d": [np.nan if d is None else (d - dt.date(1970, 1, 1)).days for d in frame["d"]],
        }
    ).to_numpy(float)
    options: dict[str, Any] = {
        "columns": list(TYPES),
        "filters": filters,
        "categories": {"g": LEVELS},
    }
    if not len(expected):
        with pytest.raises(RowCountError):
            parquet_source(folder, **options)
        return
    if np.isnan(expected).any():
        with pytest.raises(MissingValueError):
            read(parquet_source(folder, **options))

        def fill(block: dict[str, np.ndarray]) -> np.ndarray:
            return np.column_stack([np.nan_to_num(v.astype(float), nan=-1) for v in block.values()])

        source = parquet_source(folder, transform=fill, **options)
        expected = np.nan_to_num(expected, nan=-1)
    else:
        source = parquet_source(folder, **options)
    source._block_rows = data.draw(st.integers(1, 8))
    assert source.n_rows == len(expected)
    np.testing.assert_array_equal(read(source)["batch"], expected)


# Real data -----------------------------------------------------------------------------


def test_flights() -> None:
    path = real_data("flights-3m.parquet")
    source = parquet_source(
        path,
        columns={"distance": "distance", "origin": "origin", "delay": "delay"},
        categories="auto",
        filters=pc.field("date") < pc.scalar(dt.datetime(2001, 1, 15)),
    )
    table = pq.read_table(path, columns=["date", "distance", "origin", "delay"])
    frame = table.filter(pc.field("date") < pc.scalar(dt.datetime(2001, 1, 15))).to_pandas()
    codes = frame["origin"].astype("category").cat
    assert source.n_rows == len(frame)
    assert source.categories["origin"] == tuple(codes.categories)
    block = read(source)
    np.testing.assert_array_equal(block["origin"], codes.codes)
    np.testing.assert_array_equal(block["delay"], frame["delay"])


def test_criteo_nulls_and_a_transform_that_fills_them() -> None:
    path = real_data("criteo-8k.parquet")
    columns = ["label", *(f"int_{i}" for i in range(1, 14))]
    with pytest.raises(MissingValueError, match=r"criteo-8k\.parquet, row group 0: column 'int_1'"):
        parquet_source(path, columns=columns)

    def transform(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        y = block.pop("label")
        X = np.column_stack(list(block.values()))
        missing = np.isnan(X)
        return {"X": np.hstack([np.log1p(np.maximum(np.where(missing, 0, X), 0)), missing]), "y": y}

    source = parquet_source(path, columns=columns, transform=transform)
    frame = pq.read_table(path, columns=columns).to_pandas()
    assert source.layout["X"].row_shape == (26,)
    block = read(source)
    np.testing.assert_array_equal(block["y"], frame["label"])
    ints = frame[columns[1:]].astype(float)
    np.testing.assert_array_equal(block["X"][:, 13:], ints.isna())
    np.testing.assert_allclose(block["X"][:, :13], np.log1p(ints.fillna(0).clip(lower=0)))


def test_one_file_by_two_spellings(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1.0]}), path)
    (tmp_path / "link.parquet").symlink_to(path)
    for other in (tmp_path / ".." / tmp_path.name / "a.parquet", tmp_path / "link.parquet"):
        with pytest.raises(ArgumentError, match="more than once"):
            parquet_source([str(path), str(other)])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (pa.array([1, 2], pa.timestamp("ns")), "has type timestamp"),
        (pa.array(["a", "b"]), "has type large_string"),
        (None, "'x'"),
    ],
)
def test_a_file_that_was_written_again(tmp_path, changed, message, unnoticed):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": pa.array([1, 2], pa.timestamp("us"))}), path)
    source = parquet_source(path)
    pq.write_table(pa.table({"y": [1, 2]} if changed is None else {"x": changed}), path)
    with pytest.raises(SchemaError, match=message):
        list(source.read(source.fragments[0]))


def test_filters_on_nested_columns(tmp_path):
    rows = [{"s": {"a": i, "b": [i] * (i % 3)}, "x": float(i)} for i in range(300)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "nested.parquet")
    for filters in (pc.field("s", "a") >= 100, pc.field("x") >= 100.0):
        source = parquet_source(tmp_path / "nested.parquet", columns=["x"], filters=filters)
        assert source.n_rows == 200
    counted = pc.list_value_length(pc.field("s", "b")) > 0
    assert parquet_source(tmp_path, columns=["x"], filters=counted).n_rows == 200
