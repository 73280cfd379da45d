"""What the speed of is compared: each a function that takes so many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm

from benchmarks import page_cache
from benchmarks.models import Model
from pymc_streaming import DataLoader, Trainer, arrow_source, parquet_source

TITLES = {
    "minibatch": "pm.fit, pm.Minibatch, in memory",
    "minibatch-adam": "pm.fit, pm.Minibatch, pm.adam, in memory",
    "extras": "pymc-extras, from Parquet",
    "numpyro-scan": "NumPyro, scan, in memory",
    "numpyro-index": "NumPyro, random rows, in memory",
    "numpyro-host": "NumPyro, host batches, in memory",
    "parquet": "this package, Parquet",
    "parquet-cold": "this package, Parquet, cold",
    "arrow": "this package, Arrow",
    "arrow-cold": "this package, Arrow, cold",
    "arrow-shuffle": "this package, Arrow, re-shuffled",
    "arrow-shuffle-cold": "this package, Arrow, re-shuffled, cold",
    "resident": "limit: views of a resident array",
    "fixed": "limit: one batch held fixed",
}
COLD = "-cold"
NOISE_STEPS = 64
# Batches in the shuffle buffer of pymc-extras, by default: filling it takes many times as long as
# a step, so it is timed over whole buffers.
EXTRAS_BUFFER = 50


@dataclass(frozen=True)
class Contestant:
    """How one contestant is timed.

    `run` takes a number of steps that is a multiple of `unit`. `files` are what it reads; before
    it is timed they are read once, or dropped from memory if it is `cold`, and then it goes once
    through the table, whatever time that takes.
    """

    run: Callable[[int], Any]
    unit: int = 1
    files: Sequence[Path] = ()
    cold: bool = False


class Contest:
    """All contestants on one model and one size of batch, made when they are asked for.

    Parameters
    ----------
    model : Model
        What is fitted.
    rows : ndarray
        The table in floatX, its columns side by side.
    parquet, arrow : Path
        The table on disk, shuffled by the package.
    batch_size : int
        Rows of a batch.
    """

    def __init__(
        self, model: Model, rows: np.ndarray, parquet: Path, arrow: Path, batch_size: int
    ) -> None:
        self.model, self.rows, self.batch_size = model, rows, batch_size
        self.parquet, self.arrow = parquet, arrow
        self._made: dict[str, Contestant] = {}

    def contestant(self, name: str) -> Contestant:
        """One of `TITLES`."""
        if name.endswith(COLD):
            warm = self._streaming(name.removesuffix(COLD))
            return Contestant(warm.run, files=warm.files, cold=True)
        if name in ("parquet", "arrow", "arrow-shuffle"):
            return self._streaming(name)
        if name == "numpyro-scan":
            return Contestant(self._numpyro.scan(), unit=self._numpyro.scan_length)
        if name == "extras":
            files = page_cache.files_of(self.parquet)
            return Contestant(self.extras(0)[1], unit=EXTRAS_BUFFER, files=files)
        makers: dict[str, Callable[[], Callable[[int], Any]]] = {
            "minibatch": self._minibatch,
            "minibatch-adam": lambda: self._minibatch(obj_optimizer=pm.adam(learning_rate=0.01)),
            "numpyro-index": lambda: self._numpyro.index(),
            "numpyro-host": lambda: self._numpyro.host(),
            "resident": lambda: self._limits[0],
            "fixed": lambda: self._limits[1],
        }
        return Contestant(makers[name]())

    def minibatch_model(self) -> pm.Model:
        """On whole arrays in memory; PyMC picks rows at random, with replacement."""
        arrays = {
            name: np.ascontiguousarray(array) for name, array in self.model.split(self.rows).items()
        }
        with pm.Model() as model:
            batches = pm.Minibatch(*arrays.values(), batch_size=self.batch_size)
            self._likelihood(dict(zip(arrays, batches, strict=True)))
        return model

    def _minibatch(self, **options: Any) -> Callable[[int], Any]:
        with self.minibatch_model():
            inference = pm.ADVI(random_seed=0)
            inference.fit(2, progressbar=False, **options)
        return lambda n: inference.refine(n, progressbar=False)

    def extras(self, seed: int) -> tuple[Any, Callable[[int], Any]]:
        """Its own trainer, which has taken two steps, and a function that takes more.

        Its own loader shuffles within a buffer.
        """
        from pymc_extras.inference.advi import Trainer as ExtrasTrainer
        from pymc_extras.variational import DataLoader as ExtrasLoader
        from pymc_extras.variational import parquet_source as extras_source

        loader = ExtrasLoader(
            extras_source(str(self.parquet), columns=self.model.columns),
            batch_size=self.batch_size,
            shuffle=True,
            seed=seed,
        )

        def endless() -> Iterator[dict[str, np.ndarray]]:
            while True:
                for batch in loader:
                    if len(batch) == self.batch_size:
                        yield {"batch": batch.astype(self.rows.dtype, copy=False)}

        model = self._packed_model(np.zeros((self.batch_size, self.rows.shape[1]), self.rows.dtype))
        trainer, stream = ExtrasTrainer(random_seed=seed), endless()

        def run(n: int, **options: Any) -> None:
            with redirect_stdout(StringIO()):  # of its progress bar
                trainer.fit(n, data=stream, model=model, **options)

        run(2, random_seed=seed)
        return trainer, run

    @cached_property
    def _numpyro(self) -> Any:
        from benchmarks.numpyro_svi import NumPyro

        return NumPyro(self.model, self.rows, self.batch_size)

    def _streaming(self, name: str) -> Contestant:
        """Warm and cold share one."""
        if name not in self._made:
            folder = self.parquet if name == "parquet" else self.arrow
            loaders = {
                "parquet": self._parquet_loader,
                "arrow": self.arrow_loader,
                "arrow-shuffle": lambda: self.arrow_loader(shuffle=True, seed=0),
            }
            self._made[name] = self._stream(loaders[name](), folder)
        return self._made[name]

    def _stream(self, loader: DataLoader, folder: Path) -> Contestant:
        trainer = Trainer(
            "advi", loader, model=self.loader_model(loader), random_seed=0, progressbar=False
        )
        trainer.fit(2)
        return Contestant(trainer.fit, files=page_cache.files_of(folder))

    @cached_property
    def _limits(self) -> tuple[Callable[[int], None], Callable[[int], None]]:
        loader = self.arrow_loader()
        return resident_steps(self.loader_model(loader), loader, {"batch": self.rows}, "advi")

    def _parquet_loader(self) -> DataLoader:
        columns = self.model.arrays if self.model.grouped else self.model.columns
        return DataLoader(parquet_source(self.parquet, columns=columns), self.batch_size)

    def arrow_loader(self, **options: Any) -> DataLoader:
        return DataLoader(arrow_source(self.arrow), self.batch_size, **options)

    def loader_model(self, loader: DataLoader) -> pm.Model:
        """On several arrays where the loader has several, else on one."""
        zeros = loader.placeholder()
        if not isinstance(zeros, dict):
            return self._packed_model(zeros)
        with pm.Model() as model:
            arrays = {name: pm.Data(name, zero) for name, zero in zeros.items()}
            self._likelihood(arrays)
        return model

    def _packed_model(self, zeros: np.ndarray) -> pm.Model:
        with pm.Model() as model:
            self._likelihood(self.model.split(pm.Data("batch", zeros)))
        return model

    def _likelihood(self, arrays: Mapping[str, Any]) -> None:
        self.model.in_pymc(arrays, self.model.features, len(self.rows))


def resident_steps(
    model: pm.Model, loader: DataLoader, rows: Mapping[str, np.ndarray], method: str
) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """The steps of a fit without its reading: on consecutive views of arrays, and on one batch.

    Parameters
    ----------
    model : pymc.Model
        Model with placeholders for the arrays.
    loader : DataLoader
        Says how many rows there are, and how many in a batch.
    rows : mapping of str to ndarray
        The whole table, by name of the loader's arrays.
    method : {"advi", "fullrank_advi"}
        As for `Trainer`.

    Returns
    -------
    tuple of two functions
        Each takes so many steps.
    """
    trainer = Trainer(method, loader, model=model, random_seed=0, progressbar=False)
    size = loader.batch_size
    whole = len(loader) // size
    step = trainer._fits.prepare_steps({name: array[:size] for name, array in rows.items()}).step
    random, d = np.random.default_rng(0), trainer._fits.subject.guide.size

    def stepping(n_batches: int, at_once: int) -> Callable[[int], None]:
        taken = 0

        def run(n: int) -> None:
            nonlocal taken
            end = taken + n
            while taken < end:
                first = taken % n_batches
                count = min(at_once, end - taken, n_batches - first)
                views = {
                    name: array[first * size : (first + count) * size]
                    for name, array in rows.items()
                }
                noise = random.standard_normal((count, d))
                step(views, noise, np.full(count, 0.01), np.ones(count))
                taken += count

        return run

    return stepping(whole, NOISE_STEPS), stepping(1, 1)


def in_memory(arrow: Path) -> np.ndarray:
    """The table in floatX, a row after the other."""
    source = arrow_source(arrow)
    rows = source.layout["batch"].zeros(source.n_rows)
    at = 0
    for fragment in source.fragments:
        for block in source.read(fragment):
            rows[at : at + len(block["batch"])] = block["batch"]
            at += len(block["batch"])
    return rows
