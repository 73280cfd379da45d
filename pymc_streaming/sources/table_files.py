"""The files of a table: all of them, or those that are not damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pymc_streaming.errors import (
    ArgumentError,
    CorruptFileError,
    SkippedFilesWarning,
    SourceError,
)
from pymc_streaming.notices import warn
from pymc_streaming.sources.files import DataFile, Paths, find_files, refuse_other_kinds
from pymc_streaming.sources.manifest import find_manifest
from pymc_streaming.sources.patience import patiently
from pymc_streaming.sources.skipped import ADVICE, SkippedFile, in_words

__all__ = ["TableFiles"]


class TableFiles:
    """The files of a table, found and, if damaged ones may be left out, looked through.

    Parameters
    ----------
    path, pattern
        As for `find_files`.
    kind : {"parquet", "arrow"}
        What they should be.
    on_bad_file : {"error", "skip"}
        Whether a damaged file is an error, or left out.

    Attributes
    ----------
    files : list of DataFile
        Those to be read.
    manifest : Manifest or None
        What the shuffle says that made the folder.
    skipped : list of SkippedFile
        What was left out.

    Raises
    ------
    SourceError
        If there are no files, or the folder is not what its manifest says.
    """

    def __init__(
        self, path: Paths | Sequence[DataFile], pattern: str, kind: str, on_bad_file: str
    ) -> None:
        if on_bad_file not in ("error", "skip"):
            raise ArgumentError(f'on_bad_file must be "error" or "skip", found {on_bad_file!r}.')
        self._skips = on_bad_file == "skip"
        self.skipped: list[SkippedFile] = []
        self.manifest = find_manifest(path, kind, harmed_may_stay=self._skips)
        if self.manifest is not None:
            place, path, pattern = path, self.manifest.paths(path), "*"
        self.files = find_files(path, pattern)
        refuse_other_kinds(self.files, kind)
        if self.manifest is not None and self._skips:
            # Checksums of all bytes say more than reading does.
            for number, (shard, harm) in enumerate(self.manifest.harm(place)):
                if harm is not None:
                    file = self.files[number]
                    self.skipped.append(SkippedFile(file.path, shard.rows, harm))
            self._keep_the_others()

    def leave_out_damaged(
        self, look: Callable[[DataFile], object], count: Callable[[DataFile], int]
    ) -> None:
        """Call `look` with every file, and leave out those that it finds damaged.

        Where damage is an error it does nothing: whoever reads the file will find it.

        Parameters
        ----------
        look : callable
            Raises `CorruptFileError` for a file that is damaged.
        count : callable
            The rows that a file says it has.

        Raises
        ------
        CorruptFileError
            If no file is left.
        """
        if not self._skips:
            return
        for file in self.files:
            try:
                patiently(lambda file=file: look(file), is_local=file.is_local)  # type: ignore[misc]
            except CorruptFileError as error:
                try:
                    n_rows = count(file)
                except SourceError:
                    n_rows = None
                reason = str(error).removesuffix(ADVICE).strip()
                self.skipped.append(SkippedFile(file.path, n_rows, reason))
        self._keep_the_others()

    def _keep_the_others(self) -> None:
        order = {file.path: number for number, file in enumerate(self.files)}
        self.skipped.sort(key=lambda each: order.get(each.path, -1))
        bad = {each.path for each in self.skipped}
        self.files = [file for file in self.files if file.path not in bad]
        if not self.files:
            raise CorruptFileError(
                f"All {len(self.skipped):,} files are damaged, so nothing is left to read. The "
                f"first: {self.skipped[0].reason}"
            )

    def warn_of_skipped(self, n_rows: int) -> None:
        """Say what was left out, if anything was, and that `n_rows` remain."""
        if not self.skipped:
            return
        shown = "\n".join(f"  {each}" for each in self.skipped[:5])
        more = f"\n  and {len(self.skipped) - 5:,} more" if len(self.skipped) > 5 else ""
        warn(
            f"{in_words(self.skipped)}. N is {n_rows:,}, the rows of the others, and a posterior "
            "is one of these alone: if what is damaged differs from the rest, a month, say, it is "
            f"not that of the table.\n{shown}{more}",
            SkippedFilesWarning,
        )
