"""``pymc-streaming verify``."""

from __future__ import annotations

import argparse

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    verify = commands.add_parser(
        "verify",
        help="check a shuffled folder against its manifest",
        description="Read every file of a folder that was shuffled and compare it with the sizes "
        "and checksums in its manifest. Files that are missing, truncated or changed are named, "
        "and the exit status is 1.",
        epilog="Example: pymc-streaming verify shuffled",
    )
    verify.add_argument("folder", metavar="FOLDER", help="folder that was shuffled")
    verify.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from pymc_streaming.sources import Manifest
    from pymc_streaming.sources.columns import counted

    manifest = Manifest.read(options.folder)
    manifest.verify(options.folder)
    print(
        f"{options.folder}: {counted(manifest.n_rows, 'row')} in "
        f"{counted(len(manifest.shards), 'shard')}, as they were written"
    )
