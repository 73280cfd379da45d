"""``pymc-streaming shuffle``."""

from __future__ import annotations

import argparse
import time

from pymc_streaming.cli.values import one_or_all

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    shuffle = commands.add_parser(
        "shuffle",
        help="put the rows of a table in random order, on disk, once",
        description="Write the rows of SOURCE to the folder OUTPUT in uniformly random order: "
        "every order is equally likely, and the same seed gives the same one. Memory is bounded; "
        "on disk there must be room for the uncompressed table beside OUTPUT while it works. "
        "Stopped in the middle, it leaves no OUTPUT, and the same command goes on.",
        epilog="Example: pymc-streaming shuffle 'flights/*.parquet' shuffled --seed 1 "
        "--memory-limit 2GB",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
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
    shuffle.set_defaults(run=run, goes_on="What was finished is kept; the same command goes on")


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from rich.filesize import decimal

    from pymc_streaming.shuffling import preshuffle
    from pymc_streaming.sources.columns import counted

    given = vars(options)
    optional = ("columns", "dtype", "rows_per_fragment", "shards", "workers")
    started = time.perf_counter()
    manifest = preshuffle(
        one_or_all(options.source),
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
