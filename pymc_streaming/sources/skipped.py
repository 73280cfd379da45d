"""Damaged files that were left out of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ADVICE", "SkippedFile", "in_words"]

#: What to do about a damaged file.
ADVICE = 'Write or download the file again, or read without it, with on_bad_file="skip".'


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A damaged file that was left out of a table.

    Parameters
    ----------
    path : str
        The file.
    n_rows : int or None
        Rows that it says it has; None if that cannot be read either.
    reason : str
        What is wrong with it.
    """

    path: str
    n_rows: int | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.path in self.reason else f"{self.path}: {self.reason}"


def in_words(skipped: Sequence[SkippedFile]) -> str:
    """How many files were left out, and how many rows they have, as far as that is known."""
    files, were = ("1 damaged file", "was")
    if len(skipped) > 1:
        files, were = f"{len(skipped):,} damaged files", "were"
    known = [each.n_rows for each in skipped if each.n_rows is not None]
    rows = f"{sum(known):,} rows" if known else "an unknown number of rows"
    least = "at least " if known and len(known) < len(skipped) else ""
    return f"{files} with {least}{rows} {were} left out"
