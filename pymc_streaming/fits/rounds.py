"""Stochastic steps until converged: rounds, each as long as all before it together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pymc_streaming.fits.result import FitResult
from pymc_streaming.fits.stochastic import StochasticFit
from pymc_streaming.loader import BatchStream, DataLoader
from pymc_streaming.progress import FitProgress
from pymc_streaming.vi.status import Moved, Status

__all__ = ["fit_in_rounds", "steps_of"]

# The first round has at least so many steps, and passes.
_FIRST_STEPS, _FIRST_PASSES = 4_000, 3
# Largest standard error and drift of a mean, in posterior standard deviations, and of a log scale,
# that a converged fit has.
_TOLERANCE, _SCALE_TOLERANCE = 0.2, 0.05
# Distance of a mean from its optimum that an exact pass may find then.
_RIGHT = 0.1
# What is fitted if no number of passes is given: so many passes, and steps.
_PASSES, _STEPS = 200, 100_000


def steps_of(loader: DataLoader, max_passes: int | None) -> int:
    """Most steps of a fit."""
    per_pass = loader.total_size / loader.batch_size
    if max_passes is not None:
        return math.ceil(max_passes * per_pass)
    return max(_STEPS, math.ceil(_PASSES * per_pass))


def fit_in_rounds(
    fit: StochasticFit,
    loader: DataLoader,
    stream: BatchStream,
    most: int,
    progress: FitProgress,
    check: Callable[[], FitResult | None],
) -> FitResult:
    """Take steps until converged, or until there were `most`.

    Averages that rest may rest far from the optimum, where the way there is so flat that steps
    hardly move along it, as between the mean of many groups and all of their effects. So they are
    checked by an exact pass; if they are off, the steps go on where that leads, unless they have
    come back to where they were.

    Parameters
    ----------
    fit : StochasticFit
        What takes the steps.
    loader : DataLoader
        The rows.
    stream : BatchStream
        Batches of them.
    most : int
        Steps that may be taken.
    progress : FitProgress
        What is shown.
    check : callable
        Makes an exact pass from where the guide is, and moves it; None if the model allows none.

    Raises
    ------
    NonFiniteError, IndexRangeError
        If a step cannot be taken; those before it were.
    """
    began, before = time.perf_counter(), fit.step.completed
    per_pass = loader.total_size / loader.batch_size
    trail: list[Moved] = []
    previous = np.full(2 * fit.subject.guide.size, np.nan)
    done, checked, status = 0, 0, Status.STEPS_USED_UP
    off = np.inf  # by the check before
    count = min(most, max(_FIRST_STEPS, math.ceil(_FIRST_PASSES * per_pass)))
    try:
        while count:
            fit.run(count, stream, progress)
            fit.settle(count)
            done += count
            averages = _averages(fit, fit.subject.guide.size)
            moved = _moved(fit, averages, previous, math.ceil(done / per_pass))
            previous = averages
            trail.append(moved)
            at_rest = moved.step < _TOLERANCE and moved.log_scale < _SCALE_TOLERANCE
            if at_rest:
                guide = fit.subject.guide
                guide.location[:], guide.scales[:] = fit.step.averages()
                if (found := check()) is not None:
                    if not found.trail:
                        raise KeyboardInterrupt
                    checked += found.rows
                    trail.append(replace(found.trail[0], passes=moved.passes))
                    before_that, off = off, trail[-1].step
                    if found.status is Status.FLAT:
                        status = found.status
                        break
                    at_rest = _is_right(trail[-1])
                    if off > max(_TOLERANCE, 0.5 * before_that):
                        status = Status.UNCONFIRMED
                        break
            if at_rest:
                status = Status.CONVERGED
                break
            count = min(done, most - done)
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    taken = fit.step.completed - before
    return FitResult(
        status,
        math.ceil(taken / per_pass),
        taken * loader.batch_size + checked,
        time.perf_counter() - began,
        tuple(trail),
    )


def _is_right(found: Moved) -> bool:
    return found.step < _RIGHT and found.log_scale < _SCALE_TOLERANCE


def _averages(fit: StochasticFit, size: int) -> np.ndarray:
    """Means and log scales, shape (2 d,)."""
    location, scales = fit.step.averages()
    return np.concatenate([location, scales[:size]])


def _moved(fit: StochasticFit, averages: np.ndarray, previous: np.ndarray, passes: int) -> Moved:
    """What the averages of a round may be off: the largest error, drift, or change.

    A change from the round before, which had twice the learning rate, shows what is too slow to
    differ between the stretches of one round.
    """
    changes = np.nan_to_num(np.abs(averages - previous), nan=np.inf)
    off = np.maximum(fit.stretches.uncertainties(), 0.5 * changes)
    size = len(off) // 2
    step = (off[:size] / np.exp(averages[size:])).max()
    return Moved(passes, float(step), float(off[size:].max()), True)
