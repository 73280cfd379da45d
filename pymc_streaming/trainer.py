"""The loop: batches in, steps taken, an approximation out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
from pymc.variational.opvi import Approximation

from pymc_streaming.arguments import in_words, one_of, random_generator, whole_number
from pymc_streaming.checkpoints import (
    CheckpointFolder,
    Keeper,
    Schedule,
    State,
    read_state,
    write_state,
)
from pymc_streaming.diagnosis import Diagnosis
from pymc_streaming.diagnosis import diagnose as diagnose_fit
from pymc_streaming.errors import (
    ArgumentError,
    MemoryLimitWarning,
    MissingCheckpointError,
    NotConvergedWarning,
    OrderedDataError,
    OrderedDataWarning,
)
from pymc_streaming.fits.calls import Call, Calls, Place
from pymc_streaming.fits.model_fits import ModelFits
from pymc_streaming.fits.result import FitResult
from pymc_streaming.fits.rounds import steps_of
from pymc_streaming.fits.stochastic import ORDER_FIRST
from pymc_streaming.loader import DataLoader
from pymc_streaming.notices import warn
from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.guard import order_warning
from pymc_streaming.planning import (
    STRATEGIES,
    Fit,
    Plan,
    check_fraction,
    check_limit,
    choose,
    memory_limit,
    ways,
)
from pymc_streaming.progress import History
from pymc_streaming.sources import KeptSource
from pymc_streaming.vi.binding import placeholder_names
from pymc_streaming.vi.compiling import arguments_of, backend_of
from pymc_streaming.vi.guides import GUIDES, n_parameters
from pymc_streaming.vi.initial import check_init
from pymc_streaming.vi.optimizers import AnnealedAdam, Optimizer, check_optimizer
from pymc_streaming.vi.status import Status
from pymc_streaming.vi.usage import unread_columns

__all__ = ["Trainer"]

logger = logging.getLogger("pymc_streaming")


class Trainer:
    """Fits a PyMC model by variational inference to the rows of a `DataLoader`.

    The trainer refills the model's ``pm.Data`` placeholder with the next full batch at every
    step. The rows left at the end of a pass open the next one, so every row counts equally
    often. Before anything is compiled, the model is checked for whatever would make the
    posterior wrong without an error.

    Parameters
    ----------
    method : {"advi", "fullrank_advi", "laplace"}, default "advi"
        Independent normals over the unconstrained variables; one dense normal; or Laplace's
        approximation, the dense normal at the mode with the curvature there.
    dataloader : DataLoader
        Where the batches come from.
    data_name : str or mapping of str to str, optional
        Name of the ``pm.Data`` for a loader of one array, or a mapping from the names of the
        loader's arrays to those of the ``pm.Data``. Default: they have the same names.
    model : pymc.Model, optional
        Default: the model on the context stack.
    init : {"map", "prior"} or mapping of str to array, optional
        Where a fit begins. "map": at the best of several fits of a sample of the rows, from PyMC's
        initial point and from random places around it. "prior": the same from draws of the prior;
        or, of a number of steps, one draw. A mapping gives values of free variables, by name, and
        leaves the others where PyMC has them. Default: "map" without a number of steps, and with
        one PyMC's initial point.
    optimizer : AnnealedAdam or function, optional
        Of stochastic steps; exact passes need none. Default ``AnnealedAdam()``, sized to the number
        of steps; or one of PyMC's update functions such as ``pm.adam(learning_rate=0.01)``.
    random_seed : int, numpy.random.Generator or None, optional
        Seed of the draws. The order of the rows has the loader's seed.
    backend : {"numba", "jax", "c"}, optional
        PyTensor backend. Default: PyTensor's own.
    compile_kwargs : mapping, optional
        Passed to ``pytensor.function``.
    on_ordered : {"error", "warn", "ignore"}, default "warn"
        What to do when the rows are in a meaningful order, and the loader's buffer cannot undo
        it; looked at before the first fit, unless the buffer holds the whole table.
    strategy : {"auto", "in_memory", "accumulate", "streaming"}, default "auto"
        How to go over the table; see `Plan`. What does not fit in memory gives way to what takes
        less, never to what takes more. "auto" is, for a fit without a number of steps, "in_memory"
        if the table fits and else "accumulate", which gives the same numbers; and "streaming" for
        one with.
    memory_fraction : float, default 0.75
        Of the memory that can be had, what the process may take: of the smaller of what the machine
        has free and what its container leaves, with what the process has.
    memory_limit : int or str, optional
        Instead, the most that the process may take: bytes, or words such as ``"48GB"``. Default:
        the environment variable ``PYMC_STREAMING_MEMORY_LIMIT``, else by `memory_fraction`. The
        plan follows it; it is not enforced.
    checkpoint_dir : str or os.PathLike, optional
        Folder in which the state of a fit is saved while it runs, at its end, and when it is
        interrupted, whether by Ctrl-C, by SIGTERM or by an error in the data. Default: it is not.
    checkpoint_every : int or str, default "5min"
        How often: a time, or a number of steps, of exact passes a number of passes.
    keep : int, default 3
        Checkpoints that are kept, the newest ones.
    progressbar : bool, default True
        Show progress, where there is a terminal.

    Attributes
    ----------
    strategy : str
        As given. Set it to go on another way: after steps, say, in exact passes by "auto".

    Raises
    ------
    ArgumentError
        If an argument cannot be meant.

    References
    ----------
    Kucukelbir, A., Tran, D., Ranganath, R., Gelman, A. and Blei, D. M. (2017).
    Automatic differentiation variational inference. *Journal of Machine Learning
    Research* 18(14), 1-45.

    Examples
    --------
    >>> import numpy as np, pymc as pm
    >>> from pymc_streaming import DataLoader, Trainer
    >>> y = np.random.default_rng(0).normal(3.0, 1.0, size=10_000)
    >>> loader = DataLoader(y, batch_size=500, shuffle=True, seed=0)
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu", 0.0, 10.0)
    ...     batch = pm.Data("batch", loader.placeholder())
    ...     _ = pm.Normal("y", mu, 1.0, observed=batch, total_size=len(loader))
    ...     approximation = Trainer("advi", loader, random_seed=0, progressbar=False).fit(2_000)
    >>> bool(abs(approximation.mean.eval()[0] - y.mean()) < 0.01)
    True
    """

    def __init__(
        self,
        method: str = "advi",
        dataloader: DataLoader | None = None,
        data_name: str | Mapping[str, str] | None = None,
        *,
        model: pm.Model | None = None,
        init: str | Mapping[str, Any] | None = None,
        optimizer: AnnealedAdam | Optimizer | None = None,
        random_seed: int | np.random.Generator | None = None,
        backend: str | None = None,
        compile_kwargs: Mapping[str, Any] | None = None,
        on_ordered: str = "warn",
        strategy: str = "auto",
        memory_fraction: float = 0.75,
        memory_limit: int | str | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str = "5min",
        keep: int = 3,
        progressbar: bool = True,
    ) -> None:
        if not isinstance(dataloader, DataLoader):
            raise ArgumentError(
                f"dataloader must be a DataLoader, found {type(dataloader).__name__}. "
                "Wrap the data: DataLoader(source, batch_size=4096)."
            )
        if model is not None and not isinstance(model, pm.Model):
            raise ArgumentError(f"model must be a pm.Model, found {model!r}.")
        try:
            self.model = pm.modelcontext(model)
        except TypeError as error:
            raise ArgumentError(
                "There is no model: pass model=, or make the Trainer inside the `with` block."
            ) from error
        check_init(init)
        self.method = one_of("method", method, sorted(GUIDES))
        self.dataloader = dataloader
        self.data_name = data_name
        self.init = init
        self.optimizer = AnnealedAdam() if optimizer is None else optimizer
        check_optimizer(self.optimizer)
        self.on_ordered = one_of("on_ordered", on_ordered, ("error", "warn", "ignore"))
        self.strategy = one_of("strategy", strategy, STRATEGIES)
        self.memory_fraction = check_fraction(memory_fraction)
        self.memory_limit = (
            None if memory_limit is None else check_limit("memory_limit", memory_limit)
        )
        self.progressbar = progressbar
        self._schedule = Schedule(checkpoint_every)
        self._folder = (
            CheckpointFolder(Path(checkpoint_dir), whole_number("keep", keep))
            if checkpoint_dir is not None
            else None
        )
        self._compile_kwargs = arguments_of(backend, compile_kwargs)
        self._fits = ModelFits(
            self.model,
            data_name,
            self.method,
            init,
            dataloader,
            self.optimizer,
            self._compile_kwargs,
            random_generator(random_seed),
            seed_given=random_seed is not None,
        )
        self._calls = Calls()
        self._kept: KeptSource | None = None

    @property
    def approximation(self) -> Approximation | None:
        """The result so far, also after an error or an interruption."""
        return self._fits.approximation

    @property
    def result(self) -> FitResult | None:
        """How the last fit ended; None if it had a number of steps."""
        return self._fits.result

    @property
    def history(self) -> History:
        """What was recorded so far, over all calls of `fit`."""
        return self._fits.history

    def plan(self, n: int | None = None) -> Plan:
        """How ``fit(n)`` would go over the table, with the memory there is now.

        Nothing is read or compiled for it. `fit` makes a plan of its own, logs it in one line, and
        follows it.

        Parameters
        ----------
        n : int, optional
            As for `fit`.

        Returns
        -------
        Plan
            The strategy, the estimated peak of memory and its parts, the limit and where it comes
            from, and the reason.

        Raises
        ------
        ArgumentError
            If the `strategy` that was asked for is not one for such a fit.

        Examples
        --------
        >>> import numpy as np, pymc as pm
        >>> from pymc_streaming import DataLoader, Trainer
        >>> loader = DataLoader(np.zeros(10_000), batch_size=500)
        >>> with pm.Model() as model:
        ...     mu = pm.Normal("mu", 0.0, 10.0)
        ...     batch = pm.Data("batch", loader.placeholder())
        ...     _ = pm.Normal("y", mu, 1.0, observed=batch, total_size=len(loader))
        ...     trainer = Trainer("advi", loader)
        >>> trainer.plan().strategy, trainer.plan(2_000).strategy
        ('in_memory', 'streaming')
        """
        if n is not None:
            whole_number("n", n)
            if self.strategy == "accumulate":
                raise ArgumentError(
                    'strategy="accumulate" makes exact passes until converged, which takes no '
                    'number of steps: fit(). For steps leave strategy out, or say "streaming".'
                )
        if n is None and self.strategy == "streaming":
            n = steps_of(self.dataloader, None)
        compiled = self._fits.exact if n is None else self._fits.steps
        fit = Fit(
            self.dataloader,
            n_parameters(self.model),
            self.method,
            backend_of(self._compile_kwargs),
            compiled is not None,
            self._kept.kept_nbytes if self._kept else 0,
        )
        limit = memory_limit(self.memory_limit, self.memory_fraction)
        return choose(self.strategy, ways(fit, self.strategy, n), len(self.dataloader), limit)

    def _follow(self, plan: Plan) -> DataLoader:
        """Say what the plan is; the loader to go by it."""
        logger.log(logging.WARNING if plan.is_fallback else logging.INFO, "%s", plan)
        if not plan.fits:
            warn(
                f"The fit takes more memory than it may: {plan}. Of that, "
                f"{in_words(plan.parts['process now'])} are what the process has already, and "
                f"{in_words(plan.parts['compilation'])} are for compiling. Allow more "
                "(memory_limit=, memory_fraction=), or take fewer columns, a smaller "
                "buffer_size, or strategy='streaming', which keeps no sample.",
                MemoryLimitWarning,
            )
        source = self.dataloader.source
        if plan.strategy != "in_memory" or source.is_in_memory:
            self._kept = None
            return self.dataloader
        if self._kept is None:
            self._kept = KeptSource(source)
        return self.dataloader.over(self._kept)

    def fit(
        self,
        n: int | None = None,
        *,
        max_passes: int | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> Approximation:
        """Fit until converged; or take exactly `n` steps, each on the next full batch.

        Without `n` the fit is made in exact passes: a sample of the rows is fitted first, then
        each pass goes over all rows and gives the gradient of the ELBO to rounding, until the
        parameters rest. Two or three passes are usual. `result` says how it ended. The order of
        the rows does not matter. With ``strategy="streaming"`` it is fitted in stochastic steps
        instead, in rounds each as long as all before it, until the averages of a round are off by
        less than 0.2 posterior standard deviations, and an exact pass confirms it.

        A second call goes on where the first one ended.

        With `n`, a second call goes on: from the same parameters, with the optimiser's state, at
        the next row of the stream. The learning rate starts anew, lower the more steps the fits
        before took to their end: at ``n / (n + those steps)`` of the first, so that a short
        second fit does not undo a long first one.

        Parameters
        ----------
        n : int, optional
            Number of steps. Default: exact passes until converged.
        max_passes : int, optional
            Most passes, of a fit without `n`. Default 20; with ``strategy="streaming"`` 200, or as
            many as make 100,000 steps.
        resume : {"auto"} or path, optional
            "auto": go on where an earlier run of the same program was, by the newest checkpoint in
            `checkpoint_dir`; if there is none, begin. Calls that had come to their end are not made
            again. A path, to a checkpoint, a folder of them, or what `save` wrote: go on from
            there. The result is the same, to the last bit, as without the interruption.

        Returns
        -------
        pymc.variational.opvi.Approximation
            PyMC's ``MeanField`` or ``FullRank``, the same object at every call, averaged over
            the last steps, with the recorded negative ELBO as ``hist``. After Ctrl-C it is
            what was fitted until then.

        Raises
        ------
        ModelError
            If streaming this model would give a wrong posterior.
        OrderedDataError
            If the order of the rows would, and `on_ordered` is "error".
        PlaceholderError
            If batches and ``pm.Data`` do not fit.
        NonFiniteError
            If the loss or its gradient is NaN or infinite. The parameters of the last good
            step are kept in `approximation`.
        IndexRangeError
            If a code in the data picks an element that a parameter does not have.
        SourceError
            If the data cannot be read. What was fitted is kept in `approximation`.
        CheckpointError
            If the checkpoint is damaged, or of another model, table, setting or call.

        Warns
        -----
        OrderedDataWarning
            If the order of the rows would give a wrong posterior, before anything is compiled.
        MemoryLimitWarning
            If the fit may take more memory than it may, whatever the strategy; see `plan`.
        NotConvergedWarning
            If parameters still moved at the end, steadily one way or by many posterior
            standard deviations; or if a fit without `n` did not converge.
        SeveralModesWarning
            If fits of a sample from several starts ended in different modes.
        """
        if max_passes is not None:
            max_passes = whole_number("max_passes", max_passes)
        in_steps = n is not None or self.strategy == "streaming"
        if in_steps and self.method == "laplace":
            raise ArgumentError(
                "method='laplace' is fitted in exact passes: fit() or fit(max_passes=...)."
            )
        if n is not None:
            if max_passes is not None:
                raise ArgumentError("max_passes is for a fit without n: fit(max_passes=...).")
            n = whole_number("n", n)
        call = Call(n, max_passes, self.strategy)
        with Keeper(self._folder, self._schedule, self._state) as keeper:
            if resume is None and not self._calls.asked and self._folder is not None:
                self._folder.refuse_what_is_there()
            self._load(resume)
            place = self._calls.place(call, resume)
            if place is not Place.PAST:
                self._make(call, keeper, goes_on=place is Place.INTERRUPTED)
        return self.approximation

    @property
    def was_interrupted(self) -> bool:
        """Whether the last call of `fit` did not come to its end."""
        return not self._calls.ended

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save all that another process needs to go on: ``fit(..., resume=path)``.

        Parameters
        ----------
        path : str or os.PathLike
            The file to write, in the safetensors format; what is there is replaced.

        Raises
        ------
        ArgumentError
            If nothing was fitted yet.
        OutputError
            If it cannot be written; what was there before is kept.
        """
        if (state := self._state()) is None:
            raise ArgumentError("There is nothing to save yet: call fit() first.")
        write_state(Path(path), state)

    def _state(self) -> State | None:
        fits = self._fits.state()
        return fits and State.of(calls=State(facts=self._calls.to_dict()), fits=fits)

    def _load(self, resume: str | os.PathLike[str] | None) -> None:
        """Be where another process was, if this one has not begun."""
        if resume is None or (resume == "auto" and self._calls.asked):
            return
        if self._calls.asked:
            raise ArgumentError(
                "resume= with a path is for a new Trainer, and this one has fitted already."
            )
        if resume == "auto":
            if self._folder is None:
                raise ArgumentError('resume="auto" needs the checkpoint_dir= of the Trainer.')
            found = self._folder.newest()
        elif Path(resume).is_dir():
            found = CheckpointFolder(Path(resume), 1).newest()
            if found is None:
                raise MissingCheckpointError(f"{os.fspath(resume)}: there is no checkpoint here.")
        else:
            found = Path(resume), read_state(Path(resume))
        if found is not None:
            path, state = found
            self._fits.load(state.part("fits"))
            self._calls.load(state.facts["calls"])
            logger.info("Going on from %s.", path)

    def _make(self, call: Call, keeper: Keeper, *, goes_on: bool) -> None:
        """Make a call of `fit`, or what is left of it."""
        try:
            if call.n is not None:
                ended = self._fit_in_steps(call.n, keeper, goes_on)
            elif self.strategy == "streaming":
                ended = self._fit_in_rounds(call.max_passes, keeper, goes_on)
            else:
                ended = self._fit_until_converged(call.max_passes, keeper, goes_on)
            if ended:
                with keeper.whole():
                    self._fits.settle()
                    self._calls.ended = True
        finally:
            keeper.save()
            if not self._calls.ended and keeper.latest is not None:
                logger.warning(
                    "What was fitted until then is in %s. To go on, make the same Trainer again "
                    "and call %s.",
                    keeper.latest,
                    call.to_resume,
                )

    def _fit_in_steps(self, n: int, keeper: Keeper, goes_on: bool) -> bool:
        """Stochastic steps on the next batches; whether all were taken."""
        try:
            loader = self._loader_for_steps(self.plan(n), n)
            self._fits.take_steps(n, loader, self.progressbar, keeper, goes_on=goes_on)
        except KeyboardInterrupt:
            steps = self._fits.steps
            logger.warning(
                "Interrupted after %s steps of all fits. What is returned is as noisy as "
                "the learning rate was high; call fit again, for some thousand steps, to "
                "settle it.",
                f"{steps.step.completed:,}" if steps else "0",
            )
            return False
        return True

    def _fit_in_rounds(self, max_passes: int | None, keeper: Keeper, goes_on: bool) -> bool:
        """Stochastic steps until converged; whether it came to an end."""
        most = steps_of(self.dataloader, max_passes)
        loader = self._loader_for_steps(self.plan(), most)
        self._fits.take_steps_until_converged(
            most, loader, self.progressbar, keeper, goes_on=goes_on
        )
        return self._say_how_it_ended()

    def _fit_until_converged(self, max_passes: int | None, keeper: Keeper, goes_on: bool) -> bool:
        """Exact passes over all rows; whether they came to an end."""
        most = 20 if max_passes is None else max_passes
        plan = self.plan()
        loader = self._follow(plan)
        self._fits.make_passes(
            most, plan.sample_rows, loader, self.progressbar, keeper, goes_on=goes_on
        )
        return self._say_how_it_ended()

    def _say_how_it_ended(self) -> bool:
        """Log it, and warn if there is reason to; False if it was interrupted."""
        assert self.result is not None
        interrupted = self.result.status is Status.INTERRUPTED
        logger.log(logging.WARNING if interrupted else logging.INFO, "%s", self.result)
        if not (self.result.converged or interrupted):
            text = self.result.status.value
            if self._fits.in_order and self.strategy == "streaming":
                text = f"{ORDER_FIRST} {text}"
            warn(text, NotConvergedWarning)
        return not interrupted

    def _loader_for_steps(self, plan: Plan, n: int) -> DataLoader:
        """What gives the batches, whose order is looked at before the first step."""
        loader = self._follow(plan)
        if not self._fits.has_taken_steps and self.on_ordered != "ignore":
            self._check_order(n)
        return loader

    def diagnose(self, loader: DataLoader | None = None, *, draws: int = 200) -> Diagnosis:
        """Find out in one pass over all rows whether the fit can be trusted.

        From the same reading of the table come the ELBO of all rows, importance weights of draws
        of the fit, how far it is to the optimum by the expected gradient, and a count of the rows.
        A sample gives the correlations that independent normals leave out. Memory depends on
        the block, the draws and the parameters, not on the number of rows. The parameters of the
        fit are not changed; the same fit gives the same diagnosis.

        Parameters
        ----------
        loader : DataLoader, optional
            Rows to look at, of the same arrays: the whole table, say, after a fit of a part.
            Default: those that were fitted.
        draws : int, default 200
            Draws of the fit at which the log-density of all rows is evaluated; at least 100. The
            time goes with them.

        Returns
        -------
        Diagnosis
            Print it. `Diagnosis.trusted` is the verdict, `Diagnosis.findings` are its reasons.

        Raises
        ------
        ArgumentError
            If nothing was fitted yet, or the loader gives other arrays than the fit had.
        SourceError
            If the data cannot be read.

        References
        ----------
        Yao, Y., Vehtari, A., Simpson, D. and Gelman, A. (2018). Yes, but did it work?: evaluating
        variational inference. *Proceedings of the 35th International Conference on Machine
        Learning*, PMLR 80, 5581-5590.

        Examples
        --------
        >>> import numpy as np, pymc as pm
        >>> from pymc_streaming import DataLoader, Trainer
        >>> y = np.random.default_rng(0).normal(3.0, 1.0, size=10_000)
        >>> loader = DataLoader(y, batch_size=500)
        >>> with pm.Model() as model:
        ...     mu = pm.Normal("mu", 0.0, 10.0)
        ...     batch = pm.Data("batch", loader.placeholder())
        ...     _ = pm.Normal("y", mu, 1.0, observed=batch, total_size=len(loader))
        ...     trainer = Trainer("advi", loader, random_seed=0, progressbar=False)
        >>> _ = trainer.fit()
        >>> trainer.diagnose().trusted
        True
        """
        fits = self._fits
        if fits.approximation is None or fits.subject is None:
            raise ArgumentError("There is nothing to diagnose yet: call fit() first.")
        fits.subject.check_unchanged()
        return diagnose_fit(
            fits.subject,
            self.dataloader,
            loader,
            self._compile_kwargs,
            fits.exact.terms if fits.exact else None,
            draws=draws,
            seed=fits.seed,
            in_steps=self.result is None or self.strategy == "streaming",
            progressbar=self.progressbar,
        )

    def _check_order(self, n: int) -> None:
        """Warn, or refuse, where batches would be no fair sample of the table."""
        loader = self.dataloader
        message = order_warning(
            loader.source,
            loader.total_size,
            Stream(loader.batch_size, loader.buffer_size),
            n,
            placeholder_names(self.data_name, list(loader.source.layout)),
            self._unread_columns,
            self.progressbar,
        )
        if message is None:
            return
        self._fits.in_order = True
        if self.on_ordered == "error":
            raise OrderedDataError(message)
        warn(message, OrderedDataWarning)

    def _unread_columns(self) -> set[tuple[str, int]]:
        with self.dataloader.stream((0, 0)) as stream:
            return unread_columns(self.model, self.data_name, next(stream))
