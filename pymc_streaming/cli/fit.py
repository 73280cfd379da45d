"""``pymc-streaming fit``."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pymc_streaming.cli.values import checked, one_or_all, whole
from pymc_streaming.errors import ArgumentError

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    fit = commands.add_parser(
        "fit",
        help="fit a model to a table, from the files to the posterior",
        description="Fit a PyMC model to a table that may be larger than memory. MODEL names a "
        "Python function that is called with the DataLoader and returns the pm.Model. Into the "
        "folder OUTPUT go draws of the posterior, the parameters of the approximation, the "
        "history, a diagnosis with a picture, and checkpoints; with --resume the same command goes "
        "on where it was interrupted.",
        epilog="Examples: pymc-streaming fit clicks.py:model --data 'criteo/*.parquet' --columns "
        "x=i1,i2,i3 click=label --output result; "
        "pymc-streaming fit clicks.py:model --data shuffled --steps 20000 --output result --resume",
        usage="%(prog)s MODEL --data PATH [PATH ...] --output DIR [options]",
    )
    fit.add_argument(
        "model",
        metavar="MODEL",
        type=checked(_function),
        help="MODULE:FUNCTION, or FILE.py:FUNCTION: from loader to model",
    )
    fit.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="PATH",
        help="Parquet, Arrow or Feather: a file, a folder, a glob, a URL",
    )
    fit.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    data = fit.add_argument_group("the data")
    data.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME",
        help="columns of one array, in this order; or arrays by name: X=a,b y=label (default: all "
        "columns, one array)",
    )
    data.add_argument(
        "--categories", action="store_true", help="turn columns of text into codes of their levels"
    )
    data.add_argument(
        "--transform",
        metavar="FUNCTION",
        help="MODULE:FUNCTION or FILE.py:FUNCTION: from columns of some rows, a list of names in "
        "--columns, to arrays",
    )
    data.add_argument(
        "--on-bad-file",
        choices=("error", "skip"),
        default="error",
        help="leave damaged files out, and say so in the result (default: they are an error)",
    )
    data.add_argument(
        "--batch-size",
        type=whole,
        default=4096,
        metavar="ROWS",
        help="rows of a batch (default: 4096)",
    )
    data.add_argument(
        "--no-shuffle", action="store_true", help="take the rows in the order of the files"
    )
    data.add_argument(
        "--buffer-size",
        type=whole,
        metavar="ROWS",
        help="rows of the shuffle buffer (default: those in 16 MiB)",
    )
    how = fit.add_argument_group("the fit")
    how.add_argument(
        "--method",
        choices=("advi", "fullrank_advi", "laplace"),
        default="advi",
        help="independent normals, one with a covariance, or Laplace's approximation (default: "
        "advi)",
    )
    length = how.add_mutually_exclusive_group()
    length.add_argument(
        "--steps",
        type=partial(whole, of="steps"),
        metavar="N",
        help="take so many stochastic steps (default: fit in exact passes until converged)",
    )
    length.add_argument(
        "--max-passes",
        type=partial(whole, of="passes"),
        metavar="N",
        help="passes over the table at most (default: 20)",
    )
    how.add_argument(
        "--strategy",
        choices=("auto", "in_memory", "accumulate", "streaming"),
        default="auto",
        help="how to go over the table (default: auto)",
    )
    how.add_argument(
        "--memory-limit",
        metavar="BYTES",
        type=checked(_memory),
        help="what the process may take, such as 8GB",
    )
    how.add_argument("--seed", type=int, default=0, help="seed of everything (default: 0)")
    how.add_argument(
        "--checkpoint-every",
        default="5min",
        metavar="TIME",
        type=checked(_time),
        help="such as 30s (default: 5min)",
    )
    result = fit.add_argument_group("the result")
    result.add_argument(
        "--draws",
        type=partial(whole, of="draws"),
        default=1000,
        metavar="N",
        help="draws of the posterior (default: 1000)",
    )
    result.add_argument(
        "--no-diagnosis", action="store_true", help="do not spend a pass on the diagnosis"
    )
    there = result.add_mutually_exclusive_group()
    there.add_argument(
        "--resume", action="store_true", help="go on where the same command was interrupted"
    )
    there.add_argument(
        "--overwrite", action="store_true", help="replace the results that are in OUTPUT"
    )
    result.add_argument("--json", action="store_true", help="print the outcome as JSON")
    result.add_argument("--no-progressbar", action="store_true", help="show no progress")
    fit.set_defaults(run=run)


# Imported when needed: the command can be interrupted from its first moment on.


def _function(text: str) -> None:
    from pymc_streaming.arguments import place_and_function

    place_and_function("it", text)


def _memory(text: str) -> None:
    from pymc_streaming.arguments import parse_bytes

    parse_bytes("it", text)


def _time(text: str) -> None:
    from pymc_streaming.arguments import parse_seconds

    parse_seconds("it", text)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from pymc_streaming.job import Job, run_job

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        outcome = run_job(_job(Job, options))
    except KeyboardInterrupt:
        if any((options.output / "checkpoints").glob("*.safetensors")):
            _say_how_to_go_on(options)
        else:
            print("Nothing was saved yet: call the same again.", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if options.json:
        print(json.dumps(outcome.to_dict(), indent=2, allow_nan=False))
    else:
        print(outcome)


def _job(kind: Any, options: argparse.Namespace) -> Any:
    given = vars(options)
    named = {
        name: given[name]
        for name in kind.__dataclass_fields__
        if name in given and name not in ("data", "columns")
    }
    return kind(
        data=one_or_all(options.data),
        columns=_columns(options.columns),
        shuffle=not options.no_shuffle,
        diagnosis=not options.no_diagnosis,
        progressbar=not options.no_progressbar,
        **named,
    )


def _columns(given: list[str] | None) -> Any:
    """A list, or with an equals sign in it a mapping to a name or a list of names.

    Examples
    --------
    >>> _columns(["a", "b"]), _columns(["X=a,b", "y=label", "Z=c,"])
    (['a', 'b'], {'X': ['a', 'b'], 'y': 'label', 'Z': ['c']})
    """
    if given is None or not any("=" in each for each in given):
        return given
    if not all("=" in each and each[0] != "=" and each[-1] != "=" for each in given):
        raise ArgumentError(
            "--columns takes names, or arrays as NAME=COLUMN,COLUMN, all of one kind, found "
            f"{' '.join(given)}."
        )
    arrays: dict[str, str | list[str]] = {}
    for each in given:
        name, _, columns = each.partition("=")
        names = columns.split(",")
        arrays[name] = columns if len(names) == 1 else [column for column in names if column]
    return arrays


def _interrupt(*_: object) -> None:
    """SIGTERM is to be as Ctrl-C: a state is saved, and the way to go on is shown."""
    raise KeyboardInterrupt


def _say_how_to_go_on(options: argparse.Namespace) -> None:
    program = Path(sys.argv[0]).name
    called = ["python", "-m", "pymc_streaming"] if program == "__main__.py" else [program]
    command = [*called, *(each for each in sys.argv[1:] if each != "--overwrite")]
    if not options.resume:
        command.append("--resume")
    print(f"The state is saved. To go on:\n{shlex.join(command)}", file=sys.stderr)
