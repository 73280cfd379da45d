"""The command ``pymc-streaming``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pymc_streaming.demo import run_demo
from pymc_streaming.errors import StreamingError
from pymc_streaming.ordering import order_report
from pymc_streaming.ordering.show import print_report

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit status: 0 done, 1 failed, 130 interrupted. Wrong usage exits with 2.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if options.command == "demo":
            run_demo(options.rows, options.seed, options.output)
        elif options.command == "inspect":
            _inspect(options)
    except (StreamingError, OSError) as error:
        print(f"pymc-streaming: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pymc-streaming: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pymc-streaming",
        description="Variational inference for PyMC models on tables larger than memory.",
        epilog="Results go to standard output, everything else to standard error. "
        "Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="write a table, stream a model through it, compare",
        description="Write a table shaped like the Criteo click logs, fit a logistic regression "
        "to it from disk, compare with pm.Minibatch and scikit-learn in memory, "
        "coefficient by coefficient, and save one picture.",
        epilog="Example: pymc-streaming demo --rows 500000 --output /tmp/demo",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--rows", type=_rows, default=2_000_000, help="rows of the table")
    demo.add_argument("--seed", type=int, default=0, help="seed of the table and of the fits")
    demo.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder for table and picture"
    )
    _add_inspect(commands)
    return parser


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="tell whether a table is in random order",
        description="Look whether the rows of Parquet files are in random order, as streaming "
        "needs them, from the footers and from a sample of rows. Says which columns follow the "
        "order, what a fit would make of it, and what to do.",
        epilog="Examples: pymc-streaming inspect flights.parquet; "
        "pymc-streaming inspect 'data/*.parquet' --columns delay distance --plot order.png; "
        "pymc-streaming inspect hf://datasets/owner/name --json",
    )
    inspect.add_argument("source", metavar="SOURCE", help="file, folder, glob or URL of Parquet")
    inspect.add_argument("--json", action="store_true", help="print the report as JSON")
    inspect.add_argument(
        "--plot", type=Path, metavar="FILE", help="save a picture of the clearest columns"
    )
    inspect.add_argument(
        "--batch-size",
        type=_whole,
        default=4096,
        metavar="ROWS",
        help="rows of a batch that predictions are for (default: 4096)",
    )
    inspect.add_argument(
        "--buffer-size",
        type=_whole,
        metavar="ROWS",
        help="rows of the shuffle buffer that predictions are for (default: those in 32 MiB)",
    )
    inspect.add_argument(
        "--columns", nargs="+", metavar="NAME", help="columns to look at (default: all)"
    )


def _inspect(options: argparse.Namespace) -> None:
    report = order_report(
        options.source,
        batch_size=options.batch_size,
        buffer_size=options.buffer_size,
        columns=options.columns,
    )
    if options.plot is not None:
        from pymc_streaming.ordering.plot import plot_report

        plot_report(report, options.plot)
        print(f"The picture is in {options.plot}.", file=sys.stderr)
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report, Console(soft_wrap=False))


def _whole(text: str) -> int:
    rows = int(text.replace("_", "").replace(",", ""))
    if rows < 1:
        raise argparse.ArgumentTypeError(f"at least 1 row is needed, found {rows:,}")
    return rows


def _rows(text: str) -> int:
    rows = int(text.replace("_", "").replace(",", ""))
    if rows < 10_000:
        raise argparse.ArgumentTypeError(f"at least 10,000 rows are needed, found {rows:,}")
    return rows
