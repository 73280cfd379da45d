"""Averages over stretches of a run, and what they say of its error."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

__all__ = ["Stretches"]

# Stretches that the averaged part of a run is cut into: few enough to be independent of each other.
_COUNT = 16
# Fewer than these say nothing of an error; and the R-hat below which a drift is noise.
_FEWEST, _R_HAT = 4, 1.2


class Stretches:
    """Averages of the iterates over consecutive stretches of the steps that are averaged.

    If the run has come to rest, these differ by noise alone: how much the whole average is off
    follows from how much they differ (batch means), and whether they still go somewhere from
    comparing their first half with the second (split R-hat).

    References
    ----------
    Flegal, J. M. and Jones, G. L. (2010). Batch means and spectral variance estimators in Markov
    chain Monte Carlo. *Annals of Statistics* 38(2), 1034-1070.

    Gelman, A. and Rubin, D. B. (1992). Inference from iterative simulation using multiple
    sequences. *Statistical Science* 7(4), 457-472.
    """

    def __init__(self) -> None:
        self.begin(0, 0)

    def begin(self, n: int, average_from: int) -> None:
        """A run of `n` steps begins, of which those from `average_from` on are averaged."""
        self._n, self._from = n, average_from
        self._ends: list[tuple[int, np.ndarray]] = [(average_from, np.zeros(0))]

    @property
    def next_end(self) -> int:
        """The number of steps at which the next stretch ends, where `update` is to be called."""
        length = (self._n - self._from) / _COUNT
        return max(math.ceil(self._from + length * len(self._ends)), self._ends[-1][0] + 1)

    def update(self, done: int, location: np.ndarray, scales: np.ndarray) -> None:
        """So many steps are done, and the averages are these."""
        if done == self.next_end:
            self._ends.append((done, np.concatenate([location, scales[: len(location)]])))

    def state(self) -> dict[str, np.ndarray]:
        """All that is known."""
        return {
            "run": np.array([self._n, self._from]),
            "ends": np.array([end for end, _ in self._ends]),
            "averages": np.array([average for _, average in self._ends[1:]]),
        }

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from there."""
        self._n, self._from = state["run"].tolist()
        averages = [np.zeros(0), *state["averages"]]
        self._ends = list(zip(state["ends"].tolist(), averages, strict=True))

    def uncertainties(self) -> np.ndarray:
        """What averages may be off, shape (2 d,): their errors, or half of what they drift.

        Infinite if there were too few steps to tell.
        """
        means, _ = self._means()
        if len(means) < _FEWEST:
            return np.full(means.shape[1], np.inf)
        drifts = np.where(self.r_hats() < _R_HAT, 0.0, np.abs(self.drifts()))
        uncertainties: np.ndarray = np.maximum(self.errors(), 0.5 * drifts)
        return uncertainties

    def errors(self) -> np.ndarray:
        """Standard errors of the averages of means and log scales, shape (2 d,)."""
        means, weights = self._means()
        average = weights @ means
        variance = weights @ (means - average) ** 2 / (len(means) - 1)
        errors: np.ndarray = np.sqrt(variance)
        return errors

    def drifts(self) -> np.ndarray:
        """How far the second half of the averages is from the first, shape (2 d,)."""
        means, _ = self._means()
        half = len(means) // 2
        drifts: np.ndarray = means[half:].mean(axis=0) - means[:half].mean(axis=0)
        return drifts

    def r_hats(self) -> np.ndarray:
        """Split R-hat of each, shape (2 d,)."""
        means, _ = self._means()
        half = len(means) // 2
        halves = np.stack([means[:half], means[len(means) - half :]])
        within = halves.var(axis=1, ddof=1).mean(axis=0)
        between = halves.mean(axis=1).var(axis=0, ddof=1)
        with np.errstate(all="ignore"):
            r_hats: np.ndarray = np.sqrt((half - 1) / half + between / within)
        return r_hats

    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each stretch, and its part of all steps."""
        ends = np.array([end for end, _ in self._ends[1:]])
        sums = [(end - self._from) * average for end, average in self._ends[1:]]
        if not sums:
            return np.zeros((0, 0)), np.zeros(0)
        steps = np.diff(np.concatenate([[self._from], ends]))
        parts = np.diff(np.stack([np.zeros_like(sums[0]), *sums]), axis=0)
        return parts / steps[:, None], steps / math.fsum(steps)
