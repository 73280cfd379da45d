"""Files that are written wholly or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pymc_streaming.errors import DiskSpaceError, OutputError

__all__ = ["TEMPORARY", "write_wholly"]

#: End of the names of files that are being written.
TEMPORARY = ".part"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_wholly(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file under a temporary name, and when it is on disk, put it in its place.

    Parameters
    ----------
    path : pathlib.Path
        The file; what is there is replaced.
    content : bytes or callable
        What goes into it, or what writes it to the path that it is given.

    Raises
    ------
    DiskSpaceError
        If the disk is full.
    OutputError
        If the file cannot be written. What was there before is kept.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        kind = DiskSpaceError if error.errno in _DISK_FULL else OutputError
        raise kind(f"{path}: this cannot be written: {error.strerror or error}.") from error


def _sync_folder(folder: Path) -> None:
    """Make a renaming last, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
