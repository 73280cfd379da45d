"""Damaged files that may be left out are; what else is wrong is an error all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pymc_streaming import DataLoader, arrow_source, parquet_source, preshuffle
from pymc_streaming.errors import (
    ArgumentError,
    CorruptFileError,
    ManifestError,
    SchemaError,
    SkippedFilesWarning,
)
from pymc_streaming.sources import KeptSource

ROWS = 1_000


def write(folder: Path, form: str, n_files: int = 4) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"part-{number}.{form}" for number in range(n_files)]
    for number, path in enumerate(paths):
        rows = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.float64)
        table = pa.table({"row": rows, "noise": np.random.default_rng(number).normal(size=ROWS)})
        if form == "parquet":
            pq.write_table(table, path, row_group_size=300, write_page_checksum=True)
        else:
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table, max_chunksize=300)
    return paths


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def rows_of(source) -> np.ndarray:
    return np.concatenate([batch["batch"][:, 0] for batch in DataLoader(source, 256)])


def without(*numbers: int) -> np.ndarray:
    return np.concatenate(
        [np.arange(n * ROWS, (n + 1) * ROWS) for n in range(4) if n not in numbers]
    )


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_truncated_and_empty_files_are_left_out(tmp_path, form) -> None:
    paths = write(tmp_path / "table", form)
    paths[0].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    make = parquet_source if form == "parquet" else arrow_source
    with pytest.raises(CorruptFileError, match="part-0"):
        make(tmp_path / "table")
    with pytest.warns(SkippedFilesWarning, match=r"2 damaged files.*N is 2,000[^#]*part-0"):
        source = make(tmp_path / "table", on_bad_file="skip")
    np.testing.assert_array_equal(rows_of(source), without(0, 2))
    assert source.n_rows == 2 * ROWS
    assert [Path(each.path).name for each in source.skipped] == [paths[0].name, paths[2].name]
    assert [each.n_rows for each in source.skipped] == [None, None]
    assert KeptSource(source).skipped == source.skipped


def test_a_bit_in_a_page_is_found_before_anything_is_counted(tmp_path) -> None:
    paths = write(tmp_path / "table", "parquet")
    page = pq.read_metadata(paths[1]).row_group(2).column(1).data_page_offset
    flip(paths[1], page + 200)
    with pytest.warns(SkippedFilesWarning, match=r"1 damaged file with 1,000 rows was left out"):
        source = parquet_source(tmp_path / "table", on_bad_file="skip")
    (skipped,) = source.skipped
    assert skipped.n_rows == ROWS
    assert "checksum" in skipped.reason
    np.testing.assert_array_equal(rows_of(source), without(1))
    # Only what is read counts.
    assert not parquet_source(tmp_path / "table", columns=["row"], on_bad_file="skip").skipped


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_shard_of_a_shuffled_folder(tmp_path, form) -> None:
    write(tmp_path / "table", "parquet")
    options = {"format": "arrow", "dtype": "float64"} if form == "arrow" else {}
    folder = tmp_path / "shuffled"
    manifest = preshuffle(
        tmp_path / "table", folder, seed=0, shards=4, progressbar=False, **options
    )
    whole = np.sort(rows_of((arrow_source if form == "arrow" else parquet_source)(folder)))
    np.testing.assert_array_equal(whole, np.arange(4 * ROWS))
    shard = manifest.shards[1]
    flip(folder / shard.file, shard.bytes // 2)
    make = arrow_source if form == "arrow" else parquet_source
    with pytest.warns(SkippedFilesWarning, match=f"{shard.file}.*checksum"):
        source = make(folder, on_bad_file="skip")
    assert [each.n_rows for each in source.skipped] == [shard.rows]
    assert source.is_shuffled
    assert len(rows_of(source)) == 4 * ROWS - shard.rows
    (folder / manifest.shards[2].file).unlink()
    with pytest.raises(ManifestError, match="missing"):
        make(folder, on_bad_file="skip")


def test_nothing_is_left(tmp_path) -> None:
    for path in write(tmp_path / "table", "parquet", 2):
        path.write_bytes(b"nothing")
    with pytest.raises(CorruptFileError, match="All 2 files are damaged"):
        parquet_source(tmp_path / "table", on_bad_file="skip")


def test_other_faults_are_errors_all_the_same(tmp_path) -> None:
    paths = write(tmp_path / "table", "parquet")
    pq.write_table(pa.table({"row": ["a"], "noise": [1.0]}), paths[3])
    with pytest.raises(SchemaError, match="part-3"):
        parquet_source(tmp_path / "table", on_bad_file="skip")


def test_whole_files_are_all_read(tmp_path) -> None:
    write(tmp_path / "table", "parquet")
    source = parquet_source(tmp_path / "table", on_bad_file="skip")
    assert source.skipped == ()
    assert source.n_rows == 4 * ROWS


@pytest.mark.parametrize("make", [parquet_source, arrow_source])
@pytest.mark.parametrize("value", ["Skip", "ignore", None, True])
def test_values_that_cannot_be_meant(tmp_path, make, value) -> None:
    with pytest.raises(ArgumentError, match='on_bad_file must be "error" or "skip"'):
        make(tmp_path, on_bad_file=value)
