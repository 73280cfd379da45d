"""Opening Parquet files again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow.parquet as pq

from pymc_streaming.sources.file_facts import FileFacts
from pymc_streaming.sources.files import DataFile
from pymc_streaming.sources.reading import reading

__all__ = ["OpenFile", "OpenFiles"]

# Read column chunks in pieces of this size rather than whole: the memory for a row group
# is then one piece per column, however large the row group.
_STREAM_BYTES = 64 * 1024

# A footer can take megabytes: keep few files open.
_MAX_IDLE, _MAX_FOOTERS = 4, 8

# Whether a remote file is still the same is asked once in so many seconds.
_LOOK = 5.0

_Key = tuple[str, bool]


class OpenFile(pq.ParquetFile):
    """An open file, with what its footer says."""

    def __init__(self, facts: FileFacts, content: Any, **options: Any) -> None:
        super().__init__(content, **options)
        self.facts = facts


class OpenFiles:
    """A few Parquet files kept open, so that a footer is not parsed for every row group.

    A borrower has the file for itself until it gives it back.

    Parameters
    ----------
    text_as_dictionary : list of str, default []
        String columns to decode as dictionaries.
    coalesce : bool, default False
        Fetch a remote row group in few large requests, and hold it, rather than in
        small pieces.
    """

    def __init__(self, text_as_dictionary: Sequence[str] = (), *, coalesce: bool = False) -> None:
        self._text_as_dictionary = list(text_as_dictionary)
        self._coalesce = coalesce
        # Beside the files: one that failed on the way is opened again without its footer.
        self._facts: dict[str, FileFacts] = {}
        self._looked: dict[str, float] = {}
        self._idle: list[tuple[_Key, OpenFile]] = []

    def _open(self, file: DataFile, checksums: bool) -> OpenFile:
        coalesce = self._coalesce and not file.is_local
        content = file.filesystem.open_input_file(file.inner_path)
        facts = self._facts.get(file.path)
        if facts is None:
            try:
                facts = self._facts[file.path] = FileFacts(content, file.path)
            except Exception:
                content.close()
                raise
            if len(self._facts) > _MAX_FOOTERS:
                with suppress(KeyError):  # another thread was quicker
                    self._facts.pop(next(iter(tuple(self._facts))))
        return OpenFile(
            facts,
            content,
            metadata=facts.metadata,
            read_dictionary=self._text_as_dictionary,
            pre_buffer=coalesce,
            buffer_size=0 if coalesce else _STREAM_BYTES,
            page_checksum_verification=checksums,
            # In nanoseconds, years that stand for "never" (1, 9999) turn into others unnoticed.
            coerce_int96_timestamp_unit="us",
        )

    @contextmanager
    def borrow(
        self, file: DataFile, place: str = "", *, checksums: bool = True
    ) -> Iterator[OpenFile]:
        """An open file; what goes wrong with it is raised with the place in it.

        Parameters
        ----------
        file : DataFile
            Which one.
        place : str, default ""
            What is to be read, for messages.
        checksums : bool, default True
            Whether the checksums of its pages, if it has any, are compared.
        """
        key = (file.path, checksums)
        with reading(f"{file.path}, {place}" if place else file.path):
            opened = self._take(key)
            now = time.monotonic()
            # Where a look is a request, now and then is enough.
            if opened is None or file.is_local or now - self._looked.get(file.path, 0.0) > _LOOK:
                file.check_unchanged()
                self._looked[file.path] = now
            if opened is None:
                # From the second pass on pages are not compared. Not both footers at a time.
                self._drop((file.path, not checksums))
                opened = self._open(file, checksums)
            healthy = True
            try:
                yield opened
            except Exception:
                healthy = False
                raise
            finally:
                if healthy:
                    self._give_back(key, opened)
                else:
                    opened.close(force=True)

    # No lock: a reader that is collected as garbage gives its file back in the middle of
    # anything, and each of these list operations is atomic.

    def _take(self, key: _Key) -> OpenFile | None:
        for item in tuple(self._idle):
            if item[0] == key:
                with suppress(ValueError):  # another thread was quicker
                    self._idle.remove(item)
                    return item[1]
        return None

    def _drop(self, key: _Key) -> None:
        if (opened := self._take(key)) is not None:
            opened.close(force=True)

    def _give_back(self, key: _Key, opened: OpenFile) -> None:
        self._idle.append((key, opened))
        if len(self._idle) > _MAX_IDLE:
            with suppress(IndexError):
                self._idle.pop(0)[1].close(force=True)
