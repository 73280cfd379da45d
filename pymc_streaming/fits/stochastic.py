"""A fit in a number of steps: batches in, steps taken."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pymc_streaming.errors import FitError, NotConvergedWarning
from pymc_streaming.fits.subject import Subject
from pymc_streaming.loader import BatchStream, DataLoader, count_rows, nth_batch
from pymc_streaming.progress import FitProgress, History, Recorder
from pymc_streaming.vi.moving import still_moving
from pymc_streaming.vi.nonfinite import explain
from pymc_streaming.vi.optimizers import (
    AnnealedAdam,
    Optimizer,
    averaging_start,
    averaging_weights,
)
from pymc_streaming.vi.step import Step
from pymc_streaming.vi.stretches import Stretches

__all__ = ["ORDER_FIRST", "StochasticFit"]

logger = logging.getLogger("pymc_streaming")

#: What comes before all other advice.
ORDER_FIRST = (
    "The order of the rows, which this fit was warned about, does that: shuffle the table on disk "
    "first."
)
# Most steps of one call: between two looks at whether they were finite.
LONGEST_CHUNK = 64
# Memory of the noise that is drawn at once.
STRETCH_BYTES = 2**18
# A fit leaves about this many entries in the history, however long it is. But a loss takes several
# times as long as a step, so there are many steps from one to the next.
RECORDS, STEPS_BETWEEN = 100, 50


class StochasticFit:
    """Stochastic steps of one model on the batches of one loader, compiled when made.

    Parameters
    ----------
    subject : Subject
        The model and its Gaussian, which `run` moves.
    loader : DataLoader
        The rows.
    batch : mapping of str to ndarray
        Some of them.
    optimizer : AnnealedAdam or Optimizer
        As for `Trainer`.
    compile_kwargs : mapping
        Passed to ``pytensor.function``.
    random : numpy.random.Generator
        For the draws.

    Attributes
    ----------
    subject
        As given.
    step : Step
        What is compiled, and how far it got.
    position : tuple of int
        Where in the loader's stream the next step begins.
    stretches : Stretches
        Averages over parts of the steps that the last run averaged.
    """

    def __init__(
        self,
        subject: Subject,
        loader: DataLoader,
        batch: Mapping[str, np.ndarray],
        optimizer: AnnealedAdam | Optimizer,
        compile_kwargs: Mapping[str, Any],
        random: np.random.Generator,
    ) -> None:
        self.subject = subject
        self.step = Step(
            subject.binding, subject.streamed, subject.guide, optimizer, compile_kwargs
        )
        self.position = (0, 0)
        self.stretches = Stretches()
        self._loader, self._optimizer, self._random = loader, optimizer, random
        self._settled = 0  # steps of the runs that came to their end
        self._seconds = 0.0
        self._recorder = Recorder()
        started = time.perf_counter()
        self.step.compile(batch)
        logger.info(
            "Compiled in %.1f s; a pass is %s rows, %.6g batches of %s.",
            time.perf_counter() - started,
            f"{loader.total_size:,}",
            loader.total_size / loader.batch_size,
            f"{loader.batch_size:,}",
        )

    @property
    def history(self) -> History:
        """What was recorded so far."""
        return self._recorder.history()

    def run(self, n: int, stream: BatchStream, progress: FitProgress) -> None:
        """Take `n` steps, each on the next batch of `stream`.

        Raises
        ------
        NonFiniteError, IndexRangeError
            If a step cannot be taken; those before it were.
        """
        record_every = max(STEPS_BETWEEN, n // RECORDS)
        progress.begin()
        self.stretches.begin(n, self._average_from(n))
        done, longest = 0, 1
        for stretch in self._stretches(n):
            end = done + len(stretch[0])
            while done < end:
                began = time.perf_counter()
                recorded = done % record_every == 0 or done == n - 1
                # Up to the next step whose loss is recorded, and the last is one.
                to_record = min(record_every - done % record_every, max(1, n - 1 - done))
                most = min(longest, to_record, end - done)
                noise, rates, weights = (values[done - end :] for values in stretch)
                done += self._advance(
                    stream, most, noise, rates, weights, progress if recorded else None
                )
                self.stretches.update(done, *self.step.averages())
                progress.update(done)
                # Short enough to show progress and to notice Ctrl-C soon.
                slow = time.perf_counter() - began >= progress.INTERVAL
                longest = 1 if slow else min(LONGEST_CHUNK, 2 * longest)

    def settle(self, n: int) -> None:
        """Say that a run of `n` steps came to its end: the next one starts more slowly."""
        self._settled += n

    def warn_if_moving(self, n: int, in_order: bool) -> None:
        """Warn of parameters that had not come to rest after `n` steps.

        Parameters
        ----------
        n : int
            Steps of the last run.
        in_order : bool
            Whether the order of the rows may be why.
        """
        if not isinstance(self._optimizer, AnnealedAdam):
            return
        reach = self._rates(self._average_from(n), n, n).sum()
        moving = still_moving(self.subject.guide, *self.step.averages(), reach)
        if moving:
            order = f"{ORDER_FIRST} If it goes on: " if in_order else ""
            warnings.warn(
                f"Not converged: {', '.join(map(repr, moving))} still moved at the end of the fit, "
                "steadily one way or by many posterior standard deviations, so the result is not "
                f"the posterior. {order}Bring the parameters near 0 and of the order of 1 "
                "(standardise the data), start nearby (initval=), take more steps, or change "
                "optimizer=AnnealedAdam(learning_rate=...).",
                NotConvergedWarning,
                stacklevel=4,
            )

    def _advance(
        self,
        stream: BatchStream,
        most: int,
        noise: np.ndarray,
        rates: np.ndarray,
        weights: np.ndarray,
        progress: FitProgress | None,
    ) -> int:
        """Take some steps, with `progress` on record; says how many."""
        size, began, before = self._loader.batch_size, time.perf_counter(), self.step.completed
        batches = stream.take(most)
        count = count_rows(batches) // size
        try:
            if progress is None or self._record(nth_batch(batches, 0, size), noise[0], progress):
                self.step(batches, noise[:count], rates[:count], weights[:count])
        finally:
            good = self.step.completed - before
            self._seconds += time.perf_counter() - began
            self.position = stream.position_after(good)
            self._recorder.forget_after(self.step.completed)
        if good < count:
            raise self._explanation(nth_batch(batches, good, size), noise[good])
        return count

    def _record(
        self, batch: Mapping[str, np.ndarray], noise: np.ndarray, progress: FitProgress
    ) -> bool:
        """Put the loss of the next step on record; whether it is finite."""
        loss, step = self.step.loss(batch, noise), self.step.completed + 1
        if math.isfinite(loss):
            self._recorder.add(step, loss, step * self._loader.batch_size, self._seconds)
            progress.seen(loss)
        return math.isfinite(loss)

    def _stretches(self, n: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Noise, learning rates and averaging weights for the steps of a run, many at a time."""
        average_from = self._average_from(n)
        size = max(1, STRETCH_BYTES // (8 * self.subject.guide.size))
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield (
                self._random.standard_normal((stop - start, self.subject.guide.size)),
                self._rates(start, stop, n),
                averaging_weights(start, stop, average_from),
            )

    def _average_from(self, n: int) -> int:
        return averaging_start(n, self._loader.total_size / self._loader.batch_size)

    def _rates(self, start: int, stop: int, n: int) -> np.ndarray:
        if isinstance(self._optimizer, AnnealedAdam):
            return self._optimizer.rates(start, stop, n) * n / (n + self._settled)
        return np.zeros(stop - start)  # PyMC's update functions bring their own

    def _explanation(self, batch: Mapping[str, np.ndarray], noise: np.ndarray) -> FitError:
        """The error for the next step, which could not be taken."""
        rows = self._loader.locate(self.position, self._loader.batch_size)
        where = f"Step {self.step.completed + 1:,}, on {rows}"
        advice = (
            "When the parameters ran away, a lower learning rate helps "
            "(optimizer=AnnealedAdam(learning_rate=0.01)), or a start nearby (initval=)."
        )
        return explain(self.subject.binding, self.subject.guide, batch, noise, where, advice)
