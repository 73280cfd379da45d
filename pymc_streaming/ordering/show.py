"""The report as text."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pymc_streaming.ordering.records import ColumnOrder, OrderReport, RelationOrder

__all__ = ["as_text", "print_report"]

#: How far apart the rows are that a kind of evidence compares.
SCALES = {
    "ranges": "table",
    "trend": "table",
    "season": "table",
    "fragments": "table",
    "runs": "fragment",
    "neighbours": "row",
}

#: Columns, and relations, that are listed one by one.
MOST_COLUMNS, MOST_RELATIONS = 40, 5


def as_text(report: OrderReport, width: int = 80) -> str:
    """The report, as wide as asked."""
    file = StringIO()
    print_report(report, Console(file=file, width=width))
    return file.getvalue().rstrip()


def print_report(report: OrderReport, console: Console) -> None:
    """Print the report."""
    console.print(Text(f"{report.verdict.upper()}  {report.reason}"))
    console.print()
    console.print(Text("; ".join(_facts(report))))
    if report.declared_sorting:
        declared = ", ".join(report.declared_sorting)
        console.print(Text(f"The files say they are sorted by {declared} (not used as evidence)."))
    console.print()
    console.print(_table(report))
    hidden = {
        "columns": len(report.columns) - MOST_COLUMNS,
        "relations that follow the order": len(report.relations) - MOST_RELATIONS,
    }
    more = [f"{count:,} more {what}" for what, count in hidden.items() if count > 0]
    if more:
        console.print(Text(f"and {', '.join(more)}"))
    console.print(
        Text(
            "order: columns differ from one part of the table to another, from stretch to stretch "
            "within fragments, from row to row. deff: variance of the mean of a batch over that "
            f"of as many random rows (1 = shuffled), for batches of {report.batch_size:,} rows, "
            f"in order and through a buffer of {report.buffer_size:,} rows. ranges: trend of the "
            "row groups' ranges from footers (-1 to 1) / overlap of neighbours (0 to 1). lag 1: "
            "correlation of neighbouring rows."
        )
    )
    console.print()
    console.print(Text(report.recommendation))


def _facts(report: OrderReport) -> list[str]:
    rows = "an unknown number of rows" if report.rows is None else f"{report.rows:,} rows"
    where = f"{report.fragments:,} fragment" + "s" * (report.fragments != 1)
    if report.shards:
        where += f" of {report.shards:,} file" + "s" * (report.shards != 1)
    sizes = []
    if report.stored_bytes is not None:
        sizes.append(f"{_bytes(report.stored_bytes)} on disk")
    if report.memory_bytes is not None:
        sizes.append(f"about {_bytes(report.memory_bytes)} in memory")
    seen = f"{report.sampled_rows:,} rows looked at" if report.sampled_rows else "no row looked at"
    return [f"{rows} in {where}", *sizes, seen]


def _bytes(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def _table(report: OrderReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("column", overflow="fold")
    table.add_column("order", overflow="fold")
    table.add_column("deff", justify="right")
    table.add_column("buffered", justify="right")
    table.add_column("ranges", justify="right")
    table.add_column("lag 1", justify="right")
    table.add_column("p", justify="right")
    rank = {True: 0, False: 1, None: 2}
    columns = sorted(report.columns, key=lambda c: (rank[c.ordered], -(c.design_effect or 0)))
    found = [column for column in columns if column.ordered]
    for column in found:
        table.add_row(*_column_cells(column))
    for relation in report.relations[:MOST_RELATIONS]:
        table.add_row(*_relation_cells(relation))
    for column in columns[len(found) : MOST_COLUMNS]:
        table.add_row(*_column_cells(column))
    return table


def _column_cells(column: ColumnOrder) -> list[str]:
    if column.ordered is None:
        order = f"not judged: {', '.join(column.evidence)}"
    else:
        order = _scales(column.evidence) if column.ordered else "none found"
    ranges = ""
    if column.range_trend is not None:
        ranges = f"{column.range_trend:.2f}"
        if column.range_overlap is not None:
            ranges += f" / {column.range_overlap:.2f}"
    return [
        column.name,
        order,
        _number(column.design_effect),
        _number(column.buffered_design_effect),
        ranges,
        "" if column.lag_correlation is None else f"{column.lag_correlation:.3f}",
        _p_value(column.p_value),
    ]


def _relation_cells(relation: RelationOrder) -> list[str]:
    first, second = relation.columns
    return [
        f"spread of {first}" if first == second else f"{first} × {second}",
        _scales(relation.evidence),
        _number(relation.design_effect),
        _number(relation.buffered_design_effect),
        "",
        "",
        _p_value(relation.p_value),
    ]


def _scales(evidence: tuple[str, ...]) -> str:
    found = {SCALES.get(kind, kind) for kind in evidence}
    return ", ".join(scale for scale in ("table", "fragment", "row") if scale in found)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _p_value(value: float | None) -> str:
    if value is None:
        return ""
    return "<1e-12" if value <= 1e-12 else f"{value:.1g}"
