"""What the footers of Parquet files say, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pymc_streaming.errors import SchemaError
from pymc_streaming.sources.base import Fragment
from pymc_streaming.sources.columns import ColumnPlan, canonical_type
from pymc_streaming.sources.file_facts import FileFacts
from pymc_streaming.sources.files import DataFile
from pymc_streaming.sources.plan import missing_column

__all__ = [
    "Footer",
    "RowGroup",
    "block_rows",
    "check_schema",
    "footer_of",
    "nullable",
    "refuse_known_nulls",
]

# A block takes so much memory when it is decoded, and so much at most: wide rows need more, for
# with few rows of each column the cost of starting on a column would show.
_BLOCK_BYTES, _MOST_BLOCK_BYTES = 2 * 2**20, 16 * 2**20
_LEAST_BLOCK_ROWS, _MOST_BLOCK_ROWS = 16_384, 65_536


@dataclass(frozen=True, slots=True)
class RowGroup(Fragment):
    """One row group of one file; `n_rows` counts the rows that pass the filter.

    Parameters
    ----------
    path : str
        The file.
    row_group : int
        Number of the row group in the file, from 0.
    """

    path: str
    row_group: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What is kept of a row group's metadata while the source is made.

    Parameters
    ----------
    fragment : RowGroup
        The row group.
    nulls : dict of str to int or None
        Nulls by column, None where the footer does not say.
    row_bytes : float
        Bytes that a row takes in memory.
    stored_bytes : int
        Bytes that the columns take in the file.
    """

    fragment: RowGroup
    nulls: dict[str, int | None]
    row_bytes: float
    stored_bytes: int


def check_schema(
    schema: pa.Schema,
    file: DataFile,
    expected: dict[str, pa.DataType],
    first: DataFile,
    every_column: bool,
) -> None:
    """Raise `SchemaError` unless a file has the columns of the first, with the same types.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the file.
    file, first : DataFile
        The file, and the one that others are held against.
    expected : dict of str to pyarrow.DataType
        The columns that are read.
    every_column : bool
        Whether there may be no others.
    """
    for name, kind in expected.items():
        if name not in schema.names:
            raise SchemaError(
                missing_column(name, schema.names, file.path)
                + f" It is in {first.path}; all files must have the same columns."
            )
        if schema.names.count(name) > 1:
            raise SchemaError(f"{file.path}: column {name!r} is there more than once.")
        found = canonical_type(schema.field(name).type)
        if found != kind:
            raise SchemaError(
                f"{file.path}: column {name!r} has type {found}, but {kind} in {first.path}. "
                "Write all files with the same types, or read them as separate sources."
            )
    extra = sorted(set(schema.names) - set(expected))
    if every_column and extra:
        raise SchemaError(
            f"{file.path}: column {extra[0]!r} is not in {first.path}. Select the columns you "
            "want with `columns`."
        )


def footer_of(
    facts: FileFacts, number: int, file: DataFile, expected: dict[str, pa.DataType]
) -> Footer:
    """What is needed of row group `number`; the other arguments as for `check_schema`."""
    n_rows = facts.group_rows[number]
    chunks = {name: facts.chunk(number, name) for name in expected if name in facts.names}
    nulls = {name: chunk["nulls"] for name, chunk in chunks.items()}
    sizes = [
        max(_least_bytes(expected[name]), chunk["uncompressed"] / max(1, n_rows))
        for name, chunk in chunks.items()
    ]
    return Footer(
        RowGroup(n_rows, f"{file.label}, row group {number}", file.path, number),
        {name: None if count < 0 else count for name, count in nulls.items()},
        row_bytes=sum(sizes, start=1.0),
        stored_bytes=sum(chunk["compressed"] for chunk in chunks.values()),
    )


def block_rows(row_bytes: float) -> int:
    """Rows of a block, by the bytes of the widest row."""
    rows = max(_LEAST_BLOCK_ROWS, int(_BLOCK_BYTES / row_bytes))
    return max(1, min(rows, _MOST_BLOCK_ROWS, int(_MOST_BLOCK_BYTES / row_bytes)))


def _least_bytes(kind: pa.DataType) -> float:
    """Of a value in memory; strings are judged by their size in the file."""
    fixed = pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
    return max(4.0, kind.bit_width / 8) if fixed else 8.0


def refuse_known_nulls(plan: ColumnPlan, footers: list[Footer]) -> None:
    """Raise `MissingValueError` if a footer says that a column of the plan has a null."""
    for footer in footers:
        for column in plan.columns:
            column.refuse_nulls(footer.nulls.get(column.name) or 0, footer.fragment.origin)


def nullable(plan: ColumnPlan, footers: list[Footer]) -> set[str]:
    """The columns that hold a null, or may for all that is known."""
    return {name for footer in footers for name in plan.names if footer.nulls.get(name) != 0}
