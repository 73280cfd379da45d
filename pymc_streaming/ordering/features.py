"""From columns to the features that are tested: scores, levels, nulls, products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special

from pymc_streaming.ordering.statistics import Feature, Layout, Test, lag_test, run_tests
from pymc_streaming.sources.columns import Column, canonical_type

__all__ = [
    "ColumnFeatures",
    "TestedFeature",
    "bounded",
    "column_features",
    "readable",
    "standardised",
    "takeable",
]

#: Rows from which the map from values to normal scores is taken.
PILOT_ROWS = 16_384
KNOTS = 512
#: Levels that are told apart; all others count as one.
MOST_LEVELS = 24
#: Whole numbers with no more distinct values than this are looked at as categories too.
MOST_CODES = 64
#: Levels of text that relations are looked at of, the commonest ones, and the smallest share of the
#: rows that such a level, or its opposite, has.
MOST_INDICATORS, SMALLEST_INDICATOR = 2, 0.01
#: Levels with a smaller share of the rows are not told apart.
SMALLEST_SHARE = 1e-3


@dataclass(frozen=True)
class TestedFeature:
    """A feature, its tests, and what the size of its clustering is computed from.

    Parameters
    ----------
    what : str
        ``"values"``, ``"levels"``, ``"nulls"``, or ``"product"``.
    tests : list of Test
        Those that could be made.
    sums : ndarray of float, shape (runs, dimensions)
        Sum over each run of the row's numbers, centred and with total variance 1.
    squares : ndarray of float, shape (runs,)
        Sum over each run of their squared length.
    """

    what: str
    tests: list[Test]
    sums: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class ColumnFeatures:
    """What a column is judged by.

    Parameters
    ----------
    factors : list of ndarray of float, shape (rows,)
        What products are made of, standardised: the normal scores of numbers, indicators of the
        commonest levels of text.
    features : list of TestedFeature
        Empty if nothing can be judged.
    lag : float
        Correlation of neighbouring rows, of the scores or the levels.
    values : ndarray of float or None
        The numbers themselves, NaN for null, infinities bounded.
    """

    factors: list[np.ndarray]
    features: list[TestedFeature]
    lag: float
    values: np.ndarray | None


def readable(kind: pa.DataType) -> bool:
    """Whether a column of this type can be judged."""
    kind = canonical_type(kind)
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_large_string(kind)
        or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
    )


def takeable(array: pa.Array) -> pa.Array:
    """An array that Arrow can take rows from and count values of, as it cannot of every type."""
    if pa.types.is_string_view(array.type):
        return array.cast(pa.large_string())
    if pa.types.is_decimal32(array.type) or pa.types.is_decimal64(array.type):
        return array.cast(pa.decimal128(array.type.precision, array.type.scale))
    return array


def bounded(numbers: np.ndarray) -> np.ndarray:
    """With infinities as the largest and smallest values, half a range beyond the others."""
    if not np.isinf(numbers).any():
        return numbers
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    beyond = (high / 2 - low / 2) or abs(high) or 1.0
    most = float(np.finfo(float).max)
    low, high = max(low - beyond, -most), min(high + beyond, most)
    clipped: np.ndarray = np.clip(numbers, low, high)
    return clipped


def column_features(array: Any, layout: Layout, random: np.random.Generator) -> ColumnFeatures:
    """The features of one sampled column.

    Parameters
    ----------
    array : ndarray or pyarrow.Array
        Its values, run after run.
    layout : Layout
        The runs.
    random : numpy.random.Generator
        Chooses the rows from which scores are derived.
    """
    numbers, codes, is_text = _numbers(array)
    numbers = bounded(numbers)
    valid = ~np.isnan(numbers)
    features: list[TestedFeature] = []
    n_valid = int(valid.sum())
    if 0 < n_valid < len(valid):
        nulls = standardised((~valid).astype(float))
        features.append(_scalar("nulls", nulls, nulls, layout)[0])
    if not n_valid:
        return ColumnFeatures([], features, 0.0, None)
    scores = _normal_scores(numbers, valid, random)
    if scores is None:  # constant
        return ColumnFeatures([], features, 0.0, None if is_text else numbers)
    lag = 0.0
    if not is_text or len(np.unique(numbers[valid])) > MOST_LEVELS:
        raw = standardised(np.where(valid, numbers, np.mean(numbers, where=valid)))
        feature, lag = _scalar("values", scores, raw, layout)
        features.append(feature)
    if codes is not None:
        found = _levels(codes, layout)
        if found is not None:
            feature, lag_of_levels = found
            features.append(feature)
            lag = lag_of_levels if abs(lag_of_levels) > abs(lag) else lag
    if is_text:
        return ColumnFeatures(_indicators(codes), features, lag, None)
    return ColumnFeatures([scores], features, lag, numbers)


def _numbers(array: Any) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Numbers with NaN for null, codes of levels if there are levels, whether it is text."""
    if isinstance(array, np.ndarray):
        numbers = array.astype(np.float64)
        return numbers, _few_codes(numbers) if array.dtype.kind in "iub" else None, False
    kind = canonical_type(array.type)
    valid = np.asarray(array.is_valid())
    numbers = np.full(len(array), np.nan)
    if pa.types.is_large_string(kind):
        encoded = array.dictionary_encode()
        order = np.asarray(pc.array_sort_indices(encoded.dictionary))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        codes = np.full(len(array), -1, np.int64)
        codes[valid] = rank[np.asarray(encoded.indices.drop_null())]
        numbers[valid] = codes[valid]
        return numbers, codes, True
    column = Column("", kind)
    numbers[valid] = column.values(array.drop_null(), "")
    return numbers, _few_codes(numbers) if column.is_whole else None, False


def _few_codes(numbers: np.ndarray) -> np.ndarray | None:
    """Whole numbers as codes, if there are few; two levels say no more than the numbers."""
    levels = np.unique(numbers[np.isfinite(numbers)][:PILOT_ROWS])
    if not 2 < len(levels) <= MOST_CODES:
        return None
    codes = np.searchsorted(levels, numbers).clip(0, len(levels) - 1)
    few: np.ndarray = np.where(levels[codes] == numbers, codes, -1)
    return few


def standardised(values: np.ndarray) -> np.ndarray:
    """With mean 0 and variance 1; zeros if all values are equal."""
    with np.errstate(over="ignore", invalid="ignore"):
        centred = values - values.mean()
        scale = np.sqrt(np.mean(centred**2))
    if not np.isfinite(scale) or scale <= 1e-12 * np.abs(values).max(initial=0.0):
        scale, centred = 1.0, np.zeros_like(values)
    scaled: np.ndarray = centred / scale
    return scaled


def _normal_scores(
    numbers: np.ndarray, valid: np.ndarray, random: np.random.Generator
) -> np.ndarray | None:
    """Van der Waerden scores, ties sharing one; 0 for null. None if all values are equal."""
    rows = np.flatnonzero(valid)
    if len(rows) > PILOT_ROWS:
        rows = rows[random.choice(len(rows), PILOT_ROWS, replace=False, shuffle=False)]
    knots, counts = np.unique(numbers[rows], return_counts=True)
    if len(knots) < 2:
        return None
    level = (np.cumsum(counts) - 0.5 * counts) / len(rows)
    if len(knots) > KNOTS:
        kept = np.linspace(0, len(knots) - 1, KNOTS).astype(int)
        knots, level = knots[kept], level[kept]
    scores = np.interp(numbers, knots, special.ndtri(level))
    scores[~valid] = scores[valid].mean()
    scores = standardised(scores)
    return scores if scores.any() else None


def _indicators(codes: np.ndarray | None) -> list[np.ndarray]:
    """Standardised indicators of the commonest levels."""
    if codes is None:
        return []
    counts = np.bincount(codes[codes >= 0])
    common = np.argsort(-counts, kind="stable")[:MOST_INDICATORS]
    shares = counts[common] / len(codes)
    usable = common[np.minimum(shares, 1 - shares) >= SMALLEST_INDICATOR]
    # Of two levels, one says all there is.
    return [standardised((codes == level).astype(float)) for level in usable[: len(counts) - 1]]


def _scalar(
    what: str, scores: np.ndarray, raw: np.ndarray, layout: Layout
) -> tuple[TestedFeature, float]:
    squares = scores**2
    excess = float(np.mean(squares**2)) - 3.0
    feature = Feature(layout.sums(scores)[:, None], 1, excess)
    tests = run_tests(feature, layout)
    products = float(scores[layout.not_last] @ scores[layout.not_first])
    third = float(np.mean(scores * squares)) ** 2
    tests += lag_test(products, layout.pairs, 1, third, feature.is_informative(int(layout.rows)))
    tested = TestedFeature(what, tests, layout.sums(raw)[:, None], layout.sums(raw**2))
    return tested, _correlation(products, squares, layout)


def _levels(codes: np.ndarray, layout: Layout) -> tuple[TestedFeature, float] | None:
    """Indicators of the commonest levels, and of all others together."""
    counts = np.bincount(codes[codes >= 0])
    common = np.argsort(-counts, kind="stable")[:MOST_LEVELS]
    common = common[counts[common] >= SMALLEST_SHARE * len(codes)]
    if not len(common):
        return None
    place = np.full(len(counts) + 1, len(common))  # null, code -1, is among the others
    place[common] = np.arange(len(common))
    level = place[codes]
    share = np.bincount(level, minlength=len(common) + 1) / len(codes)
    share = share[share > 0]  # only the others can be none, and they come last
    if len(share) < 2:
        return None
    run = np.repeat(np.arange(len(layout.length)), layout.length.astype(int))
    cells = np.bincount(run * len(share) + level, minlength=len(layout.length) * len(share))
    table = cells.reshape(-1, len(share)).astype(float)
    counted = table - layout.length[:, None] * share
    freedom = len(share) - 1
    excess = float(((1 - share) ** 2 / share).sum()) - freedom**2 - 2 * freedom
    feature = Feature(counted / np.sqrt(share), freedom, excess)
    tests = run_tests(feature, layout)
    same = level[layout.not_last] == level[layout.not_first]
    products = float((same / share[level[layout.not_last]]).sum()) - layout.pairs
    alike = float((share**2).sum())
    third = float((share**2 * (1 / share - 1) ** 3).sum()) - (1 - alike)
    informative = feature.is_informative(int(layout.rows))
    tests += lag_test(products, layout.pairs, freedom, third, informative)
    # Sizes are those of the indicators themselves: common levels count for more.
    spread = float((share * (1 - share)).sum())
    squares = (layout.length * (share**2).sum() + table @ (1 - 2 * share)) / spread
    lag = _correlation(products, 1 / share[level] - 1, layout)
    return TestedFeature("levels", tests, counted / np.sqrt(spread), squares), lag


def _correlation(products: float, squares: np.ndarray, layout: Layout) -> float:
    """Of neighbouring rows, from the squared lengths of all; at most 1 either way."""
    both = squares[layout.not_last].sum() * squares[layout.not_first].sum()
    return float(np.clip(products / np.sqrt(both), -1.0, 1.0)) if both > 0 else 0.0
