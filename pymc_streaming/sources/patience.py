"""What passes by itself is tried again: a connection that broke, a server that is busy.

What does not pass, a file that is damaged, say, is not. But on the way from afar bytes may have
been lost, so there it is believed when it is found a second time.
"""

from __future__ import annotations

import errno
import logging
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pymc_streaming.errors import CorruptFileError, SourceError, TransferError
from pymc_streaming.sources.base import Block, Rows

__all__ = ["is_passing", "is_replaced", "patiently", "reread", "wait_asked_for"]

logger = logging.getLogger("pymc_streaming")

# How often the same is tried, and for how many seconds it is waited in between: three times as long
# each time, on average.
_TRIES, _FIRST_WAIT, _LONGER, _LONGEST_WAIT = 8, 0.1, 3.0, 30.0
# No server is waited for longer, whatever it asks for.
_MOST_PATIENCE = 300.0
# How often a file from afar is found damaged until it is believed.
_BELIEVED = 2

_ERRNOS = {
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH, errno.EPIPE, errno.ETIMEDOUT,
    errno.EAGAIN, errno.EBUSY,
}  # fmt: skip
_STATUSES = {408, 425, 429, 500, 502, 503, 504}
# Libraries whose errors, but for answers of a server, are of the connection.
_OF_CONNECTIONS = {
    "aiohttp", "http", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "socket", "ssl",
    "urllib3",
}  # fmt: skip


def is_passing(error: BaseException) -> bool:
    """Whether the same may work in a moment: by the error, or what caused it."""
    chain = _chain(error)
    # A name that nobody knows will not be known in a moment.
    if any(isinstance(e, socket.gaierror) and e.errno == socket.EAI_NONAME for e in chain):
        return False
    return any(_passes(each) for each in chain)


def _chain(error: BaseException) -> list[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def is_replaced(error: BaseException) -> bool:
    """Whether a store has another file by this name than was asked for."""
    # It was asked for by its ETag, and 412 is the answer; s3fs makes of that what says it is busy.
    return any(
        type(each).__name__ == "FileExpired" or _status(each) == 412 for each in _chain(error)
    )


def _passes(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in _STATUSES
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    return type(error).__module__.partition(".")[0] in _OF_CONNECTIONS


def _status(error: BaseException) -> int | None:
    """What a server answered, as the libraries have it."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, Mapping):  # of botocore
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", getattr(error, "status", None))
    return found if isinstance(found, int) else None


def wait_asked_for(error: BaseException) -> float | None:
    """Seconds that a server asked to be left alone (Retry-After or RateLimit), if it did."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    headers = headers if headers is not None else getattr(error, "headers", None)
    try:
        seconds = float(headers["Retry-After"])
    except (TypeError, KeyError, ValueError):
        return _reset(headers)
    return seconds if seconds >= 0.0 else None


def _reset(headers: Any) -> float | None:
    """Seconds until nothing that is left of a rate becomes something (RateLimit)."""
    try:
        found = re.search(r";\s*r=0\s*;\s*t=(\d+)", headers["RateLimit"])
    except (TypeError, KeyError):
        return None
    return float(found[1]) if found else None


class _Patience:
    """How often something failed, one time after the other."""

    def __init__(self) -> None:
        self._failed = 0

    def wait_after(self, error: SourceError, tries: int) -> None:
        """Wait before another try; raise the error if there were enough."""
        self._failed += 1
        if self._failed >= tries:
            if self._failed > 1:
                error.args = (
                    f"{error} That was the last of {self._failed} tries.",
                    *error.args[1:],
                )
            raise error
        asked = error.seconds if isinstance(error, TransferError) else None
        wait = min(_FIRST_WAIT * _LONGER ** (self._failed - 1), _LONGEST_WAIT)
        wait = min(wait * random.uniform(0.5, 1.5), _LONGEST_WAIT)
        wait = min(asked, _MOST_PATIENCE) if asked is not None else wait
        logger.warning("%s Try %s of %s follows in %.1f s.", error, self._failed + 1, tries, wait)
        time.sleep(wait)

    def succeeded(self) -> None:
        """Something came: what fails from now on fails for the first time."""
        self._failed = 0


def patiently[Out](read: Callable[[], Out], *, is_local: bool = True) -> Out:
    """Call `read`, again if a connection fails.

    Parameters
    ----------
    read : callable
        What reads.
    is_local : bool, default True
        Whether nothing can have happened to the bytes on the way.

    Raises
    ------
    TransferError
        If it failed too often.
    CorruptFileError
        If the file is damaged, which from afar is believed the second time.
    """
    patience = _Patience()
    while True:
        try:
            return read()
        except TransferError as error:
            patience.wait_after(error, _TRIES)
        except CorruptFileError as error:
            patience.wait_after(error, 1 if is_local else _BELIEVED)


def reread(read: Callable[[], Iterator[Rows]], *, is_local: bool) -> Iterator[Rows]:
    """The rows of a fragment, each once, though the connection may fail on the way.

    Parameters
    ----------
    read : callable
        Reads the fragment from its beginning; gives the same rows each time, in pieces of any size.
    is_local : bool
        Whether nothing can have happened to its bytes on the way.

    Raises
    ------
    TransferError
        If it failed too often without giving any new row.
    CorruptFileError
        If the file is damaged, which from afar is believed the second time.
    """
    patience, delivered = _Patience(), 0
    while True:
        seen = 0
        try:
            for rows in read():
                known = min(delivered - seen, len(rows))
                seen += len(rows)
                if known < len(rows):
                    yield _After(rows, known) if known else rows
                    delivered = seen
                    patience.succeeded()
        except TransferError as error:
            patience.wait_after(error, _TRIES)
        except CorruptFileError as error:
            patience.wait_after(error, 1 if is_local else _BELIEVED)
        else:
            return


class _After(Rows):
    """Rows without the first few."""

    def __init__(self, rows: Rows, first: int) -> None:
        self._rows, self._first = rows, first
        self.stay = rows.stay

    def __len__(self) -> int:
        return len(self._rows) - self._first

    def write(self, start: int, out: Block) -> bool:
        """Write."""
        return self._rows.write(self._first + start, out)

    def looked_at(self, start: int, stop: int) -> None:
        """Pass it on."""
        self._rows.looked_at(self._first + start, self._first + stop)
