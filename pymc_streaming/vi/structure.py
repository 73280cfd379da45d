"""Which parameters rows have in common: found out on a sample.

The effects of groups are many, but each row has one of each kind. That is what makes them cheap
(they share a colour of `signs`), and what a sample says little about: a group of which it has few
rows has another curvature in the table. So the rows of a sample are given weights with which the
groups count as they do in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytensor
from pytensor.graph.traversal import ancestors
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.vi.additivity import PROBE_MODE
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.indices import streamed_indices
from pymc_streaming.vi.passes import Sample, Sum, Table, gradients_at
from pymc_streaming.vi.terms import Terms

__all__ = ["Groups", "WithRareGroups", "colours_of", "groups_of", "weighted"]

# Sets of random signs that must agree, beside those that tell any two elements apart.
_PROBES = 3
# Rows whose parameters are looked at one by one.
_ROWS = 8
# The most, and by its inverse the least, that a row counts.
_MOST_WEIGHT = 20.0


@dataclass(frozen=True)
class Groups:
    """Parameters of which each row has one.

    Parameters
    ----------
    elements : ndarray of int, shape (g, m)
        Elements of the draw: m for each of g groups.
    codes_of : callable
        From rows to their groups, numbers from 0 to g - 1.
    """

    elements: np.ndarray
    codes_of: Callable[[Mapping[str, np.ndarray]], np.ndarray]


def colours_of(
    terms: Terms,
    guide: Guide,
    location: np.ndarray,
    scale: float | np.ndarray,
    sample: Sample,
    random: np.random.Generator,
) -> np.ndarray:
    """A colour for each parameter, such that no row has two parameters of one colour.

    Only those of which codes in the data pick elements can be such: that no row of a sample has two
    of them does not say it of the table. Looked at are, for each of these variables, all of its
    elements together, and those with one index along its last axis. Where these add to each other's
    slopes, each element has its own colour.

    Parameters
    ----------
    terms : Terms
        The model.
    guide : Guide
        Says which elements of a draw are which variables.
    location : ndarray, shape (d,)
        Where slopes are compared.
    scale : float or ndarray, shape (d,)
        How far from there.
    sample : Sample
        Rows.
    random : numpy.random.Generator
        For the signs.

    Returns
    -------
    ndarray of int, shape (d,)
        Numbers from 0 on.
    """
    colours = np.zeros(guide.size, dtype=int)
    count = 0
    for name, where, shape, _ in guide.group.ordering.values():
        elements = np.arange(guide.size)[where]
        separate = np.arange(len(elements))
        candidates = []
        if name in terms.picked and len(elements) > 1:
            candidates.append(np.zeros_like(separate))
            if len(shape) > 1:
                candidates.append(separate % shape[-1])
        for candidate in candidates:
            classes = [elements[candidate == k] for k in range(candidate.max() + 1)]
            if all(_add_nothing(terms, location, scale, sample, each, random) for each in classes):
                break
        else:
            candidate = separate
        colours[where] = count + candidate
        count += int(candidate.max()) + 1
    return colours


def _add_nothing(
    terms: Terms,
    location: np.ndarray,
    scale: float | np.ndarray,
    sample: Sample,
    elements: np.ndarray,
    random: np.random.Generator,
) -> bool:
    """Whether the slope in each element is the same whatever the signs of the others."""
    numbers = np.arange(len(elements))
    bits = [1.0 - 2.0 * (numbers >> k & 1) for k in range(len(elements).bit_length())]
    randomly = list(random.choice([-1.0, 1.0], size=(_PROBES, len(elements))))
    found = []
    # Any two elements have the same sign in the first, and different ones in one of the bits.
    for probe in [np.ones(len(elements)), *bits, *randomly]:
        signs = np.zeros(len(location))
        signs[elements] = probe
        points = np.stack([location + scale * signs, location - scale * signs])
        slopes = gradients_at(terms, sample, points)
        found.append(((slopes[0] - slopes[1]) * signs)[elements])
    spread = np.ptp(found, axis=0).max()
    # Rounding, of the sums over all rows from which the differences are made.
    size = np.abs(slopes).max() + np.abs(found).max()
    return bool(spread <= 1e3 * np.finfo(pytensor.config.floatX).eps * size)


def groups_of(
    binding: Binding, terms: Terms, guide: Guide, colours: np.ndarray, sample: Sample
) -> list[Groups]:
    """The groups that codes in the data pick parameters of, as in ``effect[group]``."""
    indices = streamed_indices([binding.model.logp()], list(binding.placeholders.values()))
    free = set(binding.model.value_vars)
    # What a distribution looks up by its own parameters is no group.
    readers = [
        _reader(binding, index.index)
        for index in indices
        if free.isdisjoint(ancestors([index.index]))
    ]
    groups = []
    for _, where, shape, _ in guide.group.ordering.values():
        elements = np.arange(guide.size)[where]
        if len(elements) < 2 or len(np.unique(colours[elements])) == len(elements):
            continue
        each = elements.reshape(shape[0], -1)
        for codes_of in readers:
            if _pick(terms, guide, sample, each, codes_of(sample.rows)):
                groups.append(Groups(each, codes_of))
                break
    return groups


def _reader(
    binding: Binding, index: TensorVariable
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    function = pytensor.function([], index, mode=PROBE_MODE, on_unused_input="ignore")

    def codes_of(rows: Mapping[str, np.ndarray]) -> np.ndarray:
        with binding.in_placeholders(rows):
            return np.array(function())

    return codes_of


def _pick(
    terms: Terms, guide: Guide, sample: Sample, elements: np.ndarray, codes: np.ndarray
) -> bool:
    """Whether each row has the parameters that its code says, and no others of them."""
    if codes.shape != (sample.n_rows,) or codes.min() < 0 or codes.max() >= len(elements):
        return False
    for row in range(min(_ROWS, sample.n_rows)):
        alone = Sample({name: array[row : row + 1] for name, array in sample.rows.items()})
        slope = gradients_at(terms, alone, guide.location[None] + 0.01)[0]
        if set(np.flatnonzero(slope[elements].any(axis=1))) - {int(codes[row])}:
            return False
    return True


class WithRareGroups:
    """A table that, while it is gone over once, keeps rows of groups that a sample lacks.

    Without any, nothing would be known of what such a group has to do with other parameters.

    Parameters
    ----------
    table : Table
        The rows.
    groups : list of Groups
        What they belong to.
    sample : Sample
        Rows that are there already.

    Attributes
    ----------
    groups, sample
        As given.
    """

    def __init__(self, table: Table, groups: list[Groups], sample: Sample) -> None:
        self._table, self.groups, self.sample = table, groups, sample
        self._rare = _RareRows(groups, sample)

    @property
    def n_rows(self) -> int:
        """Of the table."""
        return self._table.n_rows

    def go_over(self, multiple: int, sums: Sequence[Sum]) -> None:
        """Add up over the table."""
        if self._rare.wanted:
            sums = [*sums, self._rare]
        self._table.go_over(multiple, sums)
        self._rare.wanted = False  # what is missing now has no row in the table

    def extended_sample(self) -> Sample:
        """The sample with the rows that were kept."""
        parts = self.sample.rows, self._rare.rows
        return Sample({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


class _RareRows:
    """The first row of each group that a sample lacks, as it is met.

    Parameters
    ----------
    groups : list of Groups
        What rows belong to.
    sample : Sample
        Rows that are there already.
    """

    def __init__(self, groups: list[Groups], sample: Sample) -> None:
        self._groups = groups
        self._missing = [
            np.bincount(each.codes_of(sample.rows), minlength=len(each.elements)) == 0
            for each in groups
        ]
        self.wanted = any(missing.any() for missing in self._missing)
        self.rows = {name: array[:0] for name, array in sample.rows.items()}

    def add(self, rows: dict[str, np.ndarray], weights: np.ndarray) -> None:  # noqa: ARG002
        """Keep those of some more rows."""
        for each, missing in zip(self._groups, self._missing, strict=True):
            if missing.any():
                codes, first = np.unique(each.codes_of(rows), return_index=True)
                # A code out of range makes the pass not finite, and is said then.
                wanted = missing[np.clip(codes, 0, len(missing) - 1)]
                wanted &= (codes >= 0) & (codes < len(missing))
                missing[codes[wanted]] = False
                for name, array in rows.items():
                    self.rows[name] = np.concatenate([self.rows[name], array[first[wanted]]])

    def state(self) -> dict[str, np.ndarray]:
        """Rows and groups."""
        missing = {f"missing/{i}": each for i, each in enumerate(self._missing)}
        return missing | {f"rows/{name}": array for name, array in self.rows.items()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from there."""
        self._missing = [state[f"missing/{i}"].copy() for i in range(len(self._missing))]
        self.rows = {name: state[f"rows/{name}"] for name in self.rows}


def weighted(
    sample: Sample, groups: list[Groups], of_sample: np.ndarray, of_table: np.ndarray
) -> Sample:
    """The sample with weights with which its groups have the curvatures of the table.

    Parameters
    ----------
    sample : Sample
        Rows.
    groups : list of Groups
        What the rows belong to.
    of_sample, of_table : ndarray, shape (d,)
        Curvatures, in the same units.

    References
    ----------
    Deming, W. E. and Stephan, F. F. (1940). On a least squares adjustment of a sampled frequency
    table when the expected marginal totals are known. *Annals of Mathematical Statistics* 11(4),
    427-444.
    """
    weights = np.ones(sample.n_rows)
    codes_of = [each.codes_of(sample.rows) for each in groups]
    for _ in range(3 if len(groups) > 1 else 1):
        for each, codes in zip(groups, codes_of, strict=True):
            found = of_sample[each.elements].sum(axis=1)
            wanted = of_table[each.elements].sum(axis=1)
            count = np.bincount(codes, minlength=len(found))
            mean = np.bincount(codes, weights, minlength=len(found)) / np.maximum(count, 1)
            with np.errstate(all="ignore"):
                factor = np.where((found > 0) & (mean > 0), wanted / found / mean, 1.0)
            factor = np.clip(np.nan_to_num(factor, nan=1.0), 1 / _MOST_WEIGHT, _MOST_WEIGHT)
            weights *= factor[codes]
    return Sample(sample.rows, np.clip(weights, 1 / _MOST_WEIGHT, _MOST_WEIGHT))
