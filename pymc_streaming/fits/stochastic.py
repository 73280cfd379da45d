"""A fit in a number of steps: batches in, steps taken."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pymc_streaming.checkpoints import Keeper, State, random_state, set_random_state
from pymc_streaming.errors import FitError, NotConvergedWarning
from pymc_streaming.fits.subject import Subject
from pymc_streaming.loader import BatchStream, DataLoader, count_rows, nth_batch
from pymc_streaming.notices import warn
from pymc_streaming.progress import FitProgress, Recorder
from pymc_streaming.sources import Block
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


@dataclass
class _Run:
    """How far some steps got.

    Parameters
    ----------
    n : int
        Steps to take.
    done : int
        Steps that were taken.
    drawn : int
        Steps whose noise came before the stretch of it that is in use.
    random : dict
        Where the generator was before that was drawn.
    """

    n: int
    done: int
    drawn: int
    random: dict[str, Any]


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
    recorder : Recorder
        Where losses are put on record.

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
        recorder: Recorder,
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
        self._recorder = recorder
        self._run: _Run | None = None
        started = time.perf_counter()
        self.step.compile(batch)
        logger.info(
            "Compiled in %.1f s; a pass is %s rows, %.6g batches of %s.",
            time.perf_counter() - started,
            f"{loader.total_size:,}",
            loader.total_size / loader.batch_size,
            f"{loader.batch_size:,}",
        )

    def state(self) -> State:
        """All that the next step depends on, but for the rows."""
        facts = {
            "position": self.position,
            "settled": self._settled,
            "seconds": self._seconds,
            "run": asdict(self._run) if self._run else None,
        }
        stretches = {f"stretches/{name}": array for name, array in self.stretches.state().items()}
        return State(self.step.state() | stretches, facts)

    def load(self, state: State) -> None:
        """Be where another one was."""
        facts, run = state.facts, state.facts["run"]
        self.step.load(state.arrays)
        self.stretches.load(state.under("stretches"))
        self.position = tuple(facts["position"])
        self._settled, self._seconds = facts["settled"], facts["seconds"]
        self._run = _Run(**run) if run else None

    @property
    def has_begun(self) -> bool:
        """Whether steps were begun that may not have come to their end."""
        return self._run is not None

    @property
    def has_ended(self) -> bool:
        """Whether all steps that were begun were taken, and they are not settled yet."""
        return self._run is not None and self._run.done == self._run.n

    def begin(self, n: int) -> None:
        """`n` steps follow."""
        self._run = _Run(n, 0, 0, {})
        self.stretches.begin(n, self._average_from(n))

    def run(self, stream: BatchStream, progress: FitProgress, keeper: Keeper) -> None:
        """Take the steps that are left of those begun, each on the next batch of `stream`.

        Raises
        ------
        NonFiniteError, IndexRangeError
            If a step cannot be taken; those before it were.
        """
        assert self._run is not None
        run, n, longest = self._run, self._run.n, 1
        record_every = max(STEPS_BETWEEN, n // RECORDS)
        progress.begin(run.done)
        for stretch in self._stretches(run):
            end = run.drawn + len(stretch[0])
            while (done := run.done) < end:
                began = time.perf_counter()
                recorded = done % record_every == 0 or done == n - 1
                # Up to the next step whose loss is recorded, and the last is one.
                to_record = min(record_every - done % record_every, max(1, n - 1 - done))
                to_look_at = self.stretches.next_end - done
                most = min(longest, to_record, to_look_at, end - done)
                noise, rates, weights = (values[done - end :] for values in stretch)
                batches = stream.take(most)
                with keeper.whole():
                    self._advance(
                        stream, batches, noise, rates, weights, progress if recorded else None
                    )
                progress.update(run.done)
                keeper.reached(run.done - done)
                # Short enough to show progress and to notice Ctrl-C soon.
                slow = time.perf_counter() - began >= progress.INTERVAL
                longest = 1 if slow else min(LONGEST_CHUNK, 2 * longest)

    def settle(self) -> None:
        """The steps that were begun came to their end: the next ones start more slowly."""
        assert self._run is not None
        self._settled += self._run.n
        self._run = None

    def warn_if_moving(self, in_order: bool) -> None:
        """Warn of parameters that had not come to rest after the steps.

        Parameters
        ----------
        in_order : bool
            Whether the order of the rows may be why.
        """
        assert self._run is not None
        if not isinstance(self._optimizer, AnnealedAdam):
            return
        n = self._run.n
        reach = self._rates(self._average_from(n), n, n).sum()
        moving = still_moving(self.subject.guide, *self.step.averages(), reach)
        if moving:
            order = f"{ORDER_FIRST} If it goes on: " if in_order else ""
            warn(
                f"Not converged: {', '.join(map(repr, moving))} still moved at the end of the fit, "
                "steadily one way or by many posterior standard deviations, so the result is not "
                f"the posterior. {order}Bring the parameters near 0 and of the order of 1 "
                "(standardise the data), start nearby (initval=), take more steps, or change "
                "optimizer=AnnealedAdam(learning_rate=...).",
                NotConvergedWarning,
            )

    def _advance(
        self,
        stream: BatchStream,
        batches: Block,
        noise: np.ndarray,
        rates: np.ndarray,
        weights: np.ndarray,
        progress: FitProgress | None,
    ) -> None:
        """Take a step on each of the batches taken last, with `progress` the first on record."""
        assert self._run is not None
        size, began, before = self._loader.batch_size, time.perf_counter(), self.step.completed
        count = count_rows(batches) // size
        try:
            if progress is None or self._record(nth_batch(batches, 0, size), noise[0], progress):
                self.step(batches, noise[:count], rates[:count], weights[:count])
        finally:
            good = self.step.completed - before
            self._seconds += time.perf_counter() - began
            self.position = stream.position_after(good)
            self._run.done += good
            self.stretches.update(self._run.done, *self.step.averages())
            self._recorder.forget_after(self.step.completed)
        if good < count:
            raise self._explanation(nth_batch(batches, good, size), noise[good])

    def _record(
        self, batch: Mapping[str, np.ndarray], noise: np.ndarray, progress: FitProgress
    ) -> bool:
        """Put the loss of the next step on record; whether it is finite."""
        loss, step = self.step.loss(batch, noise), self.step.completed + 1
        if math.isfinite(loss):
            self._recorder.add(step, loss, step * self._loader.batch_size, self._seconds)
            progress.seen(loss)
        return math.isfinite(loss)

    def _stretches(self, run: _Run) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Noise, learning rates and averaging weights for the steps of a run, many at a time."""
        n, average_from = run.n, self._average_from(run.n)
        size = max(1, STRETCH_BYTES // (8 * self.subject.guide.size))
        if run.random:  # it goes on in the middle of noise that is drawn again
            set_random_state(self._random, run.random)
        for start in range(run.drawn, n, size):
            stop = min(start + size, n)
            run.drawn, run.random = start, random_state(self._random)
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
