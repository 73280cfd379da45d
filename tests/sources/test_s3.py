"""Tables in a bucket of S3, through its real client and a server on this machine."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import re
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pymc_streaming import DataLoader, arrow_source, parquet_source
from pymc_streaming.errors import (
    ChangedFileError,
    MissingFileError,
    SourceError,
    TransferError,
)
from pymc_streaming.sources import parquet, patience

# All of them come with the extra `test`; the first is what moto's server needs.
pytest.importorskip("flask_cors")
S3FileSystem = pytest.importorskip("s3fs").S3FileSystem
boto3 = pytest.importorskip("boto3")
moto_core, moto_server = pytest.importorskip("moto.core"), pytest.importorskip("moto.server")
werkzeug_serving = pytest.importorskip("werkzeug.serving")
werkzeug_test = pytest.importorskip("werkzeug.test")

ROWS, FILES, COLUMNS = 6_000, 3, 20
URL = "s3://bucket/clicks"
#: What may happen to an answer: None, or one of the words that `Store` knows.
Fault = Callable[[str], str | None]
SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""


@dataclass
class Store:
    """What a server is asked for, what it sends, and how its answers fail.

    "503" is said by a server that is busy; for "drop" the connection breaks, and for "truncate" it
    does so in the middle of an answer; "slow" takes a moment, "hang" never comes, "stall" stops
    coming in the middle; "short" is half an answer that says it is whole.
    """

    application: Callable[..., Iterable[bytes]]
    endpoint: str = ""
    writer: Any = None
    fault: Fault = lambda _: None
    requests: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: threading.Event = field(default_factory=threading.Event)

    def client(self, service: str) -> Any:
        """A client to write with; the one that reads would remember what it wrote."""
        key = {"aws_access_key_id": "owner", "aws_secret_access_key": "secret"}
        place = {"endpoint_url": self.endpoint, "region_name": "us-east-1"}
        return closing(boto3.client(service, **key, **place))

    def put(self, key: str, content: bytes) -> None:
        self.writer.put_object(Bucket="bucket", Key=key, Body=content)

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        kind = self.fault(request)
        with self.lock:
            self.requests.append(request)
            if kind:
                self.faults[kind] += 1
        if kind == "drop":
            _hang_up(environ)
        if kind == "503":
            start_response("503 Slow Down", [("Content-Length", str(len(SLOW_DOWN)))])
            return [SLOW_DOWN]
        if kind == "slow":
            self.closed.wait(0.05)
        if kind == "hang":
            self.closed.wait()
        pieces, status, headers = werkzeug_test.run_wsgi_app(
            self.application, environ, buffered=True
        )
        body = b"".join(pieces)
        if kind == "short":
            body = body[: len(body) // 2]
            headers["Content-Length"] = str(len(body))
        # The server sends one of its own, and a client that is strict refuses two.
        headers.pop("Server", None)
        start_response(status, list(headers))
        if kind in ("truncate", "stall"):
            return self._half(body, environ, kind)
        with self.lock:
            self.sent += len(body)
        return [body]

    def _half(self, body: bytes, environ: dict[str, Any], kind: str) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        if kind == "stall":
            self.closed.wait()
        _hang_up(environ)


def _hang_up(environ: dict[str, Any]) -> None:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError  # as if the client had left


class _Quiet(moto_server.MotoRequestHandler):
    def log(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    buckets = moto_server.DomainDispatcherApplication(moto_server.create_backend_app)
    store = Store(buckets)
    serving = werkzeug_serving.make_server(
        "127.0.0.1", 0, store, threaded=True, request_handler=_Quiet
    )
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    store.endpoint = f"http://127.0.0.1:{serving.server_port}"
    with store.client("s3") as store.writer:
        yield store
    store.closed.set()
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.fixture
def store(server, monkeypatch, tmp_path) -> Iterator[Store]:
    """A bucket with a folder of files, of which the environment says where it is."""
    for name, value in {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        # What this machine or its user has set up does not count.
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    server.writer.create_bucket(Bucket="bucket")
    for number in range(FILES):
        server.put(f"clicks/train-{number}.parquet", parquet_file(number * ROWS))
        server.put(f"packed/train-{number}.arrow", arrow_file(number * ROWS))
    S3FileSystem.clear_instance_cache()
    yield server
    server.fault = lambda _: None
    server.faults.clear()
    S3FileSystem.clear_instance_cache()
    urllib.request.urlopen(f"{server.endpoint}/moto-api/reset", data=b"").close()


@pytest.fixture
def hasty(monkeypatch) -> None:
    """Nobody waits before another try."""
    at_once = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _: at_once(0))  # the client's way to wait
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)


@pytest.fixture
def client_tries_once(monkeypatch) -> None:
    """The client, which tries up to 125 times by itself, leaves that to the package."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)


def table(offset: int) -> pa.Table:
    noise = np.random.default_rng(offset).normal(size=(COLUMNS, ROWS))
    wide = {f"c{i:02}": column for i, column in enumerate(noise)}
    return pa.table(wide | {"row": np.arange(ROWS) + offset})


@cache
def parquet_file(offset: int) -> bytes:
    out, content = io.BytesIO(), table(offset)
    options = {"compression": "none", "use_dictionary": False}
    pq.write_table(content, out, row_group_size=3_000, **options)
    return out.getvalue()


@cache
def arrow_file(offset: int) -> bytes:
    out, content = io.BytesIO(), table(offset)
    with pa.ipc.new_file(out, content.schema) as writer:
        writer.write_table(content, max_chunksize=3_000)
    return out.getvalue()


def numbers(source, num_workers: int = 1) -> np.ndarray:
    loader = DataLoader(source, 256, num_workers=num_workers)
    return np.concatenate([batch["batch"][:, 0] for batch in loader])


READERS = [
    pytest.param(parquet_source, "clicks/train-1.parquet", parquet_file, id="parquet"),
    pytest.param(arrow_source, "packed/train-1.arrow", arrow_file, id="arrow"),
]
FOLDERS = [
    pytest.param(parquet_source, URL, id="parquet"),
    pytest.param(arrow_source, "s3://bucket/packed/", id="arrow"),
]


@pytest.mark.parametrize(("read", "url"), FOLDERS)
def test_every_row_once_in_every_pass(store, read, url) -> None:
    source = read(url, columns=["row"])
    for num_workers in (0, 1, 4):
        loader = DataLoader(source, 256, num_workers=num_workers)
        for _ in range(2):
            found = np.concatenate([batch["batch"][:, 0] for batch in loader])
            np.testing.assert_array_equal(found, np.arange(FILES * ROWS))


def test_several_passes_at_a_time(store) -> None:
    source = parquet_source(URL, columns=["row"])
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(numbers(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for each in found:
        np.testing.assert_array_equal(each, np.arange(FILES * ROWS))


def test_files_are_in_the_order_of_their_names_or_of_the_list(store) -> None:
    store.put("clicks/train-10.parquet", parquet_file(3 * ROWS))
    store.put("clicks/_temporary/x.parquet", b"")
    store.put("clicks/more/", b"")  # what consoles put where they show a folder
    source = parquet_source(f"{URL}/", columns=["row"])
    order = [f"{URL}/train-{name}.parquet" for name in ("0", "1", "10", "2")]
    assert [file.path for file in source.files] == order
    assert source.fragments[0].origin == "train-0.parquet, row group 0"
    source = parquet_source(order[::-1], columns=["row"])
    assert [file.path for file in source.files] == order[::-1]
    assert numbers(source)[0] == 2 * ROWS


@pytest.mark.parametrize(
    ("url", "first", "n_files"),
    [
        (f"{URL}/train-1.parquet", ROWS, 1),
        (f"{URL}/train-[12].parquet", ROWS, 2),
        ("s3://bucket/**/*.parquet", 0, 3),
        ("s3://bucket/click*", 0, 3),
        ("s3://bucket/clicks/*.parquet", 0, 3),
    ],
)
def test_globs_and_single_files(store, url, first, n_files) -> None:
    rows = numbers(parquet_source(url, columns=["row"]))
    np.testing.assert_array_equal(rows, first + np.arange(n_files * ROWS))


def test_a_whole_bucket(store) -> None:
    source = parquet_source("s3://bucket", columns=["row"], pattern="train*.parquet")
    assert source.n_rows == FILES * ROWS


@pytest.mark.parametrize(("read", "url"), FOLDERS)
def test_no_more_bytes_than_the_columns_take(store, read, url) -> None:
    columns, footers = 2 * 8 * FILES * ROWS, FILES * 64 * 1024  # which Arrow guesses is enough
    store.sent = 0
    source = read(url, columns=["row", "c03"])
    # The first footer is read twice; and record batches are looked at.
    assert store.sent < 1.1 * columns + footers * (FILES + 1) / FILES
    store.sent = 0
    numbers(source)
    assert columns < store.sent < 1.1 * columns + footers


@pytest.mark.parametrize(
    "url",
    [
        "s3://nowhere/clicks",
        "s3://nowhere",
        "s3://bucket/none",
        f"{URL}/none.parquet",
        f"{URL}/*.none",
    ],
)
def test_what_is_not_there(store, url) -> None:
    with pytest.raises(MissingFileError, match=f"^{re.escape(url)}"):
        parquet_source(url)


def test_a_folder_without_such_files(store) -> None:
    with pytest.raises(MissingFileError, match=f"^{URL}: no file matches"):
        parquet_source(URL, pattern="*.none")


@pytest.mark.parametrize("url", [URL, f"{URL}/*.parquet", f"{URL}/train-0.parquet"])
def test_a_key_that_the_store_does_not_know(store, url) -> None:
    expected = rf"{re.escape(url)}: the file may not be read: .* does not exist in our records"
    with moto_core.enable_iam_authentication(), pytest.raises(SourceError, match=expected):
        parquet_source(url)


def test_a_key_that_may_not_read(store, monkeypatch) -> None:
    with store.client("iam") as iam:
        iam.create_user(UserName="visitor")
        key = iam.create_access_key(UserName="visitor")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    with (
        moto_core.enable_iam_authentication(),
        pytest.raises(SourceError, match=f"{URL}.*may not be read"),
    ):
        parquet_source(URL)


def test_no_key(store, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceError, match=f"{URL}.*credentials"):
        parquet_source(URL)


@pytest.mark.parametrize("where", ["file", "folder"])
@pytest.mark.parametrize(("read", "key", "content"), READERS)
def test_a_file_that_is_replaced_before_the_first_pass(
    store, hasty, read, key, content, where
) -> None:
    path = f"s3://bucket/{key}"
    source = read(path if where == "file" else path.rpartition("/")[0], columns=["row"])
    store.put(key, content(100_000))
    with pytest.raises(ChangedFileError, match=path):
        numbers(source)
    assert read(path, columns=["row"]).n_rows == ROWS


@pytest.mark.parametrize("where", ["file", "folder"])
@pytest.mark.parametrize(("read", "key", "content"), READERS)
def test_a_file_that_is_replaced_between_passes(store, hasty, read, key, content, where) -> None:
    path = f"s3://bucket/{key}"
    source = read(path if where == "file" else path.rpartition("/")[0], columns=["row"])
    numbers(source)
    store.put(key, content(100_000))
    with pytest.raises(ChangedFileError, match=path):
        numbers(source)


def test_a_file_that_is_deleted(store) -> None:
    source = parquet_source(URL, columns=["row"])
    store.writer.delete_object(Bucket="bucket", Key="clicks/train-1.parquet")
    with pytest.raises(MissingFileError, match=f"{URL}/train-1.parquet"):
        numbers(source)


def test_the_same_file_again_is_no_other(store) -> None:
    source = parquet_source(URL, columns=["row"])
    store.put("clicks/train-1.parquet", parquet_file(ROWS))
    np.testing.assert_array_equal(numbers(source), np.arange(FILES * ROWS))


def flaky(seed: int, part: float) -> Fault:
    """Such a part of the answers fails, in one way or another."""
    chance, lock = random.Random(seed), threading.Lock()
    kinds = itertools.cycle(["503", "drop", "truncate", "slow"])

    def fault(_: str) -> str | None:
        with lock:
            return next(kinds) if chance.random() < part else None

    return fault


@pytest.mark.parametrize("seed", range(1, 4))
def test_faults_lose_and_double_no_row(store, hasty, client_tries_once, seed) -> None:
    store.fault = flaky(seed, 0.25)
    source = parquet_source(URL, columns=["row"])
    for num_workers in (0, 1, 4):
        np.testing.assert_array_equal(numbers(source, num_workers), np.arange(FILES * ROWS))
    assert len(store.faults) == 4


def test_faults_while_the_client_tries_again_as_well(store, hasty) -> None:
    store.fault = flaky(0, 0.33)
    source = parquet_source(URL, columns=["row"])
    np.testing.assert_array_equal(numbers(source, 4), np.arange(FILES * ROWS))
    rows = numbers(arrow_source("s3://bucket/packed", columns=["row"]))
    np.testing.assert_array_equal(rows, np.arange(FILES * ROWS))


def test_faults_in_the_middle_of_a_row_group(store, hasty, client_tries_once, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "_COALESCED_BYTES", 0)  # row groups come in pieces
    n_rows, out = 300_000, io.BytesIO()
    pq.write_table(pa.table({"row": np.arange(n_rows)}), out, use_dictionary=False)
    store.put("long/train.parquet", out.getvalue())
    source = parquet_source("s3://bucket/long", columns=["row"])
    assert len(source.fragments) == 1
    store.requests.clear()
    kinds = {3: "drop", 12: "truncate", 25: "503"}
    store.fault = lambda _: kinds.get(len(store.requests))
    np.testing.assert_array_equal(numbers(source), np.arange(n_rows))
    assert len(store.faults) == 3


@pytest.mark.parametrize("kind", ["503", "drop", "truncate", "hang", "stall"])
def test_a_store_that_never_answers_is_given_up(
    store, hasty, client_tries_once, monkeypatch, kind
) -> None:
    monkeypatch.setattr(S3FileSystem, "read_timeout", 0.1)
    source = parquet_source(URL, columns=["row"])
    store.fault = lambda request: kind if "GET /bucket/clicks/" in request else None
    store.requests.clear()
    with pytest.raises(TransferError, match=rf"{URL}/train-0\.parquet.*failed") as caught:
        numbers(source)
    assert "the last of 8 tries" in str(caught.value)
    assert 8 <= len(store.requests) <= 16  # aiohttp connects once more by itself


def test_each_try_has_those_of_the_client_in_it(store, hasty) -> None:
    store.fault = lambda _: "503"
    with pytest.raises(TransferError, match=f"{URL}: the connection failed") as caught:
        parquet_source(URL)
    assert "the last of 8 tries" in str(caught.value)


@pytest.mark.parametrize("kind", ["503", "drop", "hang"])
def test_a_file_is_found_once_the_store_answers(
    store, hasty, client_tries_once, monkeypatch, kind
) -> None:
    monkeypatch.setattr(S3FileSystem, "read_timeout", 0.1)
    store.fault = lambda _: kind if sum(store.faults.values()) < 3 else None
    path = f"{URL}/train-1.parquet"
    assert parquet_source(path, columns=["row"]).n_rows == ROWS


def test_an_answer_that_is_too_short_is_asked_for_again(store, hasty) -> None:
    source = parquet_source(URL, columns=["row"])
    part = "GET /bucket/clicks/train-1.parquet"
    store.fault = lambda request: "short" if request == part and not store.faults else None
    np.testing.assert_array_equal(numbers(source), np.arange(FILES * ROWS))
    store.fault = lambda request: "short" if request == part else None
    with pytest.raises(TransferError, match=r"train-1\.parquet.*last of 8 tries"):
        numbers(source)
