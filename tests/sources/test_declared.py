"""What files declare is known before it is decompressed."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pymc_streaming import DataLoader, arrow_source, parquet_source
from pymc_streaming.errors import CorruptFileError, SkippedFilesWarning
from pymc_streaming.limits import MemoryLimit
from pymc_streaming.sources import declared
from pymc_streaming.sources.file_facts import FileFacts
from pymc_streaming.sources.thrift import footer_facts, page_facts


def table(n_rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table(
        {
            "zeros": np.zeros(n_rows),
            "noise": random.normal(size=n_rows),
            "few": random.integers(0, 5, n_rows),
            "text": np.array(["short", "a good deal longer", ""])[random.integers(0, 3, n_rows)],
            "flag": random.random(n_rows) < 0.5,
        }
    )


def footer() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table(50), sink)
    written = sink.getvalue().to_pybytes()
    return written[-8 - int.from_bytes(written[-8:-4], "little") : -8]


FOOTER = footer()


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_footers_and_pages_are_what_arrow_reads(tmp_path, codec, version, dictionary) -> None:
    path = tmp_path / "table.parquet"
    noise = table(50_000)["noise"].to_pylist()
    for row in (7, 30_007, 30_008):
        noise[row] = None
    pq.write_table(
        table(50_000).set_column(1, "noise", [noise]),
        path,
        row_group_size=30_000,
        compression=codec,
        data_page_version=version,
        use_dictionary=dictionary,
        write_page_checksum=True,
        data_page_size=10_000,
    )
    content = np.fromfile(path, np.uint8)
    footer = pq.read_metadata(path)
    with pa.OSFile(str(path)) as opened:
        facts = FileFacts(opened, "here")
    assert facts.group_rows == [30_000, 20_000]
    for number in range(footer.num_row_groups):
        for column in range(footer.num_columns):
            chunk = footer.row_group(number).column(column)
            found = facts.chunk(number, chunk.path_in_schema)
            assert found["n_values"] == chunk.num_values
            assert found["uncompressed"] == chunk.total_uncompressed_size
            assert found["compressed"] == chunk.total_compressed_size
            assert found["data_page"] == chunk.data_page_offset
            assert found["dictionary_page"] == (chunk.dictionary_page_offset or 0)
            assert found["nulls"] == chunk.statistics.null_count == (number + 1) * (column == 1)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            stop = start + chunk.total_compressed_size
            n_values, largest, levels = page_facts(content, start, stop)
            assert n_values == chunk.num_values
            assert 0 < largest + levels <= chunk.total_uncompressed_size
            with pytest.raises(ValueError, match=r"page|structure|number|text|list|format"):
                page_facts(content, start, stop - 1)


@pytest.mark.parametrize("codec", ["lz4", "zstd", None])
def test_buffers_of_a_record_batch(tmp_path, codec) -> None:
    path = tmp_path / "table.arrow"
    written = table(10_000)
    text = written["text"].dictionary_encode()
    written = written.drop_columns("text").append_column("text", text)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(path, written.schema, options=options) as file:
        file.write_table(written, max_chunksize=3_000)
    content = memoryview(path.read_bytes())
    opened = pa.ipc.open_file(path)
    for number in range(opened.num_record_batches):
        batch = opened.get_batch(number)
        sizes = list(declared._buffer_sizes(content, number))
        if codec is None:
            assert sizes == []
            continue
        levels = batch.column("text").dictionary.nbytes
        assert abs(sum(sizes) - batch.nbytes - levels) < 1_000
    with pytest.raises(ValueError, match="list of them"):
        list(declared._buffer_sizes(content, opened.num_record_batches))


def varint(number: int) -> bytes:
    """As Thrift writes a whole number."""
    number <<= 1
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


@pytest.mark.parametrize(
    ("told", "instead"),
    [
        # Rows of a row group, after the bytes of it; of the file, before the list of row groups.
        (b"\x16" + varint(777) + b"\x26", b"\x16" + varint(776) + b"\x26"),
        (b"\x16" + varint(777) + b"\x19", b"\x16" + varint(778) + b"\x19"),
    ],
    ids=["a row group", "the file"],
)
def test_footers_that_lie(tmp_path, told, instead) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"x": np.arange(777.0)}), path)
    written = path.read_bytes()
    start = written.index(told, len(written) - 8 - int.from_bytes(written[-8:-4], "little"))
    path.write_bytes(written[:start] + instead + written[start + len(told) :])
    with pytest.raises(CorruptFileError, match=r"table\.parquet: the footer.*contradicts itself"):
        parquet_source(path)


def test_a_page_that_arrow_would_pass_over(tmp_path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(
        pa.table({"x": np.arange(500.0), "c": ["a", "b"] * 250}), path, use_dictionary=["c"]
    )
    content = bytearray(path.read_bytes())
    place = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    assert content[place] == 0x15  # the kind of the page: 0 for data
    content[place + 1] = varint(7)[0]
    path.write_bytes(content)
    # Scanned for levels, it would have had no rows.
    with pytest.raises(CorruptFileError, match=r"row group 0, column 'x'.*no known kind"):
        for _ in DataLoader(parquet_source(path, columns=["x"]), 100):
            pass


@pytest.fixture
def little(monkeypatch) -> None:
    """As on a machine that has ten megabytes left."""

    def limit() -> MemoryLimit:
        return MemoryLimit(psutil.Process().memory_info().rss + 10 * 2**20, "a test")

    monkeypatch.setattr(declared, "_LITTLE", 2**20)
    monkeypatch.setattr(declared, "memory_limit", limit)


def test_a_page_that_is_too_large_is_refused(tmp_path, little) -> None:
    n_rows = 3_000_000  # 24 MB in some kilobytes
    pq.write_table(
        pa.table({"x": np.zeros(n_rows)}),
        tmp_path / "bomb.parquet",
        compression="zstd",
        use_dictionary=False,
        data_page_size=2**30,
        max_rows_per_page=n_rows,
        row_group_size=n_rows,
    )
    assert (tmp_path / "bomb.parquet").stat().st_size < 50_000
    with pytest.raises(CorruptFileError, match=r"bomb\.parquet, row group 0, column 'x'.*24,000,"):
        for _ in DataLoader(parquet_source(tmp_path / "bomb.parquet"), 1_000):
            pass
    pq.write_table(pa.table({"x": np.ones(10)}), tmp_path / "good.parquet")
    with pytest.warns(SkippedFilesWarning, match="bomb"):
        source = parquet_source(tmp_path, on_bad_file="skip")
    assert source.n_rows == 10
    # In pages as they are usually written it is no bomb.
    pq.write_table(pa.table({"x": np.zeros(n_rows)}), tmp_path / "bomb.parquet", compression="zstd")
    assert parquet_source(tmp_path, on_bad_file="skip").n_rows == n_rows + 10


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_record_batch_that_is_too_large_is_refused(tmp_path, little, codec) -> None:
    bomb = pa.table({"x": np.zeros(3_000_000)})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(tmp_path / "bomb.arrow", bomb.schema, options=options) as file:
        file.write_table(bomb)
    assert (tmp_path / "bomb.arrow").stat().st_size < 200_000
    with pytest.raises(CorruptFileError, match=r"bomb\.arrow, record batch 0: buffers.*24,000,000"):
        arrow_source(tmp_path / "bomb.arrow")


BOMB = """
import resource
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from pymc_streaming import DataLoader, parquet_source
from pymc_streaming.errors import CorruptFileError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for batch in DataLoader(parquet_source("bomb.parquet"), 1_000):
        pass
except CorruptFileError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_stays_inside_the_limit(tmp_path) -> None:
    n_rows = 40_000_000  # 320 MB
    pq.write_table(
        pa.table({"x": np.zeros(n_rows)}),
        tmp_path / "bomb.parquet",
        compression="zstd",
        use_dictionary=False,
        data_page_size=2**30,
        max_rows_per_page=n_rows,
        row_group_size=n_rows,
    )
    environment = {**os.environ, "PYMC_STREAMING_MEMORY_LIMIT": "300MB"}
    ended = subprocess.run(
        [sys.executable, "-c", BOMB],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ended.stdout) < 150


@settings(max_examples=300)
@given(content=st.binary(max_size=200), start=st.integers(-5, 50), length=st.integers(0, 300))
def test_any_bytes_are_pages_or_an_error(content, start, length) -> None:
    with suppress(ValueError):
        found = page_facts(np.frombuffer(content, np.uint8), start, start + length)
        assert min(found) >= 0


@settings(max_examples=300)
@given(data=st.data())
def test_any_change_of_a_footer_is_read_or_an_error(data) -> None:
    content = bytearray(FOOTER)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        footer_facts(np.frombuffer(bytes(content), np.uint8), 1, 5)


@settings(max_examples=200)
@given(data=st.data())
def test_any_change_of_a_file_is_a_size_or_an_error(data) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(
        sink, table(1).schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as file:
        file.write_table(table(50))
    content = bytearray(sink.getvalue().to_pybytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    with suppress(CorruptFileError):
        declared.check_record_batch(memoryview(content), 0, "here")
