from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pymc_streaming.errors import CorruptFileError
from pymc_streaming.sources.files import find_files
from pymc_streaming.sources.open_files import OpenFiles


def test_files_stay_open_and_few(tmp_path: Path) -> None:
    for i in range(12):
        pq.write_table(pa.table({"x": [i]}), tmp_path / f"{i:02}.parquet")
    files = find_files(tmp_path, "*.parquet")
    pool = OpenFiles()
    with pool.borrow(files[0]) as first, pool.borrow(files[0]) as second:
        assert second is not first  # never shared while in use
    with pool.borrow(files[0]) as again:
        assert again in (first, second)
    for file in files:
        with pool.borrow(file):
            pass
    assert len(pool._idle) == 4


def test_file_that_failed_is_not_kept(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    (file,) = find_files(tmp_path, "*.parquet")
    pool = OpenFiles()
    with pytest.raises(CorruptFileError, match="row group 3"), pool.borrow(file, "row group 3"):
        raise pa.ArrowInvalid("bad")
    assert pool._idle == []


def test_checksums_are_compared_unless_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    options = {"compression": None, "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.table({"x": [1.0, 2.0, 3.0]}), path, **options)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x00\x00\x00\x40", b"\x00\x00\x08\x40", 1))
    (file,) = find_files(tmp_path, "*.parquet")
    pool = OpenFiles()
    with pool.borrow(file, checksums=False) as opened:
        assert opened.read()["x"].to_pylist() == [1.0, 3.0, 3.0]
    with pytest.raises(CorruptFileError, match="CRC checksum"), pool.borrow(file) as opened:
        opened.read()


def test_of_the_two_ways_to_open_a_file_one_stays(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    (file,) = find_files(tmp_path, "*.parquet")
    pool = OpenFiles()
    for checksums in (True, False, True):
        with pool.borrow(file, checksums=checksums):
            pass
    assert [key for key, _ in pool._idle] == [(file.path, True)]
