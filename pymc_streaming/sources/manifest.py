"""What a shuffled folder says of itself."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pymc_streaming.errors import ArgumentError, ManifestError, MissingFileError

__all__ = ["MANIFEST_NAME", "Manifest", "Shard", "find_manifest", "missing_or_resized"]

# Other readers of a folder of data files leave out names that begin with an underscore.
MANIFEST_NAME = "_manifest.json"
# Raised when a reader of this version could not make sense of it any more.
_LAYOUT = 1


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
    """

    file: str
    rows: int
    bytes: int
    sha256: str


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
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ManifestError(
                f"{path}: this is not a manifest of a shuffled table: {type(error).__name__}: "
                f"{error}. Shuffle the table again."
            ) from error

    def paths(self, folder: Any) -> list[str]:
        """Paths of the shards in a folder, in order."""
        return [str(_place(folder) / shard.file) for shard in self.shards]

    def check_sizes(self, folder: str | Path) -> None:
        """Raise `ManifestError` unless just the shards are there, each with its size."""
        place = _place(folder)
        problems = [p for shard in self.shards if (p := missing_or_resized(place, shard))]
        _refuse(folder, problems + self._strays(place))

    def verify(self, folder: str | Path) -> None:
        """Raise `ManifestError` unless just the shards are there, byte for byte as written."""
        place, problems = _place(folder), []
        for shard in self.shards:
            problem = missing_or_resized(place, shard)
            if problem is None:
                with (place / shard.file).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                        problem = f"{shard.file} was changed: its checksum is another"
            if problem:
                problems.append(problem)
        _refuse(folder, problems + self._strays(place))

    def _strays(self, place: Path) -> list[str]:
        """Files that other readers of the folder would take for a part of the table, in words."""
        own = {shard.file for shard in self.shards}
        there = sorted(path.name for path in place.glob(f"*.{self.format}"))
        return [f"{name} is not among its shards" for name in there if name not in own]


def _place(folder: str | os.PathLike[str]) -> Path:
    return Path(folder).expanduser()


def missing_or_resized(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a shard, as far as its size tells, in words."""
    try:
        size = (folder / shard.file).stat().st_size
    except FileNotFoundError:
        return f"{shard.file} is missing"
    if size == shard.bytes:
        return None
    verb = "truncated" if size < shard.bytes else "changed"
    return f"{shard.file} was {verb}: expected {shard.bytes:,} bytes, found {size:,}"


def _refuse(folder: str | Path, problems: list[str]) -> None:
    if problems:
        named = "; ".join(problems[:5])
        more = f" and {len(problems) - 5:,} more" if len(problems) > 5 else ""
        raise ManifestError(
            f"{folder}: this is not what its {MANIFEST_NAME} says: {named}{more}. "
            "Copy the folder again, or shuffle the table again."
        )


def find_manifest(path: Any, format: str) -> Manifest | None:  # noqa: A002
    """The manifest of `path`, if it is a local folder that has one, held against the files.

    Raises
    ------
    ManifestError
        If a shard is missing or has another size.
    ArgumentError
        If the shards have another format than `format`.
    """
    if not isinstance(path, str | os.PathLike):
        return None
    folder = _place(path)
    if not (folder / MANIFEST_NAME).is_file():
        return None
    manifest = Manifest.read(folder)
    if manifest.format != format:
        raise ArgumentError(
            f"{folder}: the shards are {manifest.format} files; read them with "
            f"{manifest.format}_source."
        )
    manifest.check_sizes(folder)
    return manifest
