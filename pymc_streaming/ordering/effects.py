"""How much the order clusters the rows of a batch, and what a fit makes of it.

Two rows at a distance d have a correlation C(d); from it follows the variance of the mean of any
stretch of rows, in the order of the table or in the one that a shuffle buffer makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pymc_streaming.ordering.sampling import Sample

__all__ = ["Correlogram", "Pairs", "Stream"]

#: Distances are told apart in half octaves.
PER_OCTAVE = 2
#: Rows over which the trainer's optimiser remembers at the end of a fit, in roots of a batch:
#: one over its last learning rate, 0.05 / 100.
MEMORY = 2_000
#: The part of its steps that a fit averages over.
AVERAGED_PART = 0.3
#: Stretches in a period of the slowest wave that they show in full.
PERIOD = 8
#: Fragments of a part of the table that the loader does not halve any more.
FEW = 3
#: Points of an integral over the distance of two rows.
POINTS = 4_096
#: Part of the error of a fit to shuffled rows that an order must add to it.
WORTH_SAYING = 0.1
#: Standard errors that a correlation must exceed to be held against a stream.
BEYOND_NOISE = 2.0


@dataclass(frozen=True)
class Stream:
    """How rows are given out.

    Parameters
    ----------
    batch_size : int
        Rows of a batch.
    buffer_size : int or None
        Rows that are permuted together, of fragments in the loader's even order; None for the
        order of the table.
    """

    batch_size: int
    buffer_size: int | None = None


class Pairs:
    """All pairs of runs of a sample, sorted by distance once for all columns.

    Parameters
    ----------
    sample : Sample
        The runs.
    """

    def __init__(self, sample: Sample) -> None:
        self.total = sample.n_rows or int(sample.start[-1] + sample.length[-1])
        self.n_fragments = sample.n_fragments
        self.fragment_rows = min(sample.fragment_rows, self.total)
        self.edges = _edges(self.total)
        self.length = sample.length.astype(float)
        self.inside = float((self.length * (self.length - 1)).sum())
        self.short = self.edges[:-1] < self.length.mean()
        first, second = np.triu_indices(len(self.length), 1)
        distance = np.abs(sample.start[first] - sample.start[second])
        # One bin for each distance in the table, and another for the pairs in one fragment.
        bins = np.searchsorted(self.edges, distance, side="right") - 1
        bins += (sample.fragment[first] == sample.fragment[second]) * (len(self.edges) - 1)
        order = np.argsort(bins, kind="stable")
        self._first, self._second = first[order], second[order]
        self._filled, self._starts = np.unique(bins[order], return_index=True)
        self.weights = self.products(self.length[:, None])

    def products(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of inner products by distance, over all pairs and over those in one fragment."""
        if sums.shape[1] == 1:
            values = sums[self._first, 0] * sums[self._second, 0]
        else:
            values = (sums @ sums.T)[self._first, self._second]
        by_bin = np.zeros(2 * (len(self.edges) - 1))
        if len(values):
            by_bin[self._filled] = np.add.reduceat(values, self._starts)
        apart, same = by_bin.reshape(2, -1)
        return apart + same, same


class Correlogram:
    """Correlation of two rows by their distance in the table.

    Parameters
    ----------
    pairs : Pairs
        The pairs of runs.
    sums : ndarray of float, shape (runs, dimensions)
        Sums of centred numbers with total variance 1.
    squares : ndarray of float, shape (runs,)
        Sums of their squared lengths.
    """

    def __init__(self, pairs: Pairs, sums: np.ndarray, squares: np.ndarray) -> None:
        self._pairs = pairs
        own = float((sums**2).sum())
        rows = pairs.length.sum()
        # The mean was estimated from the same rows.
        bias = 1.0 / rows
        inside = (own - squares.sum()) / pairs.inside + bias if pairs.inside else 0.0
        inside_error = 1.0 / np.sqrt(max(pairs.inside, 1.0))
        noise = (own / rows) ** 2
        self._table, self._fragment = (
            _filled(products, weights, pairs.short, (inside, inside_error), noise, bias)
            for products, weights in zip(pairs.products(sums), pairs.weights, strict=True)
        )

    def correlation(self, stream: Stream, stretch: float | None = None) -> tuple[float, float]:
        """Mean correlation of two rows of a stretch, and its standard error.

        Parameters
        ----------
        stream : Stream
            How rows are given out.
        stretch : float, optional
            Rows given out one after the other. Default: a batch.
        """
        length = float(stream.batch_size if stretch is None else stretch)
        total = self._pairs.total
        if stream.buffer_size is None:
            return _mean(self._table, self._weights(min(length, total), np.inf))
        # Rows of a window are in no order: two of a batch are any two of the window.
        if length > stream.buffer_size:
            return self._in_window(length)
        # The last window of an epoch is what is left.
        rest = total % stream.buffer_size
        value, error = self._in_window(stream.buffer_size)
        short, short_error = self._in_window(rest) if rest > length else (value, error)
        share = rest / total
        return (1 - share) * value + share * short, (1 - share) * error + share * short_error

    def _in_window(self, length: float) -> tuple[float, float]:
        """For consecutive rows of fragments in the loader's order.

        Of two fragments at neighbouring places one is from either half of the table. At a
        distance of two places they are from different quarters of the same half, and in general,
        where 2^j is the largest power of two that divides the distance, from different halves of
        the same 2^j-th part of the table; but parts of a few fragments are not halved any more,
        those come in any order.
        """
        pairs = self._pairs
        if length >= pairs.total:
            return 0.0, 0.0
        if pairs.n_fragments == 1:
            return _mean(self._fragment, self._weights(length, np.inf))
        rows = pairs.fragment_rows
        value, error = _mean(self._fragment, self._weights(length, rows))
        # Two rows of a part, or one twice, have a mean S(j); those of different halves of it then
        # have 2 S(j) - S(j + 1). All rows together have no deviation: S(0) is 0. In the last parts,
        # of m fragments with a mean W, those of different ones have (m S - W) / (m - 1).
        levels = max(0, int(np.ceil(np.log2(pairs.n_fragments / FEW))))
        few = pairs.n_fragments / 2**levels
        share = _share_by_part(length / rows, levels)
        factor = 2 * share
        factor[-1] = share[-1] * few / (few - 1)
        factor[1:] -= share[:-1]
        within = -share[-1] / (few - 1)
        weights, itself = np.zeros(len(pairs.edges) - 1), within / rows
        for j in range(1, levels + 1):
            part = pairs.total / 2**j
            weights += factor[j] * self._weights(part, np.inf)
            itself += factor[j] / part
        apart, apart_error = _mean(self._table, weights)
        whole, whole_error = _mean(self._fragment, self._weights(rows, np.inf))
        error = float(np.sqrt(error**2 + apart_error**2 + (within * whole_error) ** 2))
        return value + apart + within * whole + itself, error

    def design_effect(self, stream: Stream) -> float:
        """Variance of the mean of a batch, over that of as many random rows.

        A correlation that noise explains counts as none.
        """
        correlation, error = self.correlation(stream)
        if abs(correlation) < BEYOND_NOISE * error:
            return 1.0
        return float(max(0.0, 1 + (stream.batch_size - 1) * correlation))

    def wandering(self, stream: Stream, stretch: float) -> float:
        """How far stretches differ, as far as it is certain, in standard errors of the table.

        That is, in posterior standard deviations of a parameter that the feature informs.
        """
        value, error = self.correlation(stream, stretch)
        return float(np.sqrt(self._pairs.total * max(0.0, value - BEYOND_NOISE * error)))

    def added_error(self, stream: Stream, steps: int) -> float:
        """Error that the order adds to the mean of a fit, in posterior standard deviations.

        Near its end a fit follows the latest ``2,000 sqrt(batch_size)`` rows: so long it takes
        Adam, at the last learning rate, to forget. As stretches of rows differ it wanders, less
        for those that are shorter than its memory. Averaging over whole epochs cancels it but
        for the ends of the average: where the fit came from, and where it has got to. Stretches
        of random rows differ too, and an average over few of them is off by as much: that part
        is not held against the order, and what adds less than a tenth to it counts as nothing.
        """
        total = self._pairs.total
        memory = MEMORY * np.sqrt(stream.batch_size)
        averaged = AVERAGED_PART * steps * stream.batch_size
        if averaged >= total:
            averaged -= averaged % total
        shortest = max(stream.batch_size, stream.buffer_size or 1)
        longest = max(shortest, min(memory, total / PERIOD))
        error = by_chance = 0.0
        for stretch in np.geomspace(shortest, longest, 1 + int(np.log2(longest / shortest))):
            # A wave of the period that has such stretches, through a filter with that memory.
            lag = min(1.0, min(memory, PERIOD * stretch / (2 * np.pi)) / averaged)
            error = max(error, np.sqrt(2) * lag * self.wandering(stream, stretch))
            by_chance = max(by_chance, np.sqrt(2) * lag * np.sqrt(total / stretch))
        if averaged < total:  # then the average is that of a part of the table
            error = max(error, self.wandering(stream, averaged))
            by_chance = max(by_chance, np.sqrt(total / averaged - 1))
        added = float(np.hypot(error, by_chance) - by_chance)
        return added if added > WORTH_SAYING * by_chance else 0.0

    def _weights(self, stretch: float, fragment_rows: float) -> np.ndarray:
        """Share of the pairs of a stretch that are at each distance, and in one fragment."""
        upper = np.minimum(self._pairs.edges, min(stretch, fragment_rows))
        a, b = 1 / stretch, 1 / fragment_rows
        integral = 2 * a * (upper - upper**2 * (a + b) / 2 + upper**3 * a * b / 3)
        weights: np.ndarray = np.diff(integral)
        return weights


def _share_by_part(places: float, levels: int) -> np.ndarray:
    """Share of the pairs of rows of a stretch of so many fragments, by the part both are in.

    Entry j is for pairs whose distance in places has 2^j as its largest power of two; the last,
    number `levels`, for larger powers too.
    """
    distance = (np.arange(POINTS) + 0.5) / POINTS * places
    density = 2 * (1 - distance / places) / POINTS
    below = np.floor(distance).astype(int)
    beyond = distance - below
    share = np.bincount(below, density * (1 - beyond), minlength=below[-1] + 2)
    share += np.bincount(below + 1, density * beyond, minlength=len(share))
    lag = np.arange(1, len(share))
    power = np.log2(lag & -lag).astype(int)
    by_part: np.ndarray = np.bincount(np.minimum(power, levels), share[1:], minlength=levels + 1)
    return by_part


def _edges(total: int) -> np.ndarray:
    octaves = np.arange(0, PER_OCTAVE * np.log2(max(2, total)) + 1) / PER_OCTAVE
    return np.concatenate([[0.0], 2.0 ** octaves[:-1], [float(max(2, total))]])


def _filled(
    products: np.ndarray,
    weights: np.ndarray,
    short: np.ndarray,
    inside: tuple[float, float],
    noise: float,
    bias: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Correlations and standard errors of all distances, from neighbouring ones where unknown."""
    known = (weights > 0) & ~short
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(known, products / weights + bias, 0.0)
        errors = np.where(known, np.sqrt(noise / weights), 0.0)
    values[short], errors[short] = inside
    known |= short
    nearest = np.flatnonzero(known)
    take = nearest[np.abs(np.arange(len(known))[:, None] - nearest).argmin(axis=1)]
    return values[take], errors[take]


def _mean(curve: tuple[np.ndarray, np.ndarray], weights: np.ndarray) -> tuple[float, float]:
    values, errors = curve
    return float(weights @ values), float(np.sqrt((weights**2) @ (errors**2)))
