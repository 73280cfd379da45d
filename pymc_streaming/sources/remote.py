"""Files that are not on this machine: read by ranges, and from one revision."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

__all__ = ["by_ranges", "failure_behind", "pinned", "version_of"]

# What file systems call what is another once a file has changed.
_VERSIONS = (
    "blob_id",
    "ETag",
    "etag",
    "md5Hash",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)


class _ByRanges(pafs.FSSpecHandler):
    """Fetches what is asked for, and nothing after it.

    File systems read ahead by megabytes, which is more than a column has in a row group.
    """

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Open a file of which ranges are read."""
        if _is_hub(self.fs):
            return pa.PythonFile(_Watched(_hub_file(self.fs, path)), mode="r")
        try:
            opened = self.fs.open(path, mode="rb", cache_type="none")
        except TypeError:  # a file system that has no choice of caches
            opened = self.fs.open(path, mode="rb")
        return pa.PythonFile(_Watched(opened), mode="r")


# The last failures of any file: Arrow keeps the words only of some, in an error of its own.
_failures: deque[Exception] = deque(maxlen=32)


class _Watched:
    """A file that gives what it is asked for or fails, and whose failures are remembered."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def read(self, n_bytes: int = -1) -> Any:
        try:
            start = self._opened.tell()
            content = self._opened.read(n_bytes)
            size = getattr(self._opened, "size", None)
            expected = None if size is None or n_bytes < 0 else min(n_bytes, size - start)
            if expected is not None and len(content) != expected:
                raise ConnectionError(
                    f"{expected:,} bytes were asked for, and {len(content):,} came"
                )
        except Exception as error:
            _failures.append(error)
            raise
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


def failure_behind(error: Exception) -> Exception | None:
    """What a file failed with, if an error of Arrow tells of that."""
    said = str(error)
    if "Python exception" not in said:
        return None
    for each in tuple(_failures):
        if type(each).__name__ in said and str(each) in said:
            return each
    return None


def _is_hub(filesystem: Any) -> bool:
    """Whether a file system of fsspec is that of a Hugging Face hub."""
    return bool(filesystem.protocol == "hf")


def _hub_file(filesystem: Any, path: str) -> Any:
    """A file on a hub, of which a piece is asked for once.

    The client asks up to six times by itself, after a second at least, which multiplies with the
    tries of the reader.
    """
    from huggingface_hub import HfFileSystemFile, constants, get_session, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    class HubFile(HfFileSystemFile):
        def _fetch_range(self, start: int, end: int) -> bytes:
            answer = get_session().get(
                self.url(),
                headers={
                    "range": f"bytes={start}-{end - 1}",
                    **build_hf_headers(token=self.fs.token),
                },
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
            hf_raise_for_status(answer)
            return bytes(answer.content)

    return HubFile(filesystem, path, mode="rb", cache_type="none")


def by_ranges(filesystem: Any) -> pafs.FileSystem:
    """Arrow's view of a file system of fsspec."""
    return pafs.PyFileSystem(_ByRanges(filesystem))


def pinned(filesystem: Any, root: str) -> str:
    """The same path of the revision that a repository on a hub has now.

    Raises
    ------
    FileNotFoundError
        If there is no such repository, or it has no such revision.
    """
    if not _is_hub(filesystem):
        return root
    from huggingface_hub import HfApi

    place = filesystem.resolve_path(root)
    if not hasattr(place, "repo_id"):  # a bucket, which has no revisions
        return root
    info = HfApi(filesystem.endpoint, token=filesystem.token).repo_info(
        place.repo_id, revision=place.revision, repo_type=place.repo_type
    )
    repository = f"{place.repo_type}s/{place.repo_id}@{info.sha}"
    return f"{repository}/{place.path_in_repo}" if place.path_in_repo else repository


def version_of(info: Mapping[str, Any]) -> str:
    """What is another once a file has changed, as far as a file system tells."""
    found = next((info[name] for name in _VERSIONS if info.get(name)), "")
    return f"{info.get('size')} bytes, {found}".removesuffix(", ")
