"""``pymc-streaming inspect``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from pymc_streaming.cli.values import one_or_all, whole
from pymc_streaming.errors import SchemaError

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    inspect = commands.add_parser(
        "inspect",
        help="tell whether a table is in random order",
        description="Look whether the rows of a table are in random order, as streaming needs "
        "them, from a sample of rows and, of Parquet, from the footers. Says what a fit would make "
        "of the order, what to do, and which columns follow it. At most a million rows are "
        "looked at.",
        epilog="Examples: pymc-streaming inspect flights.parquet; "
        "pymc-streaming inspect 'data/*.parquet' --columns delay distance --plot order.png; "
        "pymc-streaming inspect hf://datasets/owner/name --json",
        usage="%(prog)s SOURCE [SOURCE ...] [options]",
    )
    inspect.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="Parquet, Arrow or Feather: a file, a folder, a glob, a URL",
    )
    inspect.add_argument("--json", action="store_true", help="print the report as JSON")
    inspect.add_argument(
        "--plot", type=Path, metavar="FILE", help="also save a picture of what was found"
    )
    inspect.add_argument(
        "--batch-size",
        type=whole,
        default=4096,
        metavar="ROWS",
        help="rows of a batch that predictions are for (default: 4096)",
    )
    inspect.add_argument(
        "--buffer-size",
        type=whole,
        metavar="ROWS",
        help="rows of the shuffle buffer that predictions are for (default: those in 16 MiB)",
    )
    inspect.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME",
        help="columns to look at, with spaces between (default: all)",
    )
    inspect.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from rich.console import Console

    from pymc_streaming.ordering import order_report
    from pymc_streaming.ordering.plot import check_picture_file, plot_report
    from pymc_streaming.ordering.show import print_report

    if options.plot is not None:
        check_picture_file(options.plot)
    try:
        report = order_report(
            one_or_all(options.source),
            batch_size=options.batch_size,
            buffer_size=options.buffer_size,
            columns=options.columns,
        )
    except SchemaError as error:
        names = ",".join(options.columns or ()).split(",")
        if len(names) == len(options.columns or names):
            raise
        asked = shlex.join(name.strip() for name in names if name.strip())
        hint = f"Names are given with spaces between: --columns {asked}"
        raise SchemaError(f"{error} {hint}") from error
    if options.json:
        print(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        print_report(report, Console())
    if options.plot is not None:
        plot_report(report, options.plot)
        print(f"The picture is in {options.plot}.", file=sys.stderr)
