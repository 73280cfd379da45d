"""A fit that ends when it has converged: exact passes over the rows of a loader."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pymc_streaming.checkpoints import Keeper, State
from pymc_streaming.errors import ArgumentError, FitError
from pymc_streaming.fits.journal import Journal
from pymc_streaming.fits.result import FitResult
from pymc_streaming.fits.subject import Subject
from pymc_streaming.loader import DataLoader, count_rows, rows_of
from pymc_streaming.progress import PassProgress
from pymc_streaming.sources import Block
from pymc_streaming.vi.ascent import Ascent
from pymc_streaming.vi.dense import SPREADS
from pymc_streaming.vi.exact import fit_exactly
from pymc_streaming.vi.fixed_rows import check_any_number_of_rows
from pymc_streaming.vi.nonfinite import explain
from pymc_streaming.vi.passes import NotFinite, Sample, Sum, gradients_at
from pymc_streaming.vi.signs import MOST_COLUMNS
from pymc_streaming.vi.start import Start, gaussian_of, start_at, start_from
from pymc_streaming.vi.status import Status
from pymc_streaming.vi.terms import Terms

__all__ = ["ExactFit", "WholeTable"]


class ExactFit:
    """Exact passes of one model over one loader, compiled when made.

    Parameters
    ----------
    subject : Subject
        The model and its Gaussian, which `run` moves.
    loader : DataLoader
        The rows.
    batch : mapping of str to ndarray
        Some of them.
    compile_kwargs : mapping
        Passed to ``pytensor.function``.

    Attributes
    ----------
    subject
        As given.
    terms : Terms
        What is compiled.
    """

    def __init__(
        self,
        subject: Subject,
        loader: DataLoader,
        batch: Mapping[str, np.ndarray],
        compile_kwargs: Mapping[str, Any],
    ) -> None:
        self.subject = subject
        _check_size(subject)
        self.terms = Terms(
            subject.binding,
            subject.streamed,
            subject.guide,
            batch,
            loader.total_size,
            compile_kwargs,
        )
        check_any_number_of_rows(self.terms, subject.guide.location, batch)
        self._end = np.full(subject.guide.size, np.nan)  # location where the last run ended
        self._n_modes = 1

    def state(self) -> State:
        """Where the last run ended."""
        return State({"end": self._end}, {"n_modes": self._n_modes})

    def load(self, state: State) -> None:
        """Be where another one was."""
        self._end[:] = state.arrays["end"]
        self._n_modes = state.facts["n_modes"]

    def run(
        self,
        loader: DataLoader,
        journal: Journal,
        random: np.random.Generator,
        max_passes: int,
        progress: PassProgress,
        keeper: Keeper,
        *,
        here: bool = False,
    ) -> FitResult:
        """Fit until converged, or the passes are used up; the guide has the result.

        Where a run has left the guide, the next one goes on: with a sample for its curvature, but
        without fitting that.

        Parameters
        ----------
        loader : DataLoader
            The rows, of the same table.
        journal : Journal
            Where it begins; what its passes find is put on record there.
        random : numpy.random.Generator
            For the choice of the sample, and the signs.
        max_passes : int
            Passes over the table, at most.
        progress : PassProgress
            Hears of each.
        keeper : Keeper
            Hears when the journal is consistent.
        here : bool, default False
            Whether to go on where the guide is, whatever left it there.

        Raises
        ------
        NonFiniteError, IndexRangeError
            If the log-density has no finite gradient where the fit begins.
        """
        guide, began = self.subject.guide, time.perf_counter()
        journal.rewind(guide, random)
        # Sums that nobody keeps would only take memory.
        record = journal if keeper.keeps or journal.has_sums else None
        read, n_modes = 0, self._n_modes
        ascent: Ascent[Any]
        try:
            here = here or np.array_equal(guide.location, self._end)
            sample, read, start = self._start(loader, journal.sample_rows, random, progress, here)
            n_modes = max(n_modes, start.n_modes)
            ascent = fit_exactly(
                WholeTable(loader, progress, record, keeper),
                sample,
                start,
                self.subject.binding,
                guide,
                random,
                spread=SPREADS[self.subject.method],
                max_passes=max_passes,
                seen=lambda moved: progress.seen(moved.step),
            )
        except NotFinite as error:
            guide.location[:] = error.location
            raise self._explanation(loader) from None
        except KeyboardInterrupt:
            ascent = Ascent(guide, Status.INTERRUPTED, 0, ())
        guide.location[:] = ascent.q.location
        guide.scales[:] = ascent.q.scales
        passes = f"{ascent.passes} pass{'es' * (ascent.passes != 1)}"
        progress.end(f"{ascent.status.name.lower().replace('_', ' ')}, {passes}")
        if ascent.passes:
            self._end, self._n_modes = guide.location.copy(), n_modes
        return FitResult(
            ascent.status,
            ascent.passes,
            read + ascent.passes * loader.total_size,
            time.perf_counter() - began,
            ascent.trail,
            n_modes,
            tuple(loader.source.skipped),
        )

    def bring_near(
        self,
        loader: DataLoader,
        sample_rows: int,
        random: np.random.Generator,
        progress: PassProgress,
    ) -> int:
        """Put the guide where a sample says that the table's posterior is; says how many modes.

        Takes and raises the same as `run`.
        """
        guide = self.subject.guide
        try:
            sample, _, start = self._start(loader, sample_rows, random, progress, False)
        except NotFinite as error:
            guide.location[:] = error.location
            raise self._explanation(loader) from None
        q = start.of_table(sample, loader.total_size)
        guide.location[:] = q.location
        guide.scales[:] = 0.0
        guide.scales[: guide.size] = q.log_scale
        return start.n_modes

    def _start(
        self,
        loader: DataLoader,
        sample_rows: int,
        random: np.random.Generator,
        progress: PassProgress,
        here: bool,
    ) -> tuple[Sample, int, Start]:
        """A sample, the rows that were read for it, and what it says."""
        guide = self.subject.guide
        progress.begin("reading a sample")
        rows, read = loader.sample(sample_rows, random)
        sample = Sample(rows)
        if here:
            start = start_at(self.terms, guide, sample, gaussian_of(guide), random)
        else:
            progress.begin("fitting the sample")
            locations = self.subject.starts(random)
            start = start_from(self.terms, guide, sample, locations, random)
        return sample, read, start

    def _explanation(self, loader: DataLoader) -> FitError:
        """The error for a log-density without a gradient at the location of the guide."""
        guide = self.subject.guide
        batch_size, point = loader.batch_size, guide.location[None]
        bad: Block = {}
        first, where = 0, "The log-density, around where the fit begins"
        for block in loader.blocks(batch_size):
            for start in range(0, count_rows(block), batch_size):
                rows = rows_of(block, start, start + batch_size)
                bad = bad or rows
                if not np.isfinite(gradients_at(self.terms, Sample(rows), point)).all():
                    last = first + count_rows(rows) - 1
                    bad = rows
                    where = f"The log-density of rows {first:,} to {last:,}, where the fit begins"
                    break
                first += count_rows(rows)
            else:
                continue
            break
        return explain(
            self.subject.binding,
            guide,
            bad,
            np.zeros(guide.size),
            where,
            "If that is far from where the parameters belong, give a start nearby (initval=).",
        )


def _check_size(subject: Subject) -> None:
    """Refuse a covariance of too many parameters."""
    if SPREADS[subject.method] is not None and subject.guide.size > MOST_COLUMNS:
        raise ArgumentError(
            f"method={subject.method!r} has a covariance of all {subject.guide.size:,} parameters, "
            f"which is fitted in exact passes for at most {MOST_COLUMNS:,}. Use method='advi'."
        )


class WholeTable:
    """All rows of a loader, again and again, each of weight one.

    Parameters
    ----------
    loader : DataLoader
        The rows.
    progress : PassProgress
        Hears of them.
    journal : Journal, optional
        What is added up is put on record there, and taken from there.
    keeper : Keeper, optional
        Hears when the journal is consistent.
    """

    def __init__(
        self,
        loader: DataLoader,
        progress: PassProgress,
        journal: Journal | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._loader, self._progress = loader, progress
        self._journal, self._keeper = journal, keeper or Keeper()
        self._ones = np.ones(0)

    @property
    def n_rows(self) -> int:
        """How many."""
        return self._loader.total_size

    def go_over(self, multiple: int, sums: Sequence[Sum]) -> None:
        """Add up over all of them, in blocks of a multiple of so many rows."""
        self._progress.next_pass()
        done = self._journal.begin_pass(sums, self.n_rows) if self._journal else 0
        self._progress.update(done)
        if done == self.n_rows:
            return
        for rows in self._loader.blocks(multiple, done):
            count = count_rows(rows)
            if count > len(self._ones):
                self._ones = np.ones(count)
            with self._keeper.whole():
                for each in sums:
                    each.add(rows, self._ones[:count])
                if self._journal:
                    self._journal.read(count)
            self._progress.update(count)
            self._keeper.reached(0)
        with self._keeper.whole():
            if self._journal:
                self._journal.end_pass()
        self._keeper.reached(1)
