"""Stores that are not what they should be."""

from __future__ import annotations

import io
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pymc_streaming import DataLoader, parquet_source
from pymc_streaming.errors import ChangedFileError, CorruptFileError
from pymc_streaming.sources import open_files, patience, remote

ROWS = 3_000


class Odd(MemoryFileSystem):
    """A store that says when a file has changed, and sometimes sends less than was asked for."""

    protocol = "odd"
    store: dict[str, Any] = {}  # noqa: RUF012 - as in the class above
    pseudo_dirs = [""]  # noqa: RUF012
    version = 1
    chance: np.random.Generator | None = None

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {**super().info(path, **kwargs), "ETag": str(self.version)}

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        opened = super()._open(path, mode)
        return Short(opened.getvalue()) if mode == "rb" else opened


class Short(io.BytesIO):
    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.size = len(content)

    def read(self, n: int | None = -1) -> bytes:
        content = super().read(n)
        if Odd.chance is not None and Odd.chance.random() < 0.2:
            return content[: len(content) // 2]
        return content


@pytest.fixture
def store(monkeypatch):
    fsspec.register_implementation("odd", Odd, clobber=True)
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)
    Odd.store.clear()
    Odd.version, Odd.chance = 1, None
    write(0)
    yield
    Odd.store.clear()
    Odd.chance = None


def write(first: int) -> None:
    for number in range(2):
        start = first + number * ROWS
        table = pa.table({"row": np.arange(start, start + ROWS, dtype=np.float64)})
        with fsspec.open(f"odd://table/{number}.parquet", "wb") as file:
            pq.write_table(table, file, row_group_size=1_000, use_dictionary=False)


def rows_of(source) -> list[int]:
    return [int(row) for batch in DataLoader(source, 100) for row in batch["batch"][:, 0]]


def test_short_answers_lose_no_row_and_no_file(store) -> None:
    Odd.chance = np.random.default_rng(0)
    for on_bad_file in ("error", "skip"):
        source = parquet_source("odd://table", on_bad_file=on_bad_file)
        for _ in range(5):
            assert rows_of(source) == list(range(2 * ROWS))


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_files_that_are_replaced_between_passes(store, monkeypatch, passes) -> None:
    monkeypatch.setattr(open_files, "_LOOK", 0.0)  # of which there are seconds, usually
    source = parquet_source("odd://table")
    for _ in range(passes):
        assert rows_of(source) == list(range(2 * ROWS))
    write(10_000)
    Odd.version = 2
    with pytest.raises(ChangedFileError, match="odd://"):
        rows_of(source)


def test_a_failure_says_nothing_of_another_file(store) -> None:
    remote._failures.append(ValueError("e"))
    remote._failures.append(ConnectionError(""))
    with fsspec.open("odd://table/1.parquet", "wb") as file:
        file.write(b"PAR1 and not much more")
    with pytest.raises(CorruptFileError, match=r"1\.parquet"):
        parquet_source("odd://table")
