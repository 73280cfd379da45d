"""Time until the posterior is accurate, over a suite of models, beside PyMC, pymc-extras, NumPyro.

Nobody is tuned: everybody fits independent normals to the same tables, with the same size of batch,
and with the settings that the documentation of each begins with.

this                        this package's fit() without a number of steps, from an Arrow table on
                            disk; it ends by itself
pm-fit, pm-adam             pm.fit on pm.Minibatch with the table in memory, with its default
                            optimiser, and with pm.adam(learning_rate=0.01)
extras                      the DataLoader and the Trainer of pymc-extras, from Parquet, shuffled
numpyro-float32, -float64   NumPyro's SVI (AutoNormal, Adam), the table in memory; the learning rate
                            falls from 0.01 to 0 as a cosine; all steps in one compiled call

Accurate is a fit whose means are all within 0.1 posterior standard deviations of those of the best
mean-field Gaussian, and whose standard deviations are all within 5 % of them. That Gaussian is
found without the package, on all rows in float64; its distance from the posterior, by NUTS, is in
the table where there are draws (`python -m benchmarks.suite_references`).

Those that take steps are looked at after 500, 1,000, 2,000 ... of them, until `--budget` seconds of
fitting are spent, or half as much again as this package took, if that is more. NumPyro's schedule
is sized to a run, so it begins anew for 2,000, 8,000 ... steps, and only the run itself counts.
Each fit has a process of its own; there was one before it, which is not counted, so that what
PyTensor and Numba compile is in their caches. A fit that fails is a result.

Models are compared one after the other, all contestants taking turns on one table. All of them take
hours; with --keep a run repeats some models, and keeps what is on record of the others.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import BenchmarkError
from benchmarks.processes import each_from_fresh, float_environment, from_fresh
from benchmarks.recording import Recording, Results, Row
from benchmarks.report import BLUE, GREEN, GREY, ORANGE, VERMILION, Figure, Table, new_figure, text
from benchmarks.suite_models import MODELS
from benchmarks.suite_references import Reference, find, sizes_with_draws

CONTESTANTS = {
    "this": ("this package, fit()", BLUE, "o"),
    "pm-fit": ("pm.fit", VERMILION, "s"),
    "pm-adam": ("pm.fit, pm.adam(0.01)", ORANGE, "D"),
    "extras": ("pymc-extras", GREY, "v"),
    "numpyro-float32": ("NumPyro, float32", GREEN, "^"),
    "numpyro-float64": ("NumPyro, float64", GREEN, "x"),
}
MOST_ERROR, MOST_OFF = 0.1, 0.05
# Longer than any budget needs: a fit that hangs is ended.
PATIENCE_SECONDS, PATIENCE_BUDGETS = 600, 10
# Than this package, the others fit.
LONGER = 1.5
#: Of a checkpoint on record, in this order.
TRAIL = ("seconds", "passes", "error", "smallest_sd", "largest_sd")
READING = """\
A cell has the seconds of fitting until the fit was accurate and stayed so, and after the stroke
those with what came before it: building the model, and compiling it with a warm cache; each the
median of all seeds, and the worst in brackets. Where a fit never was accurate, there is what it had
at its end: the largest error of a mean in posterior standard deviations, the smallest and the
largest ratio of a standard deviation to the right one, and the seconds. Those that take steps are
looked at when they have taken twice as many as before, so a time of theirs may be up to twice too
long; that of NumPyro is that of a whole run, up to four times too long.

**From NUTS** is how far the best mean-field Gaussian itself is from the means of the posterior, in
its standard deviations: no fit of independent normals can be nearer. Its standard deviations are
too small where parameters are correlated; a fit is held against those of the Gaussian. Posterior
standard deviations are those by NUTS, or by the inverse of the expected curvature; without draws,
and with more than 500 parameters, those of the Gaussian, which are not larger.

The second table says how each fit ended. Only this package ends by itself and says whether it
converged; passes are rows that were read over rows of the table."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=None,
        help="rows of the tables; without it 1,000,000, and what there are draws by NUTS for",
    )
    parser.add_argument(
        "--contestants", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS)
    )
    parser.add_argument("--seeds", type=int, default=3, help="fits of each, with seeds from 0 on")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of a fit by steps")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument(
        "--keep", action="store_true", help="what is on record of other models, or other rows"
    )


def run(options: argparse.Namespace, recording: Recording) -> None:
    contests = [(name, n) for name in options.models for n in _sizes(name, options.rows)]
    if options.keep:
        recording.keep(lambda of: (of["model"], of["rows"]) not in contests)
    for name, n_rows in contests:
        reference = find(name, n_rows)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            from_fresh(prepare, name, folder, n_rows)
            budget = options.budget
            for which in options.contestants:
                arguments = (which, name, folder, options.batch_size)
                _fit(arguments, 0, 0.0, reference)  # fills the caches
                for seed in range(options.seeds):
                    found = _fit(arguments, seed, budget, reference)
                    recording.add(
                        "fit", {"model": name, "rows": n_rows, "contestant": which}, found
                    )
                    if which == "this" and found["seconds"]:
                        budget = max(budget, LONGER * found["seconds"])


def _sizes(name: str, asked: Sequence[int] | None) -> list[int]:
    """Rows of the tables of a model, each once."""
    wanted = asked or [*sizes_with_draws(name), 1_000_000]
    return list(dict.fromkeys(MODELS[name].most_rows(n) for n in wanted))


def prepare(name: str, folder: Path, n_rows: int) -> None:
    """The table, shuffled, in Parquet and in Arrow files of float64."""
    from benchmarks.models import write_table
    from pymc_streaming import preshuffle

    raw = folder / "raw.parquet"
    write_table(MODELS[name], raw, n_rows, 0)
    preshuffle(raw, folder / "parquet", format="parquet", progressbar=False)
    preshuffle(raw, folder / "arrow", format="arrow", dtype="float64", progressbar=False)
    raw.unlink()


def _fit(
    arguments: tuple[Any, ...], seed: int, budget: float, reference: Reference
) -> dict[str, Any]:
    """One fit by one contestant, or how it failed."""
    from benchmarks.suite_contestants import contend

    precision = "float32" if arguments[0] == "numpyro-float32" else "float64"
    patience = PATIENCE_SECONDS + PATIENCE_BUDGETS * budget
    fit = each_from_fresh(
        contend,
        *arguments,
        seed,
        budget,
        environment=float_environment(precision),
        watch=_until(time.monotonic() + patience, patience),
    )
    checkpoints: list[Any] = []
    failed = None
    try:
        checkpoints.extend(fit)
    except BenchmarkError as error:
        failed = str(error).strip().splitlines()[-1]
    return {"seed": seed, **judged(checkpoints, reference), "failed": failed}


def _until(end: float, patience: float) -> Callable[[int], None]:
    def watch(_: int) -> None:
        if time.monotonic() > end:
            raise BenchmarkError(f"It took more than {patience:,.0f} s.")

    return watch


def judged(checkpoints: Sequence[Any], reference: Reference) -> dict[str, Any]:
    """When a fit was accurate and stayed so, and how it ended; None where there is nothing."""
    trail = []
    for checkpoint in checkpoints:
        error = np.max(np.abs(checkpoint.mean - reference.mean) / reference.posterior_sd)
        ratio = checkpoint.sd / reference.sd
        numbers = (checkpoint.seconds, checkpoint.passes, error, ratio.min(), ratio.max())
        trail.append([float(number) for number in numbers])
    accurate = None
    for checkpoint, numbers in zip(reversed(checkpoints), reversed(trail), strict=True):
        if not _is_accurate(*numbers[2:]):
            break
        accurate = checkpoint
    last = checkpoints[-1] if checkpoints else None
    return {
        "accurate_seconds": accurate.seconds if accurate else None,
        "accurate_seconds_and_before": accurate.seconds + accurate.before if accurate else None,
        **dict(zip(TRAIL, trail[-1] if trail else [None] * len(TRAIL), strict=True)),
        "before": last.before if last else None,
        "claim": last.claim if last else None,
        "target_from_nuts": reference.distance(),
        "unit": reference.unit,
        "trail": trail,
    }


def _is_accurate(error: float, smallest: float, largest: float) -> bool:
    """Not, if a number is NaN."""
    return error <= MOST_ERROR and smallest >= 1 - MOST_OFF and largest <= 1 + MOST_OFF


def tables(results: Results) -> list[Table]:
    shown = [which for which in CONTESTANTS if which in results.keys("fit", "contestant")]
    headers = ["model", "rows", "from NUTS", *(CONTESTANTS[which][0] for which in shown)]
    times = []
    for model, n_rows in _contests(results):
        rows = {row.of["contestant"]: row for row in _rows(results, model, n_rows)}
        distance = next(iter(rows.values())).median("target_from_nuts")
        cells = [_time(rows[which]) if which in rows else "–" for which in shown]
        times.append([MODELS[model].title, f"{n_rows:,}", text(distance, ".2f"), *cells])
    names = ["error, sds", "smallest sd", "largest sd", "passes", "seconds", "before", "says"]
    ends = [
        [
            MODELS[row.of["model"]].title,
            f"{row.of['rows']:,}",
            CONTESTANTS[row.of["contestant"]][0],
            text(_worst(row, "error", max)),
            text(_worst(row, "smallest_sd", min), ".3f"),
            text(_worst(row, "largest_sd", max), ".3f"),
            text(row.median("passes")),
            text(row.median("seconds")),
            text(row.median("before")),
            _said(row),
        ]
        for row in results.rows("fit")
    ]
    return [
        Table("Seconds until the fit is accurate", headers, times),
        Table(
            "How fits ended: the worst error and ratios of all seeds, the median of the rest",
            ["model", "rows", "contestant", *names],
            ends,
        ),
    ]


def _contests(results: Results) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row.of["model"], row.of["rows"]) for row in results.rows("fit")))


def _rows(results: Results, model: str, n_rows: int) -> list[Row]:
    return results.rows("fit", model=model, rows=n_rows)


def _time(row: Row) -> str:
    """Of all seeds; if one was never accurate, how the worst ended."""
    failures = [failure for failure in row.found["failed"] if failure]
    if failures:
        return f"failed: {failures[0]}"
    times = row.found["accurate_seconds"]
    if None not in times:
        return " / ".join(
            f"{text(row.median(name))} ({text(_worst(row, name, max))})"
            for name in ("accurate_seconds", "accurate_seconds_and_before")
        )
    often = f"{times.count(None)} of {len(times)} " if set(times) != {None} else ""
    error = text(_worst(row, "error", max), ".2g")
    ratios = (_worst(row, "smallest_sd", min), _worst(row, "largest_sd", max))
    low, high = (text(ratio, ".2g" if ratio >= 10 else ".2f") for ratio in ratios)
    return f"{often}never ({error} sds, sd × {low} to {high}, at {text(row.median('seconds'))} s)"


def _worst(row: Row, name: str, of: Callable[..., float]) -> float:
    return of(row.numbers(name), default=math.nan)


def _said(row: Row) -> str:
    failures = [f"failed: {failure}" for failure in row.found["failed"] if failure]
    claims = [claim for claim in row.found["claim"] if claim]
    return ", ".join(dict.fromkeys(failures + claims))


def draw(results: Results) -> Figure:
    """A panel for each model and number of rows: the error of the means against seconds."""
    contests = _contests(results)
    columns = min(4, len(contests))
    lines = math.ceil(len(contests) / columns)
    figure, panels = new_figure(
        lines, columns, figsize=(2.9 * columns + 0.6, 2.4 * lines + 0.9), sharex=True, sharey=True
    )
    for axes in panels.flat[len(contests) :]:
        axes.set_visible(False)
    for (model, n_rows), axes in zip(contests, panels.flat, strict=False):
        for row in _rows(results, model, n_rows):
            title, colour, marker = CONTESTANTS[row.of["contestant"]]
            for trail in row.found["trail"]:
                seconds, errors = [point[0] for point in trail], [point[2] for point in trail]
                axes.plot(
                    seconds, errors, color=colour, marker=marker, ms=3, linewidth=0.8, label=title
                )
        axes.axhline(MOST_ERROR, color="0.5", linewidth=1)
        axes.set(xscale="log", yscale="log")
        axes.set_title(f"{model}, {n_rows:,} rows", size=9)
    for axes in panels[-1]:
        axes.set_xlabel("seconds, without compilation", size=8)
    for axes in panels[:, 0]:
        axes.set_ylabel("error of means, sds", size=8)
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper center", ncols=3, frameon=False
    )
    return figure
