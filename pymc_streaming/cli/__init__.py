"""The command ``pymc-streaming``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from pymc_streaming.cli import demo, fit, inspect, shuffle, verify
from pymc_streaming.errors import StreamingError

# Each command imports what it needs when it runs: that takes seconds, in which Ctrl-C may come.

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
    goes_on = None
    try:
        options = _parser().parse_args(arguments)
        goes_on = getattr(options, "goes_on", None)
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
        logging.getLogger("pymc_streaming").setLevel(logging.INFO)
        options.run(options)
    except (StreamingError, OSError) as error:
        print(f"pymc-streaming: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"pymc-streaming: interrupted{f'. {goes_on}' if goes_on else ''}", file=sys.stderr)
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
    for command in (inspect, shuffle, verify, fit, demo):
        command.add(commands)
    return parser
