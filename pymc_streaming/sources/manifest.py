"""What a shuffled folder says of itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from pymc_streaming.errors import ArgumentError, ManifestError, MissingFileError
from pymc_streaming.sources.files import TABLES, find_files

__all__ = [
    "MANIFEST_NAME",
    "Manifest",
    "Shard",
    "find_manifest",
    "harm_that_shows",
    "local_folder",
    "sample_digest",
]

# Other readers of a folder of data files leave out names that begin with an underscore.
MANIFEST_NAME = "_manifest.json"
# Raised when a reader of this version could not make sense of it any more.
_LAYOUT = 2

# A file is sampled at its end, where Parquet keeps the statistics of every column, and in blocks
# spread evenly from its beginning on: a file that was sorted or replaced differs in all of them.
_SAMPLED_TAIL, _SAMPLED_BLOCK, _SAMPLED_BLOCKS = 2**16, 2**12, 16

# Tables of all kinds: a reader of one kind refuses a folder that has others as well.
_PATTERNS = tuple(chain.from_iterable(TABLES.values()))

_NOT_A_MANIFEST = (
    AttributeError,
    IsADirectoryError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a shuffled table.

    Parameters
    ----------
    file : str
        Its name in the folder.
    rows : int
        Rows in it.
    bytes : int
        Its size.
    sha256 : str
        Its checksum.
    sample : str
        Checksum of its end and of a few blocks of it.
    """

    file: str
    rows: int
    bytes: int
    sha256: str
    sample: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was written, from what, with counts and checksums.

    Attributes
    ----------
    format : {"parquet", "arrow"}
        Format of the shards.
    seed : int
        Seed of the shuffle.
    n_rows : int
        Rows of the table.
    columns : dict of str to str
        Arrow type of every column, by name.
    rows_per_fragment : int
        Rows of a row group or record batch.
    source : list of str
        The files that were shuffled.
    source_rows : int
        Rows they had.
    source_fingerprint : str
        Hash of their names, sizes, beginnings and ends.
    shards : tuple of Shard
        The files of the table, in order.
    version : str
        Version of the package that wrote it.
    """

    format: str
    seed: int
    n_rows: int
    columns: dict[str, str]
    rows_per_fragment: int
    source: list[str]
    source_rows: int
    source_fingerprint: str
    shards: tuple[Shard, ...]
    version: str

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        text = json.dumps({"layout": _LAYOUT, **asdict(self)}, indent=1)
        (folder / MANIFEST_NAME).write_text(text + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read the manifest of a folder.

        Raises
        ------
        MissingFileError
            If the folder has none.
        ManifestError
            If it is no manifest.
        """
        path = _place(folder) / MANIFEST_NAME
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            layout = content.pop("layout")
            if layout != _LAYOUT:
                raise ManifestError(
                    f"{path}: layout {layout!r} is not known to this version of the package, which "
                    f"reads {_LAYOUT}. Shuffle the table again, or use a newer version."
                )
            shards = tuple(Shard(**shard) for shard in content.pop("shards"))
            manifest = cls(shards=shards, **content)
            _check(manifest)
            for shard in shards:
                _check(shard)
            counted = sum(shard.rows for shard in shards)
            if counted != manifest.n_rows:
                raise ManifestError(
                    f"{path}: the shards have {counted:,} rows together, but n_rows is "
                    f"{manifest.n_rows:,}. Copy the folder again, or shuffle the table again."
                )
            return manifest
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFileError(
                f"{folder}: there is no {MANIFEST_NAME} here, so this is not a folder that was "
                "shuffled (or not all of it was copied)."
            ) from error
        except _NOT_A_MANIFEST as error:
            raise ManifestError(
                f"{path}: this is not a manifest of a shuffled table: {type(error).__name__}: "
                f"{error}. Shuffle the table again."
            ) from error

    def paths(self, folder: Any) -> list[str]:
        """Paths of the shards in a local folder, given as for `find_manifest`, in order."""
        return [str(_place(folder) / shard.file) for shard in self.shards]

    def spot_check(self, folder: str | Path) -> None:
        """Raise `ManifestError` unless just the shards are there, as far as samples of them tell.

        It takes the same fraction of a millisecond for a shard of any size, and sees a shard that
        is another, was sorted or was cut, but not every change of a few bytes: `verify` does.
        """
        self._refuse(folder, self._harm(_place(folder), whole=False))

    def verify(self, folder: str | Path) -> None:
        """Raise `ManifestError` unless just the shards are there, byte for byte as written."""
        self._refuse(folder, self.harm(folder))

    def harm(self, folder: Any) -> Iterator[tuple[Shard, str | None]]:
        """What is wrong with each shard, in words, by all of its bytes; None if nothing is.

        Parameters
        ----------
        folder : str, os.PathLike, or a list of one
            As for `find_manifest`.
        """
        return self._harm(_place(folder), whole=True)

    def check_complete(self, folder: Any) -> None:
        """Raise `ManifestError` if a shard is missing, or there is a file that is none."""
        place = _place(folder)
        missing = (
            (shard, None if (place / shard.file).exists() else _missing(shard))
            for shard in self.shards
        )
        self._refuse(folder, missing)

    def _harm(self, place: Path, *, whole: bool) -> Iterator[tuple[Shard, str | None]]:
        for shard in self.shards:
            harm = harm_that_shows(place, shard)
            if harm is None and whole:
                with (place / shard.file).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                        harm = _changed(shard)
            yield shard, harm

    def _refuse(self, folder: Any, found: Iterable[tuple[Shard, str | None]]) -> None:
        problems = [harm for _, harm in found if harm] + self._strays(_place(folder))
        if problems:
            named = "; ".join(problems[:5])
            more = f" and {len(problems) - 5:,} more" if len(problems) > 5 else ""
            raise ManifestError(
                f"{_place(folder)}: this is not what its {MANIFEST_NAME} says: {named}{more}. "
                "Copy the folder again, or shuffle the table again."
            )

    def _strays(self, place: Path) -> list[str]:
        """Files that other readers of the folder would take for a part of the table, in words."""
        own = set(self.paths(place))
        try:
            there = [file.path for file in find_files(place, *_PATTERNS)]
        except MissingFileError:
            return []
        except ArgumentError as error:  # a link to a shard
            return [str(error).rstrip(".")]
        strays = [Path(path).relative_to(place) for path in there if path not in own]
        return [f"{name} is not among its shards" for name in strays]


def _check(item: Manifest | Shard) -> None:
    """Raise `TypeError` or `ValueError` unless the fields are what they are declared to be."""
    for name, kind in get_type_hints(type(item)).items():
        value = getattr(item, name)
        if type(value) is not (get_origin(kind) or kind):  # nor a bool for an int
            raise TypeError(f"{name}: expected {kind}, found {value!r}")
    if isinstance(item, Shard) and not re.fullmatch(r"\w[\w.-]*", item.file, re.ASCII):
        raise ValueError(f"file: expected the name of a file, found {item.file!r}")
    if isinstance(item, Manifest) and item.format not in ("parquet", "arrow"):
        raise ValueError(f"format: expected 'parquet' or 'arrow', found {item.format!r}")


def local_folder(path: Any) -> Path | None:
    """The folder on this machine that a path, or a list of one path, names; None if none can be.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        As for :func:`~pymc_streaming.parquet_source`.
    """
    if isinstance(path, list | tuple) and len(path) == 1:
        path = path[0]
    if not isinstance(path, str | os.PathLike):
        return None
    text = os.fspath(path)
    protocol, _ = split_protocol(text)
    if protocol not in (None, "file", "local"):
        return None
    return Path(LocalFileSystem._strip_protocol(text))


def _place(folder: Any) -> Path:
    place = local_folder(folder)
    if place is None:
        raise ArgumentError(f"folder must be a folder on this machine, found {folder!r}.")
    return place


def sample_digest(path: Path) -> str:
    """Checksum of the end of a file and of a few blocks of it, at a cost that no size changes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        tail = max(0, file.seek(0, os.SEEK_END) - _SAMPLED_TAIL)
        for number in range(_SAMPLED_BLOCKS):
            start = tail * number // _SAMPLED_BLOCKS
            file.seek(start)
            digest.update(file.read(min(_SAMPLED_BLOCK, tail - start)))
        file.seek(tail)
        digest.update(file.read(_SAMPLED_TAIL))
    return digest.hexdigest()


def harm_that_shows(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a shard, as far as its size and a sample tell, in words."""
    path = folder / shard.file
    try:
        size = path.stat().st_size
        if size == shard.bytes:
            return None if sample_digest(path) == shard.sample else _changed(shard)
    except FileNotFoundError:
        return _missing(shard)
    verb = "truncated" if size < shard.bytes else "changed"
    return f"{shard.file} was {verb}: expected {shard.bytes:,} bytes, found {size:,}"


def _missing(shard: Shard) -> str:
    return f"{shard.file} is missing"


def _changed(shard: Shard) -> str:
    return f"{shard.file} was changed: its checksum is another"


def find_manifest(
    path: Any,
    format: str | None = None,  # noqa: A002
    *,
    harmed_may_stay: bool = False,
) -> Manifest | None:
    """The manifest of `path`, if it is a local folder that has one, held against the files.

    A folder behind a network has none in this sense: whether its shards are still what was
    written is not found out without reading from each, so its order is looked at like any other.

    Parameters
    ----------
    path : str, os.PathLike, or a list of them
        As for :func:`~pymc_streaming.parquet_source`; a folder, or a list of one folder.
    format : {"parquet", "arrow"}, optional
        Format that the shards must have. Default: either.
    harmed_may_stay : bool, default False
        Whether shards must only be there.

    Raises
    ------
    ManifestError
        If a shard is missing, has another size, or is another file by a sample of its bytes.
    ArgumentError
        If the shards have another format than `format`.
    """
    folder = local_folder(path)
    if folder is None or not (folder / MANIFEST_NAME).is_file():
        return None
    manifest = Manifest.read(folder)
    if format not in (None, manifest.format):
        raise ArgumentError(
            f"{folder}: the shards are {manifest.format} files; read them with "
            f"{manifest.format}_source."
        )
    if harmed_may_stay:
        manifest.check_complete(folder)
    else:
        manifest.spot_check(folder)
    return manifest
