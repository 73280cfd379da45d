"""All fits of one model to one loader: what is made of them once, and where they have got to."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pymc as pm
import pytensor
from pymc.variational.opvi import Approximation

from pymc_streaming.checkpoints import Keeper, State, random_state, set_random_state
from pymc_streaming.errors import (
    ArgumentError,
    CheckpointMismatchError,
    FixedRowsError,
    SeveralModesWarning,
)
from pymc_streaming.fits.exact import ExactFit
from pymc_streaming.fits.journal import Journal
from pymc_streaming.fits.result import FitResult
from pymc_streaming.fits.rounds import Rounds, first_round, fit_in_rounds
from pymc_streaming.fits.stochastic import StochasticFit
from pymc_streaming.fits.subject import Subject, subject_of
from pymc_streaming.loader import BatchStream, DataLoader, Position
from pymc_streaming.notices import warn
from pymc_streaming.progress import FitProgress, History, PassProgress, Recorder
from pymc_streaming.vi.cores import leaving_cores, n_cores
from pymc_streaming.vi.description import describe_model
from pymc_streaming.vi.guides import n_parameters
from pymc_streaming.vi.optimizers import AnnealedAdam, Optimizer, describe_optimizer
from pymc_streaming.vi.start import sample_size

__all__ = ["ModelFits"]

logger = logging.getLogger("pymc_streaming")


class ModelFits:
    """Fits of one model to the rows of one loader, each going on where the one before it ended.

    Parameters
    ----------
    model : pymc.Model
        The model.
    data_name, method, init, optimizer
        As for `Trainer`.
    loader : DataLoader
        The rows.
    compile_kwargs : mapping
        Passed to ``pytensor.function``.
    random : numpy.random.Generator
        For all that is random but the order of the rows.
    seed_given : bool, default True
        Whether that was chosen, so that a state with another is of another fit.

    Attributes
    ----------
    subject : Subject or None
        The model, once it is checked.
    steps : StochasticFit or None
        What takes stochastic steps, once it is compiled.
    exact : ExactFit or None
        What makes exact passes, once it is compiled.
    approximation : pymc.variational.opvi.Approximation or None
        The result so far.
    result : FitResult or None
        How the last fit ended; None if it had a number of steps.
    in_order : bool
        Whether there was a warning of the order of the rows.
    seed : int
        For what of the start is random.
    """

    def __init__(
        self,
        model: pm.Model,
        data_name: str | Mapping[str, str] | None,
        method: str,
        init: str | Mapping[str, Any] | None,
        loader: DataLoader,
        optimizer: AnnealedAdam | Optimizer,
        compile_kwargs: Mapping[str, Any],
        random: np.random.Generator,
        *,
        seed_given: bool = True,
    ) -> None:
        self._model, self._data_name, self._method, self._init = model, data_name, method, init
        self._loader, self._optimizer = loader, optimizer
        self._compile_kwargs, self._random = compile_kwargs, random
        self.seed, self._seed_given = int(random.integers(2**31)), seed_given
        self.subject: Subject | None = None
        self.steps: StochasticFit | None = None
        self.exact: ExactFit | None = None
        self.approximation: Approximation | None = None
        self.result: FitResult | None = None
        self._has_start = False  # whether the parameters are where the first step is from
        self.in_order = False
        self._recorder = Recorder()
        self._written: tuple[np.ndarray, np.ndarray] | None = None
        # Of a fit that is being made, or was interrupted.
        self._journal: Journal | None = None
        self._rounds: Rounds | None = None
        # Parts of a state whose owners are not made yet.
        self._loaded = State()
        self._identity: dict[str, Any] | None = None

    @property
    def history(self) -> History:
        """What was recorded so far."""
        return self._recorder.history()

    def take_steps(
        self, n: int, loader: DataLoader, progressbar: bool, keeper: Keeper, *, goes_on: bool
    ) -> None:
        """Take `n` stochastic steps.

        Parameters
        ----------
        n : int
            How many.
        loader : DataLoader
            The rows, maybe from elsewhere.
        progressbar : bool
            Whether to show progress.
        keeper : Keeper
            Saves the state.
        goes_on : bool
            Whether to take the rest of the steps that were begun before.

        Raises
        ------
        NonFiniteError, IndexRangeError
            If a step cannot be taken; those before it were.
        """
        self.result = None
        with self._stepping(n, loader, progressbar) as (steps, stream, progress):
            if not goes_on or not steps.has_begun:
                steps.begin(n)
            keeper.save()
            steps.run(stream, progress, keeper)
        steps.warn_if_moving(self.in_order)

    def take_steps_until_converged(
        self, most: int, loader: DataLoader, progressbar: bool, keeper: Keeper, *, goes_on: bool
    ) -> None:
        """Take at most so many steps, in rounds; takes the same as `take_steps`. See `result`."""
        with self._stepping(most, loader, progressbar) as (steps, stream, progress):
            if not goes_on or self._rounds is None:
                self._rounds = first_round(loader, most, steps.step.completed)
            keeper.save()
            self.result = fit_in_rounds(
                self._rounds,
                steps,
                loader,
                stream,
                self._random,
                progress,
                keeper,
                self._check_by_a_pass,
            )

    def make_passes(
        self,
        max_passes: int,
        sample_rows: int,
        loader: DataLoader,
        progressbar: bool,
        keeper: Keeper,
        *,
        goes_on: bool,
    ) -> None:
        """Make exact passes until converged; see `result`.

        Parameters
        ----------
        max_passes : int
            How many at most.
        sample_rows : int
            Rows that are fitted first.
        loader, progressbar, keeper, goes_on
            As for `take_steps`.
        """
        with (
            PassProgress(loader.total_size, max_passes, enabled=progressbar) as progress,
            leaving_cores(n_cores()),
        ):
            exact = self.prepare_passes()
            self._has_start = True
            guide = exact.subject.guide
            if not goes_on or self._journal is None:
                self._journal = Journal(guide, self._random, sample_rows)
            keeper.save()
            try:
                self.result = exact.run(
                    loader, self._journal, self._random, max_passes, progress, keeper
                )
            finally:
                self._write(guide.location, guide.scales)
        self._warn_of_modes(self.result.n_modes)

    def settle(self) -> None:
        """What was begun has come to its end: what follows begins anew from there."""
        if self.steps is not None and self.steps.has_ended:  # others may be unfinished for good
            self.steps.settle()
        self._rounds = self._journal = None

    def prepare_steps(self, batch: Mapping[str, np.ndarray]) -> StochasticFit:
        """Check the model on a batch, find the start, then compile what takes steps."""
        if self._loader.batch_size == 1:
            raise ArgumentError(
                "Steps need batches of two rows or more: batch_size= of the loader."
            )
        subject = self.subject_with(batch)
        if self._init == "map" and not self._has_start:
            self._begin_at_map()
        self._has_start = True
        self.steps = StochasticFit(
            subject,
            self._loader,
            batch,
            self._optimizer,
            self._compile_kwargs,
            self._random,
            self._recorder,
        )
        if "steps" in self._loaded:
            self.steps.load(self._loaded.part("steps"))
        return self.steps

    def prepare_passes(self) -> ExactFit:
        """What makes exact passes, compiled once."""
        if self.exact is None:
            with self._loader.stream() as stream:
                batch = next(stream)
            subject = self.subject_with(batch)
            self.exact = ExactFit(subject, self._loader, batch, self._compile_kwargs)
            if "exact" in self._loaded:
                self.exact.load(self._loaded.part("exact"))
        self.exact.subject.check_unchanged()
        return self.exact

    def subject_with(self, batch: Mapping[str, np.ndarray]) -> Subject:
        """The model, checked before the first fit and unchanged since."""
        if self.subject is None:
            self.subject = subject_of(
                self._model,
                self._data_name,
                self._method,
                self._init,
                self._loader,
                batch,
                self.seed,
            )
        self.subject.check_unchanged()
        return self.subject

    def state(self) -> State | None:
        """All that another process needs to go on; None if there is nothing yet."""
        if self.subject is None:
            return None
        if self._identity is None:
            self._identity = self._describe()
        guide, history = self.subject.guide, self.history
        of_steps = ("step", "loss", "rows", "seconds")
        parts = {
            "guide": State({"location": guide.location, "scales": guide.scales}),
            "history": State({name: getattr(history, name) for name in of_steps}),
        }
        owners = {
            "steps": self.steps,
            "exact": self.exact,
            "journal": self._journal,
            "rounds": self._rounds,
        }
        for name, owner in owners.items():
            if owner is not None:
                parts[name] = owner.state()
            elif name in self._loaded:
                parts[name] = self._loaded.part(name)
        if self._written is not None:
            parts["written"] = State(dict(zip(("location", "scales"), self._written, strict=True)))
        facts = {
            "seed": self.seed,
            "random": random_state(self._random),
            "in_order": self.in_order,
            "has_start": self._has_start,
            "result": self.result.to_dict() if self.result else None,
            "identity": self._identity,
            "order": self._loader.identity(),
        }
        return State.of(fits=State(facts=facts), **parts)

    def load(self, state: State) -> None:
        """Be where another process was.

        Raises
        ------
        CheckpointMismatchError
            If it was with another model, other rows, or otherwise.
        """
        facts = state.facts["fits"]
        try:
            self._loader.follow(facts["order"])
        except ArgumentError as error:
            raise CheckpointMismatchError(f"The checkpoint is of other rows. {error}") from error
        if self._seed_given and facts["seed"] != self.seed:
            raise CheckpointMismatchError(
                "The checkpoint is of a fit with another random_seed. Give the same, or none to "
                "take it over; or begin anew without resume=."
            )
        self.seed = facts["seed"]
        with self._loader.stream() as stream:
            subject = self.subject_with(next(stream))
        self._identity = self._describe()
        _refuse_differences(facts["identity"], self._identity)
        set_random_state(self._random, facts["random"])
        self.in_order, result = facts["in_order"], facts["result"]
        self._has_start = facts["has_start"]
        self.result = FitResult.of(result) if result else None
        self._recorder.load(History(**state.part("history").arrays))
        guide, saved = subject.guide, state.part("guide").arrays
        guide.location[:], guide.scales[:] = saved["location"], saved["scales"]
        self._journal = Journal.of(state.part("journal")) if "journal" in state else None
        self._rounds = Rounds.of(state.part("rounds")) if "rounds" in state else None
        if "written" in state:
            written = state.part("written").arrays
            self._write(written["location"], written["scales"])
        self._loaded = state

    def _describe(self) -> dict[str, Any]:
        """What must be the same for a state to be of these fits, in words."""
        assert self.subject is not None
        binding, init = self.subject.binding, self._init
        arrays = {
            name: f"{spec.dtype}{spec.row_shape} {' '.join(spec.columns)}".rstrip()
            for name, spec in self._loader.layout.items()
        }
        return {
            "method": self._method,
            "batch size": self._loader.batch_size,
            "init": f"values of {sorted(init)}" if isinstance(init, Mapping) else init,
            "optimizer": describe_optimizer(self._optimizer),
            "floatX": pytensor.config.floatX,
            "bit generator": type(self._random.bit_generator).__name__,
            "variables": describe_model(self._model, list(binding.placeholders.values())),
            "arrays": arrays,
            "table": self._loader.source.fingerprint,
            "first rows": self._digest_of_first_rows(),
        }

    def _digest_of_first_rows(self) -> str:
        """Of a batch in the order of the source."""
        size, digest = self._loader.batch_size, hashlib.sha256()
        with closing(self._loader.blocks(size)) as blocks:
            for array in next(blocks).values():
                digest.update(np.ascontiguousarray(array[:size]).tobytes())
        return digest.hexdigest()[:16]

    @property
    def _position(self) -> Position:
        """Where in the stream the next step begins."""
        if self.steps is not None:
            return self.steps.position
        if "steps" in self._loaded:
            epoch, row = self._loaded.part("steps").facts["position"]
            return epoch, row
        return 0, 0

    @property
    def has_taken_steps(self) -> bool:
        """Whether stochastic steps were begun, here or in a state."""
        return self.steps is not None or "steps" in self._loaded

    @contextmanager
    def _stepping(
        self, n: int, loader: DataLoader, progressbar: bool
    ) -> Iterator[tuple[StochasticFit, BatchStream, FitProgress]]:
        """What takes steps, and the batches they are taken on; then the result is written."""
        with (
            FitProgress(n, loader.batch_size, enabled=progressbar) as progress,
            loader.stream(self._position) as stream,
            leaving_cores(loader.num_workers),
        ):
            steps = self.steps or self.prepare_steps(stream.peek())
            steps.subject.check_unchanged()
            try:
                yield steps, stream, progress
            finally:
                self._write(*steps.step.averages())

    def _write(self, location: np.ndarray, scales: np.ndarray) -> None:
        """Let the approximation have these parameters."""
        assert self.subject is not None
        self.approximation = self.subject.guide.write(location, scales)
        self.approximation.hist = self.history.loss
        self._written = location.copy(), scales.copy()

    def _begin_at_map(self) -> None:
        """Bring the parameters near before the first step."""
        exact = self.prepare_passes()
        guide, random = exact.subject.guide, random_state(self._random)
        before = guide.location.copy(), guide.scales.copy()
        try:
            with PassProgress(self._loader.total_size, 1, enabled=False) as progress:
                n_modes = exact.bring_near(self._loader, self._sample_rows, self._random, progress)
        except BaseException:  # it will be begun anew, and must come to the same
            guide.location[:], guide.scales[:] = before
            set_random_state(self._random, random)
            raise
        self._warn_of_modes(n_modes)

    def _check_by_a_pass(self) -> FitResult | None:
        """One exact pass from where steps have led; None if the model allows none."""
        loader = self._loader
        try:
            exact = self.prepare_passes()
        except (FixedRowsError, ArgumentError) as error:
            logger.warning("No exact pass checks where the steps came to rest. %s", error)
            return None
        journal = Journal(exact.subject.guide, self._random, self._sample_rows)
        with PassProgress(loader.total_size, 1, enabled=False) as progress:
            return exact.run(loader, journal, self._random, 1, progress, Keeper(), here=True)

    @property
    def _sample_rows(self) -> int:
        source, n_rows = self._loader.source, self._loader.total_size
        return sample_size(n_rows, n_parameters(self._model), source.row_nbytes)

    def _warn_of_modes(self, n_modes: int) -> None:
        if n_modes > 1:
            warn(
                f"Fits of a sample from several starts ended in {n_modes} modes about as high as "
                "each other, and the result describes one of them alone. Say in the model which is "
                "meant (an ordered transform, a prior of one sign), or choose it (init={...}).",
                SeveralModesWarning,
            )


def _refuse_differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise `CheckpointMismatchError` if anything is another."""
    different = []
    for key in sorted(saved.keys() | here.keys()):
        then, now = saved.get(key), here.get(key)
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            for name in sorted(then.keys() | now.keys()):
                if then.get(name) != now.get(name):
                    words = (_or_nothing(each.get(name)) for each in (then, now))
                    different.append("{}: {} in the checkpoint, {} here".format(name, *words))
        elif then != now:
            different.append(f"{key}: {then!r} in the checkpoint, {now!r} here")
    if different:
        raise CheckpointMismatchError(
            f"The checkpoint is of another fit: {'; '.join(different)}. Resume with the model, "
            "the data and the settings it was made with, or begin anew without resume=."
        )


def _or_nothing(words: str | None) -> str:
    return "not there" if words is None else f"({words})"
