"""From calling fit to the first step taken: pm.fit and this package, compiling and compiled before.

pm.fit runs on pm.Minibatch with the table in memory, this package on the shuffled table in Arrow
files. Each measurement is a fit of one step in a fresh process in which everything is imported, and
the table is at hand. The first has empty folders for what PyTensor and numba compile (cold), the
next the same folders again (warm).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.models import MODELS
from benchmarks.processes import float_environment, from_fresh, own_caches, quiet
from benchmarks.recording import Recording, Results
from benchmarks.report import GREEN, GREY, ORANGE, Figure, Table, dots, new_figure, spread, text
from benchmarks.speed import PRECISIONS, prepare

READING = """\
The ratio is this package's time over that of `pm.fit` on the same model. What is compiled once on
a machine is kept, so the cold time is that of the first fit of a model, the warm one that of all
later fits with the same shapes."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=["logistic"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4096])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float64"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace, recording: Recording) -> None:
    n_rows = max(options.rows, 2 * max(options.batch_sizes))
    for name in options.models:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            from_fresh(prepare, name, folder, n_rows, options.seed, options.precisions)
            for _ in range(options.rounds):
                for precision in options.precisions:
                    for batch_size in options.batch_sizes:
                        for which in ("minibatch", "arrow"):
                            measure(recording, name, folder, precision, batch_size, which)


def measure(
    recording: Recording, name: str, folder: Path, precision: str, batch_size: int, which: str
) -> None:
    """A cold and a warm fit."""
    caches = folder / "caches"
    environment = own_caches(float_environment(precision), caches)
    for cache in ("cold", "warm"):
        seconds = from_fresh(
            first_step, name, folder / precision, batch_size, which, environment=environment
        )
        of = {"model": name, "precision": precision, "batch_size": batch_size}
        recording.add(
            "first step", {**of, "cache": cache, "contestant": which}, {"seconds": seconds}
        )
    shutil.rmtree(caches)


def first_step(name: str, arrow: Path, batch_size: int, which: str) -> float:
    """Seconds of a fit of one step; everything is imported and the table at hand before."""
    import pymc as pm

    from benchmarks.contestants import Contest, in_memory
    from pymc_streaming import Trainer

    quiet()
    contest = Contest(MODELS[name], in_memory(arrow), arrow, arrow, batch_size)
    if which == "minibatch":
        with contest.minibatch_model():
            started = time.perf_counter()
            pm.fit(1, method="advi", random_seed=0, progressbar=False)
    else:
        loader = contest.arrow_loader()
        model = contest.loader_model(loader)
        started = time.perf_counter()
        Trainer("advi", loader, model=model, random_seed=0, progressbar=False).fit(1)
    return time.perf_counter() - started


def tables(results: Results) -> list[Table]:
    rows = []
    for row in results.rows("first step", contestant="arrow"):
        others = {**row.of, "contestant": "minibatch"}
        (base,) = results.rows("first step", **others) or [None]
        rows.append(
            [
                MODELS[row.of["model"]].title,
                row.of["precision"],
                text(row.of["batch_size"]),
                row.of["cache"],
                spread(base, "seconds") if base else "–",
                spread(row, "seconds"),
                text(row.median("seconds") / base.median("seconds") if base else None, ".2f"),
            ]
        )
    headers = ["model", "precision", "batch", "cache", "pm.fit, s", "this package, s", "ratio"]
    return [Table("", headers, rows)]


def draw(results: Results) -> Figure:
    figure, panels = new_figure(1, 2, figsize=(10, 4), sharey=True)
    for axes, cache in zip(panels[0], ("cold", "warm"), strict=True):
        for which, label, style in (
            ("minibatch", "pm.fit, pm.Minibatch", {"color": ORANGE, "marker": "s"}),
            ("arrow", "this package", {"color": GREEN, "marker": "o"}),
        ):
            rows = results.rows("first step", cache=cache, contestant=which)
            labels = [
                f"{row.of['model']}, {row.of['batch_size']:,}, {row.of['precision']}"
                for row in rows
            ]
            dots(axes, rows, labels, "seconds", label=label, **style)
        axes.set_xlim(left=0)
        axes.set_title(f"caches of the compilers {cache}", color=GREY)
        axes.set_xlabel("seconds from calling fit to the first step")
    panels[0][0].legend(frameon=False)
    return figure
