"""Data sets on a hub, through its real client and a server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem, close_session

from pymc_streaming import DataLoader, parquet_source
from pymc_streaming.errors import MissingFileError, SourceError, TransferError
from pymc_streaming.sources import patience
from tests.hub import Hub, flaky, hub_serving

ROWS, FILES = 20_000, 3
URL = "hf://datasets/owner/clicks"


def write_files(folder: Path, offset: int = 0, compression: str = "none") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        rows = np.arange(ROWS) + number * ROWS
        noise = np.random.default_rng(number).normal(size=(20, ROWS))
        wide = {f"c{i:02}": column for i, column in enumerate(noise)}
        table = pa.table(wide | {"row": rows + offset})
        pq.write_table(
            table,
            folder / f"train-{number}.parquet",
            row_group_size=4_000,
            compression=compression,
            use_dictionary=False,
        )


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    write_files(tmp_path / "owner" / "clicks" / "data")
    with hub_serving(tmp_path) as hub:
        HfFileSystem.clear_instance_cache()
        yield hub
        HfFileSystem.clear_instance_cache()
        close_session()


def numbers(source, num_workers: int = 1) -> np.ndarray:
    loader = DataLoader(source, 256, num_workers=num_workers)
    return np.concatenate([batch["batch"][:, 0] for batch in loader])


def test_every_row_once_and_no_more_bytes_than_the_columns_take(hub) -> None:
    source = parquet_source(URL, columns=["row", "c03"])
    stored = sum(path.stat().st_size for path in hub.folder.rglob("*.parquet"))
    hub.sent = 0
    np.testing.assert_array_equal(numbers(source), np.arange(FILES * ROWS))
    assert hub.sent < 1.3 * 2 * stored / 21


def test_the_revision_is_pinned(hub) -> None:
    source = parquet_source(URL, columns=["row"])
    revision = source.files[0].path.partition("@")[2].partition("/")[0]
    assert len(revision) == 40
    write_files(hub.folder / "owner" / "clicks" / "data", offset=100_000)
    np.testing.assert_array_equal(numbers(source), np.arange(FILES * ROWS))
    again = parquet_source(f"{URL}@{revision}", columns=["row"])
    np.testing.assert_array_equal(numbers(again), np.arange(FILES * ROWS))
    newest = parquet_source(URL, columns=["row"])
    assert numbers(newest)[0] == 100_000


def test_globs_and_single_files(hub) -> None:
    assert parquet_source(f"{URL}/data/train-1.parquet", columns=["row"]).n_rows == ROWS
    assert parquet_source(f"{URL}/**/train-[01].parquet", columns=["row"]).n_rows == 2 * ROWS


@pytest.mark.parametrize("url", ["hf://datasets/owner/none", f"{URL}@other", f"{URL}/nothing"])
def test_what_is_not_there(hub, url) -> None:
    with pytest.raises(MissingFileError, match="owner"):
        parquet_source(url)


def test_the_token_comes_from_the_environment(hub, monkeypatch) -> None:
    hub.token = "secret"
    with pytest.raises(SourceError):
        parquet_source(URL)
    HfFileSystem.clear_instance_cache()
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert parquet_source(URL, columns=["row"]).n_rows == FILES * ROWS


@pytest.mark.parametrize("seed", range(3))
def test_faults_lose_and_double_no_row(hub, monkeypatch, seed) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)
    source = parquet_source(URL, columns=["row"])
    hub.fault = flaky(seed, part=0.1)
    for num_workers in (0, 1, 4):
        np.testing.assert_array_equal(numbers(source, num_workers), np.arange(FILES * ROWS))
    assert len(hub.faults) >= 3


def test_a_server_that_never_answers_is_given_up(hub, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)
    source = parquet_source(URL, columns=["row"])
    hub.fault = lambda path: "500" if path.startswith("/cdn/") else None
    with pytest.raises(TransferError, match=r"train-0\.parquet.*connection failed") as caught:
        numbers(source)
    assert "the last of 8 tries" in str(caught.value)
