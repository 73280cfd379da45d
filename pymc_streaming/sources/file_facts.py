"""What the footer of a Parquet file says, held against itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pymc_streaming.errors import CorruptFileError
from pymc_streaming.sources.skipped import ADVICE
from pymc_streaming.sources.thrift import CHUNK, footer_facts

__all__ = ["FileFacts"]

# At the end of a file: the footer, its length, and what says that it is Parquet.
_LENGTH, _MAGIC = 4, b"PAR1"
# Most footers are in the last so many bytes.
_TAIL = 64 * 1024

# Physical types by their number in the format.
_TYPES = {
    name: number
    for number, name in enumerate(
        ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY",
         "FIXED_LEN_BYTE_ARRAY")
    )
}  # fmt: skip


class FileFacts:
    """What the footer of a file says of its row groups and columns.

    Asked for these, Arrow ends the process if the footer contradicts itself.

    Parameters
    ----------
    content : pyarrow.NativeFile
        The file.
    where : str
        Its name, for messages.

    Attributes
    ----------
    metadata : pyarrow.parquet.FileMetaData
        The same footer, as Arrow reads it.
    group_rows : list of int
        Rows of each row group.
    names : dict of str to int
        Places of the columns, by their paths in the schema.

    Raises
    ------
    CorruptFileError
        If it contradicts itself.
    """

    def __init__(self, content: Any, where: str) -> None:
        footer, whole = _footer(content)
        self.metadata = pq.read_metadata(pa.BufferReader(whole))
        schema = self.metadata.schema
        columns = [schema.column(number) for number in range(len(schema))]
        self.names = {column.path: number for number, column in enumerate(columns)}
        try:
            n_rows, group_rows, facts = footer_facts(
                np.frombuffer(footer, np.uint8), self.metadata.num_row_groups, len(columns)
            )
        except ValueError as error:
            raise _contradiction(where, str(error)) from error
        self.group_rows: list[int] = group_rows.tolist()
        self._facts = facts
        self._check(where, n_rows, columns)

    def leaves(self, names: Iterable[str]) -> list[str]:
        """Paths of the columns that hold the values of columns, of which some may be nested."""
        leaves: list[str] = []
        for name in names:
            if name in self.names:
                leaves.append(name)
            else:  # a nested one, of which there are few among thousands
                leaves += [path for path in self.names if path.startswith(f"{name}.")]
        return leaves

    def chunk(self, group: int, name: str) -> dict[str, int]:
        """What the footer says of a column of a row group; see `CHUNK`."""
        return dict(zip(CHUNK, self._facts[group, self.names[name]].tolist(), strict=True))

    def _check(self, where: str, n_rows: int, columns: list[Any]) -> None:
        if min(self.group_rows, default=0) < 0 or sum(self.group_rows) != n_rows:
            raise _contradiction(
                where, f"{n_rows:,} rows in all, {sum(self.group_rows):,} in its row groups"
            )
        facts = {name: self._facts[:, :, number] for number, name in enumerate(CHUNK)}
        for number, column in enumerate(columns):
            if (facts["type"][:, number] != _TYPES[column.physical_type]).any():
                raise _contradiction(where, f"column {column.path!r} has two types")
            levels = {
                "repetition_levels": column.max_repetition_level,
                "definition_levels": column.max_definition_level,
            }
            for name, most in levels.items():
                found = facts[name][:, number]
                if ((found > 0) & (found != most + 1)).any():
                    raise _contradiction(
                        where, f"column {column.path!r} has {most} levels, and statistics of more"
                    )
            # A value in a list is no row.
            counts = facts["n_values"][:, number]
            if not column.max_repetition_level and (counts != self.group_rows).any():
                raise _contradiction(
                    where, f"column {column.path!r} has another number of values than of rows"
                )


def _footer(content: Any) -> tuple[bytes, bytes]:
    """The footer, and an end of the file that has it whole."""
    size = content.size()
    for asked in (_TAIL, size):
        tail = content.read_at(min(asked, size), size - min(asked, size))
        after = _LENGTH + len(_MAGIC)
        if tail[-len(_MAGIC) :] != _MAGIC or len(tail) < after:
            return b"", tail  # Arrow says what is wrong
        length = int.from_bytes(tail[-after : -len(_MAGIC)], "little")
        if length + after <= len(tail):
            return tail[-after - length : -after], tail
    return b"", tail


def _contradiction(where: str, what: str) -> CorruptFileError:
    return CorruptFileError(
        f"{where}: the footer of this file contradicts itself: {what}. {ADVICE}"
    )
