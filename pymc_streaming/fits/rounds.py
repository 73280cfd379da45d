"""Stochastic steps until converged: rounds, each as long as all before it together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from pymc_streaming.checkpoints import Keeper, State, random_state, set_random_state
from pymc_streaming.fits.result import FitResult
from pymc_streaming.fits.stochastic import StochasticFit
from pymc_streaming.loader import BatchStream, DataLoader
from pymc_streaming.progress import FitProgress
from pymc_streaming.vi.status import Moved, Status

__all__ = ["Rounds", "first_round", "fit_in_rounds", "steps_of"]

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


class Rounds:
    """Where a fit in rounds is.

    Parameters
    ----------
    most : int
        Steps that may be taken.
    first : int
        Steps of the first round.
    before : int
        Steps that other fits took.

    Attributes
    ----------
    count : int
        Steps of the round that is being made.
    done, checked : int
        Steps of the rounds before it; rows that exact passes went over.
    at_rest : bool
        Whether its steps are taken, and an exact pass is to check where they led.
    """

    def __init__(self, most: int, first: int, before: int) -> None:
        self.most, self.count, self.before = most, first, before
        self.done = self.checked = 0
        self.begun = self.at_rest = False
        self.off, self.seconds = math.inf, 0.0
        self.trail: list[Moved] = []
        self.previous = np.zeros(0)
        self.random: dict[str, Any] = {}

    def state(self) -> State:
        """All of this."""
        facts = dict(vars(self))
        previous = facts.pop("previous")
        facts["trail"] = [asdict(moved) for moved in self.trail]
        return State({"previous": previous}, facts)

    @classmethod
    def of(cls, state: State) -> Rounds:
        """Those that a state is of."""
        rounds = cls(0, 0, 0)
        vars(rounds).update(state.facts)
        rounds.trail = [Moved(**moved) for moved in state.facts["trail"]]
        rounds.previous = state.arrays["previous"]
        return rounds


def first_round(loader: DataLoader, most: int, before: int) -> Rounds:
    """A fit of at most so many steps begins, after so many of others."""
    per_pass = loader.total_size / loader.batch_size
    first = max(_FIRST_STEPS, math.ceil(_FIRST_PASSES * per_pass))
    return Rounds(most, min(most, first), before)


def fit_in_rounds(
    rounds: Rounds,
    fit: StochasticFit,
    loader: DataLoader,
    stream: BatchStream,
    random: np.random.Generator,
    progress: FitProgress,
    keeper: Keeper,
    check: Callable[[], FitResult | None],
) -> FitResult:
    """Take steps until converged, or until there were as many as there may be.

    Averages that rest may rest far from the optimum, where the way there is so flat that steps
    hardly move along it, as between the mean of many groups and all of their effects. So they are
    checked by an exact pass; if they are off, the steps go on where that leads, unless they have
    come back to where they were.

    Parameters
    ----------
    rounds : Rounds
        How far it is.
    fit : StochasticFit
        What takes the steps.
    loader : DataLoader
        The rows.
    stream : BatchStream
        Batches of them.
    random : numpy.random.Generator
        What `check` draws from.
    progress : FitProgress
        What is shown.
    keeper : Keeper
        Hears when the rounds, and the fit, are consistent.
    check : callable
        Makes an exact pass from where the guide is, and moves it; None if the model allows none.

    Raises
    ------
    NonFiniteError, IndexRangeError
        If a step cannot be taken; those before it were.
    """
    began, spent = time.perf_counter(), rounds.seconds
    status = None
    try:
        while status is None and rounds.count:
            rounds.seconds = spent + time.perf_counter() - began
            if not rounds.at_rest:
                _take_steps(rounds, fit, loader, stream, random, progress, keeper)
            if rounds.at_rest:
                guide = fit.subject.guide
                guide.location[:], guide.scales[:] = fit.step.averages()
                set_random_state(random, rounds.random)
                found = check()
                if found is not None and not found.trail:
                    raise KeyboardInterrupt
                with keeper.whole():
                    status = _judged(rounds, found)
            keeper.reached(0)
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    taken = fit.step.completed - rounds.before
    return FitResult(
        status or Status.STEPS_USED_UP,
        math.ceil(taken * loader.batch_size / loader.total_size),
        taken * loader.batch_size + rounds.checked,
        spent + time.perf_counter() - began,
        tuple(rounds.trail),
        skipped=tuple(loader.source.skipped),
    )


def _take_steps(
    rounds: Rounds,
    fit: StochasticFit,
    loader: DataLoader,
    stream: BatchStream,
    random: np.random.Generator,
    progress: FitProgress,
    keeper: Keeper,
) -> None:
    """Those of a round, or what is left of them; and what their averages say."""
    if not rounds.begun:
        with keeper.whole():
            fit.begin(rounds.count)
            rounds.begun = True
    fit.run(stream, progress, keeper)
    with keeper.whole():
        fit.settle()
        rounds.done += rounds.count
        rounds.begun = False
        averages = _averages(fit, fit.subject.guide.size)
        passes = math.ceil(rounds.done * loader.batch_size / loader.total_size)
        moved = _moved(fit, averages, rounds.previous, passes)
        rounds.previous = averages
        rounds.trail.append(moved)
        rounds.at_rest = moved.step < _TOLERANCE and moved.log_scale < _SCALE_TOLERANCE
        rounds.random = random_state(random)
        if not rounds.at_rest:
            _go_on(rounds)


def _judged(rounds: Rounds, found: FitResult | None) -> Status | None:
    """How the fit ends by what an exact pass found; None if it goes on."""
    rounds.at_rest = False
    if found is None:
        return Status.CONVERGED
    rounds.checked += found.rows
    before, passes = rounds.off, rounds.trail[-1].passes
    moved = replace(found.trail[0], passes=passes)
    rounds.trail.append(moved)
    rounds.off = moved.step
    if found.status is Status.FLAT:
        return found.status
    if rounds.off > max(_TOLERANCE, 0.5 * before):
        return Status.UNCONFIRMED
    if _is_right(moved):
        return Status.CONVERGED
    _go_on(rounds)
    return None


def _go_on(rounds: Rounds) -> None:
    """Another round follows, as long as all before it."""
    rounds.count = min(rounds.done, rounds.most - rounds.done)


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
    changes = np.abs(averages - previous) if len(previous) else np.inf
    off = np.maximum(fit.stretches.uncertainties(), 0.5 * changes)
    size = len(off) // 2
    step = (off[:size] / np.exp(averages[size:])).max()
    return Moved(passes, float(step), float(off[size:].max()), True)
