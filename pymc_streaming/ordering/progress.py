"""A progress bar for the look at the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from pymc_streaming.ordering.sampling import Advance

__all__ = ["looking"]


@contextmanager
def looking(enabled: bool) -> Iterator[Advance]:
    """Show progress on standard error, where there is a terminal, until the block ends.

    Parameters
    ----------
    enabled : bool
        False for no bar in any case.
    """
    console = Console(stderr=True)
    visible = enabled and (console.is_terminal or console.is_jupyter)
    with Progress(console=console, disable=not visible, transient=True) as progress:
        task = progress.add_task("looking at the order of the rows", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance
