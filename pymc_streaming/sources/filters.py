"""A filter on rows: which columns it needs, which row groups it can skip, which rows pass."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import acero

from pymc_streaming.errors import ArgumentError, SchemaError, SourceError
from pymc_streaming.sources.columns import canonical_type, shortened
from pymc_streaming.sources.files import DataFile

__all__ = ["RowFilter"]


class RowFilter:
    """A `pyarrow.compute.Expression` that keeps the rows for which it is true.

    Parameters
    ----------
    expression : pyarrow.compute.Expression
        A boolean expression on columns by name.
    schema : pyarrow.Schema
        Schema of the first file.
    where : str
        The first file in words, for messages.

    Attributes
    ----------
    columns : list of str
        The columns it uses.
    """

    def __init__(self, expression: pc.Expression, schema: pa.Schema, where: str) -> None:
        if not isinstance(expression, pc.Expression):
            raise ArgumentError(
                "filters must be a pyarrow expression such as pyarrow.compute.field('delay') > 15, "
                f"found {type(expression).__name__}."
            )
        if "FieldPath(" in str(expression):
            raise ArgumentError(f"filters must refer to columns by name, found {expression}.")
        self.expression = expression
        schema = _plain(schema)
        try:
            self.apply(schema.empty_table())
        except pa.ArrowInvalid as error:
            raise SchemaError(
                f"{where}: the filter {expression} does not fit the columns "
                f"{shortened(schema.names)}: {error}"
            ) from error
        except (pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise SchemaError(
                f"{where}: the filter {expression} does not fit the types of its columns: {error}"
            ) from error
        # Arrow does not tell which columns an expression uses: those it cannot do without.
        used = [name for i, name in enumerate(schema.names) if not self._works_without(schema, i)]
        self.columns = used or schema.names[:1]  # some column must say how many rows there are
        # Statistics know nothing of NaN, and NaN passes filters such as x != 1.
        self._prunes = not any(
            pa.types.is_floating(schema.field(name).type)
            or pa.types.is_nested(schema.field(name).type)
            for name in self.columns
        )

    def row_groups(self, file: DataFile, n_row_groups: int) -> Sequence[int]:
        """Numbers of the row groups of `file` that may hold a row that passes."""
        if not self._prunes:
            return range(n_row_groups)
        fragment = ds.ParquetFileFormat().make_fragment(file.inner_path, file.filesystem)
        pieces = fragment.split_by_row_group(
            self.expression, schema=_plain(fragment.physical_schema)
        )
        return [group.id for piece in pieces for group in piece.row_groups]

    def passing(self, batch: pa.RecordBatch, where: str) -> pa.RecordBatch:
        """The rows of `batch` that pass, in order; `where` says where it is from."""
        try:
            table = self.apply(pa.Table.from_batches([batch]))
        except pa.ArrowException as error:
            raise SourceError(f"{where}: the filter {self.expression} failed: {error}") from error
        return table.combine_chunks().to_batches()[0] if table.num_rows else batch.slice(0, 0)

    def apply(self, table: pa.Table) -> pa.Table:
        """The rows of `table` that pass, in order."""
        table = table.cast(_plain(table.schema, self.columns)) if table.num_rows else table
        source = acero.Declaration("table_source", acero.TableSourceNodeOptions(table))
        keep = acero.Declaration("filter", acero.FilterNodeOptions(self.expression), [source])
        return keep.to_table(use_threads=False)

    def _works_without(self, schema: pa.Schema, i: int) -> bool:
        try:
            self.apply(schema.remove(i).empty_table())
        except pa.ArrowInvalid:
            return False
        return True


def _plain(schema: pa.Schema, names: Sequence[str] | None = None) -> pa.Schema:
    """The schema with dictionaries decoded, of these columns or of all."""
    return pa.schema(
        [
            field.with_type(canonical_type(field.type))
            if names is None or field.name in names
            else field
            for field in schema
        ]
    )
