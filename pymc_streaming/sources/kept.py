"""A source whose rows stay in memory once they have been read."""

from __future__ import annotations

from collections.abc import Iterator

from pymc_streaming.sources.base import (
    Block,
    Fragment,
    InMemory,
    IterableDataset,
    Rows,
    read_checked,
)

__all__ = ["KeptSource"]


class KeptSource(IterableDataset):
    """Another source, read once and then from memory.

    It has the fragments of the other, so whatever is a function of these, such as the order of the
    rows, is the same. A fragment that was read to its end is kept, and later read as views of what
    was kept; one whose reading ended early, by an error or because nobody wanted the rest, is read
    anew. Rows that are kept do not change any more, even if those of the source do.

    Parameters
    ----------
    source : IterableDataset
        Where the rows come from.
    """

    is_in_memory = True

    def __init__(self, source: IterableDataset) -> None:
        self._source = source
        self.layout, self.fragments = source.layout, source.fragments
        self.is_shuffled, self.skipped = source.is_shuffled, source.skipped
        self._kept: dict[Fragment, list[Rows]] = {}

    def __repr__(self) -> str:
        return f"<in memory: {self._source!r}>"

    @property
    def fingerprint(self) -> str:
        """That of the other."""
        return self._source.fingerprint

    @property
    def kept_nbytes(self) -> int:
        """Bytes of the rows that are kept."""
        rows = sum(len(rows) for kept in list(self._kept.values()) for rows in kept)
        return rows * self.row_nbytes

    def read(self, fragment: Fragment) -> Iterator[Block]:
        """Yield the rows of a fragment in blocks, read-only once they are kept."""
        for rows in self.rows(fragment):
            yield rows.block(self.layout)

    def rows(self, fragment: Fragment) -> Iterator[Rows]:
        """The same, from where they are kept."""
        kept = self._kept.get(fragment)
        if kept is not None:
            yield from kept
            return
        pieces: list[Rows] = []
        for rows in read_checked(self._source, fragment):
            piece = _Kept(rows.block(self.layout))
            pieces.append(piece)
            yield piece
        # One assignment: another thread finds the whole fragment or nothing.
        self._kept[fragment] = pieces


class _Kept(InMemory):
    """Rows in memory that belong to the source, and were looked at for NaN."""

    stay = True

    def __init__(self, block: Block) -> None:
        super().__init__(block)
        for array in block.values():
            array.flags.writeable = False

    def write(self, start: int, out: Block) -> bool:
        """Copy."""
        super().write(start, out)
        return False

    def block(self, layout: object) -> Block:  # noqa: ARG002 - it is of that layout
        """Themselves, not copied."""
        return dict(self._block)
