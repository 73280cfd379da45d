"""Getting batches to the step: in the same thread, in another thread, in another process.

The same compiled loop takes the same steps of a logistic regression with 14 columns; what differs
is who reads, and how many batches one call of the loop gets.

calling thread      the thread that takes the steps reads, in between
thread              a second thread reads; what the package does
process             a second process reads, into memory that both share
..., a batch a call the same, but the loop is called for every batch
no reading          the steps on consecutive views of the table in memory
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import MODELS
from benchmarks.processes import each_from_fresh, float_environment, from_fresh, quiet
from benchmarks.recording import Recording, Results
from benchmarks.report import GREEN, Figure, dots, new_figure
from benchmarks.speed import PRECISIONS, prepare

MODEL = "logistic"
SOURCES = ("parquet", "arrow")
WAYS = ("calling thread", "thread", "process")
EACH = ", a batch a call"
ARRAYS = 3
READING = """\
With one batch a call, every step pays for a few calls of Python in the thread that takes the steps,
and for what the reading thread makes it wait: both want the interpreter's lock. With many, the lock
is free nearly all the time, and little is left that a process could do better. A process costs the
memory and the start of a second interpreter, and cannot take a source whose `read` is a function of
a notebook."""
FORMATS = {"microseconds": ",.0f"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float64"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a measurement should take")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace, recording: Recording) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        from_fresh(prepare, MODEL, folder, options.rows, options.seed, options.precisions)
        for precision in options.precisions:
            for batch_size in options.batch_sizes:
                arguments = (folder, precision, batch_size, options.rounds, options.seconds)
                environment = float_environment(precision)
                for of, found in each_from_fresh(measure, *arguments, environment=environment):
                    of = {"batch_size": batch_size, "precision": precision, **of}
                    recording.add("step", of, found)


def measure(
    folder: Path, precision: str, batch_size: int, rounds: int, seconds: float
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Time of a step for every source and way, in turn."""
    from benchmarks.contestants import Contest, in_memory, resident_steps

    quiet()
    rows = in_memory(folder / precision)
    contest = Contest(MODELS[MODEL], rows, folder / "parquet", folder / precision, batch_size)
    loader = contest.arrow_loader()
    resident, _ = resident_steps(contest.loader_model(loader), loader, {"batch": rows}, "advi")
    step = _stepping(contest)
    resident(64)
    n = 64
    while (taken := _seconds(resident, n)) < seconds / 4:
        n *= 2
    n = max(64, int(n * seconds / taken))
    for _ in range(rounds):
        yield {"source": "", "way": "no reading"}, {"microseconds": _seconds(resident, n) / n * 1e6}
        for source in SOURCES:
            for way in WAYS:
                for at_once in (64, 1):
                    with _stream(folder, precision, source, way, batch_size) as take:
                        started = time.perf_counter()
                        done = 0
                        while done < n:
                            done += step(take(min(at_once, n - done)))
                        found = (time.perf_counter() - started) / n * 1e6
                    named = way if at_once > 1 else way + EACH
                    yield {"source": source, "way": named}, {"microseconds": found}


def _seconds(run_steps: Callable[[int], None], n: int) -> float:
    started = time.perf_counter()
    run_steps(n)
    return time.perf_counter() - started


def _stepping(contest: Any) -> Callable[[dict[str, np.ndarray]], int]:
    """The compiled loop: takes the batches it is given, says how many."""
    from pymc_streaming import Trainer

    loader = contest.arrow_loader()
    trainer = Trainer("advi", loader, model=contest.loader_model(loader), progressbar=False)
    with loader.stream() as stream:
        compiled = trainer._prepare(stream.peek()).step
    random = np.random.default_rng(0)

    def step(batches: dict[str, np.ndarray]) -> int:
        count = len(batches["batch"]) // loader.batch_size
        noise = random.standard_normal((count, trainer._subject.guide.size))
        compiled(batches, noise, np.full(count, 0.01), np.ones(count))
        return count

    return step


def _loader(folder: Path, precision: str, source: str, batch_size: int, **options: Any) -> Any:
    from pymc_streaming import DataLoader, arrow_source, parquet_source

    rows = parquet_source(folder / "parquet") if source == "parquet" else None
    return DataLoader(rows or arrow_source(folder / precision), batch_size, **options)


@contextmanager
def _stream(
    folder: Path, precision: str, source: str, way: str, batch_size: int
) -> Iterator[Callable[[int], dict[str, np.ndarray]]]:
    """A function that gives so many batches at most, one after the other in memory."""
    arguments = (folder, precision, source, batch_size)
    if way == "process":
        with _another_process(*arguments) as take:
            yield take
    else:
        loader = _loader(*arguments, num_workers=int(way == "thread"))
        with loader.stream() as stream:
            stream.peek()  # it is running
            yield stream.take


@contextmanager
def _another_process(
    folder: Path, precision: str, source: str, batch_size: int
) -> Iterator[Callable[[int], dict[str, np.ndarray]]]:
    """The same from arrays that a child fills and this process gives back."""
    loader = _loader(folder, precision, source, batch_size)
    memory = loader._passes.memory()
    spec = loader.layout["batch"]
    nbytes = memory.n_rows * spec.row_nbytes
    context = multiprocessing.get_context("spawn")
    filled, free = context.SimpleQueue(), context.SimpleQueue()
    blocks = [SharedMemory(create=True, size=nbytes) for _ in range(ARRAYS)]
    child = context.Process(
        target=_fill,
        args=(folder, precision, source, batch_size, [b.name for b in blocks], filled, free),
        daemon=True,
    )
    child.start()
    shape = (memory.n_rows, *spec.row_shape)
    arrays = [np.ndarray(shape, spec.dtype, block.buf) for block in blocks]
    current, n_rows = filled.get()
    start = 0

    def take(most: int) -> dict[str, np.ndarray]:
        nonlocal current, n_rows, start
        if start == n_rows:
            free.put(current)
            current, n_rows = filled.get()
            start = 0
        stop = min(start + most * batch_size, n_rows)
        batches = {"batch": arrays[current][start:stop]}
        start = stop
        return batches

    try:
        yield take
    finally:
        child.terminate()
        child.join()
        arrays.clear()
        for block in blocks:
            with suppress(BufferError):  # a view of the last batches is still around
                block.close()
            block.unlink()


def _fill(
    folder: Path,
    precision: str,
    source: str,
    batch_size: int,
    names: list[str],
    filled: Any,
    free: Any,
) -> None:
    """The package's own loader, on shared memory instead of its own."""
    from pymc_streaming.loader.packing import Memory
    from pymc_streaming.loader.passes import Passes

    passes = _loader(folder, precision, source, batch_size, num_workers=0)._passes
    spec = passes.source.layout["batch"]
    n_rows = passes.memory().n_rows
    blocks = [SharedMemory(name, track=False) for name in names]
    arrays = [np.ndarray((n_rows, *spec.row_shape), spec.dtype, block.buf) for block in blocks]
    unused = list(range(len(arrays)))

    class Shared(Memory):
        def get(self) -> dict[str, np.ndarray]:
            self.current = unused.pop() if unused else free.get()
            return {"batch": arrays[self.current]}

    memory = Shared(passes.source.layout, n_rows, len(arrays))

    class Sharing(Passes):
        def memory(self) -> Memory:
            return memory

    with closing(Sharing(**vars(passes)).packed((0, 0), endless=True)) as stream:
        for packed in stream:
            filled.put((memory.current, len(packed)))


def draw(results: Results) -> Figure:
    sizes = results.keys("step", "batch_size")
    ways = [f"{way}{each}" for way in WAYS for each in ("", EACH)]
    figure, panels = new_figure(1, len(sizes), figsize=(1 + 5 * len(sizes), 6), sharey=True)
    for size, axes in zip(sizes, panels[0], strict=True):
        rows, labels = list(results.rows("step", batch_size=size, way="no reading")), ["no reading"]
        labels *= len(rows)
        for source in SOURCES:
            for way in ways:
                found = list(results.rows("step", batch_size=size, source=source, way=way))
                rows += found
                labels += [f"{source}: {way}"] * len(found)
        dots(axes, rows, labels, "microseconds", color=GREEN)
        axes.set_xlim(left=0)
        axes.set_title(f"batch {size:,}", size=10)
        axes.set_xlabel("µs a step (median, smallest to largest)")
    return figure
