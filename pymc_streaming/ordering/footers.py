"""What the footers of Parquet files tell about the order, without reading any data."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pymc_streaming.ordering.features import bounded, readable
from pymc_streaming.ordering.statistics import quadratic_tail
from pymc_streaming.sources.columns import canonical_type, units_per_second
from pymc_streaming.sources.files import DataFile
from pymc_streaming.sources.open_files import OpenFiles

__all__ = ["ColumnRanges", "Footers", "read_footers"]

#: Groups with fewer values are not held against each other: two disjoint ranges of so many values
#: have a probability below 1e-18 in a shuffled table.
FEWEST_VALUES = 32
#: With fewer row groups a trend of their ranges is no evidence.
FEWEST_GROUPS = 8

_THREADS = 16


@dataclass
class ColumnRanges:
    """Smallest and largest value of one column in each row group.

    Parameters
    ----------
    low, high : ndarray of float, shape (row groups,)
        The range, as numbers (dates in days, times in seconds, strings as ranks); NaN where
        unknown.
    values : ndarray of int, shape (row groups,)
        Values that are not null.
    nulls : ndarray of int, shape (row groups,)
        Nulls; -1 where unknown.
    rows : ndarray of int, shape (row groups,)
        Rows of the row groups.
    is_rank : bool
        Whether the numbers are only ranks.
    rare : float, default 1.0
        Probability that a shuffled table has its rare values in so few row groups; set by
        `count_rare_values`.
    """

    low: np.ndarray
    high: np.ndarray
    values: np.ndarray
    nulls: np.ndarray
    rows: np.ndarray
    is_rank: bool
    rare: float = 1.0

    @property
    def trend(self) -> float | None:
        """Mean Kendall correlation of both ends of the range with the position."""
        known = np.isfinite(self.low)
        if known.sum() < 2:
            return None
        taus = [_kendall(ends[known])[0] for ends in (self.low, self.high)]
        finite = [tau for tau in taus if np.isfinite(tau)]
        return float(np.mean(finite)) if finite else None

    @property
    def overlap(self) -> float | None:
        """Overlap of neighbouring ranges, as a share of the whole range; 1 when all are alike."""
        known = np.isfinite(self.low)
        low, high = self.low[known], self.high[known]
        if len(low) < 2 or high.max() <= low.min():
            return None
        shared = np.minimum(high[1:], high[:-1]) - np.maximum(low[1:], low[:-1])
        return float(np.maximum(shared, 0.0).mean() / (high.max() - low.min()))

    def p_value(self) -> float:
        """Probability of so much order, of any of four kinds, in a shuffled table."""
        kinds = (self._disjoint(), self._trending(), self._nulls_uneven(), self.rare)
        return min(1.0, len(kinds) * min(kinds))

    def _disjoint(self) -> float:
        """Two row groups of which one has all its values below all of the other's.

        Of all ways to deal the values of both out to them, one does that at most.
        """
        usable = np.isfinite(self.low) & (self.values >= FEWEST_VALUES)
        if usable.sum() < 2:
            return 1.0
        low, high, values = self.low[usable], self.high[usable], self.values[usable]
        below, above = np.argmin(high), np.argmax(low)
        if not high[below] < low[above]:
            return 1.0
        a, b = float(values[below]), float(values[above])
        ways = math.lgamma(a + b + 1) - math.lgamma(a + 1) - math.lgamma(b + 1)
        return min(1.0, math.exp(min(0.0, 2 * math.log(len(low)) - ways)))

    def _trending(self) -> float:
        # The ends of a range depend on how many values are in it: groups of equal size only.
        usable = np.isfinite(self.low) & (self.rows == _mode(self.rows))
        if usable.sum() < FEWEST_GROUPS:
            return 1.0
        return min(1.0, 2.0 * min(_kendall(ends[usable])[1] for ends in (self.low, self.high)))

    def _nulls_uneven(self) -> float:
        if (self.nulls < 0).any() or len(self.nulls) < 2:
            return 1.0
        rows, nulls = self.rows.astype(float), self.nulls.astype(float)
        share = nulls.sum() / rows.sum()
        if min(share, 1 - share) * rows.sum() < FEWEST_VALUES:
            return 1.0
        statistic = ((nulls - rows * share) ** 2 / rows).sum() / (share * (1 - share))
        excess = 1 / (share * (1 - share)) - 6
        return float(quadratic_tail(statistic, len(rows) - 1, excess, (1 / rows).sum()))


@dataclass
class Footers:
    """The footers of all files.

    Parameters
    ----------
    schema : pyarrow.Schema
        Columns of the first file.
    uneven : set of str
        Those that are not in all files with the same type.
    ranges : dict of str to ColumnRanges
        By column, for those with statistics that can be judged.
    counts : list of int
        Rows of each row group.
    groups : list of (int, int)
        File and number in it, of each row group.
    stored_bytes : int
        Size of the row groups on disk.
    decoded_bytes : int
        Their size without compression, in the encoding of the files.
    sorting : set of str
        Columns by which the files say they are sorted: a declaration, not evidence.
    seconds : float
        Spent on reading the footers.
    """

    schema: pa.Schema
    uneven: set[str] = field(default_factory=set)
    ranges: dict[str, ColumnRanges] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    groups: list[tuple[int, int]] = field(default_factory=list)
    stored_bytes: int = 0
    decoded_bytes: int = 0
    sorting: set[str] = field(default_factory=set)
    seconds: float = 0.0


def read_footers(files: Sequence[DataFile], columns: Collection[str] | None = None) -> Footers:
    """Collect the statistics of all row groups.

    Parameters
    ----------
    files : sequence of DataFile
        Parquet files.
    columns : collection of str, optional
        Columns whose ranges are wanted. Default: all.
    """
    started = time.perf_counter()

    def read(file: DataFile) -> tuple[pa.Schema, pq.FileMetaData]:
        with OpenFiles().borrow(file) as opened:
            return opened.schema_arrow, opened.metadata

    # Footers wait for a remote store most of the time.
    with ThreadPoolExecutor(min(_THREADS, len(files))) as pool:
        read_all = pool.map(read, files)
        first, metadata = next(read_all)
        footers = Footers(first)
        wanted = {f.name: f.type for f in first if columns is None or f.name in columns}
        found: dict[str, list[_Entry]] = {n: [] for n, kind in wanted.items() if readable(kind)}
        _add_file(footers, 0, metadata, found)
        for number, (schema, metadata) in enumerate(read_all, 1):
            for name, kind in wanted.items():
                index = schema.get_field_index(name)
                if index < 0 or canonical_type(schema.field(index).type) != canonical_type(kind):
                    footers.uneven.add(name)
            _add_file(footers, number, metadata, found)
    rows = np.array(footers.counts)
    for name, entries in found.items():
        if name not in footers.uneven and any(entry.nulls >= 0 for entry in entries):
            footers.ranges[name] = _column_ranges(entries, rows, canonical_type(wanted[name]))
    footers.seconds = time.perf_counter() - started
    return footers


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one row group says about one column; of a nested column it says nothing."""

    low: Any = None
    high: Any = None
    values: int = 0
    nulls: int = -1


def _add_file(
    footers: Footers, number: int, metadata: pq.FileMetaData, found: Mapping[str, list[_Entry]]
) -> None:
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        if not row_group.num_rows:
            continue
        footers.groups.append((number, group))
        footers.counts.append(row_group.num_rows)
        sorted_by = {column.column_index for column in row_group.sorting_columns or ()}
        entries = dict.fromkeys(found, _Entry())
        for i in range(row_group.num_columns):
            chunk = row_group.column(i)
            footers.stored_bytes += chunk.total_compressed_size
            footers.decoded_bytes += chunk.total_uncompressed_size
            name = chunk.path_in_schema
            if i in sorted_by:
                footers.sorting.add(name)
            if name in found:
                entries[name] = _entry(chunk, row_group.num_rows)
        for name, entry in entries.items():
            found[name].append(entry)


def _entry(chunk: pq.ColumnChunkMetaData, n_rows: int) -> _Entry:
    statistics = chunk.statistics if chunk.is_stats_set else None
    if statistics is None:
        return _Entry()
    nulls = statistics.null_count if statistics.has_null_count else -1
    values = n_rows - max(nulls, 0)
    if not statistics.has_min_max:
        return _Entry(None, None, values, nulls)
    # Raw numbers of dates and times; of unsigned integers and decimals they would be others.
    is_raw = chunk.physical_type in ("INT32", "INT64") and statistics.logical_type.type in (
        "DATE",
        "TIME",
        "TIMESTAMP",
        "NONE",
    )
    low, high = (
        (statistics.min_raw, statistics.max_raw) if is_raw else (statistics.min, statistics.max)
    )
    if low is None or high is None or low != low or high != high:  # NaN is not equal to itself
        return _Entry(None, None, values, nulls)
    return _Entry(low, high, values, nulls)


def _column_ranges(entries: list[_Entry], rows: np.ndarray, kind: pa.DataType) -> ColumnRanges:
    known = [end for entry in entries for end in (entry.low, entry.high) if end is not None]
    is_rank = any(isinstance(end, str | bytes) for end in known)
    if is_rank:
        ranks: Mapping[Any, int] = {end: rank for rank, end in enumerate(sorted(set(known)))}
        low, high = (
            [math.nan if end is None else ranks[end] for end in ends]
            for ends in ([e.low for e in entries], [e.high for e in entries])
        )
    else:
        unit = units_per_second(kind)
        low, high = (
            [math.nan if end is None else float(end) / unit for end in ends]
            for ends in ([e.low for e in entries], [e.high for e in entries])
        )
    low, high = bounded(np.array([low, high], dtype=float))
    return ColumnRanges(
        low,
        high,
        np.array([entry.values for entry in entries]),
        np.array([entry.nulls for entry in entries]),
        rows,
        is_rank,
    )


def _kendall(ends: np.ndarray) -> tuple[float, float]:
    """Correlation with the position, and its p-value."""
    if len(ends) < 2 or np.ptp(ends) == 0:
        return math.nan, 1.0
    from scipy import stats  # takes 16 MB, and what it needs another 20: not for every fit

    # Its exact distribution grows with the square of the length.
    method = "auto" if len(ends) <= 50 else "asymptotic"
    tau, p = stats.kendalltau(np.arange(len(ends)), ends, method=method)
    return float(tau), float(p) if np.isfinite(p) else 1.0


def _mode(values: np.ndarray) -> int:
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[np.argmax(counts)])
