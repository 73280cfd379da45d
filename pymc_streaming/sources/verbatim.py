"""Rows that lie in a file, byte for byte, as they are wanted in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO

import numpy as np

from pymc_streaming.sources.base import Block, Rows
from pymc_streaming.sources.checksums import Checked
from pymc_streaming.sources.reading import reading

__all__ = ["Stretch", "signature"]

# Rows are handed on so many bytes at a time: what keeps them in memory stays flat.
_BYTES = 8 * 2**20


def signature(file: FileIO) -> tuple[int, ...]:
    """What is another once a file was replaced or written to."""
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Stretch:
    """Where consecutive rows are.

    Parameters
    ----------
    path : str
        The file.
    offset : int
        Bytes of the file in front of them.
    rows : ndarray
        The rows, or anything of their shape and dtype.
    signature : tuple of int
        That of the file when it was looked at.
    checksum : str or None
        What their bytes should have, if that is known.
    where : str
        What they are, for messages.
    """

    def __init__(
        self,
        path: str,
        offset: int,
        rows: np.ndarray,
        signature: tuple[int, ...],
        checksum: str | None,
        where: str,
    ) -> None:
        self.path, self.offset, self.signature = path, offset, signature
        self._checksum, self._where = checksum, where
        self.n_rows, self.row_nbytes = len(rows), rows.nbytes // len(rows)
        self.may_hold_nan = True

    def rows(self, file: FileIO) -> Iterator[Rows]:
        """The rows of the open file, a few megabytes at a time."""
        most, clean, seen = max(1, _BYTES // self.row_nbytes), 0, 0
        checked = Checked(self._checksum, self._where)
        for first in range(0, self.n_rows, most):
            rows = _InFile(self, file, first, min(most, self.n_rows - first), checked)
            yield rows
            clean, seen = clean + rows.clean, seen + rows.seen
        if seen == self.n_rows:  # the first time that all of them were read, one after the other
            checked.check()
            self._checksum = None
        # To look at them takes half as long as to read them, so it is done once. They are the same
        # as long as the signature of the file is, but for what is written through a mapping, or
        # with the time set back. A step that meets such NaN refuses it: its gradient is not finite.
        self.may_hold_nan = clean < self.n_rows


class _InFile(Rows):
    """Read straight to where they are wanted.

    Copied from mapped memory they would take twice as long: it comes in pages of 4 KiB.
    """

    def __init__(
        self, stretch: Stretch, file: FileIO, first: int, n_rows: int, checked: Checked
    ) -> None:
        self._stretch, self._file, self._first, self._n_rows = stretch, file, first, n_rows
        self._checked = checked
        self.clean = self.seen = 0  # so many from the first one on

    def __len__(self) -> int:
        return self._n_rows

    def write(self, start: int, out: Block) -> bool:
        """Read."""
        (array,) = out.values()
        offset = self._stretch.offset + (self._first + start) * self._stretch.row_nbytes
        rest = whole = memoryview(array.reshape(-1).view(np.uint8))
        with reading(self._stretch.path):
            while rest:
                count = os.preadv(self._file.fileno(), [rest], offset)
                if not count:
                    raise EOFError("it ends before the rows that it had")
                rest, offset = rest[count:], offset + count
        if start == self.seen:
            self._checked.add(whole)
            self.seen += len(array)
        # Between two calls a consumer may do as it likes, and so may others with the file.
        return self._stretch.may_hold_nan or signature(self._file) != self._stretch.signature

    def looked_at(self, start: int, stop: int) -> None:
        """Remember that they are without NaN."""
        if start == self.clean:
            self.clean = stop
