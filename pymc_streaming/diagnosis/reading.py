"""One reading of a table that serves everything: rows are counted, and weighed at many draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pymc_streaming.fits.exact import WholeTable
from pymc_streaming.loader import DataLoader, count_rows
from pymc_streaming.progress import PassProgress
from pymc_streaming.vi.passes import Sum
from pymc_streaming.vi.structure import Groups
from pymc_streaming.vi.terms import Terms

__all__ = ["Reading"]


class Reading:
    """The rows of a loader; while they are gone over, what is added up besides.

    Parameters
    ----------
    loader : DataLoader
        The rows.
    terms : Terms
        The model.
    points : ndarray, shape (k, d)
        Draws at which the log-likelihood is wanted.
    groups : list of Groups
        What rows are counted by.
    progress : PassProgress
        Hears of the rows.

    Attributes
    ----------
    rows : int
        Rows that were counted.
    values : ndarray, shape (k,)
        Log-likelihoods of all rows, in nats.
    counts : list of ndarray of int
        Rows of each group.
    bad : tuple of int or None
        First and last row of the first stretch whose log-likelihood is not finite at some draw.
    """

    def __init__(
        self,
        loader: DataLoader,
        terms: Terms,
        points: np.ndarray,
        groups: list[Groups],
        progress: PassProgress,
    ) -> None:
        self._loader, self._terms, self._points = loader, terms, points
        self._groups, self._progress = groups, progress
        self.rows = 0
        self.values = np.zeros(len(points))
        self.counts = [np.zeros(len(each.elements), np.int64) for each in groups]
        self.bad: tuple[int, int] | None = None

    @property
    def n_rows(self) -> int:
        """As many as the loader says."""
        return self._loader.total_size

    def go_over(self, multiple: int, sums: Sequence[Sum]) -> None:
        """Add up over all rows once, each of weight one."""
        for rows in self._loader.blocks(multiple):
            count = count_rows(rows)
            weights = np.ones(count)
            with np.errstate(all="ignore"):
                self._terms.add_values(rows, weights, multiple, self._points, self.values)
            if self.bad is None and not math.isfinite(self.values.sum()):
                self.bad = self.rows, self.rows + count - 1
            self._count(rows)
            self.rows += count
            for each in sums:
                each.add(rows, weights)
            self._progress.update(count)

    def again(self) -> WholeTable:
        """The same rows, once more, for derivatives alone."""
        return WholeTable(self._loader, self._progress)

    def _count(self, rows: Mapping[str, np.ndarray]) -> None:
        read: dict[Callable[..., np.ndarray], np.ndarray] = {}
        for each, counts in zip(self._groups, self.counts, strict=True):
            if each.codes_of not in read:  # intercepts and slopes may go by the same codes
                read[each.codes_of] = each.codes_of(rows)
            codes = read[each.codes_of]
            codes = codes[(codes >= 0) & (codes < len(counts))]
            counts += np.bincount(codes, minlength=len(counts))
