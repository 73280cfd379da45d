"""Rare values that stand together, which samples miss and footers show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pymc_streaming.ordering.features import takeable
from pymc_streaming.ordering.footers import ColumnRanges, Footers
from pymc_streaming.sources.files import DataFile
from pymc_streaming.sources.open_files import OpenFiles

__all__ = ["clustering_p_value", "count_rare_values"]

#: Row groups of which one column is read to count the rare values, and columns that are.
MOST_GROUPS, MOST_COLUMNS = 4, 16
#: A probability from which no further counting changes anything.
ENOUGH = 1e-30


def count_rare_values(files: Sequence[DataFile], footers: Footers) -> None:
    """Set `ColumnRanges.rare` where all but a few row groups hold one and the same value.

    How many other values there are the footers do not tell, so that column of those few row
    groups is read, and no other.

    Parameters
    ----------
    files : sequence of DataFile
        The files that the footers are of.
    footers : Footers
        What they say.
    """
    groups = {name: _holders(ranges) for name, ranges in footers.ranges.items()}
    suspects = [name for name, holders in groups.items() if 0 < len(holders) <= MOST_GROUPS]
    # The fewer groups hold the rare values, the more that says.
    for name in sorted(suspects, key=lambda name: len(groups[name]))[:MOST_COLUMNS]:
        ranges, holders = footers.ranges[name], groups[name]
        counted = 0
        for holder in holders:
            file, group = footers.groups[holder]
            counted += _count(files[file], group, name)
            ranges.rare = clustering_p_value(ranges.values, len(holders), counted)
            if ranges.rare < ENOUGH:
                break


def clustering_p_value(values: np.ndarray, n_holders: int, n_rare: int) -> float:
    """Probability that so few row groups hold all the rare values of a shuffled table.

    Any `n_rare` rows are equally likely to be the rare ones, so that given groups hold them all
    with a hypergeometric probability. It is largest for the longest groups; there are as many
    choices of groups as combinations.

    Parameters
    ----------
    values : ndarray of int, shape (row groups,)
        Values in each row group, nulls left out.
    n_holders : int
        Row groups with rare values.
    n_rare : int
        Rare values, or fewer.

    Examples
    --------
    >>> import numpy as np
    >>> round(clustering_p_value(np.full(10, 100), 1, 2), 3)  # 10 * (100 / 1000) * (99 / 999)
    0.099
    """
    filled = np.sort(values[values > 0])
    total, longest = int(filled.sum()), int(filled[-n_holders:].sum())
    choices = math.log(math.comb(len(filled), n_holders))
    ways = _log_falling(longest, n_rare) - _log_falling(total, n_rare)
    return min(1.0, math.exp(min(0.0, choices + ways)))


def _log_falling(n: int, k: int) -> float:
    """Logarithm of n (n - 1) ... (n - k + 1)."""
    return math.lgamma(n + 1) - math.lgamma(n - k + 1)


def _holders(ranges: ColumnRanges) -> np.ndarray:
    """Row groups that hold anything but the one value that most of them are full of."""
    filled = ranges.values > 0
    constant = filled & (ranges.low == ranges.high)
    if 2 * constant.sum() <= filled.sum() or not np.isfinite(ranges.low[filled]).all():
        return np.empty(0, np.int64)
    found, counts = np.unique(ranges.low[constant], return_counts=True)
    return np.flatnonzero(filled & ~(constant & (ranges.low == found[np.argmax(counts)])))


def _count(file: DataFile, group: int, name: str) -> int:
    """Values of a row group besides the usual one; of a stretch full of others, too few."""
    counted = 0
    with OpenFiles().borrow(file, f"row group {group}") as parquet:
        for batch in parquet.iter_batches(row_groups=[group], columns=[name], use_threads=False):
            values = takeable(batch.column(0)).drop_null()
            if pa.types.is_dictionary(values.type):
                values = values.indices
            if len(values):
                most = pc.max(pc.value_counts(values).field("counts")).as_py()
                counted += len(values) - most
    return counted
