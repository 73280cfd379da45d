r"""One exact pass: the derivatives of the expected log-likelihood of all rows.

Under independent normals :math:`q = N(\mu, \mathrm{diag}\,\sigma^2)` the ELBO has the gradient
:math:`\mathbb{E}_q \nabla \log p` in the means, and its optimal scales follow from the expected
curvature, :math:`\sigma_i^{-2} = -\mathbb{E}_q \partial_i^2 \log p`. Both are sums over rows. They
are computed at fixed points (`signs`), another pair of mirror images for each chunk of rows, so
that a pass costs two evaluations of each row, and gives the same numbers every time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pymc_streaming.vi.signs import MOST_COLUMNS, Signs
from pymc_streaming.vi.terms import Terms

__all__ = [
    "PASS_NOISE",
    "SCALE_NOISE",
    "Derivatives",
    "NotFinite",
    "OtherPoints",
    "Sample",
    "Sum",
    "Table",
    "as_many_pairs",
    "gradients_at",
    "noise_of",
    "pairs_of_a_chunk",
    "pass_over",
    "slopes_over",
    "sums_over",
]

#: Relative error of curvatures that is good enough on the way; and for scales, in the end.
PASS_NOISE, SCALE_NOISE = 0.1, 0.012

# Of a chunk, at least, where each pattern has one of its own.
_CHUNK_ROWS = 128

_Rows = dict[str, np.ndarray]


class NotFinite(Exception):
    """A pass found no finite derivatives where a fit has to begin.

    Parameters
    ----------
    location : ndarray, shape (d,)
        Where it looked.
    """

    def __init__(self, location: np.ndarray) -> None:
        super().__init__("The derivatives are not finite.")
        self.location = location


class OtherPoints(Exception):
    """What is on record of a pass was found at other points than it is asked for now."""


class Sum(Protocol):
    """Something that a pass adds up over the rows."""

    def add(self, rows: _Rows, weights: np.ndarray) -> None:
        """Add what some rows give, with weights; the next rows of the pass."""

    def state(self) -> dict[str, np.ndarray]:
        """All that there is of it so far; it changes with what is added."""

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from such a state; raises `OtherPoints` if that is of something else."""


class Table(Protocol):
    """Rows that can be gone over again and again."""

    @property
    def n_rows(self) -> int:
        """How many."""

    def go_over(self, multiple: int, sums: Sequence[Sum]) -> None:
        """Add up over all rows, in blocks of a multiple of so many."""


@dataclass(frozen=True)
class Sample:
    """Rows in memory.

    Parameters
    ----------
    rows : dict of str to ndarray
        Arrays of n rows.
    weights : ndarray, shape (n,), optional
        How often each counts. Default: once.
    """

    rows: _Rows
    weights: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if not len(self.weights):
            object.__setattr__(self, "weights", np.ones(self.n_rows))

    @property
    def n_rows(self) -> int:
        """How many."""
        return len(next(iter(self.rows.values())))

    def go_over(self, multiple: int, sums: Sequence[Sum]) -> None:  # noqa: ARG002
        """All at once."""
        for each in sums:
            each.add(self.rows, self.weights)

    def first(self, n_rows: int) -> Sample:
        """The first of them."""
        return Sample(
            {name: array[:n_rows] for name, array in self.rows.items()}, self.weights[:n_rows]
        )


@dataclass(frozen=True)
class Derivatives:
    """Of the expected log-likelihood.

    Parameters
    ----------
    gradient : ndarray, shape (d,)
        In the means.
    curvature : ndarray, shape (d,)
        Minus the second derivative in each parameter.
    noise : float
        Largest error of a curvature, by `noise_of`, as a part of it.
    """

    gradient: np.ndarray
    curvature: np.ndarray
    noise: float

    @property
    def are_finite(self) -> bool:
        """Whether they are."""
        return bool(np.isfinite(self.gradient).all() and np.isfinite(self.curvature).all())


def gradients_at(
    terms: Terms, sample: Sample, points: np.ndarray, chunk_rows: int | None = None
) -> np.ndarray:
    """Gradients of the log-likelihood of all rows of a sample, shape (k, d), at k points.

    Parameters
    ----------
    terms : Terms
        The model.
    sample : Sample
        Rows.
    points : ndarray, shape (k, d)
        Draws.
    chunk_rows : int, optional
        Rows that are looked at together. Default: all.
    """
    chunk_rows = sample.n_rows if chunk_rows is None else chunk_rows
    out = np.zeros_like(points)
    chosen = np.tile(np.arange(len(points)), (math.ceil(sample.n_rows / chunk_rows), 1))
    terms.add_likelihood(sample.rows, sample.weights, chunk_rows, points, chosen, out)
    return out


def pairs_of_a_chunk(signs: Signs, n_rows: int, noise: float) -> int:
    r"""Pairs of points at which a chunk must be looked at for curvatures as exact as that.

    What other parameters add cancels over all patterns, but each chunk has rows of its own: that
    leaves a relative error of about :math:`2 \sqrt{d / (n p)}`, with d parameters, n rows and p
    pairs. With all pairs of mirror images there are, nothing is left.

    Examples
    --------
    >>> from pymc_streaming.vi.signs import sign_patterns
    >>> signs = sign_patterns(np.arange(100), np.random.default_rng(0))
    >>> pairs_of_a_chunk(signs, 1_000_000, 0.1), pairs_of_a_chunk(signs, 1_000_000, 0.01)
    (1, 4)
    """
    return as_many_pairs(signs, n_rows, 4.0 * len(signs.colours) / (n_rows * noise**2))


def as_many_pairs(signs: Signs, n_rows: int, wanted: float) -> int:
    """As many pairs of points for a chunk, or some more: see `pairs_of_a_chunk`.

    A power of two, and so many that a chunk has some rows: the last has fewer, and what that leaves
    out does not cancel.
    """
    least = max(signs.together, _CHUNK_ROWS * len(signs.patterns) / n_rows)
    pairs = math.ceil(min(max(wanted, least), len(signs.patterns)))
    return min(1 << (pairs - 1).bit_length(), len(signs.patterns))


def pass_over(
    table: Table,
    terms: Terms,
    signs: Signs,
    location: np.ndarray,
    scale: np.ndarray,
    noise: float = PASS_NOISE,
    turn: int = 0,
) -> Derivatives:
    """Go over all rows once.

    Parameters
    ----------
    table : Table
        The rows.
    terms : Terms
        The model.
    signs : Signs
        Where around the location it is looked at.
    location, scale : ndarray, shape (d,)
        Means and standard deviations of q.
    noise : float, default 0.1
        Relative error of a curvature, about; see `pairs_of_a_chunk`.
    turn : int, default 0
        With another, chunks are looked at in other patterns.

    Returns
    -------
    Derivatives
        Possibly not finite.
    """
    pairs = pairs_of_a_chunk(signs, table.n_rows, noise)
    gradient, half = slopes_over(table, terms, signs.around(location, scale), pairs, turn)
    with np.errstate(all="ignore"):
        curvature = -(signs.patterns * half).sum(axis=0) / scale
        # Where it is small beside what the scale stands for, other terms make up the most of it.
        size = np.maximum(curvature * scale**2, 1.0)
    alone = np.flatnonzero(np.bincount(signs.colours)[signs.colours] == 1)
    if pairs == len(signs.patterns) or len(alone) > MOST_COLUMNS:
        return Derivatives(gradient, curvature, 0.0)
    products = signs.patterns[:, alone].T @ (half[:, alone] * scale[alone])
    return Derivatives(
        gradient, curvature, float((noise_of(products) / size[alone]).max(initial=0))
    )


def noise_of(products: np.ndarray) -> np.ndarray:
    """Standard errors of the rows of a matrix of second derivatives, cautiously, shape (d,).

    That matrix is symmetric. What it is not, where it was found from a few points for each chunk of
    rows, is what other parameters add that has not cancelled: by chance, because some rows have
    great weight, or because rows that stand together are alike.

    Parameters
    ----------
    products : ndarray, shape (d, d)
        The matrix. Of a small one the result is larger, since it is known from few differences.
    """
    if len(products) < 2:
        return np.zeros(len(products))
    n = len(products) - 1
    # Each difference has the errors of two rows.
    both = ((products - products.T) ** 2).sum(axis=1) / n
    errors: np.ndarray = np.sqrt(np.maximum(both - 0.5 * both.mean(), 0.25 * both))
    return (1.0 + 2.0 / math.sqrt(n)) * errors


def slopes_over(
    table: Table, terms: Terms, points: np.ndarray, pairs: int, turn: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The gradient over all rows, averaged over points, and how it differs between their halves.

    Parameters
    ----------
    table : Table
        The rows.
    terms : Terms
        The model.
    points : ndarray, shape (2 k, d)
        k points, then their mirror images; k is a power of two.
    pairs : int
        Pairs at which each chunk of rows is looked at: a power of two, at most k.
    turn : int, default 0
        As for `pass_over`.

    Returns
    -------
    gradient : ndarray, shape (d,)
        The average.
    half : ndarray, shape (k, d)
        Half of what the gradient at each point is more than at its image, as a part of the average
        over all pairs.
    """
    sums, n_patterns = sums_over(table, terms, points, pairs, turn), len(points) // 2
    with np.errstate(all="ignore"):
        sums = sums / pairs
        return 0.5 * sums.sum(axis=0), 0.5 * (sums[:n_patterns] - sums[n_patterns:])


def sums_over(
    table: Table, terms: Terms, points: np.ndarray, pairs: int, turn: int = 0
) -> np.ndarray:
    """The gradients at points, shape (2 k, d), each over the rows that are looked at from there.

    Takes the same as `slopes_over`.
    """
    slopes = _Slopes(terms, points, pairs, turn, table.n_rows)
    table.go_over(slopes.chunk_rows, [slopes])
    return slopes.sums


class _Slopes:
    """Gradients at points, added up over chunks of rows, each of which is looked at from a few."""

    def __init__(
        self, terms: Terms, points: np.ndarray, pairs: int, turn: int, n_rows: int
    ) -> None:
        self._terms, self._points, self._pairs, self._turn = terms, points, pairs, turn
        self._cycle = len(points) // 2 // pairs
        # As many chunks as make whole cycles, so that every pattern meets as many rows.
        cycles = max(1, round(n_rows / (self._cycle * terms.chunk_rows)))
        self.chunk_rows = math.ceil(n_rows / (self._cycle * cycles))
        self.sums = np.zeros_like(points)
        self._chunks = 0

    def add(self, rows: _Rows, weights: np.ndarray) -> None:
        """Look at some more rows."""
        chunks = math.ceil(len(weights) / self.chunk_rows)
        first = (self._chunks + self._turn + np.arange(chunks)) % self._cycle * self._pairs
        forward = first[:, None] + np.arange(self._pairs)
        chosen = np.concatenate([forward, forward + len(self._points) // 2], axis=1)
        self._terms.add_likelihood(rows, weights, self.chunk_rows, self._points, chosen, self.sums)
        self._chunks += chunks

    def state(self) -> dict[str, np.ndarray]:
        """The sums, and what they are of."""
        return {"task": self._task(), "chunks": np.array(self._chunks), "sums": self.sums}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from there."""
        if not np.array_equal(state["task"], self._task()):
            raise OtherPoints
        self._chunks = int(state["chunks"])
        self.sums[:] = state["sums"]

    def _task(self) -> np.ndarray:
        said = (self._points.shape, self._pairs, self._turn, self.chunk_rows)
        digest = hashlib.sha256(repr(said).encode() + self._points.tobytes())
        return np.frombuffer(digest.digest(), np.uint8)
