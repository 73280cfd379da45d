"""What passes by itself is tried again."""

from __future__ import annotations

import errno
import types
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymc_streaming.errors import CorruptFileError, MissingFileError, TransferError
from pymc_streaming.sources import InMemory, Rows, patience
from pymc_streaming.sources.patience import is_passing, patiently, reread, wait_asked_for


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    """How long was waited, instead of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", waited.append)
    return waited


class Answer(Exception):
    """What a library makes of the answer of a server."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"status {status}")
        self.response = types.SimpleNamespace(status_code=status, headers=headers or {})


class Botocore(Exception):
    def __init__(self, status: int) -> None:
        super().__init__()
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.ENETUNREACH, "unreachable"), True),
        (OSError(errno.EIO, "input/output error"), False),
        (OSError("damaged"), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (Answer(429), True),
        (Answer(503), True),
        (Answer(404), False),
        (Answer(403), False),
        (Botocore(503), True),
        (Botocore(403), False),
        (ValueError("a bug"), False),
    ],
    ids=repr,
)
def test_what_passes(error, passes) -> None:
    assert is_passing(error) is passes
    caused = RuntimeError("by some library")
    caused.__cause__ = error
    assert is_passing(caused) is passes


def test_errors_of_libraries_that_connect() -> None:
    import httpx2
    import requests

    assert is_passing(requests.exceptions.ChunkedEncodingError("incomplete"))
    assert is_passing(httpx2.RemoteProtocolError("closed"))


def test_what_a_server_asks_for() -> None:
    assert wait_asked_for(Answer(429, {"Retry-After": "7"})) == 7.0
    for headers in ({}, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {"Retry-After": "-1"}):
        assert wait_asked_for(Answer(429, headers)) is None
    assert wait_asked_for(Answer(429, {"RateLimit": '"api";r=0;t=55'})) == 55.0
    assert wait_asked_for(Answer(429, {"RateLimit": '"api";r=3;t=55'})) is None
    assert wait_asked_for(ValueError()) is None


def failing(times: int, error: Exception):
    calls = []

    def read() -> int:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return read


def test_it_is_tried_again_after_longer_and_longer_waits(waits, caplog) -> None:
    assert patiently(failing(7, TransferError("broken"))) == 8
    assert len(waits) == 7
    for i, wait in enumerate(waits):
        middle = min(0.1 * 3**i, 30.0)
        assert 0.5 * middle <= wait <= 1.5 * middle
    assert "broken Try 2 of 8 follows in" in caplog.text


def test_there_is_an_end_to_patience(waits) -> None:
    with pytest.raises(TransferError, match="broken") as caught:
        patiently(failing(8, TransferError("broken")))
    assert str(caught.value).endswith("That was the last of 8 tries.")
    assert len(waits) == 7


def test_a_server_is_left_alone_as_long_as_it_asks(waits) -> None:
    patiently(failing(1, TransferError("busy", 17.0)))
    patiently(failing(1, TransferError("busy", 1e6)))
    assert waits == [17.0, 300.0]


def test_what_does_not_pass_is_not_tried_again(waits) -> None:
    with pytest.raises(MissingFileError):
        patiently(failing(1, MissingFileError("gone")))
    assert waits == []


ROWS = np.arange(20.0)


def breaking(cuts: list[int], error: Exception, piece: int = 3):
    """Reads all rows, but breaks after so many of them the first time, and so on."""
    left = list(cuts)

    def read() -> Iterator[Rows]:
        cut = left.pop(0) if left else len(ROWS)
        for start in range(0, cut, piece):
            yield InMemory({"x": ROWS[start : min(start + piece, cut)]})
        if cut < len(ROWS):
            raise error

    return read


def delivered(pieces: Iterator[Rows]) -> list[float]:
    found: list[float] = []
    for rows in pieces:
        # In two parts, as a loader does at the end of its memory.
        middle = len(rows) // 2
        for start, stop in ((0, middle), (middle, len(rows))):
            out = {"x": np.empty(stop - start)}
            rows.write(start, out)
            found += out["x"].tolist()
    return found


@given(st.lists(st.integers(0, 19), max_size=7), st.integers(1, 20))
def test_every_row_comes_once(cuts, piece) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience.time, "sleep", lambda _: None)
        read = breaking(cuts, TransferError("broken"), piece)
        assert delivered(reread(read, is_local=False)) == ROWS.tolist()


def test_patience_begins_anew_after_new_rows() -> None:
    cuts = [rows for rows in range(1, 20) for _ in range(7)]
    read = breaking(cuts, TransferError("broken"), piece=1)
    assert delivered(reread(read, is_local=False)) == ROWS.tolist()
    with pytest.raises(TransferError):
        delivered(reread(breaking([5] * 9, TransferError("broken")), is_local=False))


def test_damage_from_afar_is_believed_the_second_time() -> None:
    once, twice = (breaking([5] * times, CorruptFileError("damaged")) for times in (1, 2))
    assert delivered(reread(once, is_local=False)) == ROWS.tolist()
    with pytest.raises(CorruptFileError):
        delivered(reread(twice, is_local=False))
    here = breaking([5], CorruptFileError("damaged"))
    with pytest.raises(CorruptFileError):
        delivered(reread(here, is_local=True))
