"""What a running shuffle shows."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["ShuffleProgress"]


class ShuffleProgress:
    """Two bars on standard error, one a pass; silent where there is no terminal.

    Parameters
    ----------
    n_rows : int
        Rows of the table.
    enabled : bool
        False for no bars in any case.
    """

    def __init__(self, n_rows: int, *, enabled: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and (console.is_terminal or console.is_jupyter)),
        )
        self._n_rows = n_rows

    def __enter__(self) -> ShuffleProgress:
        self._progress.start()
        self._tasks = [
            self._progress.add_task(words, total=self._n_rows)
            for words in ("dividing rows", "writing shards")
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def divided(self, n_rows: int) -> None:
        """So many rows more have gone through the first pass."""
        self._progress.advance(self._tasks[0], n_rows)

    def written(self, n_rows: int) -> None:
        """So many rows more are in finished shards."""
        self._progress.advance(self._tasks[1], n_rows)
