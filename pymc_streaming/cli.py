"""The command ``pymc-streaming``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pymc_streaming.demo import run_demo
from pymc_streaming.errors import StreamingError

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
    return parser


def _rows(text: str) -> int:
    rows = int(text.replace("_", "").replace(",", ""))
    if rows < 10_000:
        raise argparse.ArgumentTypeError(f"at least 10,000 rows are needed, found {rows:,}")
    return rows
