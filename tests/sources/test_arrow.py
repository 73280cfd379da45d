from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pymc as pm
import pytensor
import pytest

from pymc_streaming import DataLoader, Trainer, arrow_source, preshuffle
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
    StreamingError,
)
from pymc_streaming.sources import IterableDataset, as_source, read_checked
from pymc_streaming.sources import arrow as arrow_module
from pymc_streaming.sources.arrow import ArrowSource
from pymc_streaming.sources.files import DataFile
from pymc_streaming.sources.packed import packed_schema
from tests.tables import expected_order, write


def read(source: IterableDataset) -> dict[str, np.ndarray]:
    blocks = [
        rows.block(source.layout)
        for fragment in source.fragments
        for rows in read_checked(source, fragment)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in source.layout}


def mixed(n_rows: int = 100) -> pa.Table:
    rows = np.arange(n_rows)
    return pa.table(
        {
            "x": rows / 2,
            "y": rows.astype(np.int16),
            "g": [f"level {i % 3}" for i in rows],
            "when": pa.array(rows, pa.timestamp("ms")),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of five record batches in all, one of them empty."""
    table = mixed()
    write(tmp_path / "0.arrow", table.slice(0, 40), [20])
    write(tmp_path / "1.arrow", table.slice(40, 0))
    write(tmp_path / "2.arrow", table.slice(40), [25, 0, 25])
    return tmp_path


# Files of others -----------------------------------------------------------------------


def test_blocks(folder):
    source = arrow_source(folder, columns=["y", "x", "when"])
    assert source.n_rows == 100
    assert source.columns == ("y", "x", "when")
    assert [f.n_rows for f in source.fragments] == [20, 20, 25, 25, 10]
    assert source.fragments[2].origin == "2.arrow, record batch 0"
    assert not source.is_shuffled
    rows = np.arange(100)
    expected = np.column_stack([rows, rows / 2, rows / 1000])
    np.testing.assert_array_equal(read(source)["batch"], expected)
    assert "100 rows in 5 record batches" in repr(source)


def test_named_arrays(folder):
    source = arrow_source(
        folder, columns={"X": ["x", "y"], "y": "y", "g": "g"}, categories={"g": "auto"}
    )
    assert source.categories == {"g": ("level 0", "level 1", "level 2")}
    block = read(source)
    assert block["y"].dtype == np.int64
    assert block["X"].shape == (100, 2)
    np.testing.assert_array_equal(block["g"], np.arange(100) % 3)


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather(compression, tmp_path):
    frame = pd.DataFrame(
        {
            "x": np.where(np.arange(200) % 9, np.arange(200.0), np.nan),
            "g": pd.Categorical(["a", None, "b", "a"] * 50, ["b", "a", "not used"]),
            "text": ["c", "d"] * 100,
        }
    )
    path = tmp_path / "a.feather"
    feather.write_feather(frame, path, compression=compression, chunksize=70)

    def transform(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert block["g"].dtype == np.float64
        missing = np.isnan(block["g"])
        block["x"][np.isnan(block["x"])] = -1.0
        return {"x": block["x"], "g": np.where(missing, 9, block["g"]), "missing": missing}

    source = arrow_source(path, categories="auto", transform=transform)
    assert [f.n_rows for f in source.fragments] == [70, 70, 60]
    assert source.categories == {"g": ("a", "b"), "text": ("c", "d")}
    block = read(source)
    np.testing.assert_array_equal(block["x"], frame["x"].fillna(-1.0))
    codes = frame["g"].map({"a": 0, "b": 1}).astype(float).fillna(9)
    np.testing.assert_array_equal(block["g"], codes)
    np.testing.assert_array_equal(block["missing"], frame["g"].isna())
    frame["x"] = np.where(frame["x"].isna(), -1.0, frame["x"])
    for _ in range(2):  # what the transform wrote did not go into the file
        np.testing.assert_array_equal(read(source)["x"], frame["x"])


def test_written_by_polars(tmp_path):
    frame = pl.DataFrame({"x": [0.5, 1.5, 2.5], "g": ["b", "a", "b"]})
    frame = frame.with_columns(c=pl.col("g").cast(pl.Categorical))
    frame.write_ipc(tmp_path / "a.arrow")
    source = arrow_source(tmp_path, columns={"x": "x", "g": "g", "c": "c"}, categories="auto")
    block = read(source)
    assert block["g"].tolist() == block["c"].tolist() == [1, 0, 1]


def test_nulls_without_a_transform(tmp_path):
    write(tmp_path / "a.arrow", pa.table({"x": [1.0, None], "y": [1, 2]}))
    source = arrow_source(tmp_path)
    with pytest.raises(MissingValueError, match=r"a\.arrow, record batch 0: column 'x'.*1 null"):
        read(source)
    assert read(arrow_source(tmp_path, columns=["y"]))["batch"].tolist() == [[1.0], [2.0]]


def test_nan(tmp_path):
    write(tmp_path / "a.arrow", pa.table({"x": [1.0, np.nan]}))
    with pytest.raises(MissingValueError, match=r"a\.arrow, record batch 0.*NaN.*'x'"):
        read(arrow_source(tmp_path))


def test_blocks_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_module, "_BLOCK_BYTES", 800)
    write(tmp_path / "a.arrow", pa.table({"x": np.arange(1000.0)}))
    source = arrow_source(tmp_path)
    sizes = [len(block["batch"]) for block in source.read(source.fragments[0])]
    assert sizes == [100] * 10
    np.testing.assert_array_equal(read(source)["batch"].ravel(), np.arange(1000.0))


def test_a_level_that_was_not_given(folder):
    source = arrow_source(folder, columns={"g": "g"}, categories={"g": ["level 0", "level 1"]})
    with pytest.raises(CategoryError, match=r"0\.arrow, record batch 0: column 'g'.*'level 2'"):
        read(source)


@pytest.mark.parametrize(
    ("second", "columns", "message"),
    [
        ({"x": [1.0]}, None, r"1\.arrow: there is no column 'y'.*It is in .*0\.arrow"),
        ({"x": [1.0], "y": [1.0]}, None, r"1\.arrow: column 'y' has type double, but int64 in"),
        ({"x": [1.0], "y": [1], "z": [1]}, None, r"1\.arrow: column 'z' is not in .*0\.arrow"),
        ({"x": [1.0], "y": [1]}, ["z"], r"0\.arrow: there is no column 'z'.*x, y"),
    ],
)
def test_files_that_do_not_fit_together(second, columns, message, tmp_path):
    write(tmp_path / "0.arrow", pa.table({"x": [1.0], "y": [1]}))
    write(tmp_path / "1.arrow", pa.table(second))
    with pytest.raises(SchemaError, match=message):
        arrow_source(tmp_path, columns=columns)


@pytest.mark.parametrize("which", [0, 1])
def test_a_column_that_is_there_twice(which, tmp_path):
    twice = pa.table([[1.0], [2.0]], names=["x", "x"])
    for i in range(2):
        write(tmp_path / f"{i}.arrow", twice if i == which else pa.table({"x": [1.0]}))
    for columns in (None, ["x"]):
        with pytest.raises(
            SchemaError, match=rf"({which}\.arrow: )?column 'x' is (there|selected)"
        ):
            arrow_source(tmp_path, columns=columns)


def test_columns_by_name_not_by_place(tmp_path):
    write(tmp_path / "0.arrow", pa.table({"x": [1.0], "y": [2.0]}))
    write(tmp_path / "1.arrow", pa.table({"z": ["-"], "y": [4.0], "x": [3.0]}))
    found = read(arrow_source(tmp_path, columns=["x", "y"]))["batch"]
    assert found.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_no_rows(tmp_path):
    write(tmp_path / "a.arrow", mixed().slice(0, 0))
    with pytest.raises(RowCountError, match="there are no rows"):
        arrow_source(tmp_path, columns=["x"])


def test_nothing_there(tmp_path):
    with pytest.raises(MissingFileError, match=r"no file matches '\*\.arrow'"):
        arrow_source(tmp_path)
    with pytest.raises(MissingFileError):
        arrow_source(tmp_path / "gone.arrow")


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"x,y\n1,2\n" * 100])
def test_not_arrow(content, tmp_path):
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.arrow: "):
        arrow_source(tmp_path)


@pytest.mark.parametrize("compression", ["uncompressed", "lz4"])
def test_a_damaged_file_does_not_crash(compression, tmp_path):
    """Whatever a byte is changed to must end in an error of the package, or in numbers."""
    path = tmp_path / "a.arrow"
    frame = mixed(500).drop_columns("when").to_pandas().astype({"g": "category"})
    feather.write_feather(frame, path, compression=compression, chunksize=100)
    whole, errors = path.read_bytes(), 0
    for at in np.random.default_rng(0).integers(8, len(whole), 150):
        content = bytearray(whole)
        content[at] ^= 0xFF
        path.write_bytes(content)
        try:
            read(arrow_source(path, categories="auto"))
        except (StreamingError, MemoryError):
            errors += 1
    assert errors > 10


def test_a_damaged_batch_is_named(tmp_path):
    path = write(tmp_path / "a.arrow", pa.table({"g": ["a", "b", "c"] * 100}), [30])
    content = path.read_bytes()
    offsets = np.arange(270, dtype=np.int32)[5:].tobytes()  # of the second batch
    at = content.index(offsets)
    path.write_bytes(content[:at] + b"\xff\xff\xff\x7f" + content[at + 4 :])
    with pytest.raises(CorruptFileError, match=r"a\.arrow, record batch 1: .*[Oo]ffset"):
        arrow_source(path, columns={"g": "g"}, categories="auto")
    source = arrow_source(path, columns={"g": "g"}, categories={"g": ["a", "b", "c"]})
    with pytest.raises(CorruptFileError, match=r"a\.arrow, record batch 1: "):
        read(source)


# Rows side by side ---------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    table = pa.table({f"x{i}": np.arange(300.0) + i * 1000 for i in range(5)})
    write(tmp_path / "a.parquet", table, [100])
    options = {"seed": 0, "format": "arrow", "shards": 2, "progressbar": False}
    for dtype in ("float32", "float64"):
        preshuffle(tmp_path / "a.parquet", tmp_path / dtype, dtype=dtype, **options)
    return tmp_path


def test_rows_that_lie_as_they_are_needed_are_quick(packed):
    with pytensor.config.change_flags(floatX="float64"):
        assert arrow_source(packed / "float64").is_quick
        assert not arrow_source(packed / "float32").is_quick  # to be converted
        write(packed / "b.arrow", mixed(), [100])
        assert not arrow_source(packed / "b.arrow", columns=["x", "y"]).is_quick


def expected_rows() -> np.ndarray:
    return np.array(expected_order(300, 0))[:, None] + 1000.0 * np.arange(5)


def first_block(source: ArrowSource) -> np.ndarray:
    return next(source.read(source.fragments[0]))["batch"]


@pytest.mark.parametrize("floating", ["float32", "float64"])
@pytest.mark.parametrize("stored", ["float32", "float64"])
def test_packed_rows(stored, floating, packed):
    with pytensor.config.change_flags(floatX=floating):
        source = arrow_source(packed / stored)
        assert source.is_shuffled
        assert source.columns == ("x0", "x1", "x2", "x3", "x4")
        assert source.layout["batch"].dtype == np.dtype(floating)
        found = read(source)["batch"]
    assert found.dtype == np.dtype(floating)
    np.testing.assert_array_equal(found, expected_rows())


def test_a_block_is_written_to_without_the_file(packed):
    files = {path: path.read_bytes() for path in (packed / "float64").iterdir()}
    source = arrow_source(packed / "float64")
    block = first_block(source)
    assert block.flags.writeable
    assert block.flags.c_contiguous
    kept = block.copy()
    block[:] = -1.0
    assert not (first_block(source) == -1.0).any()
    np.testing.assert_array_equal(first_block(source), kept)
    assert {path: path.read_bytes() for path in files} == files
    source.manifest.verify(packed / "float64")


def test_columns_of_one_type_are_not_the_file_itself(tmp_path):
    """Named arrays of a table that is not packed."""
    write(tmp_path / "a.arrow", pa.table({"x": np.arange(100.0), "y": np.arange(100)}))
    source = arrow_source(tmp_path, columns={"x": "x", "y": "y"})
    first, again = (next(source.read(source.fragments[0])) for _ in range(2))
    for name in ("x", "y"):
        assert first[name].flags.writeable
        assert not np.shares_memory(first[name], again[name])
        first[name][:] = -1
        np.testing.assert_array_equal(again[name], np.arange(100))
    np.testing.assert_array_equal(read(source)["x"], np.arange(100.0))


def test_a_column_used_twice_is_in_two_places(tmp_path):
    write(tmp_path / "a.arrow", pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}))
    source = arrow_source(tmp_path / "a.arrow", columns={"x": ["a", "b"], "y": "a", "z": "a"})
    for keep in ("y", "z"):
        (block,) = source.read(source.fragments[0])
        for name in {"x", "y", "z"} - {keep}:
            block[name][:] = 0
        np.testing.assert_array_equal(block[keep], [1.0, 2.0])


def test_a_block_lives_as_long_as_it_is_held(packed):
    source = arrow_source(packed / "float64")
    blocks = [block["batch"] for f in source.fragments for block in source.read(f)]
    del source
    for path in (packed / "float64").iterdir():
        path.unlink()
    np.testing.assert_array_equal(np.concatenate(blocks), expected_rows())


@pytest.mark.parametrize("columns", [["x3", "x1"], ("x0",), ["x0", "x1", "x2", "x3", "x4"]])
@pytest.mark.parametrize("stored", ["float32", "float64"])
def test_columns_of_packed_rows(stored, columns, packed):
    source = arrow_source(packed / stored, columns=columns)
    assert source.columns == tuple(columns)
    places = [int(name[1]) for name in columns]
    np.testing.assert_array_equal(read(source)["batch"], expected_rows()[:, places])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"columns": ["x9"]}, SchemaError, "there is no column 'x9'.*x0, x1"),
        ({"columns": "x0"}, ArgumentError, "columns must be a list of names, found 'x0'"),
        ({"columns": {"x": "x0"}}, ArgumentError, "To have several arrays, shuffle without dtype"),
        ({"columns": ["x0", "x0"]}, StreamingError, "x0"),
        ({"columns": []}, StreamingError, "column"),
        ({"columns": [1]}, StreamingError, "1"),
        ({"categories": {"x0": "auto"}}, ArgumentError, "has no categories and takes no transform"),
        ({"transform": lambda block: block}, ArgumentError, "Shuffle without dtype"),
    ],
)
def test_what_packed_rows_cannot_do(options, error, message, packed):
    with pytest.raises(error, match=message):
        arrow_source(packed / "float32", **options)


def test_numbers_too_large_for_the_type(tmp_path):
    write(tmp_path / "a.parquet", pa.table({"x": [1e300]}))
    preshuffle(
        tmp_path / "a.parquet", tmp_path / "out", seed=0, format="arrow", dtype="float64",
        progressbar=False,
    )  # fmt: skip
    with pytensor.config.change_flags(floatX="float32"):
        source = arrow_source(tmp_path / "out")
        with pytest.raises(StreamingError, match=r"record batch 0.*float32"):
            read(source)


def test_packed_files_of_other_columns(packed):
    table = pa.table({name: [1.0] for name in ("x1", "x0", "x2", "x3", "x4")})
    write(packed / "b.parquet", table)
    options = {"seed": 0, "format": "arrow", "dtype": "float32", "progressbar": False}
    preshuffle(packed / "b.parquet", packed / "other", **options)
    first, other = (packed / name / "part-00000.arrow" for name in ("float32", "other"))
    with pytest.raises(SchemaError, match=r"other.*: the rows hold the columns x1, x0.*but x0, x1"):
        arrow_source([first, other])
    kind = pa.list_(pa.field("item", pa.float32(), nullable=False), 5)
    write(packed / "c.arrow", pa.table({"batch": pa.array([[1.0] * 5], kind)}))
    with pytest.raises(SchemaError, match=r"c\.arrow"):
        arrow_source([first, packed / "c.arrow"])


def test_a_column_of_that_name_is_not_packed(tmp_path):
    write(tmp_path / "a.arrow", pa.table({"batch": [1.0, 2.0]}))
    assert read(arrow_source(tmp_path))["batch"].tolist() == [[1.0], [2.0]]


def test_a_null_row(packed):
    path = packed / "float32" / "part-00000.arrow"
    with pa.ipc.open_file(pa.OSFile(str(path))) as opened:
        schema = opened.schema
    rows = pa.array([[1.0] * 5, None], schema.field(0).type)
    write(packed / "n.arrow", pa.table([rows], schema=schema))
    with pytest.raises(MissingValueError, match=r"n\.arrow, record batch 0: 1 rows are null"):
        read(arrow_source(packed / "n.arrow"))


# Elsewhere, and later ------------------------------------------------------------------


def test_remote(packed, folder):
    memory = fsspec.filesystem("memory")
    for path in [*packed.glob("float64/*.arrow"), *folder.glob("*.arrow")]:
        memory.pipe(f"/arrow_test/{path.parent.name == 'float64'}/{path.name}", path.read_bytes())
    source = arrow_source("memory://arrow_test/True")
    found = read(source)["batch"]
    np.testing.assert_array_equal(found, expected_rows())
    block = first_block(source)
    assert block.flags.writeable
    block[:] = -1
    np.testing.assert_array_equal(read(source)["batch"], expected_rows())
    source = arrow_source("memory://arrow_test/False/*.arrow", columns=["y"])
    np.testing.assert_array_equal(read(source)["batch"].ravel(), np.arange(100))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (None, MissingFileError, r"a\.arrow: the file is not there"),
        (mixed().slice(0, 99), RowCountError, r"record batch 1: expected 50 rows, found 49"),
        (mixed().slice(0, 51), RowCountError, "record batch 1: expected 50 rows, found 1"),
        (mixed().drop_columns("x"), SourceError, r"a\.arrow"),
    ],
)
def test_a_file_that_is_another_by_now(changed, error, message, tmp_path, unnoticed):
    path = write(tmp_path / "a.arrow", mixed(), [50])
    source = arrow_source(path, columns=["x", "y"])
    if changed is None:
        path.unlink()
    else:
        write(tmp_path / "new", changed, [50] if changed.num_rows > 50 else [])
        (tmp_path / "new").rename(path)
    with pytest.raises(error, match=message):
        read(source)


def test_a_file_that_was_written_to(tmp_path):
    path = write(tmp_path / "a.arrow", mixed(), [50])
    source = arrow_source(path, columns=["x", "y"])
    write(path, mixed(), [50])
    with pytest.raises(ChangedFileError, match=r"a\.arrow: the file was written to or replaced"):
        read(source)


def test_packed_rows_that_were_written_to(packed):
    source = arrow_source(packed / "float64")
    (path, *_) = sorted((packed / "float64").glob("*.arrow"))
    path.touch()
    with pytest.raises(ChangedFileError, match="with a new source"):
        read(source)


@pytest.fixture
def unnoticed(monkeypatch):
    """As on a file system that does not tell when a file was written to."""
    monkeypatch.setattr(DataFile, "check_unchanged", lambda _: None)


@pytest.mark.parametrize("has_checksums", [True, False])
def test_nan_that_came_after_the_first_look(packed, unnoticed, monkeypatch, has_checksums):
    if not has_checksums:  # as in a file that others wrote
        monkeypatch.setattr(arrow_module, "expected_checksum", lambda _: None)
    source = arrow_source(packed / "float64")
    loader = DataLoader(source, 50, num_workers=0)
    for _ in range(2):
        assert sum(len(batch["batch"]) for batch in loader) == 300
    (path, *_) = sorted((packed / "float64").glob("*.arrow"))
    found = path.read_bytes()
    at = found.index(np.float64(read(source)["batch"][20, 2]).tobytes())
    path.write_bytes(found[:at] + np.float64(np.nan).tobytes() + found[at + 8 :])
    error, text = (CorruptFileError, "checksum") if has_checksums else (MissingValueError, "'x2'")
    with pytest.raises(error, match=text):
        list(loader)


def test_nan_that_comes_in_the_middle_of_a_later_pass(packed):
    (path, *_) = sorted((packed / "float64").glob("*.arrow"))
    loader = DataLoader(arrow_source(path), 10, num_workers=0)
    first = np.concatenate([batch["batch"] for batch in loader])
    stream = iter(loader)
    next(stream)
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(first[-1, 2].tobytes()))
        file.write(np.float64(np.nan).tobytes())
    with pytest.raises(MissingValueError, match="'x2'"):
        list(stream)


def test_to_read_is_not_to_look_for_nan(tmp_path):
    """Whoever reads without a loader has to look at what there is."""
    rows = np.arange(10.0).reshape(5, 2)
    rows[3, 1] = np.nan
    values = pa.array(rows.reshape(-1))
    schema = packed_schema(["x", "y"], np.dtype("float64"))
    kind = schema.field(0).type
    table = pa.table([pa.FixedSizeListArray.from_arrays(values, type=kind)], schema=schema)
    write(tmp_path / "a.arrow", table)
    source = arrow_source(tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(first_block(source), rows)
        with pytest.raises(MissingValueError, match="'y'"):
            list(DataLoader(source, 2, num_workers=0))


@pytest.mark.parametrize("rows", [pa.array(["text"] * 100), pa.array([[1.0]] * 100)])
def test_a_column_that_is_another_by_now(rows, tmp_path, unnoticed):
    path = write(tmp_path / "a.arrow", mixed(), [50])
    source = arrow_source(path, columns=["x", "y"])
    write(path, mixed().set_column(0, "x", rows), [50])
    with pytest.raises(SchemaError, match=r"a\.arrow: column 'x' has type"):
        read(source)


def test_fewer_batches_by_now(tmp_path, unnoticed):
    path = write(tmp_path / "a.arrow", mixed(), [50])
    source = arrow_source(path, columns=["x"])
    write(path, mixed())
    with pytest.raises(SchemaError, match="record batch 1: the file now has 1 record batches"):
        list(source.read(source.fragments[1]))


def test_as_source(packed, folder):
    assert type(as_source(packed / "float32")) is ArrowSource
    one: Any = str(folder / "0.arrow")
    with pytest.raises(SchemaError, match="column 'g' holds strings"):
        as_source(one)


@pytest.mark.filterwarnings("ignore::pymc_streaming.errors.NotConvergedWarning")
def test_a_fit_on_shuffled_rows_gives_the_posterior(tmp_path):
    n_rows, rng = 4000, np.random.default_rng(0)
    x = np.sort(rng.normal(size=n_rows))  # sorted: unshuffled, each batch would see one end
    y = 0.5 + 1.5 * x + rng.normal(size=n_rows)
    write(tmp_path / "a.parquet", pa.table({"x": x, "y": y}), [1000])
    preshuffle(
        tmp_path / "a.parquet", tmp_path / "out", seed=1, format="arrow", dtype="float64",
        shards=3, progressbar=False,
    )  # fmt: skip
    loader = DataLoader(arrow_source(tmp_path / "out"), 200)
    with pm.Model() as model:
        a, b = pm.Normal("a", 0.0, 10.0), pm.Normal("b", 0.0, 10.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Normal("y", a + b * batch[:, 0], 1.0, observed=batch[:, 1], total_size=len(loader))
    approx = Trainer("advi", loader, model=model, random_seed=0, progressbar=False).fit(2000)
    X = np.column_stack([np.ones(n_rows), x])
    precision = X.T @ X + np.eye(2) / 100
    sd = np.diag(precision) ** -0.5
    mean = np.linalg.solve(precision, X.T @ y)
    assert np.abs((approx.mean.eval() - mean) / sd).max() < 0.4
    np.testing.assert_allclose(approx.std.eval(), sd, rtol=0.1)
