"""The report as text: the verdict, what a fit would see, what to do, and the columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pymc_streaming.ordering.advice import HARMLESS, off_by
from pymc_streaming.ordering.records import ColumnOrder, OrderReport, RelationOrder
from pymc_streaming.ordering.wording import listed, manner, relation, shown, telling_relations

__all__ = ["as_text", "print_report"]

#: Columns and relations that are listed one by one, and columns that are only named.
MOST_COLUMNS, MOST_RELATIONS, MOST_NAMES = 20, 5, 12
#: Longer lines are hard to read, however wide the terminal is.
WIDEST = 100

_SAYS = {
    "ordered": "the rows are not in random order.",
    "shuffled": "the rows can be taken to be in random order.",
    "unknown": "whether the rows are in random order cannot be told.",
}


def as_text(report: OrderReport, width: int = 80) -> str:
    """The report in lines of that width; what can be pasted is in lines of its own, unbroken."""
    lines: list[str] = []
    for paragraph in _paragraphs(report, width):
        if isinstance(paragraph, list):
            lines += paragraph
        elif paragraph.startswith("    "):
            lines.append(paragraph)
        else:
            lines += textwrap.wrap(paragraph, width, break_on_hyphens=False)
        lines.append("")
    return "\n".join(lines[:-1])


def print_report(report: OrderReport, console: Console) -> None:
    """Print the report."""
    text = Text(as_text(report, min(console.width, WIDEST)))
    text.stylize("bold", 0, len(report.verdict))
    console.print(text, soft_wrap=True)


def _paragraphs(report: OrderReport, width: int) -> Iterator[str | list[str]]:
    yield f"{report.verdict.upper()}: {_SAYS[report.verdict]} {report.reason}"
    if report.verdict == "ordered":
        yield _fit(report)
    yield from report.recommendation.split("\n\n")
    found = [column for column in report.columns if column.ordered]
    if found or report.relations:
        yield _table(report, found, width)
        yield _legend(report)
    rest = " ".join(_rest(report))
    if rest:
        yield rest
    yield _facts(report)


def _fit(report: OrderReport) -> str:
    fit = f"A fit of {report.steps:,} steps with batches of {report.batch_size:,} rows would be"
    in_order, buffered = _off(report.error_in_order), _off(report.error_buffered)
    if in_order == buffered:
        return f"{fit} {in_order}, streamed in order or with shuffle=True and {_buffer(report)}."
    return (
        f"{fit} {in_order} if the table is streamed in order, and {buffered} with shuffle=True and "
        f"{_buffer(report)}."
    )


def _off(error: float | None) -> str:
    if error is not None and error < HARMLESS:
        return f"off by less than {HARMLESS} posterior standard deviations"
    return off_by(math.inf if error is None else error)


def _buffer(report: OrderReport) -> str:
    whole = " (the whole table)" if report.buffer_size == report.rows else ""
    return f"a buffer of {report.buffer_size:,} rows{whole}"


def _table(report: OrderReport, found: list[ColumnOrder], width: int) -> list[str]:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("column", overflow="fold", min_width=6)
    table.add_column("what follows the order", overflow="fold")
    table.add_column("in order", justify="right", no_wrap=True)
    table.add_column("buffered", justify="right", no_wrap=True)
    found = sorted(found, key=lambda column: -(column.design_effect or 0.0))
    for column in found[:MOST_COLUMNS]:
        table.add_row(shown(column.name), _what(column), *_effects(column))
    news = telling_relations(report)
    for product in news[:MOST_RELATIONS]:
        what = f"{relation(product.columns)} {manner(product.evidence)}"
        table.add_row(shown(product.columns[0]), what, *_effects(product))
    file = StringIO()
    Console(file=file, width=width).print(table)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    hidden = {
        "more column": len(found) - MOST_COLUMNS,
        "more relation": len(news) - MOST_RELATIONS,
    }
    more = [_counted(count, what) for what, count in hidden.items() if count > 0]
    if known := len(report.relations) - len(news):
        more.append(f"{known:,} spread{'s and relations' if known > 1 else ' or relation'} of them")
    return lines + ([f"and {listed(more)}"] if more else [])


def _what(column: ColumnOrder) -> str:
    findings = dict(column.findings)
    if len(findings) > 1:  # the levels themselves say more
        findings.pop("alphabetical rank", None)
    return "; ".join(f"{what} {manner(kinds)}" for what, kinds in findings.items())


def _effects(found: ColumnOrder | RelationOrder) -> tuple[str, str]:
    return _number(found.design_effect), _number(found.buffered_design_effect)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _legend(report: OrderReport) -> str:
    return (
        f"The numbers: the variance of the mean of a batch of {report.batch_size:,} rows, over "
        "that of as many random rows (1 is random), for both ways to stream."
    )


def _rest(report: OrderReport) -> Iterator[str]:
    """What is not in the table."""
    unordered = [shown(column.name) for column in report.columns if column.ordered is False]
    if unordered and report.sampled_rows:
        yield f"No order was found in {_names(unordered)}."
    unjudged: dict[str, list[str]] = {}
    for column in report.columns:
        if column.ordered is None:
            unjudged.setdefault(", ".join(column.evidence), []).append(shown(column.name))
    for why, names in unjudged.items():
        if len(names) == 1:
            yield f"{names[0]} is not judged: {why}."
        else:
            yield f"{len(names):,} columns are not judged ({why}): {listed(names, MOST_NAMES)}."
    if report.declared_sorting:
        declared = listed([shown(name) for name in report.declared_sorting])
        yield f"The files declare that they are sorted by {declared}, which is not used."


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names):,} columns: {listed(names, MOST_NAMES)}"


def _facts(report: OrderReport) -> str:
    rows = "An unknown number of rows" if report.rows is None else _counted(report.rows, "row")
    where = _counted(report.fragments, "fragment")
    if report.shards:
        where += f" of {_counted(report.shards, 'file')}"
    sizes = []
    if report.stored_bytes is not None:
        sizes.append(f"{_bytes(report.stored_bytes)} on disk")
    if report.memory_bytes is not None:
        sizes.append(f"about {_bytes(report.memory_bytes)} in memory")
    if not report.sampled_rows:
        seen = "No row was looked at."
    elif report.sampled_rows == report.rows:
        seen = "All of it was looked at."
    else:
        seen = f"{_counted(report.sampled_rows, 'row')} were looked at."
    return f"{', '.join([f'{rows} in {where}', *sizes])}. {seen}"


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _bytes(count: float) -> str:
    if count < 1024:
        return _counted(int(count), "byte")
    power = min(4, int(math.log2(count)) // 10)
    return f"{count / 1024**power:,.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
