"""What the system keeps of files in memory: made warm, made cold, looked at."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from collections.abc import Iterable
from pathlib import Path


def files_of(folder: Path) -> list[Path]:
    """All files in a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def warm(files: Iterable[Path]) -> None:
    """Read every file once."""
    block = bytearray(2**22)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass


def drop(files: Iterable[Path]) -> None:
    """Have the system forget what it holds of the files.

    Pages that are not written to the disk yet would stay, and those that are mapped. A compiled
    function may hold on to a map of the batch that it was compiled with, so this process gives
    back the pages of all its maps of the files; they are read again when they are needed.
    """
    gc.collect()
    files = list(files)
    _give_back_mapped({str(path.resolve()) for path in files})
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _give_back_mapped(names: set[str]) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] in names:
            start, end = (int(place, 16) for place in fields[0].split("-"))
            address, size = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
            if library.madvise(address, size, mmap.MADV_DONTNEED):
                raise OSError(ctypes.get_errno(), "madvise failed", fields[5])


def cached_share(files: Iterable[Path]) -> float:
    """The part of the files' pages that are in memory, between 0 and 1."""
    library = ctypes.CDLL(None, use_errno=True)
    held = pages = 0
    for path in files:
        size = path.stat().st_size
        if not size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
            n_pages = -(-size // mmap.PAGESIZE)
            found = (ctypes.c_ubyte * n_pages)()
            start = ctypes.c_char.from_buffer(mapped)
            try:
                if library.mincore(
                    ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), found
                ):
                    raise OSError(ctypes.get_errno(), "mincore failed", str(path))
            finally:
                del start  # a map with a pointer into it cannot be closed
            held += sum(page & 1 for page in found)
            pages += n_pages
    return held / pages if pages else 0.0
