"""Tests of exchangeability on runs of consecutive rows.

In a shuffled table every order of its rows is equally likely. So whatever numbers stand for the
rows, sums of them over runs have the mean and the variance that a random permutation gives, and
large quadratic forms of those sums are improbable. A *feature* is what stands for the rows: one
or more numbers for each, standardised over the sample, of which only the sums over each run are
needed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

__all__ = [
    "FEWEST_MINORITY",
    "Feature",
    "Layout",
    "QuadraticForm",
    "Test",
    "lag_test",
    "quadratic_forms",
    "quadratic_tail",
    "run_tests",
]

#: Sine and cosine of so many periods over the table.
SEASONS = 6
#: A feature counts as informative when at least so many rows differ from the bulk.
FEWEST_MINORITY = 20


@dataclass(frozen=True)
class Feature:
    """What stands for the rows: sums over runs of standardised numbers.

    Parameters
    ----------
    sums : ndarray of float, shape (runs, dimensions)
        Sum over the rows of each run; all of them add up to zero.
    freedom : int
        Degrees of freedom of a row: 1 for numbers, one less than the levels for categories.
    excess : float
        Mean fourth power of a row's length, less `freedom` squared and twice `freedom`: excess
        kurtosis for numbers.
    """

    sums: np.ndarray
    freedom: int
    excess: float

    def is_informative(self, rows: int) -> bool:
        """Whether enough rows differ from the bulk for a distribution to be known."""
        fourth = self.excess / self.freedom + self.freedom + 2
        return rows / fourth >= FEWEST_MINORITY


@dataclass(frozen=True, slots=True)
class Test:
    """One test of one feature.

    Parameters
    ----------
    kind : str
        ``"trend"``, ``"season"``, ``"fragments"``, ``"runs"`` or ``"neighbours"``.
    p_value : float
        Probability of a statistic as large, in a shuffled table.
    """

    kind: str
    p_value: float


class Layout:
    """Where the runs are, and the contrasts and groups that follow from it.

    Parameters
    ----------
    start, length, fragment : ndarray of int, shape (runs,)
        As in a `Sample`.
    """

    def __init__(self, start: np.ndarray, length: np.ndarray, fragment: np.ndarray) -> None:
        self.length = length.astype(float)
        self.rows = float(self.length.sum())
        self.bounds = np.concatenate([[0], np.cumsum(length)[:-1]])
        # Rows that have a neighbour after them, or before them, in the same run.
        inside = np.ones(int(self.rows), bool)
        inside[self.bounds] = False
        self.not_first = np.flatnonzero(inside)
        self.not_last = self.not_first - 1
        self.pairs = len(self.not_first)
        # A group of very few rows would weigh as much as one of many: it joins its neighbour.
        self.block = _merged(self.length)
        self.block_rows = np.bincount(self.block, self.length)
        first = np.searchsorted(self.block, np.arange(len(self.block_rows)))
        _, place = np.unique(fragment[first], return_inverse=True)
        self.group = _merged(np.bincount(place, self.block_rows))[place]
        self.group_rows = np.bincount(self.group, self.block_rows)
        middle = start + 0.5 * length
        low, high = middle.min(), middle.max()
        position = (middle - low) / (high - low) if high > low else np.zeros(len(middle))
        waves = [
            wave(2 * np.pi * k * position)
            for k in range(1, SEASONS + 1)
            for wave in (np.sin, np.cos)
        ]
        weight = np.sqrt(self.length)
        # Orthonormal for rows: each is a contrast of runs, the linear one first.
        raw = np.column_stack([np.ones_like(position), position, *waves]) * weight[:, None]
        basis, triangle = np.linalg.qr(raw)
        kept = np.abs(np.diag(triangle)) > 1e-6 * np.sqrt(self.rows)
        self.trend = basis[:, 1:2][:, kept[1:2]] / weight[:, None]
        self.season = basis[:, 2:][:, kept[2:]] / weight[:, None]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the runs."""
        sums: np.ndarray = np.add.reduceat(values, self.bounds)
        return sums


def run_tests(feature: Feature, layout: Layout) -> list[Test]:
    """Test the sums over runs for trend, seasons, and differences of any other kind."""
    if not feature.is_informative(int(layout.rows)):
        return []
    return [
        Test(
            form.kind,
            float(
                quadratic_tail(
                    form.values.sum(), form.rank * feature.freedom, feature.excess, form.leverage
                )
            ),
        )
        for form in quadratic_forms(feature.sums, layout)
    ]


@dataclass(frozen=True, slots=True)
class QuadraticForm:
    """A statistic, for each of several features of one dimension.

    Parameters
    ----------
    kind : str
        As of a `Test`.
    values : ndarray of float, shape (features,)
        The statistics.
    rank : int
        Their degrees of freedom, and their mean in a shuffled table.
    leverage : float
        Sum, over the rows, of the squared weight that each has.
    """

    kind: str
    values: np.ndarray
    rank: int
    leverage: float


def quadratic_forms(sums: np.ndarray, layout: Layout) -> list[QuadraticForm]:
    """The statistics of trend, season, fragments and runs.

    Parameters
    ----------
    sums : ndarray of float, shape (runs, features)
        Sums over the rows of each run, of numbers with mean 0 and variance 1.
    layout : Layout
        The runs.
    """
    forms = []
    for kind, contrasts in (("trend", layout.trend), ("season", layout.season)):
        if contrasts.shape[1]:
            leverage = (contrasts**2).sum(axis=1)  # of each row of the run
            values = ((contrasts.T @ sums) ** 2).sum(axis=0)
            weight = float((layout.length * leverage**2).sum())
            forms.append(QuadraticForm(kind, values, contrasts.shape[1], weight))
    by_block = _summed(layout.block, sums)
    by_group = _summed(layout.group, by_block)
    between = (by_group**2 / layout.group_rows[:, None]).sum(axis=0)
    within = (by_block**2 / layout.block_rows[:, None]).sum(axis=0) - between
    n_blocks, n_groups = len(layout.block_rows), len(layout.group_rows)
    if n_groups > 1:
        inverse = float((1 / layout.group_rows).sum())
        forms.append(QuadraticForm("fragments", between, n_groups - 1, inverse))
    if n_blocks > n_groups:
        inverse = float((1 / layout.block_rows).sum())
        forms.append(QuadraticForm("runs", within, n_blocks - n_groups, inverse))
    return forms


def _merged(rows: np.ndarray) -> np.ndarray:
    """Labels for consecutive parts, joined until each has half as many rows as the mean part."""
    labels = np.zeros(len(rows), np.int64)
    label, held, least = 0, 0.0, 0.5 * rows.mean()
    for i, count in enumerate(rows):
        if held >= least:
            label, held = label + 1, 0.0
        labels[i] = label
        held += count
    if label and held < least:
        labels[labels == label] = label - 1
    return labels


def _summed(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows of `values` added up by label; labels ascend."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    summed: np.ndarray = np.add.reduceat(values, starts, axis=0)
    return summed


def quadratic_tail(
    statistic: float | np.ndarray, freedom: int, excess: float | np.ndarray, leverage: float
) -> np.ndarray:
    """Upper tail of a quadratic form of permuted, standardised rows.

    Its mean is its degrees of freedom. Its variance is twice that, and more where rows have
    heavy tails (`excess`) and weigh much in their run (`leverage`, the sum of the squared
    diagonal). A gamma distribution with this mean and variance is exact for normal rows, and
    for rare events close to the Poisson distribution that they follow.
    """
    scale = 2.0 + np.maximum(excess, 0.0) * leverage / freedom  # variance over mean
    tail: np.ndarray = special.gammaincc(freedom / scale, np.maximum(statistic, 0.0) / scale)
    return tail


def lag_test(
    products: float, pairs: int, freedom: int, third: float, informative: bool
) -> list[Test]:
    """Test whether neighbours are alike, or unlike.

    Parameters
    ----------
    products : float
        Sum of the inner products of neighbours within runs, standardised.
    pairs : int
        Number of those pairs.
    freedom : int
        Degrees of freedom of a row.
    third : float
        Third moment of the inner product of two independent rows.
    informative : bool
        Whether enough rows differ from the bulk.
    """
    if not informative or not pairs:
        return []
    z = products / np.sqrt(pairs * freedom)
    skew = third / (freedom**1.5 * np.sqrt(pairs))
    upper = _skewed_tail(z, skew)
    lower = special.ndtr(z)
    return [Test("neighbours", float(min(1.0, 2 * min(upper, lower))))]


def _skewed_tail(z: float, skew: float) -> float:
    """Probability beyond `z` of a shifted gamma distribution with mean 0, variance 1 and `skew`.

    As for the quadratic forms; Pearson's third.
    """
    if abs(skew) < 1e-4:  # its shape would be beyond 10**8, and it is normal
        return float(special.ndtr(-z))
    shape = 4.0 / skew**2
    tail = special.gammaincc if skew > 0 else special.gammainc
    return float(tail(shape, max(0.0, shape + math.copysign(1.0, skew) * z * math.sqrt(shape))))
