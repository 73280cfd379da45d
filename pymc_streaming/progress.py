"""What a running fit shows, and what it leaves on record."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["FitProgress", "History", "PassProgress", "Recorder"]


@dataclass(frozen=True, slots=True)
class History:
    """What was recorded while fitting: arrays of equal length, one entry per record.

    Parameters
    ----------
    step : ndarray of int
        Steps taken, counted from the trainer's first.
    loss : ndarray of float
        Negative ELBO in nats, estimated from the batch of that step and one draw.
    rows : ndarray of int
        Rows streamed so far.
    seconds : ndarray of float
        Time spent stepping so far, without compilation.
    """

    step: np.ndarray
    loss: np.ndarray
    rows: np.ndarray
    seconds: np.ndarray


class Recorder:
    """Collects the entries of a `History`."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, float, int, float]] = []

    def add(self, step: int, loss: float, rows: int, seconds: float) -> None:
        """Record the loss at a step."""
        self._entries.append((step, loss, rows, seconds))

    def forget_after(self, step: int) -> None:
        """Drop what was recorded for steps after `step`, which turned out not to be taken."""
        while self._entries and self._entries[-1][0] > step:
            self._entries.pop()

    def load(self, history: History) -> None:
        """Go on after what another one recorded."""
        columns = (history.step, history.loss, history.rows, history.seconds)
        self._entries = list(zip(*(column.tolist() for column in columns), strict=True))

    def history(self) -> History:
        """Everything recorded so far."""
        columns = zip(*self._entries, strict=True) if self._entries else ((), (), (), ())
        dtypes = (np.int64, np.float64, np.int64, np.float64)
        return History(
            *(np.array(column, dtype) for column, dtype in zip(columns, dtypes, strict=True))
        )


class _Bar:
    """A bar on standard error, with columns for its kind of fit; nothing without a terminal."""

    def __init__(
        self, *columns: TextColumn, total: int | None, enabled: bool, **fields: Any
    ) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and (console.is_terminal or console.is_jupyter)),
        )
        self._task = self._progress.add_task("compiling", total=total, **fields)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()


class FitProgress(_Bar):
    """A progress bar on standard error; silent where there is no terminal.

    Parameters
    ----------
    n : int
        Steps to take.
    batch_size : int
        Rows of a step.
    enabled : bool
        False for no bar in any case.
    """

    INTERVAL = 0.1  # seconds between updates
    SMOOTHING = 0.05  # weight of a new loss in the one that is shown

    def __init__(self, n: int, batch_size: int, *, enabled: bool) -> None:
        super().__init__(
            TextColumn("step {task.completed:,.0f} of {task.total:,.0f}"),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[loss]}"),
            total=n,
            enabled=enabled,
            speed="",
            loss="",
        )
        self._n, self._batch_size = n, batch_size
        self._before = self._done = 0  # steps of the runs before, and of this one
        self._first = 0  # of this one, those that were taken before it went on
        self._loss = math.nan
        self._started = time.perf_counter()
        self._shown = -math.inf

    def begin(self, done: int = 0) -> None:
        """Steps of a run follow, after so many; of several, steps are counted together."""
        self._started, self._first = time.perf_counter(), done
        self._before, self._done = self._before + self._done, done
        self._progress.update(self._task, description="fitting")

    def seen(self, loss: float) -> None:
        """Take a loss into the smoothed one."""
        if math.isnan(self._loss):
            self._loss = loss
        self._loss += self.SMOOTHING * (loss - self._loss)

    def update(self, done: int) -> None:
        """Show that `done` steps of the run are taken, if it is time to show something."""
        now = time.perf_counter()
        self._done = done
        if now - self._shown < self.INTERVAL and self._before + done < self._n:
            return
        self._shown = now
        elapsed = max(now - self._started, 1e-9)
        rows_per_second = (done - self._first) * self._batch_size / elapsed
        self._progress.update(
            self._task,
            completed=self._before + done,
            speed=f"{rows_per_second / 1e6:.2f} M rows/s",
            loss=f"loss {self._loss:,.6g}",
        )


class PassProgress(_Bar):
    """The same for passes over all rows.

    Parameters
    ----------
    n_rows : int
        Rows of a pass.
    most : int
        Passes that may be made.
    enabled : bool
        False for no bar in any case.
    """

    def __init__(self, n_rows: int, most: int, *, enabled: bool) -> None:
        super().__init__(
            TextColumn("{task.fields[row]}"),
            TextColumn("{task.fields[step]}"),
            total=None,
            enabled=enabled,
            row="",
            step="",
        )
        self._n_rows, self._most, self._passes, self._row = n_rows, most, 0, 0

    def begin(self, what: str) -> None:
        """Something else than compiling begins, of which it is not known how long it takes."""
        self._progress.update(self._task, description=what, total=None, row="")

    def end(self, how: str) -> None:
        """It is over."""
        total = self._n_rows
        self._progress.update(self._task, description=how, total=total, completed=total, row="")

    def next_pass(self) -> None:
        """A pass begins."""
        self._passes += 1
        self._progress.update(
            self._task,
            description=f"pass {self._passes}, of at most {self._most}",
            total=self._n_rows,
            completed=0,
        )
        self._row = 0

    def update(self, count: int) -> None:
        """So many more rows are done."""
        self._row += count
        row = f"row {self._row:,} of {self._n_rows:,}"
        self._progress.update(self._task, total=self._n_rows, completed=self._row, row=row)

    def seen(self, step: float) -> None:
        """A pass ended; the parameters go so far from there."""
        self._progress.update(self._task, step=f"step {step:.3g} sd")
