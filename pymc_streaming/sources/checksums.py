"""A checksum beside each record batch of an Arrow file, which the format has not."""

from __future__ import annotations

import zlib
from typing import Any

import pyarrow as pa

from pymc_streaming.errors import CorruptFileError

__all__ = ["Checked", "checksum_of", "expected_checksum", "with_checksum"]

# In the metadata of a record batch: CRC-32 of its body, that is of all bytes of its columns.
_KEY = b"pymc_streaming.crc32"
# Bodies are filled up with zeros.
_ALIGNED = 8


def with_checksum(batch: pa.RecordBatch) -> dict[bytes, bytes]:
    """What is to be written beside a record batch."""
    body = pa.ipc.read_message(batch.serialize()).body
    return {_KEY: str(checksum_of(body)).encode()}


def checksum_of(body: Any) -> int:
    """CRC-32 of bytes."""
    return zlib.crc32(body)


def expected_checksum(metadata: Any) -> int | None:
    """What was written beside a record batch; None if nothing was."""
    found = metadata.get(_KEY) if metadata is not None else None
    return int(found) if found is not None and found.isdigit() else None


class Checked:
    """Checksum of bytes as they come.

    Parameters
    ----------
    expected : int or None
        What it should be in the end.
    where : str
        What it is of, for the message.
    """

    def __init__(self, expected: int | None, where: str) -> None:
        self._expected, self._where = expected, where
        self._found = self._size = 0

    def add(self, content: Any) -> None:
        """Take the next bytes."""
        if self._expected is not None:
            self._found = zlib.crc32(content, self._found)
            self._size += memoryview(content).nbytes

    def check(self) -> None:
        """Raise `CorruptFileError` if they are others than were written."""
        filled = zlib.crc32(bytes(-self._size % _ALIGNED), self._found)
        if self._expected not in (None, filled):
            raise CorruptFileError(
                f"{self._where}: this was changed since it was written: its checksum is another. "
                "Copy the file again, or shuffle the table again."
            )
