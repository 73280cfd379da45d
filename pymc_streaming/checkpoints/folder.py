"""The last few states of something that runs, in a folder."""

from __future__ import annotations

import fcntl
import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from pymc_streaming.checkpoints.state import State
from pymc_streaming.checkpoints.state_file import read_state, write_state
from pymc_streaming.errors import (
    CorruptCheckpointError,
    MissingCheckpointError,
    OutputError,
    OutputExistsError,
)
from pymc_streaming.writing import TEMPORARY

__all__ = ["CheckpointFolder"]

logger = logging.getLogger("pymc_streaming")

_NAME = re.compile(r"checkpoint-(\d{8,})\.safetensors")


class CheckpointFolder:
    """Numbered checkpoints, of which the newest are kept.

    Parameters
    ----------
    path : pathlib.Path
        The folder; it is made when it is opened.
    keep : int
        How many.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path, self._keep = path, keep
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Have the folder for oneself.

        Raises
        ------
        OutputError
            If it cannot be made or written to.
        OutputExistsError
            If another process has it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("wb")
        except OSError as error:
            raise OutputError(f"{self.path}: checkpoints cannot be kept here: {error}.") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise OutputExistsError(
                f"{self.path}: another fit is keeping its checkpoints here. Wait for it to end, "
                "or give another checkpoint_dir."
            ) from error
        for unfinished in self.path.glob(f"checkpoint-*{TEMPORARY}"):
            with suppress(OSError):
                unfinished.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()  # which unlocks it

    def refuse_what_is_there(self) -> None:
        """Raise `OutputExistsError` if there are checkpoints: new ones would push them out."""
        if self._files():
            raise OutputExistsError(
                f"{self.path}: there are checkpoints of another fit here, which those of this one "
                'would replace. resume="auto" goes on from them; to begin anew, give another '
                "checkpoint_dir, or delete them."
            )

    def save(self, state: State) -> Path:
        """Write a state as the newest, and remove what is older than the last few."""
        files = self._files()
        path = self.path / f"checkpoint-{max(files, default=0) + 1:08d}.safetensors"
        write_state(path, state)
        for number in sorted(files)[: len(files) + 1 - self._keep]:
            with suppress(OSError):
                files[number].unlink()
        return path

    def newest(self) -> tuple[Path, State] | None:
        """The newest state that is whole; None if there is no checkpoint.

        Raises
        ------
        CorruptCheckpointError
            If none of several is whole.
        """
        files = self._files()
        damaged: list[CorruptCheckpointError] = []
        for number in sorted(files, reverse=True):
            try:
                state = read_state(files[number])
            except CorruptCheckpointError as error:
                damaged.append(error)
            except MissingCheckpointError:
                continue
            else:
                for each in damaged:
                    logger.warning("%s The one before it is taken.", each)
                return files[number], state
        if damaged:
            raise CorruptCheckpointError(
                f"{self.path}: no checkpoint is whole. {damaged[0]} Begin anew in an empty folder."
            )
        return None

    def _files(self) -> dict[int, Path]:
        """By number."""
        if not self.path.is_dir():
            return {}
        found = ((_NAME.fullmatch(path.name), path) for path in self.path.iterdir())
        return {int(match[1]): path for match, path in found if match}
