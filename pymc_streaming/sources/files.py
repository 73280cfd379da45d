"""Finding data files, local or remote, and saying what goes wrong with them."""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs as pafs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from pymc_streaming.errors import (
    ArgumentError,
    ChangedFileError,
    MissingFileError,
)
from pymc_streaming.sources.patience import (
    patiently,
)
from pymc_streaming.sources.reading import reading
from pymc_streaming.sources.remote import by_ranges, pinned, version_of

__all__ = [
    "TABLES",
    "DataFile",
    "Paths",
    "find_files",
    "find_tables",
    "named_files",
    "refuse_other_kinds",
    "would_find",
]

#: One path, or several.
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Kinds of tables by the ends of their names, in any case of letters.
TABLES = {
    "parquet": ("*.parquet",),
    "arrow": ("*.arrow", "*.feather", "*.ipc"),
    "csv": ("*.csv", "*.csv.gz"),
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that was found.

    Parameters
    ----------
    path : str
        Its path as a person would write it, a URL when it is not local.
    label : str
        The path below the folder that all files share, for messages.
    inner_path : str
        The path as its file system wants it.
    filesystem : pyarrow.fs.FileSystem
        How to open it.
    is_local : bool
        Whether reading many small pieces is cheap.
    version : str
        What is another once the file has changed, as far as its file system tells.
    """

    path: str
    label: str
    inner_path: str = field(repr=False)
    filesystem: pafs.FileSystem = field(repr=False, compare=False)
    is_local: bool = field(repr=False)
    version: str = field(default="", repr=False, compare=False)

    def check_unchanged(self) -> None:
        """Refuse a file that is another than was found.

        Raises
        ------
        ChangedFileError
            If it is.
        """
        if self.is_local:
            found = _version_here(self.inner_path)
        else:
            found = version_of(self.filesystem.handler.fs.info(self.inner_path))
        if found != self.version:
            raise ChangedFileError(
                f"{self.path}: the file was written to or replaced since it was first looked at: "
                f"it had {self.version}, and has {found}. Rows of both would be mixed; begin anew, "
                "with a new source."
            )


def _version_here(path: str) -> str:
    found = Path(path).stat()
    seconds, rest = divmod(found.st_mtime_ns, 10**9)
    when = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{found.st_size:,} bytes, {when}.{rest:09}"


def find_files(path: Paths | Sequence[DataFile], *patterns: str) -> list[DataFile]:
    """The files of one path, sorted, or of several, in the order given.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        Files, folders, globs or URLs; or files that were found already.
    *patterns : str
        The names to find in a folder; the end of a name may be in capitals all the same.

    Raises
    ------
    ArgumentError
        If a path is no path, its protocol is unknown, or a file is there twice; or if a folder
        has tables of several kinds, where `patterns` are those of a kind.
    MissingFileError
        If a path leads to no file.
    SourceError
        If the file system cannot be asked.
    """
    paths = path if isinstance(path, list | tuple) else [path]
    if not paths:
        raise ArgumentError("path is an empty list, expected at least one file.")
    found = [file for item in paths for file in _find(item, patterns)]
    # Two spellings of a path, or a link, are one file.
    real = [os.path.realpath(file.inner_path) if file.is_local else file.path for file in found]
    if len(set(real)) < len(real):
        twice = next(f.path for f, r in zip(found, real, strict=True) if real.count(r) > 1)
        raise ArgumentError(f"{twice} is listed more than once; its rows would count double.")
    common = len(_shared_folder([file.path for file in found]))
    return [replace(file, label=file.path[common:]) for file in found]


def refuse_other_kinds(files: Sequence[DataFile], kind: str) -> None:
    """Raise `ArgumentError` where a name says that a file is of another kind than is read.

    Parameters
    ----------
    files : sequence of DataFile
        What is to be read.
    kind : {"parquet", "arrow"}
        The kind that the reader reads.
    """
    for file in files:
        found = _kind_of(file) or kind
        if found != kind:
            raise ArgumentError(f"{file.path}: {_INSTEAD[found].format(path=file.path)}")


_INSTEAD = {
    "parquet": "this is a Parquet file; read it with parquet_source.",
    "arrow": "this is an Arrow or Feather file; read it with arrow_source.",
    "csv": "this is a CSV file. Turn it into Parquet first, shuffled, with `pymc-streaming shuffle "
    "{path!r} shuffled`, and read that folder.",
}


def find_tables(path: Paths) -> tuple[str, list[DataFile]]:
    """The files of a table of any kind, which is ``"parquet"``, ``"arrow"`` or ``"csv"``.

    Raises
    ------
    ArgumentError
        As for `find_files`, or if the files are of several kinds.
    MissingFileError
        If a path leads to no file.
    """
    files = find_files(path, *itertools.chain.from_iterable(TABLES.values()))
    first: dict[str, str] = {}
    for file in files:
        first.setdefault(_kind_of(file) or "parquet", file.path)
    if len(first) > 1:
        raise ArgumentError(
            f"There are tables of several kinds, {' and '.join(first.values())}. Name the files of "
            "one kind, with a glob or as a list."
        )
    return first.popitem()[0], files


def _kind_of(file: DataFile) -> str | None:
    """The kind that the end of the name tells."""
    name = file.path.lower()
    for kind, patterns in TABLES.items():
        if name.endswith(tuple(pattern[1:] for pattern in patterns)):
            return kind
    return None


def _shared_folder(names: list[str]) -> str:
    # What the first and the last in order share, all share.
    low, high = min(names), max(names)
    n = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[: low.rfind("/", 0, n) + 1]


def _find(path: Any, patterns: tuple[str, ...]) -> list[DataFile]:
    if isinstance(path, DataFile):
        return [path]
    if not isinstance(path, str | os.PathLike):
        found = (
            repr(path)
            if isinstance(path, int | float | bytes) or path is None
            else type(path).__name__
        )
        raise ArgumentError(f"path must be a path or a list of paths, found {found}.")
    text = os.fspath(path)
    try:
        # An instance of its own, since its memory of listings, and its tries, are changed.
        filesystem, root = fsspec.core.url_to_fs(text, skip_instance_cache=True)
    except (ValueError, ImportError) as error:  # an unknown protocol, or one not installed
        raise ArgumentError(f"{text}: {error}") from error
    is_local = isinstance(filesystem, LocalFileSystem)
    if hasattr(filesystem, "retries"):  # they would multiply with those of the reader
        filesystem.retries = 1

    def find() -> list[DataFile]:
        with reading(text):
            filesystem.invalidate_cache()  # listings are remembered as long as the process lives
            place = pinned(filesystem, root)
            if filesystem.isfile(place):
                inner = [place]
            elif filesystem.isdir(place):
                inner = _below(filesystem, place, patterns, is_local)
            else:
                inner = _globbed(filesystem, place, patterns, is_local)
            if is_local:
                arrow = pafs.LocalFileSystem()
                return [DataFile(n, n, n, arrow, True, _version_here(n)) for n in inner]
            return named_files(filesystem, inner)

    return patiently(find)


def named_files(filesystem: Any, names: Sequence[str]) -> list[DataFile]:
    """Files of a file system of fsspec that is not on this machine."""
    arrow = by_ranges(filesystem)
    return [
        DataFile(url, url, name, arrow, False, version_of(filesystem.info(name)))
        for name in names
        for url in [filesystem.unstrip_protocol(name)]
    ]


def _below(filesystem: Any, root: str, patterns: tuple[str, ...], is_local: bool) -> list[str]:
    # Without on_error a local folder that may not be listed is left out in silence.
    options = {"on_error": "raise"} if is_local else {}
    prefix = root.rstrip("/") + "/"
    visible = []
    for name in filesystem.find(root, **options):
        parts = name.removeprefix(prefix).split("/")
        if not any(part.startswith((".", "_")) for part in parts):
            visible.append(name)
    found = sorted(name for name in visible if _matches(name, patterns))
    wanted = " or ".join(map(repr, patterns))
    shown = root if is_local else filesystem.unstrip_protocol(root)
    if not found:
        raise MissingFileError(
            f"{shown}: no file matches {wanted} in this folder or below it (files and folders "
            "whose names begin with '.' or '_' are ignored). Check the path, or name the files "
            "with a glob."
        )
    tables = tuple(itertools.chain.from_iterable(TABLES.values()))
    if set(patterns) <= set(tables):  # not a choice among the files
        others = sorted(name for name in set(visible) - set(found) if _matches(name, tables))
        if others:
            raise ArgumentError(
                f"{shown}: there are tables of several kinds, {found[0]} and {others[0]}. Name the "
                "files to read with a glob, such as "
                f"{os.path.join(shown, '**', patterns[0])!r}."  # noqa: PTH118 - may be a URL
            )
    return found


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    name = name.rpartition("/")[2]
    stem, dot, ends = name.partition(".")
    either = (name, f"{stem}{dot}{ends.lower()}")
    return any(fnmatch.fnmatchcase(n, pattern) for n in either for pattern in patterns)


def _globbed(filesystem: Any, root: str, patterns: tuple[str, ...], is_local: bool) -> list[str]:
    shown = root if is_local else filesystem.unstrip_protocol(root)
    if not any(letter in root for letter in "*?["):
        info = filesystem.info(root)  # raises what isfile and isdir keep to themselves
        if info["type"] == "file":  # and what they were kept by may have passed
            return [root]
        raise MissingFileError(f"{shown}: this is neither a file nor a folder.")
    parts = root.split("/")
    first = next(i for i, part in enumerate(parts) if any(letter in part for letter in "*?["))
    asked_hidden = any(part.startswith((".", "_")) for part in parts[first:])
    found: list[str] = []
    for name in sorted(filesystem.glob(root)):
        below = name.split("/")[first:]
        if not asked_hidden and any(part.startswith((".", "_")) for part in below):
            continue
        if not filesystem.isdir(name):
            found.append(name)
        elif "**" not in root:  # which matches the files below by itself
            found.extend(_below(filesystem, name, patterns, is_local))
    if not found:
        raise MissingFileError(f"{shown}: no file matches this glob.")
    return sorted(found)


def would_find(path: Paths, file: Path) -> bool:
    """Whether a local file, if it were there, would be among those that a path leads to.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        As for `find_files`; what is at it must be there.
    file : pathlib.Path
        Its real path, links resolved.
    """
    items: Any = path if isinstance(path, list | tuple) else [path]
    for item in items:
        filesystem, root = fsspec.core.url_to_fs(os.fspath(item))
        if not isinstance(filesystem, LocalFileSystem):
            continue
        root = os.path.realpath(root)
        if filesystem.isdir(root):
            top = Path(root)
        else:  # a glob: where it begins
            parts = Path(root).parts
            fixed = itertools.takewhile(lambda part: not any(c in part for c in "*?["), parts)
            top = Path(*fixed)
            matches = re.compile(glob_translate(root)).fullmatch
            if not any(matches(str(place)) for place in (file, *file.parents)):
                continue
        if file.is_relative_to(top) and not any(
            part.startswith((".", "_")) for part in file.relative_to(top).parts
        ):
            return True
    return False
