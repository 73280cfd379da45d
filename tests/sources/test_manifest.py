from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pymc_streaming import DataLoader, Manifest, arrow_source, parquet_source, preshuffle
from pymc_streaming.errors import (
    ArgumentError,
    CorruptFileError,
    ManifestError,
    MissingFileError,
    StreamingError,
)
from pymc_streaming.shuffling.inputs import open_table
from pymc_streaming.sources import as_source
from pymc_streaming.sources.manifest import MANIFEST_NAME, Shard, sample_digest
from tests.tables import expected_order, rows_of, write

FORMS = pytest.mark.parametrize("form", ["parquet", "arrow"])
N = 100


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    table = pa.table({"x": np.arange(float(N)), "y": np.arange(N, dtype=np.int32)})
    write(folder / "source" / "a.parquet", table.slice(0, 30))
    write(folder / "source" / "b.parquet", table.slice(30))
    for form in ("parquet", "arrow"):
        preshuffle(
            folder / "source", folder / form, seed=7, format=form, shards=3, progressbar=False
        )
    return folder


@pytest.fixture(params=["parquet", "arrow"])
def shuffled(request: pytest.FixtureRequest, made: Path, tmp_path: Path) -> Path:
    """A folder that a test may harm."""
    return shutil.copytree(made / request.param, tmp_path / "shuffled")


def source_of(folder: Path) -> parquet_source:
    form = Manifest.read(folder).format
    return {"parquet": parquet_source, "arrow": arrow_source}[form](folder)


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@FORMS
def test_every_field(made, form):
    manifest = Manifest.read(made / form)
    files = sorted((made / form).glob("part-*"))
    assert manifest == Manifest(
        format=form,
        seed=7,
        n_rows=N,
        columns={"x": "double", "y": "int32"},
        rows_per_fragment=131_072,
        source=[str(made / "source" / name) for name in ("a.parquet", "b.parquet")],
        source_rows=N,
        source_fingerprint=open_table(made / "source", None).fingerprint(),
        shards=tuple(
            Shard(
                f"part-0000{i}.{form}",
                rows,
                file.stat().st_size,
                hashlib.sha256(file.read_bytes()).hexdigest(),
                sample_digest(file),
            )
            for i, (rows, file) in enumerate(zip(rows_by_shard(), files, strict=True))
        ),
        version=version("pymc-streaming"),
    )
    assert json.loads((made / form / MANIFEST_NAME).read_text())["layout"] == 2
    assert manifest.paths(made / form) == [str(file) for file in files]
    manifest.spot_check(made / form)
    manifest.verify(str(made / form))


def rows_by_shard() -> list[int]:
    """How many keys fall into each third of their range."""
    from pymc_streaming.shuffling.keys import row_keys

    counts = np.bincount([int(key) * 3 >> 64 for key in row_keys(7, 0, N)])
    return counts.tolist()


@FORMS
def test_what_preshuffle_returns_is_what_it_wrote(form, made, tmp_path):
    manifest = preshuffle(
        made / "source", tmp_path / "out", seed=7, format=form, shards=3, progressbar=False
    )
    assert manifest == Manifest.read(tmp_path / "out")
    manifest.write(tmp_path)
    assert (tmp_path / MANIFEST_NAME).read_bytes() == (made / form / MANIFEST_NAME).read_bytes()


# Harm ----------------------------------------------------------------------------------


def harmed(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[:-1])
    elif how == "longer":
        path.write_bytes(content + b"\0")
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "is missing"),
        ("truncated", r"was truncated: expected [\d,]+ bytes, found [\d,]+"),
        ("longer", r"was changed: expected [\d,]+ bytes, found [\d,]+"),
    ],
)
def test_a_shard_that_is_lost_or_has_another_size(how, message, shuffled):
    manifest = Manifest.read(shuffled)
    name = manifest.shards[1].file
    harmed(shuffled / name, how)
    for check in (
        lambda: manifest.spot_check(shuffled),
        lambda: manifest.verify(shuffled),
        lambda: source_of(shuffled),
        lambda: as_source(shuffled),
    ):
        with pytest.raises(ManifestError, match=rf"shuffled: .* says: {name} {message}\. Copy"):
            check()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards that are larger than a sample of them."""
    folder = tmp_path_factory.mktemp("large")
    write(folder / "a.parquet", pa.table({"x": np.random.default_rng(0).normal(size=60_000)}))
    for form in ("parquet", "arrow"):
        preshuffle(folder / "a.parquet", folder / form, format=form, shards=2, progressbar=False)
    return folder


def sort_in_place(shard: Path) -> None:
    """Put the rows in order, as somebody who likes order would: the size stays the same."""
    size = shard.stat().st_size
    with pa.OSFile(str(shard)) as file, pa.ipc.open_file(file) as opened:
        table = opened.read_all().sort_by("x").combine_chunks()
        there = [opened.get_batch_with_custom_metadata(i) for i in range(opened.num_record_batches)]
    start = 0
    with pa.ipc.new_file(shard, table.schema) as writer:
        for batch, metadata in there:
            (ordered,) = table.slice(start, batch.num_rows).to_batches()
            writer.write_batch(ordered, custom_metadata=metadata)
            start += batch.num_rows
    assert shard.stat().st_size == size


def test_a_shard_that_was_sorted_in_place(large, tmp_path):
    folder = shutil.copytree(large / "arrow", tmp_path / "out")
    sort_in_place(folder / "part-00001.arrow")
    for check in (arrow_source, as_source, Manifest.read(folder).spot_check):
        with pytest.raises(ManifestError, match=r"part-00001.arrow was changed: its checksum is"):
            check(folder)


@FORMS
@pytest.mark.parametrize("place", [-1, -(2**16), 0, 100])
def test_a_change_at_the_ends_shows_at_once(place, form, large, tmp_path):
    folder = shutil.copytree(large / form, tmp_path / "out")
    shard = folder / f"part-00000.{form}"
    content = bytearray(shard.read_bytes())
    content[place] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ManifestError, match=r"part-00000.* was changed"):
        source_of(folder)


@FORMS
def test_a_byte_between_the_samples_is_found_on_reading_and_by_verify(form, large, tmp_path):
    folder = shutil.copytree(large / form, tmp_path / "out")
    manifest, shard = Manifest.read(folder), folder / f"part-00001.{form}"
    content = bytearray(shard.read_bytes())
    content[(len(content) - 2**16) // 16 - 1] ^= 1  # the last byte before the second block
    shard.write_bytes(content)
    manifest.spot_check(folder)
    with pytest.raises(ManifestError, match=r"says: part-00001\.\w+ was changed: its"):
        manifest.verify(folder)
    source = source_of(folder)
    with pytest.raises(CorruptFileError, match="part-00001"):
        list(DataLoader(source, 1_000))


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**16 + 1, 2**17, 2**20])
def test_what_a_sample_is_of(size, tmp_path):
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "file").write_bytes(content)
    rest, end = content[: max(0, size - 2**16)], content[-(2**16) :]
    starts = [len(rest) * i // 16 for i in range(16)]
    sampled = b"".join(rest[start : start + 4096] for start in starts) + end
    assert sample_digest(tmp_path / "file") == hashlib.sha256(sampled).hexdigest()


def test_all_that_is_wrong_is_named(shuffled):
    manifest = Manifest.read(shuffled)
    for shard, how in zip(manifest.shards, ("missing", "changed", "truncated"), strict=True):
        harmed(shuffled / shard.file, how)
    message = r"part-00000\.\w+ is missing; part-00001\.\w+ was changed.*; part-00002\.\w+ was tr"
    with pytest.raises(ManifestError, match=message):
        manifest.verify(shuffled)


def test_of_many_the_first_are_named(made, tmp_path):
    manifest = preshuffle(made / "source", tmp_path / "out", seed=0, shards=9, progressbar=False)
    for path in (tmp_path / "out").glob("part-*"):
        path.unlink()
    with pytest.raises(ManifestError, match=r"part-00004\.parquet is missing and 4 more"):
        manifest.verify(tmp_path / "out")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "null", "{}", '{"layout": 2}', '{"layout": 2, "shards": [5]}']
)
def test_a_damaged_manifest(text, shuffled):
    (shuffled / MANIFEST_NAME).write_text(text)
    for read in (Manifest.read, parquet_source, arrow_source, as_source):
        with pytest.raises(ManifestError, match=rf"{MANIFEST_NAME}: this is not a manifest"):
            read(shuffled)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("file", 5),
        ("file", None),
        ("file", "a\0b"),
        ("file", "\ud800"),
        ("file", "../a.parquet"),
        ("file", ".."),
        ("bytes", "x"),
        ("bytes", None),
        ("rows", True),
        ("sha256", 5),
        ("sample", None),
    ],
)
def test_a_manifest_whose_shards_cannot_be_meant(name, value, shuffled):
    shards = json.loads((shuffled / MANIFEST_NAME).read_text())["shards"]
    shards[0][name] = value
    rewrite(shuffled, shards=shards)
    for read in (Manifest.read, as_source):
        with pytest.raises(
            ManifestError, match=rf"{MANIFEST_NAME}: .*: {name}: expected .*, found"
        ):
            read(shuffled)


@pytest.mark.parametrize(
    ("name", "value"),
    [("format", 5), ("format", "csv"), ("seed", "0"), ("columns", ["x"]), ("source", "a.parquet")],
)
def test_a_manifest_whose_fields_cannot_be_meant(name, value, shuffled):
    rewrite(shuffled, **{name: value})
    with pytest.raises(ManifestError, match=f"not a manifest.*{name}: expected .*, found"):
        Manifest.read(shuffled)


def test_a_manifest_that_is_a_nest_or_a_folder(shuffled):
    (shuffled / MANIFEST_NAME).write_text("[" * 100_000)
    with pytest.raises(ManifestError, match="not a manifest"):
        Manifest.read(shuffled)
    (shuffled / MANIFEST_NAME).unlink()
    (shuffled / MANIFEST_NAME).mkdir()
    with pytest.raises(ManifestError, match="not a manifest"):
        Manifest.read(shuffled)


def test_a_manifest_that_is_no_text(shuffled):
    (shuffled / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not a manifest"):
        Manifest.read(shuffled)


@pytest.mark.parametrize("name", ["seed", "shards", "n_rows", "format", "columns"])
def test_a_manifest_without_a_field(name, shuffled):
    rewrite(shuffled, **{name: None})
    with pytest.raises(ManifestError, match=f"not a manifest.*{name}"):
        Manifest.read(shuffled)


@pytest.mark.parametrize("layout", [1, 3, "new"])
def test_a_manifest_of_a_later_layout(layout, shuffled):
    rewrite(shuffled, layout=layout, something="new")
    with pytest.raises(ManifestError, match=f"layout {layout!r} is not known.* newer version"):
        source_of(shuffled)


def test_no_manifest(tmp_path):
    with pytest.raises(MissingFileError, match=f"there is no {MANIFEST_NAME} here"):
        Manifest.read(tmp_path)
    with pytest.raises(MissingFileError):
        Manifest.read(tmp_path / "gone")


# As a source ---------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["{}", "{}/", "file://{}", "file://{}/", "local://{}"])
def test_sources(shuffled, spelling):
    path = spelling.format(shuffled)
    make = parquet_source if Manifest.read(shuffled).format == "parquet" else arrow_source
    for source in (make(path), make([path]), make((Path(shuffled),)), as_source(path)):
        assert type(source) is type(make(path))
        assert source.is_shuffled
        assert source.manifest == Manifest.read(shuffled)
        assert source.n_rows == N
        block = [b["batch"] for f in source.fragments for b in source.read(f)]
        expected = np.repeat(np.array(expected_order(N, 7), float)[:, None], 2, axis=1)
        np.testing.assert_array_equal(np.concatenate(block), expected)
    loader = DataLoader(make(path), batch_size=N)
    assert loader.total_size == N
    np.testing.assert_array_equal(next(iter(loader))["batch"], expected)


def test_other_files_in_the_folder_do_not_count(shuffled):
    (shuffled / "README.txt").write_text("not data")
    assert source_of(shuffled).n_rows == N
    Manifest.read(shuffled).verify(shuffled)


def test_data_that_was_added_to_the_folder_is_named(shuffled):
    form = Manifest.read(shuffled).format
    write(shuffled / f"more.{form}", pa.table({"x": [1.0], "y": [1]}))
    with pytest.raises(ManifestError, match=f"more.{form} is not among its shards"):
        source_of(shuffled)
    with pytest.raises(ManifestError, match=f"more.{form} is not among its shards"):
        Manifest.read(shuffled).verify(shuffled)


@pytest.mark.parametrize("name", ["ns/old/more.{}", "Z.{}", "more.csv", "ns/part-00000.{}"])
@pytest.mark.parametrize("capitals", [False, True])
def test_data_that_a_reader_would_find_is_named(capitals, name, shuffled):
    name = name.format(Manifest.read(shuffled).format)
    if capitals:
        name = name.rpartition(".")[0] + "." + name.rpartition(".")[2].upper()
    stray = shuffled / name
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_text("")
    for check in (Manifest.read(shuffled).verify, source_of):
        with pytest.raises(ManifestError, match=f"says: {name} is not among its shards"):
            check(shuffled)


def test_a_link_to_a_shard_is_a_stray(shuffled):
    shard = next(shuffled.glob("part-*"))
    (shuffled / f"again{shard.suffix}").symlink_to(shard)
    with pytest.raises(ManifestError, match="listed more than once"):
        Manifest.read(shuffled).verify(shuffled)


@pytest.mark.parametrize("name", [".hidden/more.parquet", "_old/more.arrow", "ns/README.txt"])
def test_files_that_no_reader_would_find_do_not_count(name, shuffled):
    (shuffled / name).parent.mkdir()
    (shuffled / name).write_text("")
    Manifest.read(shuffled).verify(shuffled)


def test_shards_and_table_must_have_the_same_number_of_rows(shuffled):
    path = shuffled / MANIFEST_NAME
    path.write_text(path.read_text().replace(f'"n_rows": {N}', '"n_rows": 7'))
    with pytest.raises(ManifestError, match="n_rows is 7"):
        source_of(shuffled)


def test_without_its_manifest_it_is_a_folder_like_others(shuffled):
    make = {"parquet": parquet_source, "arrow": arrow_source}[Manifest.read(shuffled).format]
    (shuffled / MANIFEST_NAME).unlink()
    source = make(shuffled)
    assert not source.is_shuffled
    assert source.manifest is None
    assert source.n_rows == N
    # Nor are its files, taken one by one.
    assert not make([str(path) for path in sorted(shuffled.glob("part-*"))]).is_shuffled


def test_by_way_of_a_link_and_of_home(shuffled, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(shuffled)
    assert source_of(tmp_path / "link").is_shuffled
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_source("~/shuffled").is_shuffled
    assert as_source("~/shuffled").n_rows == N


def test_a_folder_with_letters_of_globs_in_its_name(shuffled):
    odd = shuffled.rename(shuffled.with_name("odd [1] *"))
    assert source_of(odd).n_rows == N


def test_the_source_for_the_other_format(made):
    with pytest.raises(ArgumentError, match=r"arrow: the shards are arrow files.* arrow_source"):
        parquet_source(made / "arrow")
    with pytest.raises(ArgumentError, match=r"parquet: the shards are parquet.* parquet_source"):
        arrow_source(made / "parquet")


def test_errors_of_the_folder_are_the_packages_own(tmp_path):
    (tmp_path / MANIFEST_NAME).mkdir()
    with pytest.raises(StreamingError):
        as_source(tmp_path)


# Other readers -------------------------------------------------------------------------


def test_other_readers_of_parquet(made):
    folder = made / "parquet"
    expected = np.array(expected_order(N, 7), float)
    np.testing.assert_array_equal(pq.read_table(folder)["x"], expected)
    np.testing.assert_array_equal(pl.read_parquet(folder / "*.parquet")["x"], expected)
    np.testing.assert_array_equal(pl.scan_parquet(folder / "*.parquet").collect()["x"], expected)
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"SELECT x FROM '{folder}/*.parquet'").fetchnumpy()["x"]
    np.testing.assert_array_equal(found, expected)


def test_other_readers_of_arrow(made):
    folder = made / "arrow"
    expected = np.array(expected_order(N, 7), float)
    found = pyarrow.dataset.dataset(folder, format="arrow").to_table()
    np.testing.assert_array_equal(found["x"], expected)
    np.testing.assert_array_equal(pl.read_ipc(folder / "*.arrow")["x"], expected)
    assert rows_of(folder)["x"].to_pylist() == expected.tolist()
