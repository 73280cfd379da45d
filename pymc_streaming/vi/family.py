"""What an ascent goes by: a Gaussian, what a pass finds around it, and the kind that it is of."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np

from pymc_streaming.vi.passes import Table

__all__ = ["Correctable", "Family", "Found", "Normal"]


class Normal(Protocol):
    """A Gaussian."""

    @property
    def location(self) -> np.ndarray:
        """Means, shape (d,)."""

    @property
    def scales(self) -> np.ndarray:
        """As the `Guide` of its family has them."""


class Found(Protocol):
    """Derivatives of the expected log-likelihood that a pass found."""

    @property
    def gradient(self) -> np.ndarray:
        """In the means, shape (d,)."""

    @property
    def are_finite(self) -> bool:
        """Whether all of them are."""

    @property
    def noise(self) -> float:
        """Error of the curvature, as far as it shows."""


class Correctable(Protocol):
    """Curvature of the log-likelihood of all rows, as far as known."""

    def correct(self, move: np.ndarray, change: np.ndarray) -> None:
        """Learn that a `move` changed the gradient over all rows by minus `change`."""


class Family[Q: Normal, D: Found](Protocol):
    """What an ascent needs to know of a kind of Gaussian."""

    @property
    def most_noise(self) -> float:
        """Error of a curvature for which more points are needed."""

    def sharper(self) -> Self:
        """The same, with more points for each chunk of rows, if there are more."""

    def look(self, table: Table, q: Q, turn: int) -> D:
        """Go over a table once; each turn has noise of its own."""

    def doubt(self, n_rows: int) -> float | None:
        """By how much log scales may differ from one turn to another, if that is known."""

    def points(self, n_rows: int) -> int:
        """Points at which that looks at each row."""

    def best(self, q: Q, found: D, curvature: Any, radius: float) -> Q:
        """Where the surrogate is highest."""

    def moved(self, q: Q, new: Q) -> tuple[float, float]:
        """Largest move of a mean, in standard deviations, and change of a log scale."""

    def has_maximum(self, q: Q, found: D) -> bool:
        """Whether the log-density bends down in every direction."""

    def part(self, q: Q, new: Q, pace: float) -> Q:
        """The means of `new`, with scales that are such a part of the way to its."""

    def slopes(self, start: tuple[Q, D], end: tuple[Q, D]) -> tuple[np.ndarray, np.ndarray]:
        """How steeply the ELBO rises at both ends of a move, in nats for the length of it.

        Both have shape (2,): by the means, and by the scales.
        """
