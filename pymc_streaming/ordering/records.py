"""What the order report consists of."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from pymc_streaming.ordering.footers import ColumnRanges
from pymc_streaming.ordering.judge import Judgement

__all__ = ["ColumnOrder", "OrderReport", "RelationOrder"]


@dataclass(frozen=True)
class ColumnOrder:
    """How one column lies in the order of the rows.

    Parameters
    ----------
    name, type : str
        The column.
    ordered : bool or None
        Whether it follows the order; None when it could not be judged, or when no order was found
        where too little was looked at to say that there is none.
    evidence : tuple of str
        What shows it: ``"ranges"`` (of the row groups, from footers), ``"trend"``,
        ``"season"`` (a few periods over the table), ``"fragments"`` (they differ),
        ``"runs"`` (stretches within a fragment differ), ``"neighbours"`` (rows are like, or
        unlike, the row before). Or why it was not judged.
    findings : dict of str to tuple of str
        The same evidence by what of the column shows it, the clearest first: ``"mean"``,
        ``"alphabetical rank"``, ``"mix of levels"``, ``"share of nulls"``; or ``"range"``, where
        only footers do.
    p_value : float or None
        Smallest p-value of its tests, times the number of tests of all columns. At least 1e-12:
        smaller ones are given as this bound.
    range_trend : float or None
        From footers: Kendall's correlation of the ends of the row groups' ranges with their
        position, -1 to 1.
    range_overlap : float or None
        From footers: overlap of neighbouring ranges, as a share of the whole range, 0 to 1.
    lag_correlation : float or None
        Correlation of neighbouring rows (of normal scores, or levels), -1 to 1.
    intra_batch_correlation : float or None
        Correlation ρ of two rows of a batch, streamed in order.
    design_effect : float or None
        ``1 + (batch_size - 1) * ρ``: variance of the mean of a batch over that of as many
        random rows (Kish), streamed in order. 1 for a shuffled table.
    buffered_design_effect : float or None
        The same with ``shuffle=True`` and the buffer of the report.
    """

    name: str
    type: str
    ordered: bool | None
    evidence: tuple[str, ...]
    findings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    p_value: float | None = None
    range_trend: float | None = None
    range_overlap: float | None = None
    lag_correlation: float | None = None
    intra_batch_correlation: float | None = None
    design_effect: float | None = None
    buffered_design_effect: float | None = None


@dataclass(frozen=True)
class RelationOrder:
    """A product of two columns that follows the order: a relation, or a spread, that drifts.

    Parameters
    ----------
    columns : (str, str)
        The two; twice the same for the spread of one.
    evidence : tuple of str
        As for `ColumnOrder`.
    p_value : float
        Smallest p-value of its tests, times the number of tests of all products; at least 1e-12.
    design_effect, buffered_design_effect : float
        As for `ColumnOrder`.
    """

    columns: tuple[str, str]
    evidence: tuple[str, ...]
    p_value: float
    design_effect: float
    buffered_design_effect: float


@dataclass(frozen=True)
class OrderReport:
    """Whether a table is in random order; made by :func:`order_report`.

    Parameters
    ----------
    verdict : {"shuffled", "ordered", "unknown"}
        Over all columns and relations.
    reason : str
        Why, in a sentence.
    recommendation : str
        What to do, in a few sentences.
    columns : tuple of ColumnOrder
        The table behind the verdict, in the order of the columns.
    relations : tuple of RelationOrder
        Products of columns that follow the order, the clearest first; of very many, only those.
    related_columns : tuple of str
        Columns between which relations were looked at: all that have any, up to 128.
    rows : int or None
        Rows of the table, where they are known.
    sampled_rows : int
        Rows that were looked at.
    covered : float
        Share of the rows that were within reach: no deeper in their row group than was looked at
        in eight of them, or in all that are so long. 1 when nothing is read.
    footer_seconds : float or None
        Time spent on reading the footers, where there are any.
    fragments, shards : int
        Fragments (row groups), and files; 0 files where there are none.
    stored_bytes : int or None
        Size on disk.
    memory_bytes : int or None
        Size of all rows in memory, estimated from those that were looked at.
    schema : dict of str to str
        Type of every column.
    declared_sorting : tuple of str
        Columns by which the files say they are sorted. A declaration, not evidence.
    batch_size, buffer_size : int
        What the predictions are for, in rows; no more than the table has.
    steps : int
        Steps of the fit that predictions are for.
    error_in_order, error_buffered : float or None
        Error that the order is predicted to add to a fit, in posterior standard deviations, with
        ``shuffle=False``, and with ``shuffle=True`` and this buffer: an order of magnitude. None
        where it cannot be told.
    judgement, ranges
        What pictures are made of: the sample, and the ranges in the footers.
    """

    verdict: str
    reason: str
    recommendation: str
    columns: tuple[ColumnOrder, ...]
    relations: tuple[RelationOrder, ...]
    related_columns: tuple[str, ...]
    rows: int | None
    sampled_rows: int
    covered: float
    fragments: int
    shards: int
    stored_bytes: int | None
    memory_bytes: int | None
    schema: dict[str, str]
    declared_sorting: tuple[str, ...]
    batch_size: int
    buffer_size: int
    steps: int
    error_in_order: float | None
    error_buffered: float | None
    footer_seconds: float | None = field(default=None, compare=False)
    judgement: Judgement | None = field(default=None, repr=False, compare=False)
    ranges: dict[str, ColumnRanges] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON: numbers are finite, or None."""
        names = [f.name for f in fields(self) if f.name not in ("judgement", "ranges")]
        shown = {name: getattr(self, name) for name in names}
        for name in ("columns", "relations"):
            shown[name] = [asdict(record) for record in shown[name]]
        plain: dict[str, Any] = _plain(shown)
        return plain

    def __str__(self) -> str:
        from pymc_streaming.ordering.show import as_text

        return as_text(self)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
