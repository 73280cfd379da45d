"""The command ``pymc-streaming``."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pymc_streaming.errors import SchemaError, StreamingError

# Each command imports what it needs when it runs: that takes seconds, in which Ctrl-C may come.

__all__ = ["main"]

_DEFAULTS = argparse.ArgumentDefaultsHelpFormatter


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
    goes_on = False
    try:
        options = _parser().parse_args(arguments)
        goes_on = options.command == "shuffle"
        logging.basicConfig(format="%(message)s", stream=sys.stderr)
        logging.getLogger("pymc_streaming").setLevel(logging.INFO)
        options.run(options)
    except (StreamingError, OSError) as error:
        print(f"pymc-streaming: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        more = ". What was finished is kept; the same command goes on" if goes_on else ""
        print(f"pymc-streaming: interrupted{more}", file=sys.stderr)
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
    _add_inspect(commands)
    _add_shuffle(commands)
    _add_verify(commands)
    _add_demo(commands)
    return parser


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
        type=_whole,
        default=4096,
        metavar="ROWS",
        help="rows of a batch that predictions are for (default: 4096)",
    )
    inspect.add_argument(
        "--buffer-size",
        type=_whole,
        metavar="ROWS",
        help="rows of the shuffle buffer that predictions are for (default: those in 16 MiB)",
    )
    inspect.add_argument(
        "--columns",
        nargs="+",
        metavar="NAME",
        help="columns to look at, with spaces between (default: all)",
    )
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    from rich.console import Console

    from pymc_streaming.ordering import order_report
    from pymc_streaming.ordering.plot import check_picture_file, plot_report
    from pymc_streaming.ordering.show import print_report

    if options.plot is not None:
        check_picture_file(options.plot)
    try:
        report = order_report(
            _one_or_all(options.source),
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


def _one_or_all(paths: list[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else paths


def _add_shuffle(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    shuffle = commands.add_parser(
        "shuffle",
        help="put the rows of a table in random order, on disk, once",
        description="Write the rows of SOURCE to the folder OUTPUT in uniformly random order: "
        "every order is equally likely, and the same seed gives the same one. Memory is bounded; "
        "on disk there must be room for the uncompressed table beside OUTPUT while it works. "
        "Stopped in the middle, it leaves no OUTPUT, and the same command goes on.",
        epilog="Example: pymc-streaming shuffle 'flights/*.parquet' shuffled --seed 1 "
        "--memory-limit 2GB",
        formatter_class=_DEFAULTS,
        usage="%(prog)s SOURCE [SOURCE ...] OUTPUT [options]",
    )
    shuffle.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="Parquet, Arrow, Feather or CSV: a file, a folder, a glob, a URL",
    )
    # No Path, which would make a folder "s3:" of a URL that is to be refused.
    shuffle.add_argument("output", metavar="OUTPUT", help="folder to write")
    shuffle.add_argument("--seed", type=int, default=0, help="seed of the order")
    shuffle.add_argument(
        "--memory-limit",
        metavar="BYTES",
        default="512MB",
        help="memory for rows; the process takes up to 250 MB beside it",
    )
    shuffle.add_argument(
        "--format",
        choices=("parquet", "arrow"),
        default="parquet",
        help="compressed Parquet, or uncompressed Arrow files that are read without decoding",
    )
    shuffle.add_argument(
        "--columns",
        metavar="NAME",
        nargs="+",
        default=argparse.SUPPRESS,
        help="columns to keep, in this order (default: all)",
    )
    shuffle.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default=argparse.SUPPRESS,
        help="convert all columns to this type; in Arrow files they are then side by side, as "
        "training reads them (default: keep the types)",
    )
    shuffle.add_argument(
        "--rows-per-fragment",
        metavar="ROWS",
        type=int,
        default=argparse.SUPPRESS,
        help="rows of a row group or record batch (default: about 8 MiB; of many columns, more)",
    )
    shuffle.add_argument(
        "--shards",
        type=int,
        default=argparse.SUPPRESS,
        help="number of files (default: one for every 64 MiB of memory)",
    )
    shuffle.add_argument(
        "--workers",
        type=int,
        default=argparse.SUPPRESS,
        help="threads (default: one a processor)",
    )
    shuffle.add_argument(
        "--overwrite", action="store_true", help="replace a folder that was shuffled before"
    )
    shuffle.add_argument("--no-progressbar", action="store_true", help="show no progress")
    shuffle.set_defaults(run=_shuffle)


def _shuffle(options: argparse.Namespace) -> None:
    from rich.filesize import decimal

    from pymc_streaming.shuffling import preshuffle
    from pymc_streaming.sources.columns import counted

    given = vars(options)
    optional = ("columns", "dtype", "rows_per_fragment", "shards", "workers")
    started = time.perf_counter()
    manifest = preshuffle(
        _one_or_all(options.source),
        options.output,
        seed=options.seed,
        memory_limit=options.memory_limit,
        format=options.format,
        overwrite=options.overwrite,
        progressbar=not options.no_progressbar,
        **{name: given[name] for name in optional if name in given},
    )
    size = decimal(sum(shard.bytes for shard in manifest.shards))
    print(
        f"{options.output}: {counted(manifest.n_rows, 'row')} in "
        f"{counted(len(manifest.shards), f'{manifest.format} shard')}, {size}, seed "
        f"{manifest.seed}, {time.perf_counter() - started:,.1f} s"
    )


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser(
        "verify",
        help="check a shuffled folder against its manifest",
        description="Read every file of a folder that was shuffled and compare it with the sizes "
        "and checksums in its manifest. Files that are missing, truncated or changed are named, "
        "and the exit status is 1.",
        epilog="Example: pymc-streaming verify shuffled",
    )
    verify.add_argument("folder", metavar="FOLDER", help="folder that was shuffled")
    verify.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> None:
    from pymc_streaming.sources import Manifest
    from pymc_streaming.sources.columns import counted

    manifest = Manifest.read(options.folder)
    manifest.verify(options.folder)
    print(
        f"{options.folder}: {counted(manifest.n_rows, 'row')} in "
        f"{counted(len(manifest.shards), 'shard')}, as they were written"
    )


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="write a table, stream a model through it, compare",
        description="Write a table shaped like the Criteo click logs, fit a logistic regression "
        "to it from disk, compare with pm.Minibatch and scikit-learn in memory, "
        "coefficient by coefficient, and save one picture.",
        epilog="Example: pymc-streaming demo --rows 500000 --output /tmp/demo",
        formatter_class=_DEFAULTS,
    )
    demo.add_argument("--rows", type=_rows, default=2_000_000, help="rows of the table")
    demo.add_argument("--seed", type=int, default=0, help="seed of the table and of the fits")
    demo.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder for table and picture"
    )
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> None:
    from pymc_streaming.demo import run_demo

    run_demo(options.rows, options.seed, options.output)


def _whole(text: str, least: int = 1) -> int:
    try:
        rows = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of rows, found {text!r}") from None
    if rows < least:
        needed = f"{least:,} row{'s are' if least > 1 else ' is'}"
        raise argparse.ArgumentTypeError(f"at least {needed} needed, found {rows:,}")
    return rows


def _rows(text: str) -> int:
    return _whole(text, least=10_000)
