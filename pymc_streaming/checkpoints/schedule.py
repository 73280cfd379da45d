"""When it is time to save."""

from __future__ import annotations

import time

from pymc_streaming.arguments import parse_seconds, whole_number

__all__ = ["Schedule"]


class Schedule:
    """Every so many seconds, or every so many steps.

    Parameters
    ----------
    every : int or str
        Steps, or a time such as ``"5min"``.

    Raises
    ------
    ArgumentError
        If it cannot be meant.

    Examples
    --------
    >>> schedule = Schedule(100)
    >>> [schedule.is_due(60) for _ in range(4)]
    [False, True, False, True]
    """

    def __init__(self, every: int | str) -> None:
        self._seconds = parse_seconds("checkpoint_every", every) if isinstance(every, str) else None
        self._steps = 0 if isinstance(every, str) else whole_number("checkpoint_every", every)
        self.begin()

    def begin(self) -> None:
        """It was saved just now."""
        self._since, self._passed = time.monotonic(), 0

    def is_due(self, steps: int) -> bool:
        """Whether it is time, after so many more steps; if so, it begins anew."""
        self._passed += steps
        if self._seconds is None:
            due = self._passed >= self._steps
        else:
            due = time.monotonic() - self._since >= self._seconds
        if due:
            self.begin()
        return due
