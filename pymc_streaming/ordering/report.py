"""The order report: whether a table is in random order, and what a fit would see of it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from pymc_streaming.arguments import whole_number
from pymc_streaming.errors import ArgumentError
from pymc_streaming.ordering.advice import (
    CHOOSE_OTHERS,
    STREAM_IT,
    Advice,
    advise,
    source_line,
)
from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.footers import ColumnRanges, Footers, read_footers
from pymc_streaming.ordering.judge import Evidence, Judgement, judge
from pymc_streaming.ordering.progress import looking
from pymc_streaming.ordering.rarities import count_rare_values
from pymc_streaming.ordering.records import ColumnOrder, OrderReport, RelationOrder
from pymc_streaming.ordering.sampling import Advance, source_table
from pymc_streaming.ordering.stored import StoredTable, open_files, open_frame
from pymc_streaming.ordering.wording import findings, reason
from pymc_streaming.sources import IterableDataset, as_source
from pymc_streaming.sources.files import Paths
from pymc_streaming.sources.memory import is_table
from pymc_streaming.sources.parquet import ParquetSource

__all__ = ["judge_source", "order_report", "place_of"]

#: Steps of the fit that predictions are for: the default of `Trainer.fit`; for a large table more,
#: in thousands, so that the average over its last steps covers the table once.
STEPS, AVERAGED_STEPS_OF_1000 = 10_000, 300
#: Rows of a batch, unless asked for otherwise.
BATCH_SIZE = 4096
_MANIFEST_SAYS = "A manifest says that the rows were put in uniformly random order."
_NOTHING_TO_JUDGE = "No column holds single numbers, texts, dates or times to judge the order by."
#: Smaller probabilities are not told apart: no distribution here is known so far out.
SMALLEST_P = 1e-12
#: Memory of a loader's buffer, unless asked for otherwise.
DEFAULT_BYTES = 16 * 2**20


def order_report(
    source_or_path: Any,
    *,
    batch_size: int | None = None,
    buffer_size: int | None = None,
    columns: Sequence[str] | None = None,
    seed: int = 0,
    progressbar: bool = True,
) -> OrderReport:
    """Look whether the rows of a table are in random order.

    Streaming inference takes a batch for a fair sample of the table. If rows that are close
    together are alike, by time for example, it is none, and no error says so.

    Parameters
    ----------
    source_or_path : str, os.PathLike, list of them, data frame, DataLoader, or what that takes
        Parquet, Arrow or Feather files, or a data frame or Arrow table in memory: all columns
        are looked at, whatever their types, as they are stored. Of a source, or the source of a
        `DataLoader`: the arrays that batches are made of, after a transform.
    batch_size : int, optional
        Rows of the batches that predictions are for, at most the table. Default: that of the
        `DataLoader` that was given, else 4096.
    buffer_size : int, optional
        Rows of the shuffle buffer that predictions are for, at most the table. Default: that of
        the `DataLoader` that was given; else the default of `DataLoader`, as many rows as fit in
        16 MiB, at least four batches.
    columns : sequence of str, optional
        Columns of files or of a data frame to look at. Default: all.
    seed : int, default 0
        Seed of the places that are looked at.
    progressbar : bool, default True
        Show progress on standard error, where there is a terminal.

    Returns
    -------
    OrderReport
        ``print`` it to read it.

    Raises
    ------
    ArgumentError
        If an argument cannot be meant.
    SourceError
        If the data cannot be read, or a column is not there.

    Notes
    -----
    Three kinds of evidence are weighed: the ranges of the row groups, from the footers of Parquet
    files; sums over short runs of consecutive rows from all over the table, against what a
    random permutation gives; and the correlation of neighbouring rows. Numbers enter as normal
    scores, text and codes as levels, and relations as products of two columns. The probability
    that a shuffled table is called ordered is below 0.5 %. The explanation in the documentation
    says how, and where the power ends.

    At most 1,000,000 rows are looked at, and a few times as many decoded, however large the
    table is.

    References
    ----------
    Kish, L. (1965). *Survey Sampling*. Wiley.
    Xu, L. et al. (2022). In-database machine learning with CorgiPile: stochastic gradient
    descent without full data shuffle. SIGMOD; arXiv:2206.05830.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_streaming import order_report
    >>> day = np.repeat(np.arange(100), 500)
    >>> report = order_report({"day": day, "noise": np.random.default_rng(0).normal(size=50_000)})
    >>> report.verdict, [column.name for column in report.columns if column.ordered]
    ('ordered', ['day'])
    """
    loader = source_or_path if _is_loader(source_or_path) else None
    if loader is not None:
        source_or_path = loader.source
        batch_size = loader.batch_size if batch_size is None else batch_size
        buffer_size = loader.buffer_size if buffer_size is None else buffer_size
    batch_size = whole_number("batch_size", BATCH_SIZE if batch_size is None else batch_size)
    buffer_size = None if buffer_size is None else whole_number("buffer_size", buffer_size)
    seed = whole_number("seed", seed, least=0)
    if isinstance(columns, str) or (columns is not None and not len(columns)):
        raise ArgumentError(f"columns must be a list of names, found {columns!r}.")
    sizes = batch_size, buffer_size
    with looking(progressbar) as advance:
        if _is_path(source_or_path):
            stored = open_files(source_or_path, columns)
            return _of_stored(stored, *sizes, seed, advance, source_or_path, columns)
        if is_table(source_or_path):
            return _of_stored(open_frame(source_or_path, columns), *sizes, seed, advance)
        if columns is not None:
            raise ArgumentError(
                "columns are for files and data frames, found "
                f"{type(source_or_path).__name__}, whose columns were chosen when it was made."
            )
        n_rows = getattr(loader, "total_size", None)
        return _of_source(as_source(source_or_path), *sizes, seed, advance, n_rows)


def judge_source(
    source: IterableDataset,
    n_rows: int | None = None,
    seed: int = 0,
    advance: Advance | None = None,
) -> tuple[Judgement, Footers | None]:
    """The judgement on what the batches of a source are, and the footers it rests on.

    Parameters
    ----------
    source : IterableDataset
        What is looked at.
    n_rows : int, optional
        Its rows, where it does not know them itself.
    seed : int, default 0
        Seed of the places that are looked at.
    advance : callable, optional
        Told the fragments read, and all that are to be.
    """
    footers = _own_footers(source)
    ranges = {} if footers is None else footers.ranges
    known = source.n_rows if n_rows is None else n_rows
    return judge(source_table(source), ranges, seed, known, advance), footers


def place_of(source: IterableDataset) -> str | None:
    """The file or the folder that a Parquet source reads."""
    if not isinstance(source, ParquetSource):
        return None
    first, last = min(paths := [file.path for file in source.files]), max(paths)
    if first == last:
        return first
    shared = next(i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: first.rfind("/", 0, shared) + 1]


def _own_footers(source: IterableDataset) -> Footers | None:
    """The footers of a Parquet source, if what they describe is what its blocks hold."""
    if not isinstance(source, ParquetSource):
        return None
    footers = read_footers(source.files, set(source.columns))
    counts = [fragment.n_rows for fragment in source.fragments]
    if counts != footers.counts:  # there is a filter
        footers.ranges = {}
    count_rare_values(source.files, footers)
    return footers


def _of_source(
    source: IterableDataset,
    batch_size: int,
    buffer_size: int | None,
    seed: int,
    advance: Advance,
    n_rows: int | None,
) -> OrderReport:
    table = source_table(source)
    types = {}
    for name, spec in source.layout.items():
        for label in (*spec.columns, name):
            types[label] = str(spec.dtype)
    schema = {name: types.get(name, types.get(name.split("[")[0], "")) for name in table.columns}
    rows = source.n_rows if n_rows is None else n_rows
    facts = _Facts(schema, rows, len(source.fragments), source.row_nbytes)
    if source.is_shuffled:
        return _unread(facts, "shuffled", _MANIFEST_SAYS, batch_size, buffer_size)
    judgement, footers = judge_source(source, n_rows, seed=seed, advance=advance)
    if footers is not None:
        facts.add(footers, len(source.files))  # type: ignore[attr-defined]
    return _report(facts, judgement, batch_size, buffer_size, place_of(source))


def _of_stored(
    stored: StoredTable,
    batch_size: int,
    buffer_size: int | None,
    seed: int,
    advance: Advance,
    path: Paths | None = None,
    columns: Sequence[str] | None = None,
) -> OrderReport:
    table = stored.table()
    schema = {name: str(kind) for name, kind in stored.types.items()}
    # What the loader makes of them: numbers of 8 bytes.
    row_nbytes = 8 * max(1, len(table.columns))
    facts = _Facts(schema, sum(stored.counts), len(stored.counts), row_nbytes)
    facts.shards, facts.stored_bytes = stored.shards, stored.nbytes
    facts.unjudged = stored.unjudged
    if stored.footers is not None:
        facts.add(stored.footers, stored.shards)
    if not table.columns:
        return _unread(facts, "unknown", _NOTHING_TO_JUDGE, batch_size, buffer_size)
    judgement = judge(table, facts.ranges, seed, None, advance, len(stored.unjudged))
    if stored.is_shuffled and judgement.verdict != "ordered":
        judgement.verdict = "shuffled"
        judgement.reason = (
            f"{_MANIFEST_SAYS} Nothing speaks against it in the {judgement.sample.rows:,} rows "
            "that were looked at."
        )
    has_text = any("string" in kind for kind in schema.values())
    source = None if path is None else source_line(stored.kind, path, columns, has_text)
    return _report(facts, judgement, batch_size, buffer_size, path, source)


class _Facts:
    """What a report says besides the order."""

    def __init__(
        self, schema: dict[str, str], rows: int | None, fragments: int, row_nbytes: int
    ) -> None:
        self.schema, self.rows, self.fragments = schema, rows, fragments
        self.row_nbytes = row_nbytes
        self.shards = 0
        self.stored_bytes: int | None = None
        self.sorting: tuple[str, ...] = ()
        self.ranges: dict[str, ColumnRanges] = {}
        self.unjudged: dict[str, str] = {}
        self.footer_seconds: float | None = None

    def add(self, footers: Footers, shards: int) -> None:
        self.shards, self.stored_bytes = shards, footers.stored_bytes
        self.sorting, self.ranges = tuple(sorted(footers.sorting)), footers.ranges
        self.footer_seconds = footers.seconds


def _report(
    facts: _Facts,
    judgement: Judgement,
    batch_size: int,
    buffer_size: int | None,
    path: Paths | None,
    source: str | None = None,
) -> OrderReport:
    sample = judgement.sample
    rows = facts.rows if facts.rows is not None else sample.n_rows
    batch_size = batch_size if rows is None else min(batch_size, rows)
    buffer = _buffer(facts, batch_size, buffer_size, rows)
    in_order, buffered = Stream(batch_size), Stream(batch_size, buffer)
    nbytes = sum(array.nbytes for array in sample.columns.values())
    steps = _steps(rows, batch_size)
    advice: Advice = advise(judgement, in_order, buffered, steps, path, source)
    columns = tuple(
        _column(name, kind, facts, judgement, in_order, buffered)
        for name, kind in facts.schema.items()
    )
    relations = tuple(
        RelationOrder(
            (e.names[0], e.names[1]),
            e.kinds,
            max(e.p_value, SMALLEST_P),
            judgement.design_effect(e, in_order),
            judgement.design_effect(e, buffered),
        )
        for e in judgement.products
    )
    return OrderReport(
        judgement.verdict,
        _reason(columns, relations) if judgement.verdict == "ordered" else judgement.reason,
        advice.recommendation,
        columns,
        relations,
        judgement.related,
        rows,
        sample.rows,
        sample.covered,
        facts.fragments,
        facts.shards,
        facts.stored_bytes,
        None if rows is None else round(nbytes / sample.rows * rows),
        facts.schema,
        facts.sorting,
        batch_size,
        buffer,
        steps,
        _known(advice.error_in_order),
        _known(advice.error_buffered),
        facts.footer_seconds,
        judgement,
        facts.ranges,
    )  # fmt: skip


def _reason(columns: Sequence[ColumnOrder], relations: Sequence[RelationOrder]) -> str:
    clearest = sorted((c for c in columns if c.ordered), key=lambda c: -(c.design_effect or 0))
    return reason(
        [((column.name,), column.findings) for column in clearest]
        + [(relation.columns, {"product": relation.evidence}) for relation in relations]
    )


def _unread(
    facts: _Facts, verdict: str, why: str, batch_size: int, buffer_size: int | None
) -> OrderReport:
    """The report on a table of which no row was looked at."""
    batch_size = batch_size if facts.rows is None else min(batch_size, facts.rows)
    buffer = _buffer(facts, batch_size, buffer_size, facts.rows)
    is_shuffled = verdict == "shuffled"
    return OrderReport(
        verdict, why, STREAM_IT if is_shuffled else CHOOSE_OTHERS,
        tuple(
            ColumnOrder(name, kind, False, ("manifest",)) if is_shuffled
            else ColumnOrder(name, kind, None, (facts.unjudged[name],))
            for name, kind in facts.schema.items()
        ),
        (), (), facts.rows, 0, 1.0, facts.fragments, facts.shards,
        facts.stored_bytes,
        None if facts.rows is None or not is_shuffled else facts.rows * facts.row_nbytes,
        facts.schema, facts.sorting, batch_size, buffer, _steps(facts.rows, batch_size), 0.0, 0.0,
        facts.footer_seconds,
    )  # fmt: skip


def _buffer(facts: _Facts, batch_size: int, buffer_size: int | None, rows: int | None) -> int:
    if buffer_size is None:
        buffer_size = max(DEFAULT_BYTES // max(1, facts.row_nbytes), 4 * batch_size)
    return buffer_size if rows is None else min(buffer_size, rows)


def _known(error: float) -> float | None:
    """A prediction with the one digit that it has, if there is one."""
    return float(f"{error:.1g}") if math.isfinite(error) else None


def _steps(rows: int | None, batch_size: int) -> int:
    return max(STEPS, 1_000 * math.ceil((rows or 0) / (AVERAGED_STEPS_OF_1000 * batch_size)))


def _column(
    name: str,
    kind: str,
    facts: _Facts,
    judgement: Judgement,
    in_order: Stream,
    buffered: Stream,
) -> ColumnOrder:
    if name in facts.unjudged:
        return ColumnOrder(name, kind, None, (facts.unjudged[name],))
    evidence: Evidence = judgement.columns[name]
    ranges = facts.ranges.get(name)
    trend = None if ranges is None else ranges.trend
    overlap = None if ranges is None else ranges.overlap
    p_footers = judgement.by_footers.get(name, 1.0)
    found = judgement.is_ordered(evidence)
    if not found and not any(f.tests for f in evidence.features):
        why = "too few distinct values"
        return ColumnOrder(name, kind, None, (why,), {}, None, trend, overlap)
    kinds = (("ranges",) if judgement.follows_ranges(name) else ()) + evidence.kinds
    if not found and judgement.gap is not None:
        kinds = (judgement.gap.label,)
    effect = judgement.design_effect(evidence, in_order)
    return ColumnOrder(
        name,
        kind,
        found or (False if judgement.gap is None else None),
        kinds,
        findings(judgement, name, kind),
        max(SMALLEST_P, min(evidence.p_value, p_footers)),
        trend,
        overlap,
        evidence.lag,
        (effect - 1) / max(1, in_order.batch_size - 1),
        effect,
        judgement.design_effect(evidence, buffered),
    )


def _is_path(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(item, str | os.PathLike) for item in value)
    return isinstance(value, str | os.PathLike)


def _is_loader(value: object) -> bool:
    """Whether it is a `DataLoader` or a `shuffle_buffer`, which this package knows nothing of."""
    if is_table(value) or isinstance(value, IterableDataset):
        return False
    return all(hasattr(value, name) for name in ("source", "batch_size", "buffer_size"))
