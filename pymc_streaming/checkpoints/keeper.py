"""Saving what runs while it runs, at moments when it is consistent."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from pymc_streaming.checkpoints.folder import CheckpointFolder
from pymc_streaming.checkpoints.schedule import Schedule
from pymc_streaming.checkpoints.state import State
from pymc_streaming.errors import OutputError

__all__ = ["Keeper", "Terminated"]

logger = logging.getLogger("pymc_streaming")

_SIGNALS = signal.SIGINT, signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM)."""


class Keeper:
    """Saves a state now and then, and when what runs is interrupted.

    What runs says when it is consistent (`reached`), and what must not be interrupted halfway
    (`whole`): there Ctrl-C and SIGTERM wait. As a context it takes these signals over; after
    SIGTERM the process ends as it would have, but with a checkpoint.

    Parameters
    ----------
    folder : CheckpointFolder or None
        Where states are kept; None to keep none, and leave signals alone.
    schedule : Schedule
        How often.
    state : callable
        Gives the state; None if there is nothing to save yet.

    Attributes
    ----------
    latest : pathlib.Path or None
        The checkpoint that was written last.
    """

    def __init__(
        self,
        folder: CheckpointFolder | None = None,
        schedule: Schedule | None = None,
        state: Callable[[], State | None] = State,
    ) -> None:
        self._folder, self._schedule, self._state = folder, schedule, state
        self.latest: Path | None = None
        self._depth, self._terminated = 0, False
        self._waiting: tuple[int, FrameType | None] | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def keeps(self) -> bool:
        """Whether states are kept."""
        return self._folder is not None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What is done in here is done wholly: signals wait for its end."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                self._deliver(*waiting)

    def reached(self, steps: int) -> None:
        """The state is consistent, so many steps after it was last; it is saved if it is time."""
        if self._folder is not None and self._schedule and self._schedule.is_due(steps):
            self.save()

    def save(self) -> None:
        """Save now. A checkpoint that cannot be written is missed, not the end of what runs."""
        if self._folder is None:
            return
        with self.whole():
            try:
                if (state := self._state()) is not None:
                    self.latest = self._folder.save(state)
            except OutputError as error:
                logger.warning("No checkpoint was written, those before it are kept. %s", error)

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._folder.__enter__()
            if threading.current_thread() is threading.main_thread():
                self._before = {each: signal.signal(each, self._heard) for each in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._folder is not None:
            self._folder.__exit__()
        if self._terminated:
            os.kill(os.getpid(), signal.SIGTERM)  # as though it had not been waited for

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._depth:
            self._waiting = number, frame
        else:
            self._deliver(number, frame)

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        """What would have happened, but for the end of the process: that is made an exception."""
        handler = self._before.get(signal.Signals(number))
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            self._terminated = True
            raise Terminated
