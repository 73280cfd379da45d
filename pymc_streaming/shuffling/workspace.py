"""The folder in which a shuffle is worked out, beside the one where its result goes.

Everything is written there, under temporary names that are then replaced; the last act moves the
finished shards to the output. So the output is absent or complete at any moment, and what an
interrupted shuffle had finished is found again by the next one that is asked the same.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from pymc_streaming.errors import (
    CorruptFileError,
    DiskSpaceError,
    MissingValueError,
    OutputError,
    OutputExistsError,
    PrecisionError,
    RowCountError,
    SchemaError,
    SourceError,
)
from pymc_streaming.sources.manifest import MANIFEST_NAME, Manifest, Shard, harm_that_shows

__all__ = ["Workspace", "check_room", "open_workspace", "shard_name"]

logger = logging.getLogger(__name__)

# What determines the result, in words, where the name alone does not tell.
_TASK_WORDS = {
    "files": "source",
    "fingerprint": "source",
    "modified": "source",
    "schema": "set of columns",
    "versions": "version of the package or of Arrow",
}
# What another run of the same would meet again.
_OF_THE_INPUT = (
    CorruptFileError,
    MissingValueError,
    PrecisionError,
    RowCountError,
    SchemaError,
)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Workspace:
    """A folder that belongs to one shuffle; made by `open_workspace`.

    Attributes
    ----------
    runs, shards : pathlib.Path
        Folders for the first pass, and for what the second one makes of it.
    adopted, continued : bool
        Whether what is here belongs to the task at hand, and whether an earlier run made some.
    """

    def __init__(self, folder: Path, output: Path, overwrite: bool) -> None:
        self.folder, self.output, self._overwrite = folder, output, overwrite
        self.runs, self.shards = folder / "runs", folder / "shards"
        self.adopted = self.continued = False

    def adopt(self, task: dict[str, Any], means: dict[str, Any], limit: int) -> dict[str, Any]:
        """Go on with what is here if it belongs to `task`, else begin with an empty folder.

        Parameters
        ----------
        task : dict
            What determines the result.
        means : dict
            How to get there, with the ``worker_bytes`` of memory that it takes at least.
        limit : int
            Bytes of memory there are.

        Returns
        -------
        dict
            The `means` to use: those of the work that is here, or the ones given.
        """
        here = self.read("plan")
        self.adopted = True
        if here is not None:
            hindrance = self._hindrance(here, task, limit)
            if hindrance is None:
                self.continued = True
                return dict(here["means"])
            logger.warning(
                "%s: an interrupted shuffle cannot go on, since %s. What it had finished is "
                "removed, and the shuffle begins anew.",
                self.output,
                hindrance,
            )
        self.clear()
        self.runs.mkdir()
        self.shards.mkdir()
        self.write("plan", {"task": task, "means": means})
        return means

    def _hindrance(self, here: dict[str, Any], task: dict[str, Any], limit: int) -> str | None:
        """Why the work that is here cannot go on, in words."""
        differs = [name for name in task if here["task"].get(name) != task[name]]
        if "schema" in differs and "files" not in differs:
            # The fingerprint covers the columns, and how many shards there are depends on them.
            differs = [name for name in differs if name not in ("fingerprint", "shards")]
        others = [_TASK_WORDS.get(name, name) for name in differs]
        if others:
            return f"these have changed: {', '.join(dict.fromkeys(others))}"
        if self._has_lost_shards():
            return "shards that it had finished were lost"
        if here["means"]["worker_bytes"] > limit:
            return f"it needs a memory_limit of {decimal(here['means']['worker_bytes'])}"
        return None

    def written(self, number: int) -> Shard | None:
        """The shard of that number, if it is finished."""
        noted = self.read(shard_name(number))
        return Shard(**noted) if noted else None

    def _has_lost_shards(self) -> bool:
        """Whether a finished shard is not what it was; what it was made of is there no more."""
        shards = [Shard(**self.read(path.stem)) for path in self.folder.glob("part-*.json")]
        return any(harm_that_shows(self.shards, shard) for shard in shards)

    def read(self, name: str) -> Any:
        """What was noted under `name`, or None."""
        try:
            return json.loads((self.folder / f"{name}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write(self, name: str, content: Any) -> None:
        """Note `content` under `name`, wholly or not at all."""
        temporary = self.folder / f"{name}.json.part"
        temporary.write_text(json.dumps(content))
        temporary.replace(self.folder / f"{name}.json")

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def clear(self) -> None:
        """Remove everything but the lock, and first what says that there is something."""
        (self.folder / "plan.json").unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def remove(self) -> None:
        """Remove everything."""
        self.clear()
        (self.folder / "lock").unlink()
        with suppress(OSError):  # from here on, another process may have its own lock in it
            self.folder.rmdir()

    def restore(self) -> None:
        """Put back what was there, if a delivery was stopped between taking it away and the end.

        Raises
        ------
        OutputExistsError
            If something else has been put there in the meantime.
        """
        former = self.folder / "former"
        if not former.exists():
            return
        if not self.output.exists() or _is_empty(self.output):
            former.rename(self.output)
        elif self.shards.exists() or not (self.output / MANIFEST_NAME).exists():
            raise OutputExistsError(
                f"{self.output}: a shuffle was stopped while it replaced this folder, and what is "
                f"here now is not from it. What was to be replaced is in {former}: move one of "
                "them away."
            )

    def deliver(self) -> None:
        """Move the shards to the output, in the place of what may be replaced there.

        Raises
        ------
        OutputExistsError
            If something else has been put there in the meantime.
        """
        _check_output(self.output, self._overwrite)
        if self.output.exists():
            self.output.rename(self.folder / "former")
        self.shards.rename(self.output)


@contextmanager
def open_workspace(output: Path, overwrite: bool) -> Iterator[Workspace]:
    """The workspace for an output, which nobody else has.

    It is left behind when an interruption or an error of the machine ends the work, and removed
    when there is an output, or when the input has an error that another run would meet again.

    Raises
    ------
    OutputExistsError
        If there is an output already, or another process is writing it.
    OutputError
        If the folder cannot be made or written to.
    DiskSpaceError
        If the disk is full.
    """
    folder = output.with_name(f".{output.name}.shuffling")
    with _disk_errors(folder), _folders_above(folder), _locked(folder, output):
        workspace = Workspace(folder, output, overwrite)
        workspace.restore()
        try:
            _check_output(output, overwrite)
        except OutputError:
            if not workspace.shards.exists():  # the end of a shuffle that was delivered
                workspace.remove()
            raise
        try:
            yield workspace
        except BaseException as error:
            hopeless = workspace.adopted and isinstance(error, _OF_THE_INPUT)
            if hopeless or workspace.read("plan") is None:  # nothing was begun
                workspace.remove()
            raise
        workspace.remove()


@contextmanager
def _folders_above(folder: Path) -> Iterator[None]:
    """Make the folders that `folder` is to be in; in the end, remove those of them left empty."""
    made = list(takewhile(lambda place: not os.access(place, os.F_OK), folder.parents))
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for place in made:
                place.rmdir()


@contextmanager
def _locked(folder: Path, output: Path) -> Iterator[None]:
    """Make `folder` and have it alone, while another process may make it, lock it or remove it."""
    with ExitStack() as stack:
        try:
            try:
                folder.mkdir(exist_ok=True)
            except FileExistsError as error:
                if folder.exists():
                    raise
                raise BlockingIOError from error
            try:
                lock = stack.enter_context((folder / "lock").open("w"))
            except FileNotFoundError as error:
                raise BlockingIOError from error
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A process that finished in between has removed the file that was locked.
            if os.fstat(lock.fileno()).st_nlink == 0:
                raise BlockingIOError
        except BlockingIOError as error:
            raise OutputExistsError(
                f"{output}: another process is shuffling into this folder right now. Wait for "
                "it, or choose another output."
            ) from error
        yield


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_mount():
        raise OutputError(
            f"{output}: a disk is mounted here, and a finished folder cannot be moved to its "
            "place. Choose a folder on that disk."
        )
    if not output.exists() and not output.is_symlink():
        return
    if _is_empty(output):
        return
    if not overwrite:
        raise OutputExistsError(
            f"{output}: there is something here already. Choose another output, or say "
            "overwrite=True (--overwrite) to replace a folder that was shuffled before."
        )
    try:
        manifest = Manifest.read(output)
    except (SourceError, OSError) as error:
        raise OutputExistsError(
            f"{output}: this is not a folder that was shuffled before, so it is not overwritten "
            f"({error}). Remove it, or choose another output."
        ) from error
    own = {MANIFEST_NAME, *(shard.file for shard in manifest.shards)}
    others = sorted(path.name for path in output.iterdir() if path.name not in own)
    if others:
        raise OutputExistsError(
            f"{output}: beside the shards there is {others[0]!r}, which overwriting would remove. "
            "Move it, or choose another output."
        )


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskSpaceError(
                f"{folder}: the disk is full ({error}). What was finished is kept there: make room "
                "and run the same again to go on, or remove that folder to give up."
            ) from error
        if isinstance(error, OutputError) or error.errno is None:
            raise
        if error.filename and Path(os.fsdecode(error.filename)).is_relative_to(folder.parent):
            raise OutputError(f"{folder}: this cannot be written: {error}") from error
        raise


def shard_name(number: int) -> str:
    """Name of a shard, without the ending."""
    return f"part-{number:05d}"


def check_room(folder: Path, needed: int) -> None:
    """Raise `DiskSpaceError` if there is less room than `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskSpaceError(
            f"{folder}: shuffling needs about {decimal(needed)} of disk here while it works, "
            f"but {decimal(free)} are free. Make room, choose an output on another disk, or "
            "select fewer columns."
        )
