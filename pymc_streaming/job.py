"""A fit as a job: from files to a folder of results, in one go or in several."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pymc as pm
import xarray as xr
from pymc.variational.opvi import Approximation

from pymc_streaming.arguments import place_and_function
from pymc_streaming.diagnosis import Diagnosis
from pymc_streaming.diagnosis.records import plain
from pymc_streaming.errors import ArgumentError, OutputError, OutputExistsError
from pymc_streaming.loader import DataLoader
from pymc_streaming.progress import History
from pymc_streaming.sources import IterableDataset, arrow_source, parquet_source
from pymc_streaming.sources.files import find_tables
from pymc_streaming.sources.skipped import in_words
from pymc_streaming.trainer import Trainer
from pymc_streaming.vi.guides import element_names
from pymc_streaming.writing import write_wholly

__all__ = ["Job", "Outcome", "run_job"]

_PACKAGES = "pymc-streaming", "pymc", "pytensor", "numpy", "pyarrow"


@dataclass(frozen=True)
class Job:
    """What is to be done; see ``pymc-streaming fit --help``.

    Parameters
    ----------
    model : str
        ``"MODULE:FUNCTION"`` or ``"FILE.py:FUNCTION"``, from the loader to the model.
    data : str or list of str
        Paths of the table.
    output : pathlib.Path
        Folder of the results.
    columns, categories, transform
        As for `parquet_source`, but for `transform`, which is named as the model is.
    on_bad_file : {"error", "skip"}
        As for `parquet_source`.
    batch_size, shuffle, buffer_size
        As for `DataLoader`.
    method, steps, max_passes, strategy, memory_limit
        As for `Trainer` and its `fit`.
    seed : int
        Of the order of the rows, and of the fit.
    checkpoint_every : str
        As for `Trainer`.
    resume : bool
        Whether to go on.
    draws : int
        Draws of the posterior.
    diagnosis : bool
        Whether to make one.
    overwrite : bool
        Whether to replace results.
    progressbar : bool
        Whether to show progress.
    """

    model: str
    data: str | list[str]
    output: Path
    columns: Any = None
    categories: bool = False
    transform: str | None = None
    on_bad_file: str = "error"
    batch_size: int = 4096
    shuffle: bool = True
    buffer_size: int | None = None
    method: str = "advi"
    steps: int | None = None
    max_passes: int | None = None
    strategy: str = "auto"
    memory_limit: str | None = None
    seed: int = 0
    checkpoint_every: str = "5min"
    resume: bool = False
    draws: int = 1000
    diagnosis: bool = True
    overwrite: bool = False
    progressbar: bool = True


@dataclass(frozen=True)
class Outcome:
    """What came of a job. ``str(outcome)`` is for people.

    Parameters
    ----------
    output : pathlib.Path
        Where the results are.
    facts : dict
        What is in ``fit.json`` there.
    diagnosis : Diagnosis or None
        If one was made.
    """

    output: Path
    facts: dict[str, Any]
    diagnosis: Diagnosis | None

    def to_dict(self) -> dict[str, Any]:
        """All of this, as JSON can hold it."""
        return self.facts

    def __str__(self) -> str:
        lines = [f"{self.output}: {self.facts['rows']:,} rows, {self.facts['how_it_ended']}"]
        lines += [f"left out: {each['path']}" for each in self.facts["skipped"]]
        if self.diagnosis is not None:
            lines += ["", str(self.diagnosis)]
        return "\n".join(lines)


def run_job(job: Job) -> Outcome:
    """Read, fit, diagnose, write.

    Raises
    ------
    StreamingError
        If any of it is not possible.
    KeyboardInterrupt
        If it was interrupted, after its state was saved.
    """
    began = time.perf_counter()
    checkpoints = job.output / "checkpoints"
    _check_output(job, checkpoints)
    loader = DataLoader(
        _source(job),
        job.batch_size,
        shuffle=job.shuffle,
        buffer_size=job.buffer_size if job.shuffle else None,
        seed=job.seed,
    )
    model = _named(job.model, "model")(loader)
    if not isinstance(model, pm.Model):
        raise ArgumentError(
            f"{job.model} should return a pm.Model, found {type(model).__name__}. Return the model "
            "that the `with` block made."
        )
    trainer = Trainer(
        job.method,
        loader,
        model=model,
        random_seed=job.seed,
        strategy=job.strategy,
        memory_limit=job.memory_limit,
        checkpoint_dir=checkpoints,
        checkpoint_every=job.checkpoint_every,
        progressbar=job.progressbar,
    )
    plan = trainer.plan(job.steps)
    arguments = {"max_passes": job.max_passes} if job.steps is None else {}
    approximation = trainer.fit(job.steps, **arguments, resume="auto" if job.resume else None)
    if trainer.was_interrupted:
        raise KeyboardInterrupt
    diagnosis = trainer.diagnose() if job.diagnosis else None
    result = trainer.result
    facts = {
        "model": job.model,
        "data": job.data,
        "rows": len(loader),
        "skipped": [asdict(each) for each in loader.source.skipped],
        "method": job.method,
        "plan": str(plan),
        "how_it_ended": str(result) if result else _steps_in_words(job, loader),
        "converged": result.converged if result else None,
        "result": result.to_dict() if result else None,
        "trusted": diagnosis.trusted if diagnosis else None,
        "columns": job.columns,
        "transform": job.transform,
        "batch_size": job.batch_size,
        "steps": job.steps,
        "seed": job.seed,
        "seconds": round(time.perf_counter() - began, 3),
        "versions": {package: version(package) for package in _PACKAGES},
    }
    facts = plain(facts)
    draws = approximation.sample(job.draws, random_seed=job.seed)
    # The others would have the rows of the placeholder, which are none of the table.
    draws = xr.DataTree.from_dict({"posterior": draws["posterior"].to_dataset()})
    _write(job.output, trainer.history, approximation, draws, diagnosis, facts)
    return Outcome(job.output, facts, diagnosis)


def _steps_in_words(job: Job, loader: DataLoader) -> str:
    lacks = f". {in_words(loader.source.skipped)}." if loader.source.skipped else ""
    return f"{job.steps:,} steps{lacks}"


def _check_output(job: Job, checkpoints: Path) -> None:
    """Make the folder; refuse to mix results."""
    done, begun = job.output / "fit.json", any(checkpoints.glob("*.safetensors"))
    if (done.exists() or begun) and not (job.overwrite or job.resume):
        there = "are results" if done.exists() else "is an interrupted fit"
        raise OutputExistsError(
            f"{job.output}: there {there} already. --resume goes on where it was, --overwrite "
            "begins anew."
        )
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        if job.overwrite and not job.resume:
            done.unlink(missing_ok=True)
            for path in checkpoints.glob("*.safetensors"):
                path.unlink()
    except OSError as error:
        raise OutputError(f"{job.output}: results cannot be written here: {error}.") from error


def _source(job: Job) -> IterableDataset:
    kind, _ = find_tables(job.data)
    options: dict[str, Any] = {"columns": job.columns, "on_bad_file": job.on_bad_file}
    if job.categories:
        options["categories"] = "auto"
    if job.transform is not None:
        options["transform"] = _named(job.transform, "--transform")
    if kind == "csv":
        raise ArgumentError(
            f"{job.data}: CSV is not read by a fit. Turn it into Parquet first, shuffled, with "
            "`pymc-streaming shuffle`, and fit that folder."
        )
    return (parquet_source if kind == "parquet" else arrow_source)(job.data, **options)


def _named(name: str, what: str) -> Callable[..., Any]:
    """The function that ``"MODULE:FUNCTION"`` or ``"FILE.py:FUNCTION"`` names."""
    place, function = place_and_function(what, name)
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(place)
    except (ImportError, FileNotFoundError) as error:
        raise ArgumentError(f"{what}: {place} cannot be imported: {error}.") from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [
            each for each in vars(module) if callable(getattr(module, each)) and each[0] != "_"
        ]
        raise ArgumentError(f"{what}: {place} has no function {function!r}; it has {names}.")
    return found  # type: ignore[no-any-return]


def _write(
    folder: Path,
    history: History,
    approximation: Approximation,
    draws: Any,
    diagnosis: Diagnosis | None,
    facts: dict[str, Any],
) -> None:
    """Every file wholly or not at all, and last what says that all of them are there."""
    write_wholly(folder / "posterior.nc", lambda path: draws.to_netcdf(path, engine="h5netcdf"))
    moments = (each.eval().tolist() for each in (approximation.mean, approximation.std))
    parameters = zip(element_names(approximation), *moments, strict=True)
    write_wholly(folder / "parameters.csv", _csv(("parameter", "mean", "sd"), parameters))
    columns = ("step", "loss", "rows", "seconds")
    entries = zip(*(getattr(history, name).tolist() for name in columns), strict=True)
    write_wholly(folder / "history.csv", _csv(columns, entries))
    if diagnosis is None:
        for name in ("diagnosis.json", "diagnosis.png"):  # of an earlier end
            (folder / name).unlink(missing_ok=True)
    else:
        text = json.dumps(diagnosis.to_dict(), indent=2, allow_nan=False)
        write_wholly(folder / "diagnosis.json", text.encode())
        picture = io.BytesIO()
        diagnosis.plot().savefig(picture, format="png", dpi=150)
        write_wholly(folder / "diagnosis.png", picture.getvalue())
    write_wholly(folder / "fit.json", json.dumps(facts, indent=2, allow_nan=False).encode())


def _csv(names: Any, rows: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode()
