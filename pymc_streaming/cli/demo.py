"""``pymc-streaming demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pymc_streaming.cli.values import whole

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
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
    demo.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from pymc_streaming.demo import run_demo

    run_demo(options.rows, options.seed, options.output)


def _rows(text: str) -> int:
    return whole(text, least=10_000)
